//! What all peering controllers look at: stores of the API server's objects, and who is to look again when
//! something in them changes. The state of each controller is the controller's own.

use std::{ops::Deref, sync::Arc};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Node, Pod, Secret, Service},
    rbac::v1::RoleBinding,
    storage::v1::StorageClass,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::ForeignCluster,
    meta::{finalizer, label},
    names,
    net::{NetworkConfig, TunnelEndpoint},
    virtualkubelet::NamespaceMap,
};
use liqo_core::{endpoint, naming};
use liqo_kube::{Object, Queue, Store, now, told::Told};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{checker::Checker, monitor, permissions::is_kept, settings::Settings, tenant};
use crate::{
    args::{ManagerArgs, PeeringArgs},
    home::Home,
    ledger::{Ledger, id_of, is_original},
    limits::{Limits, Quotas},
    memory::{Memory, is_virtual},
};

/// Something has changed; who has to look?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wake {
    /// The controllers that deal with this `ForeignCluster`.
    ForeignCluster(String),
    /// The controllers that deal with the peer that has this ID.
    Peer(String),
    /// The controllers that deal with this tenant namespace.
    Tenant(String),
    /// The controllers that send addresses of this cluster to peers.
    Address,
    /// The controller that offers free resources.
    Capacity,
}

/// Where to say that something has changed.
pub(crate) type Bell = UnboundedSender<Wake>;

/// What waits to be settled.
#[derive(Default)]
pub(crate) struct Queues {
    /// Names of `ForeignCluster`s.
    pub(crate) foreign_clusters: Queue<String>,
    /// Tenant namespaces in which we may be the provider.
    pub(crate) requests: Queue<String>,
    /// Tenant namespaces in which we may be the consumer.
    pub(crate) offers: Queue<String>,
    /// Tenant namespaces.
    pub(crate) permissions: Queue<String>,
}

/// What all peering controllers look at.
pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) args: PeeringArgs,
    pub(crate) settings: Settings,
    pub(crate) queues: Queues,
    /// The peers, and the objects that count between each peer and this cluster.
    pub(crate) ledger: Ledger,
    /// Secrets that carry a peer's ID: identities, tokens.
    pub(crate) secrets: Store<Secret>,
    /// None while the networks are connected by something else.
    pub(crate) tunnels: Option<Store<TunnelEndpoint>>,
    /// How networks are to be connected, ours and peers'; none while something else connects them.
    pub(crate) networks: Option<Store<NetworkConfig>>,
    /// Maps of this cluster, and copies of the maps of peers.
    pub(crate) maps: Store<NamespaceMap>,
    /// Real and virtual nodes.
    nodes: Store<Node>,
    /// Running pods, cut down to what counts for an offer.
    pub(crate) pods: Store<Pod>,
    /// The Service of the authentication endpoint.
    pub(crate) services: Store<Service>,
    /// None while no storage is offered.
    pub(crate) classes: Option<Store<StorageClass>>,
    /// Virtual kubelets.
    pub(crate) kubelets: Store<Deployment>,
    /// Role bindings, see [`Memory`].
    pub(crate) bindings: Store<RoleBinding>,
    /// How many objects there may be in tenant namespaces.
    pub(crate) exchange: Quotas,
    /// The Pod Security Standard of tenant namespaces.
    pub(crate) pod_security: &'static str,
    /// Whether the API server of each peer answers.
    pub(crate) checker: Checker,
    /// What was said about objects of peers.
    pub(crate) told: Told,
}

