//! What to do about a shadow pod and its pod.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt, core::ObjectMeta};
use liqo_api::{
    meta::{annotation, label},
    virtualkubelet::{ShadowPod, ShadowPodPhase},
};
use liqo_kube::owner_reference;
use serde_json::{Value, json};

use super::{
    super::{drift, is_leaving},
    wishes::gates,
};

/// That a new pod is pending goes without saying for so long.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Make the pod.
    Create,
    /// Change the pod.
    Follow(Patch),
    /// Delete the pod of an earlier shadow: a new one is made when it is gone.
    Remove,
    /// Look again later.
    Wait(Duration),
    /// Somebody else's pod has the name.
    Taken,
}

/// Changes of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Patch {
    /// To be merged.
    pub merge: Option<Value>,
    /// To be applied: lists of containers, of which only the images are ours to change.
    pub images: Option<Value>,
    /// Conditions of the status to be set: the readiness gates of the original.
    pub conditions: Vec<Value>,
}

/// How a pod is related to a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinship {
    /// Made from it.
    Own,
    /// Made from an earlier shadow of that name, whose end is still going on.
    Older,
    /// Not ours.
    Foreign,
}

/// How a pod is related to a shadow.
pub(super) fn kinship(shadow: &ShadowPod, pod: &Pod) -> Kinship {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if shadow.uid().as_ref() == Some(&owner.uid) => Kinship::Own,
        Some(owner) if owner.kind == ShadowPod::kind(&()) && owner.name == shadow.name_any() => Kinship::Older,
        _ => Kinship::Foreign,
    }
}

/// The pod of a shadow.
pub(super) fn forge(shadow: &ShadowPod) -> Pod {
    let mut labels = shadow.labels().clone();
    labels.insert(label::MANAGED_BY.to_owned(), label::MANAGED_BY_SHADOW_POD.to_owned());
    let mut annotations = shadow.metadata.annotations.clone();
    // Words of this cluster for the peer.
    annotations.iter_mut().for_each(|all| drop(all.remove(annotation::REFUSAL)));
    Pod {
        metadata: ObjectMeta {
            name: Some(shadow.name_any()),
            namespace: shadow.namespace(),
            labels: Some(labels),
            annotations,
            owner_references: Some(vec![owner_reference(shadow, true)]),
            ..ObjectMeta::default()
        },
        spec: shadow.spec.pod.clone(),
        status: None,
    }
}

/// What to do, and the phase to report, if it is known.
pub(super) fn plan(
    shadow: &ShadowPod,
    pod: Option<&Pod>,
    followed: bool,
    now: &Time,
) -> (Step, Option<ShadowPodPhase>) {
    let Some(pod) = pod else {
        let step = if is_done(shadow) { Step::Keep } else { Step::Create };
        return (step, None);
    };
    match kinship(shadow, pod) {
        Kinship::Foreign => return (Step::Taken, None),
        Kinship::Older if is_leaving(pod) => return (Step::Keep, None),
        Kinship::Older => return (Step::Remove, None),
        Kinship::Own => {}
    }
    let phase = phase_of(pod);
    if is_leaving(pod) {
        let phase = if ends_its_work(shadow, phase) { phase } else { ShadowPodPhase::Pending };
        return (Step::Keep, (!is_done(shadow)).then_some(phase));
    }
    let mut patch = changes(shadow, pod, followed);
    patch.conditions = gates(shadow, pod, now);
    let young = pod.metadata.creation_timestamp.as_ref().map(|born| age(born, now)).filter(|age| *age < PATIENCE);
    if let Some(age) = young
        && phase == ShadowPodPhase::Pending
        && shadow.status.is_none()
        && patch == Patch::default()
    {
        return (Step::Wait(PATIENCE - age), None);
    }
    (if patch == Patch::default() { Step::Keep } else { Step::Follow(patch) }, Some(phase))
}

fn age(born: &Time, now: &Time) -> Duration {
    Duration::from_secs(u64::try_from(now.0.as_second() - born.0.as_second()).unwrap_or_default())
}

fn restart_policy(shadow: &ShadowPod) -> &str {
    shadow.spec.pod.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether the pod has ended for good, so that a pod that went away is not missed. As on any node, a pod that failed is
/// not run again, whatever its restart policy: that policy is about containers.
fn is_done(shadow: &ShadowPod) -> bool {
    let phase = shadow.status.as_ref().map(|status| status.phase);
    matches!(phase, Some(ShadowPodPhase::Succeeded | ShadowPodPhase::Failed))
}

/// Whether this phase of a pod that is being deleted here is the result of its work, rather than of the deletion.
fn ends_its_work(shadow: &ShadowPod, phase: ShadowPodPhase) -> bool {
    match phase {
        ShadowPodPhase::Succeeded => restart_policy(shadow) != "Always",
        ShadowPodPhase::Failed => restart_policy(shadow) == "Never",
        _ => true,
    }
}

fn phase_of(pod: &Pod) -> ShadowPodPhase {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Running") => ShadowPodPhase::Running,
        Some("Succeeded") => ShadowPodPhase::Succeeded,
        Some("Failed") => ShadowPodPhase::Failed,
        Some("Unknown") => ShadowPodPhase::Unknown,
        _ => ShadowPodPhase::Pending,
    }
}

