//! What callers read and write.

use std::collections::BTreeMap;

use kube::ResourceExt;
use liqo_api::market::{ProviderProfile, Reservation};
use liqo_kube::now;
use liqo_market::{
    provider::record,
    uptime,
    wire::{Declared, Resources},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The times whose uptime is shown, in seconds.
const WINDOWS: [(&str, i64); 3] = [("24h", 86_400), ("168h", 7 * 86_400), ("720h", 30 * 86_400)];

/// An uptime as a decimal number.
fn decimal(millionths: u32) -> String {
    if millionths >= uptime::WHOLE { "1".to_owned() } else { format!("0.{millionths:06}") }
}

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
    /// The part of the last day, week and month (30 days) in which the provider was heard of; a time that is longer than the provider is known
    /// is left out.
    #[schema(value_type = BTreeMap<String, String>)]
    pub(crate) uptime: BTreeMap<&'static str, String>,
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
        let (record, now) = (record(&status), now().0.as_second());
        let uptime = WINDOWS.iter().filter_map(|(name, window)| Some((*name, decimal(record.ratio(*window, now)?))));
        Self {
            cluster_id: profile.spec.cluster_id.clone(),
            declared: declared(profile),
            offered: status.offered,
            reserved: status.reserved,
            free: status.free,
            largest_allocation: status.largest_allocation,
            cordoned: profile.spec.cordoned,
            uptime: uptime.collect(),
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
        carbon_grams: spec.carbon_grams,
        probe: spec.probe,
    }
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