impl Deref for World {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl World {
    /// Starts watching what the shared memory does not hold.
    pub(crate) fn open(
        home: &Home,
        args: &ManagerArgs,
        (memory, ledger, settings): (&Memory, Ledger, Settings),
    ) -> (Self, UnboundedReceiver<Wake>) {
        let (bell, wakes) = unbounded_channel();
        let cluster = &home.cluster;
        listen(memory, &bell);
        let world = Self {
            ledger,
            secrets: cluster
                .watch("")
                .labels(label::CLUSTER_ID)
                .start(ring(&bell, |secret: &Secret| peer_label(secret).map(Wake::Peer))),
            tunnels: memory.tunnels.as_ref().map(|tunnels| tunnels.listen(by_namespace(&bell))),
            networks: memory.tunnels.is_some().then(|| cluster.watch("").start(by_namespace(&bell))),
            maps: memory.maps.listen(by_namespace(&bell)),
            nodes: memory.nodes.listen(ring_of_nodes(&bell)),
            pods: cluster
                .watch("")
                .fields("status.phase=Running")
                .trim(monitor::trim_pod)
                .start(ring_all(&bell, [Wake::Capacity])),
            services: cluster
                .watch(&home.namespace)
                .fields(&format!("metadata.name={}", names::AUTH_SERVICE))
                .start(ring_all(&bell, [Wake::Address])),
            classes: args.storage.enable_storage.then(|| cluster.watch("").start(ring_all(&bell, [Wake::Capacity]))),
            kubelets: cluster
                .watch("")
                .labels(&format!("{}={}", label::APP_NAME, names::VIRTUAL_KUBELET))
                .start(by_namespace(&bell)),
            bindings: memory.bindings.listen(ring(&bell, |binding: &RoleBinding| {
                binding.namespace().filter(|_| is_kept(binding)).map(Wake::Tenant)
            })),
            exchange: Quotas::watch(cluster, Limits::of_exchange(now().0.as_second()), wake_tenant(&bell)),
            pod_security: tenant::pod_security(args.kubelets.kubelet_platform_security_context),
            checker: Checker::new(&settings, home.reach.clone(), bell),
            home: home.clone(),
            args: args.peering.clone(),
            settings,
            queues: Queues::default(),
            told: Told::default(),
        };
        (world, wakes)
    }

    /// Returns when the memory is complete.
    pub(crate) async fn ready(&self) {
        self.ledger.ready().await;
        self.secrets.ready().await;
        self.maps.ready().await;
        self.nodes.ready().await;
        self.pods.ready().await;
        self.services.ready().await;
        self.kubelets.ready().await;
        self.bindings.ready().await;
        self.exchange.ready().await;
        if let Some(tunnels) = &self.tunnels {
            tunnels.ready().await;
        }
        if let Some(networks) = &self.networks {
            networks.ready().await;
        }
        if let Some(classes) = &self.classes {
            classes.ready().await;
        }
    }

    /// Passes on what has changed, for ever. Changes of capacity come in crowds: they wait for each other.
    pub(crate) async fn route(&self, mut wakes: UnboundedReceiver<Wake>) {
        while let Some(wake) = wakes.recv().await {
            match wake {
                Wake::ForeignCluster(name) => self.wake_foreign_cluster(&name),
                Wake::Peer(id) => self.wake_peer(&id),
                Wake::Tenant(namespace) => {
                    self.wake_tenant(&namespace);
                    if let Some(id) = self.peer_in(&namespace) {
                        self.wake_peer(&id);
                    }
                }
                Wake::Address => {
                    for one in self.foreign_clusters.all() {
                        self.queues.foreign_clusters.push(one.name_any());
                    }
                }
                Wake::Capacity => {
                    for namespace in self.offers.all().iter().filter_map(|offer| offer.namespace()) {
                        self.queues.requests.push_after(namespace, monitor::CROWD);
                    }
                }
            }
        }
    }

    fn wake_foreign_cluster(&self, name: &str) {
        let Some(one) = self.foreign_clusters.get("", name) else {
            // The ForeignCluster is gone: another one that was refused because of it may now be accepted.
            for other in self.foreign_clusters.all() {
                self.queues.foreign_clusters.push(other.name_any());
            }
            self.queues.foreign_clusters.push(name.to_owned());
            for namespace in self.namespaces.filter(|namespace| peer_label(namespace).is_some()) {
                self.wake_tenant(&namespace.name_any());
            }
            return;
        };
        // Which of several ForeignClusters of one ID counts may have changed.
        for other in self.foreign_clusters.filter(|other| other.name_any() == name || id_of(other) == id_of(&one)) {
            self.queues.foreign_clusters.push(other.name_any());
        }
        for namespace in self.namespaces.filter(|namespace| naming::claimed_tenant_of(namespace) == Some(id_of(&one))) {
            self.wake_tenant(&namespace.name_any());
        }
    }

    fn wake_peer(&self, id: &str) {
        for one in self.foreign_clusters.filter(|one| id_of(one) == id) {
            self.queues.foreign_clusters.push(one.name_any());
        }
        for namespace in self.namespaces.filter(|namespace| naming::claimed_tenant_of(namespace) == Some(id)) {
            self.queues.requests.push(namespace.name_any());
            self.queues.permissions.push(namespace.name_any());
        }
    }

    fn wake_tenant(&self, namespace: &str) {
        self.queues.requests.push(namespace.to_owned());
        self.queues.offers.push(namespace.to_owned());
        self.queues.permissions.push(namespace.to_owned());
    }

