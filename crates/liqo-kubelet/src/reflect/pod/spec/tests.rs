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
    let names = recorded.pointer_mut("/spec/pod/hostAliases/0/hostnames").unwrap().as_array_mut().unwrap();
    names.push(json!("kubernetes.default.svc.cluster.local"));
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
    let mut here = here();
    here.host_aliases = Some(vec![HostAlias { ip: "1.2.3.4".into(), hostnames: None }]);
    assert_eq!(forged(&here, &at_an_address())["hostAliases"], json!([{"ip": "1.2.3.4"}]));
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

/// Variables by which a client finds its API server, with the values that a provider's kubelet would give them.
const VARIABLES: [(&str, &str); 8] = [
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("KUBERNETES_SERVICE_PORT", "443"),
    ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
    ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
    ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
    ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
    ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
    ("KUBERNETES_PORT_443_TCP_PORT", "443"),
];

fn at_an_address() -> ApiSupport {
    ApiSupport::Tokens(ApiServer { host: "api.example.org".into(), port: "6443".into(), alias: None })
}

/// Each variable is set once, to the API server of home, whether or not the pod sets it too, and before the variables that refer to it.
#[test]
fn variables_that_name_the_api_server_are_those_of_home_and_come_first() {
    for (support, host, port) in [(tokens(), "kubernetes.default", "443"), (at_an_address(), "api.example.org", "6443")]
    {
        for (name, there) in VARIABLES {
            let mut here = here();
            let own = json!([{"name": "URL", "value": format!("$({name})")}, {"name": name, "value": there}]);
            here.containers[0].env = serde_json::from_value(own.clone()).unwrap();
            here.init_containers = Some(vec![
                serde_json::from_value(json!({"name": "i", "restartPolicy": "Always", "env": own})).unwrap(),
            ]);
            let twin = forged(&here, &support);
            for path in ["/containers/0/env", "/initContainers/0/env"] {
                let env = twin.pointer(path).and_then(Value::as_array).unwrap();
                let places =
                    |name: &str| -> Vec<usize> { (0..env.len()).filter(|&place| env[place]["name"] == name).collect() };
                let ([place], [url]) = (&places(name)[..], &places("URL")[..]) else { panic!("{name}: {env:?}") };
                assert!(place < url, "{name}");
                let wanted = there.replace("10.96.0.1", host).replace("443", port);
                assert_eq!(env[*place]["value"], wanted, "{name}");
            }
        }
    }
}

/// Names by which a client finds its API server, as the certificate of each API server has them.
#[test]
fn names_of_the_api_server_lead_home() {
    let twin = forged(&here(), &tokens());
    for name in ["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"] {
        let aliases = twin["hostAliases"].as_array().unwrap().iter();
        let found: Vec<_> =
            aliases.filter(|alias| alias["hostnames"].as_array().unwrap().iter().any(|one| one == name)).collect();
        let [alias] = found[..] else { panic!("{name}: {found:?}") };
        assert_eq!(alias["ip"], "10.98.0.2", "{name}");
    }
}

/// Ways in which a pod refers to the root certificates of its cluster: a part of its spec, and where the name of the ConfigMap is.
fn references(map: &str) -> Vec<(Value, &'static str)> {
    let mounted = |kind: &str, way: Value, path| (json!({"volumes": [{"name": "v", kind: way}]}), path);
    let key = json!([{"name": "CA", "valueFrom": {"configMapKeyRef": {"name": map, "key": "ca.crt"}}}]);
    let all = json!([{"configMapRef": {"name": map}}]);
    vec![
        mounted("configMap", json!({"name": map}), "/volumes/0/configMap/name"),
        mounted("configMap", json!({"name": map, "optional": true}), "/volumes/0/configMap/name"),
        mounted(
            "projected",
            json!({"sources": [{"configMap": {"name": map, "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}),
            "/volumes/0/projected/sources/0/configMap/name",
        ),
        (json!({"containers": [{"name": "c", "env": key}]}), "/containers/0/env/0/valueFrom/configMapKeyRef/name"),
        (json!({"containers": [{"name": "c", "envFrom": all}]}), "/containers/0/envFrom/0/configMapRef/name"),
        (
            json!({"initContainers": [{"name": "i", "env": key}]}),
            "/initContainers/0/env/0/valueFrom/configMapKeyRef/name",
        ),
        (json!({"initContainers": [{"name": "i", "envFrom": all}]}), "/initContainers/0/envFrom/0/configMapRef/name"),
        (
            json!({"initContainers": [{"name": "sidecar", "restartPolicy": "Always", "envFrom": all}]}),
            "/initContainers/0/envFrom/0/configMapRef/name",
        ),
    ]
}

#[test]
fn root_certificates_are_those_of_home_however_they_are_asked_for() {
    for (map, there) in [("kube-root-ca.crt", "kube-root-ca.crt.09897"), ("other", "other")] {
        for (part, path) in references(map) {
            let mut here = json!({"containers": [{"name": "c"}]});
            here.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            let here = spec(here);
            for support in [ApiSupport::Disabled, tokens()] {
                let mut twin = forged(&here, &support);
                forget_api_server(&mut twin);
                assert_eq!(twin.pointer(path), Some(&json!(there)), "{path} {twin}");
            }
        }
    }
}

/// Keeps, of the variables of each container, the variables that the pod in the own cluster has.
fn forget_api_server(twin: &mut Value) {
    for kind in ["initContainers", "containers"] {
        for container in twin[kind].as_array_mut().into_iter().flatten() {
            if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
                env.retain(|one| !one["name"].as_str().unwrap().starts_with("KUBERNETES_"));
            }
        }
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
