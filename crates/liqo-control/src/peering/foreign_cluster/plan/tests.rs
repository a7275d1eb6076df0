use std::time::Instant;

use liqo_api::discovery::PeeringConditionStatus as Status;
use serde_json::{Value, json};

use super::*;

const PEER: &str = "16fbeaec";
const NAMESPACE: &str = "liqo-tenant-milan-ca6261";
const THEN: &str = "2026-01-01T00:00:00Z";

fn at(second: i64) -> Time {
    let Time(then) = serde_json::from_value(json!(THEN)).unwrap();
    Time(then + k8s_openapi::jiff::SignedDuration::from_secs(second))
}

fn peer(outgoing: &str, incoming: &str, kind: &str, deleting: bool) -> ForeignCluster {
    let deleted = deleting.then_some(THEN);
    serde_json::from_value(json!({
        "metadata": {
            "name": "milan", "uid": "u", "deletionTimestamp": deleted, "labels": {"discovery.liqo.io/discovery-type": kind},
        },
        "spec": {
            "clusterIdentity": {"clusterID": PEER, "clusterName": "milan"},
            "outgoingPeeringEnabled": outgoing,
            "incomingPeeringEnabled": incoming,
            "foreignAuthUrl": "https://1.2.3.4",
        },
    }))
    .unwrap()
}

fn desired() -> ResourceRequestSpec {
    serde_json::from_value(json!({
        "clusterIdentity": {"clusterID": "09897b82", "clusterName": "rome"}, "authUrl": "https://5.6.7.8",
    }))
    .unwrap()
}

/// A request: withdrawn, offer state, offer withdrawn, being deleted.
fn request(withdrawn: bool, state: &str, ended: bool, deleting: bool) -> ResourceRequest {
    let time = |set: bool| if set { json!(THEN) } else { Value::Null };
    let mut spec = serde_json::to_value(desired()).unwrap();
    spec["withdrawalTimestamp"] = time(withdrawn);
    serde_json::from_value(json!({
        "metadata": {
            "name": "rome",
            "deletionTimestamp": time(deleting),
            "ownerReferences": [{"apiVersion": "a", "kind": "b", "name": "milan", "uid": "u"}],
        },
        "spec": spec,
        "status": {"offerState": state, "offerWithdrawalTimestamp": time(ended)},
    }))
    .unwrap()
}

fn offer(kubelet: &str) -> ResourceOffer {
    serde_json::from_value(json!({
        "metadata": {"name": "milan"},
        "spec": {"clusterId": PEER},
        "status": {"phase": "Accepted", "virtualKubeletStatus": kubelet},
    }))
    .unwrap()
}

fn seen(foreign_cluster: &ForeignCluster) -> Observed<'_> {
    Observed {
        foreign_cluster,
        namespace: NAMESPACE,
        auto_join: true,
        accept_by_default: true,
        authentication: Authentication::Known("liqo-tenant-rome-ed03b8".to_owned()),
        network: Some(condition::network_external()),
        health: Some(Health { ready: true, since: Instant::now() }),
        request: None,
        offer_here: None,
        their_request: None,
        our_offer: None,
        desired: Ok(desired()),
        overdue: false,
        taken_back: false,
        now: at(1),
    }
}

fn told(plan: &Plan, type_: Type) -> Option<(Status, &'static str)> {
    plan.facts.iter().find(|fact| fact.type_ == type_).map(|fact| (fact.status, fact.reason))
}

const NONE: (Status, &str) = (Status::None, "NoResourceRequest");
const PENDING: (Status, &str) = (Status::Pending, "ResourceRequestPending");
const KUBELET: (Status, &str) = (Status::Pending, "KubeletPending");
const ESTABLISHED: (Status, &str) = (Status::Established, "ResourceRequestAccepted");
const LEAVING: (Status, &str) = (Status::Disconnecting, "ResourceRequestDeleting");

