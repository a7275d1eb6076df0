//! How the node looks: what it is created with, what its metadata and its status should be.
//!
//! Keeps true: capacity, images and offered labels are those of the offer, no more and no less; labels that give a
//! node a role or a place among the nodes of this cluster are not for a provider to set; which labels came from the
//! offer is remembered in an annotation, so that they go with it also after a restart.
//!
//! `spec.podCIDR` is not ours to prevent: where the controller manager allocates node ranges it gives one
//! to every node, there is no way for a node to decline.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
        Taint,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
    jiff::Timestamp,
};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{
    meta::{TAINT_NOT_ALLOWED, label},
    sharing::{ResourceOffer, ResourceOfferSpec},
};
use liqo_core::quantity::Amount;
use serde_json::{Map, Value, json};

use super::condition::{self, Health};
use crate::link::Link;

/// Annotation of the node: keys of the labels that come from the offer.
const OFFERED_LABELS: &str = "liqo.io/offered-labels";
/// Annotation of a node that goes away: when draining began (RFC 3339).
pub(super) const DRAIN_STARTED: &str = "liqo.io/drain-started";
/// Architecture, unless the offer says another one.
const ARCHITECTURE: (&str, &str) = ("kubernetes.io/arch", "amd64");
/// Labels of Kubernetes that describe a node, besides those of `topology.kubernetes.io`. All others of Kubernetes'
/// domains make it somebody: a control plane, a member of a restricted group, one without load balancers.
const DESCRIPTIONS: [&str; 8] = [
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
];
/// After this many seconds the status is written again even if nothing has changed.
const HEARTBEAT: i64 = 295;

/// What of the node does not depend on the offer.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) remote_cluster_id: String,
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) kubelet_version: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) check_network: bool,
}

impl Profile {
    pub(super) fn new(link: &Link, args: &crate::args::NodeArgs, kubelet_version: String) -> Self {
        Self {
            name: link.node.clone(),
            remote_cluster_id: link.there.cluster_id.clone(),
            ip: args.ip.clone(),
            port: args.listen_port,
            kubelet_version,
            labels: args.node_extra_labels.clone(),
            annotations: args.node_extra_annotations.clone(),
            check_network: args.node_check_network,
        }
    }

    /// Whether the node stands for our peer.
    pub(super) fn owns(&self, node: &Node) -> bool {
        node.labels().get(label::REMOTE_CLUSTER_ID) == Some(&self.remote_cluster_id)
    }

    /// Labels no offer can change, because other programs find the node by them.
    fn identity(&self) -> [(String, String); 3] {
        [
            ("kubernetes.io/hostname".to_owned(), self.name.clone()),
            (label::TYPE.to_owned(), label::VIRTUAL_NODE.to_owned()),
            (label::REMOTE_CLUSTER_ID.to_owned(), self.remote_cluster_id.clone()),
        ]
    }

    fn base_labels(&self) -> BTreeMap<String, String> {
        let fixed = [
            ("kubernetes.io/role", "agent"),
            ("kubernetes.io/os", "linux"),
            ARCHITECTURE,
            ("node.kubernetes.io/exclude-from-external-load-balancers", "true"),
            ("alpha.service-controller.kubernetes.io/exclude-balancer", "true"),
        ];
        let mut labels = BTreeMap::from(fixed.map(|(key, value)| (key.to_owned(), value.to_owned())));
        labels.extend(self.labels.clone());
        labels.extend(self.identity());
        labels
    }

    /// All labels of the node for an offer.
    fn labels(&self, offer: &ResourceOfferSpec) -> BTreeMap<String, String> {
        let mut labels = self.base_labels();
        labels.extend(offered(offer).map(|(key, value)| (key.clone(), value.clone())));
        let available = if offer.storage_classes.is_empty() { "false" } else { "true" };
        labels.insert(label::STORAGE_AVAILABLE.to_owned(), available.to_owned());
        labels.extend(self.identity());
        labels
    }

