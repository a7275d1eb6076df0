//! The definitions and the chart on a real API server.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::PathBuf, sync::Mutex, time::Duration};

use anyhow::Result;
use liqo_test::{
    Cluster, ClusterSpec, Story, Testbed, assets,
    run::{command, feed, output},
};
use serde_json::{Value, json};

/// Two cores are not enough for two test beds at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const ID: &str = "09897b82-7830-483b-b786-9cf90899f809";

fn chart() -> PathBuf {
    assets::source().join("deploy/chart")
}

/// A cluster that knows our kinds.
fn with_definitions(bed: &Testbed) -> Cluster {
    let cluster = bed.cluster(ClusterSpec::new("rome", 1)).unwrap();
    let crds = chart().join("crds").display().to_string();
    cluster.kubectl(&["apply", "-f", &crds]).unwrap();
    cluster.wait(&["--for=condition=Established", "-f", &crds], Duration::from_secs(20)).unwrap();
    cluster
}

/// What a real Liqo 0.8.3 stored, our definitions store: nothing is refused, dropped or added.
#[test]
fn recorded_objects_are_stored_as_they_are() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|poison| poison.into_inner());
    let _story = Story::begin("api-objects");
    let bed = Testbed::new("api-objects").unwrap();
    let cluster = with_definitions(&bed);
    let golden = assets::source().join("crates/liqo-api/tests/golden");
    let mut count = 0;
    for side in ["consumer", "provider"] {
        for entry in fs::read_dir(golden.join(side)).unwrap() {
            let file = entry.unwrap().path().display().to_string();
            for object in documents(&cluster, &file) {
                let stored = store(&cluster, &object).unwrap_or_else(|error| panic!("{file}: {error:#}"));
                assert_eq!(stored["spec"], object["spec"], "{file}");
                assert_eq!(stored["status"], object["status"], "{file}");
                cluster
                    .kubectl(&["delete", "--wait=false", "-n", namespace(&object), &resource(&object), name(&object)])
                    .unwrap();
                count += 1;
            }
        }
    }
    assert!(count >= 22, "{count} objects");
    defaults_are_filled_in(&cluster);
    nonsense_is_refused(&cluster);
    offloading_has_two_versions(&cluster);
}

/// The objects of a file of recordings, without what only the recorded cluster can have said.
fn documents(cluster: &Cluster, file: &str) -> Vec<Value> {
    let printed =
        cluster.kubectl(&["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", file]).unwrap();
    let mut objects: Vec<Value> =
        serde_json::Deserializer::from_str(&printed).into_iter().collect::<serde_json::Result<_>>().unwrap();
    for object in &mut objects {
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
    }
    objects
}

/// Creates the object, then writes its status if it has one, as components do.
fn store(cluster: &Cluster, object: &Value) -> Result<Value> {
    let namespace = namespace(object);
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string())?;
    let kubectl = |args: &[&str]| kubectl(cluster, args, object);
    let printed = kubectl(&["create", "-o", "json", "-f", "-"])?;
    if object.get("status").is_none() {
        return Ok(serde_json::from_str(&printed)?);
    }
    let patch = json!({"status": object["status"]}).to_string();
    let (resource, name) = (resource(object), name(object));
    let status = ["--subresource=status", "--type=merge", "-o", "json", "-p", &patch];
    Ok(serde_json::from_str(&cluster.kubectl(&[&["patch", "-n", namespace, &resource, name], &status[..]].concat())?)?)
}

