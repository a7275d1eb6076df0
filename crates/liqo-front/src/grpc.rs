//! The front for gRPC: who calls, how often, for how long; health and reflection beside the service of a role.
//!
//! Keeps true: without a known caller there is the health of the service (`grpc.health.v1`) and nothing else; every call is
//! bounded in size, time and rate, and leaves one line in the log, target `audit`; lines about unknown callers are limited.
//! What a caller may do is decided by the service itself, which finds the [`Caller`] in the extensions of each request; a
//! caller that is let in keeps the place of its connection ([`Caller::keep`]). Other connections end after ten seconds, also
//! where they watch the health.

mod catalogue;
mod deadline;

use std::{
    collections::BTreeSet, convert::Infallible, future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration,
};

use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use liqo_kube::{
    access::{self, User, bearer},
    drain::Drain,
    rate::{Limiter, Rate, source},
    said,
    server::{self, BodyError, Limits, Peer, Reply, Seat},
    tokens::Unreviewed,
};
use prost_types::FileDescriptorSet;
use rustls::ServerConfig;
use tokio::net::TcpListener;
pub use tonic::Status;
use tonic::{Code, body::Body};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower_service::Service;

use crate::audit::Audit;

/// How often one caller may call, and all together: programs that follow a cluster call often.
const CALLER: Rate = Rate::new(2000, Duration::from_millis(1));
const ALL_CALLERS: Rate = Rate::new(10_000, Duration::from_micros(200));
/// How often one source may ask for the health or call without being known, and all together.
const STRANGER: Rate = Rate::new(60, Duration::from_millis(200));
const ALL_STRANGERS: Rate = Rate::new(600, Duration::from_millis(5));
/// Callers, and sources, whose calls are counted.
const COUNTED: usize = 4096;
/// Some connections for each source, because all clients of a node may seem to have one address, and some for all; calls of one
/// connection at the same time. Answers may be streams.
const LIMITS: Limits =
    Limits { connections: 1024, per_source: 64, answer: None, streams: Some(server::STREAMS), ..Limits::DEFAULT };
/// Time for the rest of a message that nobody reads.
const REST: Duration = Duration::from_secs(1);
/// Longest question about health or description, bytes. A service bounds its own messages.
const MESSAGE: usize = 4096;
/// The services that every server has beside its own.
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";

/// What somebody shows who calls.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Where the connection comes from, and its client certificate.
    pub peer: &'a Peer,
    /// The token in the metadata `authorization`.
    pub token: Option<&'a str>,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Somebody at a port of this process that the API server forwards, after it has reviewed the right to do so.
    Forwarded,
    /// A user of the cluster.
    User(User),
}

impl Who {
    /// The name under which calls are counted and logged.
    fn name(&self) -> &str {
        match self {
            Self::Forwarded => "forwarded port",
            Self::User(user) => &user.name,
        }
    }
}

/// A caller whom the front knows, in the extensions of each request of a service.
#[derive(Clone)]
pub struct Caller {
    /// Who calls.
    pub who: Who,
    seat: Option<Seat>,
}

impl Caller {
    /// The caller may call: the connection keeps its place, and gives way to no other connection.
    pub fn keep(&self) {
        if let Some(seat) = &self.seat {
            seat.keep();
        }
    }
}

/// How a role finds out who calls.
pub trait Identity: Send + Sync + 'static {
    /// The caller that shows these credentials, if the caller may make some call of the service. Callers have a limit of their own, and
    /// share a limit with each other: who may make no call at all is refused here, and takes nothing from them.
    ///
    /// # Errors
    /// `Unauthenticated` when nobody known calls, `PermissionDenied` for a user who may make no call, `Unavailable` when the API server
    /// does not say.
    fn identify(&self, shown: Credentials<'_>) -> impl Future<Output = Result<Who, Status>> + Send;
}

/// The user of the cluster with these credentials; a refusal says by `remedy` what to show.
///
/// # Errors
/// `Unauthenticated` without a valid token or certificate, `Unavailable` when the API server does not say.
pub async fn user(callers: &access::Callers, shown: Credentials<'_>, remedy: &str) -> Result<User, Status> {
    let user = callers.identify(shown.peer, shown.token).await.map_err(|error| match error {
        Unreviewed::Kube(error) => {
            Status::unavailable(format!("the API server did not say whose token it is: {error}"))
        }
        Unreviewed::TooMany(_) => Status::unavailable(error.to_string()),
    })?;
    let why = match shown.token {
        None => "no token was shown",
        Some(_) => "the token shown is none of this cluster, or for another audience",
    };
    user.ok_or_else(|| Status::unauthenticated(format!("{why}: {remedy}")))
}

