//! The sum of resources that the pods of a peer may use: the offer to the peer.
//!
//! Keeps true: what cannot be counted is refused, never taken for nothing; the webhook and the controller count alike.

mod bookings;
mod used;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, PodSpec, ResourceRequirements};
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, meta::label, sharing::ResourceOffer, virtualkubelet::ShadowPod};
use liqo_core::{
    naming::claimed_tenant_of,
    quantity::Amount,
    resources::{self, Half, Resources},
};

use super::guest;
pub(crate) use bookings::{Bookings, Existing, Fit, fit};
pub(crate) use used::{Place, Used, counts, made_from, place_of, runs};

/// The resource that counts pods.
pub(super) const PODS: &str = "pods";

/// Whether an offer is the one this cluster made to a peer: in the peer's own tenant namespace, by us.
pub(crate) fn is_ours(offer: &ResourceOffer, own: &ClusterIdentity, peer: &str, tenant: Option<&Namespace>) -> bool {
    let labelled = |key: &str, value: &str| offer.labels().get(key).is_some_and(|is| is == value);
    tenant.and_then(claimed_tenant_of) == Some(peer)
        && offer.name_any() == own.cluster_name
        && offer.spec.cluster_id == own.cluster_id
        && labelled(label::REPLICATION, "true")
        && labelled(label::REMOTE_ID, peer)
}

/// What an offer gives.
pub(crate) fn given(offer: &Arc<ResourceOffer>) -> Resources {
    let quota = offer.spec.resource_quota.as_ref().and_then(|quota| quota.hard.as_ref());
    quota.map(resources::read).unwrap_or_default()
}

/// The demand of a pod: one pod, and of each resource the limit or, without a limit, the request.
pub(crate) fn demand(pod: &PodSpec) -> Resources {
    let mut all = resources::of_pod(pod, Half::Limits);
    resources::raise(&mut all, &resources::of_pod(pod, Half::Requests));
    all.insert(PODS.to_owned(), Amount::whole(1));
    all
}

/// What a shadow pod uses.
pub(crate) fn demand_of(shadow: &ShadowPod) -> Resources {
    shadow.spec.pod.as_ref().map(demand).unwrap_or_default()
}

/// Whether a demand has room in what was booked for a pod.
pub(crate) fn covers(booked: &Resources, demand: &Resources) -> bool {
    demand.iter().all(|(name, wanted)| booked.get(name).is_some_and(|is| is >= wanted))
}

/// Whether a pod fits into what is left of an offer.
///
/// # Errors
/// A text that names the resource that does not fit or cannot be counted.
pub(crate) fn judge(hard: &Resources, used: &Resources, pod: &PodSpec) -> Result<(), String> {
    limits_set(pod)?;
    fits(hard, used, &demand(pod))
}

/// Whether every container, or the pod for all of them, says how much CPU and memory it may use. For Kubernetes, nothing
/// means without limit.
fn limits_set(pod: &PodSpec) -> Result<(), String> {
    let is_limited = |resources: Option<&ResourceRequirements>, name: &str| {
        let limit = resources.and_then(|resources| resources.limits.as_ref()?.get(name));
        limit.map(Amount::of).is_some_and(Amount::is_positive)
    };
    let whole = |name: &str| is_limited(pod.resources.as_ref(), name);
    for container in guest::containers(pod) {
        let one = |name: &str| is_limited(container.resources.as_ref(), name);
        if !["cpu", "memory"].into_iter().all(|name| whole(name) || one(name)) {
            return Err(format!("CPU and/or memory limits not set for container {}", container.name));
        }
    }
    Ok(())
}