fn defaults_are_filled_in(cluster: &Cluster) {
    let dry = |object: Value| -> Value {
        let printed = kubectl(cluster, &["create", "--dry-run=server", "-o", "json", "-f", "-"], &object).unwrap();
        serde_json::from_str(&printed).unwrap()
    };
    let object = |kind: &str, spec: Value| json!({"apiVersion": version(kind), "kind": kind, "metadata": {"name": "x"}, "spec": spec});
    assert_eq!(
        dry(object("ForeignCluster", json!({"foreignAuthUrl": "https://10.0.0.1:8443"})))["spec"],
        json!({"foreignAuthUrl": "https://10.0.0.1:8443", "insecureSkipTLSVerify": true, "peeringType": "OutOfBand",
               "incomingPeeringEnabled": "Auto", "outgoingPeeringEnabled": "Auto"})
    );
    assert_eq!(
        dry(object("NamespaceOffloading", json!({})))["spec"],
        json!({"namespaceMappingStrategy": "DefaultName", "podOffloadingStrategy": "LocalAndRemote"})
    );
    let slice = object("ShadowEndpointSlice", json!({"template": {"addressType": "IPv4", "ports": [{"port": 80}]}}));
    assert_eq!(dry(slice)["spec"]["template"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    let offer = json!({"clusterId": "x", "resourceQuota": {"hard": {"cpu": 2, "memory": "1Gi"}}});
    assert_eq!(dry(object("ResourceOffer", offer.clone()))["spec"], offer);
    let map = json!({"apiVersion": version("NamespaceMap"), "kind": "NamespaceMap", "metadata": {"name": "x"}});
    assert_eq!(dry(map)["spec"], json!({}));
}

fn nonsense_is_refused(cluster: &Cluster) {
    for (kind, spec, wanted) in [
        ("ForeignCluster", json!({"foreignAuthUrl": "http://10.0.0.1"}), "spec.foreignAuthUrl"),
        ("ForeignCluster", json!({"foreignAuthUrl": "https://a.b", "peeringType": "Some"}), "spec.peeringType"),
        ("ForeignCluster", json!({"foreignAuthUrl": "https://a.b", "ttl": -1}), "spec.ttl"),
        ("ForeignCluster", Value::Null, "spec: Required value"),
        ("ResourceRequest", json!({"authUrl": "https://a.b"}), "spec.clusterIdentity: Required value"),
        ("ResourceRequest", Value::Null, "spec: Required value"),
        (
            "ResourceOffer",
            json!({"clusterId": "x", "resourceQuota": {"hard": {"cpu": "two"}}}),
            "spec.resourceQuota.hard.cpu",
        ),
        ("ResourceOffer", json!({"clusterId": "x", "withdrawalTimestamp": "now"}), "spec.withdrawalTimestamp"),
        ("ShadowPod", json!({"pod": {}}), "spec.pod.containers: Required value"),
    ] {
        let mut object = json!({"apiVersion": version(kind), "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        if object["spec"].is_null() {
            object.as_object_mut().unwrap().remove("spec");
        }
        let args = ["create", "--dry-run=server", "--validate=false", "-f", "-"];
        let error = format!("{:#}", kubectl(cluster, &args, &object).expect_err(wanted));
        assert!(error.contains(wanted), "{kind}: {error}");
    }
}

fn offloading_has_two_versions(cluster: &Cluster) {
    let object = json!({"apiVersion": "offloading.liqo.io/v1beta1", "kind": "NamespaceOffloading",
                        "metadata": {"name": "offloading", "namespace": "default"}, "spec": {"podOffloadingStrategy": "Local"}});
    cluster.apply(&object.to_string()).unwrap();
    let old = "namespaceoffloadings.v1alpha1.offloading.liqo.io";
    let printed = cluster
        .kubectl(&["get", old, "offloading", "-o", "jsonpath={.apiVersion} {.spec.podOffloadingStrategy}"])
        .unwrap();
    assert_eq!(printed, "offloading.liqo.io/v1alpha1 Local");
}

/// Upgrades, rollbacks and tools that render offline leave alone what the components wrote.
#[test]
fn helm_leaves_identity_and_certificates_alone() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|poison| poison.into_inner());
    let _story = Story::begin("api-chart");
    let bed = Testbed::new("api-chart").unwrap();
    let cluster = bed.cluster(ClusterSpec::new("rome", 1)).unwrap();
    helm(&cluster, "install", &["--create-namespace"]).unwrap();
    act_as_the_controller_manager(&cluster);
    let written = written(&cluster);
    assert_eq!(written, vec![ID.to_owned(), ca(&cluster)]);

    let labels = "--set=discovery.config.clusterLabels.a=b";
    let same = format!("--set=discovery.config.clusterIDOverride={ID}");
    helm(&cluster, "upgrade", &[labels]).unwrap();
    assert_eq!(self::written(&cluster), written, "after an upgrade");
    helm(&cluster, "upgrade", &[&same]).unwrap();
    let other = format!("--set=discovery.config.clusterIDOverride=1{}", ID.split_at(1).1);
    let error = format!("{:#}", helm(&cluster, "upgrade", &[&other]).unwrap_err());
    assert!(
        error.contains(
            "Changing the cluster ID by providing a different .discovery.config.clusterIDOverride value is not allowed."
        ),
        "{error}"
    );
    output(bare_helm(&cluster).args(["rollback", "liqo", "1"])).unwrap();
    assert_eq!(self::written(&cluster), written, "after a rollback to before the override");

    let rendered = helm(&cluster, "template", &[]).unwrap();
    let mut apply = cluster.kubectl_command();
    apply.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
    feed(&mut apply, &rendered).unwrap();
    assert_eq!(self::written(&cluster), written, "after a tool that renders offline");

    output(bare_helm(&cluster).args(["uninstall", "liqo"])).unwrap();
    helm(&cluster, "install", &[]).unwrap();
    assert_eq!(self::written(&cluster)[0], ID, "the same cluster after a new installation");
}

/// What the components do at run time.
fn act_as_the_controller_manager(cluster: &Cluster) {
    let identity = json!({"metadata": {"annotations": {"discovery.liqo.io/cluster-id-generated": "true"}}, "data": {"CLUSTER_ID": ID}});
    let patch = identity.to_string();
    let manager = "--field-manager=liqo-controller-manager";
    cluster
        .kubectl(&[
            "-n",
            "liqo",
            "patch",
            "configmap",
            "liqo-clusterid-configmap",
            manager,
            "--type=merge",
            "-p",
            &patch,
        ])
        .unwrap();
    let ca = ca(cluster);
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let names = cluster.kubectl(&["get", kind, "liqo-webhook", "-o", "jsonpath={.webhooks[*].name}"]).unwrap();
        let set = |i| json!({"op": "add", "path": format!("/webhooks/{i}/clientConfig/caBundle"), "value": ca});
        let patch = json!((0..names.split_whitespace().count()).map(set).collect::<Vec<_>>()).to_string();
        cluster.kubectl(&["patch", kind, "liqo-webhook", manager, "--type=json", "-p", &patch]).unwrap();
    }
}

