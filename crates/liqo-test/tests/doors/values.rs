//! Values of rome that are set later than the others: before, each request gets the opposite answer.

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{
    Cluster, Stage,
    run::{feed, inside, write},
    stage::{LONG, on},
    wait_for,
};
use serde_json::{Value, json};

use super::{
    guests::{id_of, remote, shadow},
    trust::{self, Time},
};

/// An endpoint of milan that is in none of the networks that rome allows later.
const OUTSIDE: &str = "192.0.2.9";
const TRUSTING: [&str; 4] = [
    "offloading.podSecurity=privileged",
    "offloading.guests.privileged=true",
    "offloading.guests.runtimeClass=guest-sandbox",
    "offloading.guests.networks={10.20.0.0/16}",
];

/// Pods of milan may control the nodes of rome, run in the sandbox, and have endpoints in one network only.
pub(crate) fn guests_are_trusted(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let there = remote(rome, milan)?;
    let refused = privileged(rome, milan, &there).err().context("a privileged pod is admitted")?;
    ensure!(format!("{refused:#}").contains("privileged"), "{refused:#}");
    ensure!(classes(rome, &there, "later")? == [Value::Null], "a pod has a class before a value says so");
    milan.apply(&outside("demo"))?;
    endpoints(rome, &there, true)?;
    trust::requests(rome, milan, &there, Time::Before)?;
    trust::numbers(rome, &there, Time::Before)?;
    trust::names(rome, milan, "free-one", Time::Before)?;

    rome.apply("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: guest-sandbox}\nhandler: runc")?;
    let values: Vec<_> = TRUSTING.iter().chain(&trust::VALUES).flat_map(|value| ["--set", value]).collect();
    stage.install(rome, "rome", &values)?;
    wait_for("a privileged pod is admitted", LONG, || privileged(rome, milan, &there).map(Some))?;
    trust::requests(rome, milan, &there, Time::After)?;
    trust::numbers(rome, &there, Time::After)?;
    trust::names(rome, milan, "other-one", Time::After)?;
    trust::labels_are_free(rome)?;
    milan.web("demo", "boxed", 1, &on("rome"))?;
    milan.rolled_out("demo", "boxed")?;
    ensure!(classes(rome, &there, "boxed")? == ["guest-sandbox"], "a pod of milan is not in the sandbox");
    ensure!(classes(rome, &there, "later")? == [Value::Null], "a pod that ran was made anew");
    endpoints(rome, &there, false)
}

/// What admission says to a privileged pod of milan.
fn privileged(rome: &Cluster, milan: &Cluster, there: &str) -> Result<()> {
    let id = id_of(milan)?;
    let mut pod = shadow(&id, there, &json!({}));
    pod["spec"]["pod"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let words = ["create", "--dry-run=server", "--validate=false", "-f", "-", "--as", &id, "--as-group=liqo.io"];
    feed(rome.kubectl_command().args(words), &pod.to_string()).map(drop)
}

/// The runtime classes of the pods of an application.
fn classes(rome: &Cluster, there: &str, app: &str) -> Result<Vec<Value>> {
    let pods = rome.items(&["pods", "-n", there, "-l", &format!("app={app}")])?;
    Ok(pods.iter().map(|pod| pod["spec"]["runtimeClassName"].clone()).collect())
}

/// A Service of milan with one endpoint, which is not in milan.
fn outside(namespace: &str) -> String {
    let meta =
        |name: &str| json!({"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": "outside"}});
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("outside"), "spec": {"ports": [{"port": 80}]}});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("outside-1"), "addressType": "IPv4",
        "ports": [{"port": 80}], "endpoints": [{"addresses": [OUTSIDE], "conditions": {"ready": true}}],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [service, slice]}).to_string()
}

/// Waits until rome has, or has not, the endpoint outside; those of the pods of milan stay.
fn endpoints(rome: &Cluster, there: &str, wanted: bool) -> Result<()> {
    wait_for(&format!("rome has the endpoint {OUTSIDE}: {wanted}"), LONG, || {
        let slices = rome.items(&["endpointslices", "-n", there])?;
        let all: Vec<_> = slices
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
            .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        let local = all.iter().any(|address| address.starts_with("10.20."));
        if local && all.contains(&OUTSIDE) == wanted { Ok(Some(())) } else { bail!("{all:?}") }
    })
}

/// With `webhook.clientCA` the webhooks of rome answer who has a certificate of that authority, here the one of milan's cluster, and
/// nobody else: not even rome's API server, which shows none.
pub(crate) fn the_webhooks_know_who_asks(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    let there = remote(rome, milan)?;
    let is_answered = |who: Option<&Cluster>| asks(stage, rome, who);
    ensure!(is_answered(None)?, "without the value a caller without a certificate is not answered");
    let authority = std::fs::read_to_string(milan.credentials().join("ca")).context("milan has no authority")?;
    stage.install(rome, "rome", &["--set", &format!("webhook.clientCA={authority}")])?;
    wait_for("who has a certificate is answered", LONG, || Ok(is_answered(Some(milan))?.then_some(())))?;
    ensure!(!is_answered(None)?, "a caller without a certificate is answered");
    ensure!(!is_answered(Some(rome))?, "a caller with a certificate of another authority is answered");
    // The API server may have a connection to the replica before, which answers until it has drained.
    let refused =
        wait_for("rome's API server needs a certificate", LONG, || Ok(privileged(rome, milan, &there).err()))?;
    ensure!(format!("{refused:#}").contains("failed calling webhook"), "{refused:#}");
    Ok(())
}

/// Whether a review is answered with a verdict; `who`: the cluster whose administrator's certificate the caller has.
fn asks(stage: &Stage, rome: &Cluster, who: Option<&Cluster>) -> Result<bool> {
    let pods = rome.items(&["pods", "-n", "liqo", "-l", "app.kubernetes.io/name=controller-manager"])?;
    let living = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let addresses: Vec<_> = living.filter_map(|pod| pod["status"]["podIP"].as_str()).collect();
    let [address] = addresses[..] else { return Ok(false) };
    let file = stage.bed.dir().join("review");
    let request =
        json!({"uid": "made-up", "operation": "CREATE", "object": {}, "resource": {"group": "", "resource": "pods"}});
    write(
        &file,
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string(),
    )?;
    let mut curl = inside(&rome.node(&rome.first())?.netns, "curl");
    curl.args(["-sk", "--max-time", "10", "--noproxy", "*", "-H", "Content-Type: application/json", "--data-binary"]);
    curl.arg(format!("@{}", file.display())).arg(format!("https://{address}:9443/validate/peer"));
    if let Some(who) = who {
        let directory = who.credentials();
        curl.arg("--cert").arg(directory.join("crt")).arg("--key").arg(directory.join("key"));
    }
    let answer = curl.output().context("curl does not run")?;
    let verdict: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
    Ok(verdict["response"]["uid"] == "made-up")
}
