//! A provider as a selection sees it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};
use liqo_api::market::{self, Price, ProviderProfile, ProviderProfileStatus};
use liqo_core::{
    quantity::Amount,
    resources::{self, Resources},
};

use crate::{
    count,
    uptime::{Outage, Record},
};

/// A provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provider {
    /// Cluster ID.
    pub id: String,
    /// Name.
    pub name: String,
    /// Where the provider is; empty: not said.
    pub region: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What an hour costs.
    pub prices: Vec<Price>,
    /// Whether the provider takes no more reservations.
    pub cordoned: bool,
    /// Grams of CO2 for each kilowatt-hour; `None`: not said.
    pub carbon: Option<u32>,
    /// When the provider was there.
    pub record: Record,
    /// The whole offer.
    pub offered: Resources,
    /// What of the offer is free; nothing is less than zero.
    pub free: Resources,
    /// What the largest pod can have.
    pub largest: Resources,
}

impl Provider {
    /// The provider that a profile describes.
    pub fn of(profile: &ProviderProfile) -> Self {
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
            name: spec.cluster_name.clone(),
            region: spec.region.clone(),
            labels: spec.labels.clone(),
            prices: spec.prices.clone(),
            cordoned: spec.cordoned,
            carbon: spec.carbon_grams,
            record: record(&status),
            offered,
            free,
            largest: resources::read(&status.largest_allocation),
        }
    }

    /// What an hour of the request costs, in billionths of its currency.
    ///
    /// # Errors
    /// When a resource of the request has no price, or the prices are in several currencies.
    pub fn cost(&self, request: &Resources) -> Result<(u64, String), Unpriced> {
        let mut sum = 0_u64;
        let mut currency: Option<&str> = None;
        for (name, amount) in request.iter().filter(|(_, amount)| amount.is_positive()) {
            let price = self.prices.iter().find(|price| price.resource == *name);
            let price = price.ok_or_else(|| Unpriced::Missing(name.clone()))?;
            let cost = count::cost(count::is_bytes(name), count::asked(name, *amount), nanos(&price.amount));
            sum = sum.saturating_add(cost);
            match currency {
                Some(known) if known != price.currency => return Err(Unpriced::Currencies),
                _ => currency = Some(&price.currency),
            }
        }
        Ok((sum, currency.unwrap_or_default().to_owned()))
    }
}

/// A price in billionths.
pub(crate) fn nanos(amount: &Quantity) -> u64 {
    Amount::of(amount).nanos()
}

/// When the provider of a profile was there.
pub fn record(status: &ProviderProfileStatus) -> Record {
    let second = |time: &Time| time.0.as_second();
    let outage =
        |outage: &market::Outage| Outage { from: second(&outage.from), until: outage.until.as_ref().map(second) };
    Record { since: status.observed_since.as_ref().map(second), outages: status.outages.iter().map(outage).collect() }
}

/// Why the cost of a request is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpriced {
    /// This resource has no price.
    Missing(String),
    /// Prices are in several currencies.
    Currencies,
}

#[cfg(test)]
mod tests {
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
            "status": {"observedSince": "1970-01-01T00:00:00Z",
                "outages": [{"from": "1970-01-01T00:01:00Z", "until": "1970-01-01T00:02:00Z"}, {"from": "1970-01-01T00:03:00Z"}],
                "offered": {"cpu": "4", "memory": "1Gi"}, "grants": [
                {"uid": "1", "namespace": "n", "name": "r", "resources": {"cpu": "1", "memory": "2Gi"},
                 "asked": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]}
        }))
        .unwrap();
        let provider = Provider::of(&profile);
        assert_eq!(provider.free, list(&[("cpu", "3"), ("memory", "0")]));
        assert_eq!((provider.id.as_str(), provider.record.since), ("a", Some(0)));
        assert_eq!(provider.record.outages, [Outage { from: 60, until: Some(120) }, Outage { from: 180, until: None }]);
    }
}
