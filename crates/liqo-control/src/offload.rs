//! Virtual kubelets, namespaces there, shadow pods here.
//!
//! As a consumer: a virtual kubelet for each accepted offer ([`virtual_kubelet`]), a namespace map for each
//! virtual node (`virtual_node`), the wishes of `NamespaceOffloading`s in those maps (`namespace`), the pods on virtual nodes that
//! no virtual kubelet looks after (`stray`).
//! As a provider: the namespaces a peer asks for (`namespace_map`), its pods (`shadow_pod`) and its
//! endpoints (`shadow_endpoint_slice`) in them.
//!
//! Everything here is decided by one replica at a time. Each loop owns its queue; what several of them
//! read is watched once ([`Shared`]).

mod access;
pub mod allowance;
mod csr;
mod drift;
mod namespace;
mod namespace_map;
mod node_failure;
mod owners;
mod shadow_endpoint_slice;
mod shadow_pod;
mod stray;
mod take_back;
mod virtual_node;

pub mod guest;
pub(crate) mod strip;
pub mod virtual_kubelet;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringConditionType, ResourceRequest},
    meta::label,
    sharing::ResourceOffer,
    virtualkubelet::NamespaceMap,
};
use liqo_kube::{Object, Queue, Store, life::Life, strip};

use self::owners::Owners;
use crate::{
    door::Policy,
    home::Home,
    ledger::{Ledger, id_of},
    manager::ManagerArgs,
    peering::Settings,
};

/// What several loops read.
pub(crate) struct Shared {
    /// This cluster.
    pub home: Home,
    /// Virtual nodes; only their metadata is kept.
    pub nodes: Store<Node>,
    /// Namespace maps: originals of ours and replicas of peers'.
    pub maps: Store<NamespaceMap>,
    /// Namespaces; only their metadata is kept.
    pub namespaces: Store<Namespace>,
    /// The peers and their grants.
    pub ledger: Ledger,
    /// The settings that loosen what peers may write.
    pub door: Policy,
}

