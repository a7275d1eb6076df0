//! Evictions: deletions of pods that the API server refuses while a disruption budget forbids them.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::{core::v1::Pod, policy::v1::Eviction};
use kube::{
    ResourceExt,
    api::{ObjectMeta, PostParams},
};

use super::{Cluster, KubeError, body, name_of, path_of};

/// Evictions that one call of [`Cluster::evict_all`] asks for at the same time.
const AT_ONCE: usize = 8;

impl Cluster {
    /// Asks for the eviction of pods, several at the same time, so that a slow answer delays few others. Returns each pod with
    /// the outcome of its eviction: `false` when a disruption budget forbids the eviction for now.
    pub async fn evict_all(&self, pods: Vec<Arc<Pod>>) -> Vec<(Arc<Pod>, Result<bool, KubeError>)> {
        let evictions = pods.into_iter().map(|pod| async move {
            let outcome = self.evict(&pod).await;
            (pod, outcome)
        });
        futures::stream::iter(evictions).buffer_unordered(AT_ONCE).collect().await
    }

    async fn evict(&self, pod: &Pod) -> Result<bool, KubeError> {
        let metadata = ObjectMeta { name: pod.metadata.name.clone(), ..ObjectMeta::default() };
        let eviction = body(&Eviction { metadata, delete_options: None });
        let request = path_of(pod).create_subresource("eviction", &pod.name_any(), &PostParams::default(), eviction);
        match self.ask::<Eviction, serde::de::IgnoredAny>("create", &name_of(pod), request).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) if error.code() == Some(429) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
