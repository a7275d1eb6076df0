//! The objects of this cluster that several parts of the controller manager read: one watch and one store for each kind.
//!
//! Keeps true: a kind that is listed here is watched once in this process; only the client for addresses that others choose keeps
//! the addresses of nodes for itself. Every replica keeps the memory, so that
//! admission and the controllers of the leader read the same stores, and a new leader starts with what is known.
//! A part that acts on changes adds a listener; a listener that is added later hears of every object that is stored already.
//!
//! Watches   `ForeignCluster`, `Namespace`, `NamespaceMap`, `Node`, `NamespaceOffloading`, `Pod`s made from `ShadowPod`s, `ResourceOffer`,
//!           `ResourceRequest`, `RoleBinding`, `ShadowPod`, `TunnelEndpoint`.

use std::{
    ops::Deref,
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::api::{
    core::v1::{Namespace, NamespaceStatus, Node, Pod},
    rbac::v1::RoleBinding,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, ResourceRequest},
    meta::label,
    net::TunnelEndpoint,
    offloading::NamespaceOffloading,
    sharing::ResourceOffer,
    virtualkubelet::{NamespaceMap, ShadowPod},
};
use liqo_core::grants::Policy;
use liqo_kube::{Object, Store, Watch, guard::guarded_now, strip};

use crate::{
    home::Home,
    ledger::Ledger,
    offload::{self, brief, namespace_map, shadow_pod},
    peering::{monitor, permissions},
};

/// A store whose changes have several listeners.
pub(crate) struct Kept<K> {
    store: Store<K>,
    listeners: Listeners<K>,
}

type Listener<K> = Box<dyn Fn(&K) + Send + Sync>;
type Listeners<K> = Arc<RwLock<Vec<Listener<K>>>>;

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), listeners: Arc::clone(&self.listeners) }
    }
}

impl<K> Deref for Kept<K> {
    type Target = Store<K>;

    fn deref(&self) -> &Store<K> {
        &self.store
    }
}

impl<K: Object> Kept<K> {
    /// Starts a watch without listeners.
    fn start(watch: Watch<K>) -> Self {
        let listeners = Listeners::default();
        let all = Arc::clone(&listeners);
        Self { store: watch.start(move |object| call(&all, object)), listeners }
    }

    /// Calls `listener` with every object that is stored, and from now on with every object that comes, changes (before and
    /// after) or goes; an object that changes in the meantime is named twice. The listener must be quick. Returns the store.
    pub(crate) fn listen(&self, listener: impl Fn(&K) + Send + Sync + 'static) -> Store<K> {
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        let stored = self.store.all();
        stored.iter().for_each(|object| listener(object));
        listeners.push(Box::new(listener));
        self.store.clone()
    }
}

/// Calls every listener; a listener that panics keeps no other listener from the object.
fn call<K>(listeners: &RwLock<Vec<Listener<K>>>, object: &K) {
    for listener in listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Err(panic) = guarded_now("watch", || listener(object)) {
            tracing::error!(error = %panic, "an object was not announced");
        }
    }
}

/// All shared stores.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) foreign_clusters: Kept<ForeignCluster>,
    /// Maps of this cluster, and copies of the maps of peers.
    pub(crate) maps: Kept<NamespaceMap>,
    /// All namespaces: their metadata, and the conditions that say why a namespace does not end.
    pub(crate) namespaces: Kept<Namespace>,
    /// Real and virtual nodes.
    pub(crate) nodes: Kept<Node>,
    pub(crate) offers: Kept<ResourceOffer>,
    pub(crate) offloadings: Kept<NamespaceOffloading>,
    /// Pods made from `ShadowPod`s; of their specification only what may change is kept.
    pub(crate) pods: Kept<Pod>,
    pub(crate) requests: Kept<ResourceRequest>,
    /// All role bindings; of those that Liqo did not make only the name is kept.
    pub(crate) bindings: Kept<RoleBinding>,
    /// `ShadowPod`s; large ones are kept in part, see [`brief`].
    pub(crate) shadow_pods: Kept<ShadowPod>,
    /// `None`: the networks are connected by something else.
    pub(crate) tunnels: Option<Kept<TunnelEndpoint>>,
}

