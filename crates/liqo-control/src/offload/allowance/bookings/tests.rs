use liqo_core::quantity::Amount;
use serde_json::json;

use super::*;

fn cpu(cpu: &str) -> Resources {
    [("cpu".to_owned(), Amount::parse(cpu).unwrap())].into()
}

#[test]
fn objects_refuse_a_pod_and_claims_delay_it() {
    let limit: Resources = [("cpu", "4"), ("memory", "1Gi")]
        .map(|(name, amount)| (name.to_owned(), Amount::parse(amount).unwrap()))
        .into();
    let pod = |cpu: &str| -> PodSpec {
        let limits = json!({"limits": {"cpu": cpu, "memory": "1Mi"}});
        serde_json::from_value(json!({"containers": [{"name": "c", "resources": limits}]})).unwrap()
    };
    for (what, used, claimed, asked, wanted) in [
        ("room beside both", "1", "1", "2", Some(Fit::Fits)),
        ("exactly", "1", "0", "3", Some(Fit::Fits)),
        ("room beside what exists", "1", "3", "2", Some(Fit::NotBesideClaims)),
        ("room beside the claims only", "3", "0", "2", None),
        ("no room beside either", "3", "3", "2", None),
    ] {
        match (fit(&limit, cpu(used), &cpu(claimed), &pod(asked)), wanted) {
            (Fit::Never(why), None) => assert!(why.contains("usage exceeded"), "{what}: {why}"),
            (fit, wanted) => assert_eq!(Some(fit), wanted, "{what}"),
        }
    }
    let uncounted: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
    assert!(matches!(fit(&limit, cpu("0"), &cpu("0"), &uncounted), Fit::Never(why) if why.contains("limits not set")));
}

#[test]
fn a_demand_is_compared_unless_it_was_booked_or_ran() {
    let refuse =
        || Step::Refuse("this cluster does not run the pod: the cluster \"p\" is granted no more pods now".to_owned());
    let leaving = Grant::Leaving { until: 1 };
    for (what, grant, enforced, covered, ran, as_made, wanted) in [
        ("new", Grant::Full, true, false, false, true, Step::Compare),
        ("new, without enforcement", Grant::Full, false, false, false, true, Step::Keep),
        ("booked before", Grant::Full, true, true, false, true, Step::Keep),
        ("ran", Grant::Full, true, false, true, true, Step::Book),
        ("ran and changed since", Grant::Full, true, false, true, false, Step::Compare),
        ("new while cordoned", Grant::Kept, true, false, false, true, refuse()),
        ("booked while cordoned, never ran", Grant::Kept, true, true, false, true, refuse()),
        ("ran, cordoned", Grant::Kept, true, false, true, true, Step::Book),
        ("ran, leaving", leaving, true, true, true, true, Step::Keep),
        ("ran and changed, leaving", leaving, true, false, true, false, Step::Compare),
        ("ran, no grant", Grant::Nothing, true, true, true, true, refuse()),
        ("no enforcement, no grant", Grant::Nothing, false, false, true, true, refuse()),
    ] {
        let seen = Seen { grant, is_enforced: enforced, is_covered: covered, ran, is_as_made: as_made, peer: "p" };
        assert_eq!(plan(&seen), wanted, "{what}");
    }
}

#[test]
fn another_shadow_of_the_same_name_has_no_booking() {
    let mut all = HashMap::new();
    of(&mut all, &asking("a", "first", "1", NEW)).demand = Some(Resources::new());
    assert!(of(&mut all, &asking("a", "first", "1", NEW)).demand.is_some());
    assert!(of(&mut all, &asking("a", "second", "1", NEW)).demand.is_none());
}

#[test]
fn no_booking_is_left_at_a_place_without_objects() {
    let (bookings, one) = (bookings([]), asking("a", "1", "2", NEW));
    assert_eq!(book(&one, &[&one], &[], &bookings), Ok(()));
    bookings.await_pod(&one, true);
    assert!(bookings.is_awaited(&place_of(&one)));
    bookings.no_pod(&place_of(&one));
    assert!(!bookings.is_awaited(&place_of(&one)));
    bookings.end(&place_of(&one));
    bookings.no_pod(&place_of(&one));
    assert!(bookings.all().is_empty(), "neither call makes a booking");
}

#[test]
fn two_pods_at_once_are_not_booked_into_the_same_room() {
    let bookings = bookings([]);
    let all: Vec<_> = (0..16).map(|number| asking(&format!("p{number}"), &number.to_string(), "1", NEW)).collect();
    let shadows: Vec<_> = all.iter().collect();
    let booked = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for one in &all {
            let (shadows, bookings, booked) = (&shadows, &bookings, &booked);
            scope.spawn(move || {
                let is_booked = book(one, shadows, &[], bookings).is_ok();
                booked.fetch_add(is_booked.into(), std::sync::atomic::Ordering::Relaxed);
            });
        }
    });
    let booked = booked.into_inner();
    assert_eq!(booked, 2, "the offer has 2 CPUs");
}

