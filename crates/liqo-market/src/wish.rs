//! What a customer asks for, read and bounded.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use liqo_api::market::{Criteria, MinUptime, Missing, Mode, Placement, Selection, Stability, Weights};
use liqo_core::{quantity::Amount, resources::Resources};

use crate::{count, uptime};

/// Resources of one wish.
const MOST_RESOURCES: usize = 32;
/// Most values in one list of a wish: values that a user writes, and values that an agent adds.
const MOST_VALUES: usize = 128;
/// Most labels of a wish, as of a SelectionPolicy.
const MOST_LABELS: usize = 32;
/// Longest value, and longest name of a label or a resource (a prefix of 253 characters, a slash and 63), in bytes.
const LONGEST_VALUE: usize = 63;
const LONGEST_NAME: usize = 317;
/// The greatest weight.
const MOST_WEIGHT: u32 = 100;
/// Most parts and providers of a placement.
const MOST_PARTS: u32 = 1000;
const MOST_PROVIDERS: u32 = 16;
/// A day, in seconds.
const DAY: i64 = 86_400;

/// A wish that makes sense.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// What is needed in sum.
    pub request: Resources,
    /// What one provider holds at least: the request, or one part of it.
    pub part: Resources,
    /// What the largest pod needs.
    pub largest_pod: Resources,
    /// What must be free at each provider.
    pub min_free: Resources,
    /// Most that an hour may cost: billionths, currency.
    pub max_price: Option<(u64, String)>,
    /// Most milliseconds to the provider and back.
    pub max_latency: Option<u32>,
    /// Least uptime, in millionths.
    pub min_uptime: Option<u32>,
    /// The seconds of which the uptime counts.
    pub window: i64,
    /// Most grams of CO2 for each kilowatt-hour.
    pub max_carbon: Option<u32>,
    /// Allowed regions; empty: every one.
    pub regions: Vec<String>,
    /// Forbidden regions.
    pub not_regions: Vec<String>,
    /// Required labels.
    pub labels: BTreeMap<String, String>,
    /// Unwanted cluster IDs.
    pub exclude: Vec<String>,
    /// Most seconds since the last heartbeat.
    pub max_age: i64,
    /// Least score, in thousandths.
    pub min_score: u32,
    /// How much a part counts.
    pub weights: Weights,
    /// What is done about a value that is not known.
    pub missing: Missing,
    /// How the request is shared out.
    pub mode: Mode,
    /// Into how many parts.
    pub parts: u32,
    /// On how many providers at most.
    pub max_providers: usize,
    /// In how many regions at least.
    pub min_regions: usize,
    /// When a provider that was chosen gives way.
    pub stability: Stability,
}

impl Wish {
    /// Reads what a customer asks for.
    ///
    /// # Errors
    /// A sentence that names the field that makes no sense.
    pub fn read(selection: &Selection) -> Result<Self, String> {
        let Selection { request, largest_pod, criteria, weights, missing, placement, stability } = selection;
        let request = amounts("request", request)?;
        if request.is_empty() {
            return Err("request names no resource".to_owned());
        }
        check(criteria, weights)?;
        let parts = parts(&request, placement)?;
        let max_price = criteria.max_price.as_ref().map(|most| {
            let amount = Amount::parse(&most.amount.0).filter(|amount| amount.is_positive());
            let amount = amount.ok_or("criteria.maxPrice.amount must be more than nothing")?;
            Ok::<_, String>((amount.nanos(), most.currency.clone()))
        });
        let (min_uptime, window) = uptime_of(criteria.min_uptime.as_ref())?;
        Ok(Self {
            part: part(&request, parts)?,
            request,
            largest_pod: amounts("largestPod", largest_pod)?,
            min_free: amounts("criteria.minFree", &criteria.min_free)?,
            max_price: max_price.transpose()?,
            max_latency: criteria.max_latency_millis,
            min_uptime,
            window,
            max_carbon: criteria.max_carbon_grams,
            regions: criteria.regions.clone(),
            not_regions: criteria.not_regions.clone(),
            labels: criteria.labels.clone(),
            exclude: criteria.exclude.clone(),
            max_age: i64::from(criteria.max_age_seconds),
            min_score: criteria.min_score,
            weights: *weights,
            missing: *missing,
            mode: placement.mode,
            parts,
            max_providers: placement.max_providers.unwrap_or(4) as usize,
            min_regions: placement.min_regions.unwrap_or(2) as usize,
            stability: *stability,
        })
    }

    /// So many parts of the request.
    pub fn share(&self, parts: u32) -> Resources {
        if parts >= self.parts {
            return self.request.clone();
        }
        let times = |(name, amount): (&String, &Amount)| {
            (name.clone(), count::amount(name, count::asked(name, *amount).saturating_mul(i64::from(parts))))
        };
        self.part.iter().map(times).collect()
    }
}

