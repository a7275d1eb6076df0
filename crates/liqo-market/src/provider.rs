//! A provider as a selection sees it.

use std::collections::BTreeMap;

use liqo_api::market::{Price, ProviderProfile};
use liqo_core::{
    quantity::Amount,
    resources::{self, Resources},
};

/// Bytes in 1Gi: the unit of prices of memory and storage.
const GIB: u128 = 1 << 30;
/// Billionths in one.
const ONE: u128 = 1_000_000_000;

/// A provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provider {
    /// Cluster ID.
    pub id: String,
    /// Where the provider is; empty: not said.
    pub region: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What an hour costs.
    pub prices: Vec<Price>,
    /// Whether the provider takes no more reservations.
    pub cordoned: bool,
    /// Seconds since the last heartbeat; `None`: there was none.
    pub age: Option<u64>,
    /// The whole offer.
    pub offered: Resources,
    /// What of the offer is free; nothing is less than zero.
    pub free: Resources,
    /// What the largest pod can have.
    pub largest: Resources,
}

impl Provider {
    /// The provider that a profile describes, heard of `age` seconds ago.
    pub fn of(profile: &ProviderProfile, age: Option<u64>) -> Self {
        let spec = &profile.spec;
        let status = profile.status.clone().unwrap_or_default();
        let offered = resources::read(&status.offered);
        let mut free = offered.clone();
        for grant in &status.grants {
            resources::take(&mut free, &resources::read(&grant.resources));
        }
        free.values_mut().for_each(|amount| *amount = amount.at_least_zero());
        Self {
            id: spec.cluster_id.clone(),
            region: spec.region.clone(),
            labels: spec.labels.clone(),
            prices: spec.prices.clone(),
            cordoned: spec.cordoned,
            age,
            offered,
            free,
            largest: resources::read(&status.largest_allocation),
        }
    }

    /// What an hour of the request costs, in billionths of its currency.
    ///
    /// # Errors
    /// When a resource of the request has no price, or the prices are in several currencies.
    pub fn cost(&self, request: &Resources) -> Result<(u128, String), Unpriced> {
        let mut sum = 0_u128;
        let mut currency: Option<&str> = None;
        for (name, amount) in request.iter().filter(|(_, amount)| amount.is_positive()) {
            let price = self.prices.iter().find(|price| price.resource == *name);
            let price = price.ok_or_else(|| Unpriced::Missing(name.clone()))?;
            let price_nanos = u128::from(Amount::of(&price.amount).nanos());
            let unit = if is_bytes(name) { GIB } else { 1 };
            // Rounded up to whole ones where that is bytes, to thousandths elsewhere.
            let cost = if is_bytes(name) {
                price_nanos.saturating_mul(u128::from(amount.units())) / unit
            } else {
                price_nanos.saturating_mul(u128::from(amount.nanos())) / ONE
            };
            sum = sum.saturating_add(cost);
            match currency {
                Some(known) if known != price.currency => return Err(Unpriced::Currencies),
                _ => currency = Some(&price.currency),
            }
        }
        Ok((sum, currency.unwrap_or_default().to_owned()))
    }
}

/// Why the cost of a request is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpriced {
    /// This resource has no price.
    Missing(String),
    /// Prices are in several currencies.
    Currencies,
}

/// Whether a resource is counted in bytes.
fn is_bytes(name: &str) -> bool {
    name == "memory" || name == "ephemeral-storage" || name == "storage" || name.starts_with("hugepages-")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Resources {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Amount::parse(text).unwrap())).collect()
    }

    fn price(resource: &str, amount: &str, currency: &str) -> Price {
        Price { resource: resource.into(), amount: Quantity(amount.into()), currency: currency.into() }
    }

    #[test]
    fn an_hour_costs_the_sum_of_its_resources() {
        let euros = vec![price("cpu", "0.03", "EUR"), price("memory", "0.004", "EUR")];
        for (prices, request, wanted) in [
            (euros.clone(), list(&[("cpu", "2"), ("memory", "4Gi")]), Ok((76_000_000, "EUR".to_owned()))),
            (euros.clone(), list(&[("cpu", "500m")]), Ok((15_000_000, "EUR".to_owned()))),
            (euros.clone(), list(&[("memory", "512Mi")]), Ok((2_000_000, "EUR".to_owned()))),
            (euros.clone(), list(&[("cpu", "0"), ("pods", "0")]), Ok((0, String::new()))),
            (euros.clone(), list(&[("cpu", "1"), ("pods", "1")]), Err(Unpriced::Missing("pods".to_owned()))),
            (
                vec![price("cpu", "1", "EUR"), price("memory", "1", "USD")],
                list(&[("cpu", "1"), ("memory", "1Gi")]),
                Err(Unpriced::Currencies),
            ),
        ] {
            let provider = Provider { prices, ..Provider::default() };
            assert_eq!(provider.cost(&request), wanted, "{request:?}");
        }
    }

    #[test]
    fn an_hour_of_everything_there_is_does_not_run_over() {
        let provider = Provider { prices: vec![price("cpu", "9e18", "EUR")], ..Provider::default() };
        assert!(provider.cost(&list(&[("cpu", "9e18")])).unwrap().0 > 0);
    }

    #[test]
    fn what_is_granted_is_not_free_and_nothing_is_less_than_nothing() {
        let profile: ProviderProfile = serde_json::from_value(serde_json::json!({
            "apiVersion": "market.liqo.io/v1alpha1", "kind": "ProviderProfile", "metadata": {"name": "a"},
            "spec": {"clusterID": "a"},
            "status": {"offered": {"cpu": "4", "memory": "1Gi"}, "grants": [
                {"uid": "1", "namespace": "n", "name": "r", "resources": {"cpu": "1", "memory": "2Gi"},
                 "asked": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]}
        }))
        .unwrap();
        let provider = Provider::of(&profile, Some(3));
        assert_eq!(provider.free, list(&[("cpu", "3"), ("memory", "0")]));
        assert_eq!((provider.id.as_str(), provider.age), ("a", Some(3)));
    }
}
