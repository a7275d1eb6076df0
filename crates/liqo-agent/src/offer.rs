//! What this cluster can offer: what real, ready nodes have left of what pods of its own ask for.
//!
//! Pods that run here for peers are given back, because what peers hold is subtracted in the ledger of the broker.

use std::borrow::Borrow;

use k8s_openapi::api::core::v1::{Container, Node, NodeSpec, NodeStatus, Pod, PodSpec};
use kube::ResourceExt;
use liqo_api::meta::label;
use liqo_core::{
    quantity::Amount,
    resources::{Half, Resources, add, of_pod, read, take},
};

/// What is offered, and what the largest pod can have: what is left on the one node with the most CPU. The latter counts pods of peers.
pub(crate) fn offer(nodes: &[impl Borrow<Node>], pods: &[impl Borrow<Pod>], percent: u8) -> (Resources, Resources) {
    let (mut offered, mut largest) = (Resources::new(), Resources::new());
    for node in nodes.iter().map(Borrow::borrow).filter(|node| counts(node)) {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let mut left = allocatable.map(read).unwrap_or_default();
        let mut here = left.clone();
        let name = node.name_any();
        for pod in pods.iter().map(Borrow::borrow) {
            let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_ref() == Some(&name)) else { continue };
            if is_over(pod) {
                continue;
            }
            let asked = of_pod(spec, Half::Requests);
            take(&mut here, &asked);
            if !is_of_peer(pod) {
                take(&mut left, &asked);
            }
        }
        add(&mut offered, &left);
        let cpu = |list: &Resources| list.get("cpu").copied().unwrap_or_default();
        if largest.is_empty() || cpu(&here) > cpu(&largest) {
            largest = here;
        }
    }
    let share = |(name, amount): (String, Amount)| {
        let shared = amount.at_least_zero().share(percent, unit(&name));
        (name, shared)
    };
    let offered: Resources = offered.into_iter().map(share).collect();
    let within = |(name, amount): (String, Amount)| {
        let most = offered.get(&name).copied().unwrap_or_default();
        let unit = unit(&name);
        (name, amount.at_least_zero().min(most).share(100, unit))
    };
    let largest = largest.into_iter().map(within).collect();
    (offered, largest)
}

/// Whether a node is real and ready, and takes new pods.
fn counts(node: &Node) -> bool {
    let is_virtual = node.labels().get(label::TYPE).is_some_and(|value| value == label::VIRTUAL_NODE);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_closed = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
    !is_virtual && !is_closed && conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Whether a pod has ended and takes nothing any more.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod runs here for a peer. Its controller says so, a `ShadowPod`, because labels are anybody's to set.
fn is_of_peer(pod: &Pod) -> bool {
    pod.owner_references().iter().any(|owner| {
        let group = owner.api_version.split('/').next();
        owner.controller == Some(true) && owner.kind == "ShadowPod" && group == Some("virtualkubelet.liqo.io")
    })
}

/// The smallest amount of a resource that is offered: heartbeats need not tell of less.
fn unit(resource: &str) -> Amount {
    match resource {
        "cpu" => Amount::milli(100),
        "memory" | "ephemeral-storage" => Amount::whole(1 << 26),
        _ => Amount::whole(1),
    }
}

/// Forgets of a node what the offer does not read.
pub(crate) fn trim_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    let unschedulable = node.spec.take().and_then(|spec| spec.unschedulable);
    node.spec = Some(NodeSpec { unschedulable, ..NodeSpec::default() });
    if let Some(status) = node.status.take() {
        let mut conditions = status.conditions.unwrap_or_default();
        conditions.retain(|one| one.type_ == "Ready");
        let (allocatable, addresses) = (status.allocatable, status.addresses);
        node.status =
            Some(NodeStatus { allocatable, addresses, conditions: Some(conditions), ..NodeStatus::default() });
    }
}

/// Forgets of a pod what the offer does not read.
pub(crate) fn trim_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.metadata.labels = None;
    if let Some(status) = &mut pod.status {
        *status = k8s_openapi::api::core::v1::PodStatus { phase: status.phase.take(), ..Default::default() };
    }
    let trim = |container: Container| Container {
        resources: container.resources,
        restart_policy: container.restart_policy,
        ..Container::default()
    };
    if let Some(spec) = pod.spec.take() {
        pod.spec = Some(PodSpec {
            containers: spec.containers.into_iter().map(trim).collect(),
            init_containers: spec.init_containers.map(|all| all.into_iter().map(trim).collect()),
            node_name: spec.node_name,
            overhead: spec.overhead,
            resources: spec.resources,
            ..PodSpec::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, cpu: &str, more: &Value) -> Node {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"liqo.io/type": "x"}},
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]}
        });
        for (pointer, value) in more.as_object().unwrap() {
            *node.pointer_mut(pointer).unwrap() = value.clone();
        }
        let mut node: Node = serde_json::from_value(node).unwrap();
        trim_node(&mut node);
        node
    }

    fn pod(on: &str, cpu: &str, kind: &str, phase: &str) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"ownerReferences": [{"apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": kind, "name": "x",
                "uid": "x", "controller": true}]},
            "spec": {"nodeName": on, "containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]},
            "status": {"phase": phase}
        }))
        .unwrap();
        trim_pod(&mut pod);
        pod
    }

    fn cpu((offered, largest): &(Resources, Resources)) -> (String, String) {
        (offered["cpu"].quantity().0, largest["cpu"].quantity().0)
    }

    #[test]
    fn an_offer_is_what_own_pods_leave() {
        let nodes = [node("a", "4", &json!({})), node("b", "2", &json!({}))];
        let pods =
            [pod("a", "1", "Job", "Running"), pod("a", "9", "Job", "Succeeded"), pod("c", "1", "Job", "Running")];
        assert_eq!(cpu(&offer(&nodes, &pods, 100)), ("5".into(), "3".into()));
        assert_eq!(cpu(&offer(&nodes, &pods, 50)), ("2500m".into(), "2500m".into()), "no pod is larger than the offer");
    }

    #[test]
    fn pods_of_peers_stay_in_the_offer_but_not_in_the_room_for_the_largest() {
        let nodes = [node("a", "4", &json!({}))];
        let pods = [pod("a", "3", "ShadowPod", "Running")];
        assert_eq!(cpu(&offer(&nodes, &pods, 100)), ("4".into(), "1".into()));
    }

    #[test]
    fn nodes_that_run_nothing_new_offer_nothing() {
        let virtual_one = node("a", "4", &json!({"/metadata/labels": {"liqo.io/type": "virtual-node"}}));
        let away = node("b", "4", &json!({"/status/conditions": [{"type": "Ready", "status": "Unknown"}]}));
        let mut closed = node("c", "4", &json!({}));
        closed.spec.as_mut().unwrap().unschedulable = Some(true);
        assert_eq!(offer(&[virtual_one, away, closed], &[] as &[Pod], 100), (Resources::new(), Resources::new()));
        let full = [pod("d", "9", "Job", "Running")];
        assert_eq!(cpu(&offer(&[node("d", "4", &json!({}))], &full, 100)), ("0".into(), "0".into()));
    }
}
