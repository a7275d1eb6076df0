//! The components of Liqo: how many run, and what keeps the others from running.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Container, Pod, PodTemplateSpec},
};
use kube::ResourceExt;
use liqo_api::role::{ROLES, Runs};
use liqo_kube::{Cluster, Object};
use serde::Serialize;

use crate::{here, out::Mark, status::frame::Section};

/// What was found of all components.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Components {
    deployments: BTreeMap<String, Count>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    daemon_sets: BTreeMap<String, Count>,
    errors: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Count {
    desired: i32,
    ready: i32,
    available: i32,
    images: Vec<String>,
}

/// A kind that runs pods.
trait Workload: Object {
    fn count(&self) -> Count;
    /// The labels of its pods.
    fn selector(&self) -> BTreeMap<String, String>;
}

impl Workload for Deployment {
    fn count(&self) -> Count {
        let status = self.status.as_ref();
        Count {
            desired: self.spec.replicas.unwrap_or(1),
            ready: status.and_then(|status| status.ready_replicas).unwrap_or_default(),
            available: status.and_then(|status| status.available_replicas).unwrap_or_default(),
            images: images(&self.spec.template),
        }
    }

    fn selector(&self) -> BTreeMap<String, String> {
        self.spec.selector.match_labels.clone().unwrap_or_default()
    }
}

impl Workload for DaemonSet {
    fn count(&self) -> Count {
        let status = self.status.as_ref();
        Count {
            desired: status.map(|status| status.desired_number_scheduled).unwrap_or_default(),
            ready: status.map(|status| status.number_ready).unwrap_or_default(),
            available: status.and_then(|status| status.number_available).unwrap_or_default(),
            images: images(&self.spec.template),
        }
    }

    fn selector(&self) -> BTreeMap<String, String> {
        self.spec.selector.match_labels.clone().unwrap_or_default()
    }
}

fn images(template: &PodTemplateSpec) -> Vec<String> {
    let containers = template.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    containers.iter().filter_map(|Container { image, .. }| image.clone()).collect()
}

/// Reads the components and, of those that are not well, the pods.
pub(crate) async fn observe(cluster: &Cluster, namespace: &str) -> anyhow::Result<Components> {
    let mut all = Components::default();
    let network = here::connects_networks(cluster, namespace).await?;
    for role in ROLES {
        let (name, errors) = (role.workload(), &mut all.errors);
        match role.runs {
            Runs::Always => count::<Deployment>(cluster, namespace, name, (&mut all.deployments, errors)).await?,
            Runs::Networks if network => {
                count::<Deployment>(cluster, namespace, name, (&mut all.deployments, errors)).await?;
            }
            Runs::NetworksOnEachNode if network => {
                count::<DaemonSet>(cluster, namespace, name, (&mut all.daemon_sets, errors)).await?;
            }
            Runs::Usually | Runs::Asked | Runs::Broker | Runs::Agent => {
                if let Some(count) = look::<Deployment>(cluster, namespace, &name, errors).await? {
                    all.deployments.insert(name, count);
                }
            }
            Runs::Networks | Runs::NetworksOnEachNode | Runs::Jobs | Runs::ForProvider | Runs::ForJob => {}
        }
    }
    Ok(all)
}

/// Counts a component that must be there.
async fn count<K: Workload>(
    cluster: &Cluster,
    namespace: &str,
    name: String,
    (counts, errors): (&mut BTreeMap<String, Count>, &mut Vec<String>),
) -> anyhow::Result<()> {
    match look::<K>(cluster, namespace, &name, errors).await? {
        Some(count) => drop(counts.insert(name, count)),
        None => errors.push(missing::<K>(namespace, &name)),
    }
    Ok(())
}

/// What is said of a component that is not there.
fn missing<K: Workload>(namespace: &str, name: &str) -> String {
    let (kind, plural) = (K::kind(&()).to_lowercase(), K::plural(&()));
    format!("unable to collect status for {kind} {name} in namespace {namespace}: {plural}.apps {name:?} not found")
}

/// One component, if it is installed; every fault of the component is added to `errors`.
async fn look<K: Workload>(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    errors: &mut Vec<String>,
) -> anyhow::Result<Option<Count>> {
    let Some(found) = cluster.get::<K>(namespace, name).await? else { return Ok(None) };
    let count = found.count();
    if !count.is_well() {
        let selector: Vec<_> = found.selector().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods: Vec<Pod> = cluster.list(namespace, &selector.join(",")).await?;
        errors.extend(pod_errors(&K::kind(&()), name, &pods));
    }
    Ok(Some(count))
}

impl Count {
    fn is_well(&self) -> bool {
        self.ready >= self.desired && self.available >= self.desired
    }

    fn text(&self) -> String {
        let Self { desired, ready, available, images: _ } = self;
        format!("Desired: {desired}, Ready: {ready}/{desired}, Available: {available}/{desired}")
    }
}

/// Pure: what each pod lacks.
fn pod_errors(kind: &str, name: &str, pods: &[Pod]) -> Vec<String> {
    if pods.is_empty() {
        return vec![format!("no pods found for {} {name}", kind.to_lowercase())];
    }
    let of = |pod: &Pod, what: String| format!("{kind}: {name}, Pod: {}, Msg: {what}", pod.name_any());
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
        self.errors.is_empty() && self.deployments.values().chain(self.daemon_sets.values()).all(Count::is_well)
    }

    /// The text of the box.
    pub(crate) fn text(&self, verbose: bool) -> String {
        let mut all = Section::new("");
        let healthy = self.is_healthy();
        let (mark, told) = if healthy {
            (Mark::Done, "✔ control plane is healthy")
        } else {
            (Mark::Error, "✖ control plane is not OK")
        };
        all.line(format!("{} {told}", mark.prefix()));
        for (kind, counts) in [("Deployment", &self.deployments), ("DaemonSet", &self.daemon_sets)] {
            let mut section = Section::new(kind);
            // In the order of the table of roles.
            for name in ROLES.map(|role| role.workload()) {
                if let Some(count) = counts.get(&name) {
                    section.entry(name, count.text());
                }
            }
            if !counts.is_empty() {
                all.section(section);
            }
        }
        if verbose {
            let mut images = Section::new("Images");
            for (name, count) in self.deployments.iter().chain(&self.daemon_sets) {
                images.entry(name, count.images.join(", "));
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
            pod_errors("Deployment", "liqo-auth", &[pod]),
            ["Deployment: liqo-auth, Pod: p, Msg: not ready (ImagePullBackOff)"]
        );
        assert_eq!(pod_errors("DaemonSet", "liqo-route", &[]), ["no pods found for daemonset liqo-route"]);
    }

    #[test]
    fn counts_are_shown_as_documented() {
        let count = Count { desired: 1, ready: 1, available: 1, images: vec!["localhost/liqo:dev".into()] };
        let route = Count { desired: 3, ready: 2, available: 2, images: Vec::new() };
        let mut all = Components { deployments: [("liqo-auth".to_owned(), count)].into(), ..Components::default() };
        assert!(all.is_healthy());
        assert!(
            all.text(false).contains("    liqo-auth: Desired: 1, Ready: 1/1, Available: 1/1\n"),
            "{}",
            all.text(false)
        );
        assert!(all.text(true).contains("Images\n    liqo-auth: localhost/liqo:dev\n"));
        all.daemon_sets.insert("liqo-route".to_owned(), route);
        assert!(!all.is_healthy());
        assert!(
            all.text(false).contains("DaemonSet\n    liqo-route: Desired: 3, Ready: 2/3, Available: 2/3\n"),
            "{}",
            all.text(false)
        );
    }
}
