//! Group `discovery.liqo.io`: who the peers are and what is asked of them.

mod foreign_cluster;
mod resource_request;

pub use foreign_cluster::{
    ForeignCluster, ForeignClusterSpec, ForeignClusterStatus, PeeringCondition, PeeringConditionStatus,
    PeeringConditionType, PeeringEnabled, PeeringType, TenantNamespaces,
};
pub use resource_request::{OfferState, ResourceRequest, ResourceRequestSpec, ResourceRequestStatus};