    /// Whether something of this cluster in the tenant namespace of a peer still has to come to its own end: our request, our
    /// offer, a virtual kubelet, a connected network. Copies that the peer made do not count, whatever their labels and
    /// finalizers say.
    pub(crate) fn is_in_use(&self, namespace: &str, peer: &str) -> bool {
        let lies_here = |found: Option<String>| found.as_deref() == Some(namespace);
        let is_held = |one: &NetworkConfig| {
            is_original(one, peer) && one.finalizers().iter().any(|held| held == finalizer::CRD_REPLICATOR)
        };
        self.our_request(namespace, peer).is_some()
            || self.our_offer(namespace, peer).is_some()
            || !self.kubelets.filter(|one| lies_here(one.namespace())).is_empty()
            || self.tunnels.iter().any(|store| !store.filter(|one| lies_here(one.namespace())).is_empty())
            || self
                .networks
                .iter()
                .any(|store| !store.filter(|one| lies_here(one.namespace()) && is_held(one)).is_empty())
    }

    /// The nodes of this cluster that do not stand for another cluster.
    pub(crate) fn real_nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.filter(|node| !is_virtual(node))
    }

    /// URL of our authentication service, or why there is none.
    pub(crate) fn auth_url(&self) -> Result<String, String> {
        let service = self.services.get(&self.home.namespace, names::AUTH_SERVICE).ok_or_else(|| {
            format!("there is no Service {}/{} in this cluster", self.home.namespace, names::AUTH_SERVICE)
        })?;
        endpoint::auth_url(&service, &self.real_nodes())
    }

    /// URL of our authentication service inside this cluster.
    pub(crate) fn auth_url_inside(&self) -> Result<String, String> {
        let name = names::AUTH_SERVICE;
        let service = self.services.get(&self.home.namespace, name);
        let spec = service.as_ref().and_then(|service| service.spec.as_ref());
        let port = spec.and_then(|spec| spec.ports.as_ref()?.first()).map(|port| port.port);
        let port = port.ok_or_else(|| format!("Service {}/{name} has no port", self.home.namespace))?;
        Ok(format!("https://{name}.{}.svc:{port}", self.home.namespace))
    }
}

/// Rings when a shared object changes that peerings depend on.
fn listen(memory: &Memory, bell: &Bell) {
    memory.foreign_clusters.listen(ring(bell, |one: &ForeignCluster| Some(Wake::ForeignCluster(one.name_any()))));
    memory.namespaces.listen(ring(bell, |one: &Namespace| peer_label(one).map(|_| Wake::Tenant(one.name_any()))));
    memory.requests.listen(by_namespace(bell));
    memory.offers.listen(by_namespace(bell));
}

/// Rings when a real node changes.
fn ring_of_nodes(bell: &Bell) -> impl Fn(&Node) + Send + Sync + use<> {
    let ring = ring_all(bell, [Wake::Capacity, Wake::Address]);
    move |node| {
        if !is_virtual(node) {
            ring(node);
        }
    }
}

/// Wakes whoever deals with the tenant namespace of that name.
fn wake_tenant(bell: &Bell) -> impl Fn(String) + Send + Sync + use<> {
    let bell = bell.clone();
    move |namespace| {
        // Nobody listens any more when the process ends.
        let _ = bell.send(Wake::Tenant(namespace));
    }
}

fn peer_label<K: Object>(object: &K) -> Option<String> {
    object.labels().get(label::CLUSTER_ID).cloned()
}

fn ring<K: Object, F>(bell: &Bell, wake: F) -> impl Fn(&K) + Send + Sync + use<K, F>
where
    F: Fn(&K) -> Option<Wake> + Send + Sync + 'static,
{
    let bell = bell.clone();
    move |object| {
        if let Some(wake) = wake(object) {
            // Nobody listens any more when the process ends.
            let _ = bell.send(wake);
        }
    }
}

fn by_namespace<K: Object>(bell: &Bell) -> impl Fn(&K) + Send + Sync + use<K> {
    ring(bell, |object: &K| object.namespace().map(Wake::Tenant))
}

fn ring_all<K: Object, const N: usize>(bell: &Bell, wakes: [Wake; N]) -> impl Fn(&K) + Send + Sync + use<K, N> {
    let bell = bell.clone();
    move |_| {
        for wake in &wakes {
            let _ = bell.send(wake.clone());
        }
    }
}
