//! What callers read and write.

use std::collections::BTreeMap;

use kube::ResourceExt;
use liqo_api::market::{ProviderProfile, Reservation, Selection};
use liqo_market::{
    Chosen, Left, Outcome,
    select::money,
    wire::{Declared, Resources},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A provider in the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderView {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    /// What the provider says of itself.
    #[serde(flatten)]
    pub(crate) declared: Declared,
    /// What is offered, reserved or not.
    #[schema(value_type = BTreeMap<String, String>)]
    pub(crate) offered: Resources,
    /// What is promised.
    #[schema(value_type = BTreeMap<String, String>)]
    pub(crate) reserved: Resources,
    /// What is left.
    #[schema(value_type = BTreeMap<String, String>)]
    pub(crate) free: Resources,
    /// What the largest pod can have.
    #[schema(value_type = BTreeMap<String, String>)]
    pub(crate) largest_allocation: Resources,
    /// Whether no new reservation is granted.
    pub(crate) cordoned: bool,
    /// Whether the provider was heard of within three heartbeats.
    pub(crate) fresh: bool,
    /// Seconds since the last heartbeat; absent: none since the broker started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age_seconds: Option<u64>,
}

impl ProviderView {
    /// The provider as customers see it, heard of `age` seconds ago.
    pub(crate) fn of(profile: &ProviderProfile, age: Option<u64>, limit: u64) -> Self {
        let status = profile.status.clone().unwrap_or_default();
        Self {
            cluster_id: profile.spec.cluster_id.clone(),
            declared: declared(profile),
            offered: status.offered,
            reserved: status.reserved,
            free: status.free,
            largest_allocation: status.largest_allocation,
            cordoned: profile.spec.cordoned,
            fresh: age.is_some_and(|age| age <= limit),
            age_seconds: age,
        }
    }
}

/// What a profile says that the provider declares.
pub(crate) fn declared(profile: &ProviderProfile) -> Declared {
    let spec = profile.spec.clone();
    Declared {
        cluster_name: spec.cluster_name,
        region: spec.region,
        labels: spec.labels,
        prices: spec.prices,
        probe: spec.probe,
    }
}

/// A wish, and what its customer measured.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewSelection {
    /// What is asked of a provider.
    #[schema(value_type = Object)]
    pub(crate) selection: Selection,
    /// Milliseconds to a provider and back, by cluster ID, as the caller measured them. They count for this answer only.
    #[serde(default)]
    pub(crate) measured: BTreeMap<String, u32>,
}

/// What becomes of a wish. Nothing was reserved.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SelectionView {
    /// Providers that fit, the best one first.
    pub(crate) selected: Vec<SelectedView>,
    /// The others, each with every reason.
    pub(crate) rejected: Vec<RejectedView>,
    /// When this was decided, RFC 3339.
    pub(crate) evaluated_at: String,
}

/// A provider that fits.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SelectedView {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    /// From 0 to 1000.
    pub(crate) score: u32,
    /// The parts of the score that counted, from 0 to 1000.
    pub(crate) parts: BTreeMap<&'static str, u32>,
    /// What an hour of the request costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price: Option<String>,
}

/// A provider that does not fit.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RejectedView {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    /// Every reason.
    pub(crate) reasons: Vec<ReasonView>,
}

/// Why a provider does not fit.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReasonView {
    /// The criterion, as the wish names it.
    pub(crate) criterion: String,
    /// Excluded, Cordoned, Stale, NotInRegion, LabelMismatch, NotEnough, AboveMaximum, BelowMinimum, Missing or CurrencyMismatch.
    pub(crate) code: String,
    /// What is asked for.
    pub(crate) required: String,
    /// What the provider has.
    pub(crate) actual: String,
}

impl SelectionView {
    /// The outcome as callers see it.
    pub(crate) fn of(outcome: Outcome, evaluated_at: String) -> Self {
        let selected = outcome.chosen.into_iter().map(selected).collect();
        let rejected = outcome.left.into_iter().map(rejected).collect();
        Self { selected, rejected, evaluated_at }
    }
}

fn selected(one: Chosen) -> SelectedView {
    let parts = [("price", one.parts.price), ("latency", one.parts.latency), ("headroom", one.parts.headroom)];
    let parts = parts.into_iter().filter_map(|(name, part)| Some((name, part?))).collect();
    let price = one.cost.map(|(nanos, currency)| money(nanos, &currency));
    SelectedView { cluster_id: one.id, score: one.score, parts, price }
}

fn rejected(one: Left) -> RejectedView {
    let reasons = one.reasons.into_iter().map(|reason| ReasonView {
        criterion: reason.criterion,
        code: format!("{:?}", reason.code),
        required: reason.required,
        actual: reason.actual,
    });
    RejectedView { cluster_id: one.id, reasons: reasons.collect() }
}

/// For how long a reservation is renewed.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Renewal {
    /// Seconds from now, 1 to 86400.
    pub(crate) ttl_seconds: u32,
}

/// A reservation.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReservationView {
    /// Name.
    pub(crate) name: String,
    /// UID.
    pub(crate) uid: String,
    /// Cluster ID of the provider.
    pub(crate) provider: String,
    /// Cluster ID of the consumer.
    pub(crate) consumer: String,
    /// What is held.
    #[schema(value_type = BTreeMap<String, String>)]
    pub(crate) resources: Resources,
    /// Pending, Granted, Failed or Expired.
    pub(crate) phase: String,
    /// One word: why.
    pub(crate) reason: String,
    /// One sentence for people.
    pub(crate) message: String,
    /// Until when the resources are held, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
}

impl ReservationView {
    /// The reservation as a caller sees it.
    pub(crate) fn of(reservation: &Reservation) -> Self {
        let status = reservation.status.clone().unwrap_or_default();
        Self {
            name: reservation.name_any(),
            uid: reservation.uid().unwrap_or_default(),
            provider: reservation.spec.provider.clone(),
            consumer: reservation.spec.consumer.clone(),
            resources: reservation.spec.resources.clone(),
            phase: format!("{:?}", status.phase),
            reason: status.reason.unwrap_or_default(),
            message: status.message.unwrap_or_default(),
            expires_at: status.expires_at.map(|time| time.0.to_string()),
        }
    }
}

/// The specs are described by the schemas of the custom resources: OpenAPI 3.1 and they speak the same JSON Schema.
pub(crate) fn describe(document: &mut Value) {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = serde_json::to_value(settings.into_generator().into_root_schema_for::<Selection>());
    let Ok(schema) = &mut schema else { return };
    schema.as_object_mut().into_iter().for_each(|map| _ = map.remove("$schema"));
    document["components"]["schemas"]["NewSelection"]["properties"]["selection"] = schema.take();
}
