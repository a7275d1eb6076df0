//! The node that stands for the other cluster: there while its offer holds, gone in good order when not.
//!
//! Watches   the `ResourceOffer` and the `TunnelEndpoint` of the peer, our `Node`; asks the peer's `/livez`.
//! Writes    `Node` and its status, the finalizer `liqo.io/node` on the offer, the node's `Lease`.
//! Removes   the `Node` when the offer is withdrawn, after its pods were evicted (or their time was over).
//!
//! A node of our name that stands for another cluster is left alone: the user is told on the offer.

mod condition;
mod drain;
mod lease;
mod ping;
mod shape;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, finalizer, label},
    net::TunnelEndpoint,
    sharing::ResourceOffer,
    virtualkubelet::NamespaceMap,
};
use liqo_core::mapping;
use liqo_kube::{Cluster, KubeError, Queue, Store, drive, life::Life, now, strip};
use serde_json::json;
use tokio::{sync::watch, task::AbortHandle};

use self::{condition::Health, drain::Step, shape::Profile};
use crate::{args::NodeArgs, link::Link};

pub(crate) use ping::Connectivity;

/// How often a node that is draining is looked at, besides at every event.
const DRAIN_POLL: Duration = Duration::from_secs(1);
/// How often a node that nothing happens to is looked at.
const IDLE_POLL: Duration = Duration::from_secs(300);
/// Who tells the user about the offer.
const COMPONENT: &str = "liqo-virtual-kubelet";

/// Everything the node is decided from, and the doors to act on it.
struct Keeper {
    home: Cluster,
    profile: Profile,
    drain_timeout: Duration,
    offers: Store<ResourceOffer>,
    tunnels: Option<Store<TunnelEndpoint>>,
    nodes: Store<Node>,
    pods: Store<Pod>,
    maps: Store<NamespaceMap>,
    reach: watch::Receiver<Connectivity>,
    told: AtomicBool,
}

/// What the node needs from the rest of the process.
pub(crate) struct Surroundings {
    /// The own cluster.
    pub(crate) home: Cluster,
    /// The other one.
    pub(crate) there: Cluster,
    /// Who is linked.
    pub(crate) link: Arc<Link>,
    /// All pods of the node.
    pub(crate) pods: Store<Pod>,
    /// Which namespaces are offloaded to the other cluster.
    pub(crate) maps: Store<NamespaceMap>,
    /// Version of the own API server, as the node shows it.
    pub(crate) version: String,
    /// Where others learn whether the other cluster answers.
    pub(crate) reach: watch::Sender<Connectivity>,
}

/// Starts to keep the node, its lease, and the knowledge whether the other cluster answers. Returns the tasks that write the
/// node and its lease.
pub(crate) fn start(life: &Life, args: &NodeArgs, around: Surroundings) -> [AbortHandle; 2] {
    let Surroundings { home, there, link, pods, maps, version, reach } = around;
    let queue = Queue::new();
    let push = |queue: &Queue<()>| {
        let queue = queue.clone();
        move || queue.push(())
    };
    let profile = Profile::new(&link, args, version);
    let (seen, tenant) = (push(&queue), &link.tenant_namespace);
    let offered = format!("{}={}", label::ORIGIN_ID, link.there.cluster_id);
    let offers = home.watch::<ResourceOffer>(tenant).labels(&offered).start(move |_| seen());
    let tunnels = args.node_check_network.then(|| {
        let seen = push(&queue);
        let tunnel = format!("{}={}", label::TUNNEL_CLUSTER_ID, link.there.cluster_id);
        home.watch::<TunnelEndpoint>(tenant).labels(&tunnel).start(move |_| seen())
    });
    let seen = push(&queue);
    let our_node = format!("metadata.name={}", link.node);
    let nodes = home.watch::<Node>("").fields(&our_node).trim(strip).start(move |_| seen());

    let mut reached = reach.subscribe();
    let seen = push(&queue);
    life.spawn("reach", async move {
        while reached.changed().await.is_ok() {
            seen();
        }
    });
    let seen = push(&queue);
    life.spawn("node-heartbeat", poll(seen));
    let keeper = Keeper {
        home: home.clone(),
        profile: profile.clone(),
        drain_timeout: args.drain_timeout,
        offers,
        tunnels,
        nodes: nodes.clone(),
        pods,
        maps,
        reach: reach.subscribe(),
        told: AtomicBool::new(false),
    };
    let (interval, timeout, duration) = (args.node_ping_interval, args.node_ping_timeout, args.node_lease_duration);
    life.spawn("ping", ping::run(there, interval, timeout, reach));
    let lease = life.spawn("node-lease", lease::run(home, profile, nodes, duration));
    [lease, life.spawn("node", async move { drive("node", queue, 1, |()| keeper.settle()).await })]
}

