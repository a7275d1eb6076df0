//! The rendered rules for peers and virtual kubelets: as policies where the cluster has them, else as webhooks, from one table.

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
    let kubelets = door::kubelet_rules().map(|rule| format!("liqo-virtual-kubelet-{}", rule.name));
    rules.chain(kubelets).chain(["liqo-namespace-labels".to_owned()]).flat_map(|name| policy(&name)).collect()
}

/// `Kind/name` of the policies for components of the networks.
pub(crate) fn component_policies() -> BTreeSet<String> {
    door::component_rules().flat_map(|rule| policy(&format!("liqo-component-{}", rule.name))).collect()
}

#[test]
fn policies_are_the_table() {
    let objects = super::super::with(&[]);
    let peers = door::rules().map(|rule| (format!("liqo-peer-{}", rule.name), rule));
    let kubelets = door::kubelet_rules().map(|rule| (format!("liqo-virtual-kubelet-{}", rule.name), rule));
    let components = door::component_rules().map(|rule| (format!("liqo-component-{}", rule.name), rule));
    for (name, rule) in peers.chain(kubelets).chain(components) {
        let [policy, binding] = policy(&name);
        let mut wanted = rule.policy();
        if rule.settings {
            let settings: Value = door::SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            let first = json!({"name": "settings", "expression": settings.to_string()});
            wanted["variables"].as_array_mut().expect("variables").insert(0, first);
        }
        assert_eq!(objects[&policy]["spec"], wanted, "{policy}");
        let spec = &objects[&binding]["spec"];
        let wanted = json!({"policyName": name, "validationActions": ["Deny"]});
        assert_eq!(spec, &wanted, "{binding}");
    }
    let replaces = |name: &str| name.starts_with("peer-") || name.starts_with("virtual-kubelet-");
    assert!(!hooks(&objects).iter().any(|hook| hook["name"].as_str().is_some_and(replaces)));
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

/// Without conditions every kubelet of the cluster would wait for us: there is no webhook then.
#[test]
fn without_policies_the_webhook_is_asked_about_virtual_kubelets() {
    let known = |version: &str| -> BTreeSet<String> {
        let name = |hook: &Value| hook["name"].as_str().map(str::to_owned);
        let all = hooks(&super::super::with(&[version])).iter().filter_map(name).collect::<BTreeSet<_>>();
        all.into_iter().filter(|name| name.starts_with("virtual-kubelet-")).collect()
    };
    let [conditional, older] = OLD;
    assert_eq!(known(older), BTreeSet::new());
    let wanted = door::kubelet_rules().map(|rule| format!("virtual-kubelet-{}.validate.liqo.io", rule.name));
    assert_eq!(known(conditional), wanted.collect());
    let hooks = hooks(&super::super::with(&[conditional, "--set=webhook.failurePolicy=Ignore"]));
    for rule in door::kubelet_rules() {
        let name = format!("virtual-kubelet-{}.validate.liqo.io", rule.name);
        let hook = hooks.iter().find(|hook| hook["name"] == json!(name)).expect("a webhook");
        assert_eq!(hook["rules"], json!(rule.resource_rules()), "{name}");
        assert_eq!(hook["matchConditions"], rule.policy()["matchConditions"], "{name}");
        assert_eq!(hook["clientConfig"]["service"]["path"], json!("/validate/virtual-kubelet"));
        // Virtual nodes stay ready while the controller manager is away.
        let failure = if rule.name == "renewals" { "Ignore" } else { "Fail" };
        assert_eq!(hook["failurePolicy"], json!(failure), "{name}");
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
