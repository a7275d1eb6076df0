//! What every reflected object has in common: its metadata, and what of it is remembered.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Resource, ResourceExt, core::ObjectMeta};
use liqo_api::meta::{REFLECTION_MANAGER, annotation, label};

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

/// Keeps of the managed fields only ours: they say what we applied and no longer want.
pub(super) fn keep_ours<K: Resource>(there: &mut K) {
    if let Some(entries) = &mut there.meta_mut().managed_fields {
        entries.retain(|entry| entry.manager.as_deref() == Some(REFLECTION_MANAGER));
        entries.shrink_to_fit();
    }
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
