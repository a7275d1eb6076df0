//! `IpamStorage`: which networks and addresses are in use. One per cluster.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which networks and addresses are in use.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.liqo.io",
    version = "v1alpha1",
    kind = "IpamStorage",
    plural = "ipamstorages",
    category = "liqo",
    derive = "PartialEq",
    derive = "Default",
    doc = "IpamStorage is the memory of the address management: networks, mappings and addresses in use."
)]
#[serde(rename_all = "camelCase")]
pub struct IpamStorageSpec {
    /// Prefixes given out, each with its opaque state.
    #[schemars(with = "BTreeMap<String, String>")]
    pub prefixes: BTreeMap<String, ByteString>,
    /// Networks prefixes are taken from.
    pub pools: Vec<String>,
    /// Networks never used for remapping.
    pub reserved_subnets: Vec<String>,
    /// Networks of each peer.
    pub cluster_subnets: BTreeMap<String, Subnets>,
    /// External network of this cluster.
    #[serde(rename = "externalCIDR")]
    pub external_cidr: String,
    /// Addresses outside the pod network that peers may reach.
    pub endpoint_mappings: BTreeMap<String, EndpointMapping>,
    /// Peers whose mapping has been set up.
    pub nat_mappings_configured: BTreeMap<String, ConfiguredCluster>,
    /// Pod network of this cluster.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// Service network of this cluster.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: String,
}

/// A peer whose mapping has been set up: an object without fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfiguredCluster {}

/// Networks of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subnets {
    /// Our pod network as the peer sees it.
    #[serde(rename = "localNATPodCIDR")]
    pub local_nat_pod_cidr: String,
    /// The peer's pod network as we see it.
    #[serde(rename = "remotePodCIDR")]
    pub remote_pod_cidr: String,
    /// Our external network as the peer sees it.
    #[serde(rename = "localNATExternalCIDR")]
    pub local_nat_external_cidr: String,
    /// The peer's external network as we see it.
    #[serde(rename = "remoteExternalCIDR")]
    pub remote_external_cidr: String,
}

/// How an address outside the pod network is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointMapping {
    /// The address in our external network.
    #[serde(rename = "ExternalCIDROriginalIP")]
    pub external_cidr_original_ip: String,
    /// The address as each peer sees it.
    #[serde(rename = "clusterMappings")]
    pub cluster_mappings: BTreeMap<String, ClusterMapping>,
}

/// An address as one peer sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterMapping {
    /// The address in the network the peer uses for our external one.
    #[serde(rename = "ExternalCIDRNattedIP")]
    pub external_cidr_natted_ip: String,
}
