//! Three clusters: both directions at once, a selector that picks one of two providers, two providers with one name.

use anyhow::{Result, ensure};
use liqo_test::{
    Stage,
    stage::{LONG, on},
    story, wait_for,
};

#[test]
fn a_selector_picks_the_provider_and_both_directions_work() -> Result<()> {
    story::alone("peers", || Stage::ready("peers", &["rome", "milan", "turin"]), three)
}

fn three(stage: &Stage) -> Result<()> {
    let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
    stage.peer(rome, milan)?;
    stage.peer(rome, turin)?;
    picked(stage)?;
    relabelled(stage)?;

    // Both directions: milan consumes from rome while rome consumes from milan.
    stage.peer(milan, rome)?;
    for (cluster, peer) in [(rome, "milan"), (milan, "rome")] {
        cluster.wait_peering(peer, "OutgoingPeering", "Established")?;
        cluster.wait_peering(peer, "IncomingPeering", "Established")?;
    }
    stage.offload(milan, "back", &["--pod-offloading-strategy", "Remote"])?;
    milan.web("back", "web", 1, "")?;
    milan.rolled_out("back", "web")?;
    ensure!(milan.pods("back", "app=web")?[0].1 == "liqo-rome", "a Remote pod ran at home");

    // One direction goes, the other stays.
    stage.liqoctl(rome, &["unoffload", "namespace", "demo"])?;
    stage.unpeer(rome, "milan")?;
    rome.wait_peering("milan", "OutgoingPeering", "None")?;
    milan.wait_peering("rome", "OutgoingPeering", "Established")?;
    milan.rolled_out("back", "web")?;
    stage.unpeer(rome, "turin")?;
    stage.liqoctl(milan, &["unoffload", "namespace", "back"])?;
    stage.unpeer(milan, "rome")?;
    namesake(stage)
}

/// A namespace offloaded with a selector goes to the one cluster that matches.
fn picked(stage: &Stage) -> Result<()> {
    let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
    let selector = ["--selector", "kubernetes.io/hostname=liqo-turin", "--pod-offloading-strategy", "Remote"];
    stage.offload(rome, "demo", &selector)?;
    rome.web("demo", "web", 2, "")?;
    rome.rolled_out("demo", "web")?;
    let pods = rome.pods("demo", "app=web")?;
    ensure!(pods.iter().all(|(_, node)| node == "liqo-turin"), "placed as {pods:?}");
    let remote = |cluster: &liqo_test::Cluster| cluster.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"]);
    ensure!(remote(milan)?.is_empty() && remote(turin)?.len() == 1, "the namespace went to the wrong cluster");
    Ok(())
}

/// Changing the labels of a virtual node changes what a selector picks.
fn relabelled(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    stage.offload(rome, "tiered", &["--selector", "tier=gold"])?;
    ensure!(rome.json(&["nsof", "-n", "tiered", "offloading"])?["status"]["offloadingPhase"] == "NoClusterSelected");
    rome.kubectl(&["label", "node", "liqo-milan", "tier=gold"])?;
    wait_for("the labelled cluster is selected", LONG, || {
        let phase = rome.json(&["nsof", "-n", "tiered", "offloading"])?["status"]["offloadingPhase"].clone();
        Ok((phase == "Ready").then_some(()))
    })?;
    ensure!(milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?.len() == 1);
    rome.kubectl(&["label", "node", "liqo-milan", "tier-"])?;
    wait_for("the unlabelled cluster is left", LONG, || {
        Ok(milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?.is_empty().then_some(()))
    })?;
    stage.liqoctl(rome, &["unoffload", "namespace", "tiered"]).map(drop)
}

/// A second provider of the same name is refused with a clear message, welcome under another one, and the first is
/// left alone.
fn namesake(stage: &Stage) -> Result<()> {
    let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
    stage.liqoctl(turin, &["uninstall", "--purge"])?;
    stage.install(turin, "milan", &[])?;
    stage.peer(rome, milan)?;
    stage.offload(rome, "kept", &[])?;
    rome.web("kept", "web", 1, &on("milan"))?;
    rome.rolled_out("kept", "web")?;
    let node = rome.json(&["node", "liqo-milan"])?;

    let mut command = stage.peer_command(turin)?;
    let refused = stage.refused(rome, &command.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(refused.contains("milan"), "{refused}");
    // The user's own name for it is what makes the difference.
    let place = command.iter().position(|word| word == "milan").unwrap_or(2);
    command[place] = "other".to_owned();
    stage.liqoctl(rome, &command.iter().map(String::as_str).collect::<Vec<_>>())?;
    stage.offload(rome, "both", &["--pod-offloading-strategy", "Remote"])?;
    rome.web("both", "web", 1, &on("other"))?;
    rome.rolled_out("both", "web")?;
    let there = turin.items(&["pods", "-A", "-l", "app=web"])?;
    ensure!(there.len() == 1, "{} pods with the namesake", there.len());

    let same = rome.json(&["node", "liqo-milan"])?;
    ensure!(same["metadata"]["uid"] == node["metadata"]["uid"], "the first provider's node was replaced");
    ensure!(same["metadata"]["labels"] == node["metadata"]["labels"], "the first provider's node was taken over");
    rome.rolled_out("kept", "web")
}
