//! What annotations of a shadow pod ask for: how its pod ends, and which of its readiness gates are open.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt;
use liqo_api::{meta::annotation, virtualkubelet::ShadowPod};
use serde_json::{Value, json};

use super::super::is_leaving;

/// Seconds a pod has to end unless it says so; and most seconds that pods of a peer without a grant have.
const GRACE: u32 = 30;

/// Seconds the peer gives the pod to end, fewer than the pod's own; `None` while the shadow is not about to be deleted. Never
/// 0: that would take the pod from the API server while its containers still run.
pub(super) fn grace(shadow: &ShadowPod) -> Option<u32> {
    let seconds: u32 = shadow.annotations().get(annotation::GRACE_SECONDS)?.parse().ok()?;
    let own = shadow.spec.pod.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    Some(seconds.min(own.and_then(|own| u32::try_from(own).ok()).unwrap_or(GRACE)).max(1))
}

/// How to delete a pod of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// With the seconds it has itself.
    Plain,
    /// With so many seconds.
    Within(u32),
}

/// How to delete the pod of a shadow that ends, or a pod without a shadow; `None` when its deletion is under way. A peer without
/// a grant has no say in how long its pods take to end.
pub(super) fn removal(shadow: Option<&ShadowPod>, pod: &Pod, has_grant: bool) -> Option<Removal> {
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let grace = match shadow.and_then(grace) {
        Some(grace) => Some(grace),
        None if !has_grant && own.is_some_and(|own| own > i64::from(GRACE)) => Some(GRACE),
        None => None,
    };
    let grace = grace.map(|grace| if has_grant { grace } else { grace.min(GRACE) });
    if !is_leaving(pod) {
        return Some(grace.map_or(Removal::Plain, Removal::Within));
    }
    let left = pod.metadata.deletion_grace_period_seconds?;
    grace.filter(|grace| i64::from(*grace) < left).map(Removal::Within)
}

