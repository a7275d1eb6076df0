//! On which node an address of a pod is.
//!
//! Most network plugins give a pod an address of the range that Kubernetes has assigned to its node: then there is one route
//! per node. Others (Calico, Cilium's cluster pool, those of clouds) have ranges of their own, and nobody but the pods
//! themselves says where an address is: then there is a route per pod, on nodes with a gateway.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use super::plan::Node;

/// A pod with a network of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    node: String,
    addresses: Vec<IpAddr>,
    /// It is being deleted: its address may be another one's already.
    leaving: bool,
}

/// The node of a pod; `None` for a pod without an address of its own.
pub(super) fn read(pod: &Pod) -> Option<Placed> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let addresses = addresses(pod);
    let leaving = pod.metadata.deletion_timestamp.is_some();
    (!addresses.is_empty()).then_some(Placed { node, addresses, leaving })
}

/// The addresses that only this pod has: none for a pod on the host network, and none for a pod that has ended.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some((spec, status)) = pod.spec.as_ref().zip(pod.status.as_ref()) else { return Vec::new() };
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if ended || spec.host_network == Some(true) {
        return Vec::new();
    }
    status.pod_ips.iter().flatten().filter_map(|one| one.ip.parse().ok()).collect()
}

/// Everything else of a pod is of no interest here.
pub(crate) fn trim(pod: &mut Pod) {
    liqo_kube::strip(pod);
    (pod.metadata.labels, pod.metadata.annotations, pod.metadata.owner_references) = (None, None, None);
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        node_name: spec.node_name,
        host_network: spec.host_network,
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|status| PodStatus {
        phase: status.phase,
        pod_ips: status.pod_ips,
        ..PodStatus::default()
    });
}

/// Puts the addresses of pods in place of the ranges of nodes, unless every pod has one of its own node's range.
pub(super) fn locate(nodes: &mut BTreeMap<String, Node>, pods: &[Placed]) {
    let here = |node: &Node, address: &IpAddr| {
        address.is_ipv4() != node.ip.is_ipv4() || node.pods.iter().any(|range| range.contains(address))
    };
    // What is on virtual nodes is not in this cluster.
    let known = || pods.iter().filter(|pod| nodes.contains_key(&pod.node));
    if known().all(|pod| pod.addresses.iter().all(|address| here(&nodes[&pod.node], address))) {
        return;
    }
    let mut found: BTreeMap<IpAddr, &Placed> = BTreeMap::new();
    for pod in known() {
        for address in &pod.addresses {
            found
                .entry(*address)
                .and_modify(|other| {
                    if other.leaving {
                        *other = pod
                    }
                })
                .or_insert(pod);
        }
    }
    for (name, node) in nodes.iter_mut() {
        node.pods = found.iter().filter(|(_, pod)| pod.node == *name).map(|(ip, _)| IpNet::from(*ip)).collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes() -> BTreeMap<String, Node> {
        let node = |last: u8| Node {
            ip: IpAddr::from([172, 30, 0, last]),
            pods: vec![format!("10.244.{last}.0/24").parse().unwrap()],
        };
        [("a".to_owned(), node(1)), ("b".to_owned(), node(2))].into()
    }

    fn pod(node: &str, ip: &str) -> Placed {
        Placed { node: node.into(), addresses: vec![ip.parse().unwrap()], leaving: false }
    }

    fn located(pods: &[Placed]) -> Vec<String> {
        let mut nodes = nodes();
        locate(&mut nodes, pods);
        nodes.iter().flat_map(|(name, node)| node.pods.iter().map(move |net| format!("{name} {net}"))).collect()
    }

    #[test]
    fn ranges_of_nodes_count_while_all_pods_keep_to_them() {
        let ranges = ["a 10.244.1.0/24", "b 10.244.2.0/24"];
        assert_eq!(located(&[]), ranges);
        assert_eq!(located(&[pod("a", "10.244.1.7"), pod("b", "10.244.2.7")]), ranges);
        assert_eq!(located(&[pod("liqo-milan", "10.245.0.9")]), ranges, "a virtual node is no place");
    }

    #[test]
    fn pods_are_where_they_are_when_one_is_elsewhere() {
        let told = located(&[pod("a", "10.244.1.7"), pod("b", "10.244.1.8"), pod("liqo-milan", "10.245.0.9")]);
        assert_eq!(told, ["a 10.244.1.7/32", "b 10.244.1.8/32"]);
    }

    #[test]
    fn an_address_is_where_its_next_pod_is() {
        let old = Placed { leaving: true, ..pod("a", "10.244.9.9") };
        let new = pod("b", "10.244.9.9");
        for pods in [[old.clone(), new.clone()], [new, old]] {
            assert_eq!(located(&pods), ["b 10.244.9.9/32"]);
        }
    }

    #[test]
    fn a_pod_counts_while_it_has_an_address_of_its_own() {
        let read = |spec: serde_json::Value, status: serde_json::Value| {
            let mut pod = serde_json::from_value(json!({"spec": spec, "status": status})).unwrap();
            trim(&mut pod);
            super::read(&pod)
        };
        let (spec, status) = (json!({"nodeName": "a", "containers": []}), json!({"podIPs": [{"ip": "10.244.1.7"}]}));
        assert_eq!(read(spec.clone(), status.clone()), Some(pod("a", "10.244.1.7")));
        assert_eq!(read(spec.clone(), json!({})), None);
        assert_eq!(read(spec, json!({"phase": "Succeeded", "podIPs": [{"ip": "10.244.1.7"}]})), None);
        assert_eq!(read(json!({"nodeName": "a", "hostNetwork": true, "containers": []}), status), None);
    }
}
