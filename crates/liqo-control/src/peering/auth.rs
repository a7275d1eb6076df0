//! Role `auth-service`: the door at which a peer shows a token and is given an identity.
//!
//! `GET /ids` says who this cluster is, to anybody. `POST /identity/certificate` checks the claim and the signing request
//! ([`check`]), then the token or the proof of the key before, makes room for the peer and signs ([`issue`]).
//!
//! Keeps true: no answer is lost for good. What was signed is stored, and given again to whoever asks
//! with the same key; the work goes on when the asker has hung up. An ID belongs to the key that had it first. A caller
//! whose token is refused is told the same whatever is wrong with it; the log and an Event say more.
//!
//! Watches   `Secret` `auth-token`, `liqo-auth-certificate`.
//! Writes    `Secret`s `auth-token`, `remote-token-<peer>`, the user of `auth-token-once-*`; what [`issue`] and [`shown`]
//!           write.
//! Removes   what [`sweep`] removes.

mod check;
mod door;
mod issue;
mod shown;
mod sweep;

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Secret;
use liqo_api::{ClusterIdentity, names};
use liqo_kube::{
    KubeError, Queue,
    args::RuntimeArgs,
    certs,
    drain::Patience,
    drive,
    guard::guarded,
    life::Life,
    rate::Rate,
    server::{self, Limits, Listen, Reply},
};

use super::{settings, token, wire};
use crate::home::{Home, HomeArgs};
use door::{Door, Told};

/// No request is longer.
const LONGEST: usize = 64 * 1024;
/// Anybody may ask: one source 60 times at once and then five times a second, all together ten times as often.
const LIMITS: Limits = Limits {
    rate: Some((Rate::new(60, Duration::from_millis(200)), Rate::new(600, Duration::from_millis(20)))),
    ..Limits::DEFAULT
};
/// Peers reach the service through a Service, whose endpoints change a moment after the signal.
const PEERS: Patience = Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(10) };
/// The signer makes no certificate of a shorter life.
const SHORTEST_LIFE: Duration = Duration::from_secs(600);