    fn info(&self, offer: &ResourceOfferSpec) -> NodeSystemInfo {
        let (key, default) = ARCHITECTURE;
        NodeSystemInfo {
            architecture: offer.labels.get(key).map_or(default, String::as_str).to_owned(),
            operating_system: "Linux".to_owned(),
            kubelet_version: self.kubelet_version.clone(),
            ..NodeSystemInfo::default()
        }
    }

    fn taint() -> Taint {
        Taint {
            key: TAINT_NOT_ALLOWED.to_owned(),
            value: Some("true".to_owned()),
            effect: "NoExecute".to_owned(),
            time_added: None,
        }
    }

    /// The node as it is created: nothing is known about the other cluster yet.
    pub(super) fn new_node(&self, offer: &ResourceOffer, now: &Time) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.base_labels()),
                annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec { taints: Some(vec![Self::taint()]), ..NodeSpec::default() }),
            status: Some(NodeStatus {
                conditions: Some(condition::unknown(self.check_network, now)),
                ..self.fixed_status(&offer.spec, NodeStatus::default())
            }),
        }
    }

    fn fixed_status(&self, offer: &ResourceOfferSpec, old: NodeStatus) -> NodeStatus {
        let address = NodeAddress { address: self.ip.clone(), type_: "InternalIP".to_owned() };
        let endpoint = DaemonEndpoint { port: i32::from(self.port) };
        NodeStatus {
            addresses: (!self.ip.is_empty()).then(|| vec![address]),
            daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(endpoint) }),
            node_info: Some(self.info(offer)),
            ..old
        }
    }

    /// The merge patch that makes metadata and spec of the node what they should be; `None` if they are.
    pub(super) fn patch(&self, offer: &ResourceOffer, node: &Node) -> Option<Value> {
        let labels = self.labels(&offer.spec);
        let gone = remembered(node).into_iter().filter(|key| !labels.contains_key(key));
        let mut label_patch = changes(&labels, node.labels());
        label_patch.extend(gone.filter(|key| node.labels().contains_key(key)).map(|key| (key, Value::Null)));

        let mut annotations = self.annotations.clone();
        let offered: Vec<_> = offered(&offer.spec).map(|(key, _)| key.as_str()).collect();
        if !offered.is_empty() || node.annotations().contains_key(OFFERED_LABELS) {
            annotations.insert(OFFERED_LABELS.to_owned(), offered.join(","));
        }
        let mut annotation_patch = changes(&annotations, node.annotations());

        let mut spec = Map::new();
        if node.annotations().contains_key(DRAIN_STARTED) {
            // The offer is valid again: what draining did is undone.
            annotation_patch.insert(DRAIN_STARTED.to_owned(), Value::Null);
            spec.insert("unschedulable".to_owned(), Value::Null);
        }
        let mut taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        if !taints.iter().any(|taint| taint.key == TAINT_NOT_ALLOWED && taint.effect == "NoExecute") {
            taints.push(Self::taint());
            spec.insert("taints".to_owned(), json!(taints));
        }
        if label_patch.is_empty() && annotation_patch.is_empty() && spec.is_empty() {
            return None;
        }
        let mut metadata = json!({"labels": label_patch, "annotations": annotation_patch});
        if spec.contains_key("taints") {
            // Others write taints too, and a list is written whole.
            metadata["resourceVersion"] = json!(node.resource_version());
        }
        Some(json!({"metadata": metadata, "spec": spec}))
    }

    /// The status the node should have; `None` if it has it and it is not due for a heartbeat.
    pub(super) fn status(&self, offer: &ResourceOffer, health: Health, node: &Node, now: &Time) -> Option<NodeStatus> {
        let old = node.status.clone().unwrap_or_default();
        let (conditions, flipped) = condition::update(old.conditions.as_deref().unwrap_or_default(), health, now);
        let hard = hard(&offer.spec);
        let mut new = self.fixed_status(&offer.spec, old.clone());
        for resources in [&mut new.capacity, &mut new.allocatable] {
            if !same_amounts(resources.as_ref(), &hard) {
                *resources = Some(hard.clone());
            }
        }
        if new.images.as_deref().unwrap_or_default() != offer.spec.images {
            new.images = Some(offer.spec.images.clone()).filter(|images: &Vec<ContainerImage>| !images.is_empty());
        }
        let due = new != old || flipped || heartbeat_age(&old, now) >= HEARTBEAT;
        new.conditions = Some(conditions);
        due.then_some(new)
    }
}

