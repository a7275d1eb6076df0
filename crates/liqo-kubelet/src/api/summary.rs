//! Use of CPU and memory by the pods of the node, as kubelets tell it: from the metrics API there or, where there is none, from the
//! metric agent there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
    jiff::Timestamp,
};
use kube::ResourceExt;
use liqo_core::{exposition::Sample, quantity::Amount};
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
    /// Processor time since the container was started, in nanoseconds; the metrics API does not know it.
    #[serde(skip)]
    time: Option<u64>,
}

/// What is not known is left out, as kubelets do.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu: Option<u64>,
    time: Option<u64>,
    memory: u64,
}

impl Used {
    fn of(usage: &Usage) -> Self {
        let cpu = usage.cpu.as_ref().map(|cpu| Amount::of(cpu).nanos());
        let memory = usage.memory.as_ref().map(Amount::of).unwrap_or_default().units();
        Self { cpu, time: usage.time, memory }
    }

    fn add(&mut self, other: Self) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.cpu = sum(self.cpu, other.cpu);
        self.time = sum(self.time, other.time);
        self.memory = self.memory.saturating_add(other.memory);
    }

    fn stats(self, time: Option<&Time>) -> Value {
        let mut cpu = json!({"time": time});
        for (field, value) in [("usageNanoCores", self.cpu), ("usageCoreNanoSeconds", self.time)] {
            if let Some(value) = value {
                cpu[field] = json!(value);
            }
        }
        json!({
            "cpu": cpu,
            "memory": {"time": time, "usageBytes": self.memory, "workingSetBytes": self.memory},
        })
    }
}

/// What the page `metrics/resource` of the metric agent there says of containers, by namespace here.
pub(super) fn read(page: &str) -> BTreeMap<String, PodMetricsList> {
    let mut pods: BTreeMap<(&str, &str), PodMetrics> = BTreeMap::new();
    for sample in page.lines().filter_map(Sample::read) {
        let label = |name| sample.label(name);
        let (Some(namespace), Some(name), Some(container)) = (label("namespace"), label("pod"), label("container"))
        else {
            continue;
        };
        let (Some(value), time) = sample.value() else { continue };
        if !matches!(sample.name, "container_cpu_usage_seconds_total" | "container_memory_working_set_bytes") {
            continue;
        }
        let pod = pods.entry((namespace, name)).or_default();
        pod.metadata.name = name.to_owned();
        pod.timestamp = time.and_then(|time| Timestamp::from_millisecond(time).ok()).map(Time).or(pod.timestamp.take());
        let place = pod.containers.iter().position(|one| one.name == container).unwrap_or_else(|| {
            pod.containers.push(ContainerMetrics { name: container.to_owned(), ..ContainerMetrics::default() });
            pod.containers.len() - 1
        });
        let usage = &mut pod.containers[place].usage;
        match sample.name {
            "container_cpu_usage_seconds_total" => usage.time = Some(whole(value * 1e9)),
            _ => usage.memory = Some(Quantity(whole(value).to_string())),
        }
    }
    let mut all: BTreeMap<String, PodMetricsList> = BTreeMap::new();
    for ((namespace, _), pod) in pods {
        all.entry(namespace.to_owned()).or_default().items.push(pod);
    }
    all
}

