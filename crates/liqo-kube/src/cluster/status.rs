//! Statuses, and the approval of signing requests.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{ResourceExt, api::Patch};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Cluster, KubeError, Object, name_of, path_of};
use crate::now;

impl Cluster {
    /// Makes `status` the whole status of exactly this object (its UID is checked). Nothing happens, and nothing is
    /// given back, when that object is gone, or another one has its name.
    pub async fn put_status<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
    ) -> Result<Option<K>, KubeError> {
        self.patch_status(object, status, None, None).await
    }

    /// [`Cluster::put_status`], or [`Cluster::put_status_as_seen`], that adds a label in the same request: API servers take
    /// metadata of Pods together with their status. Other labels stay.
    pub async fn put_status_marked<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
        mark: (&str, &str),
        as_seen: bool,
    ) -> Result<Option<K>, KubeError> {
        // Without labels, all labels are written: none must have come meanwhile.
        let as_seen = as_seen || object.labels().is_empty();
        let version = object.resource_version().filter(|_| as_seen);
        self.patch_status(object, status, version, Some(mark)).await
    }

    /// [`Cluster::put_status`] where the status has another writer, too: nothing happens, and nothing is given back, when
    /// the object is no longer as it was seen.
    pub async fn put_status_as_seen<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
    ) -> Result<Option<K>, KubeError> {
        self.patch_status(object, status, object.resource_version(), None).await
    }

    /// Sets conditions of exactly this object's status, by their type; conditions of other types stay. Nothing happens when
    /// that object is gone, or another one has its name.
    pub async fn set_conditions<K: Object>(&self, object: &K, conditions: &[Value]) -> Result<(), KubeError> {
        let body = json!({"metadata": {"uid": object.uid()}, "status": {"conditions": conditions}});
        let patch = Patch::<Value>::Strategic(body);
        let request = path_of(object).patch_subresource("status", &object.name_any(), &self.as_writer(), &patch);
        match self.ask::<K, serde::de::IgnoredAny>("set-conditions", &name_of(object), request).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    async fn patch_status<K: Object>(
        &self,
        object: &K,
        status: &(impl Serialize + Sync),
        version: Option<String>,
        mark: Option<(&str, &str)>,
    ) -> Result<Option<K>, KubeError> {
        let status = serde_json::to_value(status).expect("a status is JSON");
        let mark = mark.map(|mark| marking(mark, object.labels().is_empty()));
        let patch = Patch::<Value>::Json(status_patch(object.uid(), version, status, mark));
        let request = path_of(object).patch_subresource("status", &object.name_any(), &self.as_writer(), &patch);
        match self.ask::<K, K>("put-status", &name_of(object), request).await {
            Err(error) if error.is_not_found() || error.is_failed_test() => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// Approves a signing request, for a reason others can read.
    pub async fn approve(
        &self,
        request: &CertificateSigningRequest,
        reason: &str,
        message: &str,
    ) -> Result<CertificateSigningRequest, KubeError> {
        let name = request.name_any();
        let condition = json!({
            "type": "Approved", "status": "True", "reason": reason, "message": message, "lastUpdateTime": now(),
        });
        let meta = json!({"resourceVersion": request.resource_version(), "uid": request.uid()});
        let patch = Patch::Merge(json!({"metadata": meta, "status": {"conditions": [condition]}}));
        let request = path_of(request).patch_subresource("approval", &name, &self.as_writer(), &patch);
        self.ask::<CertificateSigningRequest, _>("approve", &name, request).await
    }
}

fn status_patch(uid: Option<String>, version: Option<String>, status: Value, mark: Option<Value>) -> json_patch::Patch {
    let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
    patch.extend(version.map(|version| json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})));
    patch.extend(mark);
    patch.push(json!({"op": "add", "path": "/status", "value": status}));
    serde_json::from_value(patch.into()).expect("a JSON patch")
}

/// The step of a JSON patch that adds a label to an object which has labels or not.
fn marking((key, value): (&str, &str), is_first: bool) -> Value {
    match is_first {
        true => json!({"op": "add", "path": "/metadata/labels", "value": {key: value}}),
        false => {
            let key = key.replace('~', "~0").replace('/', "~1");
            json!({"op": "add", "path": format!("/metadata/labels/{key}"), "value": value})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_comes_with_the_status_and_other_labels_stay() {
        let mark = ("example.io/mark~1", "true");
        for (labels, wanted) in [
            (json!(null), json!({"example.io/mark~1": "true"})),
            (json!({"app": "web"}), json!({"app": "web", "example.io/mark~1": "true"})),
            (json!({"example.io/mark~1": "false"}), json!({"example.io/mark~1": "true"})),
        ] {
            let mut object = json!({"metadata": {"uid": "u", "labels": labels}, "status": {"old": 1}});
            let marking = marking(mark, labels.is_null());
            let patch = status_patch(Some("u".to_owned()), None, json!({"new": 1}), Some(marking));
            json_patch::patch(&mut object, &patch).unwrap();
            assert_eq!(object, json!({"metadata": {"uid": "u", "labels": wanted}, "status": {"new": 1}}));
            let patch = status_patch(Some("other".to_owned()), None, json!({}), None);
            assert!(json_patch::patch(&mut object, &patch).is_err(), "another object of that name");
        }
    }
}
