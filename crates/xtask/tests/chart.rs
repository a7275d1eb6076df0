//! What the chart renders, by the real helm: names, labels and arguments are a contract with peers, with
//! `liqoctl` and with the components. Written out by hand.

mod chart {
    mod fabric;
    mod guard;
    pub(crate) mod helm;
    pub(crate) mod peers;
}

use std::collections::{BTreeMap, BTreeSet};

use chart::helm::{Objects, command, names, refused, rendered, template};
use serde_json::{Value, json};

const NAMED: &[&str] = &["--set", "discovery.config.clusterName=rome"];
const EXTERNAL: &[&str] = &["--set", "networking.internal=false"];
const RANGES: &[&str] =
    &["--set=networkManager.config.podCIDR=10.244.0.0/16,networkManager.config.serviceCIDR=10.96.0.0/12"];

/// Renders with what every installation has to say, and more.
fn with(more: &[&str]) -> Objects {
    rendered(&[NAMED, RANGES, more].concat())
}

/// The same without the network fabric.
fn without_fabric(more: &[&str]) -> Objects {
    rendered(&[NAMED, EXTERNAL, more].concat())
}

/// Why it does not render.
fn error(more: &[&str]) -> String {
    refused(&[NAMED, RANGES, more].concat())
}

fn args(objects: &Objects, deployment: &str) -> Vec<String> {
    let container = &objects[&format!("Deployment/{deployment}")]["spec"]["template"]["spec"]["containers"][0];
    serde_json::from_value(container["args"].clone()).expect("arguments")
}

