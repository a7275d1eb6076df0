//! Which addresses the virtual kubelet of a peer may export: addresses it reflects to that peer, and the API server's.
//!
//! A virtual kubelet reflects the `EndpointSlice`s of the namespaces that this cluster offloads to the peer: a
//! `NamespaceOffloading` selects the peer, and this cluster's own `NamespaceMap` names the namespace. Only an address in one of
//! these slices can be wanted. The lists come from the API server itself, not from a
//! watch: the virtual kubelet may have seen a slice a moment before a watch of this process delivers it.
//!
//! Whoever writes slices can name any address. An address of a node, of the API server, of a Service, of a peer's gateway, in the
//! networks of another peer or in the network of exported endpoints therefore counts only in a namespace with a pod that has the
//! address: a pod on the host network, or a pod that another peer runs. What was exported before stays exported.
//!
//! Reads     `NamespaceMap`s of one tenant namespace, `NamespaceOffloading`s, the virtual `Node`s of the peer, `EndpointSlice`s of offloaded namespaces, `TunnelEndpoint`s, and `Pod`s of
//!           the namespaces whose slices name such an address; only for an address that is neither a pod's nor exported to the
//!           peer already.
//! Writes    nothing.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    discovery::v1::EndpointSlice,
};
use liqo_api::{meta::label, net::TunnelEndpoint, offloading::NamespaceOffloading, virtualkubelet::NamespaceMap};
use liqo_core::mapping;
use liqo_ipam::Plan;
use liqo_kube::{Cluster, KubeError};

use super::around::{Surroundings, endpoints_of};

/// How long a list that holds an address proves that the address may be exported.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// The addresses in the slices of a peer's namespaces, and when the API server was asked for them.
struct Listed {
    asked: Instant,
    addresses: BTreeSet<IpAddr>,
}

impl Listed {
    /// The answer of this list to a question asked at `asked`: an address on a recent list may be exported; an address that is
    /// absent from a list older than the question may have come since, and the list has no answer (`None`).
    fn answer(&self, ip: IpAddr, asked: Instant) -> Option<bool> {
        let holds = self.addresses.contains(&ip);
        let is_recent = asked.saturating_duration_since(self.asked) < GOOD_FOR;
        ((holds && is_recent) || self.asked >= asked).then_some(holds)
    }
}

/// The last list of one peer. The lock is held while a new list is read, so that waiting callers share the new list.
type Last = Arc<tokio::sync::Mutex<Option<Listed>>>;

/// Judges which addresses may be exported. A list that answers no question any more is forgotten at the next question.
pub(super) struct Exports {
    cluster: Cluster,
    api_server: Option<IpAddr>,
    surroundings: Arc<Surroundings>,
    lists: Mutex<HashMap<String, Last>>,
}

impl Exports {
    /// `api_server` is the address under which pods of this cluster reach its API server; anything else is ignored.
    pub(super) fn new(cluster: Cluster, api_server: &str, surroundings: Arc<Surroundings>) -> Self {
        Self { cluster, api_server: api_server.parse().ok(), surroundings, lists: Mutex::default() }
    }

