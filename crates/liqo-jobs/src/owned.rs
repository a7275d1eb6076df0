//! What belongs to a job, and how much of it is kept in memory.
//!
//! Keeps true: a `batch/v1` Job or a pod of somebody else is never taken for that of a job, whatever its name and labels are; of both
//! kinds, memory holds the part that decisions read.

use k8s_openapi::api::{
    batch::v1::{Job as Batch, JobSpec as BatchSpec},
    core::v1::{Container, Pod, PodSpec, PodStatus},
};
use kube::{Resource, ResourceExt};
use liqo_api::jobs::{Job, JobStatus, Phase};
use liqo_kube::strip;

use crate::{
    state::Seen,
    worker::{WORKER, location_name},
};

/// Whether the `batch/v1` Job was made for this very job: its controller is the job, by UID.
pub(crate) fn is_batch_of(batch: &Batch, job: &Job) -> bool {
    job.uid().is_some_and(|uid| is_controlled_by(batch, &uid))
}

/// Whether the pod runs the worker of this job: it holds the place of the results of the job, and the `batch/v1` Job of the job, while
/// there is one, made it.
pub(crate) fn is_pod_of(pod: &Pod, job: &Job, batch: Option<&Batch>) -> bool {
    let name = location_name(&job.name_any());
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.any(|volume| volume.secret.as_ref().is_some_and(|secret| secret.secret_name.as_ref() == Some(&name)))
        && batch.and_then(ResourceExt::uid).is_none_or(|uid| is_controlled_by(pod, &uid))
}