/// Flags of the authentication service, those of Liqo 0.8.3.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "liqo-auth-service",
    version,
    about = "Tells peers who this cluster is and gives those who know its token an identity"
)]
pub struct AuthArgs {
    /// How the own cluster is reached.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Who the own cluster is.
    #[command(flatten)]
    pub home: HomeArgs,
    /// Address to listen on.
    #[arg(long, default_value = ":5000", value_name = "HOST:PORT")]
    pub address: String,
    /// Speak TLS.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_tls: bool,
    /// Certificate shown; the service makes its own when there is no such file.
    #[arg(long, default_value = "/certs/cert.pem", value_name = "FILE")]
    pub cert_path: PathBuf,
    /// Private key of the certificate shown.
    #[arg(long, default_value = "/certs/key.pem", value_name = "FILE")]
    pub key_path: PathBuf,
    /// Peers must know the token of this cluster.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_authentication: bool,
    /// Accept the token of the cluster (Secret auth-token), too, from clusters that are not known yet; one-time tokens
    /// and those for one cluster are always accepted.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub accept_cluster_token: bool,
    /// Keep the key of the certificate shown in the Secret liqo-auth-certificate, so that tokens carry its pin. Switch it off
    /// where somebody else ends TLS in front of the service.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pin_certificate: bool,
    /// Lifetime of the certificates of peers that renew them, at least 10m; other peers get the default of the signer.
    #[arg(long, default_value = "168h", value_name = "DURATION")]
    pub identity_lifetime: String,
    /// Most tenant namespaces there may be for another cluster to be let in.
    #[arg(long, default_value_t = 256, value_name = "NUMBER")]
    pub max_tenants: usize,
    /// Address of the API server given to peers; empty: a control plane node, port 6443.
    #[arg(long, default_value = "")]
    pub advertise_api_server_address: String,
    /// Every system trusts the certificate of the API server: peers are not told its authority.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub advertise_api_server_trusted_ca: bool,
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

/// Runs the authentication service until SIGTERM.
///
/// # Errors
/// A text that says why it could not start.
pub async fn run(args: AuthArgs) -> Result<(), String> {
    certs::install_crypto();
    let life = Life::start("auth-service", &args.runtime).await?;
    let busy = life.busy();
    if !args.aws_access_key_id.is_empty() || !args.aws_secret_access_key.is_empty() {
        return Err("--aws-access-key-id and --aws-secret-access-key: this release gives no IAM identities to peers; \
                    leave awsConfig of the chart empty"
            .to_owned());
    }
    let lifetime = settings::duration("--identity-lifetime", &args.identity_lifetime)?;
    if lifetime < SHORTEST_LIFE {
        return Err(format!("--identity-lifetime {:?} must be at least 10m", args.identity_lifetime));
    }
    let home = Home::open(&args.runtime, &args.home, "liqo-auth").await?;
    keep_token(&home, &life);
    sweep::start(&home, &life);
    let tls = if args.enable_tls { Some(certs::server_config(shown::shown(&home, &args, &life).await?)) } else { None };
    let address = args.address.parse::<Listen>()?;
    let listener = address.bind().await?;
    let door = Arc::new(Door {
        home,
        token_needed: args.enable_authentication,
        accept_cluster_token: args.accept_cluster_token,
        lifetime,
        max_tenants: args.max_tenants,
        told: Told::default(),
        api_server: args.advertise_api_server_address,
        api_server_trusted: args.advertise_api_server_trusted_ca,
    });
    let drain = life.drain().clone();
    life.spawn("auth", async move {
        let answer = move |request, _peer| answer(Arc::clone(&door), request);
        server::serve_within(LIMITS, &drain, listener, tls, answer).await;
    });
    drop(busy);
    life.until_signal().await;
    life.drained(PEERS).await;
    Ok(())
}

/// Makes the token and makes it again whenever it vanishes.
fn keep_token(home: &Home, life: &Life) {
    let queue = Queue::new();
    queue.push(());
    let news = queue.clone();
    let fields = format!("metadata.name={}", names::AUTH_TOKEN_SECRET);
    let store = home.cluster.watch::<Secret>(&home.namespace).fields(&fields).start(move |_| news.push(()));
    let home = home.clone();
    life.spawn("auth-token", async move {
        let _watched = store;
        drive("auth-token", queue, 1, |()| async {
            token::ensure(&home.cluster, &home.namespace).await?;
            Ok::<_, KubeError>(None)
        })
        .await;
    });
}

/// Why a request is not granted: a status and words for the peer's administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
struct No(StatusCode, String);

impl From<KubeError> for No {
    fn from(error: KubeError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "a peer could not be served");
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("the cluster failed to {error}; try again"))
    }
}

async fn answer(door: Arc<Door>, request: http::Request<Incoming>) -> Response<Reply> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/ids") => {
            let ClusterIdentity { cluster_id, cluster_name } = door.home.identity.clone();
            server::json(StatusCode::OK, &wire::Ids { cluster_id, cluster_name })
        }
        (&Method::POST, "/identity/certificate") => match identity(door, request).await {
            Ok(answer) => server::json(StatusCode::ACCEPTED, &answer),
            Err(No(status, words)) => server::text(status, &words),
        },
        (_, "/ids" | "/identity/certificate") => server::text(StatusCode::METHOD_NOT_ALLOWED, "wrong method"),
        _ => server::text(StatusCode::NOT_FOUND, "there is GET /ids and POST /identity/certificate"),
    }
}

async fn identity(door: Arc<Door>, request: http::Request<Incoming>) -> Result<wire::Answer, No> {
    let bad = |why: String| No(StatusCode::BAD_REQUEST, why);
    let body = server::body(request, LONGEST).await.map_err(|error| bad(format!("reading the request: {error}")))?;
    let request: wire::Request =
        serde_json::from_slice(&body).map_err(|error| bad(format!("malformed request: {error}")))?;
    // In a task of its own: whoever asks may hang up, what was begun is finished and stored.
    let work = tokio::spawn(guarded("identity", async move { door.grant(request).await }));
    work.await
        .ok()
        .and_then(Result::ok)
        .unwrap_or_else(|| Err(No(StatusCode::INTERNAL_SERVER_ERROR, "interrupted; try again".to_owned())))
}