impl Shared {
    /// Returns when everything shared is known.
    pub(crate) async fn ready(&self) {
        self.nodes.ready().await;
        self.maps.ready().await;
        self.namespaces.ready().await;
        self.ledger.ready().await;
        self.door.ready().await;
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

/// How an aspect of a peering stands.
pub(crate) fn condition(peer: &ForeignCluster, aspect: PeeringConditionType) -> PeeringConditionStatus {
    let all = peer.status.iter().flat_map(|status| &status.peering_conditions);
    all.into_iter().find(|one| one.type_ == aspect).map(|one| one.status).unwrap_or_default()
}

/// Whether the peer's API server answers, so that what we ask of it will happen.
pub(crate) fn answers(peer: Option<&ForeignCluster>) -> bool {
    peer.is_some_and(|peer| {
        condition(peer, PeeringConditionType::APIServerStatus) == PeeringConditionStatus::Established
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
pub(crate) fn spawn(home: &Home, args: &ManagerArgs, door: Policy, life: &Life) -> Result<(), String> {
    virtual_kubelet::check(args)?;
    let (nodes, spaces) = (Queue::new(), Queue::new());
    let owners = Owners::default();
    let (maps, slices) = (owners.maps(), owners.slices());
    let (access, strays) = (Queue::new(), Queue::new());
    let policy = Settings::read(args)?.policy;
    let ledger = Ledger {
        here: home.identity.clone(),
        policy,
        foreign_clusters: watch_peers(home, nodes.clone(), spaces.clone(), slices.clone(), maps.clone()),
        namespaces: watch_namespaces(home, spaces.clone(), maps.clone()),
        requests: home.cluster.watch("").start(wake_maps::<ResourceRequest>(&maps)),
        offers: home.cluster.watch("").start(wake_maps::<ResourceOffer>(&maps)),
    };
    let shared = Arc::new(Shared {
        home: home.clone(),
        nodes: watch_nodes(home, nodes.clone(), spaces.clone(), strays.clone()),
        maps: watch_maps(home, nodes.clone(), spaces.clone(), maps.clone(), (access.clone(), strays.clone())),
        namespaces: ledger.namespaces.clone(),
        ledger,
        door,
    });
    owners.know(shared.namespaces.clone());
    life.spawn("virtual-node", virtual_node::run(Arc::clone(&shared), nodes));
    life.spawn("virtual-kubelet-access", access::run(Arc::clone(&shared), access));
    life.spawn("strays", stray::run(Arc::clone(&shared), strays));
    life.spawn("namespace-offloading", namespace::run(Arc::clone(&shared), spaces));
    let pods = shadow_pod::Pods::watch(home, owners.places());
    let leaving = Queue::new();
    life.spawn("take-back", take_back::run(Arc::clone(&shared), pods.store.clone(), leaving.clone()));
    life.spawn("namespace-map", namespace_map::run(Arc::clone(&shared), rules(home, args), maps, leaving));
    life.spawn("kubelet-csr", csr::run(Arc::clone(&shared)));
    if args.enable_node_failure_controller {
        life.spawn("node-failure", node_failure::run(home.clone(), pods.clone()));
    }
    let rules = shadow_pod::Rules::new(args);
    life.spawn("shadow-pod", shadow_pod::run(Arc::clone(&shared), rules, pods, args.shadow_pod_ctrl_workers));
    life.spawn("shadow-endpoint-slice", shadow_endpoint_slice::run(shared, slices, args.clone()));
    Ok(())
}

/// Names, labels and limits of the namespaces made for peers.
fn rules(home: &Home, args: &ManagerArgs) -> namespace_map::Rules {
    let own = [home.namespace.clone(), args.storage_namespace.clone()];
    namespace_map::Rules {
        reserved: own.into_iter().chain(args.reserved_namespaces.iter().cloned()).collect(),
        pod_security: args.pod_security.clone(),
        namespaces_per_peer: args.namespaces_per_peer,
        objects: args.guests.guest_objects.clone(),
    }
}

/// A change of the agreement with a peer wakes the maps of that peer.
fn wake_maps<K: Object>(maps: &Queue<namespace_map::Key>) -> impl Fn(&K) + Send + Sync + use<K> {
    let maps = maps.clone();
    move |object| maps.push(namespace_map::Key::Namespace(object.namespace().unwrap_or_default()))
}

fn watch_nodes(
    home: &Home,
    nodes: Queue<virtual_node::Key>,
    spaces: Queue<namespace::Key>,
    strays: Queue<stray::Key>,
) -> Store<Node> {
    let selector = format!("{}={}", label::TYPE, label::VIRTUAL_NODE);
    home.cluster.watch::<Node>("").labels(&selector).trim(only_metadata).start(move |node| {
        nodes.push(virtual_node::Key::Node(node.name_any()));
        spaces.push(namespace::Key::Node(node.name_any()));
        strays.push(stray::Key::Node(node.name_any()));
    })
}

fn only_metadata(node: &mut Node) {
    strip(node);
    (node.spec, node.status, node.metadata.annotations) = (None, None, None);
}

fn watch_maps(
    home: &Home,
    nodes: Queue<virtual_node::Key>,
    spaces: Queue<namespace::Key>,
    maps: Queue<namespace_map::Key>,
    (access, strays): (Queue<String>, Queue<stray::Key>),
) -> Store<NamespaceMap> {
    home.cluster.watch::<NamespaceMap>("").start(move |map| {
        let (namespace, name) = (map.namespace().unwrap_or_default(), map.name_any());
        if is_original(map) {
            access.push(provider_of(map).to_owned());
            strays.push(stray::Key::Provider(provider_of(map).to_owned()));
            nodes.push(virtual_node::Key::Provider(provider_of(map).to_owned()));
            spaces.push(namespace::Key::Map(namespace, name));
        } else {
            maps.push(namespace_map::Key::Map(namespace, name));
        }
    })
}

fn watch_namespaces(home: &Home, spaces: Queue<namespace::Key>, maps: Queue<namespace_map::Key>) -> Store<Namespace> {
    let trim = |namespace: &mut Namespace| {
        strip(namespace);
        (namespace.spec, namespace.status) = (None, None);
    };
    home.cluster.watch::<Namespace>("").trim(trim).start(move |namespace| {
        spaces.push(namespace::Key::Namespace(namespace.name_any()));
        maps.push(namespace_map::Key::Namespace(namespace.name_any()));
    })
}

fn watch_peers(
    home: &Home,
    nodes: Queue<virtual_node::Key>,
    spaces: Queue<namespace::Key>,
    slices: Queue<shadow_endpoint_slice::Key>,
    maps: Queue<namespace_map::Key>,
) -> Store<ForeignCluster> {
    home.cluster.watch::<ForeignCluster>("").start(move |peer| {
        maps.push(namespace_map::Key::Peer(id_of(peer).to_owned()));
        slices.push(shadow_endpoint_slice::Key::Peer(id_of(peer).to_owned()));
        nodes.push(virtual_node::Key::Provider(id_of(peer).to_owned()));
        spaces.push(namespace::Key::Peer(id_of(peer).to_owned()));
    })
}
