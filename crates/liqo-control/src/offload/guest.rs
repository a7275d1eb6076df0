//! The profile of guests: the fields that a pod of a peer may set.
//!
//! Keeps true: the webhook and the controller apply the same profile, so the controller makes no pod that the webhook
//! would have refused; every pod that a virtual kubelet of Liqo 0.8.3 sends by default passes; the provider chooses which
//! further fields pass. Pod Security on the namespaces of peers applies, too; this profile covers the fields that Pod
//! Security does not judge, and the fields that give a pod control over its node.

mod metadata;
mod power;
mod volumes;

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements, Toleration},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use liqo_core::quantity::Amount;
use serde_json::Value;

use super::brief::Weight;
pub(crate) use metadata::origin;

/// Longest time, in seconds, that a pod of a peer has to end: a pod that does not end keeps its namespace, its resources and
/// its processes.
const LONGEST_GRACE: i64 = 600;
/// Largest specification of a pod of a peer, in bytes of JSON.
const LARGEST: usize = 64 * 1024;
/// Most containers of a pod of a peer.
const MOST_CONTAINERS: usize = 32;
/// Longest annotations of a pod of a peer, in bytes in all.
const LONGEST_ANNOTATIONS: usize = 16 * 1024;
/// No refusal has more sentences.
const SENTENCES: usize = 5;
/// Text of a peer is not repeated beyond this many characters.
const WORDS: usize = 64;
/// Tolerations every pod may have, by key and effect: what Kubernetes itself adds to pods.
const TOLERATIONS: [(&str, &str); 3] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
];

/// Settings of the provider that allow pods of peers more than the built-in profile.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GuestArgs {
    /// Keys of taints that pods of peers may tolerate; `*` allows every key.
    #[arg(long, value_delimiter = ',')]
    pub guest_tolerations: Vec<String>,
    /// Priority classes that pods of peers may have.
    #[arg(long, value_delimiter = ',')]
    pub guest_priority_classes: Vec<String>,
    /// Runtime classes that pods of peers may ask for.
    #[arg(long, value_delimiter = ',')]
    pub guest_runtime_classes: Vec<String>,
    /// Runtime class for pods of peers that name none; empty: the default of this cluster.
    #[arg(long, default_value = "")]
    pub guest_runtime_class: String,
    /// Annotations that pods of peers may have although programs of this cluster act on them: a key, or the
    /// beginning of keys with a * behind.
    #[arg(long, value_delimiter = ',')]
    pub guest_annotations: Vec<String>,
    /// Kinds of volumes, like nfs or csi, that pods of peers may have besides those that lie in their namespaces.
    #[arg(long, value_delimiter = ',')]
    pub guest_volumes: Vec<String>,
    /// How many objects of each kind, and how much storage, a peer may have in one namespace: resource=amount,... with the
    /// resources of a ResourceQuota.
    #[arg(long, value_delimiter = ',', value_parser = count)]
    pub guest_objects: Vec<(String, String)>,
    /// Networks that endpoints of peers must lie in where Liqo does not connect the networks.
    #[arg(long, value_delimiter = ',')]
    pub guest_networks: Vec<IpNet>,
    /// Let pods of peers be masters of their nodes: privileged, with paths, ports and namespaces of the host.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub guest_privileged: bool,
}

/// Parses `resource=amount`.
fn count(text: &str) -> Result<(String, String), String> {
    let is_amount = |count: &str| is_amount(&Quantity(count.to_owned()));
    match text.split_once('=') {
        Some((resource, count)) if !resource.is_empty() && is_amount(count) => {
            Ok((resource.to_owned(), count.to_owned()))
        }
        _ => Err(format!("invalid value {text}: it must look like pods=1000")),
    }
}

/// The refused fields of a pod of a peer, one sentence each; empty: the profile allows the pod. `door`: the settings that
/// loosen what peers may write, since a pod may bring claims along; without them no pod brings any.
pub(crate) fn violations(args: &GuestArgs, door: Option<&Value>, meta: &ObjectMeta, pod: &PodSpec) -> Vec<String> {
    let mut all = Vec::new();
    size(meta, pod, &mut all);
    placement(args, pod, &mut all);
    identity(pod, &mut all);
    amounts(pod, &mut all);
    metadata::check(args, meta, &mut all);
    volumes::check(args, door, (origin(meta), pod), &mut all);
    if !args.guest_privileged {
        power::check(pod, &mut all);
    }
    all
}

/// The sentences as one text of bounded length.
pub(crate) fn text(violations: &[String]) -> String {
    let told: Vec<_> = violations.iter().take(SENTENCES).map(String::as_str).collect();
    let more = match violations.len().saturating_sub(SENTENCES) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("this cluster does not run the pod: {}{more}", told.join("; "))
}

/// Whether the controller manager and the API server can hold many such pods.
fn size(meta: &ObjectMeta, pod: &PodSpec, all: &mut Vec<String>) {
    let ephemeral = pod.ephemeral_containers.as_ref().map_or(0, Vec::len);
    if containers(pod).count() + ephemeral > MOST_CONTAINERS {
        all.push(format!("containers: more than {MOST_CONTAINERS} in all"));
    }
    let bytes = Weight::of(pod).bytes;
    if bytes > LARGEST {
        all.push(format!("size: the specification has {bytes} bytes of JSON, more than {LARGEST}"));
    }
    let annotations: usize = meta.annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    if annotations > LONGEST_ANNOTATIONS {
        all.push(format!("annotations: they have {annotations} bytes in all, more than {LONGEST_ANNOTATIONS}"));
    }
}

