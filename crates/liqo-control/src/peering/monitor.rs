//! What this cluster has to offer.
//!
//! Counted is what real, ready nodes can allocate, less what the pods on them ask for. A peer's own pods
//! are given back to it, so its offer does not shrink under its own load. Of the rest it gets a
//! percentage. Pods that only stand for pods elsewhere are on virtual nodes and not counted. Whose a pod is
//! says its controller, a `ShadowPod`, since labels are anybody's to set. One value that makes no sense
//! (a negative rest, an amount nobody can read) is worth nothing and spoils no other.

use std::{borrow::Borrow, collections::HashSet, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Node, NodeSpec, NodeStatus, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;
use liqo_api::meta::label;
use liqo_core::{
    quantity::Amount,
    resources::{Half, Resources, add, of_pod, read, take},
};

/// Changes of capacity within this time are told together.
pub(crate) const CROWD: Duration = Duration::from_secs(1);

/// What `peer` is offered: `percent` of what is free for it.
pub(crate) fn offer(nodes: &[impl Borrow<Node>], pods: &[impl Borrow<Pod>], peer: &str, percent: u8) -> Resources {
    free(nodes, pods, peer)
        .into_iter()
        .map(|(name, amount)| {
            let shared = amount.at_least_zero().share(percent, unit(&name));
            (name, shared)
        })
        .collect()
}

/// What is free for `peer`; may be negative.
fn free(nodes: &[impl Borrow<Node>], pods: &[impl Borrow<Pod>], peer: &str) -> Resources {
    let ready = || nodes.iter().map(Borrow::borrow).filter(|node| counts(node));
    let names: HashSet<_> = ready().map(ResourceExt::name_any).collect();
    let mut total = Resources::new();
    for allocatable in ready().filter_map(|node| node.status.as_ref()?.allocatable.as_ref()) {
        add(&mut total, &read(allocatable));
    }
    for pod in pods.iter().map(Borrow::borrow).filter(|pod| burdens(pod, peer)) {
        if let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_ref().is_some_and(|n| names.contains(n)))
        {
            take(&mut total, &of_pod(spec, Half::Requests));
        }
    }
    total
}

/// Whether a node is real and ready.
fn counts(node: &Node) -> bool {
    let is_virtual = node.labels().get(label::TYPE).is_some_and(|value| value == label::VIRTUAL_NODE);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    !is_virtual && conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Whether what a pod asks for is lost for `peer`.
fn burdens(pod: &Pod, peer: &str) -> bool {
    let is_theirs = pod.labels().get(label::REFLECTION_ORIGIN).is_some_and(|origin| origin == peer);
    !(is_theirs && pod.owner_references().iter().any(made_from_shadow))
}

/// Whether an owner is the `ShadowPod` a pod was made from.
fn made_from_shadow(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split('/').next();
    owner.controller == Some(true) && owner.kind == "ShadowPod" && group == Some("virtualkubelet.liqo.io")
}

/// The smallest amount of a resource that is offered.
fn unit(resource: &str) -> Amount {
    match resource {
        "cpu" => Amount::milli(1),
        "memory" => Amount::whole(1_000_000),
        _ => Amount::whole(1),
    }
}

/// Forgets of a node what neither the monitor nor the search for an address reads.
pub(crate) fn trim_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    node.spec = Some(NodeSpec::default());
    if let Some(status) = node.status.take() {
        let mut conditions = status.conditions.unwrap_or_default();
        conditions.retain(|one| one.type_ == "Ready");
        node.status = Some(NodeStatus {
            addresses: status.addresses,
            allocatable: status.allocatable,
            conditions: Some(conditions),
            ..NodeStatus::default()
        });
    }
}

/// Forgets of a pod all but its place and what it asks for.
pub(crate) fn trim_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.owner_references_mut().retain(made_from_shadow);
    pod.status = None;
    pod.labels_mut().retain(|key, _| key == label::REFLECTION_ORIGIN);
    if let Some(spec) = pod.spec.take() {
        let trim =
            |containers: Vec<Container>| -> Vec<Container> { containers.into_iter().map(trim_container).collect() };
        pod.spec = Some(PodSpec {
            containers: trim(spec.containers),
            init_containers: spec.init_containers.map(trim),
            node_name: spec.node_name,
            overhead: spec.overhead,
            resources: spec.resources,
            ..PodSpec::default()
        });
    }
}

