//! What a peer reads of the metrics of pods in rome: those of its own pods, and those of nobody else.

use anyhow::{Result, ensure};
use liqo_test::{Cluster, run::output, stage::LONG, wait_for};

use super::raid::Raid;

/// Questions of a peer that does not wait.
const ASKED: usize = 60;

/// Turin asks while its pod `lodger` runs in its namespace `there` of rome.
pub(crate) fn story(raid: &Raid, there: &str) -> Result<()> {
    let (rome, turin) = (raid.rome(), &raid.turin);
    let own = wait_for("the metrics of turin's pod", LONG, || {
        let page = turin.runs(&["get", "--raw", &path(&turin.id, "metrics/resource")])?.done("its own metrics")?;
        Ok(page.contains(r#"pod="lodger""#).then_some(page))
    })?;
    let home = rome.json(&["namespace", there])?;
    let home = home["metadata"]["annotations"]["liqo.io/original-name"].as_str().unwrap_or_default();
    ensure!(!home.is_empty(), "namespace {there} has no original name");
    // Of the node, the page has the sums of what is said of turin's pods.
    let samples = own.lines().filter(|line| !line.starts_with('#') && !line.starts_with("node_"));
    let of_turin = format!(r#"{{namespace="{home}",pod="lodger""#);
    let foreign: Vec<_> = samples.filter(|line| !line.contains(&of_turin)).collect();
    ensure!(foreign.is_empty(), "turin reads of others: {foreign:?}");
    for id in [&raid.milan.id, &raid.home] {
        for page in ["metrics", "metrics/resource", "metrics/cadvisor", "metrics/probes"] {
            turin.runs(&["get", "--raw", &path(id, page)])?.refused(&format!("turin reads {page} of {id}"));
        }
    }
    asks_without_end(rome, raid)
}

/// A peer that asks without end is told to wait, and rome's kubelets have their peace.
fn asks_without_end(rome: &Cluster, raid: &Raid) -> Result<()> {
    let url = format!("{}{}?again=[1-{ASKED}]", rome.api_server(), path(&raid.turin.id, "metrics/resource"));
    let codes =
        output(raid.turin.curl().args(["-s", "-o", "/dev/null", "-w", "%{http_code}\\n", "--max-time", "60", &url]))?;
    let count = |code: &str| codes.lines().filter(|line| *line == code).count();
    let (told, waits) = (count("200"), count("429"));
    ensure!(told + waits == ASKED && told < ASKED / 2, "{told} of {ASKED} answers, {waits} refusals: {codes:?}");
    Ok(())
}

/// The path of a page of metrics about the pods of a cluster.
fn path(id: &str, page: &str) -> String {
    format!("/apis/metrics.liqo.io/v1alpha1/scrape/{id}/{page}")
}
