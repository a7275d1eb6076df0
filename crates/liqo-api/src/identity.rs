//! Who a cluster is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The identity of a cluster: an ID that never changes and a name that people read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ClusterIdentity {
    /// Unique and immutable ID of the cluster, usually a UUID.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// Human readable name of the cluster, a DNS label.
    #[serde(rename = "clusterName")]
    pub cluster_name: String,
}

impl ClusterIdentity {
    /// An identity from its two parts.
    pub fn new(cluster_id: impl Into<String>, cluster_name: impl Into<String>) -> Self {
        Self { cluster_id: cluster_id.into(), cluster_name: cluster_name.into() }
    }
}
