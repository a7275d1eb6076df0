//! What every reflected object has in common: its metadata, and what of it is remembered.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Resource, ResourceExt, core::ObjectMeta};
use liqo_api::meta::{REFLECTION_MANAGER, annotation, label};
use serde_json::Value;

use crate::link::Link;

/// Told where the user asked not to reflect an object.
pub(super) const SKIPPED: &str = "for the current object";

/// Metadata of the twin: the labels here and those of the link, the annotations here.
pub(super) fn metadata<K: Resource>(here: &K, link: &Link) -> ObjectMeta {
    let mut labels = here.labels().clone();
    labels.extend(link.labels());
    let annotations = here.annotations().clone();
    ObjectMeta {
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..ObjectMeta::default()
    }
}

/// Whether the user asked not to reflect the object; the value does not matter.
pub(super) fn is_skipped<K: Resource>(here: &K) -> bool {
    here.annotations().contains_key(annotation::SKIP_REFLECTION)
}

/// Keeps of the managed fields only what says which fields we applied and no longer want. Of lists nothing is said there: members of
/// lists, most of what is recorded of a pod, are forgotten.
pub(super) fn keep_ours<K: Resource>(there: &mut K) {
    if let Some(entries) = &mut there.meta_mut().managed_fields {
        entries.retain(|entry| {
            let is_ours = entry.manager.as_deref() == Some(REFLECTION_MANAGER);
            is_ours && entry.operation.as_deref() == Some("Apply") && entry.subresource.is_none()
        });
        entries.shrink_to_fit();
        entries
            .iter_mut()
            .filter_map(|entry| entry.fields_v1.as_mut())
            .for_each(|fields| forget_members(&mut fields.0));
    }
}

/// Forgets the members of lists among managed fields: [`liqo_kube::twin::differs`] compares lists as a whole.
fn forget_members(fields: &mut Value) {
    let Some(map) = fields.as_object_mut() else { return };
    map.retain(|key, _| key.starts_with("f:"));
    map.values_mut().for_each(forget_members);
}

fn is_reflected<K: Resource>(there: &K) -> bool {
    there.labels().contains_key(label::REFLECTION_ORIGIN)
}

/// Of config maps that nobody reflected only the name matters.
pub(super) fn trim_config_map(there: &mut ConfigMap) {
    keep_ours(there);
    if !is_reflected(there) {
        (there.data, there.binary_data) = (None, None);
    }
}

/// Of secrets that nobody reflected only the name matters.
pub(super) fn trim_secret(there: &mut Secret) {
    keep_ours(there);
    if !is_reflected(there) {
        (there.data, there.string_data) = (None, None);
    }
}

/// Of pods there only their status matters, and whose they are.
pub(super) fn trim_pod(there: &mut Pod) {
    there.spec = None;
    let meta = std::mem::take(&mut there.metadata);
    let labels = meta.labels.map(|mut labels| {
        labels.retain(|key, _| key == label::REFLECTION_ORIGIN || key == label::REFLECTION_DESTINATION);
        labels
    });
    let annotations = meta.annotations.map(|mut annotations| {
        annotations.retain(|key, _| key == annotation::ORIGINAL_UID);
        annotations
    });
    there.metadata = ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        deletion_timestamp: meta.deletion_timestamp,
        labels,
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    };
}

#[cfg(test)]
mod tests {
    use liqo_kube::twin::differs;
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_is_forgotten_of_managed_fields_decides_nothing() {
        let fields = json!({
            "f:metadata": {
                "f:finalizers": {".": {}, "v:\"example.io/hold\"": {}, "k:{\"name\":\"a\"}": {"f:name": {}}, "i:0": {}},
                "f:labels": {".": {}, "f:app": {}, "f:old": {}},
            },
            "f:data": {"f:kept": {}},
        });
        let entry = |manager: &str, operation: &str, subresource: Option<&str>| json!({"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": fields});
        let entries = json!([
            entry(REFLECTION_MANAGER, "Apply", None),
            entry(REFLECTION_MANAGER, "Update", None),
            entry(REFLECTION_MANAGER, "Apply", Some("status")),
            entry("kubectl", "Apply", None),
        ]);
        let whole: ConfigMap = from_value(json!({
            "metadata": {"finalizers": ["example.io/hold"], "labels": {"app": "web", "old": "1"}, "managedFields": entries},
            "data": {"kept": "1"},
        }))
        .unwrap();
        let mut trimmed = whole.clone();
        keep_ours(&mut trimmed);
        let kept = serde_json::to_value(&trimmed.metadata.managed_fields).unwrap();
        let metadata = json!({"f:finalizers": {}, "f:labels": {"f:app": {}, "f:old": {}}});
        let wanted = json!({"f:metadata": metadata, "f:data": {"f:kept": {}}});
        assert_eq!((kept.as_array().unwrap().len(), &kept[0]["fieldsV1"]), (1, &wanted));
        for (labels, data, does) in [
            (json!({"app": "web", "old": "1"}), json!({"kept": "1"}), false),
            (json!({"app": "web"}), json!({"kept": "1"}), true),
            (json!({"app": "web", "old": "1"}), json!({}), true),
        ] {
            let metadata = json!({"finalizers": ["example.io/hold"], "labels": labels});
            let forged: ConfigMap = from_value(json!({ "metadata": metadata, "data": data })).unwrap();
            assert_eq!((differs(&forged, &whole), differs(&forged, &trimmed)), (does, does), "{forged:?}");
        }
    }
}
