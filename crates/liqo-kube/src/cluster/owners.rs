//! Owner references.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::json;

use super::{Cluster, KubeError, Object};

impl Cluster {
    /// Adds `owner` to the owner references of exactly this object, as it was seen; see [`owners_with`]. `None`: `owner` is
    /// there.
    pub async fn own<K: Object>(&self, object: &K, owner: OwnerReference) -> Result<Option<K>, KubeError> {
        let Some(owners) = owners_with(object, owner) else { return Ok(None) };
        let (uid, version) = (object.uid(), object.resource_version());
        let patch = json!({"metadata": {"ownerReferences": owners, "uid": uid, "resourceVersion": version}});
        self.merge(object, patch).await.map(Some)
    }
}

/// The owner references of `object` when `owner` is one of them. Other owners stay, except an earlier owner of the same kind
/// and name: that one is gone. `None`: `owner` is there.
pub fn owners_with<K: Object>(object: &K, owner: OwnerReference) -> Option<Vec<OwnerReference>> {
    let before = object.owner_references();
    if before.contains(&owner) {
        return None;
    }
    let is_other = |one: &&OwnerReference| (&one.kind, &one.name) != (&owner.kind, &owner.name);
    let mut owners: Vec<_> = before.iter().filter(is_other).cloned().collect();
    owners.push(owner);
    Some(owners)
}

/// An owner reference to `object`: the controlling one (it blocks deletion), or a plain one.
pub fn owner_reference<K: Object>(object: &K, controller: bool) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: controller.then_some(true),
        block_owner_deletion: controller.then_some(true),
    }
}