    /// Whether the virtual kubelet in the namespace `tenant`, that of `peer`, may export the address; `plan` knows the networks
    /// of other peers. However many callers ask at a time, one list of a peer is read at a time.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(super) async fn permits(
        &self,
        (tenant, peer): (&str, &str),
        ip: IpAddr,
        plan: &Plan,
    ) -> Result<bool, KubeError> {
        if self.api_server == Some(ip) {
            return Ok(true);
        }
        let asked = Instant::now();
        let last = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.retain(|_, last| is_useful(last, asked));
            Arc::clone(lists.entry(tenant.to_owned()).or_default())
        };
        let mut last = last.lock().await;
        if let Some(answer) = last.as_ref().and_then(|listed| listed.answer(ip, asked)) {
            return Ok(answer);
        }
        let began = Instant::now();
        let addresses = self.list(tenant, peer, plan).await?;
        let holds = addresses.contains(&ip);
        *last = Some(Listed { asked: began, addresses });
        Ok(holds)
    }

    async fn list(&self, tenant: &str, peer: &str, plan: &Plan) -> Result<BTreeSet<IpAddr>, KubeError> {
        // A map the peer copied here has no label of an original: the door for peers refuses that label.
        let selector = format!("{}={peer},{}=true", label::REMOTE_CLUSTER_ID, label::REPLICATION);
        let maps = self.cluster.list::<NamespaceMap>(tenant, &selector).await?;
        let offloadings = self.cluster.list::<NamespaceOffloading>("", "").await?;
        let virtual_nodes = format!("{}={},{}={peer}", label::TYPE, label::VIRTUAL_NODE, label::REMOTE_CLUSTER_ID);
        let nodes = self.cluster.list::<Node>("", &virtual_nodes).await?;
        let tunnels = self.cluster.list::<TunnelEndpoint>("", "").await?;
        let around = self.surroundings.around(tunnels.iter().map(|tunnel| tunnel.spec.endpoint_ip.as_str()));
        let virtual_networks = plan.own().map(|[_, services, external]| [services, external]).ok();
        let is_virtual = |ip: &IpAddr| virtual_networks.iter().flatten().any(|network| network.contains(ip));
        let is_held = |ip: &IpAddr| around.holds(*ip) || is_virtual(ip) || plan.peer_at(*ip, peer).is_some();
        let mut addresses = BTreeSet::new();
        for namespace in offloaded(&maps, &offloadings, &nodes) {
            let slices = self.cluster.list::<EndpointSlice>(namespace, "").await?;
            let named: BTreeSet<_> = slices.iter().flat_map(endpoints_of).collect();
            let pods = match named.iter().any(is_held) {
                true => self.cluster.list::<Pod>(namespace, "").await?,
                false => Vec::new(),
            };
            addresses.extend(exportable(named, is_held, &pods));
        }
        Ok(addresses)
    }
}

/// Whether a list is in use, or still answers questions.
fn is_useful(last: &Last, now: Instant) -> bool {
    let is_recent = |listed: &Listed| now.saturating_duration_since(listed.asked) < GOOD_FOR;
    Arc::strong_count(last) > 1 || last.try_lock().is_ok_and(|listed| listed.as_ref().is_some_and(is_recent))
}

/// The addresses that slices of a namespace name, without those that somebody else holds, unless a pod of the namespace has the
/// address.
fn exportable(named: BTreeSet<IpAddr>, is_held: impl Fn(&IpAddr) -> bool, pods: &[Pod]) -> BTreeSet<IpAddr> {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
    let of_pods: BTreeSet<IpAddr> =
        statuses.flat_map(|status| status.pod_ips.iter().flatten()).filter_map(|one| one.ip.parse().ok()).collect();
    named.into_iter().filter(|ip| !is_held(ip) || of_pods.contains(ip)).collect()
}

