//! The rendered rules for peers: as policies where the cluster has them, else as webhooks, from one table.

use std::collections::BTreeSet;

use liqo_core::door;
use serde_json::{Value, json};

use super::helm::{Objects, names};

/// The last Kubernetes without policies, and one without conditions of webhooks.
const OLD: [&str; 2] = ["--kube-version=1.29.4", "--kube-version=1.27.3"];

fn policy(name: &str) -> [String; 2] {
    ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"].map(|kind| format!("{kind}/{name}"))
}

/// `Kind/name` of all policies and their bindings.
pub(crate) fn policies() -> BTreeSet<String> {
    let rules = door::rules().map(|rule| format!("liqo-peer-{}", rule.name));
    let others = ["liqo-namespace-labels", "liqo-virtual-kubelet"].map(str::to_owned);
    rules.chain(others).flat_map(|name| policy(&name)).collect()
}

#[test]
fn policies_are_the_table() {
    let objects = super::super::with(&[]);
    for rule in door::rules() {
        let [policy, binding] = policy(&format!("liqo-peer-{}", rule.name));
        let mut wanted = rule.policy();
        if rule.settings {
            let settings: Value = door::SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            let first = json!({"name": "settings", "expression": settings.to_string()});
            wanted["variables"].as_array_mut().expect("variables").insert(0, first);
        }
        assert_eq!(objects[&policy]["spec"], wanted, "{policy}");
        let spec = &objects[&binding]["spec"];
        let wanted = json!({"policyName": format!("liqo-peer-{}", rule.name), "validationActions": ["Deny"]});
        assert_eq!(spec, &wanted, "{binding}");
    }
    assert!(!hooks(&objects).iter().any(|hook| hook["name"].as_str().is_some_and(|name| name.starts_with("peer-"))));
}

#[test]
fn the_settings_of_the_chart_are_those_of_the_table() {
    let objects = super::super::with(&[]);
    let wanted: Value = door::SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    assert_eq!(objects[&format!("ConfigMap/{}", door::POLICY)]["data"], wanted);
    let objects = super::super::with(&[
        "--set=peerPolicy.allowedServiceTypes={ClusterIP,LoadBalancer},offloading.namespacesPerPeer=8",
        "--set=peerPolicy.ingressHostSuffixes={a.example,b.example},peerPolicy.deniedMetadata=null",
    ]);
    let data = &objects[&format!("ConfigMap/{}", door::POLICY)]["data"];
    assert_eq!(
        ["allowedServiceTypes", "namespacesPerPeer", "ingressHostSuffixes", "deniedMetadata"].map(|key| &data[key]),
        ["ClusterIP LoadBalancer", "8", "a.example b.example", ""]
    );
}

#[test]
fn without_policies_the_webhook_is_asked_about_the_same_requests() {
    for (version, conditions) in OLD.into_iter().zip([true, false]) {
        let objects = super::super::with(&[version, "--set=webhook.failurePolicy=Ignore"]);
        assert!(names(&objects).is_disjoint(&policies()), "{version}");
        let wanted = [
            (door::Place::Tenant, "tenant", json!({"matchLabels": {"discovery.liqo.io/tenant-namespace": "true"}})),
            (
                door::Place::Offloaded,
                "offloaded",
                json!({"matchExpressions": [{"key": "liqo.io/remote-cluster-id", "operator": "Exists"}]}),
            ),
        ];
        for (place, name, selector) in wanted {
            let hooks = hooks(&objects);
            let name = format!("peer-{name}.validate.liqo.io");
            let hook = hooks.iter().find(|hook| hook["name"] == json!(name)).expect("a webhook");
            let rules: Vec<Value> =
                door::rules().filter(|rule| rule.place == place).flat_map(door::Rule::resource_rules).collect();
            assert_eq!(hook["rules"], json!(rules), "{name}");
            assert_eq!(hook["namespaceSelector"], selector, "{name}");
            assert_eq!(hook["clientConfig"]["service"]["path"], json!("/validate/peer"));
            assert_eq!(hook["failurePolicy"], json!("Fail"), "whatever the value says of the others");
            let condition = json!([{"name": "is-a-peer", "expression": door::CONDITION}]);
            assert_eq!(hook.get("matchConditions"), conditions.then_some(&condition), "{version}");
        }
    }
}

#[test]
fn labels_of_tenant_namespaces_are_protected_unless_switched_off() {
    let [policy, binding] = policy("liqo-namespace-labels");
    let objects = super::super::with(&[]);
    let ours = objects[&policy]["spec"]["matchConditions"][0]["expression"].as_str().expect("a condition");
    assert_eq!(ours, "request.userInfo.username != 'system:serviceaccount:liqo:liqo-controller-manager'");
    let without = names(&super::super::with(&["--set=peerPolicy.protectNamespaceLabels=false"]));
    assert!(!without.contains(&policy) && !without.contains(&binding));
}

#[test]
fn a_cluster_starts_without_us() {
    let objects = super::super::with(&[]);
    let hooks = &objects["MutatingWebhookConfiguration/liqo-webhook"]["webhooks"];
    let hook = hooks.as_array().into_iter().flatten().find(|hook| hook["name"] == "pod.mutate.liqo.io");
    let excluded =
        json!([{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "liqo"]}]);
    assert_eq!(hook.expect("a webhook")["namespaceSelector"]["matchExpressions"], excluded);
}

fn hooks(objects: &Objects) -> Vec<Value> {
    let hooks = &objects["ValidatingWebhookConfiguration/liqo-webhook"]["webhooks"];
    hooks.as_array().expect("webhooks").clone()
}
