//! Pods on our node whose namespace is not offloaded to its cluster.
//!
//! Watches   `Pod` here (all of the node).
//! Writes    `Pod` status: waiting (`OffloadingBackOff`) if nothing has run yet, else given up
//!           (`OffloadingAborted`), so that its controller makes another one elsewhere.
//! Removes   `Pod` that is to go: nothing runs that could confirm it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use liqo_kube::{Cluster, KubeError, Store, now};

use super::{Pairs, component};

/// The pod starts when its namespace is offloaded.
const BACK_OFF: &str = "OffloadingBackOff";
/// The pod was given up.
const ABORTED: &str = "OffloadingAborted";

#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Nothing,
    Delete,
    Reject(Box<PodStatus>),
}

/// Whether the pod was given up earlier.
pub(super) fn is_aborted(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|status| status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some(ABORTED))
}

fn judge(pod: &Pod, now: &Time) -> Verdict {
    if pod.metadata.deletion_timestamp.is_some() {
        return Verdict::Delete;
    }
    let status = pod.status.clone().unwrap_or_default();
    let started = status.container_statuses.as_ref().is_some_and(|statuses| !statuses.is_empty());
    let (phase, reason) = match status.phase.as_deref() {
        Some("Succeeded") => return Verdict::Nothing,
        Some("Pending") | None if !started => ("Pending", BACK_OFF),
        _ => ("Failed", ABORTED),
    };
    if status.phase.as_deref() == Some(phase) && status.reason.as_deref() == Some(reason) {
        return Verdict::Nothing;
    }
    Verdict::Reject(Box::new(reject(status, phase, reason, now)))
}

fn reject(mut status: PodStatus, phase: &str, reason: &str, now: &Time) -> PodStatus {
    status.phase = Some(phase.to_owned());
    status.reason = Some(reason.to_owned());
    for condition in status.conditions.iter_mut().flatten().filter(|condition| condition.status == "True") {
        "False".clone_into(&mut condition.status);
        condition.reason = Some(reason.to_owned());
        condition.last_transition_time = Some(now.clone());
    }
    for container in status.container_statuses.iter_mut().flatten() {
        container.ready = false;
    }
    status
}

/// Handles such pods.
pub(super) struct Fallback {
    pub(super) home: Cluster,
    pub(super) pods: Store<Pod>,
    pub(super) pairs: Arc<Pairs>,
    pub(super) peer: String,
}

impl Fallback {
    pub(super) async fn settle(&self, (namespace, name): (String, String)) -> Result<Option<Duration>, KubeError> {
        let Some(pod) = self.pods.get(&namespace, &name) else { return Ok(None) };
        if self.pairs.has(&namespace) {
            return Ok(None);
        }
        match judge(&pod, &now()) {
            Verdict::Nothing => {}
            Verdict::Delete => self.home.remove_now(&*pod).await?,
            Verdict::Reject(status) => {
                if self.home.put_status(&*pod, &*status).await?.is_some() {
                    let text =
                        format!("Reflection to cluster \"{}\" disabled for namespace \"{namespace}\"", self.peer);
                    self.home.event(&*pod, &component("Pod"), "Warning", "ReflectionDisabled", &text).await;
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: &Value, leaving: bool) -> Value {
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": status})).unwrap();
        pod.metadata.deletion_timestamp = leaving.then(now);
        let now = Time(k8s_openapi::jiff::Timestamp::from_second(7).unwrap());
        match judge(&pod, &now) {
            Verdict::Nothing => json!("nothing"),
            Verdict::Delete => json!("delete"),
            Verdict::Reject(status) => {
                assert_eq!(
                    judge(&Pod { status: Some(*status.clone()), ..pod }, &now),
                    Verdict::Nothing,
                    "once is enough"
                );
                serde_json::to_value(status).unwrap()
            }
        }
    }

    #[test]
    fn what_becomes_of_pods_nobody_runs() {
        let container = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2}]);
        let phase = |status: &Value| (judged(status, false)["phase"].clone(), judged(status, false)["reason"].clone());
        assert_eq!(judged(&json!({"phase": "Running"}), true), "delete");
        assert_eq!(judged(&json!({"phase": "Succeeded"}), false), "nothing");
        assert_eq!(phase(&json!({"phase": "Pending"})), (json!("Pending"), json!(BACK_OFF)));
        let aborted = (json!("Failed"), json!(ABORTED));
        assert_eq!(phase(&json!({"phase": "Pending", "containerStatuses": container})), aborted);
        assert_eq!(phase(&json!({"phase": "Running"})), aborted);
        assert_eq!(phase(&json!({"phase": "Failed", "reason": "Error"})), aborted);
    }

    #[test]
    fn a_rejected_pod_is_not_ready_and_keeps_the_rest() {
        let status = json!({
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Own", "status": "False", "reason": "x"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2}],
        });
        let rejected = judged(&status, false);
        assert_eq!(
            rejected["conditions"],
            json!([
                {"type": "Ready", "status": "False", "reason": ABORTED, "lastTransitionTime": "1970-01-01T00:00:07Z"},
                {"type": "Own", "status": "False", "reason": "x"},
            ])
        );
        assert_eq!(rejected["containerStatuses"][0]["ready"], json!(false));
        assert_eq!(
            (&rejected["podIP"], &rejected["containerStatuses"][0]["restartCount"]),
            (&json!("10.0.0.1"), &json!(2))
        );
    }
}
