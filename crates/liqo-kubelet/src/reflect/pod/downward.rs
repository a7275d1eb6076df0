//! What a pod there is told about itself by the downward API.
//!
//! Keeps true: the namespace and the UID that a pod finds are those of the pod here, because the token of its service account counts
//! here. In environment variables they are values. A file cannot have a value, so a volume reads an annotation of the pod there: that
//! of the namespace is set for pods that need it ([`annotations`]), that of the UID is on every copy.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, EnvVar, Pod, PodSpec, Volume};
use kube::ResourceExt;
use liqo_api::meta::annotation;

const NAMESPACE: &str = "metadata.namespace";
const UID: &str = "metadata.uid";

/// Points everything that names the namespace or the UID of a new pod there to those of the pod here.
pub(super) fn tell_home(spec: &mut PodSpec, here: &Pod) {
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for variable in containers.flat_map(|container| container.env.iter_mut().flatten()) {
        if let Some(value) = field_of(variable).and_then(|field| fact(field, here)) {
            (variable.value, variable.value_from) = (Some(value), None);
        }
    }
    for file in spec.volumes.iter_mut().flatten().flat_map(files) {
        if let Some(field) = &mut file.field_ref
            && let Some(key) = key_of(&field.field_path)
        {
            field.field_path = path_of(key);
        }
    }
}

/// Annotations that the volumes of a pod there read; the UID of the original is on every twin.
pub(super) fn annotations(there: &PodSpec, here: &Pod) -> Option<(String, String)> {
    let wanted = path_of(annotation::ORIGINAL_NAMESPACE);
    let is_read = there.volumes.iter().flatten().flat_map(fields).any(|field| field == wanted);
    is_read.then(|| (annotation::ORIGINAL_NAMESPACE.to_owned(), here.namespace().unwrap_or_default()))
}

fn field_of(variable: &EnvVar) -> Option<&str> {
    Some(&variable.value_from.as_ref()?.field_ref.as_ref()?.field_path)
}

/// The value of a field, where the clusters differ.
fn fact(field: &str, here: &Pod) -> Option<String> {
    match field {
        NAMESPACE => here.namespace(),
        UID => here.uid(),
        _ => None,
    }
}

/// The annotation that carries a field.
fn key_of(field: &str) -> Option<&'static str> {
    match field {
        NAMESPACE => Some(annotation::ORIGINAL_NAMESPACE),
        UID => Some(annotation::ORIGINAL_UID),
        _ => None,
    }
}

fn path_of(key: &str) -> String {
    format!("metadata.annotations['{key}']")
}

/// The files that a volume makes of fields of its pod.
fn files(volume: &mut Volume) -> impl Iterator<Item = &mut DownwardAPIVolumeFile> {
    let own = volume.downward_api.iter_mut().flat_map(|own| own.items.iter_mut().flatten());
    let sources = volume.projected.iter_mut().flat_map(|projected| projected.sources.iter_mut().flatten());
    let projected = sources.filter_map(|source| source.downward_api.as_mut());
    own.chain(projected.flat_map(|source| source.items.iter_mut().flatten()))
}

/// The fields of a pod of which a volume makes files.
fn fields(volume: &Volume) -> impl Iterator<Item = &str> {
    let own = volume.downward_api.iter().flat_map(|own| own.items.iter().flatten());
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let projected = sources.filter_map(|source| source.downward_api.as_ref());
    let files = own.chain(projected.flat_map(|source| source.items.iter().flatten()));
    files.filter_map(|file| Some(&*file.field_ref.as_ref()?.field_path))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    const NAMESPACE_THERE: &str = "metadata.annotations['virtualkubelet.liqo.io/original-namespace']";
    const UID_THERE: &str = "metadata.annotations['virtualkubelet.liqo.io/original-uid']";

    fn here() -> Pod {
        from_value(json!({"metadata": {"name": "web", "namespace": "demo", "uid": "u-1"}})).unwrap()
    }

    fn variable(field: &str) -> Value {
        json!({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": field}}})
    }

    fn file(field: &str) -> Value {
        json!({"path": "x", "fieldRef": {"fieldPath": field}})
    }

    fn told(spec: Value) -> (Value, PodSpec) {
        let mut spec: PodSpec = from_value(spec).unwrap();
        tell_home(&mut spec, &here());
        (serde_json::to_value(&spec).unwrap(), spec)
    }

    /// Every way in which the downward API tells a pod about itself, and every field of it.
    #[test]
    fn the_namespace_and_the_uid_are_those_of_home_wherever_they_are_asked_for() {
        for (field, value, carried) in [
            ("metadata.namespace", Some("demo"), NAMESPACE_THERE),
            ("metadata.uid", Some("u-1"), UID_THERE),
            ("metadata.name", None, "metadata.name"),
            ("metadata.labels['app']", None, "metadata.labels['app']"),
            ("spec.nodeName", None, "spec.nodeName"),
            ("status.podIP", None, "status.podIP"),
        ] {
            let (spec, _) = told(json!({
                "initContainers": [{"name": "i", "env": [variable(field)]}],
                "containers": [{"name": "c", "env": [variable(field)]}],
                "volumes": [
                    {"name": "d", "downwardAPI": {"items": [file(field)]}},
                    {"name": "p", "projected": {"sources": [{"downwardAPI": {"items": [file(field)]}}]}},
                ],
            }));
            let variable = value.map_or_else(|| variable(field), |value| json!({"name": "X", "value": value}));
            for path in ["/initContainers/0/env/0", "/containers/0/env/0"] {
                assert_eq!(spec.pointer(path), Some(&variable), "{path} {field}");
            }
            for path in ["/volumes/0/downwardAPI/items/0", "/volumes/1/projected/sources/0/downwardAPI/items/0"] {
                assert_eq!(spec.pointer(path), Some(&file(carried)), "{path} {field}");
            }
        }
    }

    #[test]
    fn the_namespace_is_annotated_where_a_volume_reads_it() {
        let pod = |field: &str| {
            told(json!({"containers": [], "volumes": [{"name": "d", "downwardAPI": {"items": [file(field)]}}]})).1
        };
        let annotated = annotations(&pod("metadata.namespace"), &here());
        assert_eq!(annotated, Some(("virtualkubelet.liqo.io/original-namespace".to_owned(), "demo".to_owned())));
        assert_eq!(annotations(&pod("metadata.uid"), &here()), None);
        let older: PodSpec = from_value(json!({"containers": [],
            "volumes": [{"name": "d", "downwardAPI": {"items": [file("metadata.namespace")]}}]}))
        .unwrap();
        assert_eq!(annotations(&older, &here()), None, "a pod of an earlier version stays as it is");
    }
}
