//! `NamespaceMap` replicas: the namespaces a peer asks for, made here.
//!
//! Keeps true: however many maps a peer sends, it has no more namespaces than one peer may have; it gets namespaces only while its grant as a consumer is in force, only through the map in its own
//! tenant namespace, and never a namespace that another party created; in each namespace the peer has exactly one role. A
//! namespace that the map no longer names is removed, and when the grant has ended, all namespaces of the peer are
//! removed, whatever the peer does.
//!
//! Watches   `NamespaceMap` replicas, `Namespace`s, `RoleBinding`s, `ResourceQuota`s, and what peers are granted.
//! Writes    `Namespace`s, a `RoleBinding` and a `ResourceQuota` in each; status and finalizer of the replicas.
//! Removes   the namespaces no longer asked for, with all they contain; finalizers that hold what is in them when the
//!           time to take leave is over.

mod make;
mod plan;
mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, finalizer, label},
    virtualkubelet::{MappingPhase, NamespaceMap, NamespaceMapStatus, RemoteNamespaceStatus},
};
use liqo_core::{decision::accepts, grants::Grant};
use liqo_kube::{KubeError, Queue, Store, drive, now, told::Told};

pub(crate) use self::plan::Rules;
use self::{plan::owner_of, status::status};
use super::{Shared, is_leaving, is_original};
use crate::{
    COMPONENT,
    limits::{self, Limits, Quotas},
};

/// How soon a refused namespace is looked at again, should its watch have told us nothing.
const LATER: Duration = Duration::from_secs(30);

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A map, by namespace and name.
    Map(String, String),
    /// A namespace, or the role binding in it.
    Namespace(String),
    /// What a peer is granted.
    Peer(String),
}

struct Loop {
    shared: Arc<Shared>,
    bindings: Store<RoleBinding>,
    quotas: Quotas,
    rules: Rules,
    queue: Queue<Key>,
    /// Peers whose pods may have to be evicted.
    leaving: Queue<String>,
    told: Told,
}

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, rules: Rules, queue: Queue<Key>, leaving: Queue<String>) {
    let seen = queue.clone();
    let bindings = shared.memory.bindings.listen(move |binding| {
        if is_binding_of_map(binding) {
            seen.push(Key::Namespace(binding.namespace().unwrap_or_default()));
        }
    });
    shared.ready().await;
    bindings.ready().await;
    let limits = Limits::new(limits::OBJECTS, rules.objects.clone(), now().0.as_second());
    let changed = queue.clone();
    let quotas = Quotas::watch(&shared.home.cluster, limits, move |namespace| changed.push(Key::Namespace(namespace)));
    quotas.ready().await;
    let all = Loop { shared, bindings, quotas, rules, queue: queue.clone(), leaving, told: Told::default() };
    drive("namespace-map", queue, 4, |key| all.settle(key)).await;
}

/// Whether a binding was made for a namespace map.
pub(crate) fn is_binding_of_map(binding: &RoleBinding) -> bool {
    binding.annotations().contains_key(annotation::MANAGED_BY_NAMESPACE_MAP)
}

impl Loop {
    async fn settle(&self, key: Key) -> Result<Option<Duration>, KubeError> {
        match key {
            Key::Map(namespace, name) => match self.shared.memory.maps.get(&namespace, &name) {
                Some(map) => self.settle_map(&map).await,
                None => Ok(None),
            },
            Key::Namespace(name) => {
                let namespace = self.shared.memory.namespaces.get("", &name);
                let owner = namespace.as_deref().and_then(owner_of).map(|owner| owner.map);
                self.wake(|map| {
                    let lies_there = map.namespace().as_ref() == Some(&name);
                    lies_there || owner.as_deref() == Some(&*id(map)) || mentions(map, &name)
                });
                Ok(None)
            }
            Key::Peer(peer) => {
                self.wake(|map| map.labels().get(label::ORIGIN_ID) == Some(&peer));
                Ok(None)
            }
        }
    }

    fn wake(&self, concerned: impl Fn(&NamespaceMap) -> bool) {
        for map in self.shared.memory.maps.filter(|map| !is_original(map) && concerned(map)) {
            self.queue.push(Key::Map(map.namespace().unwrap_or_default(), map.name_any()));
        }
    }

