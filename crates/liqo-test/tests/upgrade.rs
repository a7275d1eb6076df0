//! An upgrade of clusters that are peered already: nothing is torn down.
//!
//! No older release is built here. The clusters are put into the state that the version before the rules for peers left behind
//! (`past.rs`), and then this release is installed over it. What that version made is in `made.txt`: each object is there before
//! and afterwards, the same one with the same value. (What its chart installed is compared with this chart by the tests of
//! `xtask`, chart/before.rs.)

mod upgrade {
    pub(crate) mod made;
    pub(crate) mod past;
}

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{
    Cluster, ClusterSpec, Stage,
    stage::{LONG, on},
    story, wait_for,
};
use upgrade::{made, past};

/// In seconds.
const DAY: u64 = 24 * 3600;
/// Ranges of the pods of rome and milan, of those that are for benchmarks (RFC 2544).
const PODS: [&str; 2] = ["198.18.0.0/16", "198.19.0.0/16"];

#[test]
fn nothing_is_torn_down_by_an_upgrade() -> Result<()> {
    let [rome, milan] = [("rome", 1), ("milan", 2)].map(|(name, number)| ClusterSpec::new(name, number));
    let specs = vec![rome.cidrs(PODS[0], "10.101.0.0/16"), milan.cidrs(PODS[1], "10.102.0.0/16")];
    story::alone("upgrade", || Stage::apart("upgrade", specs), told)
}

fn told(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    peered_and_in_use(stage)?;
    let before = [made::of(rome)?, made::of(milan)?];
    let taken = [past::go_back(rome)?, past::go_back(milan)?];
    past::every_row_was_met(&taken)?;
    stage.install_all(&[])?;
    established(rome, milan)?;
    answered(rome)?;
    for (cluster, taken) in [rome, milan].into_iter().zip(&taken) {
        past::written_again(cluster, taken)?;
    }
    rome.web("demo", "later", 1, &on("milan"))?;
    rome.rolled_out("demo", "later")?;
    for (cluster, before) in [rome, milan].into_iter().zip(before) {
        made::same(cluster, &before)?;
    }
    Ok(())
}

/// Both clusters are peered in both directions, with the token that the old version knew, and a pod of rome runs in milan.
fn peered_and_in_use(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    stage.everywhere(|cluster| {
        let accepts = format!("networkManager.config.acceptPublicRanges={}", cluster.name() == "milan");
        stage.install(cluster, cluster.name(), &["--set", &accepts])
    })?;
    for (consumer, provider) in [(rome, milan), (milan, rome)] {
        let command = stage.peer_command_of_cluster(provider)?;
        stage.liqoctl(consumer, &command.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    public_ranges_are_accepted_by_value(rome, milan)?;
    let left = rome.identity_ends_in()?;
    ensure!(left > 6 * DAY && left <= 7 * DAY, "an identity of rome that is new ends in {left} s");
    stage.offload(rome, "demo", &[])?;
    rome.kubectl(&["create", "configmap", "settings", "-n", "demo", "--from-literal=greeting=ciao"])?;
    rome.kubectl(&["create", "secret", "generic", "password", "-n", "demo", "--from-literal=word=sesame"])?;
    rome.web("demo", "web", 1, &on("milan"))?;
    rome.web("demo", "client", 1, &format!("nodeSelector: {{kubernetes.io/hostname: {}}},", rome.first()))?;
    for name in ["web", "client"] {
        rome.rolled_out("demo", name)?;
    }
    established(rome, milan)?;
    answered(rome)
}

/// Pods of both clusters have addresses that are not private. Milan uses them as they are, rome translates them.
fn public_ranges_are_accepted_by_value(rome: &Cluster, milan: &Cluster) -> Result<()> {
    for (cluster, announced, accepts) in [(rome, PODS[1], false), (milan, PODS[0], true)] {
        let tunnels = cluster.items(&["tunnelendpoints", "-A"])?;
        let spec = &tunnels.first().context("no tunnel")?["spec"];
        let (told, used) = (&spec["remotePodCIDR"], &spec["remoteNATPodCIDR"]);
        let is_private =
            used.as_str().is_some_and(|range| ["10.", "172.", "192.168."].iter().any(|begin| range.starts_with(begin)));
        let is_right = if accepts { used == "None" } else { is_private };
        ensure!(told == announced && is_right, "{} has {told} of its peer as {used}", cluster.name());
    }
    Ok(())
}

fn established(rome: &Cluster, milan: &Cluster) -> Result<()> {
    for (cluster, peer) in [(rome, "milan"), (milan, "rome")] {
        for condition in
            ["AuthenticationStatus", "APIServerStatus", "NetworkStatus", "OutgoingPeering", "IncomingPeering"]
        {
            cluster.wait_peering(peer, condition, "Established")?;
        }
        wait_for(&format!("the node of {peer} is ready"), LONG, || {
            let node = cluster.json(&["node", &format!("liqo-{peer}")])?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default();
            if ready["status"] == "True" { Ok(Some(())) } else { bail!("{ready}") }
        })?;
    }
    Ok(())
}

/// A pod of rome is answered by the Service whose pod runs in milan: packets pass the tunnel.
fn answered(rome: &Cluster) -> Result<()> {
    wait_for("a pod of rome is answered through the tunnel", LONG, || {
        let pods = rome.pods("demo", "app=client")?;
        let (client, _) = pods.first().context("no client")?;
        let words = ["exec", "-n", "demo", client, "--", "timeout", "5", "wget", "-qO-", "http://web"];
        Ok(rome.kubectl(&words)?.starts_with("web-").then_some(()))
    })
}
