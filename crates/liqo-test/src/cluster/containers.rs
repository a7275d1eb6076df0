//! Reaching a pod's processes from outside, past the kubelet.

use anyhow::{Context, Result};

use super::Cluster;
use crate::{
    process::{Process, Signal},
    run::output,
};

impl Cluster {
    /// `kill -9` of the first process of a container: what the kernel does when memory is short.
    pub fn kill_pod_process(&self, namespace: &str, pod: &str, container: &str) -> Result<()> {
        self.container_process(namespace, pod, container)?.signal(Signal::KILL);
        Ok(())
    }

    /// The first process of a running container, seen from the host.
    pub fn container_process(&self, namespace: &str, pod: &str, container: &str) -> Result<Process> {
        let filter = [("pod.namespace", namespace), ("pod.name", pod), ("container.name", container)]
            .map(|(label, value)| format!("labels.\"io.kubernetes.{label}\"=={value}"))
            .join(",");
        for node in self.nodes() {
            let containers = output(node.ctr().args(["containers", "ls", "-q", &filter]))?;
            let tasks = output(node.ctr().args(["tasks", "ls"]))?;
            let running = tasks.lines().filter_map(|line| {
                let mut words = line.split_whitespace();
                let task = (words.next()?, words.next()?.parse().ok()?, words.next()?);
                (task.2 == "RUNNING" && containers.lines().any(|id| id == task.0)).then_some(task.1)
            });
            if let Some(process) = running.filter_map(Process::find).next() {
                return Ok(process);
            }
        }
        None.with_context(|| format!("{} runs no container {container} of pod {namespace}/{pod}", self.name()))
    }
}
