//! Nodes that only pretend: kwok plays their kubelet, so that a test of scale needs no containers.

use anyhow::Result;
use serde_json::json;

use super::{Cluster, control_plane::words};
use crate::process::Daemon;

impl Cluster {
    /// Adds pretending nodes; pods reach them with a toleration of the taint `kwok.x-k8s.io/node`.
    pub fn add_kwok_nodes(&self, count: u32) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let node = self.node(&self.first())?;
        if !node.daemon("kwok").alive() {
            let flags = format!(
                "--kubeconfig={} --manage-all-nodes=false --node-lease-duration-seconds=40
                 --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                self.dir.join("super-admin.conf").display()
            );
            Daemon::spawn(&node.dir, &node.netns, "kwok", words("kwok", &flags))?;
        }
        let api = self.api();
        let there = api.get("/api/v1/nodes?labelSelector=type=kwok")?["items"].as_array().map_or(0, Vec::len);
        let room = json!({"cpu": "32", "memory": "256Gi", "pods": "500"});
        for number in there + 1..=there + count as usize {
            let name = format!("{}-kwok-{number}", self.name());
            let labels = json!({"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
            let taint = json!([{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]);
            let metadata = json!({"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}});
            let status = json!({"allocatable": room, "capacity": room});
            api.create("/api/v1/nodes", &json!({"metadata": metadata, "spec": {"taints": taint}, "status": status}))?;
        }
        Ok(())
    }
}
