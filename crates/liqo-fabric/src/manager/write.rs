//! The one way this role changes what exists: some fields, whole, of exactly one object.
//!
//! Server-side apply would keep entries of maps that another program, like Liqo 0.8.3, wrote earlier.

use kube::{
    ResourceExt,
    api::{Patch, PatchParams, Request},
};
use liqo_kube::{Cluster, KubeError, Object};
use serde_json::{Value, json};

use super::WRITER;

/// Makes each of `fields` (JSON pointer and value) the whole field of this object: its UID is checked, and with
/// `version` also that nobody has changed it since.
pub(crate) async fn put<K: Object>(
    cluster: &Cluster,
    object: &K,
    version: bool,
    fields: &[(&str, Value)],
) -> Result<K, KubeError> {
    let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": object.uid()})];
    if version {
        // Sent back as it was read, it makes any other state a conflict.
        let version = object.resource_version();
        patch.push(json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}));
    }
    patch.extend(fields.iter().map(|(path, value)| json!({"op": "add", "path": path, "value": value})));
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch)).expect("a JSON patch");
    let url = K::url_path(&(), object.namespace().as_deref());
    let params = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
    let name = object.name_any();
    let request = Request::new(url).patch(&name, &params, &Patch::<Value>::Json(patch));
    cluster.ask::<K, K>("patch", &name, request).await
}
