//! Labels and annotations in the pod template of a peer. The labels and annotations are copied onto the pod in this cluster,
//! whose controllers act on some of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use liqo_api::meta::label;

use super::{GuestArgs, Pairs, quoted};

/// Domains, subdomains included, whose labels and annotations give a pod networks, devices, identities, side-cars or runtimes of this
/// cluster.
const DOMAINS: [&str; 23] = [
    "amazonaws.com",
    "azure.workload.identity",
    "cdi.k8s.io",
    "cilium.io",
    "cncf.io",
    "crio.io",
    "dapr.io",
    "gke.io",
    "hashicorp.com",
    "istio.io",
    "kuma.io",
    "linkerd.io",
    "multus-cni.io",
    "nri.io",
    "openservicemesh.io",
    "ovn.kubernetes.io",
    "k8s.ovn.org",
    "projectcalico.org",
    "scheduler.alpha.kubernetes.io",
    "security.alpha.kubernetes.io",
    "spiffe.io",
    "antrea.io",
    "kubevirt.io",
];
/// Beginnings of other such keys.
const BEGINNINGS: [&str; 6] = [
    "dev.gvisor.",
    "io.cilium",
    "io.containerd.",
    "io.katacontainers.",
    "io.kubernetes.cri-o.",
    // With such an annotation the kubelet takes the pod for a static pod.
    "kubernetes.io/config.",
];
/// Beginnings of keys that switch confinement; only the runtime's own profile passes.
const PROFILES: [&str; 2] =
    ["container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/"];

/// Values of labels by which a pod refuses a side-car.
const REFUSALS: [&str; 2] = ["false", "disabled"];
/// Beginning of labels by which a mesh only names a pod.
const NAMES: &str = "service.istio.io/";

/// The peer named in the origin label of a `ShadowPod`; empty without the label.
pub(crate) fn origin(meta: &ObjectMeta) -> &str {
    let labels = meta.labels.as_ref();
    labels.and_then(|labels| labels.get(label::REFLECTION_ORIGIN)).map(String::as_str).unwrap_or_default()
}

pub(super) fn check(args: &GuestArgs, meta: &ObjectMeta, all: &mut Vec<String>) {
    let none = Pairs::new();
    for (key, value) in meta.labels.as_ref().unwrap_or(&none) {
        if is_ours(key) && !is_reflected(key, value) {
            all.push(format!("label {}: only this cluster sets labels of liqo.io", quoted(key)));
        }
    }
    let labels = meta.labels.iter().flatten().filter(|(key, value)| injects(key, value));
    let annotations = meta.annotations.iter().flatten().filter(|(key, value)| acted_on(key, value));
    for (what, key) in labels.map(|(key, _)| ("label", key)).chain(annotations.map(|(key, _)| ("annotation", key))) {
        if !allowed(&args.guest_annotations, key) {
            all.push(format!("{what} {}: not in offloading.guests.annotations of this cluster", quoted(key)));
        }
    }
}

fn is_ours(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| within(domain, "liqo.io"))
}

/// Whether a virtual kubelet sets such a label on what it sends. A pod that was itself made from a `ShadowPod` may be
/// sent on, with the mark its copy gets in any case.
fn is_reflected(key: &str, value: &str) -> bool {
    matches!(key, label::REFLECTION_ORIGIN | label::REFLECTION_DESTINATION)
        || (key, value) == (label::MANAGED_BY, label::MANAGED_BY_SHADOW_POD)
}

/// Whether a controller of this cluster gives the pod resources or identities because of the label: not because of one that refuses
/// them, or only names the pod in metrics.
fn injects(key: &str, value: &str) -> bool {
    acted_on(key, value) && !REFUSALS.contains(&value) && !key.starts_with(NAMES)
}

/// Whether a controller of this cluster gives the pod resources or identities because of the label or annotation.
fn acted_on(key: &str, value: &str) -> bool {
    if PROFILES.iter().any(|beginning| key.starts_with(beginning)) {
        return value != "runtime/default";
    }
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    DOMAINS.iter().any(|one| within(domain, one)) || BEGINNINGS.iter().any(|one| key.starts_with(one))
}

fn within(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn allowed(patterns: &[String], key: &str) -> bool {
    patterns.iter().any(|one| one.strip_suffix('*').map_or(one == key, |beginning| key.starts_with(beginning)))
}
