//! Sockets of the store.
//!
//! Keeps true: connections are bounded, and shared fairly by source ([`places`]); a head must come soon, and a connection
//! on which nothing moves in either direction is closed. When the process ends, requests under way may end first. Bodies
//! are streams here, larger than memory, so the server of the other roles, which reads each body whole, does not fit.

mod places;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::places::{Moved, Place, Places};
use crate::disk::Disk;

/// Time limit of the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;
/// Longest time in which no byte moves.
const SILENCE: Duration = Duration::from_secs(60);

/// What the sockets of the process have in common. Copies are the same.
#[derive(Clone, Default)]
pub(crate) struct Server {
    /// Clients are asked to go elsewhere.
    stopping: CancellationToken,
    /// No more connections are accepted.
    closing: CancellationToken,
    work: TaskTracker,
}

/// Begins to listen. Where the machine has no IPv6, all its addresses are those of IPv4.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let mut bound = TcpListener::bind(address).await;
    if bound.is_err() && address.is_ipv6() && address.ip().is_unspecified() {
        bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
    }
    bound.map_err(|error| format!("listening at {address}: {error}"))
}

impl Server {
    /// Serves a socket until the process ends.
    pub(crate) async fn serve<S, B>(self, listener: TcpListener, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let places = Places::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closing.cancelled() => return std::future::pending().await,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors or the like: a pause lets other connections end.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Some(place) = places.take(address.ip()) else {
                tracing::debug!(%address, "too many connections, this one is not served");
                continue;
            };
            let _ = stream.set_nodelay(true);
            self.work.spawn(connection(stream, service.clone(), place, self.closing.clone()));
        }
    }

    /// Serves `/healthz` and `/readyz`.
    pub(crate) async fn health(self, listener: TcpListener, disk: Arc<Disk>) {
        let stopping = self.stopping.clone();
        let answer = move |request: Request<Incoming>| {
            let (status, text) = match request.uri().path() {
                "/healthz" | "/livez" => (StatusCode::OK, "ok"),
                "/readyz" if stopping.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
                "/readyz" if !disk.is_usable() => (StatusCode::SERVICE_UNAVAILABLE, "the directory is gone"),
                "/readyz" => (StatusCode::OK, "ok"),
                _ => (StatusCode::NOT_FOUND, "there is /healthz and /readyz"),
            };
            let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
            *response.status_mut() = status;
            async move { Ok::<_, Infallible>(response) }
        };
        self.serve(listener, service_fn(answer)).await;
    }

    /// Says that the process is not ready, serves on for `accept`, then gives connections `finish` to end.
    pub(crate) async fn end(&self, accept: Duration, finish: Duration) {
        self.stopping.cancel();
        tokio::time::sleep(accept).await;
        self.closing.cancel();
        self.work.close();
        if tokio::time::timeout(finish, self.work.wait()).await.is_err() {
            tracing::info!(cut = self.work.len(), "requests that did not end are cut");
        }
    }
}

async fn connection<S, B>(stream: TcpStream, service: S, place: Place, closing: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = Watched { stream, moved: place.moved.clone() };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(LONGEST_HEAD);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = place.moved.silence(SILENCE) => return tracing::debug!("connection closed, nothing moved on it"),
        () = place.taken_away() => return tracing::debug!("connection closed, its place goes to another source"),
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended early");
    }
}

/// A connection that says when bytes move.
struct Watched {
    stream: TcpStream,
    moved: Moved,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.moved.now();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.moved.now();
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.moved.now();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
