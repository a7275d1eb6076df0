//! `ForeignCluster`: a peer, what is wanted from it, and how that stands.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ClusterIdentity;

/// What is wanted from the peer, and how to reach it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "discovery.liqo.io",
    version = "v1alpha1",
    kind = "ForeignCluster",
    plural = "foreignclusters",
    category = "liqo",
    status = "ForeignClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "ForeignCluster is a cluster we know, whether resources are taken from it or given to it, and how that stands.",
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.peeringType"}"#,
    printcolumn = r#"{"name":"ClusterID","type":"string","priority":1,"jsonPath":".spec.clusterIdentity.clusterID"}"#,
    printcolumn = r#"{"name":"ClusterName","type":"string","priority":1,"jsonPath":".spec.clusterIdentity.clusterName"}"#,
    printcolumn = r#"{"name":"Outgoing peering","type":"string","jsonPath":".status.peeringConditions[?(@.type == 'OutgoingPeering')].status"}"#,
    printcolumn = r#"{"name":"Incoming peering","type":"string","jsonPath":".status.peeringConditions[?(@.type == 'IncomingPeering')].status"}"#,
    printcolumn = r#"{"name":"Networking","type":"string","jsonPath":".status.peeringConditions[?(@.type == 'NetworkStatus')].status"}"#,
    printcolumn = r#"{"name":"API Server","type":"string","priority":1,"jsonPath":".status.peeringConditions[?(@.type == 'APIServerStatus')].status"}"#,
    printcolumn = r#"{"name":"Authentication","type":"string","jsonPath":".status.peeringConditions[?(@.type == 'AuthenticationStatus')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ForeignClusterSpec {
    /// Whether control plane traffic to the peer goes outside or inside the VPN. Cannot be changed once set.
    #[serde(default)]
    pub peering_type: PeeringType,
    /// Identity of the peer; filled from its authentication service when left out. Each part can be set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_identity: Option<ClusterIdentity>,
    /// Whether to take resources from the peer.
    #[serde(default)]
    pub outgoing_peering_enabled: PeeringEnabled,
    /// Whether the peer may take resources from us.
    #[serde(default)]
    pub incoming_peering_enabled: PeeringEnabled,
    /// URL of the peer's authentication service, `https://host[:port]`.
    #[schemars(regex(
        pattern = r"^https:\/\/(www\.)?[-a-zA-Z0-9@:%._\+~#=]{1,256}\.[a-zA-Z0-9]{1,6}\b([-a-zA-Z0-9()@:%_\+.~#?&//=]*)"
    ))]
    pub foreign_auth_url: String,
    /// URL of an HTTP proxy (CONNECT) through which the peer's API server is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_proxy_url: Option<String>,
    /// Do not verify the certificate of the peer's authentication service.
    #[serde(
        default = "insecure_by_default",
        rename = "insecureSkipTLSVerify",
        skip_serializing_if = "Option::is_none"
    )]
    pub insecure_skip_tls_verify: Option<bool>,
    /// Seconds after which a peer found by LAN discovery is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl: Option<i64>,
}

fn insecure_by_default() -> Option<bool> {
    Some(true)
}

/// Where control plane traffic goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeeringType {
    /// Outside the VPN: both API servers and authentication services are reachable.
    #[default]
    OutOfBand,
    /// Inside the VPN.
    InBand,
}

/// A wish about one direction of peering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeeringEnabled {
    /// As the cluster's defaults say.
    #[default]
    Auto,
    /// Never.
    No,
    /// Always.
    Yes,
}

/// How the relation to the peer stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForeignClusterStatus {
    /// The namespaces dedicated to this peering.
    #[serde(default)]
    pub tenant_namespace: TenantNamespaces,
    /// One entry for each aspect of the peering.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peering_conditions: Vec<PeeringCondition>,
}

/// The two namespaces dedicated to a peering.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantNamespaces {
    /// Name of the namespace in this cluster dedicated to the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Name of the namespace in the peer's cluster dedicated to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

/// One aspect of a peering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeeringCondition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub type_: PeeringConditionType,
    /// How it stands.
    #[serde(default)]
    pub status: PeeringConditionStatus,
    /// When status, reason or message last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The aspects of a peering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PeeringConditionType {
    /// We take resources from the peer.
    OutgoingPeering,
    /// The peer takes resources from us.
    IncomingPeering,
    /// Pods of the two clusters reach each other.
    NetworkStatus,
    /// The peer's API server answers.
    APIServerStatus,
    /// The peer has accepted our identity.
    AuthenticationStatus,
    /// The object itself makes sense.
    ProcessForeignClusterStatus,
}

/// How an aspect of a peering stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PeeringConditionStatus {
    /// Not there.
    #[default]
    None,
    /// On the way.
    Pending,
    /// There.
    Established,
    /// On the way out.
    Disconnecting,
    /// Refused: the token was wrong.
    Denied,
    /// Refused: a token is needed and none was given.
    EmptyDenied,
    /// Failed, will be tried again.
    Error,
    /// Good.
    Success,
    /// Not managed by Liqo.
    External,
}
