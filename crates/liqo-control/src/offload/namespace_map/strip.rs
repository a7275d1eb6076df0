//! Finalizers inside a namespace of a peer whose withdrawal deadline is over: they would keep the namespace for ever, so they
//! are removed.
//!
//! Only what is being deleted, only in a namespace that is being deleted, and none of Kubernetes' own.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::Ingress,
};
use kube::ResourceExt;
use liqo_api::virtualkubelet::{ShadowEndpointSlice, ShadowPod};
use liqo_kube::{Cluster, KubeError, Object};
use serde_json::json;

use super::super::is_leaving;

/// Takes foreign finalizers from everything in a namespace that a peer may have made.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn namespace(cluster: &Cluster, namespace: &Namespace) -> Result<(), KubeError> {
    if !is_leaving(namespace) {
        return Ok(());
    }
    let name = namespace.name_any();
    kind::<ShadowPod>(cluster, &name).await?;
    kind::<ShadowEndpointSlice>(cluster, &name).await?;
    kind::<Pod>(cluster, &name).await?;
    kind::<ConfigMap>(cluster, &name).await?;
    kind::<Secret>(cluster, &name).await?;
    kind::<Service>(cluster, &name).await?;
    kind::<Ingress>(cluster, &name).await?;
    kind::<EndpointSlice>(cluster, &name).await?;
    kind::<PersistentVolumeClaim>(cluster, &name).await
}

async fn kind<K: Object>(cluster: &Cluster, namespace: &str) -> Result<(), KubeError> {
    for object in cluster.list::<K>(namespace, "").await?.iter().filter(|object| is_leaving(*object)) {
        let Some(kept) = kept(object.finalizers()) else { continue };
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        let held = object.finalizers().join(", ");
        tracing::warn!(
            namespace,
            kind,
            object = name,
            finalizers = held,
            "a finalizer that holds a peer's object is removed"
        );
        let metadata = json!({"finalizers": kept, "resourceVersion": object.resource_version()});
        match cluster.merge(object, json!({"metadata": metadata})).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The finalizers that are kept when the others are removed.
fn kept(all: &[String]) -> Option<Vec<&String>> {
    let own = |one: &&String| matches!(one.split_once('/'), Some((domain, _)) if domain.ends_with("kubernetes.io"));
    let kept: Vec<_> =
        all.iter().filter(|one| own(one) || matches!(one.as_str(), "orphan" | "foregroundDeletion")).collect();
    (kept.len() < all.len()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_of_kubernetes_stay() {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(kept(&all(&["kubernetes.io/pvc-protection", "foregroundDeletion"])), None);
        assert_eq!(kept(&[]), None);
        let held = all(&["p.io/never", "service.kubernetes.io/load-balancer-cleanup"]);
        assert_eq!(kept(&held), Some(vec![&held[1]]));
    }
}
