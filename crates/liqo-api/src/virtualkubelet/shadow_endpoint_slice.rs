//! `ShadowEndpointSlice`: endpoints of another cluster's Service, ready only while that cluster can be reached.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The endpoint slice wished.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "virtualkubelet.liqo.io",
    version = "v1alpha1",
    kind = "ShadowEndpointSlice",
    plural = "shadowendpointslices",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "ShadowEndpointSlice carries endpoints of another cluster's Service; they count as ready only while that cluster can be reached."
)]
pub struct ShadowEndpointSliceSpec {
    /// What the endpoint slice made from this contains.
    #[serde(default)]
    pub template: EndpointSliceTemplate,
}

/// The content of an endpoint slice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSliceTemplate {
    /// The endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// The ports of every endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address_type: String,
}
