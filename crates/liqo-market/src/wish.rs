//! What a customer asks for, read and bounded.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use liqo_api::market::{Missing, Selection, Weights};
use liqo_core::{quantity::Amount, resources::Resources};

/// Resources of one wish.
const MOST_RESOURCES: usize = 32;
/// Most values in one list of a wish: values that a user writes, and values that an agent adds.
const MOST_VALUES: usize = 128;
/// The greatest weight.
const MOST_WEIGHT: u32 = 100;

/// A wish that makes sense.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// What is needed in sum.
    pub request: Resources,
    /// What the largest pod needs.
    pub largest_pod: Resources,
    /// Most that an hour may cost: billionths, currency.
    pub max_price: Option<(u128, String)>,
    /// Most milliseconds to the provider and back.
    pub max_latency: Option<u32>,
    /// Allowed regions; empty: every one.
    pub regions: Vec<String>,
    /// Forbidden regions.
    pub not_regions: Vec<String>,
    /// Required labels.
    pub labels: BTreeMap<String, String>,
    /// Unwanted cluster IDs.
    pub exclude: Vec<String>,
    /// Most seconds since the last heartbeat.
    pub max_age: u64,
    /// Least score, in thousandths.
    pub min_score: u32,
    /// How much a part counts.
    pub weights: Weights,
    /// What is done about a value that is not known.
    pub missing: Missing,
}

impl Wish {
    /// Reads what a customer asks for.
    ///
    /// # Errors
    /// A sentence that names the field that makes no sense.
    pub fn read(selection: &Selection) -> Result<Self, String> {
        let Selection { request, largest_pod, criteria, weights, missing } = selection;
        let request = amounts("request", request)?;
        if request.is_empty() {
            return Err("request names no resource".to_owned());
        }
        let largest_pod = amounts("largestPod", largest_pod)?;
        for (name, list) in
            [("regions", &criteria.regions), ("notRegions", &criteria.not_regions), ("exclude", &criteria.exclude)]
        {
            if list.len() > MOST_VALUES {
                return Err(format!("criteria.{name} has more than {MOST_VALUES} values"));
            }
        }
        if criteria.labels.len() > MOST_VALUES {
            return Err(format!("criteria.labels has more than {MOST_VALUES} values"));
        }
        if [weights.price, weights.latency, weights.headroom].iter().any(|weight| *weight > MOST_WEIGHT) {
            return Err(format!("a weight is a number from 0 to {MOST_WEIGHT}"));
        }
        let max_price = criteria.max_price.as_ref().map(|most| {
            let amount = Amount::parse(&most.amount.0).filter(|amount| amount.is_positive());
            let amount = amount.ok_or("criteria.maxPrice.amount must be more than nothing")?;
            Ok::<_, String>((u128::from(amount.nanos()), most.currency.clone()))
        });
        Ok(Self {
            request,
            largest_pod,
            max_price: max_price.transpose()?,
            max_latency: criteria.max_latency_millis,
            regions: criteria.regions.clone(),
            not_regions: criteria.not_regions.clone(),
            labels: criteria.labels.clone(),
            exclude: criteria.exclude.clone(),
            max_age: u64::from(criteria.max_age_seconds),
            min_score: criteria.min_score,
            weights: *weights,
            missing: *missing,
        })
    }
}

/// Reads the amounts of resources that a user asks for: each amount is greater than zero.
///
/// # Errors
/// A sentence that names the field and the resource.
pub fn amounts(field: &str, list: &BTreeMap<String, Quantity>) -> Result<Resources, String> {
    if list.len() > MOST_RESOURCES {
        return Err(format!("{field} names more than {MOST_RESOURCES} resources"));
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
    fn what_makes_no_sense_is_named() {
        let many: Vec<String> = (0..129).map(|number| number.to_string()).collect();
        for (value, words) in [
            (json!({"request": {}}), "names no resource"),
            (json!({"request": {"cpu": "0"}}), "more than nothing"),
            (json!({"request": {"cpu": "-1"}}), "more than nothing"),
            (json!({"request": {"cpu": "x"}}), "no amount of \"cpu\""),
            (json!({"request": {"cpu": "1"}, "largestPod": {"memory": "-1"}}), "largestPod"),
            (json!({"request": {"cpu": "1"}, "criteria": {"exclude": many}}), "criteria.exclude"),
            (json!({"request": {"cpu": "1"}, "weights": {"price": 101}}), "a weight"),
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