impl Memory {
    /// Starts watching; `networks`: Liqo connects the networks of clusters.
    pub(crate) fn watch(home: &Home, networks: bool) -> Self {
        let cluster = &home.cluster;
        let guests = format!("{}={}", label::MANAGED_BY, label::MANAGED_BY_SHADOW_POD);
        Self {
            foreign_clusters: Kept::start(cluster.watch("")),
            maps: Kept::start(cluster.watch("")),
            namespaces: Kept::start(cluster.watch("").trim(trim_namespace)),
            nodes: Kept::start(cluster.watch("").trim(monitor::trim_node)),
            offers: Kept::start(cluster.watch("")),
            offloadings: Kept::start(cluster.watch("")),
            pods: Kept::start(cluster.watch("").labels(&guests).trim(shadow_pod::trim)),
            requests: Kept::start(cluster.watch("")),
            bindings: Kept::start(cluster.watch("").trim(trim_binding)),
            shadow_pods: Kept::start(cluster.watch("").trim(brief::shadow_pod)),
            tunnels: networks.then(|| Kept::start(cluster.watch(""))),
        }
    }

    /// The peers and their grants, for a cluster with this policy.
    pub(crate) fn ledger(&self, home: &Home, policy: Policy) -> Ledger {
        Ledger {
            here: home.identity.clone(),
            policy,
            foreign_clusters: self.foreign_clusters.store.clone(),
            namespaces: self.namespaces.store.clone(),
            requests: self.requests.store.clone(),
            offers: self.offers.store.clone(),
        }
    }
}

/// Whether a node stands for another cluster.
pub(crate) fn is_virtual(node: &Node) -> bool {
    node.labels().get(label::TYPE).is_some_and(|value| value == label::VIRTUAL_NODE)
}

fn trim_namespace(namespace: &mut Namespace) {
    strip(namespace);
    namespace.spec = None;
    let conditions = namespace.status.take().and_then(|status| status.conditions).unwrap_or_default();
    let kept: Vec<_> =
        conditions.into_iter().filter(|one| offload::strip::CONDITIONS.contains(&one.type_.as_str())).collect();
    if !kept.is_empty() {
        namespace.status = Some(NamespaceStatus { conditions: Some(kept), ..NamespaceStatus::default() });
    }
}

fn trim_binding(binding: &mut RoleBinding) {
    strip(binding);
    let is_ours = permissions::is_kept(binding)
        || namespace_map::is_binding_of_map(binding)
        || binding.labels().contains_key(label::CLUSTER_ID);
    if !is_ours {
        (binding.subjects, binding.role_ref) = (None, Default::default());
        (binding.metadata.labels, binding.metadata.annotations, binding.metadata.owner_references) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_listener_that_panics_keeps_no_other_from_an_object() {
        let heard = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&heard);
        let listeners: Vec<Listener<u8>> = vec![
            Box::new(|_| panic!("on purpose")),
            Box::new(move |object| {
                counts.fetch_add((*object).into(), Ordering::Relaxed);
            }),
        ];
        call(&RwLock::new(listeners), &7);
        assert_eq!(heard.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn of_a_foreign_role_binding_only_the_name_is_kept() {
        let binding = |name: &str, label: &str, annotation: &str| -> RoleBinding {
            let metadata = serde_json::json!({
                "name": name, "namespace": "n", "labels": {label: "x"}, "annotations": {annotation: "x"},
            });
            let role = serde_json::json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"});
            let subjects = [serde_json::json!({"kind": "User", "name": "u"})];
            let mut binding = serde_json::from_value(
                serde_json::json!({"metadata": metadata, "roleRef": role, "subjects": subjects}),
            )
            .unwrap();
            trim_binding(&mut binding);
            binding
        };
        for (what, binding, kept) in [
            ("anybody's", binding("b", "l", "a"), false),
            (
                "a peer's role in its tenant namespace",
                binding(&permissions::binding_name(permissions::ROLES[0]), "l", "a"),
                true,
            ),
            ("a virtual kubelet's", binding("b", label::CLUSTER_ID, "a"), true),
            ("a namespace map's", binding("b", "l", liqo_api::meta::annotation::MANAGED_BY_NAMESPACE_MAP), true),
        ] {
            assert_eq!(binding.subjects.is_some(), kept, "{what}");
            assert!(!binding.name_any().is_empty(), "{what}");
        }
    }
}
