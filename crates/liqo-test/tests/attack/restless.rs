//! What does not end: an object that changes all the time, and a line of a log that is longer than memory may be.

use std::{io::Read, process::Stdio};

use anyhow::{Context, Result, ensure};
use liqo_test::{run::Killed, stage::LONG, usage::Peak, wait_for};
use serde_json::{Value, json};

use super::{
    figures, flood,
    raid::{Raid, tenant, text},
};

/// Changes of one request.
const CHANGES: usize = 1000;
/// Requests to the API server, and Events, that so many changes may lead to.
const WORK: usize = 50;
const EVENTS: u64 = 12;
/// Bytes that a pod of the provider writes, as one line.
const LINE: u64 = 100 << 20;
/// Memory that the virtual kubelet may gain while the line passes, in KiB.
const GROWTH: u64 = 30 << 10;

/// A request that changes a thousand times leads neither to an Event nor to work for each change.
pub(crate) fn requests(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let selector = format!("liqo.io/originID={}", peer.id);
    let requests = rome.items(&["resourcerequests", "-n", &peer.tenant, "-l", &selector])?;
    let name = text(requests.first().context("turin has no request in rome")?, "/metadata/name").to_owned();
    let since = rome.recorded();
    let path = format!("/apis/discovery.liqo.io/v1alpha1/namespaces/{}/resourcerequests/{name}", peer.tenant);
    let change = |number: usize| json!({"metadata": {"annotations": {"restless": number.to_string()}}});
    let changes: Vec<Value> = (0..CHANGES).map(change).collect();
    let (url, file) = (format!("{}{path}", rome.api_server()), raid.stage.bed.dir().join("restless"));
    let answers = flood::patch(peer.curl(), &url, &changes, &file)?;
    ensure!(answers == flood::Answers::from([(200, CHANGES)]), "changes of its own request: {answers:?}");
    let work = rome.asked(since, "liqo-controller-manager", &peer.tenant)?;
    ensure!(work.len() <= WORK, "{CHANGES} changes of a request led to {} requests: {:?}", work.len(), &work[..WORK]);
    let about = format!("involvedObject.name={name}");
    let events = rome.items(&["events", "-n", &peer.tenant, "--field-selector", &about])?;
    let told: u64 = events.iter().map(|one| one["count"].as_u64().unwrap_or(1)).sum();
    ensure!(told <= EVENTS, "{told} Events about one request");
    Ok(())
}

/// A pod at a provider writes a line without an end, and whoever follows its log here gets every byte of the line through the virtual
/// kubelet, which keeps none.
pub(crate) fn logs(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    let (web, _) = rome.pods("shop", "app=web")?.into_iter().next().context("rome has no pod in milan")?;
    let kubelet = figures::process(rome, &tenant(rome, &raid.milan.id)?, "virtual-kubelet")?;
    let peak = Peak::begin(kubelet.pid)?;
    let mut follow = rome.kubectl_command();
    follow.args(["logs", "-n", "shop", &web, "--follow", "--tail=0", "--request-timeout=120s"]).stdout(Stdio::piped());
    let mut reader = Killed(follow.spawn().context("kubectl does not run")?);
    let mut log = reader.0.stdout.take().context("kubectl has no output")?.take(LINE);
    let line = format!("sleep 3; head -c {LINE} /dev/zero | tr '\\0' x >/proc/1/fd/1");
    let mut write = Killed(rome.kubectl_command().args(["exec", "-n", "shop", &web, "--", "sh", "-c", &line]).spawn()?);
    let read = std::io::copy(&mut log, &mut std::io::sink()).context("the log cannot be read")?;
    let written = wait_for("the line is written", LONG, || Ok(write.0.try_wait()?))?;
    ensure!(written.success() && read == LINE, "{read} of {LINE} bytes of a line were read, and writing: {written}");
    let grown = peak.most()?.saturating_sub(peak.before());
    liqo_test::out::note(&format!("a line of {} MiB made the virtual kubelet grow by {grown} KiB", LINE >> 20));
    ensure!(grown < GROWTH, "a line of {LINE} bytes made the virtual kubelet grow by {grown} KiB");
    Ok(())
}
