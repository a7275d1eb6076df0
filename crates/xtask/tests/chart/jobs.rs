//! Jobs: off by default; when on, everything is in two namespaces, and who may edit that of the jobs has no power over the other.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{chart::helm::names, with};

const ON: &[&str] = &["--set=jobs.enabled=true"];

#[test]
fn jobs_bring_these_objects_in_their_namespaces() {
    let (off, on) = (names(&with(&[])), names(&with(ON)));
    let added: BTreeSet<_> = on.difference(&off).map(String::as_str).collect();
    let wanted = "Namespace/liqo-jobs Namespace/liqo-jobs-system Service/liqo-results Role/liqo-jobs-own RoleBinding/liqo-jobs-own
        Role/liqo-jobs-api-own RoleBinding/liqo-jobs-api-own Deployment/liqo-jobs Deployment/liqo-store Role/liqo-jobs RoleBinding/liqo-jobs
        ServiceAccount/liqo-jobs ServiceAccount/liqo-store Service/liqo-store PersistentVolumeClaim/liqo-store
        Deployment/liqo-jobs-api Role/liqo-jobs-api RoleBinding/liqo-jobs-api ServiceAccount/liqo-jobs-api Service/liqo-jobs-api
        NetworkPolicy/liqo-jobs NetworkPolicy/liqo-jobs-api NetworkPolicy/liqo-store
        ValidatingAdmissionPolicy/liqo-jobs-submitter ValidatingAdmissionPolicyBinding/liqo-jobs-submitter
        ClusterRole/liqo-jobs-edit ClusterRole/liqo-jobs-view
        ClusterRole/liqo-jobs-api ClusterRoleBinding/liqo-jobs-api RoleBinding/liqo-jobs-api-client-authorities";
    assert_eq!(added, wanted.split_whitespace().collect());
    let objects = with(&[ON, &["--set=jobs.namespace=work,jobs.systemNamespace=desk"]].concat());
    let of_jobs = [
        "Role/liqo-jobs",
        "RoleBinding/liqo-jobs",
        "Role/liqo-jobs-api",
        "RoleBinding/liqo-jobs-api",
        "Service/liqo-results",
    ];
    let is_elsewhere = |name: &str| {
        name.starts_with("Cluster")
            || name.starts_with("Validating")
            || name.starts_with("Namespace/")
            || name.ends_with("-client-authorities")
    };
    for (name, object) in objects.iter().filter(|(name, _)| added.contains(name.as_str()) && !is_elsewhere(name)) {
        let wanted = if of_jobs.contains(&name.as_str()) { "work" } else { "desk" };
        assert_eq!(object["metadata"]["namespace"], wanted, "{name}");
        for subject in object["subjects"].as_array().into_iter().flatten() {
            assert_eq!(subject["namespace"], "desk", "{name}");
        }
    }
    assert!(objects.contains_key("Namespace/work") && objects.contains_key("Namespace/desk"));
    for namespace in ["liqo", "liqo-jobs"] {
        let said = crate::error(&[ON, &[&format!("--set=jobs.systemNamespace={namespace}")]].concat());
        assert!(said.contains("jobs.systemNamespace"), "{said}");
    }
}