/// Answers the calls of a service; shared by all connections.
type Answers = Arc<dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// A gRPC service of a role behind the front.
pub struct Grpc<I> {
    identity: Arc<I>,
    service: Answers,
    health: Answers,
    reflection: Answers,
    reporter: HealthReporter,
    /// Paths of the calls of the service.
    calls: BTreeSet<String>,
    names: Vec<String>,
    callers: Limiter<String>,
    strangers: Limiter<IpAddr>,
    audit: Audit,
}

impl<I: Identity> Grpc<I> {
    /// The service that `files` describe, for callers whom `identity` knows.
    ///
    /// # Errors
    /// A text that says what is wrong with the description.
    pub fn new<S>(service: S, files: FileDescriptorSet, identity: Arc<I>) -> Result<Self, String>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let reporter = HealthReporter::new();
        let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        let (calls, names) = (catalogue::calls(&files), catalogue::services(&files));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(files)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| format!("describing the service: {error}"))?;
        Ok(Self {
            identity,
            service: answers(service),
            health: answers(health.max_decoding_message_size(MESSAGE)),
            reflection: answers(reflection.max_decoding_message_size(MESSAGE)),
            reporter,
            calls,
            names,
            callers: Limiter::new(CALLER, ALL_CALLERS, COUNTED),
            strangers: Limiter::new(STRANGER, ALL_STRANGERS, COUNTED),
            audit: Audit::default(),
        })
    }

    /// Serves until `drain` closes; without `tls` in the clear. The certificate in `tls` may change at run time.
    pub async fn serve(self, listener: TcpListener, tls: Option<Arc<ServerConfig>>, drain: Drain) {
        for name in &self.names {
            self.reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        let front = Arc::new(self);
        let serving = Arc::clone(&front);
        let answer = move |request, peer| {
            let front = Arc::clone(&serving);
            async move { front.answer(request, peer).await }
        };
        server::serve_within(LIMITS, &drain, listener, tls, answer).await;
        // Clients that watch the health over an open connection choose another server.
        for name in front.names.iter().map(String::as_str).chain([""]) {
            front.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Reply> {
        let (path, address) = (request.uri().path().to_owned(), peer.address);
        let mut who = None;
        let limit = deadline::of(request.headers());
        let handled = tokio::time::timeout(limit, self.handle(request, &path, &peer, &mut who)).await;
        let late = |_| Err(Status::deadline_exceeded(format!("no answer within {} ms", limit.as_millis())));
        let response = handled.unwrap_or_else(late).unwrap_or_else(|refusal: Status| refusal.into_http());
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        let user = who.as_ref().map_or("", Who::name);
        if self.audit.tells(user, address) {
            let call = said::printable(&path);
            tracing::info!(target: "audit", user, source = %address, call, ?code, "call answered");
        }
        response.map(|body| body.map_err(BodyError::from).boxed_unsync())
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        path: &str,
        peer: &Peer,
        caller: &mut Option<Who>,
    ) -> Result<Response<Body>, Status> {
        let stranger = || self.strangers.take(source(peer.address.ip())).map_err(too_many);
        if path.starts_with(HEALTH) {
            return match stranger() {
                Ok(()) => Ok((self.health)(request.map(Body::new)).await),
                Err(why) => refused(request, why).await,
            };
        }
        let answers = match path {
            path if self.calls.contains(path) => &self.service,
            path if path.starts_with(REFLECTION) => &self.reflection,
            _ => return refused(request, Status::unimplemented("there is no such call")).await,
        };
        let shown = Credentials { peer, token: bearer(request.headers()) };
        let who = match self.identity.identify(shown).await {
            Ok(who) => who,
            Err(why) => return refused(request, stranger().err().unwrap_or(why)).await,
        };
        *caller = Some(who.clone());
        if let Err(why) = self.callers.take(who.name().to_owned()).map_err(too_many) {
            return refused(request, why).await;
        }
        let mut request = request.map(Body::new);
        let seat = request.extensions().get::<Seat>().cloned();
        request.extensions_mut().insert(Caller { who, seat });
        Ok(answers(request).await)
    }
}

/// Refuses a call whose message nobody reads. The rest of a short message is read away: the client may still be sending, and some clients
/// lose an answer that comes together with the reset of its stream (RFC 9113, section 8.1).
async fn refused<T>(request: Request<Incoming>, why: Status) -> Result<T, Status> {
    let rest = Limited::new(request.into_body(), MESSAGE).collect();
    let _ = tokio::time::timeout(REST, rest).await;
    Err(why)
}

fn too_many(wait: Duration) -> Status {
    Status::resource_exhausted(format!("too many calls, try again in {} s", wait.as_secs().saturating_add(1)))
}

fn answers<S>(service: S) -> Answers
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move { service.call(request).await.unwrap_or_else(|never| match never {}) })
    })
}
