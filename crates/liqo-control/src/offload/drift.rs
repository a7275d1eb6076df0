//! Labels and annotations of what was made from a shadow: brought up to date without touching what others
//! added.
//!
//! Which keys are ours is read from the managed fields, so that nothing has to be remembered.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use liqo_core::naming;
use serde_json::{Map, Value, json};

type Pairs = BTreeMap<String, String>;

/// Longest annotation that is stored as it is, in bytes.
const LONGEST: usize = 256;

/// Keeps of the managed fields only what `writer` wrote of the metadata, and of long annotations the beginning and a hash; to be
/// called before an object is stored.
pub(super) fn keep_fields_of(meta: &mut ObjectMeta, writer: &str) {
    if let Some(all) = &mut meta.managed_fields {
        all.retain(|entry| entry.manager.as_deref() == Some(writer) && entry.subresource.is_none());
        all.shrink_to_fit();
        for fields in all.iter_mut().filter_map(|entry| entry.fields_v1.as_mut()) {
            if let Some(fields) = fields.0.as_object_mut() {
                fields.retain(|key, _| key == "f:metadata");
            }
        }
    }
    for value in meta.annotations.iter_mut().flatten().map(|(_, value)| value).filter(|value| value.len() > LONGEST) {
        *value = naming::within(value, LONGEST);
    }
}

/// The merge patch of `metadata` that gives `is` these labels and annotations; `None` when it has them.
pub(super) fn metadata(is: &ObjectMeta, labels: &Pairs, annotations: &Pairs) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    let ours = |field: &str| {
        let entries = is.managed_fields.iter().flatten().filter_map(|entry| entry.fields_v1.as_ref());
        let fields = entries.filter_map(|fields| fields.0.get("f:metadata")?.get(field)?.as_object().cloned());
        let keys = fields.flat_map(|fields| fields.into_iter().map(|(key, _)| key));
        keys.filter_map(|key| key.strip_prefix("f:").map(str::to_owned)).collect::<Vec<_>>()
    };
    for (name, wanted, has) in
        [("labels", labels, is.labels.as_ref()), ("annotations", annotations, is.annotations.as_ref())]
    {
        let none = Pairs::new();
        let has = has.unwrap_or(&none);
        let stale =
            ours(&format!("f:{name}")).into_iter().filter(|key| has.contains_key(key) && !wanted.contains_key(key));
        let mut pairs: Map<String, Value> = stale.map(|key| (key, Value::Null)).collect();
        let is = |has: &str, wanted: &str| has == wanted || has == naming::within(wanted, LONGEST);
        let new = wanted.iter().filter(|(key, value)| !has.get(*key).is_some_and(|has| is(has, value)));
        pairs.extend(new.map(|(key, value)| (key.clone(), json!(value))));
        if !pairs.is_empty() {
            patch.insert(name.to_owned(), pairs.into());
        }
    }
    (!patch.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(all: &[(&str, &str)]) -> Pairs {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_others_added_stays_and_what_we_dropped_goes() {
        let mut is: ObjectMeta = serde_json::from_value(json!({
            "labels": {"app": "old", "gone": "1", "theirs": "2"},
            "managedFields": [
                {"manager": "shadow-pod", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:gone": {}}}}},
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}}},
            ],
        }))
        .unwrap();
        keep_fields_of(&mut is, "shadow-pod");
        let patch = metadata(&is, &pairs(&[("app", "new")]), &pairs(&[("note", "x")])).unwrap();
        assert_eq!(Value::from(patch), json!({"labels": {"app": "new", "gone": null}, "annotations": {"note": "x"}}));
        assert_eq!(metadata(&is, &pairs(&[("app", "old"), ("gone", "1")]), &Pairs::new()), None);
    }

    #[test]
    fn long_annotations_are_compared_by_their_hash() {
        let (long, other) = ("x".repeat(LONGEST + 1), "y".repeat(LONGEST + 1));
        let mut is: ObjectMeta = serde_json::from_value(json!({"annotations": {"note": long}})).unwrap();
        assert_eq!(
            metadata(&is, &Pairs::new(), &pairs(&[("note", &long)])),
            None,
            "as the API server shows the object"
        );
        keep_fields_of(&mut is, "shadow-pod");
        assert!(is.annotations.as_ref().unwrap()["note"].len() <= LONGEST);
        assert_eq!(metadata(&is, &Pairs::new(), &pairs(&[("note", &long)])), None);
        let patch = metadata(&is, &Pairs::new(), &pairs(&[("note", &other)])).unwrap();
        assert_eq!(Value::from(patch), json!({"annotations": {"note": other}}));
    }
}
