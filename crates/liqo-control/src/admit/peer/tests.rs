//! Every rule, evaluated: what recorded clusters of Liqo 0.8.3 wrote passes, what a hostile peer writes does not.

use std::sync::LazyLock;

use liqo_core::door;
use serde_json::{Value, json};

use super::{Place, Request, Rules, judge};

mod copies;
mod reflected;
mod settings;
mod sizes;

/// The peer.
const PEER: &str = "09897b82-7830-483b-b786-9cf90899f809";
/// This cluster.
const HOME: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";
/// Another peer.
const OTHER: &str = "5b0a4f8e-3c1b-4f59-8d0c-6a7d0f2f1b11";

/// A request of the peer.
fn asked(resource: &str, old: Value, new: Value) -> Request {
    let (group, resource) = match resource.split('/').next().unwrap_or_default() {
        "resourcerequests" => ("discovery.liqo.io", resource),
        "resourceoffers" => ("sharing.liqo.io", resource),
        "networkconfigs" => ("net.liqo.io", resource),
        "namespacemaps" | "shadowpods" | "shadowendpointslices" => ("virtualkubelet.liqo.io", resource),
        "ingresses" => ("networking.k8s.io", resource),
        _ => ("", resource),
    };
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let operation = match (old.is_null(), new.is_null()) {
        (true, _) => "CREATE",
        (_, true) => "DELETE",
        _ => "UPDATE",
    };
    serde_json::from_value(json!({
        "uid": "u", "operation": operation, "namespace": "n", "name": "x", "object": new, "oldObject": old,
        "resource": {"group": group, "version": "v1", "resource": resource}, "subResource": part,
        "userInfo": {"username": PEER, "groups": ["liqo.io", "system:authenticated"]},
    }))
    .unwrap()
}

/// The settings, some of them changed.
fn settings(changed: &[(&str, &str)]) -> Value {
    let mut data: Value = door::SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    for (key, value) in changed {
        data[*key] = json!(value);
    }
    data
}

/// An object with changes: paths and values, null to remove.
fn with(object: &Value, changes: &[(&str, Value)]) -> Value {
    let mut object = object.clone();
    for (path, value) in changes {
        let (parents, last) = path.rsplit_once('|').unwrap_or(("", path));
        let place = parents.split('|').filter(|one| !one.is_empty()).fold(&mut object, |at, one| &mut at[one]);
        match value {
            Value::Null => drop(place.as_object_mut().and_then(|map| map.remove(last))),
            value => place[last] = value.clone(),
        }
    }
    object
}

struct Judge(&'static Rules);

impl Judge {
    fn new() -> Self {
        static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::read(Place::Tenant, door::rules()).unwrap());
        Self(&RULES)
    }

    fn passes(&self, what: &str, asked: &Request, changed: &[(&str, &str)]) {
        assert_eq!(judge(self.0, asked, Some(&settings(changed))), Ok(()), "{what}: {asked:?}");
    }

    fn refuses(&self, what: &str, asked: &Request, words: &str, changed: &[(&str, &str)]) {
        let why = judge(self.0, asked, Some(&settings(changed))).expect_err(what);
        assert!(why.contains(words), "{what}: {why:?} does not contain {words:?}");
    }

    /// Created, changed to itself and deleted.
    fn passes_all(&self, what: &str, resource: &str, object: &Value) {
        self.passes(what, &asked(resource, Value::Null, object.clone()), &[]);
        self.passes_later(what, resource, object);
    }

    /// Changed to itself and deleted, when this cluster has added to it.
    fn passes_later(&self, what: &str, resource: &str, object: &Value) {
        for new in [object, &Value::Null] {
            self.passes(what, &asked(resource, object.clone(), new.clone()), &[]);
        }
    }

    /// Refused as a creation, and as a change of an existing object.
    fn refuses_all(&self, what: &str, resource: &str, good: &Value, bad: &Value, words: &str) {
        for old in [&Value::Null, good] {
            self.refuses(what, &asked(resource, old.clone(), bad.clone()), words, &[]);
        }
    }
}

#[test]
fn only_peers_are_judged() {
    let judge = Judge::new();
    let mut one = asked("resourcerequests/status", json!({"metadata": {}}), json!({"metadata": {}}));
    judge.refuses("a peer", &one, "the status of an object", &[]);
    for groups in [json!(["system:masters"]), json!([]), Value::Null, json!(["liqo.iO", "x-liqo.io"])] {
        one.user_info = serde_json::from_value(json!({"username": "admin", "groups": groups})).unwrap();
        judge.passes("somebody else", &one, &[]);
    }
}

#[test]
fn without_settings_nothing_that_needs_them_passes() {
    let Judge(rules) = Judge::new();
    let secret = json!({"metadata": {"labels": {"virtualkubelet.liqo.io/origin": PEER}}, "type": "Opaque"});
    let why = judge(rules, &asked("secrets", Value::Null, secret), None).unwrap_err();
    assert!(why.contains("liqo-peer-policy"), "{why}");
    assert_eq!(judge(rules, &asked("pods", Value::Null, json!({})), None), Ok(()), "no rule is about it");
}

/// Whatever a peer writes is judged; who is no peer is not. A copy that passes has no finalizer and no owner.
#[test]
fn fuzz_writes_of_peers() {
    let (settings, judge) = (settings(&[]), Judge::new());
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "write_of_peer", |bytes| {
        let Ok(mut asked) = serde_json::from_slice::<Request>(bytes) else { return };
        let meta = &asked.object["metadata"];
        let held =
            ["finalizers", "ownerReferences"].iter().any(|key| meta[key].as_array().is_some_and(|all| !all.is_empty()));
        let is_new = asked.operation == "CREATE" && asked.sub_resource.is_empty();
        asked.user_info.username = PEER.to_owned();
        asked.user_info.groups = vec!["liqo.io".to_owned()];
        let verdict = super::judge(judge.0, &asked, Some(&settings));
        let is_known = asked.resource.group == "virtualkubelet.liqo.io" && asked.resource.resource == "shadowpods";
        assert!(!(is_new && held && is_known && verdict.is_ok()), "{}", asked.object);
        asked.user_info.groups = vec!["system:masters".to_owned()];
        asked.user_info.username = "kubernetes-admin".to_owned();
        assert_eq!(super::judge(judge.0, &asked, Some(&settings)), Ok(()));
    });
}
