//! Group `market.liqo.io`: what providers offer, and what of their offers is promised to whom.
//!
//! The group is ours: Liqo 0.8.3 has no such kinds.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Condition of a [`ProviderProfile`]: the broker has heard of the provider lately.
pub const FRESH: &str = "Fresh";
/// Condition of a [`ProviderProfile`]: more is reserved than the provider offers, because the offer has shrunk.
pub const OVERBOOKED: &str = "Overbooked";

/// What a provider says of itself, by its heartbeats.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "market.liqo.io",
    version = "v1alpha1",
    kind = "ProviderProfile",
    plural = "providerprofiles",
    shortname = "lpp",
    category = "liqo",
    status = "ProviderProfileStatus",
    derive = "PartialEq",
    doc = "ProviderProfile is a cluster that offers resources: what it offers, what of that is reserved, and whether it is heard of.",
    printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".spec.clusterName"}"#,
    printcolumn = r#"{"name":"Region","type":"string","jsonPath":".spec.region"}"#,
    printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".status.free.cpu"}"#,
    printcolumn = r#"{"name":"Memory","type":"string","jsonPath":".status.free.memory"}"#,
    printcolumn = r#"{"name":"Fresh","type":"string","jsonPath":".status.conditions[?(@.type=='Fresh')].status"}"#,
    printcolumn = r#"{"name":"Cordoned","type":"boolean","priority":10,"jsonPath":".spec.cordoned"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderProfileSpec {
    /// Cluster ID of the provider; also the name of the object.
    #[serde(rename = "clusterID")]
    #[schemars(length(min = 1, max = 63))]
    pub cluster_id: String,
    /// Name of the provider.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub cluster_name: String,
    /// Where the provider is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub region: String,
    /// What customers may select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// What an hour costs. A resource without a price has none that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resource"]))]
    pub prices: Vec<Price>,
    /// Where customers may measure how far away the provider is: HOST:PORT, TCP. Empty: nowhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 263))]
    pub probe: String,
    /// No new reservation is granted. Set by operators; heartbeats leave it as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
}

/// What one unit of a resource costs in an hour. The unit of memory and of storage is 1Gi, that of any other resource is 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Price {
    /// Name of the resource.
    #[schemars(length(min = 1, max = 253))]
    pub resource: String,
    /// The amount of money.
    pub amount: Quantity,
    /// The currency (ISO 4217).
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: String,
}

/// What the broker knows of a provider. Nothing in here changes with a heartbeat that says nothing new.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderProfileStatus {
    /// What the provider offers, reserved or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offered: BTreeMap<String, Quantity>,
    /// What of the offer is promised.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, Quantity>,
    /// What of the offer is left.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub free: BTreeMap<String, Quantity>,
    /// What the largest pod can have that fits somewhere at the provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub largest_allocation: BTreeMap<String, Quantity>,
    /// The ledger: every promise that holds. Written with the version of the object, so nothing is promised twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub grants: Vec<Grant>,
    /// `Fresh` and `Overbooked`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A promise of a provider's resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// UID of the Reservation.
    pub uid: String,
    /// Namespace of the Reservation.
    pub namespace: String,
    /// Name of the Reservation.
    pub name: String,
    /// What is promised.
    pub resources: BTreeMap<String, Quantity>,
    /// The end that the Reservation asked for when the end of the promise was decided.
    pub asked: Time,
    /// Until when the promise holds.
    pub until: Time,
}

/// A wish for a share of what a provider offers.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "market.liqo.io",
    version = "v1alpha1",
    kind = "Reservation",
    plural = "reservations",
    shortname = "lres",
    category = "liqo",
    namespaced,
    status = "ReservationStatus",
    derive = "PartialEq",
    doc = "Reservation holds resources of a provider for a consumer until its end. Whoever deletes the object gives the resources back.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".spec.provider"}"#,
    printcolumn = r#"{"name":"Consumer","type":"string","jsonPath":".spec.consumer"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.expiresAt"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":10,"jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ReservationSpec {
    /// Cluster ID of the provider.
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,
    /// Cluster ID of the cluster that will use the resources.
    #[schemars(length(min = 1, max = 63))]
    pub consumer: String,
    /// What is held, by resource name.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub resources: BTreeMap<String, Quantity>,
    /// Until when. A later time renews a reservation that holds; what is too far away is cut.
    pub until: Time,
}

