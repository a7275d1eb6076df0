//! A small HTTPS server: HTTP/1.1 with upgrades, TLS with a certificate that can change at run time.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Whoever does not finish a handshake or a request head in this time is dropped.
const PATIENCE: Duration = Duration::from_secs(10);

/// What bodies fail with.
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

/// Serves connections for ever. Without `tls` it speaks plain HTTP.
pub async fn serve<F>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let tls = tls.map(TlsAcceptor::from);
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors or the like: wait for better times.
                tracing::warn!(error = %error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (tls, answer) = (tls.clone(), answer.clone());
        tokio::spawn(async move { connection(stream, address, tls, answer).await });
    }
}

async fn connection<F>(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let Some(tls) = tls else {
        return requests(stream, Peer { address, certificate: None }, answer).await;
    };
    match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.map(|certificate| certificate.clone().into_owned());
            requests(stream, Peer { address, certificate }, answer).await;
        }
        Ok(Err(error)) => tracing::debug!(%address, error = %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

async fn requests<S, F>(
    stream: S,
    peer: Peer,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request, peer.clone());
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 * 1024);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(error = %error, "connection ended early");
    }
}

/// An answer in plain text.
pub fn text(status: StatusCode, text: &str) -> Response<Reply> {
    whole(status, "text/plain; charset=utf-8", text.to_owned().into())
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

/// The body of a request, if it is no longer than `limit` bytes.
///
/// # Errors
/// When it is longer, or the connection broke.
pub async fn body(request: Request<Incoming>, limit: usize) -> Result<Bytes, BodyError> {
    Ok(Limited::new(request.into_body(), limit).collect().await?.to_bytes())
}

/// A socket address as flags write it: `host:port`, or `:port` for all interfaces.
///
/// # Errors
/// A text that names the value and what is allowed.
pub fn address(value: &str) -> Result<SocketAddr, String> {
    let full = if value.starts_with(':') { format!("0.0.0.0{value}") } else { value.to_owned() };
    full.parse().map_err(|_| format!("address {value:?} must look like 10.0.0.1:8080 or :8080"))
}
