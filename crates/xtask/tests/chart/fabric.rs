//! What the chart renders of the network fabric, by the real helm. Written out by hand.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::helm::{Objects, rendered};

const BASE: &[&str] = &[
    "--set=discovery.config.clusterName=rome",
    "--set=networkManager.config.podCIDR=10.244.0.0/16,networkManager.config.serviceCIDR=10.96.0.0/12",
];

fn with(more: &[&str]) -> Objects {
    rendered(&[BASE, more].concat())
}

fn pod<'a>(objects: &'a Objects, name: &str) -> &'a Value {
    &objects[name]["spec"]["template"]["spec"]
}

fn container<'a>(objects: &'a Objects, name: &str) -> &'a Value {
    &pod(objects, name)["containers"][0]
}

fn args(objects: &Objects, name: &str) -> Vec<String> {
    serde_json::from_value(container(objects, name)["args"].clone()).expect("arguments")
}

const GATEWAY: &str = "Deployment/liqo-gateway";
const ROUTE: &str = "DaemonSet/liqo-route";
const MANAGER: &str = "Deployment/liqo-network-manager";
const PROXY: &str = "Deployment/liqo-proxy";

#[test]
fn arguments_by_default() {
    let objects = with(&[]);
    assert_eq!(
        args(&objects, GATEWAY),
        [
            "--gateway.leader-elect=true",
            "--gateway.mtu=0",
            "--gateway.listening-port=5871",
            "--health-probe-address=127.0.0.1:5873",
        ]
    );
    assert_eq!(args(&objects, ROUTE), ["--route.vxlan-mtu=0", "--health-probe-address=127.0.0.1:5874"]);
    assert_eq!(args(&objects, MANAGER), ["--manager.pod-cidr=10.244.0.0/16", "--manager.service-cidr=10.96.0.0/12"]);
    assert_eq!(args(&objects, PROXY), ["--listening-port=8118", "--auth-service=liqo-auth.liqo.svc:443"]);
    for (name, command) in
        [(GATEWAY, "liqo-gateway"), (ROUTE, "liqo-route"), (MANAGER, "liqo-network-manager"), (PROXY, "liqo-proxy")]
    {
        assert_eq!(container(&objects, name)["command"], json!([format!("/usr/bin/{command}")]));
    }
}

#[test]
fn arguments_follow_the_values() {
    let objects = with(&[
        "--set=networkConfig.mtu=1400,gateway.config.listeningPort=5999,gateway.metrics.enabled=true",
        "--set=gateway.config.wireguardImplementation=userspace,gateway.pod.extraArgs={--v=1},route.pod.extraArgs={--v=2}",
        "--set=networkManager.config.reservedSubnets={192.0.2.0/24,198.51.100.0/24}",
        "--set=networkManager.config.additionalPools={100.64.0.0/10},networkManager.pod.extraArgs={--v=3}",
        "--set=networkManager.config.acceptPublicRanges=true,apiServer.address=203.0.113.5:6443",
        "--set=proxy.config.listeningPort=8119,proxy.pod.extraArgs={--v=4},auth.tls=false,networkManager.replicas=2",
    ]);
    assert_eq!(
        args(&objects, GATEWAY),
        [
            "--gateway.leader-elect=true",
            "--gateway.mtu=1400",
            "--gateway.listening-port=5999",
            "--health-probe-address=127.0.0.1:5873",
            "--metrics-bind-addr=:5872",
            "--v=1",
        ]
    );
    let env = container(&objects, GATEWAY)["env"].as_array().expect("an environment");
    assert!(env.contains(&json!({"name": "WIREGUARD_IMPLEMENTATION", "value": "userspace"})), "{env:?}");
    assert_eq!(args(&objects, ROUTE), ["--route.vxlan-mtu=1400", "--health-probe-address=127.0.0.1:5874", "--v=2"]);
    assert_eq!(
        args(&objects, MANAGER)[2..],
        [
            "--manager.reserved-pools=192.0.2.0/24,198.51.100.0/24",
            "--manager.additional-pools=100.64.0.0/10",
            "--manager.accept-public-ranges",
            "--api-server-address=203.0.113.5:6443",
            "--manager.leader-elect",
            "--v=3",
        ]
    );
    assert_eq!(args(&objects, PROXY), ["--listening-port=8119", "--auth-service=liqo-auth.liqo.svc:5000", "--v=4"]);
    assert_eq!(objects["Service/liqo-proxy"]["spec"]["ports"][0]["port"], json!(8119));
    assert_eq!(objects["Service/liqo-gateway"]["spec"]["ports"][0]["port"], json!(5999));
    assert_eq!(
        container(&objects, GATEWAY)["ports"],
        json!([{"name": "wireguard", "containerPort": 5999, "protocol": "UDP"}, {"name": "metrics", "containerPort": 5872}])
    );
}

