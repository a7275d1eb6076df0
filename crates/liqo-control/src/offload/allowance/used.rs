//! The resources that a peer uses: its `ShadowPod`s and its living pods together.
//!
//! Keeps true: a pod counts until its containers have ended, also when its `ShadowPod` is deleted and the pod uses its grace
//! period; a `ShadowPod` and the pod made from it count once.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use liqo_api::virtualkubelet::{ShadowPod, ShadowPodPhase};
use liqo_core::resources::{self, Resources};

use super::{super::guest, demand, demand_of};

/// Namespace and name of a pod.
pub(crate) type Place = (String, String);

/// What a peer uses at each place. A place holds one pod at a time: a `ShadowPod` and the pod of an earlier `ShadowPod` of the
/// same name share the place, which uses the larger of their demands.
#[derive(Debug, Default)]
pub(crate) struct Used(HashMap<Place, Resources>);

impl Used {
    /// What `ShadowPod`s and pods use together; all of them must count.
    pub(crate) fn of(shadows: &[impl Borrow<ShadowPod>], pods: &[impl Borrow<Pod>]) -> Self {
        let shadows = || shadows.iter().map(Borrow::borrow);
        let uids: HashSet<_> = shadows().filter_map(|one| one.metadata.uid.as_deref()).collect();
        let mut used = Self::default();
        for shadow in shadows() {
            used.raise(place_of(shadow), &demand_of(shadow));
        }
        for pod in pods.iter().map(Borrow::borrow) {
            if !made_from(pod).is_some_and(|uid| uids.contains(uid)) {
                used.raise(place_of(pod), &pod.spec.as_ref().map(demand).unwrap_or_default());
            }
        }
        used
    }

    /// The place uses at least `demand`.
    pub(crate) fn raise(&mut self, place: Place, demand: &Resources) {
        resources::raise(self.0.entry(place).or_default(), demand);
    }

    /// The sum of all places other than `place`.
    pub(crate) fn beside(&self, place: &Place) -> Resources {
        let mut sum = Resources::new();
        for (_, demand) in self.0.iter().filter(|(other, _)| *other != place) {
            resources::add(&mut sum, demand);
        }
        sum
    }
}

