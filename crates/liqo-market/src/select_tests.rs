use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use liqo_api::market::{Price, Weights};
use liqo_core::{quantity::Amount, resources::Resources};
use proptest::prelude::*;

use super::*;
use crate::{
    Provider, explain,
    uptime::{Outage, Record},
};

pub(crate) fn list(pairs: &[(&str, &str)]) -> Resources {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), Amount::parse(text).unwrap())).collect()
}

fn prices(cpu: &str, currency: &str) -> Vec<Price> {
    let price = |resource: &str, amount: &str| Price {
        resource: resource.into(),
        amount: Quantity(amount.into()),
        currency: currency.into(),
    };
    vec![price("cpu", cpu), price("memory", "0.001")]
}

pub(crate) fn provider(id: &str) -> Provider {
    Provider {
        id: id.into(),
        name: String::new(),
        region: "eu-west".into(),
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        prices: prices("0.1", "EUR"),
        cordoned: false,
        carbon: Some(300),
        record: Record { since: Some(0), outages: vec![Outage { from: NOW - 86_400, until: Some(NOW - 77_760) }] },
        offered: list(&[("cpu", "16"), ("memory", "64Gi")]),
        free: list(&[("cpu", "8"), ("memory", "32Gi")]),
        largest: list(&[("cpu", "4"), ("memory", "16Gi")]),
    }
}

const NOW: i64 = 1_000_000;
/// The providers of most tests were heard of five seconds ago.
const CLOCK: i64 = 105;

fn table(all: &[Provider]) -> Table {
    let mut table = Table::default();
    for one in all {
        table.put(one.clone());
        table.heard(&one.id, CLOCK - 5);
    }
    table
}

fn asked(latency: &[(&str, u32)]) -> Asked {
    let latency = latency.iter().map(|(id, millis)| ((*id).to_owned(), *millis)).collect();
    Asked { latency, clock: CLOCK, now: NOW, ..Asked::default() }
}

/// A wish for this request, all of it at one provider.
fn wish_for(request: &[(&str, &str)]) -> Wish {
    Wish { request: list(request), part: list(request), parts: 1, max_age: 30, window: 86_400, ..Wish::default() }
}

fn wish() -> Wish {
    wish_for(&[("cpu", "4"), ("memory", "8Gi")])
}

fn said(provider: &Provider, wish: &Wish, asked: &Asked) -> Vec<explain::Words> {
    let table = table(std::slice::from_ref(provider));
    let outcome = select(&table, wish, asked);
    outcome.reasons.iter().map(|reason| explain::words(&table, wish, asked, reason)).collect()
}

fn codes(provider: &Provider, wish: &Wish, latency: Option<u32>) -> Vec<(String, Code)> {
    let latency: Vec<_> = latency.map(|latency| (provider.id.as_str(), latency)).into_iter().collect();
    said(provider, wish, &asked(&latency)).into_iter().map(|one| (one.criterion, one.code)).collect()
}

fn ids<'t>(table: &'t Table, outcome: &Outcome) -> Vec<(&'t str, u32)> {
    outcome.fits.iter().map(|fit| (outcome.provider(table, fit).id.as_str(), fit.score)).collect()
}

/// A provider, a wish, what was measured, and the reasons.
type Row = (Provider, Wish, Option<u32>, &'static [(&'static str, Code)]);

