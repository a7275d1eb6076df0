//! `ResourceRequest`: one cluster asks another for resources.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ClusterIdentity;

/// What is asked: the identity of the requester and how to reach it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "discovery.liqo.io",
    version = "v1alpha1",
    kind = "ResourceRequest",
    plural = "resourcerequests",
    category = "liqo",
    namespaced,
    status = "ResourceRequestStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "ResourceRequest asks another cluster for resources; it is replicated into that cluster.",
    printcolumn = r#"{"name":"Local","type":"string","jsonPath":".metadata.labels.liqo\\.io/replication"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequestSpec {
    /// Identity of the requester.
    pub cluster_identity: ClusterIdentity,
    /// URL of the requester's authentication service.
    pub auth_url: String,
    /// When set, the request is withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawal_timestamp: Option<Time>,
}

/// The provider's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequestStatus {
    /// Whether an offer exists.
    #[serde(default)]
    pub offer_state: OfferState,
    /// When the provider took its offer away for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer_withdrawal_timestamp: Option<Time>,
}

/// Whether an offer exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OfferState {
    /// No offer.
    #[default]
    None,
    /// An offer was made.
    Created,
}
