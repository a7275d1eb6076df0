//! The components of Liqo: how many run, and what keeps the others from running.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;
use liqo_kube::Cluster;
use serde::Serialize;

use crate::{out::Mark, status::frame::Section};

/// The deployments of this version.
const DEPLOYMENTS: [&str; 3] = ["liqo-controller-manager", "liqo-crd-replicator", "liqo-auth"];

/// What was found of all components.
#[derive(Debug, Serialize)]
pub(crate) struct Components {
    deployments: BTreeMap<&'static str, Count>,
    errors: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Count {
    desired: i32,
    ready: i32,
    available: i32,
    images: Vec<String>,
}

/// Reads the deployments and, of those that are not well, the pods.
pub(crate) async fn observe(cluster: &Cluster, namespace: &str) -> anyhow::Result<Components> {
    let mut all = Components { deployments: BTreeMap::new(), errors: Vec::new() };
    for name in DEPLOYMENTS {
        let Some(deployment) = cluster.get::<Deployment>(namespace, name).await? else {
            all.errors.push(format!(
                "unable to collect status for deployment {name} in namespace {namespace}: deployments.apps {name:?} not found"
            ));
            continue;
        };
        let count = count(&deployment);
        if count.ready < count.desired || count.available < count.desired {
            let pods: Vec<Pod> = cluster.list(namespace, &selector(&deployment)).await?;
            all.errors.extend(pod_errors(name, &pods));
        }
        all.deployments.insert(name, count);
    }
    Ok(all)
}

fn count(deployment: &Deployment) -> Count {
    let status = deployment.status.as_ref();
    let containers = deployment.spec.template.spec.as_ref().map(|spec| spec.containers.as_slice());
    Count {
        desired: deployment.spec.replicas.unwrap_or(1),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or_default(),
        available: status.and_then(|status| status.available_replicas).unwrap_or_default(),
        images: containers.into_iter().flatten().filter_map(|one| one.image.clone()).collect(),
    }
}

fn selector(deployment: &Deployment) -> String {
    let labels = deployment.spec.selector.match_labels.as_ref();
    labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Pure: what each pod lacks.
fn pod_errors(name: &str, pods: &[Pod]) -> Vec<String> {
    if pods.is_empty() {
        return vec![format!("no pods found for deployment {name}")];
    }
    let of = |pod: &Pod, what: String| format!("Deployment: {name}, Pod: {}, Msg: {what}", pod.name_any());
    pods.iter().flat_map(|pod| lacks(pod).into_iter().map(move |what| of(pod, what))).collect()
}

/// Pure: what keeps a pod from running.
pub(crate) fn lacks(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return vec!["not scheduled".to_owned()] };
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|one| one.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let waiting = waiting.collect::<Vec<_>>().join(", ");
    let aspects = [("PodScheduled", "not scheduled"), ("Initialized", "not initialized"), ("Ready", "not ready")];
    let missing = aspects.into_iter().filter_map(|(kind, told)| {
        let found = status.conditions.iter().flatten().find(|one| one.type_ == kind);
        let why =
            found.and_then(|one| one.message.clone()).filter(|_| waiting.is_empty()).unwrap_or_else(|| waiting.clone());
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        found.is_none_or(|one| one.status != "True").then(|| format!("{told}{why}"))
    });
    missing.collect()
}

impl Components {
    /// Everything that should run does.
    pub(crate) fn is_healthy(&self) -> bool {
        self.errors.is_empty()
            && self.deployments.values().all(|one| one.ready >= one.desired && one.available >= one.desired)
    }

    /// The text of the box.
    pub(crate) fn text(&self, verbose: bool) -> String {
        let mut deployments = Section::new("Deployment");
        for name in DEPLOYMENTS {
            let Some(Count { desired, ready, available, images: _ }) = self.deployments.get(name) else { continue };
            deployments
                .entry(name, format!("Desired: {desired}, Ready: {ready}/{desired}, Available: {available}/{desired}"));
        }
        let mut all = Section::new("");
        let healthy = self.is_healthy();
        let (mark, told) = if healthy {
            (Mark::Done, "✔ control plane is healthy")
        } else {
            (Mark::Error, "✖ control plane is not OK")
        };
        all.line(format!("{} {told}", mark.prefix()));
        if !self.deployments.is_empty() {
            all.section(deployments);
        }
        if verbose {
            let mut images = Section::new("Images");
            for (name, count) in &self.deployments {
                images.entry(*name, count.images.join(", "));
            }
            all.section(images);
        }
        for error in &self.errors {
            all.line(error);
        }
        all.text()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_tells_what_it_lacks() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "x", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}}))
        .unwrap();
        assert_eq!(
            pod_errors("liqo-auth", &[pod]),
            ["Deployment: liqo-auth, Pod: p, Msg: not ready (ImagePullBackOff)"]
        );
        assert_eq!(pod_errors("liqo-auth", &[]), ["no pods found for deployment liqo-auth"]);
    }

    #[test]
    fn counts_are_shown_as_documented() {
        let count = Count { desired: 1, ready: 1, available: 1, images: vec!["localhost/liqo:dev".into()] };
        let all = Components { deployments: [("liqo-auth", count)].into(), errors: Vec::new() };
        assert!(all.is_healthy());
        assert!(
            all.text(false).contains("    liqo-auth: Desired: 1, Ready: 1/1, Available: 1/1\n"),
            "{}",
            all.text(false)
        );
        assert!(all.text(true).contains("Images\n    liqo-auth: localhost/liqo:dev\n"));
    }
}
