//! Finalizers and deletions.

use kube::{
    ResourceExt,
    api::{DeleteParams, Preconditions, PropagationPolicy},
};
use serde_json::json;

use super::{Cluster, KubeError, Object, name_of, path_of};

impl Cluster {
    /// Adds a finalizer to the object as we know it; a changed object is a conflict.
    pub async fn hold<K: Object>(&self, object: &K, finalizer: &str) -> Result<K, KubeError> {
        let mut all = object.finalizers().to_vec();
        all.push(finalizer.to_owned());
        self.set_finalizers(object, &all).await
    }

    /// Removes a finalizer from the object as we know it; an object already gone is a success.
    pub async fn release<K: Object>(&self, object: &K, finalizer: &str) -> Result<(), KubeError> {
        let all: Vec<_> = object.finalizers().iter().filter(|one| *one != finalizer).cloned().collect();
        match self.set_finalizers(object, &all).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn set_finalizers<K: Object>(&self, object: &K, all: &[String]) -> Result<K, KubeError> {
        let meta = json!({"finalizers": all, "resourceVersion": object.resource_version(), "uid": object.uid()});
        self.merge(object, json!({ "metadata": meta })).await
    }

    /// Deletes exactly this object (its UID is checked, if known); already gone is a success.
    pub async fn remove<K: Object>(&self, object: &K) -> Result<(), KubeError> {
        self.remove_within(object, None).await
    }

    /// Deletes exactly this object and gives it that many seconds to end, fewer than it has itself; already gone is a success.
    pub async fn remove_in<K: Object>(&self, object: &K, seconds: u32) -> Result<(), KubeError> {
        self.remove_within(object, Some(seconds)).await
    }

    /// Deletes exactly this object at once, without grace; already gone is a success.
    pub async fn remove_now<K: Object>(&self, object: &K) -> Result<(), KubeError> {
        self.remove_within(object, Some(0)).await
    }

    async fn remove_within<K: Object>(&self, object: &K, grace: Option<u32>) -> Result<(), KubeError> {
        let preconditions = object.uid().map(|uid| Preconditions { uid: Some(uid), resource_version: None });
        let params = DeleteParams {
            grace_period_seconds: grace,
            preconditions,
            // Without a word about it, jobs of the group batch/v1 would leave their pods behind.
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        // The answer is the object, if it stays for a while, or a status: both say the same to us.
        let request = path_of(object).delete(&object.name_any(), &params);
        match self.ask::<K, serde::de::IgnoredAny>("delete", &name_of(object), request).await {
            // A UID that does not match means: the one we meant is gone.
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}