/// Whether lists are short and weights are small enough.
fn check(criteria: &Criteria, weights: &Weights) -> Result<(), String> {
    let Criteria { regions, not_regions, exclude, labels, .. } = criteria;
    let lists = [("regions", regions), ("notRegions", not_regions), ("exclude", exclude)];
    if let Some((name, _)) = lists.into_iter().find(|(_, list)| list.len() > MOST_VALUES) {
        return Err(format!("criteria.{name} has more than {MOST_VALUES} values"));
    }
    if let Some((name, _)) = lists.into_iter().find(|(_, list)| list.iter().any(|one| one.len() > LONGEST_VALUE)) {
        return Err(format!("criteria.{name} has a value with more than {LONGEST_VALUE} characters"));
    }
    if labels.len() > MOST_LABELS {
        return Err(format!("criteria.labels has more than {MOST_LABELS} values"));
    }
    if labels.iter().any(|(name, value)| name.len() > LONGEST_NAME || value.len() > LONGEST_VALUE) {
        return Err("criteria.labels has a name or a value that is no label of Kubernetes".to_owned());
    }
    let Weights { price, latency, uptime, carbon, headroom } = *weights;
    if [price, latency, uptime, carbon, headroom].iter().any(|weight| *weight > MOST_WEIGHT) {
        return Err(format!("a weight is a number from 0 to {MOST_WEIGHT}"));
    }
    Ok(())
}

/// The least uptime, and the seconds of which the uptime counts.
fn uptime_of(least: Option<&MinUptime>) -> Result<(Option<u32>, i64), String> {
    let Some(least) = least else { return Ok((None, DAY)) };
    let whole = Amount::whole(1);
    let ratio = Amount::parse(&least.ratio).filter(|ratio| ratio.is_positive() && *ratio <= whole);
    let ratio = ratio.ok_or("criteria.minUptime.ratio is more than 0 and at most 1, as in \"0.995\"")?;
    let window = i64::from(least.window_hours) * 3600;
    if window == 0 || window > uptime::REMEMBERED {
        return Err(format!("criteria.minUptime.windowHours is a number from 1 to {}", uptime::REMEMBERED / 3600));
    }
    Ok((Some(u32::try_from(ratio.nanos().div_ceil(1000)).unwrap_or(uptime::WHOLE)), window))
}

/// Into how many parts the request is divided.
fn parts(request: &Resources, placement: &Placement) -> Result<u32, String> {
    let Placement { mode, parts, max_providers, min_regions } = placement;
    if *mode == Mode::Single {
        return match (parts, max_providers, min_regions) {
            (None, None, None) => Ok(1),
            _ => Err("placement.parts, maxProviders and minRegions are for the modes Pack and Spread".to_owned()),
        };
    }
    let most = max_providers.unwrap_or(4);
    if most == 0 || most > MOST_PROVIDERS {
        return Err(format!("placement.maxProviders is a number from 1 to {MOST_PROVIDERS}"));
    }
    match (mode, min_regions) {
        (Mode::Spread, least) if least.unwrap_or(2) == 0 || least.unwrap_or(2) > most => {
            return Err(format!("placement.minRegions is a number from 1 to maxProviders, {most}"));
        }
        (Mode::Pack, Some(_)) => return Err("placement.minRegions is for the mode Spread".to_owned()),
        _ => {}
    }
    let of_pods = || request.get("pods").and_then(|pods| u32::try_from(pods.units()).ok());
    let parts =
        parts.or_else(of_pods).ok_or("placement.parts, or pods in the request, says how the request divides")?;
    if parts == 0 || parts > MOST_PARTS {
        return Err(format!("placement.parts is a number from 1 to {MOST_PARTS}"));
    }
    if *mode == Mode::Spread && parts < min_regions.unwrap_or(2) {
        return Err(format!("a request of {parts} parts is in fewer regions than placement.minRegions"));
    }
    Ok(parts)
}

/// One of so many equal parts of a request, rounded up.
fn part(request: &Resources, parts: u32) -> Result<Resources, String> {
    let each = |(name, amount): (&String, &Amount)| {
        if parts == 1 {
            return Ok((name.clone(), *amount));
        }
        let count = count::asked(name, *amount);
        let (parts, small) = (i64::from(parts), if count::is_divisible(name) { 1 } else { 1000 });
        if count % (parts * small) != 0 && small != 1 {
            return Err(format!("{} of {name} cannot be divided into {parts} parts", amount.quantity().0));
        }
        Ok((name.clone(), count::amount(name, (count - 1) / parts + 1)))
    };
    request.iter().map(each).collect()
}

