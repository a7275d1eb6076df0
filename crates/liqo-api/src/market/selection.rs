//! What a customer asks of providers, in a request or as a policy that is kept.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub criteria: Criteria,
    /// What makes one provider better than another.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: Weights,
    /// What is done about a value that is not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub missing: Missing,
    /// On how many providers the request is placed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    /// When a provider that was chosen gives way to a better one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stability: Stability,
}

/// Criteria that are kept under a name.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "market.liqo.io",
    version = "v1alpha1",
    kind = "SelectionPolicy",
    plural = "selectionpolicies",
    shortname = "lsp",
    category = "liqo",
    namespaced,
    derive = "PartialEq",
    doc = "SelectionPolicy says which providers are acceptable and which is better, for requests for peerings and for `liqoctl market select`.",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.placement.mode"}"#,
    printcolumn = r#"{"name":"Regions","type":"string","jsonPath":".spec.criteria.regions"}"#,
    printcolumn = r#"{"name":"MaxPrice","type":"string","jsonPath":".spec.criteria.maxPrice.amount"}"#,
    printcolumn = r#"{"name":"MaxLatency","type":"integer","jsonPath":".spec.criteria.maxLatencyMillis"}"#,
    printcolumn = r#"{"name":"MinUptime","type":"string","jsonPath":".spec.criteria.minUptime.ratio"}"#,
    printcolumn = r#"{"name":"Missing","type":"string","priority":10,"jsonPath":".spec.missing"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SelectionPolicySpec {
    /// What must hold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub criteria: Criteria,
    /// What makes one provider better than another.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: Weights,
    /// What is done about a value that is not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub missing: Missing,
    /// On how many providers a request is placed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    /// When a provider that was chosen gives way to a better one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stability: Stability,
}

impl SelectionPolicySpec {
    /// The selection that asks for `request` by this policy.
    #[must_use]
    pub fn of(&self, request: BTreeMap<String, Quantity>, largest_pod: BTreeMap<String, Quantity>) -> Selection {
        let Self { criteria, weights, missing, placement, stability } = self.clone();
        Selection { request, largest_pod, criteria, weights, missing, placement, stability }
    }
}

/// On how many providers a request is placed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// How the request is shared out.
    #[serde(default)]
    pub mode: Mode,
    /// Into how many equal parts the request may be divided; each provider takes whole parts. Left out: the number of `pods` of the
    /// request. For `Pack` and `Spread`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub parts: Option<u32>,
    /// Most providers, 4 if left out. For `Pack` and `Spread`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub max_providers: Option<u32>,
    /// Fewest regions, 2 if left out. For `Spread`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub min_regions: Option<u32>,
}

/// How a request is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// One provider holds everything.
    #[default]
    Single,
    /// The fewest providers that hold everything, the best ones among those.
    Pack,
    /// Providers of as many regions as possible, as evenly as their room allows.
    Spread,
}

/// When a provider that was chosen gives way to a better one. One that does not meet a criterion any longer gives way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stability {
    /// By so many thousandths the score of the other provider must be better.
    #[serde(default = "switch_margin")]
    #[schemars(range(max = 1000))]
    pub switch_margin: u32,
    /// For so many seconds without a break.
    #[serde(default = "settle_seconds")]
    #[schemars(range(max = 86_400))]
    pub settle_seconds: u32,
}

impl Default for Stability {
    fn default() -> Self {
        Self { switch_margin: switch_margin(), settle_seconds: settle_seconds() }
    }
}

fn switch_margin() -> u32 {
    100
}

fn settle_seconds() -> u32 {
    600
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
    /// Least part of the time in which the provider was heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_uptime: Option<MinUptime>,
    /// Most grams of CO2 for each kilowatt-hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 5000))]
    pub max_carbon_grams: Option<u32>,
    /// What must be free at each provider, whatever is placed there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub min_free: BTreeMap<String, Quantity>,
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
            min_uptime: None,
            max_carbon_grams: None,
            min_free: BTreeMap::new(),
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

/// Least part of the time in which a provider was heard of, as the broker counted. A provider that is known for less than the window has
/// an uptime that is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MinUptime {
    /// More than 0, at most 1, as in "0.995".
    #[schemars(regex(pattern = r"^(1|0\.[0-9]{1,9})$"))]
    pub ratio: String,
    /// The hours that are looked at.
    #[serde(default = "window_hours")]
    #[schemars(range(min = 1, max = 2160))]
    pub window_hours: u32,
}

/// A day.
fn window_hours() -> u32 {
    24
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
    /// Steady: 1000 at an uptime of 1 within the window of `minUptime`, or within a day; 0 at the least uptime allowed, or at 0.9.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub uptime: u32,
    /// Clean: 1000 at nothing, 0 at the most carbon allowed, or at 800 grams.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub carbon: u32,
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
