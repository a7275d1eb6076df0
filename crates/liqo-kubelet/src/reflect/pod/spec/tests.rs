use serde_json::{Value, json};

use super::*;

const HOME: &str = "09897b82-7830-483b-b786-9cf90899f809";

fn tokens() -> ApiSupport {
    ApiSupport::Tokens(ApiServer {
        host: "kubernetes.default".into(),
        port: "443".into(),
        alias: Some("10.98.0.2".into()),
    })
}

fn spec(value: Value) -> PodSpec {
    serde_json::from_value(value).unwrap()
}

fn forged(here: &PodSpec, support: &ApiSupport) -> Value {
    serde_json::to_value(forge("web-69bb7bfc6c-267gx", here, HOME, support)).unwrap()
}

/// The pod of which the recorded twin was made, with everything Kubernetes adds to a pod.
fn here() -> PodSpec {
    spec(json!({
        "containers": [{
            "name": "busybox", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent", "resources": {},
            "command": ["sh", "-c", "mkdir -p /www; echo hello from $(hostname) > /www/index.html; httpd -f -p 80 -h /www"],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": "kube-api-access-hm45r", "readOnly": true}],
        }],
        "ephemeralContainers": [{"name": "debugger"}],
        "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "nodeName": "liqo-provider", "nodeSelector": {"a": "b"},
        "preemptionPolicy": "PreemptLowerPriority", "priority": 0, "schedulerName": "default-scheduler",
        "serviceAccount": "default", "serviceAccountName": "default", "hostNetwork": true,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "runtimeClassName": "x", "overhead": {"cpu": "1"}, "hostUsers": true,
        "tolerations": [
            {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
            {"effect": "NoExecute", "key": "virtual-node.liqo.io/not-allowed", "operator": "Exists"},
            {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300},
        ],
        "volumes": [{"name": "kube-api-access-hm45r", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
            {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
        ]}}],
    }))
}

#[test]
fn the_spec_is_the_recorded_one() {
    let mut recorded: Value = serde_json::from_str(include_str!("../../../../tests/recorded/shadow_pod.json")).unwrap();
    let env = recorded.pointer_mut("/spec/pod/containers/0/env").unwrap().as_array_mut().unwrap();
    env.push(json!({"name": "KUBERNETES_SERVICE_PORT_HTTPS", "value": "443"}));
    assert_eq!(forged(&here(), &tokens()), recorded["spec"]["pod"]);
}

#[test]
fn without_support_there_are_neither_tokens_nor_addresses() {
    let twin = forged(&here(), &ApiSupport::Disabled);
    assert_eq!((&twin["hostAliases"], &twin["containers"][0]["env"]), (&Value::Null, &Value::Null));
    let sources = &twin["volumes"][0]["projected"]["sources"];
    assert_eq!(sources.as_array().unwrap().len(), 2);
    assert_eq!(sources[0]["configMap"]["name"], "kube-root-ca.crt.09897", "that is renamed in any case");
}

#[test]
fn a_custom_address_needs_no_alias() {
    let server = ApiServer { host: "api.example.org".into(), port: "6443".into(), alias: None };
    let mut here = here();
    here.host_aliases = Some(vec![HostAlias { ip: "1.2.3.4".into(), hostnames: None }]);
    let twin = forged(&here, &ApiSupport::Tokens(server));
    assert_eq!(twin["hostAliases"], json!([{"ip": "1.2.3.4"}]));
    let names: Vec<_> =
        twin["containers"][0]["env"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
            "KUBERNETES_PORT",
            "KUBERNETES_PORT_6443_TCP",
            "KUBERNETES_PORT_6443_TCP_PROTO",
            "KUBERNETES_PORT_6443_TCP_ADDR",
            "KUBERNETES_PORT_6443_TCP_PORT",
            "KUBERNETES_SERVICE_PORT_HTTPS",
        ]
    );
    assert_eq!(twin["containers"][0]["env"][3]["value"], "tcp://api.example.org:6443");
}

