//! What kubeadm would have put into a fresh cluster: the administrators' role, DNS, and a pod that carries the
//! controller manager's command line, where installers read the CIDRs.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Cluster, control_plane};
use crate::wait_for;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const SYSTEM: &str = "/api/v1/namespaces/kube-system";

pub(super) fn create(cluster: &Cluster) -> Result<()> {
    let api = cluster.api();
    // kubeadm's admin.conf has no rights of its own.
    api.create(
        &format!("{RBAC}/clusterrolebindings"),
        &binding(
            "kubeadm:cluster-admins",
            "cluster-admin",
            &json!({"kind": "Group", "name": "kubeadm:cluster-admins"}),
        ),
    )?;
    // The namespace exists a moment after the API server says that it lives.
    wait_for("namespace kube-system", Duration::from_secs(20), || api.text(SYSTEM).map(Some))?;
    for (collection, object) in dns(cluster) {
        api.create(&collection, &object)?;
    }
    // A pod is admitted once the controller manager has made the namespace's service account.
    let pod = command_line(cluster);
    wait_for("service account of kube-system", Duration::from_secs(20), || {
        api.create(&format!("{SYSTEM}/pods"), &pod).map(Some)
    })
}

/// Waits until the cluster's DNS answers and pods can be made in the namespace `default`.
pub(super) fn wait(cluster: &Cluster) -> Result<()> {
    let api = cluster.api();
    wait_for("CoreDNS", Duration::from_secs(60), || {
        let deployment = api.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns")?;
        Ok((deployment["status"]["readyReplicas"] == 1).then_some(()))
    })?;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    wait_for("default service account", Duration::from_secs(20), || api.text(account).map(Some)).map(drop)
}

fn dns(cluster: &Cluster) -> Vec<(String, Value)> {
    let (named, labels) = (json!({"name": "coredns"}), json!({"k8s-app": "kube-dns"}));
    let corefile = ".:53 {\n  errors\n  health\n  ready\n  \
        kubernetes cluster.local in-addr.arpa ip6.arpa {\n    pods insecure\n    fallthrough in-addr.arpa ip6.arpa\n  }\n  \
        cache 5\n  reload\n}\n";
    let rules = json!([
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces", "nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    let account = json!({"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"});
    let service = json!({"metadata": {"name": "kube-dns", "labels": labels}, "spec": {
        "selector": labels, "clusterIP": cluster.dns_ip(),
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}});
    vec![
        (format!("{SYSTEM}/serviceaccounts"), json!({"metadata": named})),
        (format!("{RBAC}/clusterroles"), json!({"metadata": {"name": "system:coredns"}, "rules": rules})),
        (format!("{RBAC}/clusterrolebindings"), binding("system:coredns", "system:coredns", &account)),
        (format!("{SYSTEM}/configmaps"), json!({"metadata": named, "data": {"Corefile": corefile}})),
        ("/apis/apps/v1/namespaces/kube-system/deployments".to_owned(), deployment(&labels)),
        (format!("{SYSTEM}/services"), service),
    ]
}

fn deployment(labels: &Value) -> Value {
    json!({"metadata": {"name": "coredns", "labels": labels}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "serviceAccountName": "coredns", "priorityClassName": "system-cluster-critical", "dnsPolicy": "Default",
            "tolerations": [{"operator": "Exists"}], "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
            "containers": [{
                "name": "coredns", "image": "localhost/coredns:1", "imagePullPolicy": "IfNotPresent",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "ports": [{"containerPort": 53, "protocol": "UDP", "name": "dns"}, {"containerPort": 53, "protocol": "TCP", "name": "dns-tcp"}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}]}],
            "volumes": [{"name": "config", "configMap": {"name": "coredns"}}]}}}})
}

fn binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({"metadata": {"name": name}, "subjects": [subject],
           "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
}

/// The pod that kubeadm's static manifest would show. Its image is pause, under the component's name.
fn command_line(cluster: &Cluster) -> Value {
    let flags = control_plane::controller_manager(cluster);
    let command = control_plane::words("kube-controller-manager", &flags);
    json!({"metadata": {
        "name": format!("kube-controller-manager-{}", cluster.first()),
        "labels": {"component": "kube-controller-manager", "tier": "control-plane"}},
      "spec": {
        "nodeName": cluster.first(), "hostNetwork": true, "priorityClassName": "system-node-critical",
        "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "kube-controller-manager", "image": "localhost/pause:1",
                        "imagePullPolicy": "IfNotPresent", "command": command}]}})
}
