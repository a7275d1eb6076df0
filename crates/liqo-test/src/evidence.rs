//! What a failed test leaves to read: component logs, objects, events and pod logs of every cluster.
//!
//! Kept true: no more than ten such directories stay; the oldest go first.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use crate::{
    Cluster, assets,
    cluster::Node,
    record::Record,
    run::{command, output, write},
};

/// Directories that stay.
const ENOUGH: usize = 10;
/// The directories that this process filled since [`forget`].
static KEPT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The directories that were filled and not forgotten.
pub(crate) fn kept() -> Vec<PathBuf> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Forgets which directories this process filled; the directories stay.
pub(crate) fn forget() {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn directory() -> PathBuf {
    assets::target().join("testbed-logs")
}

/// The file in which the reapers of this machine record their failures.
pub(crate) fn reapers() -> Result<fs::File> {
    let path = assets::state().join("reaper.log");
    fs::create_dir_all(assets::state())?;
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// Removes the oldest directories but for `leave`.
fn prune(logs: &Path, leave: usize) {
    let entries = fs::read_dir(logs).into_iter().flatten().flatten();
    let mut all: Vec<_> =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    all.sort();
    for (_, path) in all.iter().rev().skip(leave) {
        let _ = fs::remove_dir_all(path);
    }
}

/// Gathers all into `target/testbed-logs/<name>-<time>`, which it returns.
pub fn save(record: &Record) -> Result<PathBuf> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    prune(&directory(), ENOUGH - 1);
    let path = directory().join(format!("{}-{time}", record.name));
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    for cluster in Cluster::all(record)? {
        let directory = path.join(cluster.name());
        fs::create_dir_all(&directory)?;
        components(&cluster, &directory)?;
        objects(&cluster, &directory)?;
    }
    Ok(path)
}

fn components(cluster: &Cluster, directory: &Path) -> Result<()> {
    for node in cluster.nodes() {
        for log in fs::read_dir(node.dir.join("log"))?.flatten() {
            let name = format!("{}-{}", node.name, log.file_name().to_string_lossy());
            fs::copy(log.path(), directory.join(name))?;
        }
        pod_logs(&node.dir.join("podlogs"), directory)?;
        write(&directory.join(format!("{}-network.txt", node.name)), network(&node))?;
    }
    Ok(())
}

/// Links, addresses, neighbours, routes and rules: of the node, and of every namespace that was kept there.
fn network(node: &Node) -> String {
    let kept = fs::read_dir(node.kept_netns("")).into_iter().flatten().flatten().map(|entry| entry.path());
    let questions = [
        "ip -d address",
        "ip neighbour",
        "ip rule",
        "ip route show table all",
        "bridge fdb",
        "nft list ruleset",
        "ss -tuanp",
    ];
    let mut told = String::new();
    for place in std::iter::once(node.netns_file()).chain(kept) {
        for question in questions {
            let mut ask = command("nsenter");
            ask.arg(format!("--net={}", place.display())).args(question.split_whitespace());
            let answer = output(&mut ask).unwrap_or_else(|error| format!("{error:#}"));
            told += &format!("=== {}: {question}\n{answer}\n", place.display());
        }
    }
    told
}

/// The files that the kubelet keeps: they are there even when the API server is not.
fn pod_logs(logs: &Path, directory: &Path) -> Result<()> {
    for pod in fs::read_dir(logs).into_iter().flatten().flatten() {
        for container in fs::read_dir(pod.path())?.flatten().filter(|entry| entry.path().is_dir()) {
            for log in fs::read_dir(container.path())?.flatten() {
                let names = [pod.file_name(), container.file_name(), log.file_name()];
                let name = names.map(|name| name.to_string_lossy().into_owned()).join("_");
                fs::copy(log.path(), directory.join(format!("pod_{name}")))?;
            }
        }
    }
    Ok(())
}

fn objects(cluster: &Cluster, directory: &Path) -> Result<()> {
    let questions: [(&str, &[&str]); 4] = [
        ("objects", &["get", "all,ingresses,configmaps,secrets,endpointslices,pv,pvc", "-A", "-o", "wide"]),
        ("nodes", &["describe", "nodes"]),
        ("events", &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]),
        ("pods", &["describe", "pods", "-A"]),
    ];
    for (name, question) in questions {
        let answer = cluster.kubectl(&[question, &["--request-timeout=10s"]].concat());
        write(&directory.join(format!("{name}.txt")), answer.unwrap_or_else(|error| format!("{error:#}\n")))?;
    }
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name", "--request-timeout=10s"]);
    let ours: Vec<_> =
        kinds.unwrap_or_default().lines().filter(|kind| kind.contains("liqo")).map(str::to_owned).collect();
    if !ours.is_empty() {
        let answer = cluster.kubectl(&["get", &ours.join(","), "-A", "-o", "yaml", "--request-timeout=10s"]);
        write(&directory.join("liqo.yaml"), answer.unwrap_or_else(|error| format!("{error:#}\n")))?;
    }
    Ok(())
}
