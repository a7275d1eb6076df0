//! What there is to tell: the objects, kept current, and a sign that something has changed.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, PodStatus};
use kube::ResourceExt;
use liqo_api::{discovery::ForeignCluster, meta::label, net::TunnelEndpoint, offloading::NamespaceOffloading};
use liqo_kube::{Cluster, Object, Store, Watch, strip};
use tokio::sync::watch;

/// All watches; copies share them.
#[derive(Clone)]
pub(crate) struct Watches {
    peers: Store<ForeignCluster>,
    nodes: Store<Node>,
    tunnels: Store<TunnelEndpoint>,
    offloadings: Store<NamespaceOffloading>,
    elsewhere: Store<Pod>,
    guests: Store<Pod>,
    changes: watch::Receiver<u64>,
}

/// The objects at one moment.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) peers: Vec<Arc<ForeignCluster>>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) tunnels: Vec<Arc<TunnelEndpoint>>,
    pub(crate) offloadings: Vec<Arc<NamespaceOffloading>>,
    /// Pods that say they run elsewhere; whether they do, their node tells.
    pub(crate) elsewhere: Vec<Arc<Pod>>,
    pub(crate) guests: Vec<Arc<Pod>>,
}

impl Watches {
    /// Starts to watch.
    pub(crate) fn start(home: &Cluster) -> Self {
        let (sender, changes) = watch::channel(0);
        let sender = Arc::new(sender);
        let pods = |key: &str, value: &str| home.watch::<Pod>("").labels(&format!("{key}={value}")).trim(slim);
        Self {
            peers: started(home.watch(""), &sender),
            nodes: started(home.watch("").labels(&format!("{}={}", label::TYPE, label::VIRTUAL_NODE)), &sender),
            tunnels: started(home.watch(""), &sender),
            offloadings: started(home.watch(""), &sender),
            elsewhere: started(pods(label::SHADOW_POD, "true"), &sender),
            guests: started(pods(label::MANAGED_BY, label::MANAGED_BY_SHADOW_POD), &sender),
            changes,
        }
    }

    /// Returns when everything has been read once.
    pub(crate) async fn ready(&self) {
        self.peers.ready().await;
        self.nodes.ready().await;
        self.tunnels.ready().await;
        self.offloadings.ready().await;
        self.elsewhere.ready().await;
        self.guests.ready().await;
    }

    /// Changes whenever an object does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Everything, as it is now.
    pub(crate) fn objects(&self) -> Objects {
        Objects {
            peers: self.peers.all(),
            nodes: self.nodes.all(),
            tunnels: self.tunnels.all(),
            offloadings: self.offloadings.all(),
            elsewhere: self.elsewhere.all(),
            guests: self.guests.all(),
        }
    }
}

fn started<K: Object>(watch: Watch<K>, sender: &Arc<watch::Sender<u64>>) -> Store<K> {
    let sender = Arc::clone(sender);
    watch.start(move |_| sender.send_modify(|count| *count = count.wrapping_add(1)))
}

impl Objects {
    /// The namespaces of some objects.
    pub(crate) fn namespaces<K: Object>(objects: &[Arc<K>]) -> BTreeSet<String> {
        objects.iter().filter_map(|object| object.namespace()).collect()
    }
}

/// Removes from a pod everything that the page does not show: metadata without annotations, node, requests, and phase with its reason stay.
fn slim(pod: &mut Pod) {
    strip(pod);
    pod.metadata.annotations = None;
    if let Some(spec) = pod.spec.take() {
        let slim = |all: Vec<Container>| {
            let slim = |one: Container| Container {
                name: one.name,
                resources: one.resources,
                restart_policy: one.restart_policy,
                ..Container::default()
            };
            all.into_iter().map(slim).collect()
        };
        pod.spec = Some(PodSpec {
            node_name: spec.node_name,
            overhead: spec.overhead,
            resources: spec.resources,
            containers: slim(spec.containers),
            init_containers: spec.init_containers.map(slim),
            ..PodSpec::default()
        });
    }
    if let Some(status) = pod.status.take() {
        let PodStatus { phase, reason, message, .. } = status;
        pod.status = Some(PodStatus { phase, reason, message, ..PodStatus::default() });
    }
}
