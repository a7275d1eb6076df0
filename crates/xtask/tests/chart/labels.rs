//! Names and labels that users and other clusters rely on, and the webhooks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::helm::template;
use crate::{NAMED, RANGES, STATUS, with};

#[test]
fn rendering_twice_gives_the_same() {
    let args = [NAMED, RANGES].concat();
    assert_eq!(template(&args).expect("renders"), template(&args).expect("renders"));
}

#[test]
fn labels_are_those_of_liqo() {
    let objects = with(&[STATUS]);
    let component = |object: &str| match object.split_once('/').map(|(_, name)| name) {
        Some("liqo-clusterid-configmap") => ("clusterid-configmap", "clusterid-configmap"),
        Some("liqo-crd-replicator" | "liqo-crd-replicator-tenant") => ("crd-replicator", "dispatcher"),
        Some(
            "liqo-auth"
            | "liqo-remote-peering-basic"
            | "liqo-remote-peering-incoming"
            | "liqo-remote-peering-leaving"
            | "liqo-remote-peering-outgoing",
        ) => ("auth", "discovery"),
        Some(name) if name.starts_with("liqo-virtual-kubelet") => ("virtual-kubelet", "virtual-kubelet"),
        Some("liqo-gateway") => ("gateway", "networking"),
        Some("liqo-route") => ("route", "networking"),
        Some(name) if name.starts_with("liqo-component-") => ("network-manager", "networking"),
        Some("liqo-network-manager") => ("network-manager", "networking"),
        Some("liqo-proxy") => ("proxy", "networking"),
        Some("liqo-metric-agent" | "liqo-metric-agent-authentication" | "v1alpha1.metrics.liqo.io") => {
            ("metric-agent", "metrics")
        }
        Some("liqo-status" | "liqo-status-client-authorities") => ("status", "status"),
        _ => ("controller-manager", "controller-manager"),
    };
    for (object, value) in &objects {
        let (name, component) = component(object);
        let mut labels = json!({
            "app.kubernetes.io/component": component, "app.kubernetes.io/instance": format!("liqo-{name}"),
            "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": name,
            "app.kubernetes.io/part-of": "liqo", "app.kubernetes.io/version": "v0.1.0", "helm.sh/chart": "liqo-0.1.0",
        });
        if let Some(permissions) = object.strip_prefix("ClusterRole/liqo-remote-peering-") {
            labels["auth.liqo.io/remote-peering-permissions"] = json!(permissions);
        }
        if ["Deployment/liqo-auth", "Service/liqo-auth"].contains(&object.as_str()) {
            labels["run"] = json!("auth-service");
        }
        if ["Deployment/liqo-metric-agent", "Service/liqo-metric-agent"].contains(&object.as_str()) {
            labels["run"] = json!("metric-agent");
        }
        if object == "Service/liqo-gateway" {
            labels["net.liqo.io/gateway"] = json!("true");
        }
        assert_eq!(value["metadata"]["labels"], labels, "{object}");
        let clusterwide =
            ["APIService", "ClusterRole", "MutatingWebhook", "ValidatingWebhook", "ValidatingAdmissionPolicy"];
        let namespaced = !clusterwide.iter().any(|kind| object.starts_with(kind));
        assert_eq!(value["metadata"].get("namespace").is_some(), namespaced, "{object}");
    }
}

#[test]
fn webhooks_are_those_of_liqo() {
    let objects = with(&["--set=webhook.failurePolicy=Ignore"]);
    let mut seen = BTreeMap::new();
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        for hook in objects[&format!("{kind}/liqo-webhook")]["webhooks"].as_array().expect("webhooks") {
            let client = &hook["clientConfig"];
            assert_eq!(client["service"]["name"], "liqo-controller-manager");
            assert_eq!((&client["service"]["namespace"], &client["service"]["port"]), (&json!("liqo"), &json!(9443)));
            assert_eq!(client.get("caBundle"), None, "the controller manager owns it");
            assert_eq!((&hook["failurePolicy"], &hook["matchPolicy"]), (&json!("Ignore"), &json!("Equivalent")));
            assert_eq!(
                (&hook["sideEffects"], &hook["admissionReviewVersions"]),
                (&json!("None"), &json!(["v1", "v1beta1"]))
            );
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let rule = &hook["rules"][0];
            let what = [&client["service"]["path"], &rule["apiGroups"][0], &rule["resources"][0]].map(text).join(" ");
            let operations: Vec<String> = rule["operations"].as_array().into_iter().flatten().map(text).collect();
            let line = format!("{what} {} {}", operations.join(","), hook["namespaceSelector"]["matchLabels"]);
            seen.insert(text(&hook["name"]), line.replace(" null", ""));
        }
    }
    let wanted = [
        ("fc.mutate.liqo.io", "/mutate/foreign-cluster discovery.liqo.io foreignclusters CREATE,UPDATE"),
        ("fc.validate.liqo.io", "/validate/foreign-cluster discovery.liqo.io foreignclusters CREATE,UPDATE,DELETE"),
        (
            "nsoff.validate.liqo.io",
            "/validate/namespace-offloading offloading.liqo.io namespaceoffloadings CREATE,UPDATE",
        ),
        ("peer-services.mutate.liqo.io", "/mutate/peer-service  services CREATE,UPDATE"),
        ("pod.mutate.liqo.io", r#"/mutate/pod  pods CREATE {"liqo.io/scheduling-enabled":"true"}"#),
        ("shadowpod.validate.liqo.io", "/validate/shadowpods virtualkubelet.liqo.io shadowpods CREATE,UPDATE"),
    ];
    assert_eq!(seen, wanted.map(|(name, line)| (name.to_owned(), line.to_owned())).into());
}
