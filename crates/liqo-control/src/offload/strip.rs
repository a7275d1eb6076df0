//! Finalizers inside a namespace of a peer whose withdrawal deadline is over, and inside the tenant namespace of a banned
//! peer: the finalizers would keep the namespace for ever, so they are removed.
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

/// The condition by which Kubernetes says that finalizers hold objects in a namespace that ends.
const FINALIZERS_REMAIN: &str = "NamespaceFinalizersRemaining";
/// The condition by which Kubernetes names the kinds of the objects that are left in a namespace that ends.
const CONTENT_REMAINS: &str = "NamespaceContentRemaining";
/// The conditions of a namespace that this module reads.
pub(crate) const CONDITIONS: [&str; 2] = [FINALIZERS_REMAIN, CONTENT_REMAINS];
/// Shortest and longest pause before a namespace with held objects is looked at again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// Takes the finalizers of others from everything in a namespace that a peer may have made. Returns when to look again if objects
/// are held; otherwise the next change of the namespace is the time.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn namespace(cluster: &Cluster, namespace: &Namespace) -> Result<Option<Duration>, KubeError> {
    let Some(held) = Held::of(namespace) else { return Ok(None) };
    kind::<ShadowPod>(cluster, &held, |_| &[]).await?;
    kind::<ShadowEndpointSlice>(cluster, &held, |_| &[]).await?;
    kind::<Pod>(cluster, &held, |_| &[]).await?;
    kind::<ConfigMap>(cluster, &held, |_| &[]).await?;
    kind::<Secret>(cluster, &held, |_| &[]).await?;
    kind::<Service>(cluster, &held, |_| &[]).await?;
    kind::<Ingress>(cluster, &held, |_| &[]).await?;
    kind::<EndpointSlice>(cluster, &held, |_| &[]).await?;
    kind::<PersistentVolumeClaim>(cluster, &held, |_| &[]).await?;
    Ok(Some(pause(namespace, &now())))
}

/// Takes finalizers from what is in the tenant namespace of a banned peer. On originals of this cluster the finalizer of the
/// replicator stays, which lets go by itself; on copies the finalizers of the controllers that serve the copies stay for
/// [`FAREWELL`]. Returns when to look again, as [`namespace`] does.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn tenant(cluster: &Cluster, namespace: &Namespace) -> Result<Option<Duration>, KubeError> {
    let Some(held) = Held::of(namespace) else { return Ok(None) };
    let is_over = is_over(namespace, &now());
    let served = |of_copies: &'static [&'static str]| if is_over { &[] } else { of_copies };
    kind::<ResourceRequest>(cluster, &held, |one| held_by_us(one, &[])).await?;
    kind::<ResourceOffer>(cluster, &held, |one| held_by_us(one, served(ON_OFFERS))).await?;
    kind::<NamespaceMap>(cluster, &held, |one| held_by_us(one, ON_MAPS)).await?;
    kind::<NetworkConfig>(cluster, &held, |one| held_by_us(one, served(ON_NETWORKS))).await?;
    Ok(Some(pause(namespace, &now())))
}

/// A namespace that ends, in which finalizers hold objects, as Kubernetes says in the status of the namespace. So nothing is
/// listed in a namespace that ends by itself, and of a namespace that does not only the kinds that are left.
struct Held<'a> {
    namespace: String,
    /// What Kubernetes says about the objects that are left: `configmaps. has 2 resource instances, …`.
    content: &'a str,
}

impl<'a> Held<'a> {
    /// `None`: the namespace does not end, or no finalizer holds anything in the namespace.
    fn of(namespace: &'a Namespace) -> Option<Self> {
        let all = namespace.status.as_ref()?.conditions.as_deref().unwrap_or_default();
        let says = |type_: &str| all.iter().find(|one| one.type_ == type_ && one.status == "True");
        let is_held = is_leaving(namespace) && says(FINALIZERS_REMAIN).is_some();
        let content = says(CONTENT_REMAINS).and_then(|one| one.message.as_deref()).unwrap_or_default();
        is_held.then(|| Self { namespace: namespace.name_any(), content })
    }

