//! Which providers fit a wish, in order, and why the others do not.
//!
//! Keeps true: every provider is in the outcome once, chosen or left out with every reason there is; a value that is not known never
//! makes a provider better.

use std::{cmp::Reverse, collections::BTreeMap};

use liqo_api::market::Missing;
use liqo_core::{quantity::Amount, resources::Resources};

use crate::{
    provider::{Provider, Unpriced},
    wish::Wish,
};

/// What a full part of the score is.
const FULL: u32 = 1000;
/// The price at which the part of the price is 0, in billionths, unless the wish has a limit.
const USUAL_PRICE: u128 = 10_000_000_000;
/// The milliseconds at which the part of the latency is 0, unless the wish has a limit.
const USUAL_LATENCY: u32 = 200;

/// One word for programs: why a provider is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The wish excludes the provider.
    Excluded,
    /// The provider takes no reservations.
    Cordoned,
    /// The last heartbeat is too long ago, or there was none.
    Stale,
    /// The region is not allowed.
    NotInRegion,
    /// A label is missing or has another value.
    LabelMismatch,
    /// Too little is free, or the largest pod does not fit.
    NotEnough,
    /// A value is above its limit.
    AboveMaximum,
    /// A value is below its limit.
    BelowMinimum,
    /// A value is not known.
    Missing,
    /// Prices are in another currency.
    CurrencyMismatch,
}

/// Why a provider is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The criterion, as the wish names it.
    pub criterion: String,
    /// One word.
    pub code: Code,
    /// What the wish asks for.
    pub required: String,
    /// What the provider has.
    pub actual: String,
}

/// The parts of a score, each in thousandths; `None` does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// How cheap the provider is.
    pub price: Option<u32>,
    /// How near the provider is.
    pub latency: Option<u32>,
    /// How much is left there.
    pub headroom: Option<u32>,
}

/// A provider that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Cluster ID.
    pub id: String,
    /// The score, in thousandths.
    pub score: u32,
    /// The parts of the score.
    pub parts: Parts,
    /// What an hour of the request costs, in billionths of its currency, where that is known.
    pub cost: Option<(u128, String)>,
}

/// A provider that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Cluster ID.
    pub id: String,
    /// Every reason; at least one.
    pub reasons: Vec<Reason>,
}

/// What becomes of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Providers that fit, the best one first.
    pub chosen: Vec<Chosen>,
    /// The others, by cluster ID.
    pub left: Vec<Left>,
}

/// Decides about every provider. `latency` holds what the customer measured: milliseconds by cluster ID.
pub fn select(providers: &[Provider], wish: &Wish, latency: &BTreeMap<String, u32>) -> Outcome {
    let mut outcome = Outcome::default();
    for provider in providers {
        match judge(provider, wish, latency.get(&provider.id).copied()) {
            Ok(chosen) => outcome.chosen.push(chosen),
            Err(reasons) => outcome.left.push(Left { id: provider.id.clone(), reasons }),
        }
    }
    let cost = |one: &Chosen| one.cost.as_ref().map_or(u128::MAX, |(nanos, _)| *nanos);
    outcome.chosen.sort_by_cached_key(|one| (Reverse(one.score), cost(one), one.id.clone()));
    outcome.left.sort_by(|a, b| a.id.cmp(&b.id));
    outcome
}

fn judge(provider: &Provider, wish: &Wish, latency: Option<u32>) -> Result<Chosen, Vec<Reason>> {
    let mut reasons = standing(provider, wish);
    reasons.extend(room("request", &wish.request, &provider.free));
    reasons.extend(room("largestPod", &wish.largest_pod, &provider.largest));
    let (price, cost) = price(provider, wish, &mut reasons);
    let near = near(wish, latency, &mut reasons);
    let weights = wish.weights;
    let alone = [weights.price, weights.latency, weights.headroom].iter().all(|weight| *weight == 0);
    let headroom = if alone { FULL } else { weights.headroom };
    let parts = Parts {
        price: price.filter(|_| weights.price > 0),
        latency: near.filter(|_| weights.latency > 0),
        headroom: (headroom > 0).then(|| left_over(&wish.request, provider)),
    };
    let score = score([(parts.price, weights.price), (parts.latency, weights.latency), (parts.headroom, headroom)]);
    if reasons.is_empty() && score < wish.min_score {
        reasons.push(reason("minScore", Code::BelowMinimum, wish.min_score.to_string(), score.to_string()));
    }
    if reasons.is_empty() { Ok(Chosen { id: provider.id.clone(), score, parts, cost }) } else { Err(reasons) }
}

fn reason(criterion: impl Into<String>, code: Code, required: impl Into<String>, actual: impl Into<String>) -> Reason {
    Reason { criterion: criterion.into(), code, required: required.into(), actual: actual.into() }
}