/// Reads the amounts of resources that a user asks for: each amount is greater than zero.
///
/// # Errors
/// A sentence that names the field and the resource.
pub fn amounts(field: &str, list: &BTreeMap<String, Quantity>) -> Result<Resources, String> {
    if list.len() > MOST_RESOURCES {
        return Err(format!("{field} names more than {MOST_RESOURCES} resources"));
    }
    if list.keys().any(|name| name.len() > LONGEST_NAME) {
        return Err(format!("{field} names a resource with more than {LONGEST_NAME} characters"));
    }
    let read = |(name, quantity): (&String, &Quantity)| match Amount::parse(&quantity.0) {
        Some(amount) if amount.is_positive() => Ok((name.clone(), amount)),
        _ => Err(format!("{field}: {:?} is no amount of {name:?} that is more than nothing", quantity.0)),
    };
    list.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Wish, String> {
        Wish::read(&serde_json::from_value(value).map_err(|error| error.to_string())?)
    }

    #[test]
    fn what_is_left_out_has_a_meaning() {
        let wish = read(json!({"request": {"cpu": "2"}})).unwrap();
        assert_eq!((wish.max_age, wish.missing, wish.min_score), (30, Missing::Reject, 0));
        let wish = read(json!({"request": {"cpu": "2"}, "criteria": {"regions": ["eu"]}})).unwrap();
        assert_eq!((wish.max_age, wish.regions), (30, vec!["eu".to_owned()]));
    }

    #[test]
    fn a_request_is_divided_into_parts_that_hold_it() {
        let wish = read(json!({"request": {"cpu": "2", "memory": "10", "pods": "3"}, "placement": {"mode": "Pack"}}));
        let wish = wish.unwrap();
        let list = |wish: &Resources| -> Vec<String> { wish.values().map(|amount| amount.quantity().0).collect() };
        assert_eq!((wish.parts, list(&wish.part)), (3, vec!["667m".into(), "4".into(), "1".into()]));
        assert_eq!(list(&wish.share(2)), ["1334m", "8", "2"]);
        assert_eq!(list(&wish.share(3)), ["2", "10", "3"], "all parts are the request");
        let whole = read(json!({"request": {"cpu": "1500u"}})).unwrap();
        assert_eq!((whole.parts, whole.part == whole.request), (1, true));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let (many, long): (Vec<_>, _) = ((0..129).map(|number| number.to_string()).collect(), "x".repeat(64));
        for (value, words) in [
            (json!({"request": {}}), "names no resource"),
            (json!({"request": {"cpu": "0"}}), "more than nothing"),
            (json!({"request": {"cpu": "-1"}}), "more than nothing"),
            (json!({"request": {"cpu": "x"}}), "no amount of \"cpu\""),
            (json!({"request": {"cpu": "1"}, "largestPod": {"memory": "-1"}}), "largestPod"),
            (json!({"request": {"cpu": "1"}, "criteria": {"exclude": many}}), "criteria.exclude"),
            (json!({"request": {"cpu": "1"}, "criteria": {"regions": [long]}}), "criteria.regions has a value"),
            (json!({"request": {"cpu": "1"}, "criteria": {"labels": {"tier": long}}}), "no label of Kubernetes"),
            (json!({"request": {long.repeat(5): "1"}}), "a resource with more than"),
            (json!({"request": {"cpu": "1"}, "weights": {"price": 101}}), "a weight"),
            (json!({"request": {"cpu": "1"}, "weights": {"carbon": 101}}), "a weight"),
            (json!({"request": {"cpu": "1"}, "criteria": {"minFree": {"cpu": "0"}}}), "criteria.minFree"),
            (json!({"request": {"cpu": "1"}, "criteria": {"minUptime": {"ratio": "1.1"}}}), "minUptime.ratio"),
            (json!({"request": {"cpu": "1"}, "criteria": {"minUptime": {"ratio": "0"}}}), "minUptime.ratio"),
            (
                json!({"request": {"cpu": "1"}, "criteria": {"minUptime": {"ratio": "1", "windowHours": 2161}}}),
                "windowHours",
            ),
            (json!({"request": {"cpu": "1"}, "placement": {"parts": 2}}), "for the modes Pack and Spread"),
            (json!({"request": {"cpu": "1"}, "placement": {"mode": "Pack"}}), "says how the request divides"),
            (json!({"request": {"cpu": "1"}, "placement": {"mode": "Pack", "parts": 1001}}), "placement.parts is"),
            (json!({"request": {"cpu": "1"}, "placement": {"mode": "Pack", "maxProviders": 17}}), "maxProviders is"),
            (json!({"request": {"pods": "4"}, "placement": {"mode": "Pack", "minRegions": 2}}), "for the mode Spread"),
            (
                json!({"request": {"pods": "4"}, "placement": {"mode": "Spread", "minRegions": 3, "maxProviders": 2}}),
                "minRegions is",
            ),
            (
                json!({"request": {"pods": "2"}, "placement": {"mode": "Spread", "minRegions": 3}}),
                "a request of 2 parts",
            ),
            (
                json!({"request": {"pods": "4", "nvidia.com/gpu": "2"}, "placement": {"mode": "Pack"}}),
                "2 of nvidia.com/gpu cannot be divided into 4 parts",
            ),
            (
                json!({"request": {"cpu": "1"}, "criteria": {"maxPrice": {"amount": "0", "currency": "EUR"}}}),
                "maxPrice",
            ),
            (json!({"request": {"cpu": "1"}, "critera": {}}), "unknown field"),
        ] {
            let why = read(value.clone()).unwrap_err();
            assert!(why.contains(words), "{value}: {why}");
        }
    }
}