#[test]
fn a_direction_stands_as_in_liqo_0_8_3() {
    let one = peer("Yes", "Auto", "", false);
    let (none, created, running) = (offer("None"), offer("Created"), offer("Deleting"));
    for (request, offer, expected) in [
        (request(false, "None", false, false), None, PENDING),
        (request(false, "None", true, false), Some(&created), PENDING),
        (request(false, "Created", true, false), Some(&created), LEAVING),
        (request(false, "Created", false, false), None, PENDING),
        (request(false, "Created", false, false), Some(&none), KUBELET),
        (request(false, "Created", false, false), Some(&running), KUBELET),
        (request(false, "Created", false, false), Some(&created), ESTABLISHED),
    ] {
        let out = plan(&Observed { request: Some(&request), offer_here: offer, ..seen(&one) });
        assert_eq!((told(&out, Type::OutgoingPeering), &out.step), (Some(expected), &Step::Keep));
        let back = plan(&Observed { their_request: Some(&request), our_offer: offer, ..seen(&one) });
        assert_eq!(told(&back, Type::IncomingPeering), Some(expected));
    }
    let withdrawn = request(true, "Created", false, false);
    let back = plan(&Observed { their_request: Some(&withdrawn), our_offer: Some(&created), ..seen(&one) });
    assert_eq!(told(&back, Type::IncomingPeering), Some(LEAVING));
}

#[test]
fn the_words_of_a_provider_stand_in_the_condition_with_its_name() {
    let one = peer("Yes", "Auto", "", false);
    let created = offer("Created");
    let mut asked = [request(false, "None", false, false), request(false, "Created", false, false)];
    let message = |request: &ResourceRequest, offer: Option<&ResourceOffer>| {
        let out = plan(&Observed { request: Some(request), offer_here: offer, ..seen(&one) });
        let fact = out.facts.iter().find(|fact| fact.type_ == Type::OutgoingPeering).unwrap();
        (fact.status, fact.message.clone())
    };
    for one in &mut asked {
        one.annotations_mut().insert(annotation::REFUSAL.to_owned(), "no\nroom".to_owned());
    }
    let (status, text) = message(&asked[0], None);
    assert_eq!(status, Status::Pending);
    assert!(
        text.ends_with(&format!("in the Tenant Namespace {NAMESPACE} yet; cluster \"milan\" says: no room")),
        "{text}"
    );
    let (status, text) = message(&asked[1], Some(&created));
    assert_eq!(status, Status::Established);
    assert!(text.ends_with("; cluster \"milan\" says: no room"), "{text}");
    let (_, text) = message(&request(false, "Created", false, false), Some(&created));
    assert!(!text.contains("says"), "{text}");
}

#[test]
fn a_wanted_peer_is_asked() {
    let one = peer("Yes", "Auto", "", false);
    let moved = ResourceRequestSpec { auth_url: "https://moved".to_owned(), ..desired() };
    let stands = request(false, "Created", false, false);
    let (used, withdrawing) = (offer("Created"), request(true, "Created", false, false));
    let (ended, tombstone) = (request(true, "Created", true, false), request(true, "Created", false, true));
    let untouched = request(true, "None", false, false);
    for (what, request, offer, desired, step, state) in [
        ("first", None, None, Ok(desired()), Step::Write(desired()), PENDING),
        ("address moved", Some(&stands), Some(&used), Ok(moved.clone()), Step::Write(moved), ESTABLISHED),
        ("changed my mind in time", Some(&untouched), None, Ok(desired()), Step::Write(desired()), PENDING),
        ("changed my mind too late", Some(&withdrawing), Some(&used), Ok(desired()), Step::Keep, LEAVING),
        ("the old one has ended", Some(&ended), None, Ok(desired()), Step::Remove, LEAVING),
        ("the old one is going", Some(&tombstone), None, Ok(desired()), Step::Keep, LEAVING),
        ("no address", None, None, Err("no node has an address".to_owned()), Step::Keep, PENDING),
    ] {
        let out = plan(&Observed { request, offer_here: offer, desired, ..seen(&one) });
        assert_eq!((out.step.clone(), told(&out, Type::OutgoingPeering)), (step, Some(state)), "{what}");
    }
}

