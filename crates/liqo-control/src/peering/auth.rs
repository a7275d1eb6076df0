//! Role `auth-service`: the server at which a peer shows a token and is given an identity.
//!
//! `GET /ids` says who this cluster is, to anybody. `POST /identity/certificate` is limited ([`callers`]), read strictly, and
//! passed on to the controller manager ([`line`]), which judges, signs and answers (`peering/issuer.rs`).
//!
//! Keeps true: an attacker who takes this process over holds nothing but what passes through the process. Its ServiceAccount reads one
//! webhook configuration, and may write nothing. It never waits for the API server to answer an anonymous caller. What a peer
//! of Liqo 0.8.3 reads is as that version writes it, refusals too: text, no problem documents.
//!
//! Watches   `ValidatingWebhookConfiguration` `liqo-webhook`, for the authority of the controller manager.
//! Writes    nothing.
//! Removes   nothing.

mod callers;
mod line;
mod shown;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use liqo_api::{ClusterIdentity, names};
use liqo_front::open::{self, Said};
use liqo_kube::{
    args::RuntimeArgs,
    certs,
    drain::Patience,
    life::Life,
    refusals,
    role::Role,
    server::{self, Listen, Peer, Reply},
    told::Told,
    turns::Turns,
};

use self::{
    callers::{Caller, Callers},
    line::Line,
    shown::Showing,
};
use super::{
    issuer::{No, check},
    wire,
};
pub(super) use line::{FACTS, IDENTITY};

/// No request is longer, bytes.
pub(super) const LONGEST: usize = 64 * 1024;
/// Peers reach the service through a Service, whose endpoints change a moment after the signal.
const PEERS: Patience = Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(10) };
/// Pause between two questions about what to show and who is known. A new certificate is shown, and a new peer counted as one,
/// after this time at the latest; nothing else depends on the answer.
const PAUSE: Duration = Duration::from_secs(60);
/// Pause before a question that was not answered is asked again.
const SHORT_PAUSE: Duration = Duration::from_secs(10);
/// Pause before a question is asked again that was not answered, until there was a first answer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Flags of the authentication service. What Liqo 0.8.3 told it about granting is told the controller manager.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "liqo-auth-service",
    version,
    about = "Tells peers who this cluster is and passes their requests for an identity on to the controller manager"
)]
pub struct AuthArgs {
    /// How the own cluster is reached.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Namespace Liqo is installed in.
    #[arg(long, alias = "namespace", env = "POD_NAMESPACE", default_value = names::LIQO_NAMESPACE)]
    pub liqo_namespace: String,
    /// Host and port of the controller manager; empty: port 9443 of its Service.
    #[arg(long, default_value = "", value_name = "HOST:PORT")]
    pub controller_manager: String,
    /// File with the token the controller manager is shown.
    #[arg(long, default_value = names::IDENTITY_TOKEN, value_name = "FILE")]
    pub token_path: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = ":5000", value_name = "HOST:PORT")]
    pub address: String,
    /// Speak TLS.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_tls: bool,
    /// Certificate shown if there is such a file, instead of what the controller manager says.
    #[arg(long, default_value = "/certs/cert.pem", value_name = "FILE")]
    pub cert_path: PathBuf,
    /// Private key of the certificate shown.
    #[arg(long, default_value = "/certs/key.pem", value_name = "FILE")]
    pub key_path: PathBuf,
    /// Accepted for compatibility: the controller manager says who this cluster is.
    #[arg(long, default_value = "", hide = true)]
    pub cluster_id: String,
    /// Accepted for compatibility, like --cluster-id.
    #[arg(long, default_value = "", hide = true)]
    pub cluster_name: String,
    /// Not supported by this release: must be empty.
    #[arg(long, default_value = "", hide = true)]
    pub aws_access_key_id: String,
    /// Not supported by this release: must be empty.
    #[arg(long, default_value = "", hide = true)]
    pub aws_secret_access_key: String,
    /// Accepted for compatibility, without effect.
    #[arg(long, default_value = "", hide = true)]
    pub aws_region: String,
    /// Accepted for compatibility, without effect.
    #[arg(long, default_value = "", hide = true)]
    pub aws_cluster_name: String,
    /// Accepted for compatibility; watches need no resync.
    #[arg(long, default_value = "30s", hide = true)]
    pub resync_period: String,
}

impl Role for AuthArgs {
    const NAME: &'static str = "auth-service";
    const PATIENCE: Patience = PEERS;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let busy = life.busy();
        if !self.aws_access_key_id.is_empty() || !self.aws_secret_access_key.is_empty() {
            return Err(
                "--aws-access-key-id and --aws-secret-access-key: this release gives no IAM identities to peers; \
                        leave awsConfig of the chart empty"
                    .to_owned(),
            );
        }
        let cluster = life.home(&self.runtime, names::AUTH_SERVICE).await?;
        let line = Arc::new(Line::open(&cluster, &self));
        let address = self.address.parse::<Listen>()?;
        let showing = Showing::open(&self)?;
        let listener = address.bind().await?;
        let facts = first(&line).await;
        showing.show(facts.shown.as_ref())?;
        let tls = self.enable_tls.then(|| certs::server_config(showing.shown()));
        let callers = Arc::<Callers>::default();
        callers.learn(&facts.peers);
        life.spawn("facts", follow(Arc::clone(&line), showing, Arc::clone(&callers)));
        let context = Arc::new(Context { line, here: facts.cluster, callers, turns: Turns::of_processors() });
        let answer = move |request, peer| answer(Arc::clone(&context), request, peer);
        life.spawn("auth", open::serve(listener, tls, life.drain().clone(), answer));
        drop(busy);
        Ok(())
    }
}

