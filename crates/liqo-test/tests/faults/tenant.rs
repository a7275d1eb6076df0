//! What the administrator of a provider decides about a consumer: `liqoctl cordon|drain|uncordon tenant`.

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{
    Cluster, Stage,
    stage::{LONG, on},
    wait_for,
};
use serde_json::Value;

/// A budget of the consumer: of the pods of the Deployment `lodger` one is always ready.
const BUDGET: &str = "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: lodger, namespace: demo}
spec: {minAvailable: 1, selector: {matchLabels: {app: lodger}}}
";

/// Milan, which provides, cordons rome, takes back what rome has within rome's budgets, and lets rome in again.
pub(crate) fn story(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    rome.web("demo", "lodger", 1, &on("milan"))?;
    rome.rolled_out("demo", "lodger")?;
    let old = running(milan)?;
    ensure!(old.len() == 1, "one lodger runs: {old:?}");

    stage.liqoctl(milan, &["cordon", "tenant", "rome"])?;
    rome.kubectl(&["scale", "-n", "demo", "deployment/lodger", "--replicas=2"])?;
    wait_for("the second pod is refused", LONG, || {
        let events = milan.items(&["events", "-A", "--field-selector", "reason=Refused"])?;
        let told = |one: &Value| one["message"].as_str().is_some_and(|text| text.contains("granted no more pods now"));
        Ok(events.iter().any(told).then_some(()))
    })?;
    ensure!(running(milan)? == old, "the pod that was there goes on, and no other: {:?}", running(milan)?);
    told(rome)?;

    rome.apply(BUDGET)?;
    let said = stage.refused(milan, &["drain", "tenant", "rome", "--timeout", "6s"])?;
    ensure!(said.contains("pods left: 1 (demo-rome-"), "the drain says what is left: {said}");
    ensure!(said.contains("It goes on"), "the drain says that it goes on: {said}");
    ensure!(running(milan)? == old, "a budget was not respected: {:?}", running(milan)?);
    rome.kubectl(&["delete", "poddisruptionbudget", "-n", "demo", "lodger"])?;
    stage.liqoctl(milan, &["drain", "tenant", "rome", "--timeout", "60s"])?;
    wait_for("pods and offer are gone", LONG, || {
        let (pods, offers) = (running(milan)?, milan.items(&["resourceoffers", "-A"])?);
        if pods.is_empty() && offers.is_empty() { Ok(Some(())) } else { bail!("{pods:?}, {offers:?}") }
    })?;

    stage.liqoctl(milan, &["uncordon", "tenant", "rome"])?;
    rome.wait_peering("milan", "OutgoingPeering", "Established")?;
    rome.rolled_out("demo", "lodger").context("rome gets again what it is granted")?;
    wait_for("nothing is refused any more", LONG, || {
        let outgoing = rome.peering("milan", "OutgoingPeering")?;
        if says(&outgoing["message"], "") {
            bail!("{outgoing}")
        }
        let pods = rome.items(&["pods", "-n", "demo", "-l", "app=lodger"])?;
        let marked = pods.iter().find(|pod| !pod["status"]["reason"].is_null());
        marked.map_or(Ok(Some(())), |pod| bail!("{}", pod["status"]))
    })?;
    let new = running(milan)?;
    ensure!(new.len() == 2 && new.iter().all(|uid| !old.contains(uid)), "two new pods run: {new:?}");
    rome.kubectl(&["delete", "deployment,service", "-n", "demo", "lodger"])?;
    wait_for("the lodgers are gone", LONG, || {
        let left = running(milan)?;
        if left.is_empty() { Ok(Some(())) } else { bail!("{left:?}") }
    })
}

/// The user of rome reads in rome why the pod does not run and why milan grants nothing new, with the name of milan.
fn told(rome: &Cluster) -> Result<()> {
    wait_for("the pod in rome says why it waits", LONG, || {
        let pods = rome.items(&["pods", "-n", "demo", "-l", "app=lodger"])?;
        let waits = pods.iter().find(|pod| pod["status"]["reason"] == "OffloadingRefused");
        let status = waits.map(|pod| pod["status"].clone()).unwrap_or_default();
        if says(&status["message"], "granted no more pods now") { Ok(Some(())) } else { bail!("{status}") }
    })?;
    wait_for("an Event in rome says why the pod waits", LONG, || {
        let events = rome.items(&["events", "-n", "demo", "--field-selector", "reason=OffloadingRefused"])?;
        let told = |one: &Value| one["type"] == "Warning" && says(&one["message"], "granted no more pods now");
        Ok(events.iter().any(told).then_some(()))
    })?;
    wait_for("the ForeignCluster says that rome is cordoned", LONG, || {
        let outgoing = rome.peering("milan", "OutgoingPeering")?;
        if says(&outgoing["message"], "grants nothing new for now") { Ok(Some(())) } else { bail!("{outgoing}") }
    })
}

/// Whether a message holds these words of milan.
fn says(message: &Value, words: &str) -> bool {
    let said = message.as_str().and_then(|text| text.split_once("cluster \"milan\" says: "));
    said.is_some_and(|(_, said)| said.contains(words))
}

/// UIDs of rome's lodgers that run in milan.
fn running(milan: &Cluster) -> Result<Vec<String>> {
    let pods = milan.items(&["pods", "-A", "-l", "app=lodger", "--field-selector", "status.phase=Running"])?;
    Ok(pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect())
}
