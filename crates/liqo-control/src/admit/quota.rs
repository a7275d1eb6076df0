//! What a peer's pods may use: its offer, and not more.
//!
//! Keeps true: what counts is what exists, so every replica comes to the same answer and nothing has to be
//! booked back: a shadow pod counts until it is gone or its work is done. What was admitted a moment ago and
//! is not to be seen yet is reserved here; two replicas can therefore admit too much only within the time
//! a watch takes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::ResourceExt;
use liqo_api::{
    meta::label,
    sharing::ResourceOffer,
    virtualkubelet::{ShadowPod, ShadowPodPhase},
};
use liqo_core::{
    quantity::Amount,
    resources::{self, Half, Resources},
};
use liqo_kube::{Cluster, Store, strip};
use tokio::time::Instant;

/// How long a reservation lasts without its shadow pod being seen: then it was refused by somebody else.
const RESERVED: Duration = Duration::from_secs(30);
/// How long a request waits for the first lists.
const PATIENCE: Duration = Duration::from_secs(5);

/// Namespace and name.
type Key = (String, String);

/// What exists, and what is about to.
pub(super) struct Quota {
    shadows: Store<ShadowPod>,
    offers: Store<ResourceOffer>,
    reserved: Mutex<HashMap<Key, Reservation>>,
}

struct Reservation {
    origin: String,
    demand: Resources,
    until: Instant,
}

/// Why a pod is not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It asks for too much, or does not say what it asks for.
    Denied(String),
    /// It is not known yet what it may have.
    Unable(String),
}

impl Quota {
    /// Starts watching.
    pub(super) fn watch(cluster: &Cluster) -> Self {
        let originals = format!("{}=true", label::REPLICATION);
        Self {
            shadows: cluster.watch::<ShadowPod>("").trim(trim).start(|_| {}),
            offers: cluster.watch::<ResourceOffer>("").labels(&originals).start(|_| {}),
            reserved: Mutex::default(),
        }
    }

    /// Whether a peer may have one more pod; if so, and it is meant, its demand is reserved.
    pub(super) async fn admit(&self, origin: &str, key: Key, pod: &PodSpec, dry_run: bool) -> Result<(), Refusal> {
        let known = async { tokio::join!(self.shadows.ready(), self.offers.ready()) };
        if tokio::time::timeout(PATIENCE, known).await.is_err() {
            return Err(Refusal::Unable("initialization in progress".to_owned()));
        }
        let to_origin = |offer: &ResourceOffer| offer.labels().get(label::REMOTE_ID).is_some_and(|id| id == origin);
        let Some(offer) = self.offers.filter(to_origin).into_iter().next() else {
            let why = format!("error getting resource offer by label: there is none for the cluster {origin}");
            return Err(Refusal::Unable(why));
        };
        let quota = offer.spec.resource_quota.as_ref().and_then(|quota| quota.hard.as_ref());
        let hard = quota.map(resources::read).unwrap_or_default();
        limits_set(pod)?;
        let demand = resources::of_pod(pod, Half::Limits);

        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        reserved.retain(|(namespace, name), one| one.until > now && self.shadows.get(namespace, name).is_none());
        let mut used = Resources::new();
        let others = |shadow: &ShadowPod| counts(shadow, origin) && key_of(shadow) != key;
        for shadow in self.shadows.filter(others) {
            resources::add(&mut used, &demand_of(&shadow));
        }
        for (_, one) in reserved.iter().filter(|(other, one)| one.origin == origin && **other != key) {
            resources::add(&mut used, &one.demand);
        }
        fits(&hard, &used, &demand)?;
        if !dry_run {
            reserved.insert(key, Reservation { origin: origin.to_owned(), demand, until: now + RESERVED });
        }
        Ok(())
    }
}

/// Keeps what counts.
fn trim(shadow: &mut ShadowPod) {
    strip(shadow);
    shadow.metadata.annotations = None;
    let sizes = |all: Vec<Container>| {
        let one = |one: Container| Container {
            name: one.name,
            resources: one.resources,
            restart_policy: one.restart_policy,
            ..Container::default()
        };
        all.into_iter().map(one).collect()
    };
    if let Some(pod) = shadow.spec.pod.take() {
        shadow.spec.pod = Some(PodSpec {
            containers: sizes(pod.containers),
            init_containers: pod.init_containers.map(sizes),
            overhead: pod.overhead,
            resources: pod.resources,
            restart_policy: pod.restart_policy,
            ..PodSpec::default()
        });
    }
}

fn key_of(shadow: &ShadowPod) -> Key {
    (shadow.namespace().unwrap_or_default(), shadow.name_any())
}

fn demand_of(shadow: &ShadowPod) -> Resources {
    shadow.spec.pod.as_ref().map(|pod| resources::of_pod(pod, Half::Limits)).unwrap_or_default()
}