#[test]
fn leave_is_taken_in_order_and_of_the_dead_at_once() {
    let one = peer("No", "Auto", "", false);
    let alive = Some(Health { ready: true, since: Instant::now() });
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    let dead = Some(Health { ready: false, since: long_ago });
    let silent = Some(Health { ready: false, since: Instant::now() });
    let (used, unused) = (offer("Created"), offer("None"));
    let (stands, withdrawn) = (request(false, "Created", false, false), request(true, "Created", false, false));
    let (ended, never) = (request(true, "Created", true, false), request(true, "None", false, false));
    let tombstone = request(true, "Created", false, true);
    for (what, request, offer, health, second, step, state) in [
        ("nothing was asked", None, None, alive, 1, Step::Keep, NONE),
        ("first the desired", Some(&stands), Some(&used), alive, 1, Step::Withdraw, LEAVING),
        ("the provider is at it", Some(&withdrawn), Some(&used), alive, 1, Step::Keep, LEAVING),
        ("the provider is silent for a moment", Some(&withdrawn), Some(&used), silent, 1, Step::Keep, LEAVING),
        ("the provider is dead", Some(&withdrawn), Some(&used), dead, 1, Step::Remove, LEAVING),
        ("the node is still there", Some(&tombstone), Some(&used), dead, 1, Step::Keep, LEAVING),
        ("the node is gone", Some(&tombstone), Some(&unused), dead, 1, Step::Keep, NONE),
        ("the provider is done", Some(&ended), None, alive, 1, Step::Remove, NONE),
        ("never offered, just withdrawn", Some(&never), None, alive, 1, Step::Keep, LEAVING),
        ("never offered, a provider that never says so", Some(&never), None, alive, 9, Step::Remove, NONE),
    ] {
        let out = plan(&Observed { request, offer_here: offer, health, now: at(second), ..seen(&one) });
        assert_eq!((out.step.clone(), told(&out, Type::OutgoingPeering)), (step, Some(state)), "{what}");
    }
}

#[test]
fn what_is_wanted_follows_the_spec() {
    for (outgoing, kind, deleting, wanted) in [
        ("Yes", "", false, true),
        ("No", "LAN", false, false),
        ("Auto", "", false, false),
        ("Auto", "IncomingPeering", false, false),
        ("Auto", "LAN", false, true),
        ("Yes", "", true, false),
    ] {
        let one = peer(outgoing, "Auto", kind, deleting);
        let out = plan(&seen(&one));
        assert_eq!(matches!(out.step, Step::Write(_)), wanted, "{outgoing} {kind} {deleting}");
    }
}

#[test]
fn a_provider_that_answers_and_does_nothing_is_waited_for_until_the_deadline() {
    let one = peer("No", "Auto", "", false);
    let (withdrawn, used) = (request(true, "Created", false, false), offer("Created"));
    for (overdue, step) in [(false, Step::Keep), (true, Step::Remove)] {
        let out = plan(&Observed { request: Some(&withdrawn), offer_here: Some(&used), overdue, ..seen(&one) });
        assert_eq!(out.step, step, "overdue: {overdue}");
    }
}

#[test]
fn without_an_identity_nothing_is_asked_and_nothing_taken_back() {
    let one = peer("Yes", "Auto", "", false);
    let denied = || Authentication::Unknown(Some(Failure::Denied("invalid token".to_owned())));
    let out = plan(&Observed { authentication: denied(), health: None, ..seen(&one) });
    let types: Vec<_> = out.facts.iter().map(|fact| fact.type_).collect();
    assert_eq!(types, [Type::ProcessForeignClusterStatus, Type::NetworkStatus, Type::AuthenticationStatus]);
    assert_eq!(told(&out, Type::AuthenticationStatus), Some((Status::Denied, "IdentityDenied")));
    assert_eq!(out.step, Step::Keep);
    let (stands, used) = (request(false, "Created", false, false), offer("Created"));
    let out =
        plan(&Observed { authentication: denied(), request: Some(&stands), offer_here: Some(&used), ..seen(&one) });
    assert_eq!((out.step.clone(), told(&out, Type::OutgoingPeering)), (Step::Keep, Some(ESTABLISHED)));
    let empty = Authentication::Unknown(Some(Failure::DeniedWithoutToken(String::new())));
    let out = plan(&Observed { authentication: empty, ..seen(&one) });
    assert_eq!(told(&out, Type::AuthenticationStatus), Some((Status::EmptyDenied, "IdentityEmptyDenied")));
}

