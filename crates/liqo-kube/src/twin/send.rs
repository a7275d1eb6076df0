//! How a twin is written into the other cluster.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::json;

use super::compare::{self, surplus};
use crate::{Cluster, KubeError, Object};

/// Applies a twin. An older peer refuses fields its definitions do not know yet: those are left out.
///
/// Server-side apply makes null of a map whose last entry is taken away, and where the definition has no default (as
/// those of 0.8.3) the API server then refuses that null: there, entries are taken away by a patch first.
pub(super) async fn apply<K: Object>(cluster: &Cluster, twin: &K, there: Option<&K>) -> Result<(), KubeError> {
    let Err(error) = cluster.apply(twin).await else { return Ok(()) };
    if error.code() == Some(422)
        && let Some(there) = there
        && let Some(mut patch) = surplus(&compare::json(twin), there)
    {
        patch["metadata"]["uid"] = json!(there.meta().uid);
        cluster.merge(there, patch).await?;
        return cluster.apply(twin).await.map(drop);
    }
    match super::unknown::without(twin, &crate::drive::chain(&error)) {
        Some(known) => cluster.apply(&known).await.map(drop),
        None => Err(error),
    }
}

/// Tells forged twins apart, within this process.
pub(super) fn fingerprint<K: Object>(twin: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    compare::json(twin).hash(&mut hasher);
    hasher.finish()
}
