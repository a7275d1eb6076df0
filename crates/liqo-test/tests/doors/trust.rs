//! Values of rome about objects, names and numbers of peers, each tried before and after its change.

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{Cluster, run::feed, stage::LONG, wait_for};
use serde_json::{Value, json};

use super::guests::{id_of, shadow};

/// The changes.
pub(crate) const VALUES: [&str; 12] = [
    "offloading.freeNames={lab-*}",
    "offloading.guests.objects.pods=77",
    "offloading.guests.objects.services=null",
    "offloading.guests.volumes={nfs}",
    "peerPolicy.allowedServiceTypes={ClusterIP,ExternalName}",
    "peerPolicy.allowedExternalIPs={198.51.100.7}",
    "peerPolicy.ingressClasses={public}",
    "peerPolicy.ingressAnnotations={nginx.example/}",
    "peerPolicy.storageClasses={fast}",
    "peerPolicy.largestObject=8192",
    "peerPolicy.deniedMetadata={copier.example/}",
    "peerPolicy.protectNamespaceLabels=false",
];

/// Whether [`VALUES`] are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    Before,
    After,
}

/// A request of milan: the value that refuses it, and the only time at which it is admitted.
type Case = (&'static str, Value, Time);

/// Each request is admitted at one time and refused at the other.
pub(crate) fn requests(rome: &Cluster, milan: &Cluster, there: &str, time: Time) -> Result<()> {
    let id = id_of(milan)?;
    for (value, object, admitted) in cases(&id, there) {
        let words = ["create", "--dry-run=server", "--validate=false", "-f", "-", "--as", &id, "--as-group=liqo.io"];
        let outcome = feed(rome.kubectl_command().args(words), &object.to_string());
        let is_right = match &outcome {
            Ok(_) => time == admitted,
            Err(error) => time != admitted && format!("{error:#}").contains(value),
        };
        ensure!(is_right, "{time:?}, {value}, {object}: {outcome:?}");
    }
    Ok(())
}

fn cases(id: &str, there: &str) -> Vec<Case> {
    let labels = json!({"virtualkubelet.liqo.io/origin": id});
    let object = |api: &str, kind: &str, fields: Value| {
        let mut object = json!({"apiVersion": api, "kind": kind,
            "metadata": {"name": "asked", "namespace": there, "labels": labels}});
        for (key, value) in fields.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    let service = |spec: Value| object("v1", "Service", json!({ "spec": spec }));
    let ports = json!([{"port": 80}]);
    let ingress = |class: &str, annotations: Value| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
        let rules = json!([{"host": "cakes.shop.example", "http": {"paths": paths}}]);
        let mut made =
            object("networking.k8s.io/v1", "Ingress", json!({"spec": {"ingressClassName": class, "rules": rules}}));
        made["metadata"]["annotations"] = annotations;
        made
    };
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "resources": {"requests": {"storage": "1Mi"}}});
    let copied = |key: &str| {
        let mut made = object("v1", "ConfigMap", json!({}));
        made["metadata"]["annotations"] = json!({ key: "everywhere" });
        made
    };
    let share = json!({"volumes": [{"name": "share", "nfs": {"server": "192.0.2.1", "path": "/"}}]});
    vec![
        ("offloading.guests.volumes", shadow(id, there, &share), Time::After),
        (
            "peerPolicy.allowedServiceTypes",
            service(json!({"type": "ExternalName", "externalName": "a.example"})),
            Time::After,
        ),
        (
            "peerPolicy.allowedExternalIPs",
            service(json!({"ports": ports, "externalIPs": ["198.51.100.7"]})),
            Time::After,
        ),
        ("peerPolicy.ingressClasses", ingress("internal", json!({})), Time::Before),
        ("peerPolicy.ingressAnnotations", ingress("public", json!({"nginx.example/snippet": "x"})), Time::After),
        ("peerPolicy.storageClasses", object("v1", "PersistentVolumeClaim", json!({ "spec": claim })), Time::Before),
        (
            "peerPolicy.largestObject",
            object("v1", "ConfigMap", json!({"data": {"a": "x".repeat(10_000)}})),
            Time::Before,
        ),
        ("peerPolicy.deniedMetadata", copied("copier.example/to"), Time::Before),
        ("peerPolicy.deniedMetadata", copied("replicator.v1.mittwald.de/replicate-to"), Time::After),
    ]
}

/// A namespace of milan whose name milan chooses: rome makes one with that name, or none.
pub(crate) fn names(rome: &Cluster, milan: &Cluster, name: &str, time: Time) -> Result<()> {
    milan.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}"))?;
    milan.apply(&format!(
        "apiVersion: offloading.liqo.io/v1alpha1\nkind: NamespaceOffloading\nmetadata: {{name: offloading, namespace: {name}}}\nspec: \
         {{namespaceMappingStrategy: EnforceSameName}}"
    ))?;
    let wanted = if time == Time::Before { "Ready" } else { "AllFailed" };
    wait_for(&format!("offloading {name} is {wanted}"), LONG, || {
        let phase = milan.json(&["nsof", "-n", name, "offloading"])?["status"]["offloadingPhase"].clone();
        if phase == wanted { Ok(Some(())) } else { bail!("{phase}") }
    })?;
    let is_there = rome.items(&["namespaces"])?.iter().any(|one| one["metadata"]["name"] == name);
    ensure!(is_there == (time == Time::Before), "{time:?}: rome has a namespace called {name}: {is_there}");
    Ok(())
}

/// The numbers of objects in the namespaces of milan are those of the values; a number that is taken away is no limit.
pub(crate) fn numbers(rome: &Cluster, there: &str, time: Time) -> Result<()> {
    let wanted = if time == Time::Before { json!(["1k", "500"]) } else { json!(["77", null]) };
    wait_for(&format!("pods and services of a guest are limited to {wanted}"), LONG, || {
        let quota = rome.json(&["resourcequota", "-n", there, "liqo-objects"])?;
        let found = json!([quota["spec"]["hard"]["pods"], quota["spec"]["hard"]["services"]]);
        if found == wanted { Ok(Some(())) } else { bail!("{found}") }
    })
}

/// Without the value, nothing but RBAC protects the labels that say whose a namespace is; the other policies are there.
pub(crate) fn labels_are_free(rome: &Cluster) -> Result<()> {
    let all = rome.items(&["validatingadmissionpolicies", "-l", "app.kubernetes.io/part-of=liqo"])?;
    let name = |one: &Value| one["metadata"]["name"].as_str().map(str::to_owned);
    let names = all.iter().map(name).collect::<Option<Vec<_>>>().context("a policy has a name")?;
    ensure!(names.iter().any(|name| name == "liqo-peer-reflected"), "rome has no policies for peers: {names:?}");
    ensure!(!names.iter().any(|name| name == "liqo-namespace-labels"), "rome protects labels of namespaces: {names:?}");
    Ok(())
}
