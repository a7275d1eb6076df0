//! The addresses of this cluster, where no other cluster is: networks of its pods and Services, its nodes and its API server.
//!
//! Keeps true: an address that a peer names, or a name that a peer lets point to this cluster, leads to nothing of this cluster,
//! unless the administrator says that peers are inside of it.
//!
//! Watches   `Node`s, and the `EndpointSlice`s of the Service `default/kubernetes` for those who may read them.

use std::{borrow::Borrow, fmt, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, NodeStatus},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;

use crate::{Cluster, Store, args::ReachArgs, strip};

/// The `EndpointSlice`s of the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes.io/service-name=kubernetes");

/// Label and value of the nodes that stand for other clusters.
const VIRTUAL: (&str, &str) = ("liqo.io/type", "virtual-node");

/// The addresses of this cluster.
pub struct Own {
    args: ReachArgs,
    nodes: Store<Node>,
    api_server: Option<Store<EndpointSlice>>,
}

impl Own {
    /// Starts watching. `reads_slices`: the process may read `EndpointSlice`s.
    pub fn watch(cluster: &Cluster, args: &ReachArgs, reads_slices: bool) -> Self {
        let (namespace, selector) = API_SERVER;
        let slices = || cluster.watch::<EndpointSlice>(namespace).labels(selector).start(|_| {});
        let nodes = cluster.watch::<Node>("").trim(trim).start(|_| {});
        Self { args: args.clone(), nodes, api_server: reads_slices.then(slices) }
    }

    /// Returns when all addresses are known.
    pub async fn ready(&self) {
        self.nodes.ready().await;
        if let Some(slices) = &self.api_server {
            slices.ready().await;
        }
    }

    /// What has the address in this cluster; `None`: nothing, or peers may have the address.
    pub(super) fn what(&self, address: IpAddr) -> Option<String> {
        let nodes = self.nodes.all();
        let slices = self.api_server.as_ref().map(Store::all).unwrap_or_default();
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).flat_map(|one| &one.addresses);
        let api_server: Vec<IpAddr> = endpoints.filter_map(|at| at.parse().ok()).collect();
        what(&self.args, (&nodes, &api_server), address)
    }
}

/// A network that contains a node is the network that the nodes share with their neighbours, also if pods have addresses of it:
/// only the addresses of nodes themselves are of this cluster then. A virtual node has the address of a pod, and is no such node.
fn what<N: Borrow<Node>>(args: &ReachArgs, (nodes, api_server): (&[N], &[IpAddr]), address: IpAddr) -> Option<String> {
    if args.peers_within.iter().any(|network| network.contains(&address)) {
        return None;
    }
    let machines = || nodes.iter().map(Borrow::borrow).filter(|node| !is_virtual(node));
    if let Some(node) = machines().find(|node| addresses(node).any(|at| at == address)) {
        return Some(format!("node {}", node.name_any()));
    }
    if api_server.contains(&address) {
        return Some("the API server".to_owned());
    }
    let has_node = |network: &IpNet| machines().any(|node| addresses(node).any(|at| network.contains(&at)));
    let network = args.own_networks.iter().find(|network| network.contains(&address));
    network.filter(|network| !has_node(network)).map(|network| format!("the network {network}"))
}

fn is_virtual(node: &Node) -> bool {
    node.labels().get(VIRTUAL.0).is_some_and(|kind| kind == VIRTUAL.1)
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter_map(|one| one.address.parse().ok())
}

/// Keeps the addresses, and whether the node is a virtual one.
fn trim(node: &mut Node) {
    strip(node);
    let addresses = node.status.take().and_then(|status| status.addresses);
    (node.spec, node.metadata.annotations) = (None, None);
    node.labels_mut().retain(|key, _| key == VIRTUAL.0);
    node.status = Some(NodeStatus { addresses, ..NodeStatus::default() });
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("args", &self.args).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_this_cluster_are_known_and_may_be_given_to_peers() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": {"addresses": [
            {"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "172.30.0.11"},
            {"type": "ExternalIP", "address": "203.0.113.4"}, {"type": "InternalIP", "address": "fd00::b"},
        ]}}))
        .unwrap();
        // The address of a virtual node is that of its virtual kubelet, a pod.
        let virtual_node: Node = serde_json::from_value(json!({
            "metadata": {"name": "liqo-milan", "labels": {"liqo.io/type": "virtual-node"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.244.0.42"}]},
        }))
        .unwrap();
        let args = ReachArgs {
            own_networks: ["10.244.0.0/16", "10.96.0.0/12"].map(|network| network.parse().unwrap()).into(),
            peers_within: ["10.96.7.0/24", "203.0.113.4/32"].map(|network| network.parse().unwrap()).into(),
        };
        for (address, wanted) in [
            ("10.244.0.9", Some("the network 10.244.0.0/16")),
            ("10.244.0.42", Some("the network 10.244.0.0/16")),
            ("10.96.0.1", Some("the network 10.96.0.0/12")),
            ("10.96.7.9", None),
            ("172.30.0.11", Some("node n1")),
            ("172.30.0.12", None),
            ("203.0.113.4", None),
            ("fd00::b", Some("node n1")),
            ("172.30.0.8", Some("the API server")),
            ("192.0.2.1", None),
        ] {
            let found =
                what(&args, (&[&node, &virtual_node], &["172.30.0.8".parse().unwrap()]), address.parse().unwrap());
            assert_eq!(found.as_deref(), wanted, "{address}");
        }
        // Pods with addresses of the network that the nodes share with machines outside of the cluster.
        let flat = ReachArgs { own_networks: vec!["172.30.0.0/16".parse().unwrap()], ..args };
        for (address, wanted) in [("172.30.0.11", Some("node n1")), ("172.30.7.7", None)] {
            assert_eq!(what(&flat, (&[&node], &[]), address.parse().unwrap()).as_deref(), wanted, "{address}");
        }
    }

    #[test]
    fn of_a_node_only_addresses_are_kept() {
        let mut node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"a": "b", "liqo.io/type": "virtual-node"}}, "spec": {"podCIDR": "10.244.0.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}], "images": [{"names": ["x"]}]},
        }))
        .unwrap();
        trim(&mut node);
        let metadata = json!({"name": "n1", "labels": {"liqo.io/type": "virtual-node"}});
        let wanted =
            json!({"metadata": metadata, "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}]}});
        assert_eq!(node, serde_json::from_value::<Node>(wanted).unwrap());
    }
}
