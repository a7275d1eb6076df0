//! The status page: what it may do and how it is started.

use serde_json::{Value, json};

use crate::{STATUS, args, with};

/// The page reads and asks, and changes nothing.
#[test]
fn the_status_page_only_reads() {
    let objects = with(&[STATUS, "--set=status.tlsSecretName=mine,status.pod.extraArgs={--v=1}"]);
    let rules = [&objects["ClusterRole/liqo-status"]["rules"], &objects["Role/liqo-status"]["rules"]];
    for rule in rules.into_iter().flat_map(|rules| rules.as_array().expect("rules")) {
        let asks = json!(["create"]);
        let reviews = [json!(["tokenreviews"]), json!(["subjectaccessreviews"])].contains(&rule["resources"]);
        let reads = |verb: &Value| ["get", "list", "watch"].iter().any(|read| verb == read);
        let verbs = rule["verbs"].as_array().expect("verbs");
        assert!(if reviews { rule["verbs"] == asks } else { verbs.iter().all(reads) }, "{rule}");
        assert!(!rule["resources"].to_string().contains("secrets"), "{rule}");
    }
    let binding = &objects["RoleBinding/liqo-status-client-authorities"];
    assert_eq!(binding["metadata"]["namespace"], "kube-system");
    assert_eq!(binding["roleRef"]["name"], "extension-apiserver-authentication-reader");
    assert_eq!(args(&objects, "liqo-status"), ["--address=:8443", "--tls-directory=/etc/liqo/tls", "--v=1"]);
    let pod = &objects["Deployment/liqo-status"]["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"], json!([{"name": "tls", "secret": {"secretName": "mine"}}]));
    assert_eq!(args(&with(&[STATUS]), "liqo-status"), ["--address=:8443"]);
    assert_eq!(
        objects["Service/liqo-status"]["spec"]["ports"],
        json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8443}])
    );
}