    async fn settle_map(&self, map: &NamespaceMap) -> Result<Option<Duration>, KubeError> {
        let (leaving, cluster) = (is_leaving(map), &self.shared.home.cluster);
        let held = map.finalizers().iter().any(|one| one == finalizer::NAMESPACE_MAP);
        if is_original(map) || (leaving && !held) {
            return Ok(None);
        }
        let Some(origin) = self.origin(map).await else { return Ok(None) };
        let mut current = map.clone();
        if !held {
            current = cluster.hold(&current, finalizer::NAMESPACE_MAP).await?;
        }
        let grant = self.shared.ledger.grants(&origin).consumer;
        if !leaving && !grant.is_in_force() && !map.spec.desired_mapping.is_empty() {
            self.told.warn((cluster, COMPONENT), map, "", "NamespaceRefused", &self.why(&origin, grant)).await;
        }
        let empty = BTreeMap::new();
        let desired = if leaving || !grant.is_in_force() { &empty } else { &map.spec.desired_mapping };
        let outcomes = self.make(map, &origin, desired, grant).await;
        let (left, held) = self.clear(map, &origin, desired, grant).await;
        let (status, trouble) = status(map, outcomes, left);
        if map.status.as_ref().unwrap_or(&NamespaceMapStatus::default()) != &status {
            let Some(told) = cluster.put_status(&current, &status).await? else { return Ok(None) };
            current = told;
        }
        trouble.map_or(Ok(()), Err)?;
        if leaving && status.current_mapping.is_empty() {
            cluster.release(&current, finalizer::NAMESPACE_MAP).await?;
            tracing::info!(map = id(map), "every namespace of the peer is gone");
        }
        let refused = |one: &RemoteNamespaceStatus| one.phase == Some(MappingPhase::CreationLoopBackOff);
        let later = status.current_mapping.values().any(refused).then_some(LATER);
        if matches!(grant, Grant::Leaving { .. }) {
            self.leaving.push(origin);
        }
        let now = now().0.as_second();
        let (ends_in, counted_in) = (grant.ends_in(now), self.quotas.limits.more_in(now));
        Ok(later.into_iter().chain(held).chain(ends_in).chain(counted_in).min())
    }

    /// Why a peer is given no namespaces now.
    fn why(&self, peer: &str, grant: Grant) -> String {
        let one = self.shared.ledger.foreign_cluster(peer);
        let refused = one.and_then(|one| accepts(&one, self.shared.ledger.policy.accept_by_default).err());
        match (grant, refused) {
            (Grant::Kept, _) => "this cluster is cordoned for the peer: it keeps what it has and is given nothing new",
            (_, Some(why)) => why,
            _ => "no offer of this cluster to the peer is in force: it is given no namespaces",
        }
        .to_owned()
    }

    /// The peer that sent the map, if it lies in that peer's own tenant namespace.
    async fn origin(&self, map: &NamespaceMap) -> Option<String> {
        let origin = map.labels().get(label::ORIGIN_ID).cloned().unwrap_or_default();
        let peer = self.shared.ledger.peer_in(&map.namespace().unwrap_or_default());
        // A map that is being deleted is released, whichever origin its labels name.
        if is_leaving(map) || peer.as_ref() == Some(&origin) {
            return Some(peer.unwrap_or(origin));
        }
        let text = format!("not the tenant namespace of the cluster {origin:?} this map says it comes from");
        self.told.warn((&self.shared.home.cluster, COMPONENT), map, "", "NamespaceRefused", &text).await;
        None
    }

    /// Tells, once, why a namespace is refused; `None`: it no longer is.
    async fn tell(&self, map: &NamespaceMap, namespace: &str, why: Option<&String>) {
        let reason = "NamespaceRefused";
        match why {
            None => self.told.settled(map, namespace, reason),
            Some(why) => self.told.warn((&self.shared.home.cluster, COMPONENT), map, namespace, reason, why).await,
        }
    }
}

/// `<namespace>/<name>`, as the annotation of its namespaces has it.
fn id(map: &NamespaceMap) -> String {
    format!("{}/{}", map.namespace().unwrap_or_default(), map.name_any())
}

/// Whether the map with this [`id`] lies in a tenant namespace.
fn is_in(map: &str, tenant: &str) -> bool {
    map.split_once('/').is_some_and(|(namespace, _)| namespace == tenant)
}

/// Whether a map asks, or asked, for a namespace.
fn mentions(map: &NamespaceMap, name: &str) -> bool {
    let current = map.status.iter().flat_map(|status| status.current_mapping.values());
    map.spec.desired_mapping.values().any(|one| one == name)
        || current.into_iter().any(|one| one.remote_namespace == name)
}