#[test]
fn a_gateway_sees_what_is_shared_only_where_peers_are_segregated() {
    let default = with(&[]);
    let segregated = with(&["--set=networking.securityMode=IntraClusterTrafficSegregation"]);
    let flag = "--gateway.security-mode=IntraClusterTrafficSegregation".to_owned();
    assert!(!args(&default, GATEWAY).contains(&flag) && args(&segregated, GATEWAY).contains(&flag));
    let rules = |objects: &Objects| objects["ClusterRole/liqo-gateway"]["rules"].as_array().expect("rules").clone();
    let (before, mut after) = (rules(&default), rules(&segregated));
    let more = after.split_off(before.len());
    assert_eq!(after, before);
    let wanted = [("", json!(["namespaces", "pods"])), ("offloading.liqo.io", json!(["namespaceoffloadings"]))];
    let wanted = wanted.map(|(group, all)| json!({"apiGroups": [group], "resources": all, "verbs": ["list", "watch"]}));
    assert_eq!(more, wanted);
}

/// Only components that change the node's network have capabilities, and each listens on ports of its own there.
#[test]
fn agents_share_the_network_of_the_node() {
    let objects = with(&[]);
    let mut ports = BTreeSet::new();
    for name in [GATEWAY, ROUTE] {
        assert_eq!(pod(&objects, name)["hostNetwork"], json!(true), "{name}");
        assert_eq!(pod(&objects, name).get("securityContext"), None, "{name}");
        let container = container(&objects, name);
        for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["host"], &get["path"]), (&json!("127.0.0.1"), &json!(path)), "{name}");
            let flag = format!("--health-probe-address=127.0.0.1:{}", get["port"]);
            assert!(args(&objects, name).contains(&flag), "{name}");
        }
        assert!(ports.insert(container["readinessProbe"]["httpGet"]["port"].to_string()), "{name} shares its port");
        let env = container["env"].as_array().expect("an environment");
        let names: Vec<_> = env.iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(names[..4], ["POD_NAME", "POD_NAMESPACE", "POD_IP", "NODE_NAME"], "{name}");
    }
}

/// The container that speaks to peers has two capabilities; the privileged one makes a namespace and ends.
#[test]
fn the_gateway_has_two_capabilities() {
    let mut power = json!({"runAsUser": 0, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "SYS_ADMIN"]},
        "seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"type": "spc_t"}});
    assert_eq!(container(&with(&["--kube-version=1.29.0"]), GATEWAY)["securityContext"], power);
    let objects = with(&["--kube-version=1.30.0"]);
    power["appArmorProfile"] = json!({"type": "Unconfined"});
    assert_eq!(container(&objects, GATEWAY)["securityContext"], power);
    let (seen, made) = ("HostToContainer", "Bidirectional");
    let netns = |propagation| json!({"name": "netns", "mountPath": "/run/netns", "mountPropagation": propagation});
    let others = [("proc-sys-net", "/run/proc-sys-net"), ("tun", "/dev/net")];
    let [settings, device] = others.map(|(name, path)| json!({"name": name, "mountPath": path}));
    assert_eq!(container(&objects, GATEWAY)["volumeMounts"], json!([netns(seen), settings, device]));
    let first = &pod(&objects, GATEWAY)["initContainers"];
    assert_eq!((&first[0]["args"], &first[0]["volumeMounts"]), (&json!(["--prepare"]), &json!([netns(made)])));
    let paths = [
        ("proc-sys-net", "/proc/sys/net", "Directory"),
        ("tun", "/dev/net", "DirectoryOrCreate"),
        ("netns", "/run/netns", "DirectoryOrCreate"),
    ];
    let volume = |(name, path, kind)| json!({"name": name, "hostPath": {"path": path, "type": kind}});
    assert_eq!(pod(&objects, GATEWAY)["volumes"], Value::from(paths.map(volume).to_vec()));
}

