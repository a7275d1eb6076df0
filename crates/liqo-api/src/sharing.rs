//! Group `sharing.liqo.io`: what one cluster offers another.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ContainerImage, ResourceQuotaSpec},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is offered.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sharing.liqo.io",
    version = "v1alpha1",
    kind = "ResourceOffer",
    plural = "resourceoffers",
    shortname = "offer",
    category = "liqo",
    namespaced,
    status = "ResourceOfferStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "ResourceOffer is the answer to a ResourceRequest; it is replicated into the requester's cluster and becomes a virtual node there.",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"VirtualKubeletStatus","type":"string","jsonPath":".status.virtualKubeletStatus"}"#,
    printcolumn = r#"{"name":"Local","type":"string","jsonPath":".metadata.labels.liqo\\.io/replication"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ResourceOfferSpec {
    /// ID of the cluster that offers.
    pub cluster_id: String,
    /// Images already present there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ContainerImage>,
    /// The quota offered; only `hard` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_quota: Option<ResourceQuotaSpec>,
    /// Labels for the virtual node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Prices of the resources; informative.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices: BTreeMap<String, Quantity>,
    /// When set, the offer is withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawal_timestamp: Option<Time>,
    /// Storage classes available there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage_classes: Vec<StorageType>,
}

/// A storage class on offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageType {
    /// Name of the storage class.
    pub storage_class_name: String,
    /// Whether it is the default one there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
}

/// What the requester made of the offer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceOfferStatus {
    /// Whether the offer is accepted.
    #[serde(default)]
    pub phase: OfferPhase,
    /// Whether the virtual kubelet runs.
    #[serde(default)]
    pub virtual_kubelet_status: VirtualKubeletStatus,
}

/// Whether an offer is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OfferPhase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Somebody has to set `Accepted` or `Refused`.
    ManualActionRequired,
    /// Taken.
    Accepted,
    /// Not wanted.
    Refused,
}

/// Whether the virtual kubelet of an offer runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VirtualKubeletStatus {
    /// It does not exist.
    #[default]
    None,
    /// It exists.
    Created,
    /// It drains its node.
    Deleting,
}
