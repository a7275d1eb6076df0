//! Finalizers inside a namespace of a peer whose withdrawal deadline is over, and inside the tenant namespace of a banned
//! peer: they would keep the namespace for ever, so they are removed.
//!
//! Only what is being deleted, only in a namespace that is being deleted, and none of Kubernetes' own.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::Ingress,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::ResourceRequest,
    meta::finalizer,
    net::NetworkConfig,
    sharing::ResourceOffer,
    virtualkubelet::{NamespaceMap, ShadowEndpointSlice, ShadowPod},
};
use liqo_kube::{Cluster, KubeError, Object};
use serde_json::json;

use super::is_leaving;

/// Finalizers of this product on what is exchanged with peers; the last one is the network manager's.
const OURS: &[&str] = &[
    finalizer::CRD_REPLICATOR,
    finalizer::NODE,
    finalizer::VIRTUAL_KUBELET,
    finalizer::NAMESPACE_MAP,
    finalizer::NETWORK,
];

/// Takes foreign finalizers from everything in a namespace that a peer may have made.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn namespace(cluster: &Cluster, namespace: &Namespace) -> Result<(), KubeError> {
    if !is_leaving(namespace) {
        return Ok(());
    }
    let name = namespace.name_any();
    kind::<ShadowPod>(cluster, &name, &[]).await?;
    kind::<ShadowEndpointSlice>(cluster, &name, &[]).await?;
    kind::<Pod>(cluster, &name, &[]).await?;
    kind::<ConfigMap>(cluster, &name, &[]).await?;
    kind::<Secret>(cluster, &name, &[]).await?;
    kind::<Service>(cluster, &name, &[]).await?;
    kind::<Ingress>(cluster, &name, &[]).await?;
    kind::<EndpointSlice>(cluster, &name, &[]).await?;
    kind::<PersistentVolumeClaim>(cluster, &name, &[]).await
}

/// Takes foreign finalizers from what a banned peer has sent to its tenant namespace; those of this product stay.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn tenant(cluster: &Cluster, namespace: &Namespace) -> Result<(), KubeError> {
    if !is_leaving(namespace) {
        return Ok(());
    }
    let name = namespace.name_any();
    kind::<ResourceRequest>(cluster, &name, OURS).await?;
    kind::<ResourceOffer>(cluster, &name, OURS).await?;
    kind::<NamespaceMap>(cluster, &name, OURS).await?;
    kind::<NetworkConfig>(cluster, &name, OURS).await
}

async fn kind<K: Object>(cluster: &Cluster, namespace: &str, ours: &[&str]) -> Result<(), KubeError> {
    for object in cluster.list::<K>(namespace, "").await?.iter().filter(|object| is_leaving(*object)) {
        let Some(kept) = kept(object.finalizers(), ours) else { continue };
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

/// The finalizers that are kept when the others are removed: those of Kubernetes, and `ours`.
fn kept<'a>(all: &'a [String], ours: &[&str]) -> Option<Vec<&'a String>> {
    let own = |one: &&String| matches!(one.split_once('/'), Some((domain, _)) if domain.ends_with("kubernetes.io"));
    let stays = |one: &&String| {
        own(one) || matches!(one.as_str(), "orphan" | "foregroundDeletion") || ours.contains(&one.as_str())
    };
    let kept: Vec<_> = all.iter().filter(stays).collect();
    (kept.len() < all.len()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_of_kubernetes_stay() {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(kept(&all(&["kubernetes.io/pvc-protection", "foregroundDeletion"]), &[]), None);
        assert_eq!(kept(&[], &[]), None);
        let held = all(&["p.io/never", "service.kubernetes.io/load-balancer-cleanup"]);
        assert_eq!(kept(&held, &[]), Some(vec![&held[1]]));
        let held = all(&[finalizer::NAMESPACE_MAP, "evil.liqo.io/never"]);
        assert_eq!(kept(&held, OURS), Some(vec![&held[0]]));
        assert_eq!(kept(&held[..1], OURS), None);
    }
}
