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

mod plan;
mod quota;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::Namespace,
    rbac::v1::{RoleBinding, RoleRef, Subject},
};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{
    meta::{annotation, finalizer, label},
    names,
    virtualkubelet::{MappingPhase, NamespaceMap, NamespaceMapStatus, RemoteNamespaceStatus},
};
use liqo_core::standing::{Grant, accepts};
use liqo_kube::{KubeError, Queue, Store, drive, now, told::Told};
use serde_json::json;

pub(crate) use self::plan::Rules;
use self::{
    plan::{Owner, Wish, look, originals, owner_of, within},
    quota::{Limits, Quotas},
};
use super::{Shared, is_leaving, is_original, strip};
use crate::COMPONENT;

/// Namespaces of one map handled at the same time.
const AT_ONCE: usize = 8;
/// How soon a refused namespace is looked at again, should its watch have told us nothing.
const LATER: Duration = Duration::from_secs(30);

/// How soon namespaces are looked at again that finalizers may hold.
const SOON: Duration = Duration::from_secs(3);

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
    let bindings = shared.home.cluster.watch::<RoleBinding>("").trim(only_ours).start(move |binding| {
        if binding.annotations().contains_key(annotation::MANAGED_BY_NAMESPACE_MAP) {
            seen.push(Key::Namespace(binding.namespace().unwrap_or_default()));
        }
    });
    shared.ready().await;
    bindings.ready().await;
    let limits = Limits::new(rules.objects.clone(), now().0.as_second());
    let quotas = Quotas::watch(&shared.home.cluster, limits, queue.clone());
    quotas.ready().await;
    let all = Loop { shared, bindings, quotas, rules, queue: queue.clone(), leaving, told: Told::default() };
    drive("namespace-map", queue, 4, |key| all.settle(key)).await;
}

/// Of other people's bindings nothing but the name is kept.
fn only_ours(binding: &mut RoleBinding) {
    liqo_kube::strip(binding);
    if !binding.annotations().contains_key(annotation::MANAGED_BY_NAMESPACE_MAP) {
        (binding.subjects, binding.role_ref) = (None, RoleRef::default());
    }
}

