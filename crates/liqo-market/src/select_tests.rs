use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use liqo_api::market::{Price, Weights};
use proptest::prelude::*;

use super::*;

fn list(pairs: &[(&str, &str)]) -> Resources {
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

fn provider(id: &str) -> Provider {
    Provider {
        id: id.into(),
        region: "eu-west".into(),
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        prices: prices("0.1", "EUR"),
        cordoned: false,
        age: Some(4),
        offered: list(&[("cpu", "16"), ("memory", "64Gi")]),
        free: list(&[("cpu", "8"), ("memory", "32Gi")]),
        largest: list(&[("cpu", "4"), ("memory", "16Gi")]),
    }
}

fn wish() -> Wish {
    Wish { request: list(&[("cpu", "4"), ("memory", "8Gi")]), max_age: 30, ..Wish::default() }
}

fn codes(provider: Provider, wish: &Wish, latency: Option<u32>) -> Vec<(String, Code)> {
    let latency = latency.map(|latency| (provider.id.clone(), latency)).into_iter().collect();
    let outcome = select(&[provider], wish, &latency);
    outcome.left.into_iter().flat_map(|left| left.reasons).map(|one| (one.criterion, one.code)).collect()
}

/// A provider, a wish, what was measured, and the reasons.
type Row = (Provider, Wish, Option<u32>, &'static [(&'static str, Code)]);

#[test]
fn each_criterion_has_its_reason() {
    let euros = |most: u128| Some((most, "EUR".to_owned()));
    let near = |most: u32| Wish { max_latency: Some(most), ..wish() };
    let table: Vec<Row> = vec![
        (provider("a"), wish(), None, &[]),
        (provider("a"), Wish { exclude: vec!["a".into()], ..wish() }, None, &[("exclude", Code::Excluded)]),
        (Provider { cordoned: true, ..provider("a") }, wish(), None, &[("cordoned", Code::Cordoned)]),
        (Provider { age: Some(30), ..provider("a") }, wish(), None, &[]),
        (Provider { age: Some(31), ..provider("a") }, wish(), None, &[("maxAgeSeconds", Code::Stale)]),
        (Provider { age: None, ..provider("a") }, wish(), None, &[("maxAgeSeconds", Code::Stale)]),
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
            Wish { request: list(&[("cpu", "9"), ("nvidia.com/gpu", "1")]), ..wish() },
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
            Wish { max_price: euros(u128::MAX), ..wish() },
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
        (provider("a"), Wish { min_score: 1000, ..wish() }, None, &[("minScore", Code::BelowMinimum)]),
    ];
    for (provider, wish, latency, wanted) in table {
        let wanted: Vec<_> = wanted.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect();
        assert_eq!(codes(provider.clone(), &wish, latency), wanted, "{wish:?} {latency:?}");
    }
}

#[test]
fn reasons_carry_what_was_asked_and_what_there_is() {
    let wish = Wish { request: list(&[("cpu", "9500m")]), max_price: Some((100_000_000, "EUR".into())), ..wish() };
    let outcome = select(&[provider("a")], &wish, &BTreeMap::new());
    let said: Vec<_> = outcome.left[0].reasons.iter().map(|one| (one.required.as_str(), one.actual.as_str())).collect();
    assert_eq!(said, [("9500m", "8"), ("0.1 EUR", "0.95 EUR")]);
}

#[test]
fn a_value_that_is_not_known_never_makes_better() {
    let weights = Weights { latency: 100, headroom: 100, ..Weights::default() };
    let far = BTreeMap::from([("known".to_owned(), 150)]);
    let all = [provider("known"), provider("unknown")];
    let chosen = |missing| {
        let outcome = select(&all, &Wish { weights, missing, ..wish() }, &far);
        outcome.chosen.into_iter().map(|one| (one.id, one.score)).collect::<Vec<_>>()
    };
    // Headroom is 250 of 1000 for both, and 150 of 200 milliseconds are 250.
    assert_eq!(chosen(Missing::Reject), [("known".to_owned(), 250)]);
    assert_eq!(chosen(Missing::Worst), [("known".to_owned(), 250), ("unknown".to_owned(), 125)]);
    assert_eq!(chosen(Missing::Ignore), [("known".to_owned(), 250), ("unknown".to_owned(), 250)]);
}

#[test]
fn weights_decide_who_is_better() {
    let cheap = Provider { prices: prices("0.05", "EUR"), ..provider("cheap") };
    let near = provider("near");
    let latency = BTreeMap::from([("cheap".to_owned(), 100), ("near".to_owned(), 5)]);
    let first = |weights| {
        let outcome = select(&[cheap.clone(), near.clone()], &Wish { weights, ..wish() }, &latency);
        outcome.chosen[0].id.clone()
    };
    assert_eq!(first(Weights { price: 1, ..Weights::default() }), "cheap");
    assert_eq!(first(Weights { latency: 1, ..Weights::default() }), "near");
    assert_eq!(first(Weights::default()), "cheap", "equal scores: the cheaper one");
}

#[test]
fn money_is_a_decimal_number() {
    for (nanos, text) in [(0, "0 EUR"), (1, "0.000000001 EUR"), (1_500_000_000, "1.5 EUR"), (2_000_000_000, "2 EUR")] {
        assert_eq!(money(nanos, "EUR"), text);
    }
}

fn some_provider() -> impl Strategy<Value = Provider> {
    (0_u8..20, 0_i64..20, 0_i64..20, any::<bool>(), proptest::option::of(0_u64..60), 0_i64..20).prop_map(
        |(id, offered, free, cordoned, age, largest)| Provider {
            id: format!("p{id:02}"),
            offered: [("cpu".to_owned(), Amount::whole(offered))].into(),
            free: [("cpu".to_owned(), Amount::whole(free.min(offered)))].into(),
            largest: [("cpu".to_owned(), Amount::whole(largest))].into(),
            cordoned,
            age,
            ..provider("")
        },
    )
}

proptest! {
    /// Each provider is in the outcome once; who is chosen has room and is heard of; the order of the input does not matter.
    #[test]
    fn everybody_gets_an_answer(mut all in proptest::collection::vec(some_provider(), 0..30), cpu in 1_i64..20) {
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all.dedup_by(|a, b| a.id == b.id);
        let wish = Wish { request: [("cpu".to_owned(), Amount::whole(cpu))].into(), max_age: 30, ..Wish::default() };
        let outcome = select(&all, &wish, &BTreeMap::new());
        prop_assert_eq!(outcome.chosen.len() + outcome.left.len(), all.len());
        for one in &outcome.chosen {
            let found = all.iter().find(|provider| provider.id == one.id).expect("a known provider");
            prop_assert!(found.free["cpu"] >= Amount::whole(cpu) && !found.cordoned);
            prop_assert!(found.age.is_some_and(|age| age <= 30) && one.score <= FULL);
        }
        prop_assert!(outcome.left.iter().all(|one| !one.reasons.is_empty()));
        all.reverse();
        prop_assert_eq!(select(&all, &wish, &BTreeMap::new()), outcome);
    }
}
