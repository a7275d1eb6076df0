//! The identities of this cluster on its peers: one watch in each tenant namespace. The replicator may read the Secrets of no other
//! namespace.
//!
//! Keeps true: while it is not known which identities a namespace has, there is no answer, so nothing is given up meanwhile.
//!
//! Watches   identity `Secret`s, by tenant namespace.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt;
use liqo_api::{meta::label, names};
use liqo_kube::{Cluster, Queue, Store, peer::PeerIdentity};

/// So long a watch takes at most where the rights of the replicator are bound, with room for a controller manager that starts.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of the identities in a tenant namespace.
pub(super) enum Known {
    /// The Secrets of the namespace were not listed yet.
    NotYet,
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
    secrets: Store<Secret>,
    since: Instant,
    is_reported: bool,
}

impl Identities {
    pub(super) fn new(cluster: Cluster, tenants: Queue<String>) -> Self {
        Self { cluster, tenants, watched: Mutex::default() }
    }

    /// The identity on a peer in the tenant namespace of the peer: of several the best one, and only Secrets that are named as
    /// this cluster names identities. Starts watching the namespace.
    pub(super) fn find(&self, tenant: &Namespace, peer: &str) -> Known {
        let namespace = tenant.name_any();
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = all.entry(namespace.clone()).or_insert_with(|| self.watch(&namespace));
        if watched.secrets.is_ready() {
            let secrets = watched.secrets.filter(|secret| is_identity(secret, peer));
            return Known::Identity(PeerIdentity::best(secrets.iter().map(AsRef::as_ref)));
        }
        let is_late = watched.since.elapsed() >= PATIENCE;
        if is_late && !std::mem::replace(&mut watched.is_reported, true) {
            tracing::warn!(namespace, "the Secrets of the tenant namespace cannot be read: nothing is replicated");
        }
        // A namespace that is being deleted may have lost the rights of the replicator, which nobody binds there again.
        match is_late && tenant.metadata.deletion_timestamp.is_some() {
            true => Known::Identity(None),
            false => Known::NotYet,
        }
    }

    /// The namespace is the tenant namespace of no peer any more.
    pub(super) fn forget(&self, namespace: &str) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    fn watch(&self, namespace: &str) -> Watched {
        let selector = format!("{}=true,{}=true", label::LOCAL_IDENTITY, label::CERTIFICATE_AVAILABLE);
        let (tenants, tenant) = (self.tenants.clone(), namespace.to_owned());
        let watch = self.cluster.watch::<Secret>(namespace).labels(&selector);
        let secrets = watch.start(move |_| tenants.push(tenant.clone()));
        Watched { secrets, since: Instant::now(), is_reported: false }
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
