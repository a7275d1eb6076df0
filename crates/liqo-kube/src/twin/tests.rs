use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry},
};
use serde_json::json;

use super::*;
use crate::now;

struct Copy;

impl Reflect for Copy {
    const NAME: &'static str = "copy";
    type Here = ConfigMap;
    type There = ConfigMap;
    type Seen = ConfigMap;
    const FAREWELL: Farewell = Farewell::Release("hold");
    const RECORD: Option<&'static str> = Some("of");
    const IMMUTABLE: &'static [&'static str] = &["/data/type"];

    fn fits(&self, _here: &ConfigMap, there: &ConfigMap) -> bool {
        !there.annotations().contains_key("misfit")
    }

    fn forge(&self, here: &ConfigMap, _there: Option<&ConfigMap>) -> Forged<ConfigMap> {
        if here.annotations().contains_key("skip") {
            return Forged::Nothing(Some("told to skip".into()));
        }
        let mut twin = ConfigMap { data: here.data.clone(), ..ConfigMap::default() };
        twin.labels_mut().insert("origin".into(), "us".into());
        Forged::Make(Box::new(twin))
    }
    fn ours(&self, there: &ConfigMap) -> bool {
        there.labels().contains_key("origin")
    }
}

fn object(data: &str) -> ConfigMap {
    let mut object =
        ConfigMap { data: Some(BTreeMap::from([("key".to_owned(), data.to_owned())])), ..ConfigMap::default() };
    object.metadata.uid = Some("this".into());
    object.finalizers_mut().push("hold".into());
    object
}

fn twin(data: &str) -> ConfigMap {
    let mut object = object(data);
    object.finalizers_mut().clear();
    object.metadata.uid = None;
    object.labels_mut().insert("origin".into(), "us".into());
    object.annotations_mut().insert("of".into(), "this".into());
    object
}

/// A twin that records another source, or none.
fn twin_of(source: Option<&str>) -> ConfigMap {
    let mut object = twin("1");
    object.metadata.annotations = source.map(|source| BTreeMap::from([("of".to_owned(), source.to_owned())]));
    object
}

fn leaving(mut object: ConfigMap) -> ConfigMap {
    object.metadata.deletion_timestamp = Some(now());
    object
}

fn plan(here: Option<&ConfigMap>, there: Option<&ConfigMap>) -> (Here, There<ConfigMap>) {
    let plan = decide(&Copy, here, there, there);
    (plan.here, plan.there)
}

#[test]
fn what_is_no_longer_forged_can_be_taken_away_by_a_patch() {
    let is: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "a", "labels": {"x": "1", "foreign": "1"}, "managedFields": [
            {"operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:foreign": {}}}}},
            {"operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}, "f:metadata": {"f:labels": {"f:x": {}}}}},
        ]},
        "data": {"a": "1", "b": "2"},
    }))
    .unwrap();
    let less: ConfigMap =
        serde_json::from_value(json!({"metadata": {"labels": {"x": "1"}}, "data": {"a": "1"}})).unwrap();
    assert_eq!(compare::surplus(&compare::json(&less), &is), Some(json!({"data": {"b": null}})));
    assert_eq!(compare::surplus(&compare::json(&is), &is), None);
}

#[test]
fn the_law_row_by_row() {
    let made = |data| {
        There::Apply(Box::new({
            let mut made = twin(data);
            made.metadata.finalizers = None;
            made
        }))
    };
    let (here, ours) = (object("1"), twin("1"));
    let foreign = object("1");
    assert_eq!(plan(None, None), (Here::Keep, There::Keep));
    assert_eq!(plan(None, Some(&ours)), (Here::Keep, There::Remove), "an orphan goes");
    assert_eq!(plan(None, Some(&foreign)), (Here::Keep, There::Keep), "not ours, not touched");
    assert_eq!(plan(Some(&here), None), (Here::Keep, made("1")));
    assert_eq!(plan(Some(&here), Some(&ours)), (Here::Keep, There::Keep), "nothing changed, nothing written");
    assert_eq!(plan(Some(&object("2")), Some(&ours)), (Here::Keep, made("2")));
    assert_eq!(plan(Some(&here), Some(&foreign)), (Here::Keep, There::Taken));
    assert_eq!(plan(Some(&here), Some(&leaving(ours.clone()))), (Here::Keep, There::Keep), "wait until it is gone");
}