#[test]
fn each_criterion_has_its_reason() {
    let euros = |most: u64| Some((most, "EUR".to_owned()));
    let near = |most: u32| Wish { max_latency: Some(most), ..wish() };
    let table: Vec<Row> = vec![
        (provider("a"), wish(), None, &[]),
        (provider("a"), Wish { exclude: vec!["a".into()], ..wish() }, None, &[("exclude", Code::Excluded)]),
        (Provider { cordoned: true, ..provider("a") }, wish(), None, &[("cordoned", Code::Cordoned)]),
        (provider("a"), Wish { max_age: 5, ..wish() }, None, &[]),
        (provider("a"), Wish { max_age: 4, ..wish() }, None, &[("maxAgeSeconds", Code::Stale)]),
        (provider("a"), Wish { regions: vec!["eu-west".into()], ..wish() }, None, &[]),
        (provider("a"), Wish { regions: vec!["us".into()], ..wish() }, None, &[("regions", Code::NotInRegion)]),
        (
            provider("a"),
            Wish { not_regions: vec!["eu-west".into()], ..wish() },
            None,
            &[("notRegions", Code::NotInRegion)],
        ),
        (
            provider("a"),
            Wish { labels: [("tier".into(), "silver".into())].into(), ..wish() },
            None,
            &[("labels.tier", Code::LabelMismatch)],
        ),
        (
            provider("a"),
            wish_for(&[("cpu", "9"), ("nvidia.com/gpu", "1")]),
            None,
            &[("request.cpu", Code::NotEnough), ("request.nvidia.com/gpu", Code::NotEnough)],
        ),
        (provider("a"), Wish { largest_pod: list(&[("cpu", "4")]), ..wish() }, None, &[]),
        (
            provider("a"),
            Wish { largest_pod: list(&[("cpu", "4001m")]), ..wish() },
            None,
            &[("largestPod.cpu", Code::NotEnough)],
        ),
        (provider("a"), Wish { max_price: euros(408_000_000), ..wish() }, None, &[]),
        (provider("a"), Wish { max_price: euros(407_999_999), ..wish() }, None, &[("maxPrice", Code::AboveMaximum)]),
        (
            Provider { prices: prices("0.1", "USD"), ..provider("a") },
            Wish { max_price: euros(u64::MAX), ..wish() },
            None,
            &[("maxPrice", Code::CurrencyMismatch)],
        ),
        (
            Provider { prices: Vec::new(), ..provider("a") },
            Wish { max_price: euros(1), ..wish() },
            None,
            &[("maxPrice", Code::Missing)],
        ),
        (provider("a"), near(20), Some(20), &[]),
        (provider("a"), near(20), Some(21), &[("maxLatencyMillis", Code::AboveMaximum)]),
        (provider("a"), near(20), None, &[("maxLatencyMillis", Code::Missing)]),
        (provider("a"), Wish { min_free: list(&[("cpu", "8")]), ..wish() }, None, &[]),
        (
            provider("a"),
            Wish { min_free: list(&[("cpu", "8001m")]), ..wish() },
            None,
            &[("minFree.cpu", Code::NotEnough)],
        ),
        (provider("a"), Wish { max_carbon: Some(300), ..wish() }, None, &[]),
        (provider("a"), Wish { max_carbon: Some(299), ..wish() }, None, &[("maxCarbonGrams", Code::AboveMaximum)]),
        (
            Provider { carbon: None, ..provider("a") },
            Wish { max_carbon: Some(299), ..wish() },
            None,
            &[("maxCarbonGrams", Code::Missing)],
        ),
        (provider("a"), Wish { min_uptime: Some(900_000), ..wish() }, None, &[]),
        (provider("a"), Wish { min_uptime: Some(900_001), ..wish() }, None, &[("minUptime", Code::BelowMinimum)]),
        (provider("a"), Wish { min_uptime: Some(1), window: NOW + 1, ..wish() }, None, &[("minUptime", Code::Missing)]),
        (provider("a"), Wish { min_score: 1000, ..wish() }, None, &[("minScore", Code::BelowMinimum)]),
    ];
    for (provider, wish, latency, wanted) in table {
        let wanted: Vec<_> = wanted.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect();
        assert_eq!(codes(&provider, &wish, latency), wanted, "{wish:?} {latency:?}");
    }
}

