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
        let secrets = watched.secrets.as_ref().filter(|secrets| secrets.is_ready());
        let seen = Seen {
            is_listed: secrets.is_some(),
            waited: watched.since.elapsed(),
            is_leaving: tenant.metadata.deletion_timestamp.is_some(),
        };
        let step = plan(&seen);
        if step.is_late() && !std::mem::replace(&mut watched.is_reported, true) {
            tracing::warn!(namespace, "the Secrets of the tenant namespace cannot be read: nothing is replicated");
        }
        match step {
            Step::Read => {
                let identities = secrets.map(|secrets| secrets.filter(|secret| is_identity(secret, peer)));
                Known::Identity(PeerIdentity::best(identities.iter().flatten().map(AsRef::as_ref)))
            }
            Step::Wait => Known::NotYet(SOON),
            Step::WaitLonger => Known::NotYet(LATER),
            Step::GiveUp => Known::Identity(None),
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

/// Everything that an answer about a tenant namespace depends on.
struct Seen {
    /// The Secrets of the namespace were listed.
    is_listed: bool,
    /// Time since the first look.
    waited: Duration,
    /// The namespace is being deleted.
    is_leaving: bool,
}

/// How the identity in a tenant namespace is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Among the listed Secrets.
    Read,
    /// Not now: the Secrets will be listed soon.
    Wait,
    /// Not now: the Secrets cannot be read.
    WaitLonger,
    /// There is no identity: the rights of the replicator went with the namespace, and nobody binds them there again.
    GiveUp,
}

impl Step {
    fn is_late(self) -> bool {
        matches!(self, Self::WaitLonger | Self::GiveUp)
    }
}

/// Decides.
fn plan(seen: &Seen) -> Step {
    match (seen.is_listed, seen.waited >= PATIENCE, seen.is_leaving) {
        (true, ..) => Step::Read,
        (false, false, _) => Step::Wait,
        (false, true, false) => Step::WaitLonger,
        (false, true, true) => Step::GiveUp,
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
    fn nothing_is_given_up_before_the_secrets_could_be_listed() {
        use Step::{GiveUp, Read, Wait, WaitLonger};
        let (begun, early, late) = (Duration::ZERO, PATIENCE - Duration::from_millis(1), PATIENCE);
        for (is_listed, waited, is_leaving, wanted) in [
            (true, begun, false, Read),
            (true, late, true, Read),
            (false, begun, false, Wait),
            (false, early, false, Wait),
            (false, early, true, Wait),
            (false, late, false, WaitLonger),
            (false, late, true, GiveUp),
        ] {
            let step = plan(&Seen { is_listed, waited, is_leaving });
            assert_eq!(step, wanted, "{is_listed} {waited:?} {is_leaving}");
            assert_eq!(step.is_late(), !is_listed && waited >= PATIENCE);
        }
    }

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
