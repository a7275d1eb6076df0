//! Asking: a small handle that connects when it is needed, again and again.

use std::{
    future::{Future, Ready, ready},
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::{
    BelongsRequest, BelongsResponse, GetHomePodIpRequest, GetHomePodIpResponse, MapRequest, MapResponse, UnmapRequest,
    UnmapResponse,
};

/// How long a call may take, connecting included, unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(5);
/// While a call waits, a connection that shows no life for this long plus [`ALIVE_TIMEOUT`] is given up, so that the
/// next call makes a new one: the server's pod may be gone without a word.
const ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A call of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Under which address must the peer use a local endpoint?
    MapEndpointIp,
    /// The peer no longer uses the endpoint.
    UnmapEndpointIp,
    /// Under which address do we reach a pod of the peer?
    GetHomePodIp,
    /// Does an address lie in our pod network?
    BelongsToPodCidr,
}

impl Call {
    /// All calls.
    pub const ALL: [Self; 4] = [Self::MapEndpointIp, Self::UnmapEndpointIp, Self::GetHomePodIp, Self::BelongsToPodCidr];

    /// The path of the call on the wire.
    pub fn path(self) -> &'static str {
        match self {
            Self::MapEndpointIp => "/ipam/MapEndpointIP",
            Self::UnmapEndpointIp => "/ipam/UnmapEndpointIP",
            Self::GetHomePodIp => "/ipam/GetHomePodIP",
            Self::BelongsToPodCidr => "/ipam/BelongsToPodCIDR",
        }
    }

    /// The name of the call on the wire.
    pub fn name(self) -> &'static str {
        self.path().strip_prefix("/ipam/").unwrap_or_default()
    }
}

/// A call that brought no answer: which one, for what, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} of {argument}: {message}", .call.name())]
pub struct IpamError {
    call: Call,
    argument: String,
    code: Code,
    message: String,
}

impl IpamError {
    /// The call that failed.
    pub fn call(&self) -> Call {
        self.call
    }

    /// What was asked for, as people read it.
    pub fn argument(&self) -> &str {
        &self.argument
    }

    /// What the server said, without the call and its argument.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Nobody answered: the service is being started, or away. Ask again.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted)
    }

    /// The question itself is wrong; asking again will not help. A server of Liqo 0.8.3 never says so: all its
    /// errors are "unknown", for which this is `false`.
    pub fn is_invalid(&self) -> bool {
        matches!(self.code, Code::InvalidArgument | Code::Unimplemented)
    }
}

/// Asks an address management. Copies share one connection, made at the first call and again after it broke.
///
/// Must be made inside a tokio runtime.
#[derive(Clone, Debug)]
pub struct IpamClient {
    channel: Channel,
    deadline: Duration,
    token: Option<PathBuf>,
}

impl IpamClient {
    /// A client of the service at `host:port` (an IPv6 address in brackets). Nothing is sent yet.
    ///
    /// # Errors
    /// A text that says why the address makes no sense.
    pub fn new(address: &str) -> Result<Self, String> {
        let endpoint = endpoint(address)?.connect_timeout(DEADLINE);
        Ok(Self { channel: endpoint.connect_lazy(), deadline: DEADLINE, token: None })
    }

