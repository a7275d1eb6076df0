//! The identities of this cluster on its peers: one watch in each tenant namespace. The replicator may read the Secrets of no other
//! namespace.
//!
//! Keeps true: while the identities of a namespace are not known, there is no answer, so nothing is given up meanwhile. A namespace
//! is watched once the controller manager has bound the rights there.
//!
//! Watches   identity `Secret`s, by tenant namespace.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt;
use liqo_api::{meta::label, names};
use liqo_kube::{Cluster, Queue, Store, access, peer::PeerIdentity};

/// Pause before a namespace is looked at again whose Secrets were not listed yet.
const SOON: Duration = Duration::from_millis(300);
/// The same pause after [`PATIENCE`].
const LATER: Duration = Duration::from_secs(15);
/// Time within which the Secrets of a namespace are listed, also while the controller manager starts; later a warning is written.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of the identities in a tenant namespace.
pub(super) enum Known {
    /// The Secrets of the namespace were not listed yet; the time of the next look.
    NotYet(Duration),
    /// The identity to act with; `None`: there is none.
    Identity(Option<PeerIdentity>),
}

/// The identities, by tenant namespace.
pub(super) struct Identities {
    cluster: Cluster,
    /// Namespaces whose identities have changed.
    tenants: Queue<String>,
    watched: Mutex<HashMap<String, Watched>>,
}

struct Watched {
    /// `None`: the rights are not bound yet.
    secrets: Option<Store<Secret>>,
    since: Instant,
    is_reported: bool,
}

impl Identities {
    pub(super) fn new(cluster: Cluster, tenants: Queue<String>) -> Self {
        Self { cluster, tenants, watched: Mutex::default() }
    }

    /// The identity on a peer in the tenant namespace of the peer: of several the best one, and only Secrets that are named as
    /// this cluster names identities. Starts watching the namespace when the rights are there.
    pub(super) async fn find(&self, tenant: &Namespace, peer: &str) -> Known {
        let namespace = tenant.name_any();
        let is_watched = self.watched().get(&namespace).is_some_and(|watched| watched.secrets.is_some());
        let may_watch = is_watched || access::may_list_secrets(&self.cluster, &namespace).await;
        let mut all = self.watched();
        let watched = all.entry(namespace.clone()).or_insert_with(|| Watched {
            secrets: None,
            since: Instant::now(),
            is_reported: false,
        });
        if watched.secrets.is_none() && may_watch {
            watched.secrets = Some(self.watch(&namespace));
        }
        if let Some(secrets) = watched.secrets.as_ref().filter(|secrets| secrets.is_ready()) {
            let identities = secrets.filter(|secret| is_identity(secret, peer));
            return Known::Identity(PeerIdentity::best(identities.iter().map(AsRef::as_ref)));
        }
        let is_late = watched.since.elapsed() >= PATIENCE;
        if is_late && !std::mem::replace(&mut watched.is_reported, true) {
            tracing::warn!(namespace, "the Secrets of the tenant namespace cannot be read: nothing is replicated");
        }
        // A namespace that is being deleted may have lost the rights of the replicator, which nobody binds there again.
        match (is_late, tenant.metadata.deletion_timestamp.is_some()) {
            (true, true) => Known::Identity(None),
            (true, false) => Known::NotYet(LATER),
            (false, _) => Known::NotYet(SOON),
        }
    }

    /// The namespace is the tenant namespace of no peer any more.
    pub(super) fn forget(&self, namespace: &str) {
        self.watched().remove(namespace);
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, namespace: &str) -> Store<Secret> {
        let selector = format!("{}=true,{}=true", label::LOCAL_IDENTITY, label::CERTIFICATE_AVAILABLE);
        let (tenants, tenant) = (self.tenants.clone(), namespace.to_owned());
        let watch = self.cluster.watch::<Secret>(namespace).labels(&selector);
        watch.start(move |_| tenants.push(tenant.clone()))
    }
}

fn is_identity(secret: &Secret, peer: &str) -> bool {
    secret.labels().get(label::CLUSTER_ID).is_some_and(|id| id == peer)
        && secret.name_any().starts_with(names::IDENTITY_SECRET_PREFIX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_identity_has_our_name_and_the_id_of_the_peer() {
        for (name, id, wanted) in [
            ("liqo-identity-x7k2p", "milan", true),
            ("liqo-identity-x7k2p", "rome", false),
            ("identity", "milan", false),
        ] {
            let labels = json!({"discovery.liqo.io/cluster-id": id});
            let secret = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
            assert_eq!(is_identity(&secret, "milan"), wanted, "{name} {id}");
        }
    }
}