/// What speaks against a provider whatever is asked for.
fn standing(provider: &Provider, wish: &Wish) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if wish.exclude.contains(&provider.id) {
        reasons.push(reason("exclude", Code::Excluded, "another provider", &provider.id));
    }
    if provider.cordoned {
        reasons.push(reason("cordoned", Code::Cordoned, "false", "true"));
    }
    if provider.age.is_none_or(|age| age > wish.max_age) {
        let actual = provider.age.map_or("no heartbeat".to_owned(), |age| age.to_string());
        reasons.push(reason("maxAgeSeconds", Code::Stale, wish.max_age.to_string(), actual));
    }
    if !wish.regions.is_empty() && !wish.regions.contains(&provider.region) {
        reasons.push(reason("regions", Code::NotInRegion, wish.regions.join(","), &provider.region));
    }
    if wish.not_regions.contains(&provider.region) {
        let required = format!("not {}", wish.not_regions.join(","));
        reasons.push(reason("notRegions", Code::NotInRegion, required, &provider.region));
    }
    for (key, value) in &wish.labels {
        let actual = provider.labels.get(key);
        if actual != Some(value) {
            let actual = actual.cloned().unwrap_or_default();
            reasons.push(reason(format!("labels.{key}"), Code::LabelMismatch, value, actual));
        }
    }
    reasons
}

/// Where there is too little.
fn room(criterion: &str, wanted: &Resources, there: &Resources) -> Vec<Reason> {
    let amount = |name: &str| there.get(name).copied().unwrap_or_default();
    let short = wanted.iter().filter(|(name, wanted)| amount(name) < **wanted);
    let tell = |(name, wanted): (&String, &Amount)| {
        reason(format!("{criterion}.{name}"), Code::NotEnough, wanted.quantity().0, amount(name).quantity().0)
    };
    short.map(tell).collect()
}

/// What happens to a value that is not known: whether the provider is left out, and the part of the score.
fn unknown(wish: &Wish, is_limit: bool, weight: u32) -> (bool, Option<u32>) {
    match wish.missing {
        Missing::Reject => (is_limit || weight > 0, None),
        Missing::Worst => (is_limit, Some(0)),
        Missing::Ignore => (false, None),
    }
}

/// The part of the price, and what an hour costs.
fn price(provider: &Provider, wish: &Wish, reasons: &mut Vec<Reason>) -> (Option<u32>, Option<(u128, String)>) {
    let required = || wish.max_price.as_ref().map_or_else(String::new, |(most, currency)| money(*most, currency));
    let (cost, currency) = match provider.cost(&wish.request) {
        Ok(cost) => cost,
        Err(why) => {
            let (is_left, part) = unknown(wish, wish.max_price.is_some(), wish.weights.price);
            if is_left {
                let (code, actual) = match why {
                    Unpriced::Missing(resource) => (Code::Missing, format!("no price of {resource}")),
                    Unpriced::Currencies => (Code::CurrencyMismatch, "several currencies".to_owned()),
                };
                reasons.push(reason("maxPrice", code, required(), actual));
            }
            return (part, None);
        }
    };
    let bound = wish.max_price.as_ref().map_or(USUAL_PRICE, |(most, _)| *most);
    if let Some((most, wanted)) = &wish.max_price {
        if *wanted != currency {
            reasons.push(reason("maxPrice", Code::CurrencyMismatch, required(), money(cost, &currency)));
        } else if cost > *most {
            reasons.push(reason("maxPrice", Code::AboveMaximum, required(), money(cost, &currency)));
        }
    }
    (Some(down(cost, bound)), Some((cost, currency)))
}

/// The part of the latency.
fn near(wish: &Wish, latency: Option<u32>, reasons: &mut Vec<Reason>) -> Option<u32> {
    let required = wish.max_latency.map_or_else(String::new, |most| most.to_string());
    let Some(latency) = latency else {
        let (is_left, part) = unknown(wish, wish.max_latency.is_some(), wish.weights.latency);
        if is_left {
            reasons.push(reason("maxLatencyMillis", Code::Missing, required, "not measured"));
        }
        return part;
    };
    if wish.max_latency.is_some_and(|most| latency > most) {
        reasons.push(reason("maxLatencyMillis", Code::AboveMaximum, required, latency.to_string()));
    }
    Some(down(u128::from(latency), u128::from(wish.max_latency.unwrap_or(USUAL_LATENCY))))
}

/// 1000 at nothing, 0 at the bound and above.
fn down(value: u128, bound: u128) -> u32 {
    let left = bound.saturating_sub(value).saturating_mul(u128::from(FULL)) / bound.max(1);
    u32::try_from(left).unwrap_or(FULL).min(FULL)
}

/// The share of the offer that is left once the request is held, of the scarcest resource.
fn left_over(request: &Resources, provider: &Provider) -> u32 {
    let share = |(name, wanted): (&String, &Amount)| {
        let amount = |list: &Resources| list.get(name).copied().unwrap_or_default();
        let left = (amount(&provider.free) - *wanted).at_least_zero().nanos();
        let offered = amount(&provider.offered).nanos();
        down(u128::from(offered.saturating_sub(left)), u128::from(offered))
    };
    request.iter().map(share).min().unwrap_or_default()
}

/// The weighted mean of the parts that count.
fn score(parts: [(Option<u32>, u32); 3]) -> u32 {
    let known = parts.iter().filter_map(|(part, weight)| part.map(|part| (u64::from(part), u64::from(*weight))));
    let (sum, weights) = known.fold((0, 0), |(sum, all), (part, weight)| (sum + part * weight, all + weight));
    u32::try_from(sum / weights.max(1)).unwrap_or(FULL)
}

/// Money for people: billionths as a decimal number, and the currency.
pub fn money(nanos: u128, currency: &str) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let rest = format!("{rest:09}");
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { format!("{whole} {currency}") } else { format!("{whole}.{rest} {currency}") }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