#[test]
fn reasons_carry_what_was_asked_and_what_there_is() {
    let all = Wish {
        max_price: Some((100_000_000, "EUR".into())),
        max_latency: Some(9),
        min_uptime: Some(995_000),
        max_carbon: Some(100),
        regions: vec!["us".into(), "asia".into()],
        labels: [("tier".to_owned(), "silver".to_owned())].into(),
        max_age: 4,
        exclude: vec!["a".into()],
        ..wish_for(&[("cpu", "9500m")])
    };
    let said = said(&provider("a"), &all, &asked(&[("a", 10)]));
    let said: Vec<_> = said.iter().map(|one| (one.required.as_str(), one.actual.as_str())).collect();
    let wanted = [
        ("another provider", "a"),
        ("4", "5"),
        ("us,asia", "eu-west"),
        ("silver", "gold"),
        ("9500m", "8"),
        ("0.1 EUR", "0.95 EUR"),
        ("9", "10"),
        ("0.995 in 24h", "0.9"),
        ("100", "300"),
    ];
    assert_eq!(said, wanted);
}

#[test]
fn a_provider_that_was_never_heard_of_is_stale() {
    let mut table = Table::default();
    table.put(provider("a"));
    let (wish, asked) = (wish(), asked(&[]));
    let outcome = select(&table, &wish, &asked);
    assert_eq!(explain::words(&table, &wish, &asked, &outcome.reasons[0]).actual, "no heartbeat");
    table.heard("a", CLOCK);
    assert!(select(&table, &wish, &asked).reasons.is_empty());
    table.put(Provider { region: "us".into(), ..provider("a") });
    assert!(select(&table, &wish, &asked).reasons.is_empty(), "what is said anew is no older than before");
}

#[test]
fn a_value_that_is_not_known_never_makes_better() {
    let weights = Weights { latency: 100, headroom: 100, ..Weights::default() };
    let table = table(&[provider("known"), provider("unknown")]);
    let chosen = |missing| {
        let outcome = select(&table, &Wish { weights, missing, ..wish() }, &asked(&[("known", 150)]));
        ids(&table, &outcome)
    };
    // Headroom is 250 of 1000 for both, and 150 of 200 milliseconds are 250.
    assert_eq!(chosen(Missing::Reject), [("known", 250)]);
    assert_eq!(chosen(Missing::Worst), [("known", 250), ("unknown", 125)]);
    let mut ignored = chosen(Missing::Ignore);
    ignored.sort_unstable();
    assert_eq!(ignored, [("known", 250), ("unknown", 250)]);
}

#[test]
fn weights_decide_who_is_better() {
    let cheap = Provider { prices: prices("0.05", "EUR"), ..provider("cheap") };
    let clean = Provider { carbon: Some(10), ..provider("clean") };
    let steady = Provider { record: Record { since: Some(0), outages: Vec::new() }, ..provider("steady") };
    let wide = Provider { free: list(&[("cpu", "9"), ("memory", "33Gi")]), ..provider("wide") };
    let table = table(&[clean, steady, wide, provider("near"), cheap]);
    let latency = [("cheap", 100), ("near", 5), ("clean", 100), ("steady", 100), ("wide", 100)];
    let first = |weights| ids(&table, &select(&table, &Wish { weights, ..wish() }, &asked(&latency)))[0].0;
    let none = Weights::default();
    assert_eq!(first(Weights { price: 1, ..none }), "cheap");
    assert_eq!(first(Weights { latency: 1, ..none }), "near");
    assert_eq!(first(Weights { uptime: 1, ..none }), "steady");
    assert_eq!(first(Weights { carbon: 1, ..none }), "clean");
    assert_eq!(first(none), "wide", "headroom alone");
}

