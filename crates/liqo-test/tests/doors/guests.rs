//! Pods, namespaces and Ingresses of a peer where the provider has changed the values about guests.
//!
//! The tests act as the peer by impersonation, with dry runs: admission answers as it answers the peer itself.

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{Cluster, Stage, run::feed, stage::LONG, wait_for};
use serde_json::{Value, json};

use super::older::By;

/// A request with its name, and the words of its refusal; `None`: admitted.
type Case = (&'static str, Value, Option<&'static str>);

/// A namespace with a reserved name stays in the consumer, and its user is told.
pub(crate) fn reserved_names_are_taken(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    milan.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: lab-one}")?;
    let offloading = "apiVersion: offloading.liqo.io/v1alpha1\nkind: NamespaceOffloading\nmetadata: {name: offloading, \
                      namespace: lab-one}\nspec: {namespaceMappingStrategy: EnforceSameName}";
    milan.apply(offloading)?;
    wait_for("milan is refused the namespace", LONG, || {
        let phase = milan.json(&["nsof", "-n", "lab-one", "offloading"])?["status"]["offloadingPhase"].clone();
        if phase == "AllFailed" { Ok(Some(())) } else { bail!("{phase}") }
    })?;
    let names = rome.items(&["namespaces"])?;
    ensure!(
        !names.iter().any(|one| one["metadata"]["name"] == "lab-one"),
        "rome made a namespace with a reserved name"
    );
    milan.kubectl(&["delete", "namespace", "lab-one"]).map(drop)
}

/// A pod of milan with a toleration, class or annotation that an allow-list of `offloading.guests` names is admitted; a pod with another
/// one is refused.
pub(crate) fn get_what_values_allow(rome: &Cluster, milan: &Cluster, by: By) -> Result<()> {
    let (id, there) = (&*id_of(milan)?, &*remote(rome, milan)?);
    let pods = pods().into_iter().map(|(what, pod, refused)| (what, shadow(id, there, &pod), refused));
    let cases = pods.chain(objects(id, there));
    for (what, object, refused) in cases {
        let words = ["create", "--dry-run=server", "--validate=false", "-f", "-", "--as", id, "--as-group=liqo.io"];
        let outcome = feed(rome.kubectl_command().args(words), &object.to_string());
        match (outcome, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) if format!("{error:#}").contains(words) => {
                let webhook = object["kind"] == "ShadowPod";
                ensure!(webhook || by.refused(&error), "{what}: {error:#} is not said by {by:?}");
            }
            (outcome, _) => bail!("{what}: {outcome:?}"),
        }
    }
    below_the_standard(rome, there)
}

/// The ID of a cluster.
pub(crate) fn id_of(cluster: &Cluster) -> Result<String> {
    let map = cluster.json(&["configmap", "-n", "liqo", "liqo-clusterid-configmap"])?;
    map["data"]["CLUSTER_ID"].as_str().map(str::to_owned).context("the cluster has no ID")
}

/// The namespace of rome that was made for milan.
pub(crate) fn remote(rome: &Cluster, milan: &Cluster) -> Result<String> {
    let namespaces = rome.items(&["namespaces", "-l", &format!("liqo.io/remote-cluster-id={}", id_of(milan)?)])?;
    let first = namespaces.first().and_then(|one| one["metadata"]["name"].as_str());
    first.map(str::to_owned).context("rome has no namespace of milan")
}

/// The namespaces of a peer have the Pod Security Standard of the provider, for whoever makes pods there.
fn below_the_standard(rome: &Cluster, there: &str) -> Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: root, namespace: {there}}}\nspec: {{containers: [{{name: c, image: \
         'localhost/busybox:1'}}]}}"
    );
    let outcome = feed(rome.kubectl_command().args(["create", "--dry-run=server", "-f", "-"]), &pod);
    let Err(error) = outcome else { bail!("a pod below the standard is admitted in {there}") };
    let text = format!("{error:#}");
    ensure!(text.contains("PodSecurity \"restricted"), "{text}");
    Ok(())
}

/// More fields of a pod's spec, and the annotations of its metadata under `annotations`.
fn pods() -> Vec<Case> {
    let gpu = |key: &str| json!({"tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"}]});
    let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
    vec![
        ("a pod like any", json!({}), None),
        ("the toleration", gpu("example.org/gpu"), None),
        ("another toleration", gpu("example.org/other"), Some("offloading.guests.tolerations")),
        ("the class", json!({"priorityClassName": "guest-batch"}), None),
        ("another class", json!({"priorityClassName": "guest-first"}), Some("offloading.guests.priorityClasses")),
        ("the sandbox", json!({"runtimeClassName": "guest-sandbox"}), None),
        ("another sandbox", json!({"runtimeClassName": "bare"}), Some("offloading.guests.runtimeClasses")),
        ("the network", json!({"annotations": {"k8s.v1.cni.cncf.io/networks": "a"}}), None),
        (
            "another key",
            json!({"annotations": {"sidecar.istio.io/inject": "true"}}),
            Some("offloading.guests.annotations"),
        ),
        ("a sysctl of the pod", sysctl("net.ipv4.tcp_syncookies"), None),
        ("a sysctl of the node", sysctl("kernel.msgmax"), Some("sysctl \"kernel.msgmax\"")),
        ("an account", json!({"serviceAccountName": "deployer"}), Some("pods of peers have no account")),
    ]
}

/// A `ShadowPod` of a peer; `more`: fields of the pod, and its annotations.
pub(crate) fn shadow(id: &str, namespace: &str, more: &Value) -> Value {
    let mut pod = json!({"containers": [{"name": "c", "image": "localhost/busybox:1"}]});
    let mut annotations = json!({});
    for (key, value) in more.as_object().into_iter().flatten() {
        match key.as_str() {
            "annotations" => annotations = value.clone(),
            _ => pod[key] = value.clone(),
        }
    }
    let labels = json!({"virtualkubelet.liqo.io/origin": id});
    json!({
        "apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": "ShadowPod",
        "metadata": {"name": "asked", "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": {"pod": pod},
    })
}

/// What the rules for peers are about.
fn objects(id: &str, there: &str) -> Vec<Case> {
    let meta = |origin: &str| json!({"name": "asked", "namespace": there, "labels": {"virtualkubelet.liqo.io/origin": origin}});
    let ingress = |host: &str| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let rule = json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta(id), "spec": {"rules": [rule]}})
    };
    let secret = |origin: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta(origin)});
    vec![
        ("a host below the suffix", ingress("cakes.shop.example"), None),
        ("a host of somebody else", ingress("bank.example"), Some("peerPolicy.ingressHostSuffixes")),
        ("its own Secret", secret(id), None),
        ("the Secret of another", secret("other"), Some("with its own cluster ID")),
    ]
}