/// Whether a demand fits into what is left. Pods are counted where the offer counts them.
fn fits(hard: &Resources, used: &Resources, demand: &Resources) -> Result<(), String> {
    for (name, wanted) in demand.iter().filter(|(name, _)| *name != PODS || hard.contains_key(PODS)) {
        let Some(total) = hard.get(name) else {
            return Err(format!("{name} quota limit not found for this peering"));
        };
        let free = *total - used.get(name).copied().unwrap_or(Amount::ZERO);
        if free < *wanted {
            let (free, wanted) = (free.quantity().0, wanted.quantity().0);
            return Err(format!("peering {name} quota usage exceeded - free {free} / requested {wanted}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use liqo_api::sharing::ResourceOfferSpec;
    use serde_json::{Value, json};

    use super::*;

    fn list(all: &[(&str, &str)]) -> Resources {
        all.iter().map(|(name, amount)| ((*name).to_owned(), Amount::parse(amount).unwrap())).collect()
    }

    fn refused(text: &str) -> Result<(), String> {
        Err(text.to_owned())
    }

    #[test]
    fn a_demand_fits_or_is_refused_with_numbers() {
        let (hard, used) = (list(&[("cpu", "1"), ("memory", "1Gi")]), list(&[("cpu", "600m")]));
        assert_eq!(fits(&hard, &used, &list(&[("cpu", "400m"), ("memory", "1Gi"), ("pods", "1")])), Ok(()));
        assert_eq!(
            fits(&hard, &used, &list(&[("cpu", "500m")])),
            refused("peering cpu quota usage exceeded - free 400m / requested 500m")
        );
        assert_eq!(
            fits(&hard, &used, &list(&[("nvidia.com/gpu", "1")])),
            refused("nvidia.com/gpu quota limit not found for this peering")
        );
        let full = list(&[("pods", "2")]);
        assert_eq!(
            fits(&full, &full, &list(&[("pods", "1")])),
            refused("peering pods quota usage exceeded - free 0 / requested 1")
        );
    }

    fn pod(limits: Value, init: Value) -> PodSpec {
        serde_json::from_value(json!({
            "containers": [{"name": "main", "resources": {"limits": limits}}],
            "initContainers": [{"name": "first", "resources": {"limits": init}}],
        }))
        .unwrap()
    }

    #[test]
    fn every_container_must_have_limits() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(limits_set(&pod(full.clone(), full.clone())), Ok(()));
        let no = |name: &str| refused(&format!("CPU and/or memory limits not set for container {name}"));
        for bad in [
            json!({"cpu": "1"}),
            json!({}),
            json!({"cpu": "0", "memory": "1Gi"}),
            json!({"cpu": "1", "memory": "0"}),
            json!({"cpu": "lots", "memory": "1Gi"}),
            json!({"cpu": "-1000", "memory": "-1000Gi"}),
        ] {
            assert_eq!(limits_set(&pod(bad.clone(), full.clone())), no("main"), "{bad}");
            assert_eq!(limits_set(&pod(full.clone(), bad.clone())), no("first"), "{bad}");
        }
    }

    #[test]
    fn no_spelling_of_a_demand_gets_round_the_offer() {
        let hard = list(&[("cpu", "2"), ("memory", "2Gi"), ("ephemeral-storage", "1Gi"), ("pods", "10")]);
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let with = |more: Value| {
            let mut spec = serde_json::to_value(pod(full.clone(), full.clone())).unwrap();
            json_patch::merge(&mut spec, &more);
            judge(&hard, &list(&[("cpu", "500m")]), &serde_json::from_value(spec).unwrap())
        };
        assert_eq!(with(json!({})), Ok(()));
        let unlimited = |limits: Value| json!({"containers": [{"name": "c"}], "initContainers": null, "resources": {"limits": limits}});
        assert_eq!(with(unlimited(full.clone())), Ok(()), "limits of the whole pod bind its containers");
        assert!(with(unlimited(json!({"cpu": "1"}))).unwrap_err().starts_with("CPU and/or memory limits not set"));
        for (more, resource) in [
            (unlimited(json!({"cpu": "1.6", "memory": "1Gi"})), "cpu"),
            (json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1e19"}}}]}), "memory"),
            (
                json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "1.6", "memory": "1"}}}], "resources": {"limits": {"cpu": "1m"}}}),
                "cpu",
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"limits": full, "requests": {"ephemeral-storage": "1e10"}}}]}),
                "ephemeral-storage",
            ),
        ] {
            let outcome = with(more.clone()).unwrap_err();
            assert!(outcome.starts_with(&format!("peering {resource} quota usage exceeded")), "{more}: {outcome}");
        }
    }

    #[test]
    fn a_booked_demand_covers_what_is_not_larger() {
        let booked = list(&[("cpu", "1"), ("memory", "1Gi")]);
        for (demand, wanted) in [
            (list(&[("cpu", "1"), ("memory", "1Gi")]), true),
            (list(&[("cpu", "500m")]), true),
            (list(&[("cpu", "1001m")]), false),
            (list(&[("nvidia.com/gpu", "1")]), false),
        ] {
            assert_eq!(covers(&booked, &demand), wanted, "{demand:?}");
        }
    }

    #[test]
    fn only_our_own_offer_in_the_peers_own_namespace_counts() {
        let own = ClusterIdentity::new("us", "provider");
        let tenant = |peer: &str| -> Namespace {
            let labels = json!({"discovery.liqo.io/cluster-id": peer, "discovery.liqo.io/tenant-namespace": "true"});
            serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap()
        };
        let offer = |name: &str, cluster: &str, remote: &str, replication: &str| {
            let spec = ResourceOfferSpec { cluster_id: cluster.to_owned(), ..ResourceOfferSpec::default() };
            let mut offer = ResourceOffer::new(name, spec);
            let labels = [(label::REPLICATION, replication), (label::REMOTE_ID, remote)];
            offer.labels_mut().extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
            offer
        };
        let good = || offer("provider", "us", "peer", "true");
        assert!(is_ours(&good(), &own, "peer", Some(&tenant("peer"))));
        assert!(!is_ours(&good(), &own, "peer", Some(&tenant("other"))));
        assert!(!is_ours(&good(), &own, "peer", None));
        for bad in [
            offer("mine", "us", "peer", "true"),
            offer("provider", "peer", "peer", "true"),
            offer("provider", "us", "other", "true"),
            offer("provider", "us", "peer", "false"),
        ] {
            assert!(!is_ours(&bad, &own, "peer", Some(&tenant("peer"))));
        }
    }
}