#[test]
fn who_is_equally_good_is_cheaper_or_another_one_for_each_customer() {
    let cheap = Provider { prices: prices("0.05", "EUR"), ..provider("z") };
    let equal = table(&[provider("a"), provider("b"), cheap]);
    assert_eq!(ids(&equal, &select(&equal, &wish(), &asked(&[])))[0].0, "z");
    let many: Vec<_> = (0..10).map(|number| provider(&format!("p{number}"))).collect();
    let table = table(&many);
    let first = |consumer: &str| {
        let asked = Asked { consumer: consumer.into(), ..asked(&[]) };
        ids(&table, &select(&table, &wish(), &asked))[0].0.to_owned()
    };
    let chosen: std::collections::BTreeSet<_> = (0..20).map(|number| first(&format!("c{number}"))).collect();
    assert!(chosen.len() > 3, "{chosen:?}");
    assert_eq!(first("c1"), first("c1"));
}

#[test]
fn what_a_customer_holds_is_free_for_that_customer() {
    let full = Provider { free: list(&[("cpu", "1"), ("memory", "32Gi")]), ..provider("a") };
    let table = table(&[full.clone(), Provider { id: "b".into(), ..full }]);
    let holds = |cpu: &str| Some(("a".to_owned(), list(&[("cpu", cpu), ("memory", "8Gi")])));
    let fits = |current| {
        let outcome = select(&table, &wish(), &Asked { current, ..asked(&[]) });
        ids(&table, &outcome).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert!(fits(None).is_empty() && fits(holds("2999m")).is_empty());
    assert_eq!(fits(holds("3")), ["a"]);
}

#[test]
fn scores_of_large_amounts_are_exact_enough() {
    for (value, bound, wanted) in [(0, 0, 0), (0, 9, 1000), (9, 9, 0), (10, 9, 0), (u64::MAX / 2, u64::MAX, 500)] {
        assert_eq!(down(value, bound), wanted, "{value} of {bound}");
    }
}

fn some_provider() -> impl Strategy<Value = Provider> {
    (0_u8..200, 0_i64..20, 0_i64..20, any::<bool>(), 0_i64..20).prop_map(|(id, offered, free, cordoned, largest)| {
        Provider {
            id: format!("p{id:03}"),
            offered: [("cpu".to_owned(), Amount::whole(offered))].into(),
            free: [("cpu".to_owned(), Amount::whole(free.min(offered)))].into(),
            largest: [("cpu".to_owned(), Amount::whole(largest))].into(),
            cordoned,
            ..provider("")
        }
    })
}

proptest! {
    /// Each provider is in the outcome once; who fits has room; the order in which providers came does not matter.
    #[test]
    fn everybody_gets_an_answer(mut all in proptest::collection::vec(some_provider(), 0..200), cpu in 1_i64..20) {
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all.dedup_by(|a, b| a.id == b.id);
        let wish = wish_for(&[("cpu", &cpu.to_string())]);
        let (first, outcome) = { let table = table(&all); let outcome = select(&table, &wish, &asked(&[])); (table, outcome) };
        let left: BTreeMap<_, _> =
            outcome.left(&first, usize::MAX).into_iter().map(|(one, why)| (one.id.clone(), why.len())).collect();
        prop_assert_eq!(outcome.fits.len() + left.len(), all.len());
        prop_assert_eq!(outcome.rejected, left.len());
        for fit in &outcome.fits {
            let found = outcome.provider(&first, fit);
            prop_assert!(found.free["cpu"] >= Amount::whole(cpu) && !found.cordoned && fit.score <= FULL);
            prop_assert!(!left.contains_key(&found.id));
            prop_assert_eq!(outcome.of(&first, &found.id), (Some(fit), &[][..]));
        }
        prop_assert!(left.values().all(|reasons| *reasons > 0));
        all.reverse();
        let second = table(&all);
        let again = select(&second, &wish, &asked(&[]));
        let scores = |table: &Table, outcome: &Outcome| -> BTreeMap<String, u32> {
            ids(table, outcome).into_iter().map(|(id, score)| (id.to_owned(), score)).collect()
        };
        prop_assert_eq!(scores(&first, &outcome), scores(&second, &again));
        prop_assert_eq!(outcome.summary(&wish), again.summary(&wish));
    }
}