/// The first answer of the controller manager; on a new cluster both start at the same time.
async fn first(line: &Line) -> wire::Facts {
    let told = Told::default();
    loop {
        match line.facts().await {
            Ok(facts) => return facts,
            Err(why) if told.is_news("", "", &why) => {
                tracing::info!(reason = why, "waiting for the controller manager");
            }
            Err(_) => {}
        }
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}

/// Shows whatever certificate is to be shown, and learns who is known, for ever. Who a cluster is never changes.
async fn follow(line: Arc<Line>, showing: Showing, callers: Arc<Callers>) {
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let facts = line.facts().await;
        pause = if facts.is_ok() { PAUSE } else { SHORT_PAUSE };
        match facts {
            Ok(facts) => {
                callers.learn(&facts.peers);
                if let Err(why) = showing.show(facts.shown.as_ref()) {
                    tracing::error!(reason = why, "certificate not shown");
                }
            }
            Err(why) => tracing::warn!(reason = why, "the controller manager does not answer"),
        }
    }
}

/// What every request needs.
struct Context {
    line: Arc<Line>,
    here: ClusterIdentity,
    callers: Arc<Callers>,
    /// Turns for reading requests.
    turns: Turns,
}

async fn answer(context: Arc<Context>, request: http::Request<Incoming>, peer: Peer) -> Said {
    let address = peer.address.ip();
    let mut who = String::new();
    let response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/ids") => match context.callers.asks_for_name(address) {
            Ok(()) => {
                let ClusterIdentity { cluster_id, cluster_name } = context.here.clone();
                server::json(StatusCode::OK, &wire::Ids { cluster_id, cluster_name })
            }
            Err(wait) => Refused::TooOften(wait).answer(),
        },
        (&Method::POST, "/identity/certificate") => match context.identity(request, address, &mut who).await {
            Ok(answer) => server::json(StatusCode::ACCEPTED, &answer),
            Err(refused) => refused.answer(),
        },
        (_, "/ids" | "/identity/certificate") => server::text(StatusCode::METHOD_NOT_ALLOWED, "wrong method"),
        _ => server::text(StatusCode::NOT_FOUND, "there is GET /ids and POST /identity/certificate"),
    };
    Said { who, response }
}

/// Why a request for an identity is not passed on, or not granted.
enum Refused {
    No(No),
    /// The caller asks too often; the time to wait.
    TooOften(Duration),
}

impl Refused {
    /// The answer to the caller; it is counted.
    fn answer(self) -> Response<Reply> {
        let status = match &self {
            Self::No(No(status, _)) => *status,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        refusals::count("authentication", refusals::reason_of(status.as_u16()));
        match self {
            Self::No(No(status, words)) => server::text(status, &words),
            Self::TooOften(wait) => server::too_many(wait),
        }
    }
}

impl From<No> for Refused {
    fn from(no: No) -> Self {
        Self::No(no)
    }
}

impl Context {
    /// The identity that is asked for; `who` becomes the ID of a cluster that has proved its key or is given the identity.
    async fn identity(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        address: IpAddr,
        who: &mut String,
    ) -> Result<wire::Answer, Refused> {
        let body = server::body(request, LONGEST).await;
        let body = body.map_err(|error| No(StatusCode::BAD_REQUEST, format!("reading the request: {error}")))?;
        let reader = Arc::clone(&self);
        let (caller, request) = self.turns.run(address, move || reader.read(&body, address)).await?;
        let granted = self.line.grant(caller, &request).await;
        if granted.is_ok() || caller == Caller::Peer {
            who.clone_from(&request.cluster.cluster_id);
        }
        Ok(granted?)
    }

    /// Who asks, and the request as it is passed on: what was read of it, written anew. The request is counted before its
    /// signatures are looked at, unless the caller may be a peer.
    fn read(&self, body: &[u8], address: IpAddr) -> Result<(Caller, wire::Request), Refused> {
        let mut request: wire::Request = serde_json::from_slice(body)
            .map_err(|error| No(StatusCode::BAD_REQUEST, format!("malformed request: {error}")))?;
        let stranger = || self.callers.is_stranger(address).map_err(Refused::TooOften);
        let is_named = self.callers.knows(&request.cluster.cluster_id);
        if !is_named {
            stranger()?;
        }
        check::claim(&request.cluster, &self.here)?;
        let csr = check::signing_request(&request.cluster, &request.certificate_signing_request)?;
        let caller = self.callers.judge(&request, &csr);
        match caller {
            Caller::Peer => self.callers.is_peer(&request.cluster.cluster_id).map_err(Refused::TooOften)?,
            Caller::Stranger if is_named => stranger()?,
            Caller::Stranger => {}
        }
        request.certificate_signing_request = check::encode(&csr);
        Ok((caller, request))
    }
}
