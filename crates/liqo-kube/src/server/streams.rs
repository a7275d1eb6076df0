//! HTTP/2: a connection lasts, and carries many requests at the same time.
//!
//! Keeps true: a connection keeps its place only after a request for which the server says so; until then the connection
//! gives way to others, and ends after [`PATIENCE`]. What clients send without being read is bounded for each connection.

use std::{convert::Infallible, future::Future, pin::pin, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    PATIENCE, Peer, Reply, Sent, answered,
    places::{Doing, Place, Way},
};
use crate::drain::Drain;

/// Largest head of a request, bytes: the head holds a token.
const HEAD: u32 = 24 * 1024;
/// Bytes of one request, and of all requests of one connection, that are sent before the server reads.
const WINDOW: u32 = 64 * 1024;
const WINDOWS: u32 = 256 * 1024;
/// Interval of pings on a silent connection, and the time in which the client must answer one.
const ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The place of an HTTP/2 connection; each of its requests has the seat as an extension.
#[derive(Clone)]
pub struct Seat(Way);

impl Seat {
    /// The connection keeps its place from now on: the connection carried a request of an authorised caller.
    pub fn keep(&self) {
        if let Some(place) = self.0.place() {
            place.does(Doing::Answering);
        }
    }
}

/// Serves the requests of one connection, at most `at_once` at the same time.
pub(super) async fn serve<S, F>(
    stream: S,
    peer: Peer,
    (place, drain): (Place, Drain),
    at_once: u32,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let (seat, held) = (Seat(place.way()), drain.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(seat.clone());
        let (answer, peer, address, hold) = (answer.clone(), peer.clone(), peer.address, held.hold());
        async move {
            let response = answered(address, async { answer(request, peer).await }).await;
            Ok::<_, Infallible>(response.map(|inner| Sent { inner, _until_sent: hold }))
        }
    });
    let mut served = pin!(bounded(at_once).serve_connection(TokioIo::new(stream), service));
    let unknown = async {
        tokio::time::sleep(PATIENCE).await;
        if place.is_kept() {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = drain.closing() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = unknown => return,
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %error, "connection ended early");
    }
}

/// HTTP/2 with the bounds of this module, and so many requests of one connection at the same time.
fn bounded(at_once: u32) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).max_concurrent_streams(at_once).max_header_list_size(HEAD);
    http.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOWS);
    http.keep_alive_interval(ALIVE_INTERVAL).keep_alive_timeout(ALIVE_TIMEOUT);
    http
}
