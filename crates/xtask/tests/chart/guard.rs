//! What keeps our pods from being talked to, starved or pushed out, by the real helm. Written out by hand.

use serde_json::{Value, json};

use super::helm::{Objects, rendered};

const BASE: &[&str] = &[
    "--set=discovery.config.clusterName=rome",
    "--set=networkManager.config.podCIDR=10.244.0.0/16,networkManager.config.serviceCIDR=10.96.0.0/12",
];

fn with(more: &[&str]) -> Objects {
    rendered(&[BASE, more].concat())
}

fn of_kind<'a>(objects: &'a Objects, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let prefix = format!("{kind}/");
    objects.iter().filter_map(|(name, object)| Some((name.strip_prefix(&prefix)?, object))).collect()
}

/// Ports and their permitted clients; without a client the port is open to all.
fn rule(port: u16, from: &Value) -> Value {
    let mut rule = json!({"ports": [{"port": port, "protocol": "TCP"}]});
    if !from.is_null() {
        rule["from"] = from.clone();
    }
    rule
}

#[test]
fn connections_are_limited_to_who_needs_them() {
    let ingress = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}});
    let clients = format!("--set-json=status.clientsFrom=[{ingress}]");
    let objects = with(&["--set=status.enabled=true", &clients]);
    let own = json!({"podSelector": {}});
    let monitoring = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}});
    let kubelets = json!({
        "namespaceSelector": {"matchLabels": {"discovery.liqo.io/tenant-namespace": "true"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "virtual-kubelet"}}});
    let metrics = rule(8081, &json!([own, monitoring]));
    let everybody = Value::Null;
    let wanted = [
        ("liqo-auth", vec![metrics.clone(), rule(8443, &everybody)]),
        ("liqo-controller-manager", vec![metrics.clone(), rule(9443, &everybody)]),
        ("liqo-crd-replicator", vec![metrics.clone()]),
        ("liqo-metric-agent", vec![metrics.clone(), rule(8443, &everybody)]),
        ("liqo-network-manager", vec![metrics.clone(), rule(6000, &json!([own, kubelets]))]),
        ("liqo-proxy", vec![metrics.clone(), rule(8118, &everybody)]),
        ("liqo-status", vec![metrics, rule(8443, &json!([own, ingress]))]),
    ];
    let policies = of_kind(&objects, "NetworkPolicy");
    assert_eq!(policies.len(), wanted.len());
    for ((name, policy), (wanted_name, rules)) in policies.into_iter().zip(wanted) {
        assert_eq!((name, &policy["spec"]["ingress"]), (wanted_name, &json!(rules)));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]), "{name}");
        let selector = &objects[&format!("Deployment/{name}")]["spec"]["selector"]["matchLabels"];
        let selected = policy["spec"]["podSelector"]["matchLabels"].as_object().expect("labels");
        assert!(selected.iter().all(|(key, value)| selector[key] == *value), "{name}");
    }
}

/// A NetworkPolicy closes every port of its pods that it does not name: every port of the pods must be named.
#[test]
fn no_port_of_ours_is_forgotten() {
    let objects = with(&[
        "--set=status.enabled=true,webhook.port=9444,proxy.config.listeningPort=8119,auth.tls=false",
        "--set=auth.service.port=80",
    ]);
    for (name, policy) in of_kind(&objects, "NetworkPolicy") {
        let open: Vec<&Value> = policy["spec"]["ingress"].as_array().expect("rules").iter().collect();
        let open: Vec<&Value> = open.iter().map(|rule| &rule["ports"][0]["port"]).collect();
        let container = &objects[&format!("Deployment/{name}")]["spec"]["template"]["spec"]["containers"][0];
        for port in container["ports"].as_array().expect("ports") {
            assert!(open.contains(&&port["containerPort"]), "{name}: {port}");
        }
    }
}

#[test]
fn policies_follow_the_values() {
    assert!(of_kind(&with(&["--set=networkPolicies.enabled=false"]), "NetworkPolicy").is_empty());
    let objects = with(&["--set-json=networkPolicies.metricsFrom=[{\"ipBlock\":{\"cidr\":\"192.0.2.0/24\"}}]"]);
    let from = &objects["NetworkPolicy/liqo-crd-replicator"]["spec"]["ingress"][0]["from"];
    assert_eq!(*from, json!([{"podSelector": {}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]));
    let external = rendered(&["--set=discovery.config.clusterName=rome,networking.internal=false"]);
    let names: Vec<_> = of_kind(&external, "NetworkPolicy").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["liqo-auth", "liqo-controller-manager", "liqo-crd-replicator", "liqo-metric-agent"]);
}

