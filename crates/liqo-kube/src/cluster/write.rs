//! Making and changing objects.

use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Cluster, KubeError, Object, body, name_of, path, path_of};

impl Cluster {
    /// Creates the object; an existing one is a conflict.
    pub async fn create<K: Object>(&self, object: &K) -> Result<K, KubeError> {
        let params = PostParams { field_manager: Some(self.writer.to_owned()), ..PostParams::default() };
        let request = path_of(object).create(&params, body(object));
        self.ask::<K, K>("create", &name_of(object), request).await
    }

    /// Creates the object by server-side apply, because RBAC can hold a right to apply, unlike the right to create, to one name:
    /// the verbs `create` and `patch` with that name. Processes that may come first at the same time differ by `maker`, a field
    /// manager: for the later one the object with other content is a conflict.
    pub async fn create_by_name<K: Object>(&self, object: &K, maker: &str) -> Result<K, KubeError> {
        let mut body = serde_json::to_value(object).expect("an object is JSON");
        prune(&mut body);
        body["apiVersion"] = K::api_version(&()).into();
        body["kind"] = K::kind(&()).into();
        let params = PatchParams::apply(maker);
        let request = path_of(object).patch(&object.name_any(), &params, &Patch::Apply(body));
        self.ask::<K, K>("create", &name_of(object), request).await
    }

    /// Whether the API server, with all it asks, would let us create the object; nothing is created.
    pub async fn try_create<K: Object>(&self, object: &K) -> Result<(), KubeError> {
        let params = PostParams { dry_run: true, field_manager: Some(self.writer.to_owned()) };
        let request = path_of(object).create(&params, body(object));
        self.ask::<K, serde::de::IgnoredAny>("create", &name_of(object), request).await.map(drop)
    }

    /// Creates something under an object, like a token or an eviction; gives what it has become.
    pub async fn create_under<K: Object, S: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        new: &S,
    ) -> Result<S, KubeError> {
        let params = PostParams::default();
        let request = path::<K>(namespace).create_subresource(subresource, name, &params, body(new));
        self.ask::<S, S>("create", name, request).await
    }

    /// Server-side apply of the fields in `object`: fields we applied earlier and left out now are removed.
    ///
    /// With a UID in it, exactly that object is changed; a conflict when it is gone or another one.
    pub async fn apply<K: Object>(&self, object: &K) -> Result<K, KubeError> {
        let mut body = serde_json::to_value(object).expect("an object is JSON");
        prune(&mut body);
        self.apply_value(&object.namespace().unwrap_or_default(), &object.name_any(), body).await
    }

    /// Server-side apply of a body that need not be a whole `K`.
    pub async fn apply_value<K: Object>(&self, namespace: &str, name: &str, mut body: Value) -> Result<K, KubeError> {
        body["apiVersion"] = K::api_version(&()).into();
        body["kind"] = K::kind(&()).into();
        let request = path::<K>(namespace).patch(name, &PatchParams::apply(self.writer).force(), &Patch::Apply(body));
        self.ask::<K, K>("apply", name, request).await
    }

    /// JSON merge patch (RFC 7386) of an object; put `metadata.resourceVersion` in to be safe from races.
    pub async fn merge<K: Object>(&self, object: &K, patch: Value) -> Result<K, KubeError> {
        let request = path_of(object).patch(&object.name_any(), &self.as_writer(), &Patch::Merge(patch));
        self.ask::<K, K>("patch", &name_of(object), request).await
    }

    /// Makes each of `fields` (JSON pointer and value) the whole field of this object: the UID is checked, and with `version` also
    /// that nobody has changed the object since. Server-side apply would keep entries of maps that another program wrote earlier.
    pub async fn put<K: Object>(&self, object: &K, version: bool, fields: &[(&str, Value)]) -> Result<K, KubeError> {
        let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": object.uid()})];
        if version {
            // Sent back as it was read, it makes any other state a conflict.
            let version = object.resource_version();
            patch.push(json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}));
        }
        patch.extend(fields.iter().map(|(path, value)| json!({"op": "add", "path": path, "value": value})));
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch)).expect("a JSON patch");
        let request = path_of(object).patch(&object.name_any(), &self.as_writer(), &Patch::<Value>::Json(patch));
        self.ask::<K, K>("patch", &name_of(object), request).await
    }
}

/// What server-side apply must not be told, and nulls.
fn prune(body: &mut Value) {
    if let Some(object) = body.as_object_mut() {
        object.remove("status");
    }
    if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["managedFields", "resourceVersion", "creationTimestamp", "generation", "selfLink"] {
            meta.remove(key);
        }
    }
}