#[test]
fn conditions_come_in_the_order_recorded() {
    let one = peer("Yes", "Auto", "", false);
    let types: Vec<_> = plan(&seen(&one)).facts.iter().map(|fact| fact.type_).collect();
    assert_eq!(
        types,
        [
            Type::ProcessForeignClusterStatus,
            Type::NetworkStatus,
            Type::AuthenticationStatus,
            Type::OutgoingPeering,
            Type::IncomingPeering,
            Type::APIServerStatus,
        ]
    );
}

#[test]
fn a_request_that_waits_for_a_person_says_so() {
    let asked = request(false, "None", false, false);
    for (incoming, by_default, words) in [
        ("Auto", false, "spec.incomingPeeringEnabled of this ForeignCluster to Yes"),
        ("No", true, "says No"),
        ("Auto", true, "has not created a ResourceOffer"),
        ("Yes", false, "has not created a ResourceOffer"),
    ] {
        let one = peer("Auto", incoming, "IncomingPeering", false);
        let out = plan(&Observed { their_request: Some(&asked), accept_by_default: by_default, ..seen(&one) });
        let fact = out.facts.iter().find(|fact| fact.type_ == Type::IncomingPeering).unwrap();
        assert_eq!(fact.status, Status::Pending);
        assert!(fact.message.contains(words), "{}", fact.message);
    }
}

#[test]
fn a_peer_made_for_its_request_goes_with_it() {
    let asked = request(false, "Created", false, false);
    let ours = offer("None");
    for (what, outgoing, kind, their, our, gone) in [
        ("nobody uses it", "Auto", "IncomingPeering", None, None, true),
        ("the peer uses it", "Auto", "IncomingPeering", Some(&asked), None, false),
        ("our offer is not gone yet", "Auto", "IncomingPeering", None, Some(&ours), false),
        ("we use it", "Yes", "IncomingPeering", None, None, false),
        ("a person made it", "Auto", "", None, None, false),
    ] {
        let one = peer(outgoing, "Auto", kind, false);
        let out = plan(&Observed { their_request: their, our_offer: our, ..seen(&one) });
        assert_eq!(out.superfluous, gone, "{what}");
    }
}

#[test]
fn a_decision_about_a_peer_outlives_its_request() {
    for (outgoing, incoming, condition, gone) in [
        ("Auto", "Auto", "", true),
        ("No", "Auto", "", true),
        ("Auto", "No", "", false),
        ("Auto", "Yes", "", false),
        ("No", "No", "", false),
        ("Auto", "Auto", "Cordoned", false),
        ("Auto", "Auto", "Drained", false),
        ("Auto", "Auto", "Banned", false),
        ("Auto", "Auto", "Baned", false),
    ] {
        let mut one = peer(outgoing, incoming, "IncomingPeering", false);
        one.annotations_mut().insert("liqo.io/tenant-condition".to_owned(), condition.to_owned());
        let out = plan(&Observed { accept_by_default: false, ..seen(&one) });
        assert_eq!(out.superfluous, gone, "{outgoing} {incoming} {condition}");
    }
}

#[test]
fn after_the_deadline_a_consumer_that_does_not_let_go_is_not_waited_for() {
    let one = peer("No", "No", "IncomingPeering", false);
    let (asked, ours) = (request(false, "Created", true, false), offer("Created"));
    for (taken_back, state) in [(false, LEAVING), (true, PENDING)] {
        let back = Observed { their_request: Some(&asked), our_offer: Some(&ours), taken_back, ..seen(&one) };
        assert_eq!(told(&plan(&back), Type::IncomingPeering), Some(state), "{taken_back}");
    }
}

#[test]
fn an_unknown_condition_is_told_to_the_administrator() {
    let mut one = peer("Auto", "Auto", "IncomingPeering", false);
    one.annotations_mut().insert("liqo.io/tenant-condition".to_owned(), "Baned".to_owned());
    let asked = request(false, "None", false, false);
    let out = plan(&Observed { their_request: Some(&asked), ..seen(&one) });
    let fact = out.facts.iter().find(|fact| fact.type_ == Type::IncomingPeering).unwrap();
    assert!(fact.message.contains("\"Baned\", which is unknown and counts as Cordoned"), "{}", fact.message);
}