#[test]
fn the_webhooks_are_closed_to_others_by_values() {
    let objects = with(&["--set-json=networkPolicies.webhooksFrom=[{\"ipBlock\":{\"cidr\":\"192.0.2.0/24\"}}]"]);
    let auth = &objects["NetworkPolicy/liqo-auth"]["spec"]["podSelector"];
    let webhooks = &objects["NetworkPolicy/liqo-controller-manager"]["spec"]["ingress"][1];
    assert_eq!(*webhooks, rule(9443, &json!([{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"podSelector": auth}])));
    let flags = |objects: &Objects| -> Vec<String> {
        let pod = &objects["Deployment/liqo-controller-manager"]["spec"]["template"]["spec"];
        serde_json::from_value(pod["containers"][0]["args"].clone()).expect("arguments")
    };
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB+w==\n-----END CERTIFICATE-----\n";
    let with_authority = with(&[&format!("--set-json=webhook.clientCA={}", json!(pem))]);
    assert!(flags(&with_authority).contains(&format!("--webhook-client-ca={pem}")));
    assert!(!flags(&objects).iter().any(|flag| flag.starts_with("--webhook-client-ca")), "off by default");
}

/// The authentication service limits callers by address, where the address is the caller's without a loss.
#[test]
fn callers_of_the_authentication_service_are_told_apart_where_peers_still_reach_it() {
    for (values, policy) in [
        ("type=LoadBalancer", json!("Local")),
        // Peers are told the address of some node, not of one with a pod of the service.
        ("type=NodePort", json!("Cluster")),
        ("type=ClusterIP", Value::Null),
        ("type=LoadBalancer,auth.service.externalTrafficPolicy=Cluster", json!("Cluster")),
        ("type=NodePort,auth.service.externalTrafficPolicy=Local", json!("Local")),
    ] {
        let more = if values == "type=ClusterIP" { ",auth.config.addressOverride=rome.example" } else { "" };
        let objects = with(&[&format!("--set=auth.service.{values}{more}")]);
        assert_eq!(objects["Service/liqo-auth"]["spec"]["externalTrafficPolicy"], policy, "{values}");
    }
}

#[test]
fn memory_is_limited_and_what_all_pods_wait_for_is_kept() {
    let (cluster, node) = ("system-cluster-critical", "system-node-critical");
    let objects = with(&["--set=status.enabled=true"]);
    for (name, memory, priority) in [
        ("DaemonSet/liqo-route", "256Mi", json!(node)),
        ("Deployment/liqo-auth", "512Mi", Value::Null),
        ("Deployment/liqo-controller-manager", "1Gi", json!(cluster)),
        ("Deployment/liqo-crd-replicator", "512Mi", Value::Null),
        ("Deployment/liqo-gateway", "256Mi", json!(cluster)),
        ("Deployment/liqo-metric-agent", "512Mi", Value::Null),
        ("Deployment/liqo-network-manager", "512Mi", Value::Null),
        ("Deployment/liqo-proxy", "512Mi", Value::Null),
        ("Deployment/liqo-status", "256Mi", Value::Null),
    ] {
        let pod = &objects[name]["spec"]["template"]["spec"];
        let resources = &pod["containers"][0]["resources"];
        assert_eq!(resources["limits"], json!({"memory": memory}), "{name}");
        // Without a request the limit would be one.
        assert!(resources["requests"]["memory"].is_string(), "{name}");
        assert_eq!(pod["priorityClassName"], priority, "{name}");
    }
    let scope = &objects["ResourceQuota/liqo-critical-pods"]["spec"]["scopeSelector"]["matchExpressions"][0];
    assert_eq!(scope["values"], json!([cluster, node]));
    let set = |part: &str, value: &str| format!("--set={part}.pod.priorityClassName={value}");
    let plain = with(&[&set("route", ""), &set("gateway", "important"), &set("controllerManager", "")]);
    assert_eq!(plain["Deployment/liqo-gateway"]["spec"]["template"]["spec"]["priorityClassName"], "important");
    assert!(of_kind(&plain, "ResourceQuota").is_empty());
}
