//! Whether a request is granted, and everything that is done when it is.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::StatusCode;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, discovery::ForeignCluster, meta::label, names};
use liqo_core::{endpoint, naming, standing};
use liqo_kube::{certs::SigningRequest, now, refusals};

use super::{
    super::{
        permissions, tenant,
        tenant::Tenant,
        token::{self, Known, Word, Wrong},
        wire,
    },
    No, check,
    issue::{self, Choice, Stored},
};
use crate::{home::Home, ledger::recorded};

/// How long nothing more is told about an object.
const QUIET: Duration = Duration::from_secs(600);
/// Objects whose last warning is remembered, at most.
const MOST_TOLD: usize = 1024;

/// What every request needs.
pub(super) struct Door {
    pub(super) home: Home,
    pub(super) token_needed: bool,
    pub(super) accept_cluster_token: bool,
    pub(super) lifetime: Duration,
    pub(super) max_tenants: usize,
    /// Held while a tenant namespace is counted and made.
    pub(super) counting: tokio::sync::Mutex<()>,
    pub(super) told: Told,
    pub(super) api_server: String,
    pub(super) api_server_trusted: bool,
}

impl Door {
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
        let Home { cluster, identity: here, .. } = &self.home;
        let peer = &request.cluster;
        check::claim(peer, here)?;
        let csr = check::signing_request(peer, &request.certificate_signing_request)?;
        // A caller without a valid token must prove its key before the service reads any stored object.
        let early = match request.proof.is_empty() {
            true => Some(self.word(peer, &request.destination_cluster_token).await?),
            false => None,
        };
        let room = self.room(peer).await?;
        let before = match &room {
            Some(namespace) => Stored::read(cluster, namespace).await?,
            None => None,
        };
        let is_proven = before.as_ref().is_some_and(|before| before.proves(&csr, &request.proof));
        let word = match (early, is_proven) {
            (Some(word), _) => word,
            (None, true) => Word { new_key: true, unused: None },
            (None, false) => self.word(peer, &request.destination_cluster_token).await?,
        };
        self.not_banned(peer).await?;
        let choice = before.as_ref().map_or(Choice::Sign, |before| before.choose(&csr, word.new_key, now().0));
        if let (Choice::Refuse, Some(before)) = (choice, &before) {
            return Err(self.another_key(peer, room.as_deref().unwrap_or_default(), before).await);
        }
        let api_server_url = self.api_server_url().await?;
        if room.is_none() {
            self.has_place(|count| count < self.max_tenants).await?;
        }
        if let Some(token) = &word.unused {
            token::bind(cluster, token, &peer.cluster_id).await?;
        }
        let namespace = match room {
            Some(namespace) => namespace,
            None => self.make_room(peer).await?,
        };
        let certificate = match (choice, &before) {
            (Choice::Again, Some(before)) => before.certificate.clone(),
            _ => self.sign(&namespace, &request, before.as_ref(), &csr).await?,
        };
        permissions::bind(cluster, &namespace, names::PEERING_BASIC_ROLE, &peer.cluster_id).await?;
        self.keep(peer, &request.origin_cluster_token, &word).await?;
        tracing::info!(peer = peer.cluster_id, name = peer.cluster_name, namespace, "identity granted");
        Ok(check::answer(namespace, &certificate, api_server_url, self.authority()))
    }

    async fn sign(
        &self,
        namespace: &str,
        request: &wire::Request,
        before: Option<&Stored>,
        csr: &SigningRequest,
    ) -> Result<String, No> {
        // Who does not renew (Liqo 0.8.3) would be without an identity when a short certificate ends.
        let lifetime = request.renews.then_some(self.lifetime);
        issue::certificate(&self.home.cluster, (namespace, &request.cluster), before, csr, lifetime).await
    }

    /// Stores the token that this cluster must show when the peer is asked in return.
    async fn keep(&self, peer: &ClusterIdentity, told: &str, word: &Word) -> Result<(), No> {
        let Home { cluster, namespace, .. } = &self.home;
        match told {
            "" => Ok(()),
            told => Ok(token::store_remote(cluster, namespace, &peer.cluster_id, told, word.new_key).await?),
        }
    }

    /// The meaning of the token, if the token is valid.
    async fn word(&self, peer: &ClusterIdentity, given: &str) -> Result<Word, No> {
        let Home { cluster, namespace, .. } = &self.home;
        let known = Known::read(cluster, namespace, &peer.cluster_id, given, self.accept_cluster_token).await?;
        match known.judge(given, &peer.cluster_id, now().0) {
            Ok(word) => Ok(word),
            Err(_) if !self.token_needed => Ok(Word::default()),
            Err(wrong) => {
                self.tell(peer, &wrong).await;
                Err(check::denied(given))
            }
        }
    }

    /// The caller is told nothing; the administrator is.
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
        if self.told.is_news(&secret.uid().unwrap_or_default()) {
            let message = format!(
                "Cluster {} came with this token and was refused: {why}. `liqoctl generate peer-command` makes a new one",
                peer.cluster_id
            );
            self.home.cluster.event(secret.as_ref(), super::WRITER, "Warning", "TokenRefused", &message).await;
        }
    }

    /// Tells on the `ForeignCluster` of a known peer that somebody who calls itself that peer was refused. Whoever asks chooses
    /// the ID, so this is done once in a while for each ID.
    async fn tell_refused(&self, peer: &ClusterIdentity, why: &str) {
        if !self.told.is_news(&format!("refusal of {}", peer.cluster_id)) {
            return;
        }
        let Ok(known) = self.home.cluster.list::<ForeignCluster>("", "").await else { return };
        if let Some(one) = known.iter().find(|one| standing::id_of(one) == peer.cluster_id) {
            let message =
                format!("Somebody who calls itself this cluster asked for an identity here and was refused: {why}");
            self.home.cluster.event(one, super::WRITER, "Warning", "IdentityNotGranted", &message).await;
        }
    }

    async fn another_key(&self, peer: &ClusterIdentity, namespace: &str, before: &Stored) -> No {
        tracing::warn!(peer = peer.cluster_id, namespace, "another key for an ID that belongs to a key was refused");
        if self.told.is_news(&format!("key of {}", peer.cluster_id)) {
            before.tell(&self.home.cluster, peer).await;
        }
        issue::another_key(namespace, peer, &self.home.identity)
    }

    fn authority(&self) -> Option<&str> {
        if self.api_server_trusted { None } else { self.home.api_server_ca.as_deref() }
    }

    /// Whether the peer is heard at all.
    async fn not_banned(&self, peer: &ClusterIdentity) -> Result<(), No> {
        let known = self.home.cluster.list::<ForeignCluster>("", "").await?;
        if !standing::bans(&known, &peer.cluster_id) {
            return Ok(());
        }
        tracing::info!(peer = peer.cluster_id, name = peer.cluster_name, "a banned cluster was refused");
        Err(No(StatusCode::FORBIDDEN, format!("cluster {} is banned from this cluster", peer.cluster_id)))
    }

    /// The tenant namespace of a peer, if the peer has one.
    async fn room(&self, peer: &ClusterIdentity) -> Result<Option<String>, No> {
        let labelled = format!("{}={}", label::CLUSTER_ID, peer.cluster_id);
        let mut known = self.home.cluster.list::<Namespace>("", &labelled).await?;
        let peers = self.home.cluster.list::<ForeignCluster>("", "").await?;
        known.retain(|one| naming::tenant_of(one, recorded(one, peers.iter())) == Some(&peer.cluster_id));
        match tenant::choose(&known) {
            Some(Tenant::Ready(name)) => Ok(Some(name)),
            Some(Tenant::Refused(why)) => Err(No(StatusCode::INTERNAL_SERVER_ERROR, why)),
            None => Ok(None),
        }
    }

    /// Refuses when `has_room` says that so many tenant namespaces are too many.
    async fn has_place(&self, has_room: impl Fn(usize) -> bool + Send) -> Result<(), No> {
        let labelled = format!("{}=true", label::TENANT_NAMESPACE);
        let count = self.home.cluster.list::<Namespace>("", &labelled).await?.len();
        if has_room(count) {
            return Ok(());
        }
        tracing::warn!(count, most = self.max_tenants, "no further cluster is let in");
        let why = format!(
            "this cluster lets no further cluster in: it has {count} tenant namespaces, and auth.config.maxTenants of \
             its chart is {}",
            self.max_tenants
        );
        Err(No(StatusCode::FORBIDDEN, why))
    }

    /// Makes the tenant namespace of a peer. One request of this replica at a time counts and makes; since other replicas do
    /// the same, this replica counts again and takes back what is too much. Of several replicas that make the last namespace
    /// at the same time the last one to make it sees all others, so that the limit holds.
    async fn make_room(&self, peer: &ClusterIdentity) -> Result<String, No> {
        let _alone = self.counting.lock().await;
        self.has_place(|count| count < self.max_tenants).await?;
        if let Some(made) = tenant::make(&self.home.cluster, peer).await? {
            if let Err(no) = self.has_place(|count| count <= self.max_tenants).await {
                self.home.cluster.remove(&made).await?;
                return Err(no);
            }
            return Ok(made.name_any());
        }
        // Its name exists: made by another request of the peer, or somebody else's.
        match tenant::ensure(&self.home.cluster, &[], peer).await? {
            Tenant::Ready(name) => Ok(name),
            // Its name follows from the ID and the name of the peer, and is another's already.
            Tenant::Refused(why) => Err(No(StatusCode::FORBIDDEN, why)),
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

/// Refusals that were reported recently. Callers choose how often they are refused, so each refusal is reported once in a while
/// only.
#[derive(Default)]
pub(super) struct Told(Mutex<HashMap<String, Instant>>);

impl Told {
    fn is_news(&self, about: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| since.elapsed() < QUIET);
        known.len() < MOST_TOLD && known.insert(about.to_owned(), Instant::now()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_not_told_again_at_once() {
        let told = Told::default();
        assert!(told.is_news("a"));
        assert!(!told.is_news("a"));
        assert!(told.is_news("b"));
        for number in 0..2 * MOST_TOLD {
            told.is_news(&number.to_string());
        }
        assert_eq!(told.0.lock().unwrap().len(), MOST_TOLD);
    }
}
