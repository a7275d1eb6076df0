//! `NatMapping`: address pairs in use with one peer.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Address pairs in use with one peer.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.liqo.io",
    version = "v1alpha1",
    kind = "NatMapping",
    plural = "natmappings",
    category = "liqo",
    status = "NatMappingStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "NatMapping lists the addresses that are translated for one peer."
)]
#[serde(rename_all = "camelCase")]
pub struct NatMappingSpec {
    /// The peer.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// Pod network in use with the peer.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// External network in use with the peer.
    #[serde(rename = "externalCIDR")]
    pub external_cidr: String,
    /// Original address to translated address.
    pub cluster_mappings: BTreeMap<String, String>,
}

/// No fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NatMappingStatus {}
