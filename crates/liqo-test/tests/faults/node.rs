//! `kubectl delete node` of a virtual node: the node comes back, and whatever is in the provider runs on.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use liqo_test::{
    Stage,
    stage::{LONG, on},
    wait_for,
};
use serde_json::Value;

pub(crate) fn story(stage: &Stage) -> Result<()> {
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    rome.web("demo", "kept", 2, &on("milan"))?;
    rome.rolled_out("demo", "kept")?;
    let uid = |one: &Value| one["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let all = || -> Result<Vec<String>> {
        let there = [
            milan.items(&["namespaces", "-l", "liqo.io/remote-cluster-id"])?,
            milan.items(&["pods", "-A", "-l", "app=kept"])?,
            rome.items(&["pods", "-n", "demo", "-l", "app=kept"])?,
            rome.items(&["namespacemaps", "-A", "-l", "liqo.io/replication=true"])?,
        ];
        Ok(there.concat().iter().map(uid).collect())
    };
    let (before, old) = (all()?, uid(&rome.json(&["node", "liqo-milan"])?));
    ensure!(before.len() == 6, "one namespace, two pods on each side and a map, not {}", before.len());
    // The node is back so soon that kubectl may find the new one, and wait for its end.
    rome.kubectl(&["delete", "node", "liqo-milan", "--wait=false"])?;
    let new = wait_for("a new node is ready", LONG, || {
        let node = rome.items(&["nodes", "-l", "liqo.io/type=virtual-node"])?.pop();
        let is_ready = |node: &Value| {
            let all = node["status"]["conditions"].as_array();
            all.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        Ok(node.filter(is_ready).map(|node| uid(&node)).filter(|new| *new != old))
    })?;
    wait_for("the map belongs to the new node", LONG, || {
        let maps = rome.items(&["namespacemaps", "-A", "-l", "liqo.io/replication=true"])?;
        Ok(maps.iter().all(|map| map["metadata"]["ownerReferences"][0]["uid"] == *new).then_some(()))
    })?;
    // Longer than Kubernetes waits before it deletes pods of a node that is gone.
    let since = Instant::now();
    wait_for("a minute has passed", Duration::from_secs(70), || {
        Ok((since.elapsed() > Duration::from_secs(60)).then_some(()))
    })?;
    let after = all()?;
    ensure!(after == before, "{before:?} became {after:?}");
    rome.kubectl(&["delete", "deployment,service", "-n", "demo", "kept"]).map(drop)
}