/// A container that goes on running is never privileged.
#[test]
fn what_is_privileged_ends() {
    let objects = with(&["--set=gateway.metrics.enabled=true"]);
    let of =
        |object: &Value, kind: &str| object["spec"]["template"]["spec"][kind].as_array().cloned().unwrap_or_default();
    let privileged = |kind: &str| -> Vec<&str> {
        let is = |one: &Value| one["securityContext"]["privileged"] == true;
        objects.iter().filter(|(_, object)| of(object, kind).iter().any(is)).map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!((privileged("containers"), privileged("initContainers")), (vec![], vec![GATEWAY]));
}

/// A test of liqo-netlink shows what a container with these capabilities and this mount can do.
#[test]
fn the_agent_of_a_node_has_one_capability() {
    let objects = with(&[]);
    assert_eq!(
        container(&objects, ROUTE)["securityContext"],
        json!({"runAsUser": 0, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
               "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}, "seccompProfile": {"type": "RuntimeDefault"},
               "seLinuxOptions": {"type": "spc_t"}})
    );
    let mount = json!([{"name": "proc-sys-net", "mountPath": "/run/proc-sys-net"}]);
    assert_eq!(container(&objects, ROUTE)["volumeMounts"], mount);
    let volume = json!([{"name": "proc-sys-net", "hostPath": {"path": "/proc/sys/net", "type": "Directory"}}]);
    assert_eq!(pod(&objects, ROUTE)["volumes"], volume);
}

#[test]
fn one_gateway_is_replaced_and_several_take_turns() {
    let one = with(&[]);
    assert_eq!(one[GATEWAY]["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(pod(&one, GATEWAY).get("affinity"), None);
    assert!(!one.contains_key("PodDisruptionBudget/liqo-gateway"), "a budget for one pod blocks every drain");
    assert_eq!(one[GATEWAY]["spec"]["template"]["metadata"]["labels"]["net.liqo.io/gateway"], "standby");
    let selector = &one[GATEWAY]["spec"]["selector"]["matchLabels"];
    assert_eq!(selector.get("net.liqo.io/gateway"), None, "the label changes while the pod lives");

    let two = with(&["--set=gateway.replicas=2"]);
    assert_eq!(
        two[GATEWAY]["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    );
    let spread = json!({"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector}}]});
    assert_eq!(pod(&two, GATEWAY)["affinity"]["podAntiAffinity"], spread);
    assert_eq!(
        two["PodDisruptionBudget/liqo-gateway"]["spec"],
        json!({"maxUnavailable": 1, "selector": {"matchLabels": selector}})
    );
}

#[test]
fn routes_are_on_every_node_but_virtual_ones() {
    let objects = with(&["--set=common.nodeSelector.zone=a,common.affinity.podAffinity.x=y"]);
    let spec = pod(&objects, ROUTE);
    assert_eq!((spec.get("nodeSelector"), &spec["tolerations"]), (None, &json!([{"operator": "Exists"}])));
    let term = json!({"matchExpressions": [{"key": "liqo.io/type", "operator": "NotIn", "values": ["virtual-node"]}]});
    assert_eq!(
        spec["affinity"],
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}})
    );
    for name in [GATEWAY, MANAGER, PROXY] {
        assert_eq!(pod(&objects, name)["nodeSelector"], json!({"zone": "a"}), "{name}");
    }
}

#[test]
fn the_gateway_service_says_where_peers_find_it() {
    let objects = with(&[
        "--set=gateway.service.type=NodePort,gateway.service.annotations.a=b,gateway.service.labels.c=d",
        "--set=gateway.config.addressOverride=gate.example.com,gateway.config.portOverride=15871",
    ]);
    let service = &objects["Service/liqo-gateway"];
    assert_eq!(service["spec"]["type"], "NodePort");
    assert_eq!(
        service["metadata"]["annotations"],
        json!({"a": "b", "liqo.io/override-address": "gate.example.com", "liqo.io/override-port": "15871"})
    );
    assert_eq!(service["metadata"]["labels"]["c"], "d");
}

#[test]
fn metrics_of_the_gateways_have_a_service_of_their_own() {
    let objects = with(&[
        "--set=gateway.metrics.enabled=true,gateway.metrics.port=5999,gateway.metrics.service.labels.a=b",
        "--set=gateway.metrics.serviceMonitor.enabled=true,gateway.metrics.serviceMonitor.interval=10s",
    ]);
    let service = &objects["Service/liqo-gateway-metrics"];
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "metrics", "port": 5999, "protocol": "TCP", "targetPort": "metrics"}])
    );
    let pods = &objects[GATEWAY]["spec"]["template"]["metadata"]["labels"];
    let matches = |selector: &Value, labels: &Value| {
        selector.as_object().is_some_and(|all| all.iter().all(|(key, value)| labels[key] == *value))
    };
    assert!(matches(&service["spec"]["selector"], pods), "the Service finds no gateway");
    let monitor = &objects["ServiceMonitor/liqo-gateway-metrics"]["spec"];
    assert_eq!(monitor["endpoints"], json!([{"port": "metrics", "interval": "10s"}]));
    let selected: Vec<_> = objects
        .iter()
        .filter(|(name, _)| name.starts_with("Service/"))
        .filter(|(_, one)| matches(&monitor["selector"]["matchLabels"], &one["metadata"]["labels"]))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(selected, ["Service/liqo-gateway-metrics"]);
    assert!(!with(&[]).contains_key("Service/liqo-gateway-metrics"));
}

