//! What the chart renders, by the real helm: names, labels and arguments are a contract with peers, with
//! `liqoctl` and with the components. Written out by hand.

mod chart {
    mod before;
    mod fabric;
    mod guard;
    pub(crate) mod helm;
    mod jobs;
    mod labels;
    mod market;
    pub(crate) mod peers;
    mod pods;
    mod rights;
    mod roles;
    mod status;
    mod values;
    mod wrong;
}

use std::collections::BTreeSet;

use chart::helm::{Objects, command, names, refused, rendered};
use serde_json::json;

const NAMED: &[&str] = &["--set", "discovery.config.clusterName=rome"];
const EXTERNAL: &[&str] = &["--set", "networking.internal=false"];
const RANGES: &[&str] =
    &["--set=networkManager.config.podCIDR=10.244.0.0/16,networkManager.config.serviceCIDR=10.96.0.0/12"];

const STATUS: &str = "--set=status.enabled=true";
/// A broker, and an agent that knows where it is.
const MARKET: &str =
    "--set=market.enabled=true,agent.enabled=true,agent.broker.url=https://b.example,agent.broker.secretName=access";

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
        ClusterRole/liqo-crd-replicator-tenant
        ClusterRole/liqo-remote-peering-basic ClusterRole/liqo-remote-peering-incoming
        ClusterRole/liqo-remote-peering-leaving
        ClusterRole/liqo-remote-peering-outgoing
        ClusterRole/liqo-virtual-kubelet-cluster ClusterRole/liqo-virtual-kubelet-local
        ClusterRole/liqo-virtual-kubelet-namespace
        ClusterRole/liqo-virtual-kubelet-remote ClusterRole/liqo-virtual-kubelet-tenant
        ClusterRoleBinding/liqo-auth ClusterRoleBinding/liqo-controller-manager
        ClusterRoleBinding/liqo-controller-manager-grant-virtual-kubelet-cluster
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
        Role/liqo-controller-manager Role/liqo-crd-replicator
        RoleBinding/liqo-controller-manager RoleBinding/liqo-crd-replicator
        Service/liqo-auth Service/liqo-controller-manager
        ServiceAccount/liqo-auth ServiceAccount/liqo-controller-manager ServiceAccount/liqo-crd-replicator";
    let mut wanted: BTreeSet<_> = wanted.split_whitespace().map(str::to_owned).collect();
    wanted.extend(chart::peers::policies());
    assert_eq!(names(&without_fabric(&["--set=metricAgent.enable=false"])), wanted);
    let metrics = "
        APIService/v1alpha1.metrics.liqo.io ClusterRole/liqo-metric-agent ClusterRoleBinding/liqo-metric-agent
        Deployment/liqo-metric-agent NetworkPolicy/liqo-metric-agent RoleBinding/liqo-metric-agent-authentication
        Service/liqo-metric-agent ServiceAccount/liqo-metric-agent";
    wanted.extend(metrics.split_whitespace().map(str::to_owned));
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
    wanted.extend(chart::peers::component_policies());
    assert_eq!(names(&with(&[])), wanted);
    let status = "
        ClusterRole/liqo-status ClusterRoleBinding/liqo-status Deployment/liqo-status NetworkPolicy/liqo-status Role/liqo-status
        RoleBinding/liqo-status RoleBinding/liqo-status-client-authorities Service/liqo-status ServiceAccount/liqo-status";
    wanted.extend(status.split_whitespace().map(str::to_owned));
    assert_eq!(names(&with(&[STATUS])), wanted);
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
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": auth,
               "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8443}]})
    );
    assert_eq!(objects["Deployment/liqo-auth"]["spec"]["selector"]["matchLabels"], auth);
    let mut metrics = selector("metric-agent", "metrics");
    metrics["run"] = json!("metric-agent");
    assert_eq!(
        objects["Service/liqo-metric-agent"]["spec"],
        json!({"type": "ClusterIP", "selector": metrics,
               "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8443}]})
    );
    assert_eq!(objects["Deployment/liqo-metric-agent"]["spec"]["selector"]["matchLabels"], metrics);
    assert_eq!(
        objects["APIService/v1alpha1.metrics.liqo.io"]["spec"],
        json!({"group": "metrics.liqo.io", "version": "v1alpha1", "groupPriorityMinimum": 1000, "versionPriority": 15,
               "insecureSkipTLSVerify": true, "service": {"name": "liqo-metric-agent", "namespace": "liqo", "port": 443}})
    );
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

/// The argument with the limits of objects in each namespace of a peer.
const OBJECTS: &str = "--guest-objects=configmaps=200,count/ingresses.networking.k8s.io=200,\
                       count/shadowendpointslices.virtualkubelet.liqo.io=1000,count/shadowpods.virtualkubelet.liqo.io=2000,\
                       persistentvolumeclaims=200,pods=1000,requests.storage=10Ti,secrets=500,services=500";

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
            OBJECTS,
            "--kubelet-extra-args=--enable-apiserver-support=true",
            // Without a request of memory the limit would be one.
            "--kubelet-ram-requests=32Mi",
            "--kubelet-ram-limits=512Mi",
            "--offer-update-threshold-percentage=5",
            "--withdrawal-deadline=5m",
            "--namespaces-per-peer=64",
            "--free-names=*",
            "--pod-security=baseline",
            "--enable-authentication=true",
            "--accept-cluster-token=true",
            "--pin-certificate=true",
            "--identity-lifetime=168h",
            "--max-tenants=256",
            "--own-networks=10.244.0.0/16,10.96.0.0/12",
            "--reserved-namespaces=default,openshift,openshift-*,*-system,cert-manager,istio-*,linkerd*,monitoring,logging,\
             ingress-nginx,argo,argo-*,argocd,vault,cattle-*,tigera-operator,velero,crossplane*,external-secrets,external-dns,\
             sealed-secrets,gatekeeper,kyverno,falco,keda,knative-*,tekton-*,rook-*,longhorn,\
             spire",
        ]
    );
    assert_eq!(
        args(&objects, "liqo-crd-replicator"),
        ["--cluster-name=rome", "--liqo-namespace=$(POD_NAMESPACE)", "--own-networks=10.244.0.0/16,10.96.0.0/12",]
    );
    assert_eq!(
        args(&objects, "liqo-auth"),
        [
            "--namespace=$(POD_NAMESPACE)",
            "--controller-manager=liqo-controller-manager.$(POD_NAMESPACE).svc:9443",
            "--address=:8443",
            "--enable-tls",
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
        "--set=offloading.podSecurity=restricted,offloading.reservedNamespaces={default,a-*},offloading.freeNames={lab-*}",
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
            OBJECTS,
            "--kubelet-extra-annotations=c=d",
            "--kubelet-extra-labels=a=b",
            "--kubelet-extra-args=--node-check-network=true,--enable-apiserver-support=true,--disable-ip-reflection",
            "--node-extra-annotations=g=h",
            "--node-extra-labels=e=f",
            "--v=4",
            "--cluster-labels=region=eu",
            "--enable-leader-election=true",
            "--kubelet-cpu-requests=1",
            "--kubelet-ram-requests=32Mi",
            "--kubelet-ram-limits=1Gi",
            "--resource-plugin-address=plugin:6000",
            "--offer-update-threshold-percentage=0",
            "--withdrawal-deadline=90s",
            "--namespaces-per-peer=8",
            "--free-names=lab-*",
            "--pod-security=restricted",
            "--enable-authentication=true",
            "--accept-cluster-token=true",
            "--pin-certificate=true",
            "--identity-lifetime=168h",
            "--max-tenants=256",
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
        "--set=offloading.guests.objects.services=null,offloading.guests.objects.pods=5,offloading.guests.privileged=true",
        "--set=offloading.guests.networks={10.9.0.0/16},offloading.guests.volumes={nfs,csi}",
    ];
    assert_eq!(
        guests(&more),
        [
            "--guest-networks=10.9.0.0/16",
            "--guest-tolerations=gpu,spot",
            "--guest-volumes=nfs,csi",
            "--guest-runtime-class=gvisor",
            "--guest-privileged",
            &OBJECTS.replace("pods=1000", "pods=5").replace(",services=500", ""),
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
            "--namespace=$(POD_NAMESPACE)",
            "--controller-manager=liqo-controller-manager.$(POD_NAMESPACE).svc:9443",
            "--address=:5000",
        ]
    );
    let said = args(&objects, "liqo-controller-manager");
    for flag in [
        "--enable-authentication=false",
        "--accept-cluster-token=false",
        "--pin-certificate=false",
        "--identity-lifetime=24h",
        "--max-tenants=5000000",
        "--advertise-api-server-address=https://10.0.0.1:6443",
        "--advertise-api-server-trusted-ca",
    ] {
        assert!(said.contains(&flag.to_owned()), "{flag} is not in {said:?}");
    }
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
