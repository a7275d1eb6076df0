//! The originals of one kind, and a mirror for each tenant namespace that has originals.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use liqo_api::meta::{finalizer, label};
use liqo_kube::{
    Cluster, KubeError, Queue, Store, now,
    twin::{Mirror, Parts},
};

use super::{
    Held, Link, Original, Replicator,
    replica::{Replica, Replicated, refused},
};
use crate::home::Home;

/// Names of objects, by the namespace they are in: where the mirror of that namespace listens.
type Names = Arc<Mutex<HashMap<String, Queue<String>>>>;

fn lock(names: &Names) -> MutexGuard<'_, HashMap<String, Queue<String>>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an original that was deleted `since` is still held; `None`: the original is not deleted.
fn rest(since: Option<&Time>, patience: Duration, now: &Time) -> Option<Duration> {
    let gone = now.0.as_second().saturating_sub(since?.0.as_second());
    Some(patience.saturating_sub(Duration::from_secs(u64::try_from(gone).unwrap_or_default())))
}

/// The originals of one kind.
pub(super) struct Originals<K> {
    pub(super) store: Store<K>,
    names: Names,
    held: Held<K>,
}

impl<K: Replicated> Originals<K> {
    pub(super) fn watch(home: &Home, tenants: &Queue<String>, held: Held<K>) -> Self {
        let names = Names::default();
        let (listening, tenants) = (Arc::clone(&names), tenants.clone());
        let selector = format!("{}=true", label::REPLICATION);
        let store = home.cluster.watch::<K>("").labels(&selector).start(move |object: &K| {
            let namespace = object.namespace().unwrap_or_default();
            if let Some(queue) = lock(&listening).get(&namespace) {
                queue.push(object.name_any());
            }
            tenants.push(namespace);
        });
        Self { store, names, held }
    }

    /// Starts the mirror of a tenant namespace that has originals; ends the mirror of a tenant namespace that has none.
    pub(super) fn settle(&self, namespace: &str, link: &mut Link, cx: &Replicator) {
        let kind = K::kind(&()).into_owned();
        if self.store.filter(|object| object.namespace().as_deref() == Some(namespace)).is_empty() {
            lock(&self.names).remove(namespace);
            link.mirrors.remove(&kind);
        } else if !link.mirrors.contains_key(&kind) {
            let queue = Queue::new();
            lock(&self.names).insert(namespace.to_owned(), queue.clone());
            let originals = self.store.filter(|object| object.namespace().as_deref() == Some(namespace));
            originals.iter().for_each(|object| queue.push(object.name_any()));
            let back = queue.clone();
            let (originals, complaints) = (self.store.clone(), cx.complaints.clone());
            let (peer, inside) = (link.remote_id.clone(), namespace.to_owned());
            let twins = link.remote.watch::<K>(link.peer.namespace()).trim(|_| ()).start(move |twin: &K| {
                let original = originals.get(&inside, &twin.name_any());
                if let Some(why) = original.and_then(|original| refused(&*original, twin)) {
                    let original = Original { namespace: inside.clone(), name: twin.name_any() };
                    complaints.push(peer.clone(), original, why);
                }
                back.push(twin.name_any());
            });
            let mirror = Mirror::start(Parts {
                reflector: Replica::new(&cx.home.identity.cluster_id, &link.remote_id, self.held)
                    .leaving_answers_in(&cx.answers),
                here: cx.home.cluster.clone(),
                there: link.remote.clone(),
                namespace_here: namespace.to_owned(),
                namespace_there: link.peer.namespace().to_owned(),
                sources: self.store.clone(),
                twins,
                seen: None,
                queue,
                workers: cx.workers,
                component: String::new(),
                peer: link.remote_id.clone(),
                settled: None,
            });
            link.mirrors.insert(kind, mirror);
        }
    }

    /// Forgets the names that wait for the mirror of a tenant namespace, which has ended.
    pub(super) fn forget(&self, namespace: &str) {
        lock(&self.names).remove(namespace);
    }

    /// Lets go of originals that were deleted at least `patience` ago, whatever has become of their replicas; tells when the
    /// next one is to be let go.
    pub(super) async fn let_go(
        &self,
        namespace: &str,
        cluster: &Cluster,
        patience: Duration,
    ) -> Result<Option<Duration>, KubeError> {
        let held = self.store.filter(|object| {
            object.namespace().as_deref() == Some(namespace)
                && object.finalizers().iter().any(|one| one == finalizer::CRD_REPLICATOR)
        });
        let mut again = None;
        for object in held {
            match rest(object.meta().deletion_timestamp.as_ref(), patience, &now()) {
                None => {}
                Some(Duration::ZERO) => cluster.release(&*object, finalizer::CRD_REPLICATOR).await?,
                rest => again = again.into_iter().chain(rest).min(),
            }
        }
        Ok(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_original_is_held_for_a_time() {
        let at = |second| Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap());
        let rest = |since: Option<i64>| rest(since.map(at).as_ref(), Duration::from_secs(10), &at(100));
        assert_eq!(rest(None), None);
        assert_eq!(rest(Some(100)), Some(Duration::from_secs(10)));
        assert_eq!(rest(Some(91)), Some(Duration::from_secs(1)));
        assert_eq!(rest(Some(90)), Some(Duration::ZERO));
    }
}
