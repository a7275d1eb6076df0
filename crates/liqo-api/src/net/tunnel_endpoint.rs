//! `TunnelEndpoint`: the tunnel to one peer, as wished and as it is.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ClusterIdentity;

/// The tunnel wished.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.liqo.io",
    version = "v1alpha1",
    kind = "TunnelEndpoint",
    plural = "tunnelendpoints",
    category = "liqo",
    namespaced,
    status = "TunnelEndpointStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "TunnelEndpoint is the tunnel to one peer: its networks, its parameters and the state of the connection.",
    printcolumn = r#"{"name":"Peering Cluster","type":"string","jsonPath":".spec.clusterIdentity.clusterName"}"#,
    printcolumn = r#"{"name":"Endpoint IP","type":"string","priority":1,"jsonPath":".spec.endpointIP"}"#,
    printcolumn = r#"{"name":"Backend type","type":"string","jsonPath":".spec.backendType"}"#,
    printcolumn = r#"{"name":"Latency","type":"string","priority":1,"jsonPath":".status.connection.latency.value"}"#,
    printcolumn = r#"{"name":"Connection status","type":"string","jsonPath":".status.connection.status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct TunnelEndpointSpec {
    /// The peer.
    #[serde(rename = "clusterIdentity")]
    pub cluster_identity: ClusterIdentity,
    /// Pod network of this cluster.
    #[serde(rename = "localPodCIDR")]
    pub local_pod_cidr: String,
    /// The same as the peer sees it, or `None`.
    #[serde(rename = "localNATPodCIDR", default = "no_remapping")]
    pub local_nat_pod_cidr: String,
    /// External network of this cluster.
    #[serde(rename = "localExternalCIDR")]
    pub local_external_cidr: String,
    /// The same as the peer sees it, or `None`.
    #[serde(rename = "localNATExternalCIDR", default = "no_remapping")]
    pub local_nat_external_cidr: String,
    /// Pod network of the peer.
    #[serde(rename = "remotePodCIDR")]
    pub remote_pod_cidr: String,
    /// The same as this cluster sees it, or `None`.
    #[serde(rename = "remoteNATPodCIDR", default = "no_remapping")]
    pub remote_nat_pod_cidr: String,
    /// External network of the peer.
    #[serde(rename = "remoteExternalCIDR")]
    pub remote_external_cidr: String,
    /// The same as this cluster sees it, or `None`.
    #[serde(rename = "remoteNATExternalCIDR", default = "no_remapping")]
    pub remote_nat_external_cidr: String,
    /// Address or name of the peer's gateway.
    #[serde(rename = "endpointIP")]
    pub endpoint_ip: String,
    /// VPN technology.
    #[serde(rename = "backendType")]
    pub backend_type: String,
    /// Parameters of the VPN.
    pub backend_config: BTreeMap<String, String>,
}

fn no_remapping() -> String {
    "None".to_owned()
}

/// The tunnel as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelEndpointStatus {
    /// Index of the tunnel interface.
    #[serde(default, rename = "tunnelIFaceIndex", skip_serializing_if = "Option::is_none")]
    pub tunnel_iface_index: Option<i64>,
    /// Name of the tunnel interface.
    #[serde(default, rename = "tunnelIFaceName", skip_serializing_if = "Option::is_none")]
    pub tunnel_iface_name: Option<String>,
    /// Index of the interface that leads to the gateway.
    #[serde(default, rename = "vethIFaceIndex", skip_serializing_if = "Option::is_none")]
    pub veth_iface_index: Option<i64>,
    /// Name of the interface that leads to the gateway.
    #[serde(default, rename = "vethIFaceName", skip_serializing_if = "Option::is_none")]
    pub veth_iface_name: Option<String>,
    /// Address of that interface.
    #[serde(default, rename = "vethIP", skip_serializing_if = "Option::is_none")]
    pub veth_ip: Option<String>,
    /// Address of the node of the active gateway.
    #[serde(default, rename = "gatewayIP", skip_serializing_if = "Option::is_none")]
    pub gateway_ip: Option<String>,
    /// State of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
}

/// State of the connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// `Connected`, `Connecting` or `Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// Parameters of the peer: `endpointIP`, `port`, `allowedIPs`, `publicKey`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peer_configuration: BTreeMap<String, String>,
    /// Round trip time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<ConnectionLatency>,
}

/// Round trip time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionLatency {
    /// The value with its unit, or `N/A`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// When it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}
