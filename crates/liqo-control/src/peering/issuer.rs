//! How a peer becomes known to us: it shows a token, or a proof of its key, and is given an identity.
//!
//! The authentication service answers the outside and passes requests on ([`super::auth`]); every replica of the controller
//! manager judges them ([`judge`]): the claim and the signing request ([`check`]), then the token or the proof of the key
//! before, then [`plan`] decides, and room is made for the peer and signed ([`issue`]). Nothing the authentication service has
//! found right is taken for right.
//!
//! Keeps true: no answer is lost for good. What was signed is stored, and given again to a caller
//! with the same key; the work goes on when the caller has hung up. An ID belongs to the key that had it first. A caller
//! whose token is refused is told the same whatever is wrong with it; the log and an Event say more. Only the
//! ServiceAccount of the authentication service is heard, and only so many requests at once.
//!
//! Watches   `Secret` `auth-token`, `liqo-auth-certificate`, `liqo-remote-certificate`.
//! Writes    `Secret`s `auth-token`, `remote-token-<peer>`, the user of `auth-token-once-*`; what [`issue`] and
//!           [`certificate`] write.
//! Removes   what [`sweep`] removes.

pub(super) mod certificate;
pub(super) mod check;

mod issue;
mod judge;
mod plan;
mod sweep;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Secret;
use liqo_api::names;
use liqo_kube::{
    KubeError, Queue, Store, drive,
    guard::guarded,
    life::Life,
    server::{self, Reply},
    tokens::{Tokens, Unreviewed},
    told::Told,
};
use tokio::sync::Semaphore;

use super::{
    auth::{FACTS, IDENTITY, LONGEST},
    limits::{QUEUE, TURNS},
    settings, token, wire,
};
use crate::{home::Home, memory::Memory};
use judge::Judge;

/// The signer makes no certificate of a shorter life.
const SHORTEST_LIFE: Duration = Duration::from_secs(600);
/// Field manager of the written objects: that of earlier versions, in which the authentication service wrote the objects.
const WRITER: &str = names::AUTH_SERVICE;

/// Flags about who is given an identity.
#[derive(Clone, Debug, clap::Args)]
pub struct IdentityArgs {
    /// Peers must know the token of this cluster.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_authentication: bool,
    /// Accept the token of the cluster (Secret auth-token), too, from clusters that are not known yet; one-time tokens
    /// and those for one cluster are always accepted.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub accept_cluster_token: bool,
    /// Keep the key of the certificate the authentication service shows in the Secret liqo-auth-certificate, so that tokens
    /// carry its pin. Switch it off where somebody else ends TLS in front of the service, or gives it a certificate.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pin_certificate: bool,
    /// Life of the certificates of peers that renew them, at least 10m; the others get what the signer gives.
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
}

/// Answers the authentication service.
pub(crate) struct Issuer {
    judge: Arc<Judge>,
    tokens: Tokens,
    /// The certificate that was signed last for each peer.
    certificates: Store<Secret>,
    /// The certificate that the authentication service shows.
    shown: Store<Secret>,
    turns: Arc<Semaphore>,
    /// The only user that is heard.
    caller: String,
    pin_certificate: bool,
}

impl Issuer {
    /// An issuer that works by these flags.
    ///
    /// # Errors
    /// A text that names the flag that cannot be used.
    pub(crate) fn new(home: &Home, args: &IdentityArgs, memory: &Memory) -> Result<Self, String> {
        let lifetime = settings::duration("--identity-lifetime", &args.identity_lifetime)?;
        if lifetime < SHORTEST_LIFE {
            return Err(format!("--identity-lifetime {:?} must be at least 10m", args.identity_lifetime));
        }
        let home = Home { cluster: home.cluster.writing_as(WRITER), ..home.clone() };
        Ok(Self {
            tokens: Tokens::for_audience(home.cluster.clone(), names::IDENTITY_AUDIENCE),
            certificates: issue::watch(&home.cluster),
            shown: certificate::watch(&home, |_| {}),
            turns: Arc::new(Semaphore::new(TURNS)),
            caller: format!("system:serviceaccount:{}:{}", home.namespace, names::AUTH_ACCOUNT),
            pin_certificate: args.pin_certificate,
            judge: Arc::new(Judge {
                home,
                token_needed: args.enable_authentication,
                accept_cluster_token: args.accept_cluster_token,
                lifetime,
                max_tenants: args.max_tenants,
                counting: tokio::sync::Mutex::default(),
                foreign_clusters: Store::clone(&memory.foreign_clusters),
                told: Told::default(),
                api_server: args.advertise_api_server_address.clone(),
                api_server_trusted: args.advertise_api_server_trusted_ca,
            }),
        })
    }

