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
    /// What is answered.
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
