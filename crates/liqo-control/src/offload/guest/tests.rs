use serde_json::{Value, json};

use super::*;

mod volumes;

fn judged(args: &GuestArgs, metadata: Value, spec: Value) -> Vec<String> {
    let mut pod = json!({"containers": [{"name": "c"}]});
    json_patch::merge(&mut pod, &spec);
    violations(args, None, &serde_json::from_value(metadata).unwrap(), &serde_json::from_value(pod).unwrap())
}

fn refused(spec: Value) -> Vec<String> {
    judged(&GuestArgs::default(), json!({}), spec)
}

/// What Liqo 0.8.3 sent, as recorded.
fn recorded() -> Vec<Value> {
    [
        include_str!("../../../../liqo-kubelet/tests/recorded/shadow_pod.json"),
        include_str!("../../../../liqo-kubelet/tests/recorded/shadow_pod_annotated.json"),
    ]
    .iter()
    .map(|text| serde_json::from_str(text).unwrap())
    .collect()
}

#[test]
fn what_was_recorded_from_a_real_cluster_passes() {
    for shadow in recorded() {
        assert_eq!(judged(&GuestArgs::default(), shadow["metadata"].clone(), shadow["spec"]["pod"].clone()), [""; 0]);
    }
}

#[test]
fn ordinary_pods_pass() {
    for spec in [
        json!({"serviceAccountName": "default", "schedulerName": "default-scheduler", "priority": 0}),
        json!({"nodeSelector": {"disk": "ssd"}, "hostNetwork": false, "hostUsers": false}),
        json!({"tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
            {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
        ]}),
        json!({"securityContext": {"runAsUser": 0, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}),
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80}], "securityContext": {
            "privileged": false, "procMount": "Default", "capabilities": {"add": ["NET_BIND_SERVICE", "CAP_CHOWN"], "drop": ["ALL"]},
        }, "resources": {"requests": {"cpu": "100m", "memory": "0.1Gi"}, "limits": {"cpu": "1e3"}}}]}),
        json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x"}}]}),
    ] {
        assert_eq!(refused(spec.clone()), [""; 0], "{spec}");
    }
}

#[test]
fn each_power_is_refused_with_its_name() {
    let container = |more: Value| {
        let mut one = json!({"name": "c"});
        json_patch::merge(&mut one, &more);
        json!({ "initContainers": [one] })
    };
    for (spec, words) in [
        (json!({"nodeName": "control-plane-1"}), "nodeName"),
        (json!({"hostNetwork": true}), "hostNetwork"),
        (json!({"hostPID": true}), "hostPID"),
        (json!({"hostIPC": true}), "hostIPC"),
        (json!({"hostUsers": true}), "hostUsers"),
        (json!({"priorityClassName": "system-node-critical"}), "priorityClassName \"system-node-critical\""),
        (json!({"priority": 1_000_000}), "priority"),
        (json!({"schedulerName": "mine"}), "schedulerName \"mine\""),
        (json!({"runtimeClassName": "fast"}), "runtimeClassName \"fast\""),
        (json!({"serviceAccountName": "admin"}), "serviceAccountName \"admin\""),
        (json!({"serviceAccount": "admin"}), "serviceAccountName \"admin\""),
        (json!({"overhead": {"cpu": "-1000"}}), "overhead"),
        (json!({"tolerations": [{"operator": "Exists"}]}), "toleration of every taint"),
        (
            json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}),
            "toleration of taint",
        ),
        (json!({"tolerations": [{"key": "node-role.kubernetes.io/control-plane"}]}), "toleration of taint \"node-role"),
        (json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), "hostPath"),
        (
            json!({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            "serviceAccountToken",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
            "sysctl \"kernel.msgmax\"",
        ),
        (container(json!({"ports": [{"containerPort": 80, "hostPort": 80}]})), "hostPort"),
        (container(json!({"livenessProbe": {"httpGet": {"port": 80, "host": "169.254.169.254"}}})), "host in a probe"),
        (container(json!({"readinessProbe": {"tcpSocket": {"port": 10250, "host": "127.0.0.1"}}})), "host in a probe"),
        (container(json!({"startupProbe": {"httpGet": {"port": 80, "host": "node"}}})), "host in a probe"),
        (container(json!({"lifecycle": {"postStart": {"httpGet": {"port": 1, "host": "x"}}}})), "host in a probe"),
        (container(json!({"lifecycle": {"preStop": {"tcpSocket": {"port": 1, "host": "x"}}}})), "host in a probe"),
        (container(json!({"securityContext": {"privileged": true}})), "privileged"),
        (container(json!({"securityContext": {"procMount": "Unmasked"}})), "procMount"),
        (container(json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}})), "capability \"SYS_ADMIN\""),
        (container(json!({"securityContext": {"capabilities": {"add": ["ALL"]}}})), "capability \"ALL\""),
        (container(json!({"resources": {"limits": {"cpu": "-1"}}})), "\"-1\" is no amount of \"cpu\""),
        (container(json!({"resources": {"requests": {"cpu": "lots"}}})), "\"lots\" is no amount of \"cpu\""),
        (json!({"resources": {"limits": {"cpu": "-1"}}}), "resources of the pod"),
    ] {
        let all = refused(spec.clone());
        assert!(all.len() == 1 && all[0].contains(words), "{spec}: {all:?}");
    }
}

