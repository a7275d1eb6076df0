//! Group `net.liqo.io`: addresses and tunnels.

mod ipam_storage;
mod nat_mapping;
mod network_config;
mod tunnel_endpoint;

pub use ipam_storage::{ClusterMapping, EndpointMapping, IpamStorage, IpamStorageSpec, Subnets};
pub use nat_mapping::{NatMapping, NatMappingSpec, NatMappingStatus};
pub use network_config::{NetworkConfig, NetworkConfigSpec, NetworkConfigStatus};
pub use tunnel_endpoint::{Connection, ConnectionLatency, TunnelEndpoint, TunnelEndpointSpec, TunnelEndpointStatus};