/// The namespaces of this cluster that `maps` name and that `offloadings` offload to the peer of the virtual `nodes`. A map
/// alone offloads nothing: somebody else may have written an entry.
fn offloaded<'a>(maps: &[NamespaceMap], offloadings: &'a [NamespaceOffloading], nodes: &[Node]) -> BTreeSet<&'a str> {
    let is_named = |namespace: &str| maps.iter().any(|map| map.spec.desired_mapping.contains_key(namespace));
    let to_the_peer = offloadings.iter().filter(|one| nodes.iter().any(|node| mapping::offloads(one, node)));
    to_the_peer.filter_map(|one| one.metadata.namespace.as_deref()).filter(|namespace| is_named(namespace)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_answers_for_what_it_holds_and_for_earlier_questions() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let listed = Listed { asked: at(100), addresses: [ip("172.30.0.40")].into() };
        for (address, asked, answer) in [
            // Present: until the list is too old.
            ("172.30.0.40", at(99), Some(true)),
            ("172.30.0.40", at(100), Some(true)),
            ("172.30.0.40", at(109), Some(true)),
            ("172.30.0.40", at(110), None),
            // Absent: only for questions from before the list.
            ("172.30.0.11", at(99), Some(false)),
            ("172.30.0.11", at(100), Some(false)),
            ("172.30.0.11", at(101), None),
        ] {
            assert_eq!(listed.answer(ip(address), asked), answer, "{address} at {asked:?}");
        }
    }

    #[test]
    fn a_list_is_kept_while_it_answers_or_is_in_use() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let listed = Listed { asked: at(100), addresses: BTreeSet::new() };
        let (empty, read) = (Last::default(), Last::new(tokio::sync::Mutex::new(Some(listed))));
        assert!(!is_useful(&empty, at(100)));
        assert!(is_useful(&read, at(109)) && !is_useful(&read, at(110)));
        let _in_use = (Arc::clone(&empty), Arc::clone(&read));
        assert!(is_useful(&empty, at(110)) && is_useful(&read, at(110)));
    }

    #[test]
    fn slices_of_offloaded_namespaces_count_whatever_the_provider_reports() {
        let map = |desired: serde_json::Value| -> NamespaceMap {
            serde_json::from_value(json!({
                "metadata": {"name": "milan"}, "spec": {"desiredMapping": desired},
                "status": {"currentMapping": {"loot": {"remoteNamespace": "loot", "phase": "Accepted"}}},
            }))
            .unwrap()
        };
        let offloading = |namespace: &str, provider: &str| -> NamespaceOffloading {
            let term = json!({"matchExpressions": [{"key": "p", "operator": "In", "values": [provider]}]});
            let metadata = json!({"name": "offloading", "namespace": namespace});
            serde_json::from_value(
                json!({"metadata": metadata, "spec": {"clusterSelector": {"nodeSelectorTerms": [term]}}}),
            )
            .unwrap()
        };
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "liqo-milan", "labels": {"p": "milan"}}})).unwrap();
        // Somebody has written entries for a namespace that is offloaded to another cluster, and for one that is not.
        let wished = json!({"shop": "shop-rome", "till": "loot", "private": "loot", "kube-system": "x"});
        let maps = [map(wished), map(json!({}))];
        let offloadings = [
            offloading("shop", "milan"),
            offloading("till", "turin"),
            offloading("lab", "milan"),
            offloading("kube-system", "milan"),
        ];
        let all = |nodes: &[Node]| offloaded(&maps, &offloadings, nodes).into_iter().collect::<Vec<_>>();
        assert_eq!(all(&[node]), ["shop"]);
        assert!(all(&[]).is_empty() && offloaded(&[], &offloadings, &[]).is_empty());
    }

    #[test]
    fn what_somebody_holds_is_exported_for_a_pod_that_has_it_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let around = liqo_ipam::Around {
            vital: vec![("172.30.0.11/32".parse().unwrap(), "an address of node n1".to_owned())],
            gateways: vec!["203.0.113.4/32".parse().unwrap()],
            public: false,
        };
        let is_held = |one: &IpAddr| around.holds(*one) || one.to_string().starts_with("10.246.");
        let pod = |ip: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"podIPs": [{"ip": ip}]}})).unwrap()
        };
        for (what, named, pods, wanted) in [
            ("somebody outside", "198.51.100.7", vec![], true),
            ("a node", "172.30.0.11", vec![pod("10.244.0.9")], false),
            ("a pod on the host network", "172.30.0.11", vec![pod("10.244.0.9"), pod("172.30.0.11")], true),
            ("the gateway of a peer", "203.0.113.4", vec![], false),
            ("an address of another peer", "10.246.0.7", vec![pod("10.246.0.8")], false),
            ("a pod that another peer runs", "10.246.0.7", vec![pod("10.246.0.7")], true),
        ] {
            let exported = exportable([ip(named)].into(), is_held, &pods);
            assert_eq!(exported.contains(&ip(named)), wanted, "{what}");
        }
    }
}