/// Refusals about node, scheduler, priority and runtime class of the pod.
fn placement(args: &GuestArgs, pod: &PodSpec, all: &mut Vec<String>) {
    if is_some(pod.node_name.as_ref()) {
        all.push("nodeName: the scheduler of this cluster chooses the node".to_owned());
    }
    if let Some(name) = pod.scheduler_name.as_ref().filter(|name| !["", "default-scheduler"].contains(&name.as_str())) {
        all.push(format!("schedulerName {}: only the default scheduler", quoted(name)));
    }
    if let Some(name) = unlisted(pod.priority_class_name.as_ref(), &args.guest_priority_classes) {
        let value = "offloading.guests.priorityClasses";
        all.push(format!("priorityClassName {}: not in {value} of this cluster", quoted(name)));
    }
    if pod.priority_class_name.is_none() && pod.priority.is_some_and(|priority| priority != 0) {
        all.push("priority: it follows from the priority class".to_owned());
    }
    let forced = Some(&args.guest_runtime_class);
    let class = unlisted(pod.runtime_class_name.as_ref(), &args.guest_runtime_classes);
    if let Some(name) = class.filter(|name| Some(*name) != forced) {
        let value = "offloading.guests.runtimeClasses";
        all.push(format!("runtimeClassName {}: not in {value} of this cluster", quoted(name)));
    }
    if pod.overhead.as_ref().is_some_and(|overhead| !overhead.is_empty()) {
        all.push("overhead: it follows from the runtime class".to_owned());
    }
    if pod.eviction_responders.as_ref().is_some_and(|responders| !responders.is_empty()) {
        all.push("evictionResponders: this cluster decides how pods leave its nodes".to_owned());
    }
    for one in pod.tolerations.iter().flatten().filter(|one| !tolerable(args, one)) {
        let key = one.key.as_deref().filter(|key| !key.is_empty());
        let key = key.map_or_else(|| "of every taint".to_owned(), |key| format!("of taint {}", quoted(key)));
        all.push(format!("toleration {key}: not in offloading.guests.tolerations of this cluster"));
    }
}

fn tolerable(args: &GuestArgs, one: &Toleration) -> bool {
    let (key, effect) = (one.key.as_deref().unwrap_or_default(), one.effect.as_deref().unwrap_or_default());
    TOLERATIONS.contains(&(key, effect))
        || args.guest_tolerations.iter().any(|allowed| allowed == "*" || (allowed == key && !key.is_empty()))
}

/// Who the pod is here.
fn identity(pod: &PodSpec, all: &mut Vec<String>) {
    for name in [&pod.service_account_name, &pod.service_account].into_iter().flatten() {
        if !["", "default"].contains(&name.as_str()) {
            all.push(format!("serviceAccountName {}: pods of peers have no account of this cluster", quoted(name)));
        }
    }
}

/// Whether every amount is one, and none is negative.
fn amounts(pod: &PodSpec, all: &mut Vec<String>) {
    let mut check = |what: &str, resources: Option<&ResourceRequirements>| {
        let halves = resources.into_iter().flat_map(|both| [&both.requests, &both.limits]).flatten();
        if let Some((name, amount)) = halves.flatten().find(|(_, amount)| !is_amount(amount)) {
            let (name, amount) = (quoted(name), quoted(&amount.0));
            all.push(format!("resources of {what}: {amount} is no amount of {name}"));
        }
    };
    check("the pod", pod.resources.as_ref());
    for container in containers(pod) {
        check(&format!("container {}", quoted(&container.name)), container.resources.as_ref());
    }
}

fn is_amount(quantity: &Quantity) -> bool {
    Amount::parse(&quantity.0).is_some_and(|amount| amount >= Amount::ZERO)
}

/// All containers of a pod.
pub(super) fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

fn is_some(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

/// The name, unless it is empty or in the list.
fn unlisted<'a>(name: Option<&'a String>, list: &[String]) -> Option<&'a String> {
    name.filter(|name| !name.is_empty() && !list.contains(name))
}

/// A text from a peer, quoted, so that a reader sees where the text ends.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(WORDS).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

/// Settings that every pod of a peer gets whatever its `ShadowPod` says: no ServiceAccount token of this cluster, and the
/// runtime class of guests.
pub(super) fn adapt(args: &GuestArgs, pod: &mut PodSpec) {
    pod.automount_service_account_token = Some(false);
    pod.termination_grace_period_seconds = pod.termination_grace_period_seconds.map(|own| own.min(LONGEST_GRACE));
    let forced = &args.guest_runtime_class;
    if !forced.is_empty() && !is_some(pod.runtime_class_name.as_ref()) {
        pod.runtime_class_name = Some(forced.clone());
    }
}

/// Labels and annotations, as `ResourceExt` has them.
type Pairs = BTreeMap<String, String>;

#[cfg(test)]
mod tests;
