//! `NamespaceMap`: which namespace here is which namespace there.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wished.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "virtualkubelet.liqo.io",
    version = "v1alpha1",
    kind = "NamespaceMap",
    plural = "namespacemaps",
    category = "liqo",
    namespaced,
    status = "NamespaceMapStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "NamespaceMap asks a provider for namespaces; it is replicated into the provider's cluster.",
    printcolumn = r#"{"name":"Local","type":"string","jsonPath":".metadata.labels.liqo\\.io/replication"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceMapSpec {
    /// Namespace here to namespace wished there.
    // Written also when empty: an empty map that is applied is ours and stays, an absent one would make the spec null.
    #[serde(default)]
    pub desired_mapping: BTreeMap<String, String>,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceMapStatus {
    /// Namespace here to namespace there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub current_mapping: BTreeMap<String, RemoteNamespaceStatus>,
}

/// One remote namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteNamespaceStatus {
    /// Its name there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remote_namespace: String,
    /// Its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MappingPhase>,
}

/// Phase of a remote namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MappingPhase {
    /// It is there and ours.
    Accepted,
    /// It could not be made.
    CreationLoopBackOff,
    /// It is going away.
    Terminating,
}