    /// Whether objects of a kind may be left. A wording that is not known names every kind.
    fn names<K: Object>(&self) -> bool {
        let kind = format!("{}.{} has ", K::plural(&()), K::group(&()));
        self.content.contains(&kind) || !self.content.contains(" resource instances")
    }
}

/// The pause before a namespace with held objects is looked at again: a quarter of the time since the deletion.
fn pause(namespace: &Namespace, now: &Time) -> Duration {
    (gone(namespace, now) / 4).clamp(PAUSES.0, PAUSES.1)
}

/// The time since the deletion of a namespace.
fn gone(namespace: &Namespace, now: &Time) -> Duration {
    let since = namespace.metadata.deletion_timestamp.as_ref();
    let seconds = since.map(|since| now.0.as_second().saturating_sub(since.0.as_second())).unwrap_or_default();
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// The finalizers of this product that stay on an object; `of_copies` on copies that a peer made.
fn held_by_us<K: Object>(object: &K, of_copies: &'static [&'static str]) -> &'static [&'static str] {
    let is_original = object.labels().get(label::REPLICATION).is_some_and(|value| value == "true");
    if is_original { &[finalizer::CRD_REPLICATOR] } else { of_copies }
}

/// Whether [`FAREWELL`] is over since the deletion of a namespace.
fn is_over(namespace: &Namespace, now: &Time) -> bool {
    gone(namespace, now) >= FAREWELL
}

/// Takes finalizers from the objects of one kind, except those that `ours` names.
async fn kind<K: Object>(
    cluster: &Cluster,
    held: &Held<'_>,
    ours: impl Fn(&K) -> &'static [&'static str],
) -> Result<(), KubeError> {
    if !held.names::<K>() {
        return Ok(());
    }
    let namespace = held.namespace.as_str();
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

    /// A namespace that was deleted 100 s ago, with a value for each of [`CONDITIONS`].
    fn ending(finalizers: &str, content: &str) -> Namespace {
        let condition = |type_: &str, status: &str, message: &str| json!({"type": type_, "status": status, "message": message, "reason": "r"});
        let conditions = [
            condition("NamespaceDeletionContentFailure", "False", ""),
            condition(FINALIZERS_REMAIN, finalizers, "Some content in the namespace has finalizers remaining"),
            condition(CONTENT_REMAINS, if content.is_empty() { "False" } else { "True" }, content),
        ];
        let metadata = json!({"name": "demo", "deletionTimestamp": "1970-01-01T00:01:40Z"});
        serde_json::from_value(json!({"metadata": metadata, "status": {"conditions": conditions}})).unwrap()
    }

    #[test]
    fn only_kinds_that_kubernetes_says_are_left_are_listed() {
        let said = "Some resources are remaining: configmaps. has 2 resource instances, \
                    shadowpods.virtualkubelet.liqo.io has 1 resource instances";
        let kinds = |namespace: &Namespace| {
            Held::of(namespace)
                .map(|held| [held.names::<ConfigMap>(), held.names::<ShadowPod>(), held.names::<Secret>()])
        };
        let mut stays = ending("True", said);
        stays.metadata.deletion_timestamp = None;
        for (what, namespace, wanted) in [
            ("held", ending("True", said), Some([true, true, false])),
            ("an unknown wording", ending("True", "something is left"), Some([true; 3])),
            ("no word about kinds", ending("True", ""), Some([true; 3])),
            ("objects that end by themselves", ending("False", said), None),
            ("not being deleted", stays, None),
            ("just deleted", Namespace { status: None, ..ending("True", said) }, None),
        ] {
            assert_eq!(kinds(&namespace), wanted, "{what}");
        }
    }

    #[test]
    fn the_longer_a_namespace_is_held_the_longer_is_the_pause() {
        let at = |second| Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap());
        for (now, seconds) in [(90, 3), (100, 3), (112, 3), (120, 5), (180, 20), (1000, 30)] {
            assert_eq!(pause(&ending("True", ""), &at(now)), Duration::from_secs(seconds), "{now}");
        }
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
