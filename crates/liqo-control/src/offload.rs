//! Virtual kubelets, namespaces there, shadow pods here.
//!
//! As a consumer: a virtual kubelet for each accepted offer ([`virtual_kubelet`]), a namespace map for each
//! virtual node (`virtual_node`), the entries of `NamespaceOffloading`s in those maps (`namespace`), the pods on virtual nodes that
//! no virtual kubelet looks after (`stray`).
//! As a provider: the namespaces a peer asks for (`namespace_map`), its pods (`shadow_pod`) and its
//! endpoints (`shadow_endpoint_slice`) in them.
//!
//! Everything here is decided by one replica at a time. Each loop owns its queue; what several loops
//! read is watched once ([`Shared`], [`Memory`]).

mod access;
pub mod allowance;
pub(crate) mod brief;
mod csr;
mod drift;
mod namespace;
pub(crate) mod namespace_map;
mod node_failure;
mod owners;
mod shadow_endpoint_slice;
pub(crate) mod shadow_pod;
mod stray;
mod take_back;
mod virtual_node;

pub mod guest;
pub(crate) mod strip;
pub mod virtual_kubelet;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringConditionType},
    meta::label,
    names,
    virtualkubelet::NamespaceMap,
};
use liqo_core::peering;
use liqo_kube::{Object, Queue, Store, life::Life};

use self::{allowance::Bookings, owners::Owners};
use crate::{
    args::ManagerArgs,
    door::Policy,
    home::Home,
    ledger::{Ledger, id_of},
    memory::{Memory, is_virtual},
};

/// What several loops read.
pub(crate) struct Shared {
    /// This cluster.
    pub home: Home,
    /// The stores that other parts of the process read as well.
    pub memory: Memory,
    /// The peers and their grants.
    pub ledger: Ledger,
    /// The settings that loosen what peers may write.
    pub door: Policy,
}

impl Shared {
    /// Returns when everything shared is known.
    pub(crate) async fn ready(&self) {
        self.memory.nodes.ready().await;
        self.memory.offloadings.ready().await;
        self.memory.maps.ready().await;
        self.ledger.ready().await;
        self.door.ready().await;
    }

    /// The virtual node of this name.
    pub(crate) fn virtual_node(&self, name: &str) -> Option<Arc<Node>> {
        self.memory.nodes.get("", name).filter(|node| is_virtual(node))
    }

    /// The virtual nodes of a provider.
    pub(crate) fn virtual_nodes_of(&self, provider: &str) -> Vec<Arc<Node>> {
        self.memory.nodes.filter(|node| is_virtual(node) && provider_of(node) == provider)
    }

    /// The peer with an ID.
    pub(crate) fn peer(&self, id: &str) -> Option<Arc<ForeignCluster>> {
        self.ledger.foreign_cluster(id)
    }

    /// The namespace dedicated to a peer.
    pub(crate) fn tenant_namespace(&self, id: &str) -> Option<String> {
        self.ledger.tenant(id)
    }
}

/// Whether the peer's API server answers, so that what we ask of it will happen.
pub(crate) fn answers(peer: Option<&ForeignCluster>) -> bool {
    peer.is_some_and(|peer| {
        peering::status(peer, PeeringConditionType::APIServerStatus) == PeeringConditionStatus::Established
    })
}

/// Whether a namespace map is the original, made by us.
pub(crate) fn is_original(map: &NamespaceMap) -> bool {
    map.labels().get(label::REPLICATION).is_some_and(|value| value == "true")
}

/// The virtual node's, or namespace map's, provider.
pub(crate) fn provider_of(object: &impl ResourceExt) -> &str {
    object.labels().get(label::REMOTE_CLUSTER_ID).map(String::as_str).unwrap_or_default()
}

/// Whether an object is on its way out.
pub(crate) fn is_leaving(object: &impl ResourceExt) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Starts every loop; they run as long as the process.
///
/// # Errors
/// When a flag about virtual kubelets has a value no pod can have.
pub(crate) fn spawn(
    home: &Home,
    args: &ManagerArgs,
    (memory, ledger, door): (Memory, Ledger, Policy),
    life: &Life,
) -> Result<(), String> {
    virtual_kubelet::check(&args.kubelets)?;
    let owners = Owners::new(Store::clone(&memory.namespaces));
    let queues = Queues {
        nodes: Queue::new(),
        spaces: Queue::new(),
        maps: owners.maps(),
        slices: owners.slices(),
        access: Queue::new(),
        strays: Queue::new(),
    };
    let maps = memory.maps.listen(wake_of_maps(&queues));
    listen(&memory, &maps, &queues);
    let pods = shadow_pod::Pods::new(&memory.pods, owners.places());
    let shared = Arc::new(Shared { home: home.clone(), memory, ledger, door });
    let Queues { nodes, spaces, maps, slices, access, strays } = queues;
    life.spawn("virtual-node", virtual_node::run(Arc::clone(&shared), nodes));
    life.spawn("virtual-kubelet-access", access::run(Arc::clone(&shared), access));
    life.spawn("strays", stray::run(Arc::clone(&shared), strays));
    life.spawn("namespace-offloading", namespace::run(Arc::clone(&shared), spaces));
    let leaving = Queue::new();
    life.spawn("take-back", take_back::run(Arc::clone(&shared), pods.store.clone(), leaving.clone()));
    life.spawn("namespace-map", namespace_map::run(Arc::clone(&shared), rules(home, args), maps, leaving));
    life.spawn("kubelet-csr", csr::run(Arc::clone(&shared)));
    if args.enable_node_failure_controller {
        life.spawn("node-failure", node_failure::run(Arc::clone(&shared), pods.clone()));
    }
    let rules = (shadow_pod::Rules::new(args), Bookings::new(args.enable_resource_enforcement));
    life.spawn("shadow-pod", shadow_pod::run(Arc::clone(&shared), rules, pods, args.shadow_pod_ctrl_workers));
    let (networks, workers) = (args.guests.guest_networks.clone(), args.shadow_endpointslice_ctrl_workers);
    life.spawn("shadow-endpoint-slice", shadow_endpoint_slice::run(shared, slices, networks, workers));
    Ok(())
}