#[test]
fn the_name_of_the_service_account_becomes_a_value() {
    let mut here = here();
    here.service_account_name = Some("robot".into());
    here.init_containers = Some(vec![
        serde_json::from_value(json!({"name": "init", "env": [
            {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]}))
        .unwrap(),
    ]);
    let twin = forged(&here, &tokens());
    let env = twin["initContainers"][0]["env"].as_array().unwrap();
    assert_eq!(env.len(), 10);
    assert_eq!(env[8], json!({"name": "WHO", "value": "robot"}));
    assert!(env[9]["valueFrom"].is_object());
}

#[test]
fn variables_that_name_the_api_server_are_those_of_home_and_come_first() {
    let mut here = here();
    here.containers[0].env = serde_json::from_value(json!([
        {"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT_HTTPS)"},
        {"name": "KUBERNETES_SERVICE_HOST", "value": "10.96.0.1"},
    ]))
    .unwrap();
    let twin = forged(&here, &tokens());
    let env = twin["containers"][0]["env"].as_array().unwrap();
    let places = |name: &str| -> Vec<usize> { (0..env.len()).filter(|&place| env[place]["name"] == name).collect() };
    let [url] = places("URL")[..] else { panic!("{env:?}") };
    for (name, value) in [("KUBERNETES_SERVICE_HOST", "kubernetes.default"), ("KUBERNETES_SERVICE_PORT_HTTPS", "443")] {
        let [place] = places(name)[..] else { panic!("{name}: {env:?}") };
        assert!(place < url, "{name}");
        assert_eq!(env[place]["value"], value);
    }
}

/// Every way in which a pod can refer to the root certificates of its cluster.
#[test]
fn root_certificates_are_those_of_home_however_they_are_asked_for() {
    let name = "kube-root-ca.crt";
    let here = spec(json!({
        "volumes": [
            {"name": "v", "configMap": {"name": name}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": name}}]}},
        ],
        "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": name}}]}],
        "containers": [{"name": "c", "env": [
            {"name": "CA", "valueFrom": {"configMapKeyRef": {"name": name, "key": "ca.crt"}}},
            {"name": "OTHER", "valueFrom": {"configMapKeyRef": {"name": "other", "key": "k"}}},
        ]}],
    }));
    // Variables about the API server come first.
    for (support, first) in [(ApiSupport::Disabled, 0), (tokens(), 8)] {
        let twin = forged(&here, &support);
        for path in [
            "/volumes/0/configMap/name",
            "/volumes/1/projected/sources/0/configMap/name",
            "/initContainers/0/envFrom/0/configMapRef/name",
            &format!("/containers/0/env/{first}/valueFrom/configMapKeyRef/name"),
        ] {
            assert_eq!(twin.pointer(path), Some(&json!("kube-root-ca.crt.09897")), "{path}");
        }
        let other = format!("/containers/0/env/{}/valueFrom/configMapKeyRef/name", first + 1);
        assert_eq!(twin.pointer(&other), Some(&json!("other")));
    }
}

#[test]
fn only_what_may_change_is_carried_over() {
    let mut changed = here();
    let there = forge("web-69bb7bfc6c-267gx", &changed, HOME, &tokens());
    assert_eq!(refresh(&there, &changed), there, "nothing changed, nothing differs");
    changed.containers[0].image = Some("localhost/busybox:2".into());
    changed.containers[0].command = None;
    changed.active_deadline_seconds = Some(60);
    changed.hostname = Some("x".into());
    let extra = Toleration { key: Some("gpu".into()), ..Toleration::default() };
    changed.tolerations.as_mut().unwrap().push(extra.clone());
    let refreshed = refresh(&there, &changed);
    let mut expected = there;
    expected.containers[0].image = Some("localhost/busybox:2".into());
    expected.active_deadline_seconds = Some(60);
    expected.tolerations.as_mut().unwrap().push(extra);
    assert_eq!(refreshed, expected);
}
