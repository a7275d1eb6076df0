//! Judges a request for an identity: reads what the decision depends on, decides ([`plan`](super::plan)), and does what the
//! grant asks for.

use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, discovery::ForeignCluster, meta::label, names};
use liqo_core::{decision, endpoint};
use liqo_kube::{KubeError, Object, Store, certs::SigningRequest, now, refusals, told::Told};

use super::{
    super::{
        permissions, tenant,
        tenant::Tenant,
        token::{self, Known, TokenRights, Wrong},
        wire,
    },
    No, check,
    issue::{self, Stored},
    plan::{self, Issuance, Refusal, Room, Seen, plan},
};
use crate::home::Home;

/// What every request needs.
pub(super) struct Judge {
    pub(super) home: Home,
    pub(super) token_needed: bool,
    pub(super) accept_cluster_token: bool,
    pub(super) lifetime: Duration,
    pub(super) max_tenants: usize,
    /// Held while a tenant namespace is counted and made.
    pub(super) counting: tokio::sync::Mutex<()>,
    /// The peers that callers may call themselves.
    pub(super) foreign_clusters: Store<ForeignCluster>,
    /// Refusals that were told, by object of this cluster.
    pub(super) told: Told,
    pub(super) api_server: String,
    pub(super) api_server_trusted: bool,
}

/// What is stored about a peer.
struct Found {
    peers: Vec<ForeignCluster>,
    tenant: Option<Tenant>,
    before: Option<Stored>,
}

impl Judge {
    /// The identity that is asked for; a refusal is counted and told.
    pub(super) async fn grant(&self, request: wire::Request) -> Result<wire::Answer, No> {
        let peer = request.cluster.clone();
        let outcome = self.judge(request).await;
        if let Err(No(status, why)) = &outcome {
            refusals::count("identity", refusals::reason_of(status.as_u16()));
            if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(status) {
                self.tell_refused(&peer, why).await;
            }
        }
        outcome
    }

    async fn judge(&self, request: wire::Request) -> Result<wire::Answer, No> {
        let peer = &request.cluster;
        check::claim(peer, &self.home.identity)?;
        let csr = check::signing_request(peer, &request.certificate_signing_request)?;
        // A caller without a valid token must prove its key before any stored object is read.
        let early = match request.proof.is_empty() {
            true => Some(self.rights(&request, None).await?),
            false => None,
        };
        let found = self.find(peer).await?;
        let before = found.before.as_ref();
        let rights = match early {
            Some(rights) => rights,
            None => self.rights(&request, before.map(|before| before.proves(&csr, &request.proof))).await?,
        };
        let seen = self.observe(&found, peer, &csr).await?;
        let room = seen.room.clone();
        match plan(rights, seen) {
            Ok(issuance) => self.act(issuance, &request, before, &csr).await,
            Err(refusal) => Err(self.refuse(&refusal, &request, (&room, before)).await),
        }
    }

    /// The rights of the caller: by its proof, if the proof is good, else by its token.
    async fn rights(&self, request: &wire::Request, is_proven: Option<bool>) -> Result<TokenRights, No> {
        let token = match is_proven {
            Some(true) => None,
            _ => Some(self.token(&request.cluster, &request.destination_cluster_token).await?),
        };
        match plan::rights(token, self.token_needed) {
            Ok(rights) => Ok(rights),
            Err(refusal) => Err(self.refuse(&refusal, request, (&Room::Missing { tenants: 0 }, None)).await),
        }
    }

    /// The meaning of the token that the caller shows.
    async fn token(&self, peer: &ClusterIdentity, given: &str) -> Result<Result<TokenRights, Wrong>, No> {
        let Home { cluster, namespace, .. } = &self.home;
        let known = Known::read(cluster, namespace, &peer.cluster_id, given, self.accept_cluster_token).await?;
        Ok(known.judge(given, &peer.cluster_id, now().0))
    }

    /// Finds the tenant namespace of a peer, and what was signed last for the peer.
    async fn find(&self, peer: &ClusterIdentity) -> Result<Found, No> {
        let cluster = &self.home.cluster;
        let peers = cluster.list::<ForeignCluster>("", "").await?;
        let labelled = format!("{}={}", label::CLUSTER_ID, peer.cluster_id);
        let mut known = cluster.list::<Namespace>("", &labelled).await?;
        known.retain(|one| decision::peer_of_tenant(one, peers.iter()) == Some(peer.cluster_id.as_str()));
        let tenant = tenant::choose(&known);
        let before = match &tenant {
            Some(Tenant::Ready(namespace)) => Stored::read(cluster, namespace).await?,
            _ => None,
        };
        let of_peer = peers.iter().filter(|one| decision::id_of(one) == peer.cluster_id);
        let before = before.or_else(|| Stored::recorded(of_peer));
        Ok(Found { peers, tenant, before })
    }