/// Names, labels and limits of the namespaces made for peers.
fn rules(home: &Home, args: &ManagerArgs) -> namespace_map::Rules {
    namespace_map::Rules {
        own: [home.namespace.clone(), args.storage.storage_namespace.clone()],
        reserved: args.namespaces.reserved_namespaces.clone(),
        free: args.namespaces.free_names.clone(),
        pod_security: args.namespaces.pod_security.clone(),
        namespaces_per_peer: args.namespaces.namespaces_per_peer,
        objects: args.guests.guest_objects.clone(),
    }
}

/// The queues that changes of shared objects are pushed into.
struct Queues {
    nodes: Queue<virtual_node::Key>,
    spaces: Queue<namespace::Key>,
    maps: Queue<namespace_map::Key>,
    slices: Queue<shadow_endpoint_slice::Key>,
    access: Queue<String>,
    strays: Queue<stray::Key>,
}

/// Pushes what changes in the shared stores into the queues of all loops that the change concerns.
fn listen(memory: &Memory, originals: &Store<NamespaceMap>, queues: &Queues) {
    let (nodes, spaces, strays) = (queues.nodes.clone(), queues.spaces.clone(), queues.strays.clone());
    let access = queues.access.clone();
    memory.nodes.listen(move |node| {
        if is_virtual(node) {
            nodes.push(virtual_node::Key::Node(node.name_any()));
            spaces.push(namespace::Key::Node(node.name_any()));
            access.push(provider_of(node).to_owned());
            strays.push(stray::Key::Node(node.name_any()));
        }
    });
    let (spaces, maps) = (queues.spaces.clone(), queues.maps.clone());
    memory.namespaces.listen(move |namespace| {
        spaces.push(namespace::Key::Namespace(namespace.name_any()));
        maps.push(namespace_map::Key::Namespace(namespace.name_any()));
    });
    let (nodes, spaces) = (queues.nodes.clone(), queues.spaces.clone());
    let (maps, slices) = (queues.maps.clone(), queues.slices.clone());
    memory.foreign_clusters.listen(move |peer| {
        maps.push(namespace_map::Key::Peer(id_of(peer).to_owned()));
        slices.push(shadow_endpoint_slice::Key::Peer(id_of(peer).to_owned()));
        nodes.push(virtual_node::Key::Provider(id_of(peer).to_owned()));
        spaces.push(namespace::Key::Peer(id_of(peer).to_owned()));
    });
    let (spaces, access, maps) = (queues.spaces.clone(), queues.access.clone(), originals.clone());
    memory.offloadings.listen(move |offloading| {
        if offloading.name_any() != names::NAMESPACE_OFFLOADING {
            return;
        }
        let namespace = offloading.namespace().unwrap_or_default();
        for map in maps.filter(|map| is_original(map) && map.spec.desired_mapping.contains_key(&namespace)) {
            access.push(provider_of(&*map).to_owned());
        }
        spaces.push(namespace::Key::Namespace(namespace));
    });
    memory.requests.listen(wake_maps(&queues.maps));
    memory.offers.listen(wake_maps(&queues.maps));
}

/// A change of the agreement with a peer wakes the maps of that peer.
fn wake_maps<K: Object>(maps: &Queue<namespace_map::Key>) -> impl Fn(&K) + Send + Sync + use<K> {
    let maps = maps.clone();
    move |object| maps.push(namespace_map::Key::Namespace(object.namespace().unwrap_or_default()))
}

/// A change of a map wakes what follows from the map.
fn wake_of_maps(queues: &Queues) -> impl Fn(&NamespaceMap) + Send + Sync + use<> {
    let (nodes, spaces, maps) = (queues.nodes.clone(), queues.spaces.clone(), queues.maps.clone());
    let (access, strays) = (queues.access.clone(), queues.strays.clone());
    move |map| {
        let (namespace, name) = (map.namespace().unwrap_or_default(), map.name_any());
        if is_original(map) {
            access.push(provider_of(map).to_owned());
            strays.push(stray::Key::Provider(provider_of(map).to_owned()));
            nodes.push(virtual_node::Key::Provider(provider_of(map).to_owned()));
            spaces.push(namespace::Key::Map(namespace, name));
        } else {
            maps.push(namespace_map::Key::Map(namespace, name));
        }
    }
}
