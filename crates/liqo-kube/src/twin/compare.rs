//! Does a twin look as it was forged? Answered from the twin alone, without a memory of our own.
//!
//! Two questions: is everything we forged there, with our values ([`contains`])? And does the API
//! server hold anything of ours (its managed fields say what) that we no longer forge?

use kube::Resource;
use serde::Serialize;
use serde_json::{Map, Value};

/// Whether `there` has to be applied again to look like `forged`.
///
/// Fields only others have set do not count, so defaults and the work of other controllers stay.
pub fn differs<K: Resource + Serialize>(forged: &K, there: &K) -> bool {
    let mut wanted = json(forged);
    let is = json(there);
    for generated in ["name", "namespace", "managedFields"] {
        if let Some(meta) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove(generated);
        }
    }
    !contains(&is, &wanted) || surplus(&wanted, there).is_some()
}

/// Data that does not change any more once `/immutable` is true, and the mark itself.
const DATA: [&str; 3] = ["/data", "/binaryData", "/immutable"];

/// Whether `there` can look like `forged` only when it is made anew: a field that the API server lets nobody change
/// differs. These are `fields` (JSON pointers), and the data of an immutable `ConfigMap` or `Secret`.
pub fn unalterable<K: Resource + Serialize>(forged: &K, there: &K, fields: &[&str]) -> bool {
    let (wanted, is) = (json(forged), json(there));
    let surplus = surplus(&wanted, there);
    let differs = |field: &str| {
        let none = Value::Null;
        let (wanted, is) = (wanted.pointer(field).unwrap_or(&none), is.pointer(field).unwrap_or(&none));
        let is_left = surplus.as_ref().is_some_and(|surplus| surplus.pointer(field).is_some());
        is_left && !is.is_null() || !empty(wanted) && !contains(is, wanted)
    };
    let data = if is["immutable"] == true { &DATA[..] } else { &[] };
    fields.iter().chain(data).any(|field| differs(field))
}

/// A merge patch that takes away what we once applied and no longer forge; `None` when there is nothing.
pub(super) fn surplus(wanted: &Value, there: &impl Resource) -> Option<Value> {
    let entries = there.meta().managed_fields.iter().flatten();
    let ours = entries.filter(|entry| entry.operation.as_deref() == Some("Apply") && entry.subresource.is_none());
    ours.filter_map(|entry| entry.fields_v1.as_ref()).find_map(|fields| removal(&fields.0, wanted))
}

/// The fields `fields` (the `fieldsV1` of our manager) names and `wanted` does not have, as nulls.
/// Members of lists (`k:`, `v:`, `i:`) are left to [`contains`], which compares lengths.
fn removal(fields: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = Map::new();
    for (key, inner) in fields.as_object()? {
        let Some(name) = key.strip_prefix("f:") else { continue };
        match wanted.get(name) {
            None | Some(Value::Null) => _ = patch.insert(name.to_owned(), Value::Null),
            Some(value) => {
                if let Some(deeper) = removal(inner, value) {
                    patch.insert(name.to_owned(), deeper);
                }
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

pub(super) fn json(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("an object is JSON")
}

/// Whether everything in `wanted` is in `is`, with the same values. Lists are compared element by
/// element; nulls and empty objects or lists are wishes for nothing.
pub fn contains(is: &Value, wanted: &Value) -> bool {
    match (is, wanted) {
        (_, Value::Null) => true,
        (Value::Object(is), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| is.get(key).map_or(empty(value), |is| contains(is, value)))
        }
        (Value::Array(is), Value::Array(wanted)) => {
            is.len() == wanted.len() && is.iter().zip(wanted).all(|(is, wanted)| contains(is, wanted))
        }
        (is, wanted) => is == wanted,
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what is not wanted is taken away.
    #[test]
    fn fuzz_managed_fields() {
        fn is_unwanted(patch: &Value, wanted: &Value) -> bool {
            patch.as_object().into_iter().flatten().all(|(key, inner)| match wanted.get(key) {
                None | Some(Value::Null) => inner.is_null(),
                Some(wanted) => inner.is_object() && is_unwanted(inner, wanted),
            })
        }
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "managed_fields", |bytes| {
            let Ok((fields, wanted)) = serde_json::from_slice::<(Value, Value)>(bytes) else { return };
            if let Some(patch) = removal(&fields, &wanted) {
                assert!(is_unwanted(&patch, &wanted), "{patch} of {wanted}");
            }
            assert!(contains(&wanted, &wanted));
        });
    }
}