/// The cluster's ID and the distinct certificates of the webhooks. A webhook that was rendered for an older version of
/// Kubernetes is new to this cluster and has no certificate until a controller manager runs.
fn written(cluster: &Cluster) -> Vec<String> {
    let id = cluster.kubectl(&[
        "-n",
        "liqo",
        "get",
        "configmap",
        "liqo-clusterid-configmap",
        "-o",
        "jsonpath={.data.CLUSTER_ID}",
    ]);
    let mut words = vec![id.unwrap()];
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let path = r#"jsonpath={range .webhooks[*]}{.clientConfig.caBundle}{"\n"}{end}"#;
        let bundles = cluster.kubectl(&["get", kind, "liqo-webhook", "-o", path]).unwrap();
        words.extend(bundles.lines().filter(|bundle| !bundle.is_empty()).map(str::to_owned));
    }
    words.dedup();
    words
}

/// Some certificate: the API server refuses a bundle that is none.
fn ca(cluster: &Cluster) -> String {
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).unwrap();
    let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("certificate-authority-data: "));
    line.unwrap().to_owned()
}

fn bare_helm(cluster: &Cluster) -> std::process::Command {
    let mut helm = command("helm");
    helm.env("KUBECONFIG", cluster.kubeconfig()).args(["--namespace", "liqo"]);
    helm
}

fn helm(cluster: &Cluster, verb: &str, more: &[&str]) -> Result<String> {
    let mut helm = bare_helm(cluster);
    helm.args([verb, "liqo"]).arg(chart()).args(["--set=discovery.config.clusterName=rome,networking.internal=false"]);
    output(helm.args(more))
}

fn kubectl(cluster: &Cluster, args: &[&str], object: &Value) -> Result<String> {
    feed(cluster.kubectl_command().args(args), &object.to_string())
}

fn version(kind: &str) -> String {
    let group = match kind {
        "ForeignCluster" | "ResourceRequest" => "discovery",
        "NamespaceOffloading" => "offloading",
        "ResourceOffer" => "sharing",
        _ => "virtualkubelet",
    };
    format!("{group}.liqo.io/v1alpha1")
}

/// `kind.version.group`, which kubectl takes for the resource.
fn resource(object: &Value) -> String {
    let (group, version) = text(&object["apiVersion"]).split_once('/').unwrap();
    format!("{}.{version}.{group}", text(&object["kind"]))
}

fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("default")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
