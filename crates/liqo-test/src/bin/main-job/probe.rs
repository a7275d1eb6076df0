//! What our processes cost: memory, processor time, API requests.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use liqo_test::{Cluster, run, usage, wait_for};
use serde_json::Value;

/// How long our Pods may take to be those of our Deployments.
const LIMIT: Duration = Duration::from_secs(60);

/// A process of ours: its role and its process ID.
pub(crate) type Ours = (String, u32);

/// Our pods, but for those that are ending: their process may be gone.
fn pods(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut pods = cluster.items(&["pods", "-A", "-l", "app.kubernetes.io/part-of=liqo"])?;
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(pods)
}

/// Waits until exactly the Pods that our Deployments ask for are there and ready: after peering again, the virtual kubelet of the
/// peering before may still be ending and the new one starting.
pub(crate) fn settled(cluster: &Cluster) -> Result<()> {
    wait_for("our Pods are those of our Deployments", LIMIT, || {
        let asked = cluster.items(&["deployments", "-A", "-l", "app.kubernetes.io/part-of=liqo"])?;
        let number = |of: &Value, field: &str| of[field].as_u64().unwrap_or_default();
        let (wanted, ready) = asked.iter().fold((0, 0), |(wanted, ready), one| {
            (wanted + number(&one["spec"], "replicas"), ready + number(&one["status"], "readyReplicas"))
        });
        let there = u64::try_from(pods(cluster)?.len())?;
        Ok((wanted == ready && wanted == there).then_some(()))
    })
}

/// All our processes in a cluster.
pub(crate) fn processes(cluster: &Cluster) -> Result<Vec<Ours>> {
    let pods = pods(cluster)?;
    let text = |pod: &Value, pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    pods.iter()
        .map(|pod| {
            let container = text(pod, "/spec/containers/0/name");
            let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
            let process = cluster.container_process(&namespace, &name, &container)?;
            Ok((text(pod, "/metadata/labels/app.kubernetes.io~1name"), process.pid))
        })
        .collect()
}

/// Memory of each process, pages of files in parts.
pub(crate) fn memory(processes: &[Ours]) -> Result<Vec<(String, usage::Memory)>> {
    processes.iter().map(|(role, pid)| Ok((role.clone(), usage::memory(*pid)?))).collect()
}

/// Processor time used so far, user and system.
pub(crate) fn cpu_seconds(processes: &[Ours]) -> Result<f64> {
    let mut nanoseconds = 0_f64;
    for (_, pid) in processes {
        for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // The scheduler's own account, in nanoseconds: clock ticks are too coarse for what rests.
            let account = fs::read_to_string(task.path().join("schedstat"))?;
            nanoseconds += account.split_whitespace().next().context("no time")?.parse::<f64>()?;
        }
    }
    Ok(nanoseconds / 1e9)
}

/// Numbers of API requests, by verb and kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(BTreeMap<String, f64>);

/// All requests our processes have counted so far. Each serves its counters at port 8081.
pub(crate) fn requests(clusters: &[&Cluster]) -> Result<Requests> {
    let mut sum = Requests::default();
    for cluster in clusters {
        let node = cluster.node(&cluster.first())?;
        for pod in pods(cluster)? {
            let address = pod.pointer("/status/podIP").and_then(Value::as_str).context("a pod without address")?;
            let url = format!("http://{address}:8081/metrics");
            let mut curl = run::inside(&node.netns, "curl");
            let text = run::output(curl.args(["--silent", "--fail", "--noproxy", "*", "--max-time", "5", &url]))?;
            text.lines().filter_map(parse).for_each(|(call, count)| *sum.0.entry(call).or_default() += count);
        }
    }
    Ok(sum)
}

/// All requests an API server has answered so far, whoever asked.
pub(crate) fn answered(cluster: &Cluster) -> Result<Requests> {
    let mut sum = Requests::default();
    let text = cluster.api().text("/metrics")?;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("apiserver_request_total{") else { continue };
        let Some((labels, count)) = rest.split_once("} ") else { continue };
        let [verb, resource, part] =
            ["verb", "resource", "subresource"].map(|name| label(labels, name).unwrap_or_default());
        let slash = if part.is_empty() { "" } else { "/" };
        *sum.0.entry(format!("{verb} {resource}{slash}{part}")).or_default() += count.parse().unwrap_or(0.0);
    }
    Ok(sum)
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// `liqo_api_requests_total{cluster="c",verb="v",kind="k"} n` as (`v k`, n).
fn parse(line: &str) -> Option<(String, f64)> {
    let rest = line.strip_prefix("liqo_api_requests_total{")?;
    let (labels, count) = rest.split_once("} ")?;
    Some((format!("{} {}", label(labels, "verb")?, label(labels, "kind")?), count.parse().ok()?))
}

impl Requests {
    /// What came since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (call, count) in &mut self.0 {
            *count -= before.0.get(call).copied().unwrap_or_default();
        }
        self.0.retain(|_, count| *count > 0.0);
        self
    }

    /// The sum and its parts, each divided; parts below 0.05 are left out.
    pub(crate) fn divided(&self, by: f64) -> String {
        let mut parts: Vec<_> = self.0.iter().collect();
        parts.sort_by(|a, b| b.1.total_cmp(a.1));
        let sum: f64 = self.0.values().sum();
        parts.retain(|(_, count)| **count / by >= 0.05);
        let parts: Vec<_> = parts.iter().map(|(call, count)| format!("{call} {:.2}", **count / by)).collect();
        format!("{:.1} ({})", sum / by, parts.join(", "))
    }
}