/// The readiness gates of the original that are not as told in the pod's status. Only conditions the pod has as gates
/// are set, so a peer cannot claim anything else about its pod.
pub(super) fn gates(shadow: &ShadowPod, pod: &Pod, now: &Time) -> Vec<Value> {
    let told = shadow.annotations().get(annotation::READINESS_GATES);
    let told: BTreeMap<String, String> = told.and_then(|told| serde_json::from_str(told).ok()).unwrap_or_default();
    let gates = shadow.spec.pod.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let is = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let wanted = gates.filter_map(|gate| {
        let status =
            told.get(&gate.condition_type).filter(|one| ["True", "False", "Unknown"].contains(&one.as_str()))?;
        let has = is.iter().any(|one| one.type_ == gate.condition_type && one.status == *status);
        (!has).then(|| {
            json!({
                "type": gate.condition_type, "status": status, "reason": "Original", "lastTransitionTime": now,
                "message": "as the pod's readiness gate in the cluster the pod comes from",
            })
        })
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn shadow(own: i64, annotation: Option<(&str, &str)>) -> ShadowPod {
        let annotations: BTreeMap<_, _> = annotation.into_iter().collect();
        let gates = json!([{"conditionType": "gate"}, {"conditionType": "odd"}]);
        serde_json::from_value(json!({
            "apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": "ShadowPod",
            "metadata": {"name": "web", "annotations": annotations},
            "spec": {"pod": {"containers": [], "terminationGracePeriodSeconds": own, "readinessGates": gates}},
        }))
        .unwrap()
    }

    #[test]
    fn the_grace_of_the_caller_shortens_that_of_the_pod() {
        for (told, own, left, wanted) in [
            (None, 40, None, Some(Removal::Plain)),
            (None, 40, Some(40), None),
            (Some("4"), 40, None, Some(Removal::Within(4))),
            (Some("4"), 40, Some(40), Some(Removal::Within(4))),
            (Some("4"), 40, Some(4), None),
            (Some("400"), 40, None, Some(Removal::Within(40))),
            (Some("0"), 40, None, Some(Removal::Within(1))),
            (Some("-1"), 40, None, Some(Removal::Plain)),
            (Some("soon"), 40, Some(40), None),
        ] {
            let shadow = shadow(own, told.map(|told| (annotation::GRACE_SECONDS, told)));
            let mut pod = Pod::default();
            pod.metadata.deletion_timestamp = left.map(|_| at(0));
            pod.metadata.deletion_grace_period_seconds = left;
            assert_eq!(removal(Some(&shadow), &pod, true), wanted, "{told:?} {left:?}");
        }
    }

    #[test]
    fn pods_of_a_peer_without_a_grant_end_soon() {
        for (own, told, left, wanted) in [
            (Some(20), None, None, Some(Removal::Plain)),
            (None, None, None, Some(Removal::Plain)),
            (Some(900), None, None, Some(Removal::Within(30))),
            (Some(900), Some("600"), None, Some(Removal::Within(30))),
            (Some(900), Some("4"), None, Some(Removal::Within(4))),
            (Some(900), None, Some(900), Some(Removal::Within(30))),
            (Some(900), None, Some(30), None),
        ] {
            let shadow = shadow(own.unwrap_or(30), told.map(|told| (annotation::GRACE_SECONDS, told)));
            let mut pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": [], "terminationGracePeriodSeconds": own}}))
                    .unwrap();
            pod.metadata.deletion_timestamp = left.map(|_| at(0));
            pod.metadata.deletion_grace_period_seconds = left;
            assert_eq!(removal(Some(&shadow), &pod, false), wanted, "{own:?} {told:?} {left:?}");
            if told.is_none() {
                assert_eq!(removal(None, &pod, false), wanted, "without a shadow: {own:?} {left:?}");
            }
        }
    }

    #[test]
    fn only_readiness_gates_of_the_pod_are_set() {
        let told = json!({"gate": "True", "odd": "Perhaps", "Ready": "True"}).to_string();
        let asking = shadow(30, Some((annotation::READINESS_GATES, &told)));
        let set = gates(&asking, &Pod::default(), &at(7));
        assert_eq!(set.len(), 1);
        assert_eq!((&set[0]["type"], &set[0]["status"]), (&json!("gate"), &json!("True")));
        let open: Pod =
            serde_json::from_value(json!({"status": {"conditions": [{"type": "gate", "status": "True"}]}})).unwrap();
        assert!(gates(&asking, &open, &at(7)).is_empty(), "told once");
        let nonsense = shadow(30, Some((annotation::READINESS_GATES, "[")));
        assert!(gates(&nonsense, &Pod::default(), &at(7)).is_empty(), "nonsense is nothing");
    }

    /// Whatever a peer writes: a pod ends in no more time than its own, and only its own gates are set.
    #[test]
    fn fuzz_wishes() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "wishes", |bytes| {
            let Ok(shadow) = serde_json::from_slice::<ShadowPod>(bytes) else { return };
            let spec = shadow.spec.pod.clone().unwrap_or_default();
            let pod = Pod { spec: Some(spec.clone()), ..Pod::default() };
            if let Some(grace) = grace(&shadow) {
                let own = spec.termination_grace_period_seconds.and_then(|own| u32::try_from(own).ok());
                assert!((1..=own.unwrap_or(GRACE).max(1)).contains(&grace), "{grace}");
            }
            if let Some(Removal::Within(seconds)) = removal(Some(&shadow), &pod, false) {
                assert!((1..=GRACE).contains(&seconds), "{seconds} without a grant");
            }
            let mine: Vec<_> = spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str()).collect();
            for gate in gates(&shadow, &pod, &at(7)) {
                assert!(gate["type"].as_str().is_some_and(|name| mine.contains(&name)), "{gate}");
                assert!(["True", "False", "Unknown"].map(Value::from).contains(&gate["status"]), "{gate}");
            }
        });
    }
}