#[test]
fn a_twin_belongs_to_the_source_it_records() {
    let here = object("1");
    let made = {
        let mut made = twin("1");
        made.metadata.finalizers = None;
        There::Apply(Box::new(made))
    };
    let mut misfit = twin_of(None);
    misfit.annotations_mut().insert("misfit".into(), String::new());
    for (source, there, does) in [
        ("the same source: nothing is written", twin_of(Some("this")), There::Keep),
        ("no record, of an older version: the record is added", twin_of(None), made.clone()),
        ("no record, and it cannot be this source's", misfit, There::Remove),
        ("another source: the old twin goes", twin_of(Some("another")), There::Remove),
        ("another source: what goes is waited for", leaving(twin_of(Some("another"))), There::Wait),
    ] {
        assert_eq!(plan(Some(&here), Some(&there)).1, does, "{source}");
    }
    assert_eq!(plan(Some(&leaving(here.clone())), Some(&twin_of(Some("another")))).1, There::Remove);
    assert_eq!(plan(None, Some(&twin_of(Some("another")))).1, There::Remove, "an orphan, whoever it was");
}

#[test]
fn what_another_source_left_there_is_waited_for_and_not_believed() {
    let (here, old) = (object("1"), twin_of(Some("another")));
    let Plan { here: news, there } = decide(&Copy, Some(&here), None, Some(&old));
    assert_eq!((news, there), (Here::Keep, There::Wait));
    let plan = decide(&Copy, Some(&leaving(here)), None, Some(&old));
    assert_eq!(plan.here, Here::Release("hold"), "its end is not the end of this source");
}

#[test]
fn what_the_api_server_lets_nobody_change_is_made_anew() {
    let is = |value: serde_json::Value| -> ConfigMap { serde_json::from_value(value).unwrap() };
    let owned = json!([{"operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}, "f:type": {}}}}]);
    let data = |data: serde_json::Value, immutable: bool| {
        is(json!({"metadata": {"managedFields": owned}, "data": data, "immutable": immutable}))
    };
    let old = json!({"a": "1", "type": "x"});
    for (forged, there, anew) in [
        (data(old.clone(), true), data(old.clone(), true), false),
        (data(json!({"a": "2", "type": "x"}), true), data(old.clone(), true), true),
        (data(json!({"type": "x"}), true), data(old.clone(), true), true),
        (data(json!({"a": "1", "b": "2", "type": "x"}), true), data(old.clone(), true), true),
        (data(old.clone(), false), data(old.clone(), true), true),
        (data(old.clone(), true), data(old.clone(), false), false),
        (data(json!({"a": "2", "type": "x"}), false), data(old.clone(), false), false),
        (data(json!({"a": "1", "type": "y"}), false), data(old.clone(), false), true),
        (data(json!({"a": "1"}), false), data(old.clone(), false), true),
    ] {
        assert_eq!(unalterable(&forged, &there, Copy::IMMUTABLE), anew, "{forged:?} {there:?}");
    }
}

#[test]
fn an_object_is_held_before_its_twin_is_made() {
    let mut fresh = object("1");
    fresh.finalizers_mut().clear();
    assert!(matches!(plan(Some(&fresh), None), (Here::Hold("hold"), There::Apply(_))));
}

#[test]
fn the_end_comes_in_order_even_where_the_name_is_taken() {
    let here = leaving(object("1"));
    assert_eq!(plan(Some(&here), Some(&twin("1"))), (Here::Keep, There::Remove));
    assert_eq!(plan(Some(&here), Some(&leaving(twin("1")))), (Here::Keep, There::Wait));
    assert_eq!(plan(Some(&here), None), (Here::Release("hold"), There::Keep));
    assert_eq!(plan(Some(&here), Some(&object("1"))), (Here::Release("hold"), There::Keep));
}

#[test]
fn what_shall_not_be_reflected_is_removed_or_refused() {
    let mut here = object("1");
    here.annotations_mut().insert("skip".into(), String::new());
    assert_eq!(plan(Some(&here), Some(&twin("1"))).1, There::Remove);
    assert_eq!(plan(Some(&here), None).1, There::Refused("told to skip".into()));
}

#[test]
fn work_of_others_is_no_difference_but_leftovers_of_ours_are() {
    let forged = twin("1");
    let mut there = twin("1");
    there.annotations_mut().insert("someone".into(), "else".into());
    assert!(!differs(&forged, &there));

    let owned = json!({"f:metadata": {"f:labels": {"f:origin": {}, "f:old": {}}}});
    there.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
        operation: Some("Apply".into()),
        fields_v1: Some(FieldsV1(owned)),
        ..ManagedFieldsEntry::default()
    }]);
    assert!(differs(&forged, &there), "the label `old` is ours and no longer wanted");
}

#[test]
fn containment_knows_lists_nulls_and_empties() {
    assert!(contains(&json!({"a": 1, "b": 2}), &json!({"a": 1, "c": null, "d": {}, "e": []})));
    assert!(!contains(&json!({"a": [1, 2]}), &json!({"a": [1]})));
    assert!(contains(&json!({"a": [{"x": 1, "y": 2}]}), &json!({"a": [{"x": 1}]})));
    assert!(!contains(&json!({"a": [1]}), &json!({"a": []})));
    assert!(!contains(&json!({}), &json!({"a": false})));
}
