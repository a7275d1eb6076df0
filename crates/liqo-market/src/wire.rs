//! What agents and brokers say to each other.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use liqo_api::market::Price;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Amounts by resource name, as Kubernetes writes them.
pub type Resources = BTreeMap<String, Quantity>;

/// What a provider says again and again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heartbeat {
    /// What the provider says of itself.
    #[serde(default)]
    pub declared: Declared,
    /// What the provider offers, reserved or not.
    #[schema(value_type = BTreeMap<String, String>)]
    pub offered: Resources,
    /// What the largest pod can have.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub largest_allocation: Resources,
    /// Invitations for reservations that the last answer named.
    #[serde(default)]
    pub invitations: Vec<Invitation>,
    /// Reservations whose consumers are not wanted.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
}

/// What a provider says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declared {
    /// Name of the provider.
    #[serde(default)]
    pub cluster_name: String,
    /// Where the provider is.
    #[serde(default)]
    pub region: String,
    /// What customers may select by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What an hour costs.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub prices: Vec<Price>,
    /// Grams of CO2 for each kilowatt-hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carbon_grams: Option<u32>,
    /// Where customers may measure how far away the provider is: HOST:PORT.
    #[serde(default)]
    pub probe: String,
}

/// How a consumer peers with a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Invitation {
    /// UID of the reservation.
    pub reservation: String,
    /// Name of the provider.
    pub cluster_name: String,
    /// URL of the authentication service of the provider.
    #[serde(rename = "authURL")]
    pub auth_url: String,
    /// The token that lets the consumer in, with the pin of the key of the authentication service.
    pub token: String,
}

/// Why a provider does not want a consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refusal {
    /// UID of the reservation.
    pub reservation: String,
    /// One sentence.
    pub reason: String,
}

/// What a provider is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatAnswer {
    /// Seconds until the next heartbeat.
    pub interval_seconds: u64,
    /// What is promised of the provider's offer.
    pub promises: Vec<Promise>,
}

/// A promise of a provider's resources, as the provider sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promise {
    /// UID of the reservation.
    pub reservation: String,
    /// Cluster ID of the consumer.
    pub consumer: String,
    /// What is promised.
    #[schema(value_type = BTreeMap<String, String>)]
    pub resources: Resources,
    /// Until when, RFC 3339.
    pub until: String,
    /// Whether the broker has an invitation for it.
    pub is_invited: bool,
}

/// A reservation to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewReservation {
    /// Name. A repeated request with the name and the same content finds the reservation of the first one.
    pub name: String,
    /// Cluster ID of the provider.
    pub provider: String,
    /// Cluster ID of the consumer.
    pub consumer: String,
    /// What is held.
    #[schema(value_type = BTreeMap<String, String>)]
    pub resources: Resources,
    /// Seconds for which the resources are held, 1 to 86400.
    pub ttl_seconds: u32,
}