/// Calls `seen` for ever.
async fn poll(seen: impl Fn()) {
    loop {
        seen();
        tokio::time::sleep(IDLE_POLL).await;
    }
}

impl Keeper {
    async fn settle(&self) -> Result<Option<Duration>, KubeError> {
        self.offers.ready().await;
        self.nodes.ready().await;
        if let Some(tunnels) = &self.tunnels {
            tunnels.ready().await;
        }
        let offer = self.offer();
        let node = self.nodes.get("", &self.profile.name);
        if let (Some(node), Some(offer)) = (&node, &offer)
            && !self.profile.owns(node)
        {
            self.tell_taken(offer, node).await;
            // Should the offer go, nothing of ours is left behind.
            return if valid(offer) { Ok(None) } else { self.release(Some(offer)).await };
        }
        let node = node.filter(|node| self.profile.owns(node));
        match offer {
            Some(offer) if valid(&offer) => self.keep(&offer, node.as_deref()).await.map(|()| None),
            other => self.end(other.as_deref(), node.as_deref()).await,
        }
    }

    /// The offer that counts: a valid one before one that is withdrawn.
    fn offer(&self) -> Option<Arc<ResourceOffer>> {
        let mut offers = self.offers.all();
        offers.sort_by_key(|offer| (!valid(offer), offer.name_any()));
        offers.into_iter().next()
    }

    /// Makes the node look like its offer.
    async fn keep(&self, offer: &ResourceOffer, node: Option<&Node>) -> Result<(), KubeError> {
        self.told.store(false, Ordering::Relaxed);
        let mut node = match node {
            Some(node) if node.metadata.deletion_timestamp.is_some() => return Ok(()),
            Some(node) => node.clone(),
            None => {
                tracing::info!(node = self.profile.name, "creating the node");
                self.home.create(&self.profile.new_node(offer, &now())).await?
            }
        };
        if !offer.finalizers().iter().any(|one| one == finalizer::NODE) {
            self.home.hold(offer, finalizer::NODE).await?;
        }
        if let Some(patch) = self.profile.patch(offer, &node) {
            node = self.home.merge(&node, patch).await?;
        }
        let reach = *self.reach.borrow();
        // The first answer is a moment away: what a restart does not know yet must not show on the node.
        if reach != Connectivity::Unknown
            && let Some(status) = self.profile.status(offer, self.health(offer, reach), &node, &now())
        {
            self.home.put_status(&node, &status).await?;
        }
        Ok(())
    }

    fn health(&self, offer: &ResourceOffer, reach: Connectivity) -> Health {
        let connected = |tunnel: &TunnelEndpoint| {
            let connection = tunnel.status.as_ref().and_then(|status| status.connection.as_ref());
            connection.is_some_and(|connection| connection.status.as_deref() == Some("Connected"))
        };
        let network = self.tunnels.as_ref().map(|tunnels| tunnels.all().iter().any(|tunnel| connected(tunnel)));
        Health { resources: shape::has_resources(offer), network, reachable: reach == Connectivity::Reached }
    }

