//! The rights of components: roles, bindings, and what admission adds to them.

use serde_json::{Value, json};

use crate::{MARKET, STATUS, with};

/// The authentication service answers anybody: it may read one object that is no secret, and write nothing.
#[test]
fn the_authentication_service_may_nothing() {
    let objects = with(&[]);
    let allowed = json!([{
        "apiGroups": ["admissionregistration.k8s.io"], "resources": ["validatingwebhookconfigurations"],
        "resourceNames": ["liqo-webhook"], "verbs": ["get", "list", "watch"],
    }]);
    assert_eq!(objects["ClusterRole/liqo-auth"]["rules"], allowed);
    let is_bound = |binding: &Value| binding["subjects"].to_string().contains("\"liqo-auth\"");
    let bindings: Vec<_> =
        objects.iter().filter(|(_, object)| is_bound(object)).map(|(name, _)| name.as_str()).collect();
    assert_eq!(bindings, ["ClusterRoleBinding/liqo-auth"]);
    let pod = &objects["Deployment/liqo-auth"]["spec"]["template"]["spec"];
    let token = json!({"audience": "liqo-identity", "expirationSeconds": 3600, "path": "token"});
    assert_eq!(
        pod["volumes"],
        json!([{"name": "liqo-identity", "projected": {"sources": [{"serviceAccountToken": token}]}}])
    );
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/liqo-identity");
}

/// Nodes and leases of others, and the pods of namespaces that are not offloaded, are out of reach of a virtual kubelet by its
/// roles. What a role cannot say, admission does, see `peers.rs`.
#[test]
fn virtual_kubelets_are_held_to_their_nodes() {
    let cluster =
        xtask::rbac::all().into_iter().find(|(name, _)| *name == "virtual-kubelet-cluster").expect("a role").1;
    let changes = |rule: &&xtask::rbac::Rule| {
        let of = |one: &&str| ["nodes", "nodes/status", "leases"].contains(one) || one.starts_with("pods");
        rule.resources.iter().any(of) && rule.verbs.iter().any(|verb| ["update", "patch", "delete"].contains(verb))
    };
    assert_eq!(cluster.iter().filter(changes).count(), 0);
    assert!(cluster.iter().all(|rule| !rule.resources.contains(&"pods/eviction")));
}

/// Every role of the chart has exactly the rules of the table, and binds the right accounts.
#[test]
fn access_is_what_the_table_says() {
    let objects = with(&[STATUS, "--set=jobs.enabled=true", MARKET]);
    let in_json = |rules: &[xtask::rbac::Rule]| rules.iter().map(xtask::rbac::Rule::to_json).collect::<Vec<_>>();
    for (file, rules) in xtask::rbac::all() {
        let role = match file.split_once('.') {
            Some((name, "namespaced")) => format!("Role/liqo-{name}"),
            // Rules of a setting, after the others.
            Some((name, "segregation")) => {
                let segregated = with(&["--set", "networking.securityMode=IntraClusterTrafficSegregation"]);
                let role = format!("ClusterRole/liqo-{name}");
                let all = [objects[&role]["rules"].as_array().expect("rules").clone(), in_json(rules)].concat();
                assert_eq!(segregated[&role]["rules"], json!(all), "{role}");
                continue;
            }
            Some((name, "legacy")) => {
                let on = "--set=jobs.enabled=true,jobs.api.legacy.enabled=true,jobs.api.legacy.user=ann";
                let role = format!("Role/liqo-{name}");
                let all = [objects[&role]["rules"].as_array().expect("rules").clone(), in_json(rules)].concat();
                assert_eq!(with(&[on])[&role]["rules"], json!(all), "{role}");
                continue;
            }
            Some((name, "tenant")) => format!("ClusterRole/liqo-{name}-tenant"),
            Some((name, "reviews")) => format!("ClusterRole/liqo-{name}"),
            // In the namespace of the role, beside those in the namespace of the jobs.
            Some((name, "own")) => format!("Role/liqo-{name}-own"),
            Some(_) => panic!("no template renders {file}"),
            // Jobs and their API may do nothing outside of the namespace of jobs.
            None if file.starts_with("jobs") => format!("Role/liqo-{file}"),
            None => format!("ClusterRole/liqo-{file}"),
        };
        assert_eq!(objects[&role]["rules"], json!(in_json(rules)), "{role}");
    }
    let subjects = |binding: &str| -> Vec<Value> {
        objects[binding]["subjects"].as_array().expect("subjects").iter().map(|s| s["name"].clone()).collect()
    };
    for permissions in ["basic", "incoming", "leaving", "outgoing"] {
        let binding = format!("ClusterRoleBinding/liqo-remote-peering-{permissions}");
        assert_eq!(subjects(&binding), ["liqo-controller-manager", "liqo-crd-replicator"]);
    }
    // Bound in tenant namespaces, by the controller manager.
    let reads_secrets = |role: &str| {
        let rules = objects[role]["rules"].as_array().expect("rules").clone();
        rules.iter().any(|rule| rule["resources"].as_array().expect("resources").contains(&json!("secrets")))
    };
    assert!(
        reads_secrets("ClusterRole/liqo-crd-replicator-tenant") && !reads_secrets("ClusterRole/liqo-crd-replicator")
    );
    let bound = objects.values().filter(|one| one["roleRef"]["name"] == "liqo-crd-replicator-tenant");
    assert_eq!(bound.count(), 0, "the chart binds it in no namespace");
    for side in ["cluster", "local", "namespace", "remote", "tenant"] {
        let binding = format!("ClusterRoleBinding/liqo-controller-manager-grant-virtual-kubelet-{side}");
        assert_eq!(subjects(&binding), ["liqo-controller-manager"]);
        assert_eq!(objects[&binding]["roleRef"]["name"], format!("liqo-virtual-kubelet-{side}"));
    }
}
