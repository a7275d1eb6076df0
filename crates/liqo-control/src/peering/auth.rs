//! Role `auth-service`: the door at which a peer shows a token and is given an identity.
//!
//! `GET /ids` says who this cluster is, to anybody. `POST /identity/certificate` checks the token and
//! the claim ([`check`]), makes room for the peer and signs ([`issue`]).
//!
//! Keeps true: no answer is lost for good. What was signed is stored, and given again to whoever asks
//! with the same key; the work goes on when the asker has hung up.
//!
//! Watches   `Secret` `auth-token`.
//! Writes    `Secret`s `auth-token`, `remote-token-<peer>`; what [`issue`] writes.

mod check;
mod issue;

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret};
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, meta::label, names};
use liqo_core::endpoint;
use liqo_kube::{
    KubeError, Queue,
    args::RuntimeArgs,
    certs::{self, Pair, Shown, Subject},
    drive,
    guard::guarded,
    life::Life,
    rate::Rate,
    server::{self, Limits, Reply},
};
use tokio::net::TcpListener;

use super::{permissions, tenant, tenant::Tenant, token, wire};
use crate::home::{Home, HomeArgs};

/// No request is longer.
const LONGEST: usize = 64 * 1024;
/// Anybody may ask: one source 60 times at once and then five times a second, all together ten times as often.
const LIMITS: Limits = Limits {
    rate: Some((Rate::new(60, Duration::from_millis(200)), Rate::new(600, Duration::from_millis(20)))),
    ..Limits::DEFAULT
};
/// Life of a certificate the service makes for itself.
const OWN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

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
    let life = Life::start("auth-service", &args.runtime)?;
    let busy = life.busy();
    if !args.aws_access_key_id.is_empty() || !args.aws_secret_access_key.is_empty() {
        return Err("--aws-access-key-id and --aws-secret-access-key: this release gives no IAM identities to peers; \
                    leave awsConfig of the chart empty"
            .to_owned());
    }
    let home = Home::open(&args.runtime, &args.home, "liqo-auth").await?;
    keep_token(&home, &life);
    let tls = if args.enable_tls { Some(certs::server_config(shown(&home, &args, &life)?)) } else { None };
    let address = server::address(&args.address)?;
    let listener = TcpListener::bind(address).await.map_err(|error| format!("listening on {address}: {error}"))?;
    let door = Arc::new(Door {
        home,
        token_needed: args.enable_authentication,
        api_server: args.advertise_api_server_address,
        api_server_trusted: args.advertise_api_server_trusted_ca,
    });
    life.spawn("auth", async move {
        server::serve_within(LIMITS, listener, tls, move |request, _peer| answer(Arc::clone(&door), request)).await;
    });
    drop(busy);
    life.until_signal().await;
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

/// The certificate shown: from the files if they exist, else one of our own, made anew in time.
fn shown(home: &Home, args: &AuthArgs, life: &Life) -> Result<Arc<Shown>, String> {
    let shown = Arc::new(Shown::default());
    if args.cert_path.exists() {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
        };
        let pair = Pair { certificate: read(&args.cert_path)?, key: read(&args.key_path)? };
        shown.show(&pair).map_err(|error| format!("using {}: {error}", args.cert_path.display()))?;
        return Ok(shown);
    }
    let namespace = home.namespace.clone();
    show_own(&shown, &namespace)?;
    let renewed = Arc::clone(&shown);
    life.spawn("auth-certificate", async move {
        loop {
            tokio::time::sleep(OWN_LIFE / 3 * 2).await;
            if let Err(error) = show_own(&renewed, &namespace) {
                tracing::error!(error, "certificate not renewed");
            }
        }
    });
    Ok(shown)
}

fn show_own(shown: &Shown, namespace: &str) -> Result<(), String> {
    let service = names::AUTH_SERVICE;
    let known = [service.to_owned(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")];
    let pair = certs::self_signed(&Subject::new(service, "liqo.io"), &known, OWN_LIFE);
    let pair = pair.map_err(|error| format!("making a certificate: {error}"))?;
    shown.show(&pair).map_err(|error| format!("showing a certificate: {error}"))
}

/// What every request needs.
struct Door {
    home: Home,
    token_needed: bool,
    api_server: String,
    api_server_trusted: bool,
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

impl Door {
    async fn grant(&self, request: wire::Request) -> Result<wire::Answer, No> {
        let Home { cluster, namespace: own, identity: here, .. } = &self.home;
        let peer = &request.cluster;
        check::claim(peer, here)?;
        if self.token_needed {
            let expected = token::expected_of(cluster, own, &peer.cluster_id).await?;
            check::token(&expected, &request.destination_cluster_token)?;
        }
        let csr = check::signing_request(peer, &request.certificate_signing_request)?;
        let api_server_url = self.api_server_url().await?;
        let namespace = self.tenant(peer).await?;
        // Without a token nobody can tell a peer that lost its key from somebody who takes its name.
        let certificate = issue::certificate(cluster, &namespace, peer, &csr, self.token_needed).await?;
        permissions::bind(cluster, &namespace, names::PEERING_BASIC_ROLE, &peer.cluster_id).await?;
        if !request.origin_cluster_token.is_empty() {
            token::store_remote(cluster, own, &peer.cluster_id, &request.origin_cluster_token).await?;
        }
        tracing::info!(peer = peer.cluster_id, name = peer.cluster_name, namespace, "identity granted");
        Ok(check::answer(namespace, &certificate, api_server_url, self.authority()))
    }

    fn authority(&self) -> Option<&str> {
        if self.api_server_trusted { None } else { self.home.api_server_ca.as_deref() }
    }

    async fn tenant(&self, peer: &ClusterIdentity) -> Result<String, No> {
        let labelled = format!("{}={}", label::CLUSTER_ID, peer.cluster_id);
        let known = self.home.cluster.list::<Namespace>("", &labelled).await?;
        match tenant::ensure(&self.home.cluster, &known, peer).await? {
            Tenant::Ready(name) => Ok(name),
            Tenant::Refused(why) => Err(No(StatusCode::INTERNAL_SERVER_ERROR, why)),
        }
    }

    async fn api_server_url(&self) -> Result<String, No> {
        let mut nodes = Vec::new();
        if self.api_server.is_empty() {
            for key in endpoint::CONTROL_PLANE {
                nodes.extend(self.home.cluster.list::<Node>("", key).await?);
            }
        }
        nodes.dedup_by_key(|node| node.uid());
        endpoint::api_server_url(&self.api_server, &nodes).map_err(|why| No(StatusCode::INTERNAL_SERVER_ERROR, why))
    }
}