    /// Starts what one replica does for all: the token, the certificate that is shown, sweeping.
    pub(super) fn keep(&self, life: &Life) {
        let home = &self.judge.home;
        keep_token(home, life);
        sweep::start(home, life);
        certificate::keep(home, self.pin_certificate, life);
    }

    /// Whether a path is one of those the authentication service asks for.
    pub(crate) fn hears(path: &str) -> bool {
        [FACTS, IDENTITY].contains(&path)
    }

    /// The answer to the authentication service.
    pub(crate) async fn answer(&self, path: &str, request: Request<Incoming>, address: IpAddr) -> Response<Reply> {
        if let Err(No(status, why)) = self.identify(&request, address).await {
            return server::text(status, &why);
        }
        let outcome = match (request.method(), path) {
            (&Method::GET, FACTS) => self.facts().await.map(|facts| server::json(StatusCode::OK, &facts)),
            (&Method::POST, IDENTITY) => self.judge(request).await.map(|said| server::json(StatusCode::OK, &said)),
            _ => Err(No(StatusCode::METHOD_NOT_ALLOWED, "wrong method".to_owned())),
        };
        outcome.unwrap_or_else(|No(status, why)| server::text(status, &why))
    }

    async fn identify(&self, request: &Request<Incoming>, address: IpAddr) -> Result<(), No> {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let user = match shown.and_then(|shown| shown.strip_prefix("Bearer ")) {
            Some(token) => self.tokens.user(token, address).await?,
            None => None,
        };
        match user {
            Some(user) if user.name == self.caller => Ok(()),
            Some(_) => Err(No(StatusCode::FORBIDDEN, "only the authentication service is answered".to_owned())),
            None => Err(No(StatusCode::UNAUTHORIZED, "a token of the authentication service is needed".to_owned())),
        }
    }

    /// The name of this cluster, the certificate to show, and the certificates of peers.
    async fn facts(&self) -> Result<wire::Facts, No> {
        let home = &self.judge.home;
        let shown = match self.pin_certificate {
            // The replica that decides makes the certificate; until then the service has no certificate to show.
            true => Some(certificate::read(home, &self.shown).await.ok_or_else(|| {
                let why = format!("Secret {} does not exist yet", names::AUTH_CERTIFICATE_SECRET);
                No(StatusCode::SERVICE_UNAVAILABLE, why)
            })?),
            false => None,
        };
        self.certificates.ready().await;
        let peers = issue::certificates(&self.certificates.all());
        Ok(wire::Facts { cluster: home.identity.clone(), shown, peers })
    }

    async fn judge(&self, request: Request<Incoming>) -> Result<wire::Verdict, No> {
        let bad = |why: String| No(StatusCode::BAD_REQUEST, why);
        let body = server::body(request, 2 * LONGEST).await.map_err(|error| bad(format!("reading: {error}")))?;
        let request: wire::Request = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
        let turn = tokio::time::timeout(QUEUE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(No(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once".to_owned()));
        };
        // In a task of its own: when the caller hangs up, the work is finished and its result stored.
        let judge = Arc::clone(&self.judge);
        let work = tokio::spawn(guarded("identity", async move {
            let _turn = turn;
            judge.grant(request).await
        }));
        let interrupted = || No(StatusCode::INTERNAL_SERVER_ERROR, "interrupted; try again".to_owned());
        Ok(match work.await.ok().and_then(Result::ok).unwrap_or_else(|| Err(interrupted())) {
            Ok(answer) => wire::Verdict::Granted(answer),
            Err(No(status, why)) => wire::Verdict::Refused { status: status.as_u16(), why },
        })
    }
}

/// Makes the token of the cluster, again whenever its Secret is deleted.
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
pub(super) struct No(pub(super) StatusCode, pub(super) String);

impl From<Unreviewed> for No {
    fn from(error: Unreviewed) -> Self {
        match error {
            Unreviewed::TooMany(_) => Self(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            Unreviewed::Kube(error) => error.into(),
        }
    }
}

impl From<KubeError> for No {
    fn from(error: KubeError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "a peer could not be served");
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("the cluster failed to {error}; try again"))
    }
}