fn is_controlled_by<K: Resource>(object: &K, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// The status of a job whose name another `batch/v1` Job has.
pub(crate) fn taken(job: &Job) -> JobStatus {
    JobStatus {
        phase: Phase::Starting,
        reason: Some("NameTaken".to_owned()),
        message: Some(format!(
            "somebody else's batch/v1 Job {:?} is in the way: delete it, or run this job again under another name",
            job.name_any()
        )),
        ..job.status.clone().unwrap_or_default()
    }
}

/// Says of a job without pods that somebody, Kueue say, has not let its `batch/v1` Job start.
pub(crate) fn tell_suspended(status: &mut JobStatus, seen: &Seen<'_>) {
    let spec = seen.batch.and_then(|batch| batch.spec.as_ref());
    if seen.pods.is_empty() && spec.is_some_and(|spec| spec.suspend == Some(true)) {
        (status.phase, status.reason) = (Phase::Starting, Some("Suspended".to_owned()));
        status.message = Some("the batch/v1 Job is suspended until its queue lets it start".to_owned());
    }
}

/// Of a `batch/v1` Job, whether it is suspended and how it stands.
pub(crate) fn batch(batch: &mut Batch) {
    strip(batch);
    batch.metadata.annotations = None;
    let suspend = batch.spec.as_ref().and_then(|spec| spec.suspend);
    batch.spec = Some(BatchSpec { suspend, ..BatchSpec::default() });
}

/// Of a pod, where it runs, how its containers and its scheduling stand, and the volumes that say whose it is. Of a pod that ended,
/// the worker.
pub(crate) fn pod(pod: &mut Pod) {
    strip(pod);
    pod.metadata.annotations = None;
    let spec = pod.spec.take().unwrap_or_default();
    let mut volumes = spec.volumes.unwrap_or_default();
    volumes.retain(|volume| volume.secret.is_some());
    let containers = vec![Container { name: WORKER.to_owned(), ..Container::default() }];
    pod.spec = Some(PodSpec { node_name: spec.node_name, volumes: Some(volumes), containers, ..PodSpec::default() });
    let Some(status) = pod.status.take() else { return };
    let PodStatus { phase, mut conditions, mut container_statuses, mut init_container_statuses, .. } = status;
    let has_ended = matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
    conditions.iter_mut().for_each(|all| all.retain(|one| one.type_ == "PodScheduled"));
    container_statuses.iter_mut().for_each(|all| all.retain(|one| one.name == WORKER));
    if has_ended {
        (conditions, init_container_statuses) = (None, None);
    }
    pod.status =
        Some(PodStatus { phase, conditions, container_statuses, init_container_statuses, ..PodStatus::default() });
}

#[cfg(test)]
mod tests {
    use liqo_api::jobs::{JobSpec, JobTemplateSpec};
    use serde_json::{Value, json};

    use super::*;
    use crate::{JobsArgs, state, worker};

    fn a_job() -> Job {
        let template =
            JobTemplateSpec { image: "i".to_owned(), args: vec!["x".repeat(1000)], ..JobTemplateSpec::default() };
        let mut job = Job::new("j", JobSpec { template: Some(template), ..JobSpec::default() });
        job.metadata.uid = Some("u".to_owned());
        job
    }

    fn args() -> JobsArgs {
        clap::Parser::parse_from(["liqo-jobs"])
    }

    fn a_batch(owner: Value) -> Batch {
        let metadata = json!({"name": "j", "uid": "b", "labels": {"jobs.liqo.io/job": "j"}, "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn a_pod(secret: &str, owner: &str) -> Pod {
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner, "controller": true}]);
        let volumes =
            json!([{"name": "location", "secret": {"secretName": secret}}, {"name": "results", "emptyDir": {}}]);
        let spec = json!({"containers": [{"name": "worker", "image": "i"}], "volumes": volumes, "nodeName": "n"});
        serde_json::from_value(json!({"metadata": {"name": "p", "ownerReferences": owner}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_batch_job_of_another_owner_is_never_ours() {
        let owner = |uid: &str, controller: bool| json!([{"apiVersion": "jobs.liqo.io/v1alpha1", "kind": "Job", "name": "j", "uid": uid, "controller": controller}]);
        assert!(is_batch_of(&a_batch(owner("u", true)), &a_job()));
        for other in [json!([]), owner("v", true), owner("u", false)] {
            assert!(!is_batch_of(&a_batch(other.clone()), &a_job()), "{other}");
        }
        let made = worker::forge(&a_job(), &JobTemplateSpec::default(), &args());
        assert!(is_batch_of(&made, &a_job()), "what the controller makes is its own");
    }

    #[test]
    fn a_pod_of_another_owner_is_never_ours() {
        let ours = location_name("j");
        let own = a_batch(json!([]));
        assert!(is_pod_of(&a_pod(&ours, "b"), &a_job(), Some(&own)) && is_pod_of(&a_pod(&ours, "b"), &a_job(), None));
        assert!(!is_pod_of(&a_pod(&ours, "c"), &a_job(), Some(&own)));
        assert!(
            !is_pod_of(&a_pod("other", "b"), &a_job(), Some(&own)) && !is_pod_of(&a_pod("other", "b"), &a_job(), None)
        );
    }

    #[test]
    fn a_job_says_that_its_name_or_its_queue_holds_it_up() {
        let mut suspended = a_batch(json!([]));
        suspended.spec = Some(serde_json::from_value(json!({"suspend": true, "template": {}})).unwrap());
        let stands = |pods: &[&Pod]| {
            let stored = state::Stored::NotAsked;
            state::of(&a_job(), &Seen { batch: Some(&suspended), pods, stored, now: liqo_kube::now() })
        };
        assert_eq!((stands(&[]).phase, stands(&[]).reason.as_deref()), (Phase::Starting, Some("Suspended")));
        assert_eq!(stands(&[&a_pod("x", "b")]).reason.as_deref(), Some("Starting"), "its pods say more");
        let taken = taken(&a_job());
        assert_eq!((taken.phase, taken.reason.as_deref()), (Phase::Starting, Some("NameTaken")));
        assert!(taken.message.unwrap().contains("\"j\""));
    }

    #[test]
    fn what_was_made_for_a_job_takes_little_memory_and_is_still_known() {
        let whole = a_job();
        let mut made = worker::forge(&whole, whole.spec.template.as_ref().unwrap(), &args());
        batch(&mut made);
        assert!(is_batch_of(&made, &whole) && serde_json::to_vec(&made).unwrap().len() < 600);
        let mut trimmed = a_pod(&location_name("j"), "b");
        trimmed.status = Some(
            serde_json::from_value(json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 3}}}]}))
            .unwrap(),
        );
        let before = trimmed.clone();
        pod(&mut trimmed);
        assert!(is_pod_of(&trimmed, &whole, None));
        let stands = |pod: &Pod| {
            let seen =
                state::Seen { batch: None, pods: &[pod], stored: state::Stored::NotAsked, now: liqo_kube::now() };
            state::of(&whole, &seen)
        };
        assert_eq!(stands(&trimmed), stands(&before), "a job stands as its whole pod says");
    }
}
