//! A pod that the provider does not make: the reason of the provider, in the status of the pod here.
//!
//! Keeps true: only a pod that waits and has never run is marked, and the mark goes when the reason goes.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;
use liqo_api::{meta::annotation, virtualkubelet::ShadowPod};
use liqo_kube::said;

/// Reason in the status, which `kubectl get pods` shows, and in the Event.
pub(in crate::reflect) const REFUSED: &str = "OffloadingRefused";

/// The sentence of the provider `peer` on the twin, with its name.
pub(super) fn words(peer: &str, twin: Option<&ShadowPod>) -> Option<String> {
    let words = twin?.annotations().get(annotation::REFUSAL)?;
    Some(said::by(peer, words))
}

/// The status of a pod that its provider refuses to make with these words, or no longer refuses; `None`: it stays as it is.
pub(super) fn status(here: &Pod, words: Option<&str>) -> Option<PodStatus> {
    let is = here.status.clone().unwrap_or_default();
    let has_run = is.container_statuses.as_ref().is_some_and(|all| !all.is_empty());
    if has_run || !matches!(is.phase.as_deref(), None | Some("Pending")) {
        return None;
    }
    let is_told = is.reason.as_deref() == Some(REFUSED);
    let (reason, message) = match words {
        Some(words) => (Some(REFUSED.to_owned()), Some(words.to_owned())),
        None if is_told => (None, None),
        None => return None,
    };
    let new = PodStatus { phase: Some("Pending".to_owned()), reason, message, ..is.clone() };
    (new != is).then_some(new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "status": status})).unwrap()
    }

    #[test]
    fn the_words_of_a_provider_carry_its_name() {
        let twin = |words: Option<&str>| -> ShadowPod {
            let annotations = words.map(|words| json!({"liqo.io/refusal": words}));
            serde_json::from_value(json!({"metadata": {"name": "a", "annotations": annotations}, "spec": {}})).unwrap()
        };
        assert_eq!(words("milan", None), None);
        assert_eq!(words("milan", Some(&twin(None))), None);
        let said = words("milan", Some(&twin(Some("no\nroom")))).unwrap();
        assert_eq!(said, "cluster \"milan\" says: no room");
    }

    #[test]
    fn a_pod_that_waits_is_marked_while_it_is_refused() {
        let container = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2}]);
        let conditions = json!([{"type": "PodScheduled", "status": "True"}]);
        let waits = json!({"phase": "Pending", "conditions": conditions});
        let marked = json!({"phase": "Pending", "reason": REFUSED, "message": "no", "conditions": conditions});
        for (what, is, words, wanted) in [
            ("new", json!({}), Some("no"), Some(json!({"phase": "Pending", "reason": REFUSED, "message": "no"}))),
            ("waits", waits.clone(), Some("no"), Some(marked.clone())),
            ("marked already", marked.clone(), Some("no"), None),
            ("no longer refused", marked, None, Some(waits.clone())),
            ("never refused", waits, None, None),
            ("runs", json!({"phase": "Running"}), Some("no"), None),
            ("has run", json!({"phase": "Pending", "containerStatuses": container}), Some("no"), None),
            ("given up", json!({"phase": "Failed", "reason": "OffloadingAborted"}), Some("no"), None),
            ("backs off", json!({"phase": "Pending", "reason": "OffloadingBackOff"}), None, None),
        ] {
            let new = status(&pod(is), words).map(|status| serde_json::to_value(status).unwrap());
            assert_eq!(new, wanted, "{what}");
        }
    }
}