/// A `ShadowPod` of 1 Gi of memory; `phase` is empty while there is no status.
fn asking(name: &str, uid: &str, cpu: &str, (phase, generation): (&str, i64)) -> ShadowPod {
    let limits = json!({"limits": {"cpu": cpu, "memory": "1Gi"}});
    let labels = json!({"virtualkubelet.liqo.io/origin": "peer"});
    let metadata = json!({"name": name, "namespace": "demo-x", "uid": uid, "labels": labels, "generation": generation});
    let pod = json!({"containers": [{"name": "c", "resources": limits}]});
    let mut one: ShadowPod = serde_json::from_value(json!({"metadata": metadata, "spec": {"pod": pod}})).unwrap();
    one.status = (!phase.is_empty()).then(|| serde_json::from_value(json!({ "phase": phase })).unwrap());
    one
}

/// The pod of a `ShadowPod`, while it ends slowly.
fn ending(shadow: &ShadowPod) -> Arc<Pod> {
    let owner = json!([{
        "apiVersion": "a", "kind": "ShadowPod", "name": shadow.name_any(), "uid": shadow.uid(), "controller": true,
    }]);
    let metadata = json!({
        "name": shadow.name_any(), "namespace": "demo-x", "labels": shadow.labels(), "ownerReferences": owner,
        "deletionTimestamp": liqo_kube::now(),
    });
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": shadow.spec.pod})).unwrap())
}

fn offer() -> ResourceOffer {
    let hard = json!({"cpu": "2", "memory": "10Gi"});
    serde_json::from_value(
        json!({"metadata": {"name": "o"}, "spec": {"clusterId": "us", "resourceQuota": {"hard": hard}}}),
    )
    .unwrap()
}

/// Bookings, enforced.
fn bookings<const N: usize>(all: [(Place, Booking); N]) -> Bookings {
    Bookings { is_enforced: true, all: Mutex::new(all.into()) }
}

fn book(one: &ShadowPod, shadows: &[&ShadowPod], pods: &[Arc<Pod>], bookings: &Bookings) -> Result<(), String> {
    let shadows = shadows.iter().map(|one| Arc::new((*one).clone())).collect();
    let existing = || Existing { shadows, pods: pods.to_vec() };
    bookings.book(one, existing, (Grant::Full, Some(Arc::new(offer()))))
}

const NEW: (&str, i64) = ("", 1);
const RAN: (&str, i64) = ("Running", 1);
const CHANGED: (&str, i64) = ("Running", 2);

#[test]
fn what_a_peer_has_leaves_no_room_until_it_is_gone() {
    let (a, b) = (|state| asking("a", "1", "2", state), asking("b", "2", "1", NEW));
    let awaited = |awaits_pod| Booking {
        uid: "1".to_owned(),
        peer: "peer".to_owned(),
        demand: Some(demand_of(&a(NEW))),
        awaits_pod,
    };
    let at = |booking: Option<Booking>| match booking {
        Some(booking) => bookings([(place_of(&a(NEW)), booking)]),
        None => bookings([]),
    };
    for (what, shadows, pods, booking, fits) in [
        ("nothing", vec![], vec![], None, true),
        ("a ShadowPod whose pod is not made yet", vec![a(NEW)], vec![], None, true),
        ("a ShadowPod that is booked", vec![a(NEW)], vec![], Some(awaited(false)), false),
        ("a ShadowPod and its pod", vec![a(NEW)], vec![ending(&a(NEW))], None, false),
        ("the pod of a deleted ShadowPod, in its grace period", vec![], vec![ending(&a(NEW))], None, false),
        ("the same, not shown by the watch yet", vec![], vec![], Some(awaited(true)), false),
        ("the booking of what is gone", vec![], vec![], Some(awaited(false)), true),
        ("a ShadowPod whose pod ran and was ended by the grace annotation", vec![a(RAN)], vec![], None, false),
    ] {
        let shadows: Vec<_> = shadows.iter().chain([&b]).collect();
        assert_eq!(book(&b, &shadows, &pods, &at(booking)).is_ok(), fits, "{what}");
    }
}

#[test]
fn a_pod_is_made_again_without_being_judged_as_it_was_booked() {
    let other = asking("b", "2", "2", RAN);
    let (ran, changed) = (asking("a", "1", "2", RAN), |cpu| asking("a", "1", cpu, CHANGED));
    let again = |one: &ShadowPod, bookings: &Bookings| book(one, &[one, &other], &[], bookings).is_ok();
    assert!(again(&ran, &bookings([])), "the offer is smaller now");
    assert!(!again(&asking("a", "1", "2", NEW), &bookings([])));
    assert!(!again(&changed("2"), &bookings([])), "nobody knows what was booked");
    let known = bookings([]);
    known.note(&changed("3"), &ending(&ran));
    assert!(again(&changed("2"), &known), "the pod told what was booked");
    assert!(!again(&changed("3"), &known), "more than was booked");
}

#[test]
fn the_successor_of_a_pod_takes_its_place() {
    let (old, new) = (asking("a", "1", "2", RAN), asking("a", "2", "2", NEW));
    let known = bookings([]);
    assert_eq!(book(&new, &[&new], &[ending(&old)], &known), Ok(()));
    let b = asking("b", "3", "1", NEW);
    assert!(book(&b, &[&new, &b], &[ending(&old)], &known).is_err(), "one place counts once, and counts");
    let small = asking("a", "4", "1", NEW);
    assert!(book(&b, &[&small, &b], &[ending(&old)], &bookings([])).is_err(), "the old pod still runs");
    assert_eq!(book(&b, &[&small, &b], &[], &bookings([])), Ok(()));
}
