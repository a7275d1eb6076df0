//! What another API server does not know, left out.
//!
//! Server-side apply refuses an object with fields the server's definition of the kind does not have,
//! and names each of them. A peer of an older version would so refuse what every newer API server adds
//! to its objects by default; a plain create drops such fields silently, and so do we.

use serde_json::Value;

use crate::Object;

/// How a refused field is told.
const REFUSED: &str = ": field not declared in schema";
/// No object has more fields that are refused; the words are the other API server's.
const MOST: usize = 256;

/// The object without the fields an error names as unknown; `None` when it names none it has.
pub(super) fn without<K: Object>(object: &K, error: &str) -> Option<K> {
    let mut body = serde_json::to_value(object).expect("an object is JSON");
    let dropped = paths(error).filter(|path| remove(&mut body, path)).count();
    if dropped == 0 {
        return None;
    }
    serde_json::from_value(body).ok()
}

fn paths(error: &str) -> impl Iterator<Item = &str> {
    error.split_inclusive(REFUSED).take(MOST).filter_map(|part| {
        let path = part.strip_suffix(REFUSED)?;
        path.rsplit(char::is_whitespace).next()
    })
}

/// Removes the field at a path like `.spec.containers[0].name` or `.spec.ports[name="a"].port`.
fn remove(body: &mut Value, path: &str) -> bool {
    let Some((parent, field)) = path.rsplit_once('.') else { return false };
    let mut at = body;
    for step in parent.split('.').filter(|step| !step.is_empty()) {
        let (name, selector) = step.split_once('[').map_or((step, None), |(name, rest)| (name, Some(rest)));
        let Some(inner) = at.get_mut(name) else { return false };
        let found = match selector {
            None => Some(inner),
            Some(selector) => select(inner, selector.trim_end_matches(']')),
        };
        let Some(next) = found else { return false };
        at = next;
    }
    at.as_object_mut().is_some_and(|fields| fields.remove(field).is_some())
}

/// The member of a list with an index, or with some keys (`name="a",port=80`).
fn select<'a>(list: &'a mut Value, selector: &str) -> Option<&'a mut Value> {
    if let Ok(index) = selector.parse::<usize>() {
        return list.get_mut(index);
    }
    let keys: Vec<(&str, Value)> = selector
        .split(',')
        .map(|pair| pair.split_once('=').and_then(|(key, value)| Some((key, serde_json::from_str(value).ok()?))))
        .collect::<Option<_>>()?;
    list.as_array_mut()?.iter_mut().find(|item| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use proptest::{
        collection::vec,
        prelude::{Just, any, prop_assert, prop_oneof, proptest},
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn refused_fields_are_left_out_and_nothing_else() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "hostnameOverride": "x",
            "containers": [{"name": "a", "image": "b", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "x"}]}],
        }}))
        .unwrap();
        let error = "apply Pod a: failed to create typed patch object (demo/a; v1, Kind=Pod): errors:\n  \
                     .spec.hostnameOverride: field not declared in schema\n  \
                     .spec.containers[name=\"a\"].resizePolicy: field not declared in schema";
        let known = serde_json::to_value(without(&pod, error).unwrap()).unwrap();
        assert_eq!(known["spec"], json!({"containers": [{"name": "a", "image": "b"}]}));
        let error = error.replace("[name=\"a\"]", "[0]");
        assert_eq!(serde_json::to_value(without(&pod, &error).unwrap()).unwrap()["spec"], known["spec"]);
        assert!(without(&pod, "apply Pod a: forbidden").is_none());
        assert!(without(&pod, ".spec.other: field not declared in schema").is_none(), "no endless tries");
    }

    #[test]
    fn spaces_of_every_width_end_a_path() {
        for space in ["\u{2003}", "\u{a0}", "\u{85}", "\u{3000}", "\n", " "] {
            let error = format!("a{space}.spec.x: field not declared in schema");
            assert_eq!(paths(&error).collect::<Vec<_>>(), [".spec.x"], "{space:?}");
        }
    }

    #[test]
    fn fuzz_refusals() {
        let whole = json!({"spec": {"containers": [{"name": "a"}], "hostname": "é"}, "a": [{"b": "c", "a": [1, 2]}]});
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "refusal", |bytes| {
            let mut body = whole.clone();
            let error = String::from_utf8_lossy(bytes);
            for path in paths(&error) {
                remove(&mut body, path);
            }
        });
    }

    proptest! {
        #[test]
        fn fuzz_no_words_of_another_make_it_panic(
            parts in vec(prop_oneof![any::<String>(), "[.=,\\[\\]\" \u{2003}a-c0-9]{0,12}", Just(REFUSED.to_owned())], 0..12),
        ) {
            let mut body = json!({"a": [{"b": "c", "a": [1, 2]}], "b": {"a": {"c": null}}, "c": "é"});
            let error = parts.concat();
            let found: Vec<_> = paths(&error).collect();
            prop_assert!(found.iter().all(|path| error.contains(path) && !path.contains(char::is_whitespace)));
            for path in found.into_iter().chain(parts.iter().map(String::as_str)) {
                let _ = remove(&mut body, path);
                let _ = select(&mut body["a"], path);
            }
        }
    }
}