/// How a reservation stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationStatus {
    /// The state in one word.
    #[serde(default)]
    pub phase: ReservationPhase,
    /// One word for programs: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Until when the resources are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// The state of a reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReservationPhase {
    /// Nobody has decided yet.
    #[default]
    Pending,
    /// The resources are held.
    Granted,
    /// The resources were not there, or the provider does not want the consumer.
    Failed,
    /// The time is over.
    Expired,
}

impl ReservationPhase {
    /// Nothing will happen any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Expired)
    }
}

/// What a customer asks of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selection {
    /// What is needed in sum, by resource name.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub request: BTreeMap<String, Quantity>,
    /// What the largest pod needs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub largest_pod: BTreeMap<String, Quantity>,
    /// What must hold.
    #[serde(default)]
    pub criteria: Criteria,
    /// What makes one provider better than another.
    #[serde(default)]
    pub weights: Weights,
    /// What is done about a value that is not known.
    #[serde(default)]
    pub missing: Missing,
}

/// What must hold of a provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Criteria {
    /// Most that an hour of the request may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<MaxPrice>,
    /// Most milliseconds to the provider and back, as measured by the customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub max_latency_millis: Option<u32>,
    /// Regions that are allowed; empty: every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub regions: Vec<String>,
    /// Regions that are not allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub not_regions: Vec<String>,
    /// Labels that the provider must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Cluster IDs that are not wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub exclude: Vec<String>,
    /// Most seconds since the last heartbeat.
    #[serde(default = "max_age")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_age_seconds: u32,
    /// Least score, in thousandths.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub min_score: u32,
}

impl Default for Criteria {
    fn default() -> Self {
        Self {
            max_price: None,
            max_latency_millis: None,
            regions: Vec::new(),
            not_regions: Vec::new(),
            labels: BTreeMap::new(),
            exclude: Vec::new(),
            max_age_seconds: max_age(),
            min_score: 0,
        }
    }
}

/// Three heartbeats.
fn max_age() -> u32 {
    30
}

/// Most that an hour may cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxPrice {
    /// The amount of money.
    pub amount: Quantity,
    /// The currency (ISO 4217).
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: String,
}

/// How much a part counts in the score. Without any weight, headroom alone counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Weights {
    /// Cheap: 1000 at nothing, 0 at the highest price allowed, or at 10 in an hour.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub price: u32,
    /// Near: 1000 at nothing, 0 at the longest way allowed, or at 200 milliseconds.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub latency: u32,
    /// Much is left: the share of the offer that is free once the request is held, of the scarcest resource.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub headroom: u32,
}

/// What is done about a value that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Missing {
    /// The provider is left out.
    #[default]
    Reject,
    /// The worst value is assumed: the part of the score is 0, and a limit is not met.
    Worst,
    /// Neither limit nor weight counts for this provider.
    Ignore,
}

/// A wish to use resources of some provider, which the agent of the own cluster fulfils.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "market.liqo.io",
    version = "v1alpha1",
    kind = "PeeringRequest",
    plural = "peeringrequests",
    shortname = "lpr",
    category = "liqo",
    namespaced,
    status = "PeeringRequestStatus",
    derive = "PartialEq",
    doc = "PeeringRequest asks for a peering with a provider that fits: the agent selects at the broker, reserves, and peers. Whoever deletes the object ends the peering and gives the resources back.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".status.provider"}"#,
    printcolumn = r#"{"name":"ForeignCluster","type":"string","jsonPath":".status.foreignCluster"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":10,"jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PeeringRequestSpec {
    /// What the provider must have.
    pub selection: Selection,
    /// Seconds for which the resources are held at a time; the agent renews the reservation while the object exists.
    #[serde(default = "lease_seconds")]
    #[schemars(range(min = 60, max = 86_400))]
    pub lease_seconds: u32,
}

fn lease_seconds() -> u32 {
    600
}

/// How a request for a peering stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeeringRequestStatus {
    /// The state in one word.
    #[serde(default)]
    pub phase: PeeringPhase,
    /// One sentence for people: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Cluster ID of the provider that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Name of the reservation at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    /// Until when the resources are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Time>,
    /// Name of the ForeignCluster that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_cluster: Option<String>,
    /// Cluster IDs of providers that were chosen before and did not grant the reservation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
}

/// The state of a request for a peering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeeringPhase {
    /// A provider is looked for.
    #[default]
    Selecting,
    /// The resources are held, and the invitation of the provider is awaited.
    Reserved,
    /// The peering is being established.
    Peering,
    /// The peering is established.
    Peered,
}
