//! What a watch shows of changes, and what it leaves in the store.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;

fn object(data: Value) -> DynamicObject {
    serde_json::from_value(json!({"metadata": {"namespace": "here", "name": "one"}, "data": data})).unwrap()
}

#[test]
fn malformed_states_of_an_object_leave_no_older_state_in_the_store() {
    let (objects, seen) = (Objects::<ConfigMap>::default(), AtomicUsize::new(0));
    let count = |before: Option<&ConfigMap>, after: Option<&ConfigMap>| {
        seen.fetch_add(before.into_iter().chain(after).count(), Ordering::Relaxed);
    };
    let mut held = Held {
        objects: Arc::clone(&objects),
        listed: HashMap::new(),
        trim: strip,
        seen: count,
        budget: Arc::default(),
    };
    let stored = || objects.read().unwrap().len();
    let (good, bad) = (json!({"key": "value"}), json!(["no map"]));
    for leaves in [Held::apply, Held::delete] {
        held.apply(object(good.clone())).unwrap();
        let before = seen.load(Ordering::Relaxed);
        let outcome = leaves(&mut held, object(bad.clone()));
        assert_eq!((stored(), seen.load(Ordering::Relaxed) - before), (0, 1), "{outcome:?}");
    }
    assert!(matches!(held.apply(object(bad.clone())), Err(Unkept::Malformed(_))), "the watch logs the object");
    assert!(matches!(held.delete(object(bad)), Err(Unkept::Malformed(_))), "nothing was known of the object");
}

#[test]
fn an_object_is_shown_as_it_was_and_as_it_is() {
    let seen = Mutex::new(Vec::new());
    let value = |one: Option<&ConfigMap>| one.map(|one| one.data.as_ref().unwrap()["key"].clone());
    let mut held = Held {
        objects: Objects::<ConfigMap>::default(),
        listed: HashMap::new(),
        trim: strip,
        seen: |before: Option<&ConfigMap>, after: Option<&ConfigMap>| {
            seen.lock().unwrap().push((value(before), value(after)));
        },
        budget: Arc::default(),
    };
    let at = |text: &str| object(json!({"key": text}));
    held.apply(at("1")).unwrap();
    held.apply(at("2")).unwrap();
    held.list(at("3")).unwrap();
    held.listed();
    held.delete(at("4")).unwrap();
    held.apply(at("5")).unwrap();
    held.begin();
    held.listed();
    let pairs = [
        (None, Some("1")),
        (Some("1"), Some("2")),
        (Some("2"), Some("3")),
        (Some("4"), None),
        (None, Some("5")),
        (Some("5"), None),
    ];
    let wanted = pairs.map(|(before, after)| (before.map(str::to_owned), after.map(str::to_owned)));
    assert_eq!(*seen.lock().unwrap(), wanted);
}
