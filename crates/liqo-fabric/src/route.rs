//! The route agent: leads a node's packets to the gateway and those of peers back.
//!
//! Watches: Nodes, `TunnelEndpoint`s, the annotation `net.liqo.io/gatewayNodeIP` of the Service `liqo-gateway`, on nodes
//! with a gateway Pods, the `EndpointSlice`s of the API server. Writes: an Event when it refuses what a tunnel wants.
//! Removes: everything it made, when the DaemonSet of route agents is gone. What it made stays through a restart or an update, so that
//! packets go on; the next agent compares it with what it wants.

mod plan;
pub(crate) mod pods;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;
use liqo_api::{meta::label, net::TunnelEndpoint};
use liqo_kube::{
    Cluster, KubeError, Store,
    args::RuntimeArgs,
    life::{Busy, Life},
    role::Role,
};
use liqo_netlink::{Kernel, Netns};
use tokio::{sync::Notify, time::Instant};

use crate::{
    gateway::{metrics, told},
    layout::{
        API_SERVER_NAMESPACE, API_SERVER_SLICES, GATEWAY_LABEL, GATEWAY_NODE_IP, GATEWAY_SERVICE, OVERLAY_OVERHEAD,
        VETH_HOST,
    },
    manager::{addresses_of, endpoints_of},
    network,
    pace::Pace,
    wire,
};

/// The DaemonSet of route agents.
const DAEMON_SET: &str = "liqo-route";
/// How long the API server may take to say whether the DaemonSet is there: less than the grace period of the pod, 30 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flags of the route agent; those with a dot are those of Liqo 0.8.3.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-route", about = "Leads a node's packets to peers and back", version)]
pub struct RouteArgs {
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Namespace Liqo is installed in.
    #[arg(long = "liqo-namespace", alias = "namespace", env = "POD_NAMESPACE", default_value = "liqo")]
    pub namespace: String,
    /// Name of this node.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Address of this node.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: IpAddr,
    /// Largest packet on the overlay, bytes; 0: what the nodes' network carries.
    #[arg(long = "route.vxlan-mtu", default_value_t = 0)]
    pub vxlan_mtu: u32,
    /// Accepted for compatibility: all nodes of a cluster must agree.
    #[arg(long = "route.vxlan-vni", hide = true, default_value_t = crate::layout::OVERLAY_VNI)]
    pub vxlan_vni: u32,
    /// Accepted for compatibility, like --route.vxlan-vni.
    #[arg(long = "route.vxlan-vtep-port", hide = true, default_value_t = crate::layout::OVERLAY_PORT)]
    pub vxlan_port: u16,
    /// Address of the metrics; empty: they are served with the health checks only.
    #[arg(long, default_value = "")]
    pub metrics_bind_addr: String,
}

impl Role for RouteArgs {
    const NAME: &'static str = "route";
    const TIDIES_UP: bool = true;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let cluster = life.home(&self.runtime, "liqo-route").await?;
        let kernel = Netns::current().and_then(|netns| Kernel::open(&netns)).map_err(|error| told(&error))?;
        let mut agent = Agent::start(self, &cluster, kernel);
        let repairs = Arc::clone(&agent.repairs);
        life.metrics(move |samples| {
            metrics::repairs(&repairs.lock().unwrap_or_else(PoisonError::into_inner), samples);
        });
        if !agent.args.metrics_bind_addr.is_empty() {
            life.serve_metrics(&agent.args.metrics_bind_addr).await?;
        }
        agent.run(life.busy(), life.until_signal()).await
    }
}

