//! The custom resource definitions, generated from the types.
//!
//! Keeps true: the definitions of Liqo's groups are those of Liqo 0.8.3 (names, columns, enums, defaults, required fields), with two
//! additions: `NamespaceOffloading` is also served as `v1beta1`, and `spec` is required wherever it has
//! required fields, so that nobody can store an object our own watches cannot read.

mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{discovery, jobs, market, net, offloading, sharing, virtualkubelet};

/// All definitions, in the order of their names.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds: Vec<_> = liqo().into_iter().chain(services()).collect();
    crds.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    crds
}

/// The definitions of our own groups, which Liqo 0.8.3 does not have.
pub fn services() -> Vec<CustomResourceDefinition> {
    [
        jobs::Job::crd(),
        jobs::JobTemplate::crd(),
        jobs::ResultStore::crd(),
        market::PeeringRequest::crd(),
        market::ProviderProfile::crd(),
        market::Reservation::crd(),
        market::SelectionPolicy::crd(),
    ]
    .map(settle)
    .into()
}

/// The eleven definitions of Liqo 0.8.3.
pub fn liqo() -> Vec<CustomResourceDefinition> {
    [
        discovery::ForeignCluster::crd(),
        discovery::ResourceRequest::crd(),
        net::IpamStorage::crd(),
        net::NatMapping::crd(),
        net::NetworkConfig::crd(),
        net::TunnelEndpoint::crd(),
        offloading::NamespaceOffloading::crd(),
        sharing::ResourceOffer::crd(),
        virtualkubelet::NamespaceMap::crd(),
        virtualkubelet::ShadowEndpointSlice::crd(),
        virtualkubelet::ShadowPod::crd(),
    ]
    .map(settle)
    .into()
}

/// What the derive cannot say.
fn settle(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a definition is JSON");
    let kind = value["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    for version in value["spec"]["versions"].as_array_mut().into_iter().flatten() {
        schema::settle(&kind, &mut version["schema"]["openAPIV3Schema"]);
    }
    if kind == "NamespaceOffloading" {
        also_served_as(&mut value["spec"], "v1beta1");
    }
    serde_json::from_value(value).expect("still a definition")
}

/// Serves the stored version under one more name.
fn also_served_as(spec: &mut Value, name: &str) {
    let mut version = spec["versions"][0].clone();
    version["name"] = json!(name);
    version["storage"] = json!(false);
    spec["versions"].as_array_mut().into_iter().for_each(|versions| versions.push(version.clone()));
    spec["conversion"] = json!({"strategy": "None"});
}
