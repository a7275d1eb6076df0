//! Tenant namespaces: for each peer the one namespace where both clusters put what they exchange.
//!
//! A namespace that the `ForeignCluster` has on record wins over the computed name; two of one peer are refused, since
//! nobody could say which one counts. A namespace that only carries the labels is none ([`naming::tenant_of`]). A name that
//! another cluster took, which may have searched for an ID with the same hash, locks nobody out.
//!
//! Writes    `Namespace`; the label of Pod Security that tenant namespaces lack.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, meta::label};
use liqo_core::{naming, peering::tenant_namespace};
use liqo_kube::{Cluster, KubeError};
use serde_json::{Value, json};

/// Whether a peer has a tenant namespace that can be used.
#[derive(Debug)]
pub(crate) enum Tenant {
    /// The namespace exists and has this name.
    Ready(String),
    /// The namespace cannot be used: the reason.
    Refused(String),
}

/// Chooses among the namespaces labelled for a peer.
pub(crate) fn choose<'a>(labelled: impl IntoIterator<Item = &'a Namespace>) -> Option<Tenant> {
    let all: Vec<_> = labelled.into_iter().collect();
    match all.as_slice() {
        [] => None,
        [one] if one.metadata.deletion_timestamp.is_some() => {
            Some(Tenant::Refused(format!("the tenant namespace {} is being deleted", one.name_any())))
        }
        [one] => Some(Tenant::Ready(one.name_any())),
        several => {
            let names: Vec<_> = several.iter().map(|one| one.name_any()).collect();
            Some(Tenant::Refused(format!(
                "the namespaces {} all carry the label {} of this peer: delete all but one",
                names.join(", "),
                label::CLUSTER_ID
            )))
        }
    }
}

/// Makes sure that `peer` has a tenant namespace; `known` are those already labelled for it.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn ensure(
    cluster: &Cluster,
    known: &[Namespace],
    peer: &ClusterIdentity,
) -> Result<Tenant, KubeError> {
    if let Some(tenant) = choose(known) {
        return Ok(tenant);
    }
    if let Some(made) = make(cluster, peer).await? {
        return Ok(Tenant::Ready(made.name_any()));
    }
    let mut there = Vec::new();
    for name in names_for(peer) {
        there.extend(cluster.get::<Namespace>("", &name).await?);
    }
    let ours = there.iter().find(|one| is_for(one, peer));
    Ok(ours.and_then(|one| choose([one])).unwrap_or_else(|| {
        Tenant::Refused(format!(
            "the namespaces {} exist but none is labelled {}={} and {}=true",
            names_for(peer).join(" and "),
            label::CLUSTER_ID,
            peer.cluster_id,
            label::TENANT_NAMESPACE
        ))
    }))
}

/// Makes the tenant namespace of `peer`, under the longer name where the usual one is another's; `None`: the peer has one, or both
/// names are taken.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn make(cluster: &Cluster, peer: &ClusterIdentity) -> Result<Option<Namespace>, KubeError> {
    for name in names_for(peer) {
        match cluster.create(&tenant_namespace(&name, peer)).await {
            Ok(made) => return Ok(Some(made)),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        let there = cluster.get::<Namespace>("", &name).await?;
        // A namespace that went meanwhile is made at the next try.
        if there.is_none_or(|there| is_for(&there, peer)) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The Pod Security Standard of tenant namespaces, where virtual kubelets run. Where the platform sets the security context of virtual
/// kubelets, the template of their pods has none that is restricted.
pub(crate) fn pod_security(platform_sets_context: bool) -> &'static str {
    if platform_sets_context { "baseline" } else { "restricted" }
}

/// The labels that a tenant namespace lacks for a Pod Security Standard to be enforced; `None`: a standard is enforced already, also
/// one that an administrator has chosen.
fn missing_security(namespace: &Namespace, level: &str) -> Option<Value> {
    let enforce = format!("{}enforce", label::POD_SECURITY_PREFIX);
    (!namespace.labels().contains_key(&enforce)).then(|| json!({ (enforce): level }))
}

/// Enforces a Pod Security Standard in a tenant namespace that enforces none.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn secure(cluster: &Cluster, namespace: &Namespace, level: &str) -> Result<(), KubeError> {
    match missing_security(namespace, level) {
        Some(labels) => {
            let meta = json!({"uid": namespace.uid(), "labels": labels});
            cluster.merge(namespace, json!({ "metadata": meta })).await.map(drop)
        }
        None => Ok(()),
    }
}

/// The names that a tenant namespace made for `peer` can have, the usual one first.
fn names_for(peer: &ClusterIdentity) -> Vec<String> {
    let names = [naming::tenant_namespace(peer), naming::longer_tenant_namespace(peer)];
    names.into_iter().filter(|name| naming::dns_label_error(name).is_none()).collect()
}

/// Whether a namespace was made for `peer`.
fn is_for(namespace: &Namespace, peer: &ClusterIdentity) -> bool {
    naming::claimed_tenant_of(namespace) == Some(peer.cluster_id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, deleting: bool) -> Namespace {
        let time = deleting.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({"metadata": {"name": name, "deletionTimestamp": time}})).unwrap()
    }

    #[test]
    fn one_namespace_is_used_and_two_are_refused() {
        let (a, b) = (namespace("a", false), namespace("b", true));
        assert!(choose([]).is_none());
        assert!(matches!(choose([&a]), Some(Tenant::Ready(name)) if name == "a"));
        assert!(matches!(choose([&b]), Some(Tenant::Refused(why)) if why.contains("being deleted")));
        assert!(matches!(choose([&a, &b]), Some(Tenant::Refused(why)) if why.contains("a, b")));
    }

    #[test]
    fn pods_in_tenant_namespaces_meet_a_standard() {
        assert_eq!((pod_security(false), pod_security(true)), ("restricted", "baseline"));
        let mut tenant = namespace("a", false);
        let wanted = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        assert_eq!(missing_security(&tenant, "restricted"), Some(wanted));
        tenant.labels_mut().insert("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned());
        assert_eq!(missing_security(&tenant, "restricted"), None, "an administrator has chosen");
    }

    #[test]
    fn a_taken_name_has_a_longer_one_behind_it() {
        let peer = |name: &str| ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", name);
        let names = names_for(&peer("provider"));
        assert_eq!(names[0], "liqo-tenant-provider-ca6261");
        assert!(
            names[1].starts_with("liqo-tenant-provider-ca6261") && names[1].len() > names[0].len() + 8,
            "{names:?}"
        );
        assert_eq!(names_for(&peer(&"n".repeat(44))).len(), 1, "the longer name is too long");
    }
}