    /// Everything the decision depends on besides the rights of the caller.
    async fn observe(&self, found: &Found, peer: &ClusterIdentity, csr: &SigningRequest) -> Result<Seen, No> {
        let room = match &found.tenant {
            Some(Tenant::Ready(name)) => Room::Known(name.clone()),
            Some(Tenant::Refused(why)) => Room::Unusable(why.clone()),
            None => Room::Missing { tenants: self.tenants().await? },
        };
        Ok(Seen {
            is_banned: decision::bans(&found.peers, &peer.cluster_id),
            room,
            max_tenants: self.max_tenants,
            held: found.before.as_ref().map(|before| before.held(csr, now().0)),
            api_server_url: self.api_server_url().await?,
        })
    }

    /// Does what a grant asks for.
    async fn act(
        &self,
        issuance: Issuance,
        request: &wire::Request,
        before: Option<&Stored>,
        csr: &SigningRequest,
    ) -> Result<wire::Answer, No> {
        let (cluster, peer) = (&self.home.cluster, &request.cluster);
        if let Some(token) = &issuance.bind
            && let Err(error) = token::bind(cluster, token, &peer.cluster_id).await
        {
            // Another cluster has used the token since it was read.
            let is_used = error.is_conflict();
            return Err(if is_used { check::denied(&request.destination_cluster_token) } else { error.into() });
        }
        let namespace = match issuance.namespace {
            Some(namespace) => namespace,
            None => self.make_room(peer).await?,
        };
        let certificate = match before.filter(|_| !issuance.sign) {
            Some(before) => before.certificate.clone(),
            None => self.sign(&namespace, request, before, csr).await?,
        };
        permissions::bind(cluster, &namespace, names::PEERING_BASIC_ROLE, &peer.cluster_id).await?;
        self.keep(peer, &request.origin_cluster_token, issuance.may_replace_token).await?;
        tracing::info!(peer = peer.cluster_id, name = peer.cluster_name, namespace, "identity granted");
        Ok(check::answer(namespace, &certificate, issuance.api_server_url, self.authority()))
    }

    /// The answer to a request that is refused; what the administrator must know is told.
    async fn refuse(&self, refusal: &Refusal, request: &wire::Request, (room, before): (&Room, Option<&Stored>)) -> No {
        let (peer, forbidden) = (&request.cluster, |why: String| No(StatusCode::FORBIDDEN, why));
        match refusal {
            Refusal::Token(wrong) => {
                self.tell(peer, wrong).await;
                check::denied(&request.destination_cluster_token)
            }
            Refusal::Banned => {
                tracing::info!(peer = peer.cluster_id, name = peer.cluster_name, "a banned cluster was refused");
                forbidden(format!("cluster {} is banned from this cluster", peer.cluster_id))
            }
            Refusal::AnotherKey => {
                let namespace = if let Room::Known(namespace) = room { namespace } else { "" };
                self.another_key(peer, namespace, before).await
            }
            Refusal::Full { tenants } => self.full(*tenants),
            Refusal::Room(why) | Refusal::NoUrl(why) => No(StatusCode::INTERNAL_SERVER_ERROR, why.clone()),
        }
    }

    async fn sign(
        &self,
        namespace: &str,
        request: &wire::Request,
        before: Option<&Stored>,
        csr: &SigningRequest,
    ) -> Result<String, No> {
        // A peer that does not renew (Liqo 0.8.3) would be without an identity when a short certificate ends.
        let lifetime = request.renews.then_some(self.lifetime);
        issue::certificate(&self.home.cluster, (namespace, &request.cluster), before, csr, lifetime).await
    }

    /// Stores the token that this cluster must show when this cluster asks the peer in return.
    async fn keep(&self, peer: &ClusterIdentity, told: &str, may_replace: bool) -> Result<(), No> {
        let Home { cluster, namespace, .. } = &self.home;
        match told {
            "" => Ok(()),
            told => Ok(token::store_remote(cluster, namespace, &peer.cluster_id, told, may_replace).await?),
        }
    }

