//! `ShadowPod`: a pod another cluster wants run here, whatever happens to that cluster.

use k8s_openapi::api::core::v1::PodSpec;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pod wished.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "virtualkubelet.liqo.io",
    version = "v1alpha1",
    kind = "ShadowPod",
    plural = "shadowpods",
    namespaced,
    status = "ShadowPodStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "ShadowPod is a pod another cluster wants run here; it keeps that pod running while the other cluster is away.",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct ShadowPodSpec {
    /// Spec of the pod to run, as `kubectl explain pod.spec` describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSpec>,
}

/// How the pod stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShadowPodStatus {
    /// Phase of the pod.
    #[serde(default)]
    pub phase: ShadowPodPhase,
}

/// Phase of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ShadowPodPhase {
    /// Not all containers run yet.
    Pending,
    /// Bound to a node, at least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, at least one badly.
    Failed,
    /// Not known.
    #[default]
    Unknown,
}
