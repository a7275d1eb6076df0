//! `NetworkConfig`: what one cluster tells another about its networks.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ClusterIdentity;

/// The sender's own networks, addressed to `cluster`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.liqo.io",
    version = "v1alpha1",
    kind = "NetworkConfig",
    plural = "networkconfigs",
    category = "liqo",
    namespaced,
    status = "NetworkConfigStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "NetworkConfig tells a peer our networks and VPN endpoint; it is replicated into the peer's cluster.",
    printcolumn = r#"{"name":"Peering Cluster","type":"string","jsonPath":".spec.cluster.clusterName"}"#,
    printcolumn = r#"{"name":"Endpoint IP","type":"string","priority":1,"jsonPath":".spec.endpointIP"}"#,
    printcolumn = r#"{"name":"VPN Backend","type":"string","priority":1,"jsonPath":".spec.backendType"}"#,
    printcolumn = r#"{"name":"Processed","type":"boolean","jsonPath":".status.processed"}"#,
    printcolumn = r#"{"name":"Local","type":"string","jsonPath":".metadata.labels.liqo\\.io/replication"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct NetworkConfigSpec {
    /// The cluster that shall read this.
    pub cluster: ClusterIdentity,
    /// The sender's pod network.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// The network into which the sender maps addresses outside its pod network.
    #[serde(rename = "externalCIDR")]
    pub external_cidr: String,
    /// Address or name of the sender's gateway.
    #[serde(rename = "endpointIP")]
    pub endpoint_ip: String,
    /// VPN technology, `wireguard`.
    #[serde(rename = "backendType")]
    pub backend_type: String,
    /// Parameters of the VPN: `publicKey`, `port`.
    pub backend_config: BTreeMap<String, String>,
}

/// How the receiver sees the sender's networks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkConfigStatus {
    /// Whether the receiver has decided.
    #[serde(default)]
    pub processed: bool,
    /// The sender's pod network as the receiver sees it; `None` when it needs no other.
    #[serde(default, rename = "podCIDRNAT", skip_serializing_if = "Option::is_none")]
    pub pod_cidr_nat: Option<String>,
    /// The sender's external network as the receiver sees it; `None` when it needs no other.
    #[serde(default, rename = "externalCIDRNAT", skip_serializing_if = "Option::is_none")]
    pub external_cidr_nat: Option<String>,
}