    /// A client on a connection that is already open, like a forwarded port. It lives as long as the connection.
    pub fn over<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let endpoint = with_life(Endpoint::from_static("http://ipam"));
        Self { channel: endpoint.connect_with_connector_lazy(Once::new(stream)), deadline: DEADLINE, token: None }
    }

    /// The same client, with another limit for each call.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same client, showing the token in `file`, which is read at each call: tokens are renewed. Without the file, no token
    /// is shown.
    #[must_use]
    pub fn with_token(self, file: impl Into<PathBuf>) -> Self {
        Self { token: Some(file.into()), ..self }
    }

    fn bearer(&self) -> Option<AsciiMetadataValue> {
        let token = std::fs::read_to_string(self.token.as_ref()?).ok()?;
        let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", token.trim())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The address under which the peer `cluster_id` must use the local endpoint `ip`. Asking twice is asking once.
    ///
    /// # Errors
    /// When there is no answer, or the peer has not yet said how it sees our networks.
    pub async fn map_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<IpAddr, IpamError> {
        let request = MapRequest { cluster_id: cluster_id.to_owned(), ip: ip.to_string() };
        let asked = Asked::new(Call::MapEndpointIp, about(cluster_id, ip));
        let answer: MapResponse = self.ask(&asked, request).await?;
        asked.address(&answer.ip)
    }

    /// The peer `cluster_id` no longer uses the local endpoint `ip`. Saying so twice is saying it once.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn unmap_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<(), IpamError> {
        let request = UnmapRequest { cluster_id: cluster_id.to_owned(), ip: ip.to_string() };
        let asked = Asked::new(Call::UnmapEndpointIp, about(cluster_id, ip));
        self.ask::<_, UnmapResponse>(&asked, request).await.map(drop)
    }

    /// The address under which this cluster reaches the pod `ip` of the peer `cluster_id`.
    ///
    /// # Errors
    /// When there is no answer, or the peer's networks are not known yet.
    pub async fn home_pod_ip(&self, cluster_id: &str, ip: IpAddr) -> Result<IpAddr, IpamError> {
        let request = GetHomePodIpRequest { cluster_id: cluster_id.to_owned(), ip: ip.to_string() };
        let asked = Asked::new(Call::GetHomePodIp, about(cluster_id, ip));
        let answer: GetHomePodIpResponse = self.ask(&asked, request).await?;
        asked.address(&answer.home_ip)
    }

    /// Whether `ip` lies in the pod network of this cluster.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn belongs_to_pod_cidr(&self, ip: IpAddr) -> Result<bool, IpamError> {
        let asked = Asked::new(Call::BelongsToPodCidr, format!("address {ip}"));
        let answer: BelongsResponse = self.ask(&asked, BelongsRequest { ip: ip.to_string() }).await?;
        Ok(answer.belongs)
    }

    async fn ask<Q, A>(&self, asked: &Asked, question: Q) -> Result<A, IpamError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        let mut request = Request::new(question);
        request.set_timeout(self.deadline);
        if let Some(token) = self.bearer() {
            request.metadata_mut().insert("authorization", token);
        }
        let answered = async {
            grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
            grpc.unary(request, PathAndQuery::from_static(asked.call.path()), ProstCodec::<Q, A>::default()).await
        };
        match tokio::time::timeout(self.deadline, answered).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(asked.failed(code(&status), told(&status))),
            Err(_) => {
                let text = format!("no answer within {} ms", self.deadline.as_millis());
                Err(asked.failed(Code::DeadlineExceeded, text))
            }
        }
    }
}

/// What a call was about, for its errors.
struct Asked {
    call: Call,
    argument: String,
}

impl Asked {
    fn new(call: Call, argument: String) -> Self {
        Self { call, argument }
    }

    fn failed(&self, code: Code, message: String) -> IpamError {
        IpamError { call: self.call, argument: self.argument.clone(), code, message }
    }

    fn address(&self, text: &str) -> Result<IpAddr, IpamError> {
        text.parse().map_err(|_| self.failed(Code::Internal, format!("the answer {text:?} is not an IP address")))
    }
}

fn about(cluster_id: &str, ip: IpAddr) -> String {
    format!("address {ip} for cluster {cluster_id}")
}

fn endpoint(address: &str) -> Result<Endpoint, String> {
    let wrong = || format!("IPAM address {address:?} must look like liqo-network-manager.liqo:6000");
    let uri: Uri = format!("http://{address}").parse().map_err(|_| wrong())?;
    if uri.port().is_none() || uri.path() != "/" || uri.query().is_some() {
        return Err(wrong());
    }
    Ok(with_life(Endpoint::from(uri)))
}

fn with_life(endpoint: Endpoint) -> Endpoint {
    endpoint.http2_keep_alive_interval(ALIVE_INTERVAL).keep_alive_timeout(ALIVE_TIMEOUT).tcp_nodelay(true)
}

/// The library calls a connection that breaks during a call "unknown", with the reason as its source; a server's
/// "unknown" has no source.
fn code(status: &Status) -> Code {
    let broken = status.code() == Code::Unknown && std::error::Error::source(status).is_some();
    if broken { Code::Unavailable } else { status.code() }
}

/// A status in words; what went wrong with the connection is in its sources.
fn told(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    if text.is_empty() { status.code().description().to_owned() } else { text }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Gives one open stream to whoever connects first, and an error afterwards.
struct Once<S>(Arc<Mutex<Option<S>>>);

impl<S> Once<S> {
    fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }
}

impl<S> Service<Uri> for Once<S> {
    type Response = TokioIo<S>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<S>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the forwarded connection has been closed");
        ready(stream.map(TokioIo::new).ok_or_else(closed))
    }
}

/// The client is used by tasks that move between threads.
const _: fn() = || {
    fn is_send<F: Future + Send>(_: impl FnOnce(&'static IpamClient) -> F) {}
    is_send(|client| client.belongs_to_pod_cidr(IpAddr::from([0, 0, 0, 0])));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        for good in ["liqo-network-manager.liqo:6000", "10.0.0.1:1", "[fd00::1]:6000", "127.0.0.1:65535"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "host", "http://host:1", "host:1/path", "host:", "fd00::1", "host:70000"] {
            assert!(endpoint(bad).unwrap_err().contains("must look like"), "{bad}");
        }
    }

    #[test]
    fn paths_are_those_of_the_service_without_package() {
        let names: Vec<_> = Call::ALL.map(Call::name).to_vec();
        assert_eq!(names, ["MapEndpointIP", "UnmapEndpointIP", "GetHomePodIP", "BelongsToPodCIDR"]);
    }
}
