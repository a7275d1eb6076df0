//! Marks pods that run there with the label `liqo.io/shadowPod`, before anything is made there for them.
//!
//! Watches   `Pod` here (all of the node).
//! Writes    that label, once.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use liqo_api::meta::label;
use liqo_kube::{Cluster, KubeError, Store};
use serde_json::json;

use super::{
    Pairs, component,
    pod::{is_aborted, is_labelled},
};

/// Marks pods.
pub(super) struct Mark {
    pub(super) home: Cluster,
    pub(super) pods: Store<Pod>,
    pub(super) pairs: Arc<Pairs>,
}

/// Whether a pod still has to be marked.
pub(super) fn is_due(pod: &Pod) -> bool {
    !is_labelled(pod) && pod.metadata.deletion_timestamp.is_none() && !is_aborted(pod)
}

impl Mark {
    pub(super) async fn settle(&self, (namespace, name): (String, String)) -> Result<Option<Duration>, KubeError> {
        let Some(pod) = self.pods.get(&namespace, &name) else { return Ok(None) };
        if !is_due(&pod) || !self.pairs.has(&namespace) {
            return Ok(None);
        }
        // The UID makes sure that no other pod of that name is marked.
        let patch = json!({"metadata": {"uid": pod.uid(), "labels": {label::SHADOW_POD: "true"}}});
        match self.home.merge(&*pod, patch).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(None),
            Err(error) => {
                let text = format!("Error updating local object labels: {error}");
                self.home.event(&*pod, &component("Pod"), "Warning", "FailedReflection", &text).await;
                Err(error)
            }
            Ok(_) => Ok(None),
        }
    }
}
