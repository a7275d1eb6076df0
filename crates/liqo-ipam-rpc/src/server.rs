//! Answering: what an address management must know, and the service on the wire that asks it.

use std::{
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{
    Status,
    body::Body,
    server::{Grpc, UnaryService},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::{
    BelongsRequest, BelongsResponse, Call, GetHomePodIpRequest, GetHomePodIpResponse, MapRequest, MapResponse,
    UnmapRequest, UnmapResponse,
};

/// Longest message that is read, bytes: a question has a few dozen.
const MESSAGE: usize = 64 * 1024;

/// Why there is no answer, with one sentence that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The question makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The peer is not known here.
    #[error("{0}")]
    Unknown(String),
    /// It will be known, ask again.
    #[error("{0}")]
    NotYet(String),
    /// There is no address left.
    #[error("{0}")]
    Exhausted(String),
    /// The caller has shown no valid token.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller has no right to ask this question.
    #[error("{0}")]
    Forbidden(String),
    /// The memory of the address management cannot be read or written now, ask again.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(text) => Self::invalid_argument(text),
            Refusal::Unknown(text) => Self::not_found(text),
            Refusal::NotYet(text) => Self::failed_precondition(text),
            Refusal::Exhausted(text) => Self::resource_exhausted(text),
            Refusal::Unauthenticated(text) => Self::unauthenticated(text),
            Refusal::Forbidden(text) => Self::permission_denied(text),
            Refusal::Unavailable(text) => Self::unavailable(text),
        }
    }
}

/// What a question is about, as far as the right to ask depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The peer; none for a question that concerns no peer.
    pub cluster_id: Option<&'a str>,
    /// The local endpoint that an answer would make reachable for the peer (`MapEndpointIP` with a valid address).
    pub exported: Option<IpAddr>,
}

/// An address management, as the service shows it. Cluster IDs are never empty, addresses are valid.
pub trait Ipam: Send + Sync + 'static {
    /// Who asks, as the server on which the service runs puts it into the extensions of each request.
    type Caller: Clone + Send + Sync + 'static;
    /// Whether the caller may ask about this subject.
    fn admit(&self, caller: &Self::Caller, subject: Subject<'_>) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// The address under which the peer must use the local endpoint `ip`. The same question has the same answer.
    fn map_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> impl Future<Output = Result<IpAddr, Refusal>> + Send;
    /// The peer no longer uses the local endpoint `ip`; one that was never mapped is fine.
    fn unmap_endpoint_ip(&self, cluster_id: &str, ip: IpAddr) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// The address under which this cluster reaches the pod `ip` of the peer.
    fn home_pod_ip(&self, cluster_id: &str, ip: IpAddr) -> impl Future<Output = Result<IpAddr, Refusal>> + Send;
    /// Whether `ip` lies in the pod network of this cluster.
    fn belongs_to_pod_cidr(&self, ip: IpAddr) -> impl Future<Output = Result<bool, Refusal>> + Send;
}

/// The service on the wire, for a server of gRPC.
pub struct Answers<I>(Arc<I>);

impl<I: Ipam> Answers<I> {
    /// The service, as this address management answers.
    pub fn new(ipam: Arc<I>) -> Self {
        Self(ipam)
    }
}

impl<I> Clone for Answers<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I: Ipam> Service<Request<Body>> for Answers<I> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answers = self.clone();
        let call = Call::ALL.into_iter().find(|call| call.path() == request.uri().path());
        Box::pin(async move {
            Ok(match call {
                Some(Call::MapEndpointIp) => unary::<MapRequest, _>(answers, request).await,
                Some(Call::UnmapEndpointIp) => unary::<UnmapRequest, _>(answers, request).await,
                Some(Call::GetHomePodIp) => unary::<GetHomePodIpRequest, _>(answers, request).await,
                Some(Call::BelongsToPodCidr) => unary::<BelongsRequest, _>(answers, request).await,
                None => Status::unimplemented("there is no such call in the service ipam").into_http(),
            })
        })
    }
}

/// A question, and how an address management answers it.
trait Question<I>: prost::Message + Default + Send + Sync + Sized + 'static {
    type Answer: prost::Message + Send + Sync + 'static;
    fn subject(&self) -> Subject<'_>;
    fn answer(self, ipam: &I) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;
}

impl<I: Ipam> Question<I> for MapRequest {
    type Answer = MapResponse;
    fn subject(&self) -> Subject<'_> {
        Subject { cluster_id: Some(&self.cluster_id), exported: self.ip.parse().ok() }
    }
    async fn answer(self, ipam: &I) -> Result<MapResponse, Refusal> {
        let ip = ipam.map_endpoint_ip(cluster(&self.cluster_id)?, address(&self.ip)?).await?;
        Ok(MapResponse { ip: ip.to_string() })
    }
}

impl<I: Ipam> Question<I> for UnmapRequest {
    type Answer = UnmapResponse;
    fn subject(&self) -> Subject<'_> {
        Subject { cluster_id: Some(&self.cluster_id), exported: None }
    }
    async fn answer(self, ipam: &I) -> Result<UnmapResponse, Refusal> {
        ipam.unmap_endpoint_ip(cluster(&self.cluster_id)?, address(&self.ip)?).await?;
        Ok(UnmapResponse {})
    }
}

impl<I: Ipam> Question<I> for GetHomePodIpRequest {
    type Answer = GetHomePodIpResponse;
    fn subject(&self) -> Subject<'_> {
        Subject { cluster_id: Some(&self.cluster_id), exported: None }
    }
    async fn answer(self, ipam: &I) -> Result<GetHomePodIpResponse, Refusal> {
        let ip = ipam.home_pod_ip(cluster(&self.cluster_id)?, address(&self.ip)?).await?;
        Ok(GetHomePodIpResponse { home_ip: ip.to_string() })
    }
}

impl<I: Ipam> Question<I> for BelongsRequest {
    type Answer = BelongsResponse;
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
    async fn answer(self, ipam: &I) -> Result<BelongsResponse, Refusal> {
        Ok(BelongsResponse { belongs: ipam.belongs_to_pod_cidr(address(&self.ip)?).await? })
    }
}

fn cluster(id: &str) -> Result<&str, Refusal> {
    if id.is_empty() { Err(Refusal::Invalid("the cluster ID is empty".to_owned())) } else { Ok(id) }
}

fn address(text: &str) -> Result<IpAddr, Refusal> {
    text.parse().map_err(|_| Refusal::Invalid(format!("{text:?} is not an IP address")))
}

/// One question on its way to the address management.
struct Asked<I>(Arc<I>);

impl<I: Ipam, Q: Question<I>> UnaryService<Q> for Asked<I> {
    type Response = Q::Answer;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Q::Answer>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let ipam = Arc::clone(&self.0);
        Box::pin(async move {
            let caller = request.extensions().get::<I::Caller>().cloned();
            let caller = caller.ok_or_else(|| Status::internal("the server does not say who calls"))?;
            let question = request.into_inner();
            ipam.admit(&caller, question.subject()).await?;
            let answered = question.answer(&ipam).await;
            Ok(tonic::Response::new(answered?))
        })
    }
}

async fn unary<Q: Question<I>, I: Ipam>(answers: Answers<I>, request: Request<Body>) -> Response<Body> {
    let mut grpc = Grpc::new(ProstCodec::<Q::Answer, Q>::default()).max_decoding_message_size(MESSAGE);
    grpc.unary(Asked(answers.0), request).await
}