/// The labels of an offer the node gets.
fn offered(offer: &ResourceOfferSpec) -> impl Iterator<Item = (&String, &String)> {
    offer.labels.iter().filter(|(key, _)| describes(key))
}

/// Whether a label only describes a node.
fn describes(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let of_kubernetes = within("kubernetes.io") || within("k8s.io");
    !of_kubernetes || domain == "topology.kubernetes.io" || DESCRIPTIONS.contains(&key)
}

/// Whether the offer has CPU and memory.
pub(super) fn has_resources(offer: &ResourceOffer) -> bool {
    let hard = hard(&offer.spec);
    let some = |key: &str| hard.get(key).is_some_and(|amount| Amount::of(amount).is_positive());
    some("cpu") && some("memory")
}

/// The status of a node that goes away; `None` if it has it.
pub(super) fn leaving_status(node: &Node, now: &Time) -> Option<NodeStatus> {
    let old = node.status.clone().unwrap_or_default();
    let (conditions, flipped) = condition::leaving(old.conditions.as_deref().unwrap_or_default(), now);
    let some = |resources: &Option<BTreeMap<_, _>>| resources.as_ref().is_some_and(|map| !map.is_empty());
    let due = flipped || some(&old.capacity) || some(&old.allocatable);
    let new = NodeStatus { capacity: None, allocatable: None, conditions: Some(conditions), ..old };
    due.then_some(new)
}

/// The amounts of an offer. What is less than nothing, or cannot be read, is not offered: the API server would refuse a node
/// with such an amount, and with it everything else that the node says.
fn hard(offer: &ResourceOfferSpec) -> BTreeMap<String, Quantity> {
    let mut hard = offer.resource_quota.as_ref().and_then(|quota| quota.hard.clone()).unwrap_or_default();
    hard.retain(|_, amount| Amount::parse(&amount.0).is_some_and(|amount| amount.at_least_zero() == amount));
    hard
}

/// The same resources in the same amounts, however they are written.
fn same_amounts(one: Option<&BTreeMap<String, Quantity>>, other: &BTreeMap<String, Quantity>) -> bool {
    let one = one.into_iter().flatten();
    let amounts = |(key, amount): (&String, &Quantity)| (key.clone(), Amount::parse(&amount.0).ok_or(amount.0.clone()));
    one.map(amounts).eq(other.iter().map(amounts))
}

fn heartbeat_age(status: &NodeStatus, now: &Time) -> i64 {
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let last = ready.and_then(|ready| ready.last_heartbeat_time.as_ref());
    last.map_or(i64::MAX, |last| now.0.as_second() - last.0.as_second())
}

fn remembered(node: &Node) -> BTreeSet<String> {
    let keys = node.annotations().get(OFFERED_LABELS);
    keys.into_iter().flat_map(|keys| keys.split(',')).filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

/// What of `wanted` is not in `is`.
fn changes(wanted: &BTreeMap<String, String>, is: &BTreeMap<String, String>) -> Map<String, Value> {
    let differs = |(key, value): &(&String, &String)| is.get(*key) != Some(*value);
    wanted.iter().filter(differs).map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect()
}

/// When draining of the node began, as it remembers.
pub(super) fn drain_started(node: &Node) -> Option<Timestamp> {
    node.annotations().get(DRAIN_STARTED)?.parse().ok()
}

#[cfg(test)]
mod tests;
