//! How jobs end: by themselves, with their turn, or because somebody wants it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use liqo_api::jobs::Job;

use super::{Known, Step};
use crate::state::{self, Stored};

/// Seconds a worker that shall end has for its own end and for what its mover still stores.
pub(super) const FAREWELL: u32 = 30;

/// What is done for a job that is still active after its turn.
pub(super) fn overdue(job: &Job, known: &Known, stored: &Stored) -> Vec<Step> {
    let steps = ending(known);
    match stored {
        _ if !steps.is_empty() => steps,
        Stored::NotAsked => vec![Step::AskStore],
        stored => {
            let status = state::overdue(job, stored, known.longest, &known.now);
            vec![Step::EndKey, Step::Tell(Box::new(status)), Step::Turns]
        }
    }
}

/// How what was made for a job ends; nothing: it has. Pods end first: with the `batch/v1` Job, Kubernetes would give them the time
/// that they have to store results, and a virtual kubelet passes the first deletion on.
pub(super) fn ending(known: &Known) -> Vec<Step> {
    let batch = known.batch.iter().filter(|batch| batch.metadata.deletion_timestamp.is_none());
    let batch = batch.map(|batch| Step::RemoveBatch(Arc::clone(batch)));
    let steps: Vec<_> = hasten(&known.pods, &known.now).into_iter().chain(batch).collect();
    if steps.is_empty() && (known.batch.is_some() || !known.pods.is_empty()) {
        // The watches say when they are gone; this is for a pod whose node is gone, too.
        return vec![Step::Wait(Duration::from_secs(u64::from(FAREWELL)))];
    }
    steps
}

/// Pods have minutes to store their results, but not when they shall end.
pub(super) fn hasten(pods: &[Arc<Pod>], now: &Time) -> Vec<Step> {
    let latest = now.0.as_second() + i64::from(FAREWELL) + 1;
    let lasts = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.as_ref().is_none_or(|end| end.0.as_second() > latest);
    pods.iter().filter(lasts).map(|pod| Step::EndPod(Arc::clone(pod))).collect()
}

/// A job that ended is removed when its time is over, or that of the store of its results where the job says nothing.
pub(super) fn expiry(job: &Job, retention: Option<i64>, now: &Time) -> Vec<Step> {
    let end = job.status.as_ref().and_then(|status| status.finished_at.as_ref());
    let (Some(ttl), Some(end)) = (job.spec.ttl_seconds_after_finished.or(retention), end) else { return vec![] };
    let left = end.0.as_second().saturating_add(ttl).saturating_sub(now.0.as_second());
    match u64::try_from(left) {
        Ok(left) if left > 0 => vec![Step::Wait(Duration::from_secs(left))],
        _ => vec![Step::Remove],
    }
}
