//! Passes requests on to the other API server: answers as they come, and connections as they are.
//!
//! Exec, attach and port-forward speak the same bytes to a kubelet and to an API server once the
//! connection is upgraded. So nothing of them is understood here: the upgrade is asked for in the same words
//! there, and then bytes are copied both ways, each way until its own end.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use liqo_kube::{
    Cluster,
    drain::Hold,
    server::{BodyError, Reply, full},
};

use serde_json::Value;

use super::Refusal;

/// Copied at a time, in each direction.
const BUFFER: usize = 32 * 1024;

/// So long an answer may take to begin that has no reason to take long.
const PATIENCE: Duration = Duration::from_secs(15);

/// The answer there to a question that is answered at once.
pub(super) async fn get_soon(there: &Cluster, path: &str) -> Result<Response<Reply>, Refusal> {
    let answer = tokio::time::timeout(PATIENCE, get(there, path)).await;
    answer.unwrap_or_else(|_| Err(late()))
}

fn late() -> Refusal {
    unreachable(&format!("nothing within {} s", PATIENCE.as_secs()))
}

/// The same, as text; the whole answer comes in time.
pub(super) async fn text_soon(there: &Cluster, path: &str) -> Result<String, Refusal> {
    let body = get_soon(there, path).await?.into_body().collect();
    let body = tokio::time::timeout(PATIENCE, body).await.map_err(|_| late())?.map_err(|error| unreachable(&error))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// The answer there to a question, whenever it comes: a log may have nothing to say yet.
pub(super) async fn get(there: &Cluster, path: &str) -> Result<Response<Reply>, Refusal> {
    let request = Request::get(path).body(Body::empty()).map_err(|error| bad(&error))?;
    let answer = there.client().send(request).await.map_err(|error| unreachable(&error))?;
    passed(answer).await
}

/// A connection there with the protocol that is asked for here.
pub(super) async fn stream(
    there: &Cluster,
    path: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Reply>, Refusal> {
    let upgrade_here = hyper::upgrade::on(&mut request);
    let hold = request.extensions().get::<Hold>().cloned();
    let mut asked =
        Request::builder().method(request.method()).uri(path).body(Body::empty()).map_err(|error| bad(&error))?;
    *asked.headers_mut() = wanted_headers(request.headers());
    let mut answer = there.client().send(asked).await.map_err(|error| unreachable(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return passed(answer).await;
    }
    let upgrade_there = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    tokio::spawn(async move {
        splice(upgrade_here, upgrade_there).await;
        drop(hold);
    });
    Ok(response)
}

async fn splice(here: OnUpgrade, there: OnUpgrade) {
    let (here, there) = match tokio::try_join!(here, there) {
        Ok((here, there)) => (here, there),
        Err(error) => {
            tracing::debug!(error = %error, "connection not upgraded");
            return;
        }
    };
    let (mut here, mut there) = (TokioIo::new(here), TokioIo::new(there));
    if let Err(error) = tokio::io::copy_bidirectional_with_sizes(&mut here, &mut there, BUFFER, BUFFER).await {
        tracing::debug!(error = %error, "stream ended early");
    }
}

/// The headers about the connection and its upgrade. Headers that identify the user are not forwarded: to the provider the
/// virtual kubelet is the user.
fn wanted_headers(headers: &HeaderMap) -> HeaderMap {
    let wanted = |name: &HeaderName| {
        [header::CONNECTION, header::UPGRADE, header::CONTENT_TYPE].contains(name)
            || name.as_str() == "x-stream-protocol-version"
            || name.as_str().starts_with("sec-websocket-")
    };
    headers.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// No refusal of an API server is longer, in bytes.
const LONGEST: usize = 64 * 1024;

/// An answer from there, with its status, kind and body. A refusal is passed on in the words of the kubelet there: the API
/// server there has wrapped them into a `Status`, and the one here wraps what it is given once more.
async fn passed(answer: Response<Body>) -> Result<Response<Reply>, Refusal> {
    let (head, body) = answer.into_parts();
    if head.status.is_client_error() || head.status.is_server_error() {
        let body = Limited::new(body, LONGEST).collect().await;
        let body = body.map_err(|error| unreachable(&error))?.to_bytes();
        return Err(Refusal::new(head.status, words(&body)));
    }
    let mut response = Response::new(body.map_err(BodyError::from).boxed_unsync());
    *response.status_mut() = head.status;
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    Ok(response)
}

/// What a refusal says: the message of a `Status`, or else all of it.
fn words(body: &[u8]) -> String {
    let message =
        serde_json::from_slice::<Value>(body).ok().and_then(|status| Some(status.get("message")?.as_str()?.to_owned()));
    message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

fn bad(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("this cannot be asked for: {error}"))
}

fn unreachable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, format!("the cluster that runs the pod does not answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_kubelet() {
        let status =
            r#"{"kind":"Status","message":"previous terminated container \"c\" in pod \"p\" not found","code":400}"#;
        assert_eq!(words(status.as_bytes()), "previous terminated container \"c\" in pod \"p\" not found");
        for other in ["plain words", "{}", r#"{"message": 1}"#, "[", ""] {
            assert_eq!(words(other.as_bytes()), other);
        }
        assert_eq!(words(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn only_what_concerns_the_connection_is_passed_on() {
        let names = [
            "host",
            "authorization",
            "x-forwarded-for",
            "x-remote-user",
            "impersonate-user",
            "connection",
            "upgrade",
            "x-stream-protocol-version",
            "sec-websocket-key",
            "sec-websocket-protocol",
            "content-length",
        ];
        let mut headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), "x".parse().unwrap())).collect();
        headers.append("x-stream-protocol-version", "y".parse().unwrap());
        let wanted = wanted_headers(&headers);
        let mut kept: Vec<_> = wanted.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(
            kept,
            ["connection", "sec-websocket-key", "sec-websocket-protocol", "upgrade", "x-stream-protocol-version"]
        );
        assert_eq!(wanted.get_all("x-stream-protocol-version").iter().count(), 2, "every version that is offered");
    }

    /// Words of a refusal are those of the answer, whatever the answer is.
    #[test]
    fn fuzz_words() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "refusal", |bytes| {
            assert!(words(bytes).len() <= 3 * bytes.len(), "{:?}", words(bytes));
        });
    }
}
