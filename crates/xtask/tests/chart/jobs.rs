//! Jobs: off by default; when on, everything is in the namespace of the jobs and nothing reaches beyond.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{chart::helm::names, with};

const ON: &[&str] = &["--set=jobs.enabled=true"];

#[test]
fn jobs_bring_these_objects_in_their_namespace() {
    let (off, on) = (names(&with(&[])), names(&with(ON)));
    let added: BTreeSet<_> = on.difference(&off).map(String::as_str).collect();
    let wanted = "Namespace/liqo-jobs Deployment/liqo-jobs Deployment/liqo-store Role/liqo-jobs RoleBinding/liqo-jobs
        ServiceAccount/liqo-jobs ServiceAccount/liqo-store Service/liqo-store PersistentVolumeClaim/liqo-store
        Deployment/liqo-jobs-api Role/liqo-jobs-api RoleBinding/liqo-jobs-api ServiceAccount/liqo-jobs-api Service/liqo-jobs-api
        ClusterRole/liqo-jobs-edit ClusterRole/liqo-jobs-view
        ClusterRole/liqo-jobs-api ClusterRoleBinding/liqo-jobs-api RoleBinding/liqo-jobs-api-client-authorities";
    assert_eq!(added, wanted.split_whitespace().collect());
    let objects = with(&[ON, &["--set=jobs.namespace=work"]].concat());
    let is_elsewhere = |name: &str| {
        name.starts_with("Cluster") || name.starts_with("Namespace/") || name.ends_with("-client-authorities")
    };
    for (name, object) in objects.iter().filter(|(name, _)| added.contains(name.as_str()) && !is_elsewhere(name)) {
        assert_eq!(object["metadata"]["namespace"], "work", "{name}");
    }
    assert!(objects.contains_key("Namespace/work"));
}

#[test]
fn nobody_of_jobs_may_execute_anything_in_a_pod() {
    let objects = with(ON);
    for role in ["Role/liqo-jobs", "Role/liqo-jobs-api", "ClusterRole/liqo-jobs-api"] {
        let rules = objects[role]["rules"].as_array().expect("rules");
        let of = |rule: &Value| -> Vec<String> { serde_json::from_value(rule["resources"].clone()).expect("words") };
        let resources: Vec<_> = rules.iter().flat_map(of).collect();
        let forbidden = ["*", "pods/*", "pods/exec", "pods/attach", "pods/portforward"];
        assert!(resources.iter().all(|one| !forbidden.contains(&one.as_str())), "{role}: {resources:?}");
    }
}

#[test]
fn the_store_has_no_token_and_runs_here() {
    let objects = with(ON);
    let pod = |name: &str| objects[&format!("Deployment/{name}")]["spec"]["template"]["spec"].clone();
    assert_eq!(pod("liqo-store")["automountServiceAccountToken"], false);
    for name in ["liqo-store", "liqo-jobs"] {
        let terms = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let here =
            json!([{"matchExpressions": [{"key": "liqo.io/type", "operator": "NotIn", "values": ["virtual-node"]}]}]);
        assert_eq!(pod(name)["affinity"].pointer(terms), Some(&here), "{name}");
        let more = ["--set=common.affinity.podAffinity.x=y"];
        let also = with(&[ON, &more].concat());
        let affinity = &also[&format!("Deployment/{name}")]["spec"]["template"]["spec"]["affinity"];
        assert_eq!((affinity.pointer(terms), &affinity["podAffinity"]["x"]), (Some(&here), &json!("y")));
    }
}

#[test]
fn results_are_on_a_claim_unless_somebody_says_otherwise() {
    let volume = |more: &[&str]| {
        let objects = with(&[ON, more].concat());
        let volumes = &objects["Deployment/liqo-store"]["spec"]["template"]["spec"]["volumes"];
        (volumes[0].clone(), objects.contains_key("PersistentVolumeClaim/liqo-store"))
    };
    assert_eq!(volume(&[]), (json!({"name": "data", "persistentVolumeClaim": {"claimName": "liqo-store"}}), true));
    let pod = (json!({"name": "data", "emptyDir": {"sizeLimit": "20Gi"}}), false);
    assert_eq!(volume(&["--set=jobs.store.persistence.enabled=false"]), pod);
}

#[test]
fn the_facade_of_older_programs_is_off_and_needs_a_user() {
    let args = |more: &[&str]| {
        let objects = with(&[ON, more].concat());
        let container = &objects["Deployment/liqo-jobs-api"]["spec"]["template"]["spec"]["containers"][0];
        container["args"].to_string()
    };
    assert!(!args(&[]).contains("legacy"));
    let enabled = "--set=jobs.api.legacy.enabled=true";
    assert!(args(&[enabled, "--set=jobs.api.legacy.user=ann"]).contains("--legacy-address=127.0.0.1:8888"));
    assert!(crate::error(&[ON, &[enabled]].concat()).contains("jobs.api.legacy.user"));
}