/// Namespace and name of an object.
pub(crate) fn place_of(object: &impl ResourceExt) -> Place {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// UID of the object that controls a pod: of its `ShadowPod`.
pub(crate) fn made_from(pod: &Pod) -> Option<&str> {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    owner.map(|owner| owner.uid.as_str())
}

/// Whether a `ShadowPod` of that peer counts: not once its work is done.
pub(crate) fn counts(shadow: &ShadowPod, peer: &str) -> bool {
    let phase = shadow.status.as_ref().map(|status| status.phase);
    let done = matches!(phase, Some(ShadowPodPhase::Succeeded | ShadowPodPhase::Failed));
    !done && guest::origin(&shadow.metadata) == peer
}

/// Whether a pod of that peer counts: until its containers have ended, whether or not the pod is being deleted.
pub(crate) fn runs(pod: &Pod, peer: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed")) && guest::origin(&pod.metadata) == peer
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use liqo_api::{
        meta::label,
        virtualkubelet::{ShadowPodSpec, ShadowPodStatus},
    };
    use liqo_core::quantity::Amount;
    use serde_json::{Value, json};

    use super::{super::super::shadow_pod, *};

    fn spec(cpu: &str) -> Value {
        json!({"containers": [{"name": "c", "image": "web", "resources": {"limits": {"cpu": cpu}}}]})
    }

    fn shadow(name: &str, uid: &str, cpu: &str) -> ShadowPod {
        let metadata = json!({"name": name, "namespace": "demo", "uid": uid});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"pod": spec(cpu)}})).unwrap()
    }

    fn pod(name: &str, owner: &str, cpu: &str) -> Pod {
        let owner = json!([{"apiVersion": "a", "kind": "ShadowPod", "name": name, "uid": owner, "controller": true}]);
        let metadata = json!({"name": name, "namespace": "demo", "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec(cpu)})).unwrap()
    }

    #[test]
    fn shadow_pods_and_living_pods_count_together_and_once() {
        for (what, shadows, pods, beside, pods_used, cpu) in [
            ("nothing", vec![], vec![], "x", 0, "0"),
            ("no pod yet", vec![shadow("a", "1", "1")], vec![], "x", 1, "1"),
            ("a shadow and its pod", vec![shadow("a", "1", "1")], vec![pod("a", "1", "1")], "x", 1, "1"),
            ("what admission adds to a pod", vec![shadow("a", "1", "1")], vec![pod("a", "1", "3")], "x", 1, "1"),
            ("the shadow is gone, its pod ends slowly", vec![], vec![pod("a", "1", "1")], "x", 1, "1"),
            ("beside it", vec![shadow("b", "2", "1")], vec![pod("a", "1", "1")], "x", 2, "2"),
            ("in its place, larger", vec![shadow("a", "2", "3")], vec![pod("a", "1", "1")], "x", 1, "3"),
            ("in its place, smaller", vec![shadow("a", "2", "1")], vec![pod("a", "1", "3")], "x", 1, "3"),
            ("the place asked for", vec![shadow("b", "2", "1")], vec![pod("a", "1", "3")], "a", 1, "1"),
        ] {
            let sum = Used::of(&shadows, &pods).beside(&("demo".to_owned(), beside.to_owned()));
            let of = |name: &str| sum.get(name).copied().unwrap_or(Amount::ZERO);
            assert_eq!(of("cpu"), Amount::parse(cpu).unwrap(), "{what}");
            assert_eq!(of("pods"), Amount::whole(pods_used), "{what}");
        }
    }

    #[test]
    fn a_demand_that_is_no_object_yet_counts_at_its_place() {
        let place = || ("demo".to_owned(), "a".to_owned());
        let mut used = Used::of(&[shadow("a", "1", "1")], &[] as &[Pod]);
        used.raise(place(), &demand_of(&shadow("a", "2", "3")));
        used.raise(place(), &demand_of(&shadow("a", "2", "2")));
        assert_eq!(used.beside(&Place::default())["cpu"], Amount::whole(3));
        assert_eq!(used.beside(&place()), Resources::new());
    }

    #[test]
    fn a_shadow_pod_counts_until_its_work_is_done() {
        for (policy, phase, wanted) in [
            ("Always", None, true),
            ("Always", Some(ShadowPodPhase::Running), true),
            ("Always", Some(ShadowPodPhase::Failed), false),
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

    #[test]
    fn a_pod_counts_until_its_containers_have_ended() {
        for (phase, wanted) in [
            (None, true),
            (Some("Pending"), true),
            (Some("Running"), true),
            (Some("Unknown"), true),
            (Some("Succeeded"), false),
            (Some("Failed"), false),
        ] {
            let mut pod = pod("a", "1", "1");
            pod.labels_mut().insert(label::REFLECTION_ORIGIN.to_owned(), "id".to_owned());
            pod.status = Some(serde_json::from_value(json!({ "phase": phase })).unwrap());
            for deleted in [None, Some(liqo_kube::now())] {
                pod.metadata.deletion_timestamp = deleted;
                assert_eq!(runs(&pod, "id"), wanted, "{phase:?}");
                assert!(!runs(&pod, "other"));
            }
        }
    }

    #[test]
    fn what_is_kept_of_a_pod_has_the_same_demand() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "c", "image": "web", "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}}}],
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"limits": {"cpu": "2"}}}],
            "overhead": {"cpu": "100m"}, "resources": {"limits": {"memory": "2Gi"}},
        }}))
        .unwrap();
        let mut kept = pod.clone();
        shadow_pod::trim(&mut kept);
        let demand_of = |pod: &Pod| demand(pod.spec.as_ref().unwrap());
        assert_eq!(demand_of(&kept), demand_of(&pod));
    }
}