    /// One step towards the end of the node.
    async fn end(&self, offer: Option<&ResourceOffer>, node: Option<&Node>) -> Result<Option<Duration>, KubeError> {
        self.pods.ready().await;
        self.maps.ready().await;
        let reachable = *self.reach.borrow() != Connectivity::Lost;
        // The controller manager removes the pods of other namespaces when the node goes.
        let ours: BTreeMap<_, _> = self.maps.all().iter().flat_map(|map| mapping::reflected(map)).collect();
        let is_ours = |pod: &Pod| pod.metadata.namespace.as_ref().is_some_and(|namespace| ours.contains_key(namespace));
        let pods = self.pods.filter(|pod| drain::leaves(pod) && is_ours(pod));
        let limit = if node.is_some_and(ends_at_once) { Duration::ZERO } else { self.drain_timeout };
        let step = drain::plan(node, pods, reachable, limit, now().0);
        let Some(node) = node else { return self.release(offer).await };
        if step != Step::Cordon
            && let Some(status) = shape::leaving_status(node, &now())
        {
            self.home.put_status(node, &status).await?;
        }
        match step {
            Step::Cordon => {
                tracing::info!(node = self.profile.name, "the offer is withdrawn, draining the node");
                let annotations = json!({shape::DRAIN_STARTED: now()});
                let patch = json!({"metadata": {"annotations": annotations}, "spec": {"unschedulable": true}});
                self.home.merge(node, patch).await?;
                Ok(None)
            }
            Step::Evict(pods) => {
                for (_, outcome) in self.home.evict_all(pods).await {
                    match outcome {
                        Ok(true) => {}
                        Ok(false) => tracing::debug!("a disruption budget forbids an eviction for now"),
                        Err(error) => {
                            tracing::warn!(error = &error as &dyn std::error::Error, "pod not evicted yet");
                        }
                    }
                }
                Ok(Some(DRAIN_POLL))
            }
            Step::Wait => Ok(Some(DRAIN_POLL)),
            Step::Remove(pods) => {
                for pod in &pods {
                    tracing::warn!(
                        namespace = pod.namespace(),
                        pod = pod.name_any(),
                        "pod did not leave the node, deleting it"
                    );
                    match self.home.remove_now(&**pod).await {
                        // The namespace goes, and our rights in it went first: the pod goes with its node.
                        Err(error) if error.is_forbidden() => {
                            tracing::warn!(error = &error as &dyn std::error::Error, "pod not deleted");
                        }
                        outcome => outcome?,
                    }
                }
                if node.metadata.deletion_timestamp.is_none() {
                    tracing::info!(node = self.profile.name, "deleting the node");
                    self.home.remove(node).await?;
                }
                self.release(offer).await
            }
            Step::Release => self.release(offer).await,
        }
    }

    async fn release(&self, offer: Option<&ResourceOffer>) -> Result<Option<Duration>, KubeError> {
        if let Some(offer) = offer
            && offer.finalizers().iter().any(|one| one == finalizer::NODE)
        {
            self.home.release(offer, finalizer::NODE).await?;
        }
        Ok(None)
    }

    /// Says once that the name of the node belongs to another cluster.
    async fn tell_taken(&self, offer: &ResourceOffer, node: &Node) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let name = &self.profile.name;
        let text = match node.labels().get(label::REMOTE_CLUSTER_ID) {
            Some(other) => {
                format!("the node name {name} is taken by the cluster with ID {other}; one of the two must be renamed")
            }
            None => format!("the node name {name} is taken by a node that is none of ours"),
        };
        tracing::error!(node = name, reason = text, "the node cannot be created");
        self.home.event(offer, COMPONENT, "Warning", "NodeNameTaken", &text).await;
    }
}

/// Whether the pods get no time to leave. The controller manager decides, and writes on the node; nothing that the provider
/// writes on its offer counts.
fn ends_at_once(node: &Node) -> bool {
    node.annotations().get(annotation::END_AT_ONCE).is_some_and(|value| value == "true")
}

/// Whether the offer holds.
fn valid(offer: &ResourceOffer) -> bool {
    offer.spec.withdrawal_timestamp.is_none() && offer.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_says_that_it_ends_at_once() {
        let node = |annotations: serde_json::Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "liqo-milan", "annotations": annotations}})).unwrap()
        };
        assert!(ends_at_once(&node(json!({"liqo.io/end-at-once": "true"}))));
        assert!(!ends_at_once(&node(json!({"liqo.io/end-at-once": "false"}))) && !ends_at_once(&node(json!({}))));
    }
}