/// What has changed in the shadow and can be changed in a pod. Changes of the specification are brought
/// to the pod once: what admission on this cluster makes of them stays.
fn changes(shadow: &ShadowPod, pod: &Pod, followed: bool) -> Patch {
    let wanted = forge(shadow);
    let mut merge = serde_json::Map::new();
    if let Some(meta) = drift::metadata(&pod.metadata, wanted.labels(), &annotations(&wanted)) {
        merge.insert("metadata".to_owned(), meta.into());
    }
    let none = PodSpec::default();
    let (new, is) = (wanted.spec.as_ref().unwrap_or(&none), pod.spec.as_ref().unwrap_or(&none));
    let mut spec = serde_json::Map::new();
    let mut images = None;
    if !followed {
        if let Some(deadline) = new.active_deadline_seconds.filter(|new| is.active_deadline_seconds != Some(*new)) {
            spec.insert("activeDeadlineSeconds".to_owned(), json!(deadline));
        }
        if let Some(all) = tolerations(new, is) {
            spec.insert("tolerations".to_owned(), json!(all));
        }
        images = new_images(new, is);
    }
    if !spec.is_empty() {
        merge.insert("spec".to_owned(), spec.into());
    }
    Patch { merge: (!merge.is_empty()).then(|| merge.into()), images, conditions: Vec::new() }
}

fn annotations(pod: &Pod) -> BTreeMap<String, String> {
    pod.annotations().clone()
}

/// Tolerations can only be added.
fn tolerations(new: &PodSpec, is: &PodSpec) -> Option<Vec<Toleration>> {
    let mut all = is.tolerations.clone().unwrap_or_default();
    let added: Vec<_> = new.tolerations.iter().flatten().filter(|one| !all.contains(one)).cloned().collect();
    all.extend(added.iter().cloned());
    (!added.is_empty()).then_some(all)
}

/// All images, if one has changed.
fn new_images(new: &PodSpec, is: &PodSpec) -> Option<Value> {
    let inits = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    let changed = images(&new.containers) != images(&is.containers) || images(&inits(new)) != images(&inits(is));
    let list = |all: &[Container]| -> Vec<Value> {
        all.iter().map(|one| json!({"name": one.name, "image": one.image})).collect()
    };
    let mut spec = json!({"containers": list(&new.containers)});
    if !inits(new).is_empty() {
        spec["initContainers"] = json!(list(&inits(new)));
    }
    changed.then_some(spec)
}

