//! The front where callers are no users of the cluster, like the clusters that peer with it: the role knows its callers by
//! itself, and its process needs no right to ask the API server about them.
//!
//! Keeps true: every request is bounded in size ([`server::body`]) and time, and leaves a line in the log, target `audit`, but for
//! the limit on lines about unknown callers. What is answered is the role's alone: callers of Liqo 0.8.3 know no problem documents.

use std::{future::Future, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use liqo_kube::{
    drain::Drain,
    said,
    server::{self, Limits, Peer, Reply},
};
use rustls::ServerConfig;
use tokio::net::TcpListener;

use crate::audit::Audit;

/// How long a request may take, from its head until its answer begins.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// An answer.
pub struct Said {
    /// Who is answered, as far as the caller has proved it; else empty.
    pub who: String,
    /// The answer.
    pub response: Response<Reply>,
}

/// Serves until `drain` closes; without `tls` in the clear.
pub async fn serve<F>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    drain: Drain,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Said> + Send + 'static,
{
    let audit = Arc::<Audit>::default();
    let told = move |request: Request<Incoming>, peer: Peer| {
        let (method, path, source) =
            (said::method(request.method()), said::printable(request.uri().path()), peer.address);
        let (answered, audit) = (answer(request, peer), Arc::clone(&audit));
        async move {
            let late = |_| Said { who: String::new(), response: late() };
            let Said { who, response } = tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(late);
            if audit.tells(&who, source) {
                let status = response.status().as_u16();
                tracing::info!(target: "audit", user = who, %source, %method, path, status, "request answered");
            }
            response
        }
    };
    server::serve_within(Limits::DEFAULT, &drain, listener, tls, told).await;
}

fn late() -> Response<Reply> {
    server::text(StatusCode::SERVICE_UNAVAILABLE, &format!("no answer within {} s, try again", PATIENCE.as_secs()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    /// Peers of Liqo 0.8.3 read answers and refusals as that version writes them.
    #[tokio::test]
    async fn an_answer_is_sent_as_the_role_says_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |request: Request<Incoming>, _peer| async move {
            let response = match request.uri().path() {
                "/ids" => server::json(StatusCode::OK, &json!({"clusterId": "1", "clusterName": "rome"})),
                _ => server::text(StatusCode::FORBIDDEN, "the token is wrong"),
            };
            Said { who: String::new(), response }
        };
        tokio::spawn(serve(listener, None, Drain::default(), answer));
        for (path, status, kind, body) in [
            ("/ids", "200 OK", "application/json", r#"{"clusterId":"1","clusterName":"rome"}"#),
            ("/other", "403 Forbidden", "text/plain; charset=utf-8", "the token is wrong"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, sent) = answer.split_once("\r\n\r\n").unwrap();
            let mut lines: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
            lines.sort_unstable();
            let (length, kind) = (format!("content-length: {}", body.len()), format!("content-type: {kind}"));
            let first = format!("HTTP/1.1 {status}");
            assert_eq!((lines, sent), (vec![first.as_str(), "connection: close", &length, &kind], body), "{path}");
        }
    }
}