impl Loop {
    async fn settle(&self, key: Key) -> Result<Option<Duration>, KubeError> {
        match key {
            Key::Map(namespace, name) => match self.shared.maps.get(&namespace, &name) {
                Some(map) => self.settle_map(&map).await,
                None => Ok(None),
            },
            Key::Namespace(name) => {
                let namespace = self.shared.namespaces.get("", &name);
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
        for map in self.shared.maps.filter(|map| !is_original(map) && concerned(map)) {
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
        let grant = self.shared.ledger.standing(&origin).consumer;
        if !leaving && !grant.is_in_force() && !map.spec.desired_mapping.is_empty() {
            self.told.warn((cluster, COMPONENT), map, "", "NamespaceRefused", &self.why(&origin, grant)).await;
        }
        let empty = BTreeMap::new();
        let desired = if leaving || !grant.is_in_force() { &empty } else { &map.spec.desired_mapping };
        let outcomes = self.make(map, &origin, desired, grant).await;
        let left = self.clear(map, desired, grant).await;
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
        let stripping = (!grant.is_in_force() && !status.current_mapping.is_empty()).then_some(SOON);
        if matches!(grant, Grant::Leaving { .. }) {
            self.leaving.push(origin);
        }
        let now = now().0.as_second();
        let (ends_in, counted_in) = (grant.ends_in(now), self.quotas.limits.more_in(now));
        Ok(later.into_iter().chain(stripping).chain(ends_in).chain(counted_in).min())
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

    /// Makes the wished namespaces; several at once, one failure does not stop the others.
    async fn make(
        &self,
        map: &NamespaceMap,
        origin: &str,
        desired: &BTreeMap<String, String>,
        grant: Grant,
    ) -> Vec<Outcome> {
        let is_there = |original: &str, name: &str| {
            let namespace = self.shared.namespaces.get("", name);
            namespace.as_deref().and_then(owner_of) == Some(Owner { map: id(map), original: original.to_owned() })
        };
        let allowed = self.allowed(map, desired);
        let one = |(original, name): (&String, &String)| {
            let owner = Owner { map: id(map), original: original.clone() };
            let (name, tenant) = (name.clone(), map.namespace().unwrap_or_default());
            let refused = match () {
                () if !allowed.contains(original) => {
                    let most = self.rules.namespaces_per_peer;
                    Some(format!("a peer may have {most} namespaces here (offloading.namespacesPerPeer)"))
                }
                () if !grant.may_grow() && !is_there(original, &name) => Some(self.why(origin, grant)),
                () => None,
            };
            async move {
                let result = match refused {
                    Some(why) => Ok(Err(why)),
                    None => self.make_one(&owner, origin, &name, &tenant).await,
                };
                if let Ok(made) = &result {
                    self.tell(map, &name, made.as_ref().err()).await;
                }
                Outcome { original: owner.original, name, result }
            }
        };
        // Collected first: what is borrowed from the map must not be borrowed across the stream.
        let all: Vec<_> = desired.iter().map(one).collect();
        futures::stream::iter(all).buffer_unordered(AT_ONCE).collect().await
    }

    /// The entries of a map within the limit of its peer, which all maps of the peer share.
    fn allowed(&self, map: &NamespaceMap, desired: &BTreeMap<String, String>) -> BTreeSet<String> {
        let tenant = map.namespace().unwrap_or_default();
        let is_beside = |one: &NamespaceMap| one.namespace().as_ref() == Some(&tenant) && one.uid() != map.uid();
        let beside = self.shared.maps.filter(|one| is_beside(one) && !is_original(one) && !is_leaving(one));
        let age = |one: &NamespaceMap| (one.metadata.creation_timestamp.clone().map(|time| time.0), one.name_any());
        let mut maps: Vec<_> = beside.iter().map(|one| (age(one), id(one), &one.spec.desired_mapping)).collect();
        maps.push((age(map), id(map), desired));
        maps.sort_by(|one, other| one.0.cmp(&other.0));
        let maps: Vec<_> = maps.into_iter().map(|(_, id, desired)| (id, desired)).collect();
        let there = self.shared.namespaces.all();
        let there = there.iter().filter_map(|one| Some((owner_of(one)?, one.name_any())));
        let there: Vec<_> = there.filter(|(owner, _)| is_in(&owner.map, &tenant)).collect();
        within(&id(map), &maps, &there, self.rules.namespaces_per_peer)
    }

    async fn make_one(
        &self,
        owner: &Owner,
        origin: &str,
        name: &str,
        tenant: &str,
    ) -> Result<Result<MappingPhase, String>, KubeError> {
        let cluster = &self.shared.home.cluster;
        let mut there = self.shared.namespaces.get("", name);
        if there.is_none() && look(owner, origin, name, None, &self.rules) == Wish::Create {
            match cluster.create(&forge(owner, origin, name, &self.rules)).await {
                Ok(made) => {
                    tracing::info!(namespace = name, map = owner.map, "namespace created for a peer");
                    there = Some(Arc::new(made));
                }
                // It came while we were looking.
                Err(error) if error.is_conflict() => there = cluster.get("", name).await?.map(Arc::new),
                Err(error) => return Err(error),
            }
        }
        match look(owner, origin, name, there.as_deref(), &self.rules) {
            Wish::Refuse(why) => Ok(Err(why)),
            Wish::Wait => Ok(Ok(MappingPhase::Terminating)),
            // Gone again already; its end comes to us as an event.
            Wish::Create => Ok(Ok(MappingPhase::CreationLoopBackOff)),
            Wish::Keep { label: wrong } => {
                if let Some(there) = there.filter(|_| wrong) {
                    let meta = json!({"uid": there.uid(), "labels": self.rules.labels(origin)});
                    cluster.merge(&*there, json!({ "metadata": meta })).await?;
                }
                self.quotas.limit(cluster, name).await?;
                self.bind(owner, origin, name, tenant).await?;
                Ok(Ok(MappingPhase::Accepted))
            }
        }
    }

    /// Binds the peer to its role in the namespace, whatever somebody has made of the binding.
    async fn bind(&self, owner: &Owner, origin: &str, namespace: &str, tenant: &str) -> Result<(), KubeError> {
        let wanted = binding(owner, origin, namespace, tenant);
        match self.bindings.get(namespace, tenant) {
            Some(is) if binding_like(&is, &wanted) => return Ok(()),
            // A role reference cannot be changed.
            Some(is) if is.role_ref != wanted.role_ref => self.shared.home.cluster.remove(&*is).await?,
            _ => {}
        }
        self.shared.home.cluster.apply(&wanted).await.map(drop)
    }

    /// Deletes what the peer no longer asks for; returns what is still on its way out.
    async fn clear(
        &self,
        map: &NamespaceMap,
        desired: &BTreeMap<String, String>,
        grant: Grant,
    ) -> Result<Vec<(String, String)>, KubeError> {
        let id = id(map);
        let cluster = &self.shared.home.cluster;
        let mut left = Vec::new();
        let mut outcome = Ok(());
        for namespace in self.shared.namespaces.filter(|one| owner_of(one).is_some_and(|owner| owner.map == id)) {
            let original = owner_of(&namespace).map(|owner| owner.original).unwrap_or_default();
            let name = namespace.name_any();
            if desired.get(&original) == Some(&name) {
                continue;
            }
            left.push((original, name.clone()));
            if !grant.is_in_force() {
                let binding = self.bindings.get(&name, &map.namespace().unwrap_or_default());
                if let Some(binding) = binding.filter(|binding| is_of(binding, &id)) {
                    outcome = cluster.remove(&*binding).await.and(outcome);
                }
                outcome = strip::namespace(cluster, &namespace).await.and(outcome);
            }
            if is_leaving(&*namespace) {
                continue;
            }
            match cluster.remove(&*namespace).await {
                Ok(()) => tracing::info!(namespace = namespace.name_any(), map = id, "namespace of a peer deleted"),
                Err(error) => outcome = Err(error),
            }
        }
        outcome.map(|()| left)
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

/// What became of one wish.
struct Outcome {
    original: String,
    name: String,
    /// An error, or the phase, or why it is refused.
    result: Result<Result<MappingPhase, String>, KubeError>,
}

type Left = Result<Vec<(String, String)>, KubeError>;

/// The status, and what has to be tried again.
fn status(map: &NamespaceMap, outcomes: Vec<Outcome>, left: Left) -> (NamespaceMapStatus, Option<KubeError>) {
    let none = BTreeMap::new();
    let before = map.status.as_ref().map_or(&none, |status| &status.current_mapping);
    let mut current = BTreeMap::new();
    let mut trouble = None;
    match left {
        Ok(left) => {
            current.extend(left.into_iter().map(|(original, name)| (original, entry(name, MappingPhase::Terminating))))
        }
        Err(error) => {
            // Unknown which ones are left: what was there stays until it is known.
            let desired: Vec<_> = outcomes.iter().map(|one| &one.original).collect();
            let old = before.iter().filter(|(original, _)| !desired.contains(original));
            current.extend(old.map(|(original, one)| (original.clone(), one.clone())));
            trouble = Some(error);
        }
    }
    for Outcome { original, name, result } in outcomes {
        let phase = match result {
            Ok(Ok(phase)) => phase,
            Ok(Err(_)) => MappingPhase::CreationLoopBackOff,
            Err(error) => {
                trouble = Some(error);
                // What worked goes on working while the API server has trouble.
                let worked = |old: &&RemoteNamespaceStatus| {
                    old.remote_namespace == name && old.phase == Some(MappingPhase::Accepted)
                };
                before
                    .get(&original)
                    .filter(worked)
                    .map_or(MappingPhase::CreationLoopBackOff, |_| MappingPhase::Accepted)
            }
        };
        current.insert(original, entry(name, phase));
    }
    (NamespaceMapStatus { current_mapping: current }, trouble)
}

fn entry(name: String, phase: MappingPhase) -> RemoteNamespaceStatus {
    RemoteNamespaceStatus { remote_namespace: name, phase: Some(phase) }
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

fn forge(owner: &Owner, origin: &str, name: &str, rules: &Rules) -> Namespace {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(rules.labels(origin)),
        annotations: Some(originals(owner)),
        ..ObjectMeta::default()
    };
    Namespace { metadata, ..Namespace::default() }
}

fn binding(owner: &Owner, origin: &str, namespace: &str, tenant: &str) -> RoleBinding {
    let annotations = BTreeMap::from([(annotation::MANAGED_BY_NAMESPACE_MAP.to_owned(), owner.map.clone())]);
    let group = Some("rbac.authorization.k8s.io".to_owned());
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(tenant.to_owned()),
            namespace: Some(namespace.to_owned()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: group.clone(),
            kind: "ClusterRole".to_owned(),
            name: names::VIRTUAL_KUBELET_REMOTE_ROLE.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: group,
            kind: "User".to_owned(),
            name: origin.to_owned(),
            namespace: None,
        }]),
    }
}

/// Whether a binding was made for a map.
fn is_of(binding: &RoleBinding, map: &str) -> bool {
    binding.annotations().get(annotation::MANAGED_BY_NAMESPACE_MAP).is_some_and(|owner| owner == map)
}

/// Whether a binding gives what it should, no more and no less.
fn binding_like(is: &RoleBinding, wanted: &RoleBinding) -> bool {
    let owner = |one: &RoleBinding| one.annotations().get(annotation::MANAGED_BY_NAMESPACE_MAP).cloned();
    is.role_ref == wanted.role_ref && is.subjects == wanted.subjects && owner(is) == owner(wanted)
}

#[cfg(test)]
mod tests {
    use liqo_api::virtualkubelet::NamespaceMapSpec;

    use super::*;

    fn outcome(original: &str, name: &str, result: Result<MappingPhase, &str>) -> Outcome {
        let result = Ok(result.map_err(str::to_owned));
        Outcome { original: original.to_owned(), name: name.to_owned(), result }
    }

    fn phases(status: &NamespaceMapStatus) -> Vec<(&str, &str, MappingPhase)> {
        let all = status.current_mapping.iter();
        all.map(|(key, one)| (key.as_str(), one.remote_namespace.as_str(), one.phase.unwrap())).collect()
    }

    #[test]
    fn the_status_says_what_became_of_every_wish() {
        let map = NamespaceMap::new("provider-ca6261", NamespaceMapSpec::default());
        let outcomes = vec![
            outcome("a", "a-x", Ok(MappingPhase::Accepted)),
            outcome("b", "b-x", Err("taken")),
            // Renamed: the old one is on its way out, the entry speaks of the new one.
            outcome("c", "c-new", Ok(MappingPhase::Accepted)),
        ];
        let left = vec![("c".to_owned(), "c-old".to_owned()), ("d".to_owned(), "d-x".to_owned())];
        let (status, trouble) = status(&map, outcomes, Ok(left));
        assert!(trouble.is_none());
        assert_eq!(
            phases(&status),
            [
                ("a", "a-x", MappingPhase::Accepted),
                ("b", "b-x", MappingPhase::CreationLoopBackOff),
                ("c", "c-new", MappingPhase::Accepted),
                ("d", "d-x", MappingPhase::Terminating),
            ]
        );
    }

    #[test]
    fn the_namespace_is_the_one_recorded_from_a_real_cluster() {
        let owner =
            Owner { map: "liqo-tenant-consumer-ed03b8/provider-ca6261".to_owned(), original: "demo".to_owned() };
        let rules = Rules {
            reserved: Vec::new(),
            pod_security: "baseline".to_owned(),
            namespaces_per_peer: 64,
            objects: Vec::new(),
        };
        let made = forge(&owner, "09897b82", "demo-consumer-ed03b8", &rules);
        assert_eq!(made.labels().get("pod-security.kubernetes.io/enforce").map(String::as_str), Some("baseline"));
        assert_eq!(made.labels().get(label::REMOTE_CLUSTER_ID).map(String::as_str), Some("09897b82"));
        assert_eq!(made.annotations().get("liqo.io/original-name").map(String::as_str), Some("demo"));
        assert_eq!(owner_of(&made), Some(owner));
    }

    #[test]
    fn a_tampered_binding_is_noticed() {
        let owner = Owner { map: "tenant/map".to_owned(), original: "demo".to_owned() };
        let wanted = binding(&owner, "id", "demo-x", "tenant");
        assert!(binding_like(&wanted, &wanted));
        let changes: [fn(&mut RoleBinding); 4] = [
            |one| one.subjects = None,
            |one| one.subjects.as_mut().unwrap()[0].name = "somebody".to_owned(),
            |one| one.role_ref.name = "cluster-admin".to_owned(),
            |one| one.metadata.annotations = None,
        ];
        for change in changes {
            let mut is = wanted.clone();
            change(&mut is);
            assert!(!binding_like(&is, &wanted));
        }
    }
}