#[test]
fn labels_and_annotations_programs_of_this_cluster_act_on_are_refused() {
    for (metadata, passes) in [
        (
            json!({"labels": {"app": "web", "virtualkubelet.liqo.io/origin": "a", "liqo.io/managed-by": "shadowpod"}}),
            true,
        ),
        (json!({"labels": {"liqo.io/shadowPod": "true"}}), false),
        (json!({"labels": {"liqo.io/managed-by": "shadowendpointslice"}}), false),
        (json!({"labels": {"virtualkubelet.liqo.io/service-account-name": "x"}}), false),
        (json!({"labels": {"notliqo.io/x": "x"}}), true),
        (json!({"annotations": {"prometheus.io/scrape": "true", "openshift.io/scc": "restricted-v2"}}), true),
        (json!({"labels": {"azure.workload.identity/use": "true"}}), false),
        (json!({"labels": {"sidecar.istio.io/inject": "true"}}), false),
        (json!({"labels": {"sidecar.istio.io/inject": "false", "service.istio.io/canonical-name": "web"}}), true),
        (json!({"labels": {"kuma.io/sidecar-injection": "enabled"}}), false),
        (json!({"labels": {"kuma.io/sidecar-injection": "disabled"}}), true),
        (json!({"annotations": {"k8s.v1.cni.cncf.io/networks": "host"}}), false),
        (json!({"annotations": {"cni.projectcalico.org/ipAddrs": "[]"}}), false),
        (json!({"annotations": {"sidecar.istio.io/inject": "true"}}), false),
        (json!({"annotations": {"vault.hashicorp.com/role": "x"}}), false),
        (json!({"annotations": {"io.kubernetes.cri-o.Devices": "/dev/sda"}}), false),
        (json!({"annotations": {"kubernetes.io/config.mirror": "x"}}), false),
        (json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}), false),
        (json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "runtime/default"}}), true),
    ] {
        let all = judged(&GuestArgs::default(), metadata.clone(), json!({}));
        assert_eq!(all.is_empty(), passes, "{metadata}: {all:?}");
    }
}

#[test]
fn the_provider_allows_more() {
    let own = |text: &str| vec![text.to_owned()];
    let args = GuestArgs {
        guest_tolerations: own("gpu"),
        guest_priority_classes: own("guests"),
        guest_runtime_classes: own("kata"),
        guest_runtime_class: "gvisor".to_owned(),
        guest_annotations: own("sidecar.istio.io/*"),
        guest_volumes: vec![],
        guest_objects: vec![],
        guest_networks: vec![],
        guest_privileged: true,
    };
    let inject = json!({"sidecar.istio.io/inject": "true"});
    let metadata = json!({"annotations": inject, "labels": inject});
    let spec = json!({
        "hostPID": true, "priorityClassName": "guests", "priority": 100, "runtimeClassName": "kata",
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    });
    assert_eq!(judged(&args, metadata, spec), [""; 0]);
    let runtime = |asked: Option<&str>| {
        let mut pod = PodSpec { runtime_class_name: asked.map(str::to_owned), ..PodSpec::default() };
        adapt(&args, &mut pod);
        assert_eq!(pod.automount_service_account_token, Some(false));
        pod.runtime_class_name
    };
    assert_eq!((runtime(None).as_deref(), runtime(Some("kata")).as_deref()), (Some("gvisor"), Some("kata")));
    let every = GuestArgs { guest_tolerations: own("*"), ..GuestArgs::default() };
    assert_eq!(judged(&every, json!({}), json!({"tolerations": [{"operator": "Exists"}]})), [""; 0]);
}

#[test]
fn a_refusal_is_short_whatever_was_asked() {
    let many: Vec<_> = (0..1000).map(|one| json!({"key": format!("{one}{}", "x".repeat(1000))})).collect();
    let all = text(&refused(json!({ "tolerations": many })));
    assert!(all.len() < 1024 && all.ends_with("and 996 more"), "{all}");
}

#[test]
fn large_pods_are_refused_at_their_limits() {
    let of = |bytes: usize| {
        let empty = Weight::of(
            &serde_json::from_value::<PodSpec>(json!({"containers": [{"name": "c", "command": [""]}]})).unwrap(),
        );
        json!({"containers": [{"name": "c", "command": ["x".repeat(bytes - empty.bytes)]}]})
    };
    let many =
        |count: usize| json!({"containers": (0..count).map(|n| json!({"name": n.to_string()})).collect::<Value>()});
    let noted = |bytes: usize| json!({"annotations": {"note": "x".repeat(bytes - "note".len())}});
    for (what, metadata, spec, words) in [
        ("largest", json!({}), of(LARGEST), None),
        ("larger", json!({}), of(LARGEST + 1), Some("size: the specification has 65537 bytes")),
        ("most containers", json!({}), many(MOST_CONTAINERS), None),
        ("more containers", json!({}), many(MOST_CONTAINERS + 1), Some("containers: more than 32")),
        ("longest annotations", noted(LONGEST_ANNOTATIONS), json!({}), None),
        ("longer annotations", noted(LONGEST_ANNOTATIONS + 1), json!({}), Some("annotations: they have 16385 bytes")),
    ] {
        let all = judged(&GuestArgs::default(), metadata, spec);
        match words {
            None => assert_eq!(all, [""; 0], "{what}"),
            Some(words) => assert!(all.len() == 1 && all[0].contains(words), "{what}: {all:?}"),
        }
    }
}