    /// Tells the administrator why a token is refused; the caller does not learn the reason.
    async fn tell(&self, peer: &ClusterIdentity, wrong: &Wrong) {
        let (secret, why) = match wrong {
            Wrong::Unknown => {
                tracing::info!(peer = peer.cluster_id, name = peer.cluster_name, "an unknown token was refused");
                return;
            }
            Wrong::Expired(secret, end) => (secret, format!("it has expired at {end}")),
            Wrong::Used(secret, user) => (secret, format!("it is the token of cluster {user}")),
        };
        let name = secret.name_any();
        tracing::warn!(peer = peer.cluster_id, name = peer.cluster_name, secret = name, reason = why, "token refused");
        let message = format!(
            "Cluster {} came with this token and was refused: {why}. `liqoctl generate peer-command` makes a new one",
            peer.cluster_id
        );
        self.warn_seldom(secret.as_ref(), "TokenRefused", &message).await;
    }

    /// Tells on the `ForeignCluster` of a known peer that somebody who calls itself that peer was refused. The caller chooses
    /// the ID: nothing is remembered, asked or written about an ID that is not known.
    async fn tell_refused(&self, peer: &ClusterIdentity, why: &str) {
        if let Some(known) = self.foreign_clusters.filter(|one| decision::id_of(one) == peer.cluster_id).first() {
            let message =
                format!("Somebody who calls itself this cluster asked for an identity here and was refused: {why}");
            self.warn_seldom(&**known, "IdentityNotGranted", &message).await;
        }
    }

    /// Writes an Event about an object of this cluster, seldom for each reason: callers choose how often they are refused.
    async fn warn_seldom<K: Object>(&self, object: &K, reason: &str, message: &str) {
        let (uid, by) = (object.uid().unwrap_or_default(), (&self.home.cluster, super::WRITER));
        if self.told.is_due(&uid, reason) {
            self.told.write(by, object, (&uid, reason), ("Warning", reason), message).await;
        }
    }

    async fn another_key(&self, peer: &ClusterIdentity, namespace: &str, before: Option<&Stored>) -> No {
        tracing::warn!(peer = peer.cluster_id, namespace, "another key for an ID that belongs to a key was refused");
        if let Some(secret) = before.and_then(Stored::secret) {
            self.warn_seldom(secret, "NewKeyRefused", &issue::key_refused(peer)).await;
        }
        issue::another_key(namespace, peer, &self.home.identity)
    }

    fn authority(&self) -> Option<&str> {
        if self.api_server_trusted { None } else { self.home.api_server_ca.as_deref() }
    }

    /// The number of tenant namespaces.
    async fn tenants(&self) -> Result<usize, KubeError> {
        let labelled = format!("{}=true", label::TENANT_NAMESPACE);
        Ok(self.home.cluster.list::<Namespace>("", &labelled).await?.len())
    }

    /// The answer to a cluster for which there is no tenant namespace any more.
    fn full(&self, count: usize) -> No {
        tracing::warn!(count, most = self.max_tenants, "no further cluster is let in");
        let why = format!(
            "this cluster lets no further cluster in: it has {count} tenant namespaces, and auth.config.maxTenants of \
             its chart is {}",
            self.max_tenants
        );
        No(StatusCode::FORBIDDEN, why)
    }

    /// Makes the tenant namespace of a peer. One request of this replica at a time counts and makes; since other replicas do
    /// the same, this replica counts again and takes back what is too much. Of several replicas that make the last namespace
    /// at the same time the last one to make it sees all others, so that the limit holds.
    async fn make_room(&self, peer: &ClusterIdentity) -> Result<String, No> {
        let _alone = self.counting.lock().await;
        let before = self.tenants().await?;
        if before >= self.max_tenants {
            return Err(self.full(before));
        }
        if let Some(made) = tenant::make(&self.home.cluster, peer).await? {
            let after = self.tenants().await?;
            if after > self.max_tenants {
                self.home.cluster.remove(&made).await?;
                return Err(self.full(after));
            }
            return Ok(made.name_any());
        }
        // A namespace of this name exists: made by another request of the peer, or by another user.
        match tenant::ensure(&self.home.cluster, &[], peer).await? {
            Tenant::Ready(name) => Ok(name),
            // The name follows from the ID and the name of the peer, and the namespace is not the peer's.
            Tenant::Refused(why) => Err(No(StatusCode::FORBIDDEN, why)),
        }
    }

    /// URL of the API server for peers, or the reason why there is none.
    async fn api_server_url(&self) -> Result<Result<String, String>, KubeError> {
        let mut nodes = Vec::new();
        if self.api_server.is_empty() {
            for key in endpoint::CONTROL_PLANE {
                nodes.extend(self.home.cluster.list::<Node>("", key).await?);
            }
        }
        nodes.dedup_by_key(|node| node.uid());
        Ok(endpoint::api_server_url(&self.api_server, &nodes))
    }
}
