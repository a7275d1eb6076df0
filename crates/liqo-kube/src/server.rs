//! A small HTTPS server: HTTP/1.1 with upgrades, or HTTP/2, and TLS with a certificate that can change at run time.
//!
//! Keeps true: an honest client is answered soon, whatever other clients send. Connections are counted, by source and in
//! total; bodies are bounded in size, time and memory. When no place is left, the connection that has waited longest is
//! closed. Upgraded connections are not counted: their owners limit them.

mod clients;
mod linger;
mod listen;
mod places;
mod streams;

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

pub use self::{
    clients::{AUTHENTICATION, Authorities, serve_known, serve_users},
    listen::Listen,
    streams::Seat,
};
use self::{
    linger::{Linger, Lingering},
    places::{Doing, Place, Places, Way},
};
use crate::{
    drain::{Drain, Hold},
    guard::guarded,
};

/// Time limit of a handshake, of a request head, of a request body, and of the silence between two requests. A connection over
/// the limit is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest silence within a request body.
const SILENCE: Duration = Duration::from_secs(3);

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections, besides upgraded ones.
    pub connections: usize,
    /// Connections of one source: an address, or a /64 of IPv6.
    pub per_source: usize,
    /// Bytes of all request bodies that are being read, or answered. By HTTP/2 the windows of each connection bound them instead.
    pub bodies: usize,
    /// How long a request may take, from its head to the end of its answer, without the time its body takes; `None`
    /// where answers are streams.
    pub answer: Option<Duration>,
    /// Requests of one connection at the same time, by HTTP/2. `None`: one after the other, by HTTP/1.1.
    pub streams: Option<u32>,
}

/// The fewest requests of one connection that an HTTP/2 server takes at the same time. Clients send that many before they know the
/// server's limit, and a server with a lower limit refuses the rest of them (RFC 9113, section 6.5.2: no fewer than 100).
pub const STREAMS: u32 = 100;