/// Nothing that runs, and no Secret that a role may read, is where a submitter of jobs with the role `edit` could get at it.
#[test]
fn no_power_is_in_the_namespace_of_the_jobs() {
    let objects = with(ON);
    let is_there = |object: &Value| object["metadata"]["namespace"] == "liqo-jobs";
    let kinds = ["Deployment/", "ServiceAccount/", "PersistentVolumeClaim/", "Secret/"];
    for (name, object) in objects.iter().filter(|(name, _)| kinds.iter().any(|kind| name.starts_with(kind))) {
        assert!(!is_there(object), "{name}");
    }
    let reads = |role: &str| {
        let rules = objects[role]["rules"].as_array().cloned().unwrap_or_default();
        rules.iter().any(|rule| rule["resources"] == json!(["secrets"]) && rule["verbs"].to_string().contains("get"))
    };
    assert!(reads("Role/liqo-jobs-own") && reads("Role/liqo-jobs-api-own") && !reads("Role/liqo-jobs-api"));
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
fn jobs_are_limited_in_number_and_submitted_in_the_own_name() {
    let args = |more: &[&str]| {
        let objects = with(&[ON, more].concat());
        objects["Deployment/liqo-jobs"]["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
    };
    for flag in ["--most=2000", "--most-templates=200", "--longest-turn=86400", "--namespace=liqo-jobs"] {
        assert!(args(&[]).contains(&format!("\"{flag}\"")), "{flag}");
    }
    assert!(args(&["--set=jobs.most=1000000"]).contains("\"--most=1000000\""));
    let objects = with(&[ON, &["--set=jobs.systemNamespace=desk"]].concat());
    let policy = &objects["ValidatingAdmissionPolicy/liqo-jobs-submitter"]["spec"];
    let api = "request.userInfo.username != 'system:serviceaccount:desk:liqo-jobs-api'";
    assert_eq!(policy["matchConditions"][0]["expression"], api);
}

#[test]
fn connections_are_limited_to_who_needs_them() {
    let ports = |name: &str, more: &[&str]| {
        let objects = with(&[ON, more].concat());
        let policy = &objects[&format!("NetworkPolicy/{name}")]["spec"];
        let selector = &objects[&format!("Deployment/{name}")]["spec"]["selector"]["matchLabels"];
        let selected = policy["podSelector"]["matchLabels"].as_object().expect("labels");
        assert!(selected.iter().all(|(key, value)| selector[key] == *value), "{name}");
        let rules = policy["ingress"].as_array().expect("rules");
        rules
            .iter()
            .map(|rule| (rule["ports"][0]["port"].as_u64().unwrap_or_default(), rule["from"].clone()))
            .collect::<Vec<_>>()
    };
    let of_jobs = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "liqo-jobs"}}});
    let own = json!([{"podSelector": {}}, of_jobs]);
    assert_eq!(ports("liqo-jobs", &[]).len(), 1, "metrics only");
    assert_eq!(ports("liqo-jobs-api", &[])[1], (8443, own.clone()));
    assert_eq!(ports("liqo-store", &[])[1], (9000, Value::Null));
    let legacy = "--set=jobs.api.legacy.enabled=true,jobs.api.legacy.user=ann";
    assert_eq!(ports("liqo-jobs-api", &[legacy]).len(), 2, "on the loopback address, no policy matters");
    let open = ports("liqo-jobs-api", &[legacy, "--set=jobs.api.legacy.address=:8888"]);
    assert_eq!(open[2], (8888, own));
    assert_eq!(
        names(&with(&[ON, &["--set=networkPolicies.enabled=false"]].concat()))
            .iter()
            .filter(|name| name.starts_with("NetworkPolicy/"))
            .count(),
        0
    );
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
    let token = "--set=jobs.api.legacy.servicesTokenSecretName=liqo-token,jobs.api.legacy.images={a,b*}";
    assert!(!args(&[token]).contains("legacy"), "nothing of the facade is on without the facade");
    let all = args(&[enabled, "--set=jobs.api.legacy.user=ann", token]);
    assert!(
        all.contains("--legacy-services-token=/etc/liqo/services-token/token") && all.contains("--legacy-images=a,b*")
    );
    let open = "--set=jobs.api.legacy.servicesTokenSecretName=token";
    assert!(crate::error(&[ON, &[open]].concat()).contains("servicesTokenSecretName"), "workers could name the Secret");
}

#[test]
fn only_the_facade_writes_config_maps_and_secrets() {
    let resources = |more: &[&str]| with(&[ON, more].concat())["Role/liqo-jobs-api"]["rules"].to_string();
    let legacy = "--set=jobs.api.legacy.enabled=true,jobs.api.legacy.user=ann";
    for kind in ["configmaps", "secrets"] {
        assert!(resources(&[legacy]).contains(kind) && !resources(&[]).contains(kind), "{kind}");
    }
}