fn trim_container(container: Container) -> Container {
    let Container { resources, restart_policy, .. } = container;
    Container { resources, restart_policy, ..Container::default() }
}

#[cfg(test)]
mod tests {
    use liqo_core::resources::write;
    use serde_json::{Value, json};

    use super::*;

    const PEER: &str = "09897b82";

    fn node(name: &str, kind: &str, ready: &str, allocatable: Value) -> Node {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let mut node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"liqo.io/type": kind}},
            "status": {"allocatable": allocatable, "conditions": conditions},
        }))
        .unwrap();
        trim_node(&mut node);
        node
    }

    fn pod(on: &str, labels: Value, cpu: &str) -> Pod {
        let kind = if labels.get("virtualkubelet.liqo.io/origin").is_some() { "ShadowPod" } else { "ReplicaSet" };
        owned_pod(kind, on, labels, cpu)
    }

    fn owned_pod(kind: &str, on: &str, labels: Value, cpu: &str) -> Pod {
        let resources = json!({"requests": {"cpu": cpu, "memory": "100M"}});
        let owner = json!({
            "apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": kind, "name": "p", "uid": "u", "controller": true,
        });
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": labels, "ownerReferences": [owner]},
            "spec": {"nodeName": on, "containers": [{"name": "c", "resources": resources}]},
        }))
        .unwrap();
        trim_pod(&mut pod);
        pod
    }

    fn offered(nodes: &[Node], pods: &[Pod], percent: u8) -> Value {
        serde_json::to_value(write(&offer(nodes, pods, PEER, percent))).unwrap()
    }

    #[test]
    fn free_capacity_of_real_ready_nodes_is_shared() {
        let capacity = json!({"cpu": "2", "memory": "8G", "pods": "250"});
        let nodes = [
            node("a", "", "True", capacity.clone()),
            node("b", "", "False", capacity.clone()),
            node("v", "virtual-node", "True", capacity),
        ];
        let none = json!({});
        let shadow = json!({"liqo.io/shadowPod": "true"});
        let own = json!({"virtualkubelet.liqo.io/origin": PEER});
        let other = json!({"virtualkubelet.liqo.io/origin": "somebody"});
        for (what, pods, cpu, memory) in [
            ("nothing runs", vec![], "1", "4000000000"),
            ("a local pod", vec![pod("a", none.clone(), "500m")], "750m", "3950000000"),
            ("a pod on a node that does not count", vec![pod("b", none.clone(), "1")], "1", "4000000000"),
            ("a pod that stands for another", vec![pod("v", shadow.clone(), "1")], "1", "4000000000"),
            ("a pod that only says so", vec![pod("a", shadow, "500m")], "750m", "3950000000"),
            ("a pod of the peer", vec![pod("a", own.clone(), "1")], "1", "4000000000"),
            ("a pod that only says so", vec![owned_pod("Job", "a", own, "500m")], "750m", "3950000000"),
            ("a pod of another peer", vec![pod("a", other, "1")], "500m", "3950000000"),
            ("more than there is of one", vec![pod("a", none.clone(), "3")], "0", "3950000000"),
            ("an amount nobody can read", vec![pod("a", none, "lots")], "1", "3950000000"),
        ] {
            let expected = json!({"cpu": cpu, "memory": memory, "pods": "125"});
            assert_eq!(offered(&nodes, &pods, 50), expected, "{what}");
        }
    }

    #[test]
    fn an_unreadable_capacity_spoils_no_other() {
        let nodes = [node("a", "", "True", json!({"cpu": "2", "vendor/gpu": "many", "other/gpu": "1"}))];
        assert_eq!(offered(&nodes, &[], 90), json!({"cpu": "1800m", "vendor/gpu": "0", "other/gpu": "0"}));
    }
}
