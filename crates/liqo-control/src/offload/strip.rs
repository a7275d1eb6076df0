//! Finalizers inside a namespace of a peer whose withdrawal deadline is over, and inside the tenant namespace of a banned
//! peer: they would keep the namespace for ever, so they are removed.
//!
//! Only what is being deleted, only in a namespace that is being deleted, and none of Kubernetes' own.

use std::time::Duration;

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::Ingress,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::ResourceRequest,
    meta::{finalizer, label},
    net::NetworkConfig,
    sharing::ResourceOffer,
    virtualkubelet::{NamespaceMap, ShadowEndpointSlice, ShadowPod},
};
use liqo_kube::{Cluster, KubeError, Object, now};
use serde_json::json;

use super::is_leaving;

/// Finalizers of the controllers that serve what a peer has sent, by kind. A peer may have written them on any object.
const ON_OFFERS: &[&str] = &[finalizer::NODE, finalizer::VIRTUAL_KUBELET];
const ON_NETWORKS: &[&str] = &[finalizer::NETWORK];
/// The controller lets go of every map, served or not, when the namespaces of the map are gone.
const ON_MAPS: &[&str] = &[finalizer::NAMESPACE_MAP];
/// How long those finalizers hold an object in a tenant namespace that ends: what they stand for has ended before.
const FAREWELL: Duration = Duration::from_secs(30);

/// Takes foreign finalizers from everything in a namespace that a peer may have made.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn namespace(cluster: &Cluster, namespace: &Namespace) -> Result<(), KubeError> {
    if !is_leaving(namespace) {
        return Ok(());
    }
    let name = namespace.name_any();
    kind::<ShadowPod>(cluster, &name, |_| &[]).await?;
    kind::<ShadowEndpointSlice>(cluster, &name, |_| &[]).await?;
    kind::<Pod>(cluster, &name, |_| &[]).await?;
    kind::<ConfigMap>(cluster, &name, |_| &[]).await?;
    kind::<Secret>(cluster, &name, |_| &[]).await?;
    kind::<Service>(cluster, &name, |_| &[]).await?;
    kind::<Ingress>(cluster, &name, |_| &[]).await?;
    kind::<EndpointSlice>(cluster, &name, |_| &[]).await?;
    kind::<PersistentVolumeClaim>(cluster, &name, |_| &[]).await
}

/// Takes finalizers from what is in the tenant namespace of a banned peer. On originals of this cluster the finalizer of the
/// replicator stays, which lets go by itself; on copies those of the controllers that serve them, for [`FAREWELL`].
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn tenant(cluster: &Cluster, namespace: &Namespace) -> Result<(), KubeError> {
    if !is_leaving(namespace) {
        return Ok(());
    }
    let (name, is_over) = (namespace.name_any(), is_over(namespace, &now()));
    let served = |of_copies: &'static [&'static str]| if is_over { &[] } else { of_copies };
    kind::<ResourceRequest>(cluster, &name, |one| held_by_us(one, &[])).await?;
    kind::<ResourceOffer>(cluster, &name, |one| held_by_us(one, served(ON_OFFERS))).await?;
    kind::<NamespaceMap>(cluster, &name, |one| held_by_us(one, ON_MAPS)).await?;
    kind::<NetworkConfig>(cluster, &name, |one| held_by_us(one, served(ON_NETWORKS))).await
}

/// The finalizers of this product that stay on an object; `of_copies` on copies that a peer made.
fn held_by_us<K: Object>(object: &K, of_copies: &'static [&'static str]) -> &'static [&'static str] {
    let is_original = object.labels().get(label::REPLICATION).is_some_and(|value| value == "true");
    if is_original { &[finalizer::CRD_REPLICATOR] } else { of_copies }
}

/// Whether [`FAREWELL`] is over since the deletion of a namespace.
fn is_over(namespace: &Namespace, now: &Time) -> bool {
    let since = namespace.metadata.deletion_timestamp.as_ref();
    let gone = since.map(|since| now.0.as_second().saturating_sub(since.0.as_second()));
    gone.and_then(|gone| u64::try_from(gone).ok()).is_some_and(|gone| gone >= FAREWELL.as_secs())
}

async fn kind<K: Object>(
    cluster: &Cluster,
    namespace: &str,
    ours: impl Fn(&K) -> &'static [&'static str],
) -> Result<(), KubeError> {
    for object in cluster.list::<K>(namespace, "").await?.iter().filter(|object| is_leaving(*object)) {
        let Some(kept) = kept(object.finalizers(), ours(object)) else { continue };
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
        assert_eq!(kept(&held, ON_MAPS), Some(vec![&held[0]]));
        assert_eq!(kept(&held[..1], ON_MAPS), None);
    }

    #[test]
    fn a_copy_is_not_held_by_the_finalizer_of_an_original() {
        let offer = |label: &str, value: &str| -> ResourceOffer {
            let metadata = json!({"name": "o", "labels": {label: value}});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"clusterId": "us"}})).unwrap()
        };
        let (original, copy) = (offer("liqo.io/replication", "true"), offer("liqo.io/replicated", "true"));
        assert_eq!(held_by_us(&original, ON_OFFERS), [finalizer::CRD_REPLICATOR]);
        assert_eq!(held_by_us(&copy, ON_OFFERS), ON_OFFERS);
        assert!(held_by_us(&copy, &[]).is_empty());
        assert_eq!(held_by_us(&offer("liqo.io/replication", "false"), ON_OFFERS), ON_OFFERS);
    }

    #[test]
    fn a_copy_is_held_for_a_time() {
        let at = |second| Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap());
        let mut namespace = Namespace::default();
        assert!(!is_over(&namespace, &at(1000)));
        namespace.metadata.deletion_timestamp = Some(at(100));
        for (now, over) in [(90, false), (100, false), (129, false), (130, true)] {
            assert_eq!(is_over(&namespace, &at(now)), over, "{now}");
        }
    }
}