/// Whether a shadow pod of that peer uses anything: not once its work is done.
fn counts(shadow: &ShadowPod, origin: &str) -> bool {
    let phase = shadow.status.as_ref().map(|status| status.phase);
    let policy = shadow.spec.pod.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    let done = match phase {
        Some(ShadowPodPhase::Succeeded) => true,
        Some(ShadowPodPhase::Failed) => policy == Some("Never") || policy == Some("OnFailure"),
        _ => false,
    };
    !done && shadow.labels().get(label::REFLECTION_ORIGIN).is_some_and(|id| id == origin)
}

/// Whether every container says how much CPU and memory it may use.
fn limits_set(pod: &PodSpec) -> Result<(), Refusal> {
    let limited = |container: &&Container, resource: &str| {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        limits.is_some_and(|limits| limits.contains_key(resource))
    };
    let mut all = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    match all.find(|container| !limited(container, "cpu") || !limited(container, "memory")) {
        None => Ok(()),
        Some(container) => {
            Err(Refusal::Denied(format!("CPU and/or memory limits not set for container {}", container.name)))
        }
    }
}

/// Whether a demand fits into what is left.
fn fits(hard: &Resources, used: &Resources, demand: &Resources) -> Result<(), Refusal> {
    for (name, wanted) in demand {
        let Some(total) = hard.get(name) else {
            return Err(Refusal::Denied(format!("{name} quota limit not found for this peering")));
        };
        let free = *total - used.get(name).copied().unwrap_or(Amount::ZERO);
        if free < *wanted {
            let (free, wanted) = (free.quantity().0, wanted.quantity().0);
            return Err(Refusal::Denied(format!(
                "peering {name} quota usage exceeded - free {free} / requested {wanted}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use liqo_api::virtualkubelet::{ShadowPodSpec, ShadowPodStatus};
    use serde_json::{Value, json};

    use super::*;

    fn list(all: &[(&str, &str)]) -> Resources {
        all.iter().map(|(name, amount)| ((*name).to_owned(), Amount::parse(amount).unwrap())).collect()
    }

    fn denied(text: &str) -> Result<(), Refusal> {
        Err(Refusal::Denied(text.to_owned()))
    }

    #[test]
    fn a_demand_fits_or_is_refused_with_numbers() {
        let (hard, used) = (list(&[("cpu", "1"), ("memory", "1Gi")]), list(&[("cpu", "600m")]));
        assert_eq!(fits(&hard, &used, &list(&[("cpu", "400m"), ("memory", "1Gi")])), Ok(()));
        assert_eq!(
            fits(&hard, &used, &list(&[("cpu", "500m")])),
            denied("peering cpu quota usage exceeded - free 400m / requested 500m")
        );
        assert_eq!(
            fits(&hard, &used, &list(&[("nvidia.com/gpu", "1")])),
            denied("nvidia.com/gpu quota limit not found for this peering")
        );
    }

    #[test]
    fn every_container_must_have_limits() {
        let pod = |limits: Value, init: Value| -> PodSpec {
            serde_json::from_value(json!({
                "containers": [{"name": "main", "resources": {"limits": limits}}],
                "initContainers": [{"name": "first", "resources": {"limits": init}}],
            }))
            .unwrap()
        };
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(limits_set(&pod(full.clone(), full.clone())), Ok(()));
        let no = |name: &str| denied(&format!("CPU and/or memory limits not set for container {name}"));
        assert_eq!(limits_set(&pod(json!({"cpu": "1"}), full.clone())), no("main"));
        assert_eq!(limits_set(&pod(full, json!({}))), no("first"));
    }

    #[test]
    fn a_shadow_pod_counts_until_its_work_is_done() {
        for (policy, phase, wanted) in [
            ("Always", None, true),
            ("Always", Some(ShadowPodPhase::Running), true),
            // It is made again.
            ("Always", Some(ShadowPodPhase::Failed), true),
            ("Never", Some(ShadowPodPhase::Failed), false),
            ("Never", Some(ShadowPodPhase::Succeeded), false),
            ("OnFailure", Some(ShadowPodPhase::Succeeded), false),
        ] {
            let pod = PodSpec { restart_policy: Some(policy.to_owned()), ..PodSpec::default() };
            let mut shadow = ShadowPod::new("x", ShadowPodSpec { pod: Some(pod) });
            shadow.labels_mut().insert(label::REFLECTION_ORIGIN.to_owned(), "id".to_owned());
            shadow.status = phase.map(|phase| ShadowPodStatus { phase });
            assert_eq!(counts(&shadow, "id"), wanted, "{policy} {phase:?}");
            assert!(!counts(&shadow, "other"));
            // Deleted is not gone: its pod may still run.
            shadow.metadata.deletion_timestamp = Some(liqo_kube::now());
            assert_eq!(counts(&shadow, "id"), wanted);
        }
    }
}