struct Agent {
    args: RouteArgs,
    cluster: Cluster,
    kernel: Kernel,
    bell: Arc<Notify>,
    nodes: Store<Node>,
    services: Store<Service>,
    tunnels: Store<TunnelEndpoint>,
    /// Where the API server is.
    slices: Store<EndpointSlice>,
    /// Refused tunnels by UID, each with the reason last reported.
    refused: BTreeMap<String, String>,
    /// Only where a gateway is, active or not: what comes out of the tunnel there has to find them.
    pods: Option<Store<Pod>>,
    /// Index of the link to that gateway.
    link: Option<u32>,
    /// What was last made.
    settled: Option<plan::View>,
    repairs: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Agent {
    fn start(args: RouteArgs, cluster: &Cluster, kernel: Kernel) -> Self {
        let bell = Arc::new(Notify::new());
        let ring = || {
            let bell = Arc::clone(&bell);
            move || bell.notify_one()
        };
        let (nodes, services, tunnels, slices) = (ring(), ring(), ring(), ring());
        let no_virtual = format!("{}!={}", label::TYPE, label::VIRTUAL_NODE);
        Self {
            nodes: cluster.watch("").labels(&no_virtual).trim(trim).start(move |_| nodes()),
            services: cluster
                .watch(&args.namespace)
                .labels(&format!("{GATEWAY_LABEL}=true"))
                .start(move |_| services()),
            tunnels: cluster.watch("").start(move |_| tunnels()),
            slices: cluster.watch(API_SERVER_NAMESPACE).labels(API_SERVER_SLICES).start(move |_| slices()),
            refused: BTreeMap::new(),
            pods: None,
            link: None,
            args,
            cluster: cluster.clone(),
            kernel,
            bell,
            settled: None,
            repairs: Arc::default(),
        }
    }

    async fn run(&mut self, busy: Busy, end: impl Future<Output = ()>) -> Result<(), String> {
        let mut pace = Pace::new(busy);
        let mut end = std::pin::pin!(end);
        let mut events = self.kernel.events(&plan::realm()).map_err(|error| told(&error))?;
        self.nodes.ready().await;
        self.services.ready().await;
        self.tunnels.ready().await;
        self.slices.ready().await;
        let mut must = self.look_for_pods();
        if let Some(pods) = &self.pods {
            pods.ready().await;
        }
        let mut due = Instant::now();
        loop {
            let (view, refused) = self.view();
            self.tell(refused).await;
            // News that change nothing are no reason to look at the kernel; nor do they put off the next look.
            if must || self.settled.as_ref() != Some(&view) {
                let pause = pace.after(self.settle(view));
                due = Instant::now() + pause;
            }
            must = false;
            tokio::select! {
                () = &mut end => break,
                () = self.bell.notified() => {}
                changed = events.changed() => {
                    changed.map_err(|error| told(&error))?;
                    must = true;
                }
                () = tokio::time::sleep_until(due) => must = true,
            }
            // A burst of news is looked at once.
            tokio::time::sleep(Duration::from_millis(20)).await;
            must |= self.look_for_pods();
        }
        if !self.is_uninstalled().await {
            tracing::info!("routes and rules stay for the next agent");
            return Ok(());
        }
        tracing::info!("uninstalled: routes and rules are removed");
        self.kernel.clear(&plan::realm()).map(drop).map_err(|error| told(&error))
    }

    /// Whether the route agents are being uninstalled, so that no later agent looks after the routes.
    async fn is_uninstalled(&self) -> bool {
        let known = async {
            loop {
                let found = self.cluster.get::<DaemonSet>(&self.args.namespace, DAEMON_SET).await;
                if let Some(ends) = ends_for_good(found.as_ref().map(Option::as_ref).map_err(KubeError::code)) {
                    return ends;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.unwrap_or(false)
    }

    /// Begins or ends to watch pods, as a gateway comes or goes; says whether its link is another one than before: what
    /// led there has gone with the old one, without a word.
    fn look_for_pods(&mut self) -> bool {
        let Ok(link) = self.kernel.link(VETH_HOST) else { return true };
        let link = link.map(|link| link.index);
        if link.is_none() {
            self.pods = None;
        } else if self.pods.is_none() {
            let bell = Arc::clone(&self.bell);
            let pods = self.cluster.watch("").trim(pods::trim);
            self.pods = Some(pods.start(move |_: &Pod| bell.notify_one()));
        }
        std::mem::replace(&mut self.link, link) != link
    }

    /// Makes this node what it shall be.
    fn settle(&mut self, view: plan::View) -> Result<(), String> {
        let repairs = self.kernel.settle(&plan::realm(), &plan::wanted(&view)).map_err(|error| told(&error))?;
        if self.settled.as_ref() == Some(&view) {
            let mut counts = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
            for (kind, count) in repairs.made {
                tracing::warn!(kind = %kind, count, "repaired: somebody had changed it");
                *counts.entry(kind.to_string()).or_default() += count as u64;
            }
        } else {
            tracing::info!(gateway = ?view.gateway, nodes = view.others.len() + 1, peers = view.peers.len(), "settled");
            self.settled = Some(view);
        }
        Ok(())
    }

    /// Reports the refused tunnels when the refusals change.
    async fn tell(&mut self, refused: Vec<(Arc<TunnelEndpoint>, String)>) {
        let uid = |tunnel: &TunnelEndpoint| tunnel.uid().unwrap_or_default();
        let now = refused.iter().map(|(tunnel, why)| (uid(tunnel), why.clone())).collect();
        let before = std::mem::replace(&mut self.refused, now);
        for (tunnel, why) in refused {
            if before.get(&uid(&tunnel)) != Some(&why) {
                tracing::error!(tunnel = tunnel.name_any(), "{why}");
                let why = format!("node {}: {why}", self.args.node_name);
                self.cluster.event(&*tunnel, "liqo-route", "Warning", "RouteRefused", &why).await;
            }
        }
    }

    /// Addresses that must stay reachable from this node whatever tunnels ask for: nodes, the default gateway, the API server.
    fn vital(&self, nodes: &[Arc<Node>]) -> Vec<(IpAddr, &'static str)> {
        let nodes = nodes.iter().flat_map(|node| addresses_of(node)).chain([self.args.pod_ip]);
        let gateways = self.kernel.default_gateways().unwrap_or_else(|error| {
            tracing::warn!("{}", told(&error));
            Vec::new()
        });
        let slices = self.slices.all();
        let servers: Vec<_> = slices.iter().flat_map(|slice| endpoints_of(slice)).collect();
        let with = |all: Vec<IpAddr>, what| all.into_iter().map(move |address| (address, what));
        let nodes = with(nodes.collect(), "an address of a node");
        nodes
            .chain(with(gateways, "the default gateway"))
            .chain(with(servers, "an address of the API server"))
            .collect()
    }

    /// The current plan, and the refused tunnels.
    fn view(&self) -> (plan::View, Vec<(Arc<TunnelEndpoint>, String)>) {
        let nodes = self.nodes.all();
        let mut named: BTreeMap<_, _> = nodes.iter().filter_map(|node| Some((node.name_any(), read(node)?))).collect();
        if let Some(pods) = self.pods.as_ref().filter(|pods| pods.is_ready()) {
            let placed: Vec<_> = pods.all().iter().filter_map(|pod| pods::read(pod)).collect();
            pods::locate(&mut named, &placed);
        }
        // What this process was told when it started is not that any longer when the node has got another address.
        let me = named.remove(&self.args.node_name).map_or(self.args.pod_ip, |node| node.ip);
        let mut others: Vec<_> = named.into_values().collect();
        others.retain(|node| node.ip != me && node.ip.is_ipv4() == me.is_ipv4());
        others.sort_by_key(|node| node.ip);
        others.dedup_by_key(|node| node.ip);
        let tunnels = self.tunnels.all();
        let (usable, _) = network::usable(tunnels.iter().map(AsRef::as_ref));
        let (usable, covering) = network::harmless(usable, &self.vital(&nodes));
        let peers = usable.into_iter().map(|(_, networks)| networks).collect();
        let object = |one: &TunnelEndpoint| tunnels.iter().find(|tunnel| std::ptr::eq(tunnel.as_ref(), one)).cloned();
        let refused = covering.into_iter().filter_map(|(one, why)| Some((object(one)?, why))).collect();
        let mtu = match self.args.vxlan_mtu {
            0 => u32::from(wire::carries(me, others.first().map(|node| node.ip)).saturating_sub(OVERLAY_OVERHEAD)),
            mtu => mtu,
        };
        (plan::View { me, others, gateway: self.gateway(), peers, mtu }, refused)
    }

    /// Address of the node of the active gateway.
    fn gateway(&self) -> Option<IpAddr> {
        let service = self.services.all().into_iter().find(|service| service.name_any() == GATEWAY_SERVICE)?;
        service.annotations().get(GATEWAY_NODE_IP)?.parse().ok()
    }
}

/// What a node is to the overlay; a node without an address is none yet.
fn read(node: &Node) -> Option<plan::Node> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let ip = addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()?;
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    let all = if all.is_empty() { spec.and_then(|spec| spec.pod_cidr.clone()).into_iter().collect() } else { all };
    let pods = all.iter().filter_map(|cidr| cidr.parse().ok()).map(|net: ipnet::IpNet| net.trunc()).collect();
    Some(plan::Node { ip, pods })
}

/// Whether the answer about the DaemonSet of route agents says that it is gone or going. Whoever uninstalls removes the rights of
/// agents with it, so a refusal says the same; an API server that does not answer says nothing.
fn ends_for_good(found: Result<Option<&DaemonSet>, Option<u16>>) -> Option<bool> {
    match found {
        Ok(set) => Some(set.is_none_or(|set| set.metadata.deletion_timestamp.is_some())),
        Err(Some(401 | 403)) => Some(true),
        Err(_) => None,
    }
}

/// Images and conditions of nodes are large and change often; nothing here reads them.
pub(crate) fn trim(node: &mut Node) {
    liqo_kube::strip(node);
    if let Some(status) = &mut node.status {
        *status = k8s_openapi::api::core::v1::NodeStatus { addresses: status.addresses.take(), ..Default::default() };
    }
    node.metadata.annotations = None;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_are_removed_when_no_agent_follows() {
        let set = |meta: serde_json::Value| serde_json::from_value::<DaemonSet>(json!({"metadata": meta})).unwrap();
        let (going, stays) = (set(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), set(json!({})));
        for (found, ends) in [
            (Ok(None), Some(true)),
            (Ok(Some(&going)), Some(true)),
            (Ok(Some(&stays)), Some(false)),
            (Err(Some(401)), Some(true)),
            (Err(Some(403)), Some(true)),
            (Err(Some(429)), None),
            (Err(Some(503)), None),
            (Err(None), None),
        ] {
            assert_eq!(ends_for_good(found), ends, "{found:?}");
        }
    }

    #[test]
    fn a_node_is_its_address_and_its_pods() {
        let node = |spec: serde_json::Value, addresses: serde_json::Value| {
            serde_json::from_value::<Node>(json!({"spec": spec, "status": {"addresses": addresses}})).unwrap()
        };
        let address = json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "172.30.0.11"}]);
        let both =
            node(json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64"]}), address.clone());
        let read = read(&both).unwrap();
        assert_eq!(read.pods.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.1.0/24", "fd00::/64"]);
        let old = node(json!({"podCIDR": "10.244.1.0/24"}), address);
        assert_eq!(super::read(&old).unwrap().pods.len(), 1);
        assert_eq!(super::read(&node(json!({}), json!([]))), None);
    }
}
