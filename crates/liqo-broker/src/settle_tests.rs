use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Time {
    time(second)
}

fn text(second: i64) -> String {
    at(second).0.to_string()
}

const NOW: i64 = 1_800_000_000;

fn profile(grants: &Value) -> ProviderProfile {
    serde_json::from_value(json!({
        "apiVersion": "market.liqo.io/v1alpha1", "kind": "ProviderProfile", "metadata": {"name": "p"},
        "spec": {"clusterID": "p"}, "status": {"offered": {"cpu": "4"}, "grants": grants}
    }))
    .unwrap()
}

fn reservation(uid: &str, cpu: &str, phase: &str) -> Arc<Reservation> {
    Arc::new(
        serde_json::from_value(json!({
            "apiVersion": "market.liqo.io/v1alpha1", "kind": "Reservation",
            "metadata": {"name": format!("r-{uid}"), "namespace": "n", "uid": uid, "creationTimestamp": text(NOW - 5)},
            "spec": {"provider": "p", "consumer": "c", "resources": {"cpu": cpu}, "until": text(NOW + 600)},
            "status": {"phase": phase}
        }))
        .unwrap(),
    )
}

fn seen<'a>(profile: &'a ProviderProfile, reservations: &'a [Arc<Reservation>], now: &'a Time) -> Seen<'a> {
    Seen { profile, reservations, last: None, heard: Some(second(now)), is_fresh: true, now }
}

#[test]
fn a_ledger_says_what_is_promised_and_what_is_left() {
    let (profile, now) = (profile(&json!([])), at(NOW));
    let all = [reservation("a", "3", "Pending"), reservation("b", "2", "Pending")];
    let seen = seen(&profile, &all, &now);
    let booked = booked(&seen);
    let status = status(&seen, &booked);
    let amount = |list: &BTreeMap<String, Quantity>| list["cpu"].0.clone();
    assert_eq!((amount(&status.reserved), amount(&status.free)), ("3".to_owned(), "1".to_owned()));
    assert_eq!((status.grants.len(), status.grants[0].name.as_str()), (1, "r-a"));
    let refused = told(None, booked.verdicts.get("b")).unwrap();
    assert_eq!(refused.message.as_deref(), Some("2 of cpu is asked for, 1 is free"));
    assert_eq!(told(None, booked.verdicts.get("a")).unwrap().expires_at, Some(at(NOW + 600)));
    assert!(told(None, booked.verdicts.get("c")).is_none());
}

#[test]
fn a_ledger_that_is_right_is_not_written() {
    let now = at(NOW);
    let all = [reservation("a", "3", "Granted")];
    let grant = json!([{"uid": "a", "namespace": "n", "name": "r-a", "resources": {"cpu": "3"},
        "asked": text(NOW + 600), "until": text(NOW + 600)}]);
    let mut profile = profile(&grant);
    profile.status = Some(status(&seen(&profile, &all, &now), &booked(&seen(&profile, &all, &now))));
    let later = at(NOW + 60);
    let again = seen(&profile, &all, &later);
    assert_eq!(Some(status(&again, &booked(&again))), profile.status);
}

#[test]
fn who_is_cordoned_or_not_heard_of_promises_nothing_new() {
    let now = at(NOW);
    let all = [reservation("a", "1", "Pending")];
    let mut profile = profile(&json!([]));
    let stale = Seen { is_fresh: false, ..seen(&profile, &all, &now) };
    assert!(matches!(&booked(&stale).verdicts["a"], Verdict::Closed(why) if why.contains("not heard of")));
    assert_eq!(status(&stale, &booked(&stale)).conditions[0].status, "False");
    profile.spec.cordoned = true;
    assert!(
        matches!(&booked(&seen(&profile, &all, &now)).verdicts["a"], Verdict::Closed(why) if why.contains("no new"))
    );
}

#[test]
fn an_offer_that_shrinks_below_its_promises_says_so() {
    let now = at(NOW);
    let all = [reservation("a", "9", "Granted")];
    let grant = json!([{"uid": "a", "namespace": "n", "name": "r-a", "resources": {"cpu": "9"},
        "asked": text(NOW + 600), "until": text(NOW + 600)}]);
    let profile = profile(&grant);
    let seen = seen(&profile, &all, &now);
    let status = status(&seen, &booked(&seen));
    assert_eq!((status.grants.len(), status.free["cpu"].0.as_str()), (1, "0"));
    let overbooked = &status.conditions[1];
    assert_eq!((overbooked.status.as_str(), overbooked.reason.as_str()), ("True", "OfferShrank"));
}

#[test]
fn a_refusal_of_the_provider_ends_the_promise() {
    let refused = told(Some(&"not you".to_owned()), None).unwrap();
    assert_eq!((refused.phase, refused.reason.as_deref()), (Phase::Failed, Some("ProviderRefused")));
    assert_eq!(refused.message.as_deref(), Some("not you"));
}

#[test]
fn a_provider_that_goes_and_comes_leaves_an_outage() {
    let (now, later, last) = (at(NOW), at(NOW + 40), at(NOW + 60));
    let mut profile = profile(&json!([]));
    let mut settled = |seen_at: &Time, heard: i64, is_fresh: bool| {
        let seen = Seen { heard: Some(heard), is_fresh, ..seen(&profile, &[], seen_at) };
        let status = status(&seen, &booked(&seen));
        profile.status = Some(status.clone());
        status
    };
    assert_eq!(settled(&now, NOW, true).observed_since, Some(now.clone()));
    assert_eq!(settled(&later, NOW + 10, false).outages, [Outage { from: at(NOW + 10), until: None }]);
    let back = settled(&last, NOW + 60, true);
    assert_eq!(back.outages, [Outage { from: at(NOW + 10), until: Some(at(NOW + 60)) }]);
    assert_eq!(back.observed_since, Some(now.clone()));
}
