//! Group `virtualkubelet.liqo.io`: what a virtual kubelet and its provider tell each other.

mod namespace_map;
mod shadow_endpoint_slice;
mod shadow_pod;

pub use namespace_map::{MappingPhase, NamespaceMap, NamespaceMapSpec, NamespaceMapStatus, RemoteNamespaceStatus};
pub use shadow_endpoint_slice::{EndpointSliceTemplate, ShadowEndpointSlice, ShadowEndpointSliceSpec};
pub use shadow_pod::{ShadowPod, ShadowPodPhase, ShadowPodSpec, ShadowPodStatus};