/// A whole number that is not less than nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion of Rust ends at the limits"
)]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// The summary of the node: `pods` are pods here with the metrics of their namespace there. The other cluster may say anything: each pod
/// here, and each of its containers, is counted once at most, and nothing else is.
pub(super) fn summary(node: &str, started: &Time, now: &Time, pods: &[(Vec<Arc<Pod>>, PodMetricsList)]) -> Value {
    let mut total = Used::default();
    let mut all = Vec::new();
    for (here, metrics) in pods {
        // Of two with one name the first one counts.
        let metrics: HashMap<_, _> = metrics.items.iter().rev().map(|one| (one.metadata.name.as_str(), one)).collect();
        for pod in here {
            let Some(metric) = metrics.get(pod.name_any().as_str()) else { continue };
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
    let metrics: HashMap<_, _> = metric.containers.iter().rev().map(|one| (one.name.as_str(), one)).collect();
    for name in containers_of(pod) {
        let Some(container) = metrics.get(name) else { continue };
        let used = Used::of(&container.usage);
        total.add(used);
        let mut stats = used.stats(time);
        stats["name"] = json!(name);
        stats["startTime"] = json!(container_started(pod, name));
        containers.push(stats);
    }
    let mut stats = total.stats(time);
    stats["podRef"] = json!({"name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid()});
    stats["startTime"] = json!(pod.status.as_ref().and_then(|status| status.start_time.as_ref()));
    stats["containers"] = json!(containers);
    (stats, total)
}

/// The names of the containers of a pod; init containers may run beside the others.
fn containers_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.map(|container| container.name.as_str())
}

fn container_started(pod: &Pod, name: &str) -> Option<Time> {
    let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.find(|status| status.name == name)?.state.as_ref()?.running.as_ref()?.started_at.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod with the containers `c` and `d`, of which `c` runs.
    fn pod(name: &str) -> Arc<Pod> {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "demo", "uid": format!("uid-{name}")},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "d"}]},
            "status": {"startTime": "2026-11-20T23:23:12Z", "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-20T23:23:13Z"}},
            }]},
        }))
        .map(Arc::new)
        .unwrap()
    }

    fn time() -> Time {
        serde_json::from_value(json!("2026-11-20T23:00:00Z")).unwrap()
    }

    /// Whatever the other cluster answers: the summary is of the pods here, of each once, and no number is less than another part of it.
    #[test]
    fn fuzz_pod_metrics() {
        let here = [pod("a"), pod("b")];
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "pod_metrics", |bytes| {
            let Ok(metrics) = serde_json::from_slice::<PodMetricsList>(bytes) else { return };
            let summary = summary("liqo-provider", &time(), &time(), &[(here.to_vec(), metrics)]);
            assert!(summary.to_string().len() < 4096, "the summary grows with the answer: {summary}");
            // The summary has no field for a value that is not known.
            let used = |part: &Value, what: &str, field: &str| part[what][field].as_u64().unwrap_or_default();
            let pods = summary["pods"].as_array().unwrap();
            let names: Vec<_> = pods.iter().map(|pod| pod["podRef"]["name"].as_str().unwrap()).collect();
            assert!([&[][..], &["a"], &["b"], &["a", "b"]].contains(&&names[..]), "{names:?}");
            for pod in pods {
                let containers = pod["containers"].as_array().unwrap();
                let names: Vec<_> = containers.iter().map(|one| one["name"].as_str().unwrap()).collect();
                assert!([&[][..], &["c"], &["d"], &["c", "d"]].contains(&&names[..]), "{names:?}");
                for (what, field) in [("cpu", "usageNanoCores"), ("memory", "usageBytes")] {
                    assert!(used(&summary["node"], what, field) >= used(pod, what, field), "{summary}");
                }
            }
        });
    }

    #[test]
    fn containers_add_up_to_pods_and_pods_to_the_node() {
        let metrics: PodMetricsList = serde_json::from_value(json!({"items": [
            {"metadata": {"name": "a"}, "timestamp": "2026-11-20T23:30:00Z", "containers": [
                {"name": "c", "usage": {"cpu": "1500n", "memory": "1Ki"}}, {"name": "d", "usage": {"cpu": "1u", "memory": "24"}},
            ]},
            {"metadata": {"name": "b"}, "containers": [
                {"name": "c", "usage": {"cpu": "1m", "memory": "1M"}}, {"name": "c", "usage": {"cpu": "2", "memory": "2M"}},
                {"name": "unknown", "usage": {"cpu": "1", "memory": "1G"}},
            ]},
            {"metadata": {"name": "unknown"}, "containers": [{"name": "c", "usage": {"cpu": "1", "memory": "1G"}}]},
            {"metadata": {"name": "b"}, "containers": [{"name": "c", "usage": {"cpu": "1", "memory": "1G"}}]},
        ]}))
        .unwrap();
        let summary = summary("liqo-provider", &time(), &time(), &[(vec![pod("a"), pod("b")], metrics)]);
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 1_002_500);
        assert_eq!(summary["node"]["memory"]["workingSetBytes"], 1_001_048);
        assert_eq!(summary["node"]["nodeName"], "liqo-provider");
        let first = &summary["pods"][0];
        assert_eq!((&first["cpu"]["usageNanoCores"], &first["memory"]["usageBytes"]), (&json!(2500), &json!(1048)));
        assert_eq!(first["podRef"], json!({"name": "a", "namespace": "demo", "uid": "uid-a"}));
        assert_eq!(first["containers"][0]["startTime"], "2026-11-20T23:23:13Z");
        assert_eq!(
            summary["pods"].as_array().unwrap().len(),
            2,
            "pods that are not here are left out, and what was said already"
        );
    }

    #[test]
    fn where_there_is_no_metrics_api_the_page_of_the_metric_agent_says_it() {
        let page = r#"# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="c",namespace="demo",pod="a"} 1.5 1700000000000
container_memory_working_set_bytes{container="c",namespace="demo",pod="a"} 1.024e+03 1700000000000
container_cpu_usage_seconds_total{container="d",namespace="demo",pod="a"} 0.5 1700000000000
container_start_time_seconds{container="d",namespace="demo",pod="a"} 5 1700000000000
container_cpu_usage_seconds_total{container="c",namespace="other",pod="a"} NaN
pod_cpu_usage_seconds_total{namespace="demo",pod="a"} 2 1700000000000
node_cpu_usage_seconds_total 2 1700000000000
"#;
        let read = read(page);
        assert_eq!(read.keys().collect::<Vec<_>>(), ["demo"]);
        let summary = summary("n", &time(), &time(), &[(vec![pod("a")], read["demo"].clone())]);
        let pod = &summary["pods"][0];
        assert_eq!(
            pod["cpu"],
            json!({"time": "2023-11-14T22:13:20Z", "usageCoreNanoSeconds": 2_000_000_000}),
            "the rate is not known"
        );
        assert_eq!(pod["memory"]["workingSetBytes"], 1024);
        assert_eq!(pod["containers"][1]["cpu"]["usageCoreNanoSeconds"], 500_000_000);
        assert_eq!(summary["node"]["cpu"]["usageCoreNanoSeconds"], 2_000_000_000);
    }
}