#[test]
fn an_external_ipam_is_passed_on() {
    for network in ["true", "false"] {
        let objects = with(&[
            "--set=networkManager.externalIPAM.enabled=true,networkManager.externalIPAM.url=ipam.example.com:6000",
            &format!("--set=networking.internal={network}"),
        ]);
        let args = args(&objects, "Deployment/liqo-controller-manager");
        assert!(args.contains(&"--kubelet-ipam-server=ipam.example.com:6000".to_owned()), "{args:?}");
    }
}

/// The proxy carries bytes of peers: it gets no identity that could be used against our API server.
#[test]
fn the_proxy_has_no_rights() {
    let objects = with(&[]);
    assert_eq!(pod(&objects, PROXY)["automountServiceAccountToken"], json!(false));
    assert_eq!(objects["ServiceAccount/liqo-proxy"]["automountServiceAccountToken"], json!(false));
    let bound = objects
        .iter()
        .filter(|(name, _)| name.contains("RoleBinding/"))
        .flat_map(|(_, binding)| binding["subjects"].as_array().expect("subjects"))
        .any(|subject| subject["name"] == "liqo-proxy");
    assert!(!bound, "the proxy has rights");
}

#[test]
fn on_openshift_agents_may_be_privileged() {
    let objects = with(&["--set=openshiftConfig.enable=true"]);
    for name in ["liqo-gateway", "liqo-route"] {
        let rules = objects[&format!("ClusterRole/{name}")]["rules"].as_array().expect("rules");
        let last = rules.last().expect("a rule");
        assert_eq!((&last["resourceNames"], &last["verbs"]), (&json!(["privileged"]), &json!(["use"])), "{name}");
    }
    let manager = objects["ClusterRole/liqo-network-manager"]["rules"].to_string();
    assert!(!manager.contains("securitycontextconstraints"), "{manager}");
}
