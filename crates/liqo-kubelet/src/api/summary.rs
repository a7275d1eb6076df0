//! Use of CPU and memory by the pods of the node, as kubelets tell it, from the metrics API there.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::ResourceExt;
use liqo_core::quantity::Amount;
use serde::Deserialize;
use serde_json::{Value, json};

/// Metrics of the pods of a namespace there.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct PodMetricsList {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodMetrics {
    metadata: Named,
    #[serde(default)]
    timestamp: Option<Time>,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: Usage,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Usage {
    #[serde(default)]
    cpu: Option<Quantity>,
    #[serde(default)]
    memory: Option<Quantity>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu: Amount,
    memory: Amount,
}

impl Used {
    fn of(usage: &Usage) -> Self {
        let amount = |quantity: &Option<Quantity>| quantity.as_ref().map(Amount::of).unwrap_or_default();
        Self { cpu: amount(&usage.cpu), memory: amount(&usage.memory) }
    }

    fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
    }

    fn stats(self, time: Option<&Time>) -> Value {
        let (cpu, memory) = (self.cpu.nanos(), self.memory.units());
        json!({
            "cpu": {"time": time, "usageNanoCores": cpu},
            "memory": {"time": time, "usageBytes": memory, "workingSetBytes": memory},
        })
    }
}

/// The summary of the node: `pods` are pods here with the metrics of their namespace there.
pub(super) fn summary(node: &str, started: &Time, now: &Time, pods: &[(Vec<Arc<Pod>>, PodMetricsList)]) -> Value {
    let mut total = Used::default();
    let mut all = Vec::new();
    for (here, metrics) in pods {
        for metric in &metrics.items {
            let Some(pod) = here.iter().find(|pod| pod.name_any() == metric.metadata.name) else { continue };
            let (stats, used) = pod_stats(pod, metric);
            all.push(stats);
            total.add(used);
        }
    }
    let mut stats = total.stats(Some(now));
    stats["nodeName"] = json!(node);
    stats["startTime"] = json!(started);
    json!({"node": stats, "pods": all})
}

fn pod_stats(pod: &Pod, metric: &PodMetrics) -> (Value, Used) {
    let time = metric.timestamp.as_ref();
    let mut total = Used::default();
    let mut containers = Vec::new();
    for container in &metric.containers {
        let used = Used::of(&container.usage);
        total.add(used);
        let mut stats = used.stats(time);
        stats["name"] = json!(container.name);
        stats["startTime"] = json!(container_started(pod, &container.name));
        containers.push(stats);
    }
    let mut stats = total.stats(time);
    stats["podRef"] = json!({"name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid()});
    stats["startTime"] = json!(pod.status.as_ref().and_then(|status| status.start_time.as_ref()));
    stats["containers"] = json!(containers);
    (stats, total)
}

fn container_started(pod: &Pod, name: &str) -> Option<Time> {
    let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.find(|status| status.name == name)?.state.as_ref()?.running.as_ref()?.started_at.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_add_up_to_pods_and_pods_to_the_node() {
        let pod = |name: &str| -> Arc<Pod> {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "demo", "uid": format!("uid-{name}")},
                "status": {"startTime": "2026-11-20T23:23:12Z", "containerStatuses": [{
                    "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-11-20T23:23:13Z"}},
                }]},
            }))
            .map(Arc::new)
            .unwrap()
        };
        let metrics: PodMetricsList = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "a"}, "timestamp": "2026-11-20T23:30:00Z", "containers": [
                {"name": "c", "usage": {"cpu": "1500n", "memory": "1Ki"}}, {"name": "d", "usage": {"cpu": "1u", "memory": "24"}},
            ]},
            {"metadata": {"name": "b"}, "containers": [{"name": "c", "usage": {"cpu": "1m", "memory": "1M"}}]},
            {"metadata": {"name": "unknown"}, "containers": [{"name": "c", "usage": {"cpu": "1", "memory": "1G"}}]},
        ]}))
        .unwrap();
        let time: Time = serde_json::from_value(json!("2026-11-20T23:00:00Z")).unwrap();
        let summary = summary("liqo-provider", &time, &time, &[(vec![pod("a"), pod("b")], metrics)]);
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 1_002_500);
        assert_eq!(summary["node"]["memory"]["workingSetBytes"], 1_001_048);
        assert_eq!(summary["node"]["nodeName"], "liqo-provider");
        let first = &summary["pods"][0];
        assert_eq!((&first["cpu"]["usageNanoCores"], &first["memory"]["usageBytes"]), (&json!(2500), &json!(1048)));
        assert_eq!(first["podRef"], json!({"name": "a", "namespace": "demo", "uid": "uid-a"}));
        assert_eq!(first["containers"][0]["startTime"], "2026-11-20T23:23:13Z");
        assert_eq!(summary["pods"].as_array().unwrap().len(), 2, "pods that are not here are left out");
    }
}