/// By name, as far as containers have one in common.
fn images(all: &[Container]) -> BTreeMap<&str, Option<&str>> {
    all.iter().map(|one| (one.name.as_str(), one.image.as_deref())).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::PodStatus, jiff::Timestamp};
    use liqo_api::virtualkubelet::{ShadowPodSpec, ShadowPodStatus};

    use super::*;

    fn shadow(policy: &str, phase: Option<ShadowPodPhase>) -> ShadowPod {
        let spec: PodSpec = serde_json::from_value(json!({
            "restartPolicy": policy,
            "containers": [{"name": "c", "image": "web:1"}],
        }))
        .unwrap();
        let mut shadow = ShadowPod::new("web", ShadowPodSpec { pod: Some(spec) });
        shadow.metadata.namespace = Some("demo-x".to_owned());
        shadow.metadata.uid = Some("uid".to_owned());
        shadow.labels_mut().insert("app".to_owned(), "web".to_owned());
        shadow.status = phase.map(|phase| ShadowPodStatus { phase });
        shadow
    }

    fn pod(shadow: &ShadowPod, phase: &str) -> Pod {
        let mut pod = forge(shadow);
        pod.metadata.creation_timestamp = Some(at(0));
        pod.status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
        pod
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_missing_pod_is_made_unless_its_work_is_done() {
        use ShadowPodPhase::{Failed, Running, Succeeded};
        for (policy, phase, made) in [
            ("Always", None, true),
            ("Always", Some(Running), true),
            ("Always", Some(Succeeded), false),
            ("Always", Some(Failed), false),
            ("OnFailure", Some(Failed), false),
            ("OnFailure", Some(Succeeded), false),
            ("Never", Some(Running), true),
            ("Never", Some(Failed), false),
            ("Never", Some(Succeeded), false),
        ] {
            let (step, reported) = plan(&shadow(policy, phase), None, true, &at(0));
            assert_eq!(step == Step::Create, made, "{policy} {phase:?}");
            assert_eq!(reported, None);
        }
    }

    #[test]
    fn a_pod_says_how_its_shadow_stands() {
        for (policy, phase, after, step, reported) in [
            ("Always", "Pending", 15, Step::Keep, ShadowPodPhase::Pending),
            ("Always", "Running", 0, Step::Keep, ShadowPodPhase::Running),
            ("Never", "Succeeded", 0, Step::Keep, ShadowPodPhase::Succeeded),
            ("Never", "Failed", 99, Step::Keep, ShadowPodPhase::Failed),
            ("OnFailure", "Failed", 99, Step::Keep, ShadowPodPhase::Failed),
            ("Always", "Failed", 99, Step::Keep, ShadowPodPhase::Failed),
            ("Always", "Failed", 4, Step::Keep, ShadowPodPhase::Failed),
        ] {
            let shadow = shadow(policy, None);
            let planned = plan(&shadow, Some(&pod(&shadow, phase)), true, &at(after));
            assert_eq!(planned, (step, Some(reported)), "{policy} {phase}");
        }
    }

    #[test]
    fn a_pod_that_ends_because_it_is_deleted_here_is_not_done() {
        use ShadowPodPhase::{Failed, Pending, Running, Succeeded};
        for (policy, before, phase, reported) in [
            ("Always", Some(Running), "Running", Some(Running)),
            ("Always", Some(Running), "Failed", Some(Pending)),
            ("Always", Some(Running), "Succeeded", Some(Pending)),
            ("OnFailure", Some(Running), "Failed", Some(Pending)),
            ("OnFailure", Some(Running), "Succeeded", Some(Succeeded)),
            ("Never", Some(Running), "Failed", Some(Failed)),
            ("Never", Some(Running), "Succeeded", Some(Succeeded)),
            ("Always", Some(Failed), "Failed", None),
            ("OnFailure", Some(Failed), "Failed", None),
        ] {
            let shadow = shadow(policy, before);
            let mut pod = pod(&shadow, phase);
            pod.metadata.deletion_timestamp = Some(at(0));
            assert_eq!(plan(&shadow, Some(&pod), true, &at(9)), (Step::Keep, reported), "{policy} {before:?} {phase}");
        }
    }

    #[test]
    fn a_new_pod_is_pending_without_saying() {
        let shadow = shadow("Always", None);
        let planned = plan(&shadow, Some(&pod(&shadow, "Pending")), true, &at(2));
        assert_eq!(planned, (Step::Wait(Duration::from_secs(13)), None));
    }

    #[test]
    fn pods_of_others_are_left_alone() {
        let shadow = shadow("Always", None);
        let mut other = pod(&shadow, "Running");
        other.metadata.owner_references = None;
        assert_eq!(plan(&shadow, Some(&other), true, &at(0)), (Step::Taken, None));
        let mut older = pod(&shadow, "Running");
        older.metadata.owner_references.as_mut().unwrap()[0].uid = "before".to_owned();
        assert_eq!(plan(&shadow, Some(&older), true, &at(0)), (Step::Remove, None));
        older.metadata.deletion_timestamp = Some(at(0));
        assert_eq!(plan(&shadow, Some(&older), true, &at(0)), (Step::Keep, None));
    }

    #[test]
    fn the_pod_carries_what_was_recorded_from_a_real_cluster() {
        let made = forge(&shadow("Always", None));
        assert_eq!(made.labels().get("liqo.io/managed-by").map(String::as_str), Some("shadowpod"));
        assert_eq!(made.labels().get("app").map(String::as_str), Some("web"));
        let owner = &made.owner_references()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("ShadowPod", Some(true)));
    }

    #[test]
    fn changes_reach_the_pod_once() {
        let old = shadow("Always", None);
        let pod = pod(&old, "Running");
        let mut new = old.clone();
        new.labels_mut().insert("app".to_owned(), "new".to_owned());
        let spec = new.spec.pod.as_mut().unwrap();
        spec.containers[0].image = Some("web:2".to_owned());
        spec.active_deadline_seconds = Some(60);
        let toleration = Toleration { key: Some("k".to_owned()), ..Toleration::default() };
        spec.tolerations = Some(vec![toleration]);
        let patch = changes(&new, &pod, false);
        assert_eq!(
            patch.merge,
            Some(json!({
                "metadata": {"labels": {"app": "new"}},
                "spec": {"activeDeadlineSeconds": 60, "tolerations": [{"key": "k"}]},
            }))
        );
        assert_eq!(patch.images, Some(json!({"containers": [{"name": "c", "image": "web:2"}]})));
        let again = changes(&new, &pod, true);
        let merge = Some(json!({"metadata": {"labels": {"app": "new"}}}));
        assert_eq!(again, Patch { merge, ..Patch::default() });
        assert_eq!(changes(&old, &pod, false), Patch::default());
    }
}