impl Limits {
    /// Enough for an API server that asks about 200 writes at once, as many as an API server processes at once, and within
    /// the memory of a small process.
    pub const DEFAULT: Self = Self {
        connections: 512,
        per_source: 256,
        bodies: 64 * 1024 * 1024,
        answer: Some(Duration::from_secs(60)),
        streams: None,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The error of a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub type Reply = UnsyncBoxBody<Bytes, BodyError>;

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// The verified client certificate, if one was shown and the server asks for them.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Serves connections until the process ends, within the default [`Limits`]. Without `tls` the server speaks plain HTTP.
pub async fn serve<F>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    serve_within(Limits::default(), &Drain::default(), listener, tls, answer).await;
}

/// [`serve`], within other limits, until `drain` closes. An answer that panics is an error of that request; the server goes on.
pub async fn serve_within<F>(
    limits: Limits,
    drain: &Drain,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let (tls, places) = (tls.map(|tls| acceptor(tls, limits)), Places::new(limits));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.closing() => return,
        };
        let (stream, address) = match accepted {
            // A client of IPv4 at a socket of both families is the client at its IPv4 address.
            Ok((stream, address)) => (stream, SocketAddr::new(address.ip().to_canonical(), address.port())),
            Err(error) => {
                // Out of file descriptors or the like: a pause lets other connections end.
                tracing::warn!(error = %error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Some(place) = places.take(address.ip()) else {
            tracing::debug!(%address, "too many connections, this one is not served");
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (tls, answer, drain) = (tls.clone(), answer.clone(), drain.clone());
        tokio::spawn(async move {
            let served = guarded("connection", connection(stream, address, tls, (place.clone(), drain), answer));
            tokio::select! {
                outcome = served => {
                    if let Err(panic) = outcome {
                        tracing::error!(%address, error = %panic, "connection ended");
                    }
                }
                () = place.until_cut() => tracing::debug!(%address, "connection ended for others, or overdue"),
            }
        });
    }
}

/// Clients are offered the version of HTTP that the server speaks.
fn acceptor(tls: Arc<ServerConfig>, limits: Limits) -> TlsAcceptor {
    let mut tls = Arc::unwrap_or_clone(tls);
    tls.alpn_protocols = vec![if limits.streams.is_some() { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    TlsAcceptor::from(Arc::new(tls))
}

async fn connection<F>(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    life: (Place, Drain),
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let Some(tls) = tls else {
        return speak(stream, Peer { address, certificate: None }, life, answer).await;
    };
    match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.map(|certificate| certificate.clone().into_owned());
            speak(stream, Peer { address, certificate }, life, answer).await;
        }
        Ok(Err(error)) => tracing::debug!(%address, error = %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

async fn speak<S, F>(
    stream: S,
    peer: Peer,
    life: (Place, Drain),
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    match life.0.streams() {
        None => requests(stream, peer, life, answer).await,
        Some(at_once) => streams::serve(stream, peer, life, at_once, answer).await,
    }
}

/// The answer to one request; an answer that panics is an error of the request.
async fn answered(address: SocketAddr, answer: impl Future<Output = Response<Reply>>) -> Response<Reply> {
    guarded("request", answer).await.unwrap_or_else(|panic| {
        tracing::error!(%address, error = %panic, "request not answered");
        text(StatusCode::INTERNAL_SERVER_ERROR, "this request cannot be answered")
    })
}

async fn requests<S, F>(
    stream: S,
    peer: Peer,
    (place, drain): (Place, Drain),
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let linger = Linger::default();
    let stream = Lingering::new(stream, linger.clone());
    let held = drain.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        place.does(Doing::Answering);
        request.extensions_mut().insert(place.way());
        request.extensions_mut().insert(linger.clone());
        request.extensions_mut().insert(held.hold());
        let sending = Sending { place: place.clone(), _hold: held.hold() };
        let (answer, peer, address) = (answer.clone(), peer.clone(), peer.address);
        async move {
            let response = answered(address, async { answer(request, peer).await }).await;
            Ok::<_, Infallible>(response.map(|inner| Sent { inner, _until_sent: sending }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 * 1024);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = drain.closing() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %error, "connection ended early");
    }
}

/// Marks a request as being answered; when dropped, the connection waits for its next request.
struct Sending {
    place: Place,
    _hold: Hold,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.place.does(Doing::Waiting);
    }
}

/// The body of an answer on its way, and what is dropped after the answer.
struct Sent<G> {
    inner: Reply,
    _until_sent: G,
}

impl<G: Unpin> Body for Sent<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The answer with something that is dropped after the last byte of the answer was sent.
pub fn until_sent<G: Send + Unpin + 'static>(response: Response<Reply>, guard: G) -> Response<Reply> {
    response.map(|inner| Sent { inner, _until_sent: guard }.boxed_unsync())
}

/// The answer to a caller that asks too often: 429, and the time to wait.
pub fn too_many(wait: Duration) -> Response<Reply> {
    let seconds = wait.as_secs().saturating_add(1);
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, &format!("too many requests, try again in {seconds} s"));
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

/// An answer in plain text.
pub fn text(status: StatusCode, text: &str) -> Response<Reply> {
    whole(status, "text/plain; charset=utf-8", text.to_owned().into())
}

/// A page of metrics in the text format of Prometheus.
pub fn metrics(text: String) -> Response<Reply> {
    whole(StatusCode::OK, crate::metrics::CONTENT_TYPE, text.into())
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Reply> {
    whole(status, "application/json", serde_json::to_vec(value).expect("an answer is JSON").into())
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Reply> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// A body known in full.
pub fn full(body: Bytes) -> Reply {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// The body of a request, if the body has at most `limit` bytes and arrives in time. A body whose announced length is over the
/// limit is not read.
///
/// # Errors
/// When it is longer, is too slow, had to give way to others, or the connection broke.
pub async fn body(request: Request<Incoming>, limit: usize) -> Result<Bytes, BodyError> {
    let place = request.extensions().get::<Way>().and_then(Way::place);
    let linger = request.extensions().get::<Linger>().cloned().unwrap_or_default();
    if let Some(place) = &place {
        place.does(Doing::Waiting);
    }
    let read = tokio::time::timeout(PATIENCE, read(request.into_body(), limit, place.as_ref())).await;
    if let Some(place) = &place {
        place.does(Doing::Answering);
    }
    let body = read.unwrap_or_else(|_| Err(format!("the body did not come within {} s", PATIENCE.as_secs()).into()));
    if body.is_err() {
        linger.wanted();
    }
    body
}

async fn read(mut body: Incoming, limit: usize, place: Option<&Place>) -> Result<Bytes, BodyError> {
    let longer = || BodyError::from(format!("the body is longer than {limit} bytes"));
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(longer());
    }
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let frame = frame.map_err(|_| format!("the body stopped for {} s", SILENCE.as_secs()))?;
        let Some(frame) = frame.transpose()? else { return Ok(all.freeze()) };
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > limit {
            return Err(longer());
        }
        if place.is_some_and(|place| !place.reads(data.len())) {
            return Err("too many long requests at once, try again".into());
        }
        all.extend_from_slice(&data);
    }
}

/// The socket under an upgraded connection of a server without TLS, and the bytes that the client sent after its request. `None`
/// under TLS.
pub fn socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Lingering<TcpStream>>>().ok()?;
    Some((parts.io.into_inner().into_inner(), parts.read_buf))
}
