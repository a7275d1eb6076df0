//! Group `market.liqo.io`: what providers offer, and what of their offers is promised to whom.
//!
//! The group is ours: Liqo 0.8.3 has no such kinds.

mod selection;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use selection::{
    Criteria, MaxPrice, MinUptime, Missing, Mode, Placement, Selection, SelectionPolicy, SelectionPolicySpec,
    Stability, Weights,
};

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
    /// Grams of CO2 for each kilowatt-hour, as the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 5000))]
    pub carbon_grams: Option<u32>,
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
    /// When the provider was heard of first. Its uptime is not known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_since: Option<Time>,
    /// When the provider was not heard of, the oldest one first: the last 90 days, at most 64 outages. When there are more, the two that
    /// are nearest to each other become one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub outages: Vec<Outage>,
    /// `Fresh` and `Overbooked`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A time in which a provider was not heard of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outage {
    /// The last heartbeat before.
    pub from: Time,
    /// The first heartbeat after; left out: there was none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
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
    /// What the provider must have. One provider is chosen: `placement` is for selections without a peering.
    pub selection: Selection,
    /// Name of a SelectionPolicy in the namespace of the request, whose criteria, weights and the rest are those of the selection. The
    /// selection itself then says `request` and `largestPod` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub policy: Option<String>,
    /// When another provider is chosen after the peering is established.
    #[serde(default, skip_serializing_if = "Reconsider::is_never")]
    pub reconsider: Reconsider,
    /// Seconds for which the resources are held at a time; the agent renews the reservation while the object exists.
    #[serde(default = "lease_seconds")]
    #[schemars(range(min = 60, max = 86_400))]
    pub lease_seconds: u32,
}

/// When another provider is chosen after the peering is established. The old peering ends before the new one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reconsider {
    /// While the resources are held, never.
    #[default]
    Never,
    /// When the provider does not meet a criterion any longer.
    Failing,
    /// Then, and when another provider has been better for long enough, by what `stability` says.
    Better,
}

impl Reconsider {
    fn is_never(&self) -> bool {
        *self == Self::Never
    }
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