#[test]
fn lint_has_nothing_to_say() {
    for network in [RANGES, EXTERNAL] {
        let output = command().arg("lint").arg("--strict").arg(chart::helm::path()).args(NAMED).args(network).output();
        let output = output.expect("helm runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn these_objects_and_no_others() {
    let wanted = "
        ClusterRole/liqo-auth ClusterRole/liqo-controller-manager ClusterRole/liqo-crd-replicator
        ClusterRole/liqo-remote-peering-basic ClusterRole/liqo-remote-peering-incoming
        ClusterRole/liqo-remote-peering-leaving
        ClusterRole/liqo-remote-peering-outgoing ClusterRole/liqo-virtual-kubelet-local
        ClusterRole/liqo-virtual-kubelet-namespace
        ClusterRole/liqo-virtual-kubelet-remote ClusterRole/liqo-virtual-kubelet-tenant
        ClusterRoleBinding/liqo-auth ClusterRoleBinding/liqo-controller-manager
        ClusterRoleBinding/liqo-controller-manager-grant-virtual-kubelet-local
        ClusterRoleBinding/liqo-controller-manager-grant-virtual-kubelet-namespace
        ClusterRoleBinding/liqo-controller-manager-grant-virtual-kubelet-remote
        ClusterRoleBinding/liqo-controller-manager-grant-virtual-kubelet-tenant
        ClusterRoleBinding/liqo-crd-replicator ClusterRoleBinding/liqo-remote-peering-basic
        ClusterRoleBinding/liqo-remote-peering-incoming ClusterRoleBinding/liqo-remote-peering-leaving
        ClusterRoleBinding/liqo-remote-peering-outgoing
        ConfigMap/liqo-clusterid-configmap ConfigMap/liqo-peer-policy
        Deployment/liqo-auth Deployment/liqo-controller-manager Deployment/liqo-crd-replicator
        MutatingWebhookConfiguration/liqo-webhook ValidatingWebhookConfiguration/liqo-webhook
        NetworkPolicy/liqo-auth NetworkPolicy/liqo-controller-manager NetworkPolicy/liqo-crd-replicator
        ResourceQuota/liqo-critical-pods
        Role/liqo-auth Role/liqo-controller-manager Role/liqo-crd-replicator
        RoleBinding/liqo-auth RoleBinding/liqo-controller-manager RoleBinding/liqo-crd-replicator
        Service/liqo-auth Service/liqo-controller-manager
        ServiceAccount/liqo-auth ServiceAccount/liqo-controller-manager ServiceAccount/liqo-crd-replicator";
    let mut wanted: BTreeSet<_> = wanted.split_whitespace().map(str::to_owned).collect();
    wanted.extend(chart::peers::policies());
    assert_eq!(names(&without_fabric(&[])), wanted);
    for part in ["gateway", "network-manager", "route"] {
        for kind in ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"] {
            wanted.insert(format!("{kind}/liqo-{part}"));
        }
    }
    let more = "
        DaemonSet/liqo-route Deployment/liqo-gateway Deployment/liqo-network-manager Deployment/liqo-proxy
        NetworkPolicy/liqo-network-manager NetworkPolicy/liqo-proxy
        Service/liqo-gateway Service/liqo-network-manager Service/liqo-proxy ServiceAccount/liqo-proxy";
    wanted.extend(more.split_whitespace().map(str::to_owned));
    assert_eq!(names(&with(&[])), wanted);
}

#[test]
fn rendering_twice_gives_the_same() {
    let args = [NAMED, RANGES].concat();
    assert_eq!(template(&args).expect("renders"), template(&args).expect("renders"));
}

#[test]
fn labels_are_those_of_liqo() {
    let objects = with(&[]);
    let component = |object: &str| match object.split_once('/').map(|(_, name)| name) {
        Some("liqo-clusterid-configmap") => ("clusterid-configmap", "clusterid-configmap"),
        Some("liqo-crd-replicator") => ("crd-replicator", "dispatcher"),
        Some(
            "liqo-auth"
            | "liqo-remote-peering-basic"
            | "liqo-remote-peering-incoming"
            | "liqo-remote-peering-leaving"
            | "liqo-remote-peering-outgoing",
        ) => ("auth", "discovery"),
        Some(name) if name.starts_with("liqo-virtual-kubelet-") => ("virtual-kubelet", "virtual-kubelet"),
        Some("liqo-gateway") => ("gateway", "networking"),
        Some("liqo-route") => ("route", "networking"),
        Some("liqo-network-manager") => ("network-manager", "networking"),
        Some("liqo-proxy") => ("proxy", "networking"),
        _ => ("controller-manager", "controller-manager"),
    };
    for (object, value) in &objects {
        let (name, component) = component(object);
        let mut labels = json!({
            "app.kubernetes.io/component": component, "app.kubernetes.io/instance": format!("liqo-{name}"),
            "app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": name,
            "app.kubernetes.io/part-of": "liqo", "app.kubernetes.io/version": "v0.1.0", "helm.sh/chart": "liqo-0.1.0",
        });
        if let Some(permissions) = object.strip_prefix("ClusterRole/liqo-remote-peering-") {
            labels["auth.liqo.io/remote-peering-permissions"] = json!(permissions);
        }
        if ["Deployment/liqo-auth", "Service/liqo-auth"].contains(&object.as_str()) {
            labels["run"] = json!("auth-service");
        }
        if object == "Service/liqo-gateway" {
            labels["net.liqo.io/gateway"] = json!("true");
        }
        assert_eq!(value["metadata"]["labels"], labels, "{object}");
        let clusterwide = ["ClusterRole", "MutatingWebhook", "ValidatingWebhook", "ValidatingAdmissionPolicy"];
        let namespaced = !clusterwide.iter().any(|kind| object.starts_with(kind));
        assert_eq!(value["metadata"].get("namespace").is_some(), namespaced, "{object}");
    }
}

#[test]
fn services_are_those_of_liqo() {
    let objects = with(&[]);
    let selector = |name: &str, component: &str| {
        json!({
            "app.kubernetes.io/component": component, "app.kubernetes.io/instance": format!("liqo-{name}"),
            "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "liqo",
        })
    };
    let mut auth = selector("auth", "discovery");
    auth["run"] = json!("auth-service");
    assert_eq!(
        objects["Service/liqo-auth"]["spec"],
        json!({"type": "LoadBalancer", "selector": auth,
               "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8443}]})
    );
    assert_eq!(objects["Deployment/liqo-auth"]["spec"]["selector"]["matchLabels"], auth);
    let manager = selector("controller-manager", "controller-manager");
    assert_eq!(
        objects["Service/liqo-controller-manager"]["spec"],
        json!({"type": "ClusterIP", "selector": manager,
               "ports": [{"port": 9443, "protocol": "TCP", "targetPort": "webhook"}]})
    );
    assert_eq!(objects["Deployment/liqo-controller-manager"]["spec"]["selector"]["matchLabels"], manager);
    assert_eq!(
        objects["Service/liqo-gateway"]["spec"],
        json!({"type": "LoadBalancer", "selector": {"net.liqo.io/gateway": "active"},
               "ports": [{"name": "wireguard", "port": 5871, "protocol": "UDP", "targetPort": "wireguard"}]})
    );
    for (name, port, number) in [("network-manager", "ipam-api", 6000), ("proxy", "http", 8118)] {
        assert_eq!(
            objects[&format!("Service/liqo-{name}")]["spec"],
            json!({"type": "ClusterIP", "selector": selector(name, "networking"),
                   "ports": [{"name": port, "port": number, "protocol": "TCP", "targetPort": number}]})
        );
    }
}

#[test]
fn arguments_by_default() {
    let objects = with(&[]);
    assert_eq!(
        args(&objects, "liqo-controller-manager"),
        [
            "--cluster-name=rome",
            "--liqo-namespace=$(POD_NAMESPACE)",
            "--enable-incoming-peering=true",
            "--resource-sharing-percentage=30",
            "--kubelet-image=ghcr.io/liqo-rs/liqo:v0.1.0",
            "--kubelet-ipam-server=liqo-network-manager.liqo:6000",
            "--auto-join-discovered-clusters=true",
            "--enable-storage=false",
            "--webhook-port=9443",
            "--guest-objects=configmaps=500,pods=1000,secrets=500,services=500",
            "--kubelet-extra-args=--enable-apiserver-support=true",
            "--offer-update-threshold-percentage=5",
            "--withdrawal-deadline=5m",
            "--namespaces-per-peer=64",
            "--pod-security=baseline",
            "--reserved-namespaces=default,openshift,openshift-*,*-system,cert-manager,istio-*,linkerd*,monitoring,logging,\
             ingress-nginx,argocd,vault,cattle-*,tigera-operator",
        ]
    );
    assert_eq!(args(&objects, "liqo-crd-replicator"), ["--cluster-name=rome", "--liqo-namespace=$(POD_NAMESPACE)"]);
    assert_eq!(
        args(&objects, "liqo-auth"),
        [
            "--cluster-name=rome",
            "--namespace=$(POD_NAMESPACE)",
            "--address=:8443",
            "--enable-tls",
            "--enable-authentication=true",
            "--accept-cluster-token=true",
            "--pin-certificate=true",
            "--identity-lifetime=168h",
            "--max-tenants=256",
        ]
    );
}

#[test]
fn without_the_fabric_nobody_is_told_of_it() {
    let said = args(&without_fabric(&[]), "liqo-controller-manager");
    for flag in [
        "--kubelet-ipam-server=",
        "--disable-internal-network",
        "--kubelet-extra-args=--enable-apiserver-support=true,--node-check-network=false",
    ] {
        assert!(said.contains(&flag.to_owned()), "{flag} is not in {said:?}");
    }
}

#[test]
fn arguments_of_the_controller_manager_follow_the_values() {
    let objects = without_fabric(&[
        "--set=controllerManager.replicas=2,controllerManager.pod.extraArgs={--v=4}",
        "--set=controllerManager.config.enableResourceEnforcement=true",
        "--set=controllerManager.config.enableNodeFailureController=true",
        "--set=controllerManager.config.withdrawalDeadline=90s,offloading.namespacesPerPeer=8",
        "--set=offloading.podSecurity=restricted,offloading.reservedNamespaces={default,a-*}",
        "--set=controllerManager.config.resourcePluginAddress=plugin:6000",
        "--set=discovery.config.clusterLabels.region=eu,discovery.config.incomingPeeringEnabled=false",
        "--set=networking.reflectIPs=false,webhook.port=9444",
        "--set=virtualKubelet.extra.args={--node-check-network=true}",
        "--set=virtualKubelet.extra.labels.a=b,virtualKubelet.extra.annotations.c=d",
        "--set=virtualKubelet.extra.resources.limits.memory=1Gi,virtualKubelet.extra.resources.requests.cpu=1",
        "--set=virtualKubelet.virtualNode.extra.labels.e=f,virtualKubelet.virtualNode.extra.annotations.g=h",
        "--set=virtualKubelet.metrics.enabled=true",
    ]);
    assert_eq!(
        args(&objects, "liqo-controller-manager"),
        [
            "--cluster-name=rome",
            "--liqo-namespace=$(POD_NAMESPACE)",
            "--enable-incoming-peering=false",
            "--resource-sharing-percentage=30",
            "--kubelet-image=ghcr.io/liqo-rs/liqo:v0.1.0",
            "--kubelet-metrics-address=:5872",
            "--kubelet-metrics-enabled=true",
            "--kubelet-ipam-server=",
            "--disable-internal-network",
            "--auto-join-discovered-clusters=true",
            "--enable-storage=false",
            "--webhook-port=9444",
            "--enable-resource-enforcement",
            "--enable-node-failure-controller",
            "--guest-objects=configmaps=500,pods=1000,secrets=500,services=500",
            "--kubelet-extra-annotations=c=d",
            "--kubelet-extra-labels=a=b",
            "--kubelet-extra-args=--node-check-network=true,--enable-apiserver-support=true,--disable-ip-reflection",
            "--node-extra-annotations=g=h",
            "--node-extra-labels=e=f",
            "--v=4",
            "--cluster-labels=region=eu",
            "--enable-leader-election=true",
            "--kubelet-cpu-requests=1",
            "--kubelet-ram-limits=1Gi",
            "--resource-plugin-address=plugin:6000",
            "--offer-update-threshold-percentage=0",
            "--withdrawal-deadline=90s",
            "--namespaces-per-peer=8",
            "--pod-security=restricted",
            "--reserved-namespaces=default,a-*",
        ]
    );
    let spread =
        &objects["Deployment/liqo-controller-manager"]["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    assert_eq!(spread["preferredDuringSchedulingIgnoredDuringExecution"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_pods_of_peers_may_ask_for_is_said_in_values() {
    let guests = |more: &[&str]| -> Vec<String> {
        let args = args(&with(more), "liqo-controller-manager");
        args.into_iter().filter(|arg| arg.starts_with("--guest-")).collect()
    };
    let more = [
        "--set=offloading.guests.tolerations={gpu,spot},offloading.guests.runtimeClass=gvisor",
        "--set=offloading.guests.objects.pods=null,offloading.guests.privileged=true",
        "--set=offloading.guests.networks={10.9.0.0/16}",
    ];
    assert_eq!(
        guests(&more),
        [
            "--guest-networks=10.9.0.0/16",
            "--guest-tolerations=gpu,spot",
            "--guest-runtime-class=gvisor",
            "--guest-privileged",
            "--guest-objects=configmaps=500,secrets=500,services=500",
        ]
    );
}

#[test]
fn authentication_without_tls_behind_an_ingress() {
    let objects = with(&[
        "--set=auth.tls=false,auth.config.enableAuthentication=false,auth.config.acceptClusterToken=false",
        "--set=auth.config.identityLifetime=24h,auth.config.maxTenants=5000000",
        "--set=auth.ingress.enable=true,auth.ingress.class=nginx,auth.ingress.host=auth.example.com",
        "--set=apiServer.address=https://10.0.0.1:6443,apiServer.trustedCA=true",
    ]);
    assert_eq!(
        args(&objects, "liqo-auth"),
        [
            "--cluster-name=rome",
            "--namespace=$(POD_NAMESPACE)",
            "--address=:5000",
            "--enable-authentication=false",
            "--accept-cluster-token=false",
            "--pin-certificate=false",
            "--identity-lifetime=24h",
            "--max-tenants=5000000",
            "--advertise-api-server-address=https://10.0.0.1:6443",
            "--advertise-api-server-trusted-ca",
        ]
    );
    let service = &objects["Service/liqo-auth"];
    assert_eq!(
        service["metadata"]["annotations"],
        json!({"liqo.io/override-address": "auth.example.com", "liqo.io/override-port": "443"})
    );
    assert_eq!(
        service["spec"]["ports"][0],
        json!({"name": "https", "port": 5000, "protocol": "TCP", "targetPort": 5000})
    );
    let ingress = &objects["Ingress/liqo-auth"]["spec"];
    assert_eq!(
        (&ingress["ingressClassName"], &ingress["rules"][0]["host"]),
        (&json!("nginx"), &json!("auth.example.com"))
    );
}

#[test]
fn an_override_says_where_peers_find_us() {
    let objects = with(&[
        "--set=auth.config.addressOverride=10.0.0.1,auth.config.portOverride=8443,auth.service.annotations.a=b",
    ]);
    assert_eq!(
        objects["Service/liqo-auth"]["metadata"]["annotations"],
        json!({"a": "b", "liqo.io/override-address": "10.0.0.1", "liqo.io/override-port": "8443"})
    );
}

#[test]
fn keys_for_eks_stay_in_a_secret() {
    let objects = with(&[
        "--set=awsConfig.accessKeyId=key,awsConfig.secretAccessKey=hush,awsConfig.region=eu,awsConfig.clusterName=c",
    ]);
    assert_eq!(
        objects["Secret/liqo-aws-config"]["stringData"],
        json!({"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "hush"})
    );
    let args = args(&objects, "liqo-auth").join(" ");
    assert!(
        args.ends_with("--aws-secret-access-key=$(AWS_SECRET_ACCESS_KEY) --aws-region=eu --aws-cluster-name=c"),
        "{args}"
    );
    assert!(!args.contains("hush"));
}

#[test]
fn webhooks_are_those_of_liqo() {
    let objects = with(&["--set=webhook.failurePolicy=Ignore"]);
    let mut seen = BTreeMap::new();
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        for hook in objects[&format!("{kind}/liqo-webhook")]["webhooks"].as_array().expect("webhooks") {
            let client = &hook["clientConfig"];
            assert_eq!(client["service"]["name"], "liqo-controller-manager");
            assert_eq!((&client["service"]["namespace"], &client["service"]["port"]), (&json!("liqo"), &json!(9443)));
            assert_eq!(client.get("caBundle"), None, "the controller manager owns it");
            assert_eq!((&hook["failurePolicy"], &hook["matchPolicy"]), (&json!("Ignore"), &json!("Equivalent")));
            assert_eq!(
                (&hook["sideEffects"], &hook["admissionReviewVersions"]),
                (&json!("None"), &json!(["v1", "v1beta1"]))
            );
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let rule = &hook["rules"][0];
            let what = [&client["service"]["path"], &rule["apiGroups"][0], &rule["resources"][0]].map(text).join(" ");
            let operations: Vec<String> = rule["operations"].as_array().into_iter().flatten().map(text).collect();
            let line = format!("{what} {} {}", operations.join(","), hook["namespaceSelector"]["matchLabels"]);
            seen.insert(text(&hook["name"]), line.replace(" null", ""));
        }
    }
    let wanted = [
        ("fc.mutate.liqo.io", "/mutate/foreign-cluster discovery.liqo.io foreignclusters CREATE,UPDATE"),
        ("fc.validate.liqo.io", "/validate/foreign-cluster discovery.liqo.io foreignclusters UPDATE"),
        (
            "nsoff.validate.liqo.io",
            "/validate/namespace-offloading offloading.liqo.io namespaceoffloadings CREATE,UPDATE",
        ),
        ("peer-services.mutate.liqo.io", "/mutate/peer-service  services CREATE,UPDATE"),
        ("pod.mutate.liqo.io", r#"/mutate/pod  pods CREATE {"liqo.io/scheduling-enabled":"true"}"#),
        ("shadowpod.validate.liqo.io", "/validate/shadowpods virtualkubelet.liqo.io shadowpods CREATE,UPDATE,DELETE"),
    ];
    assert_eq!(seen, wanted.map(|(name, line)| (name.to_owned(), line.to_owned())).into());
}

#[test]
fn the_identity_is_only_rendered_when_it_is_given() {
    let data = |objects: &Objects| objects["ConfigMap/liqo-clusterid-configmap"]["data"].clone();
    assert_eq!(data(&with(&[])), json!({"CLUSTER_NAME": "rome"}));
    let id = "09897b82-7830-483b-b786-9cf90899f809";
    let given = with(&["--set", &format!("discovery.config.clusterIDOverride={id}")]);
    assert_eq!(data(&given), json!({"CLUSTER_NAME": "rome", "CLUSTER_ID": id}));
    assert_eq!(
        given["ConfigMap/liqo-clusterid-configmap"]["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
}

#[test]
fn pods_run_with_little_power() {
    let deployment = |name: &str| name.starts_with("Deployment/") && name != "Deployment/liqo-gateway";
    for (name, object) in with(&[]).iter().filter(|(name, _)| deployment(name)) {
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], name.trim_start_matches("Deployment/"), "{name}");
        assert_eq!(
            pod["securityContext"],
            json!({"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
                   "seccompProfile": {"type": "RuntimeDefault"}})
        );
        let container = &pod["containers"][0];
        assert_eq!(
            container["securityContext"],
            json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
        );
        assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "healthz"}));
        assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/healthz", "port": "healthz"}));
        let ports = container["ports"].as_array().expect("ports");
        assert!(ports.contains(&json!({"name": "healthz", "containerPort": 8081})), "{name}");
    }
    let open = with(&["--set=openshiftConfig.enable=true"]);
    assert_eq!(open["Deployment/liqo-auth"]["spec"]["template"]["spec"].get("securityContext"), None);
    let managers = args(&open, "liqo-controller-manager");
    assert!(managers.contains(&"--kubelet-platform-security-context".to_owned()), "virtual kubelets, too");
    let rules = open["ClusterRole/liqo-virtual-kubelet-local"]["rules"].as_array().expect("rules");
    assert_eq!(rules.last().map(|rule| rule["resourceNames"].clone()), Some(json!(["anyuid"])));
}

#[test]
fn the_gateway_is_sure_of_its_share_of_a_node() {
    let requests = |more: &[&str]| {
        with(more)["Deployment/liqo-gateway"]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
            .clone()
    };
    assert_eq!(requests(&[]), json!({"cpu": "100m", "memory": "32Mi"}));
    assert_eq!(requests(&["--set=gateway.pod.resources.requests.cpu=2"]), json!({"cpu": 2, "memory": "32Mi"}));
    assert_eq!(requests(&["--set=gateway.pod.resources.requests=null"]), json!(null));
}

#[test]
fn images() {
    let objects = with(&[
        "--set=image=localhost/liqo,tag=dev,auth.imageName=localhost/auth,crdReplicator.imageName=r@sha256:0,virtualKubelet.imageName=vk",
    ]);
    let image = |name: &str| {
        objects[&format!("Deployment/{name}")]["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    assert_eq!(image("liqo-controller-manager"), "localhost/liqo:dev");
    assert_eq!(image("liqo-auth"), "localhost/auth:dev");
    assert_eq!(image("liqo-crd-replicator"), "r@sha256:0");
    assert!(args(&objects, "liqo-controller-manager").contains(&"--kubelet-image=vk:dev".to_owned()));
}

#[test]
fn pods_are_placed_as_the_values_say() {
    let objects = with(&[
        "--set=common.nodeSelector.zone=a,common.tolerations[0].operator=Exists",
        "--set=common.affinity.podAffinity.x=y,controllerManager.replicas=3,crdReplicator.pod.labels.a=b",
    ]);
    let pod = |name: &str| &objects[&format!("Deployment/{name}")]["spec"]["template"];
    for name in ["liqo-auth", "liqo-controller-manager", "liqo-crd-replicator"] {
        let spec = &pod(name)["spec"];
        assert_eq!(
            (&spec["nodeSelector"], &spec["tolerations"]),
            (&json!({"zone": "a"}), &json!([{"operator": "Exists"}]))
        );
        assert_eq!(spec["affinity"]["podAffinity"], json!({"x": "y"}), "{name}");
        assert_eq!(spec["affinity"].get("podAntiAffinity").is_some(), name == "liqo-controller-manager");
    }
    assert_eq!(pod("liqo-crd-replicator")["metadata"]["labels"]["a"], "b");
}

#[test]
fn wrong_values_are_explained() {
    for (set, wanted) in [
        (
            "networkManager.externalIPAM.enabled=true",
            "The address of the external IPAM (.Values.networkManager.externalIPAM.url) must be set",
        ),
        ("discovery.config.clusterName=", "The cluster name (.Values.discovery.config.clusterName) must be set"),
        ("discovery.config.clusterName=A_b", "may only contain lowercase letters, numbers and hyphens"),
        ("discovery.config.clusterIDOverride=Rome", "Provided cluster ID must be a valid UUID"),
        ("nameOverride=other", "nameOverride must be empty"),
        (
            "virtualKubelet.extra.resources.requests.gpu=1",
            r#"Unsupported resource type "gpu" for virtual kubelet containers' requests"#,
        ),
        ("auth.service.type=Ingress", "'ClusterIP', 'NodePort', 'LoadBalancer'"),
        ("webhook.failurePolicy=Maybe", "'Fail', 'Ignore'"),
        ("pullPolicy=Sometimes", "/pullPolicy"),
        ("controllerManager.config.resourceSharingPercentage=101", "maximum: got 101, want 100"),
        ("controllerManager.replicas=two", "/controllerManager/replicas"),
        ("auth.config.portOverride=https", "/auth/config/portOverride"),
        ("auth.tls=1", "/auth/tls"),
        ("common.tolerations=Exists", "/common/tolerations"),
        ("networkManager.config.podCIDR=", "networkManager.config.podCIDR must be set"),
        ("networkManager.config.serviceCIDR=", "networkManager.config.serviceCIDR must be set"),
        ("networkManager.config.podCIDR=10.0.0.0", "/networkManager/config/podCIDR"),
        ("networkManager.config.podCIDR=10.0.256.0/24", "/networkManager/config/podCIDR"),
        ("networkManager.config.serviceCIDR=10.0.0.0/33", "/networkManager/config/serviceCIDR"),
        ("networkManager.config.reservedSubnets={10.0.0.0/x}", "/networkManager/config/reservedSubnets/0"),
        ("networkManager.config.additionalPools={::/8}", "/networkManager/config/additionalPools/0"),
        ("networkConfig.mtu=100", "/networkConfig/mtu"),
        ("gateway.config.wireguardImplementation=go", "'kernel', 'userspace'"),
        ("gateway.pod.resources.requests.cpu=fast", "/gateway/pod/resources/requests/cpu"),
        ("auth.pod.resources.limits.memory=64MiB", "/auth/pod/resources/limits/memory"),
    ] {
        let error = error(&["--set", set]);
        assert!(error.contains(wanted), "{set}: {error}");
    }
}

#[test]
fn ranges_that_cannot_be_are_explained() {
    let (pods, services) = ("networkManager.config.podCIDR", "networkManager.config.serviceCIDR");
    let (reserved, pools) = ("networkManager.config.reservedSubnets", "networkManager.config.additionalPools");
    let always = "the pools that are always there";
    for (set, wanted) in [
        (
            format!("{pods}=10.244.0.1/16"),
            format!("10.244.0.1/16 ({pods}) is not a network: there are bits of an address after its first 16"),
        ),
        (format!("{pods}=10.0.0.0/8"), format!("10.96.0.0/12 ({services}) shares addresses with 10.0.0.0/8 ({pods})")),
        (
            format!("{reserved}={{192.0.2.0/24,10.244.7.0/24}}"),
            format!("10.244.7.0/24 ({reserved}) shares addresses with 10.244.0.0/16 ({pods})"),
        ),
        (
            format!("{reserved}={{192.0.2.0/24,192.0.2.128/32}}"),
            format!("192.0.2.128/32 ({reserved}) shares addresses with 192.0.2.0/24 ({reserved})"),
        ),
        (
            format!("{pools}={{100.64.0.0/10,172.20.0.0/16}}"),
            format!("172.20.0.0/16 ({pools}) shares addresses with 172.16.0.0/12 ({always})"),
        ),
        (format!("{pools}={{0.0.0.0/0}}"), format!("0.0.0.0/0 ({pools}) shares addresses with 10.0.0.0/8 ({always})")),
    ] {
        let error = error(&["--set", &set]);
        assert!(error.contains(&wanted), "{set}: {error}");
    }
    // Without the fabric nobody uses them, whatever they say.
    without_fabric(&["--set", &format!("{pods}=10.0.0.0/8,{services}=10.0.0.0/8")]);
}

#[test]
fn unknown_values_are_tolerated() {
    assert_eq!(names(&with(&["--set=some.day=1,auth.config.other=x"])), names(&with(&[])));
}

/// Where the cluster has such policies, what the authentication service writes is held to what it does.
#[test]
fn the_authentication_service_is_held_to_what_it_does() {
    let policy = "ValidatingAdmissionPolicy/liqo-auth-liqo";
    assert!(!with(&[]).contains_key(policy), "a cluster without such policies");
    let objects = with(&["--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"]);
    let spec = &objects[policy]["spec"];
    assert_eq!(spec["failurePolicy"], "Fail");
    let whose = "request.userInfo.username == \"system:serviceaccount:liqo:liqo-auth\"";
    assert_eq!(spec["matchConditions"][0]["expression"], whose);
    let said = spec["validations"].to_string();
    for kind in ["secrets", "namespaces", "rolebindings", "certificatesigningrequests"] {
        assert!(said.contains(&format!("variables.kind != \\\"{kind}\\\"")), "{kind}: {said}");
    }
    assert_eq!(objects["ValidatingAdmissionPolicyBinding/liqo-auth-liqo"]["spec"]["policyName"], "liqo-auth-liqo");
}

/// Every role of the chart has exactly the rules of the table, and binds the right accounts.
#[test]
fn access_is_what_the_table_says() {
    let objects = with(&[]);
    for (file, rules) in xtask::rbac::all() {
        let role = match file.strip_suffix(".namespaced") {
            Some(name) => format!("Role/liqo-{name}"),
            None => format!("ClusterRole/liqo-{file}"),
        };
        let wanted: Vec<Value> = rules.iter().map(xtask::rbac::Rule::to_json).collect();
        assert_eq!(objects[&role]["rules"], json!(wanted), "{role}");
    }
    let subjects = |binding: &str| -> Vec<Value> {
        objects[binding]["subjects"].as_array().expect("subjects").iter().map(|s| s["name"].clone()).collect()
    };
    // The authentication service grants the first only.
    let all = ["liqo-auth", "liqo-controller-manager", "liqo-crd-replicator"];
    for (permissions, holders) in
        [("basic", &all[..]), ("incoming", &all[1..]), ("leaving", &all[1..]), ("outgoing", &all[1..])]
    {
        assert_eq!(subjects(&format!("ClusterRoleBinding/liqo-remote-peering-{permissions}")), holders);
    }
    for side in ["local", "namespace", "remote", "tenant"] {
        let binding = format!("ClusterRoleBinding/liqo-controller-manager-grant-virtual-kubelet-{side}");
        assert_eq!(subjects(&binding), ["liqo-controller-manager"]);
        assert_eq!(objects[&binding]["roleRef"]["name"], format!("liqo-virtual-kubelet-{side}"));
    }
}
