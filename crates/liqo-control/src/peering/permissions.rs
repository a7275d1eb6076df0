//! The rights of peers in this cluster: role bindings of the user named after the cluster ID of the peer.
//!
//! After a ban a peer is bound to no role before a key is certified for its ID again: certificates of the time before the ban are valid.
//! In its tenant namespace a peer has the role *basic* while it is a peer, *outgoing* while it is our provider, and
//! *incoming* while it is our consumer; [`grants`](liqo_core::grants) decide. During a withdrawal the peer keeps a role until its objects
//! are gone or the deadline is over, also when a tombstone waits for a dead peer. After the deadline the role *leaving*
//! replaces *outgoing* and *incoming*: the peer may see and delete its remaining objects. In-band the `NetworkConfig` is
//! deleted with the namespace, so nothing waits for the peer to delete it.
//!
//! The start of a withdrawal is recorded in annotations of the tenant namespace, which peers cannot write.
//!
//! Watches   `Namespace`, `ForeignCluster`, `ResourceRequest`, `ResourceOffer`, `NamespaceMap`, `NetworkConfig`, `RoleBinding`, `ResourceQuota`.
//! Writes    `RoleBinding` `liqo-binding-*` and, for the replicator, `liqo-crd-replicator-tenant`; the `ResourceQuota` `liqo-exchange` ([`crate::limits`]); annotations and Pod Security of tenant `Namespace`s; `ClusterRole` and
//!           `ClusterRoleBinding` `liqo-tenant-remote-*`.
//! Removes   the same, *basic* only from a peer that is banned.

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::Namespace,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleBinding, RoleRef, Subject},
};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{
    ClusterIdentity, discovery::PeeringType, meta::annotation, names, net::NetworkConfig, virtualkubelet::NamespaceMap,
};
use liqo_core::{
    decision::is_banned,
    grants::{Grant, Grants},
};
use liqo_kube::{Cluster, KubeError, now, owner_reference};
use serde_json::{Value, json};

use super::{tenant, world::World};
use crate::ledger::is_replica;

const RBAC: &str = "rbac.authorization.k8s.io";

/// The roles a peer may be bound to.
pub(crate) const ROLES: [&str; 4] = [
    names::PEERING_BASIC_ROLE,
    names::PEERING_OUTGOING_ROLE,
    names::PEERING_INCOMING_ROLE,
    names::PEERING_LEAVING_ROLE,
];

/// Name of the binding of a role in tenant namespaces.
pub(crate) fn binding_name(role: &str) -> String {
    format!("{}{role}", names::PEERING_BINDING_PREFIX)
}

/// Whether a binding has the name of one that is kept in tenant namespaces: of one of the [`ROLES`] of a peer, or of the role of the
/// replicator.
pub(crate) fn is_kept(binding: &RoleBinding) -> bool {
    let name = binding.name_any();
    name == names::CRD_REPLICATOR_TENANT_ROLE || ROLES.iter().any(|role| binding_name(role) == name)
}

/// What becomes of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Bind,
    Unbind,
    Keep,
}

/// Makes the role bindings of a tenant namespace those that the peer's grant asks for.
pub(crate) async fn settle(world: &World, namespace: String) -> Result<Option<Duration>, KubeError> {
    let Some(tenant) = world.namespaces.get("", &namespace) else { return Ok(None) };
    let Some(peer) = world.peer_of(&tenant).filter(|_| tenant.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    // After a failure the peer is given no right, and rights are taken back all the same.
    let prepared = prepare(world, &tenant).await;
    let found = ROLES.map(|role| world.bindings.get(&namespace, &binding_name(role)));
    let seen = seen(world, &tenant, &peer, found.each_ref().map(Option::is_some));
    let clocks = clocks(&seen);
    if clocks != seen.clocks {
        // A deadline that passes is acted on when the status records it.
        return write_down(&world.home.cluster, &tenant, &seen.clocks, &clocks).await.and(prepared).map(|()| None);
    }
    for ((role, step), found) in ROLES.into_iter().zip(plan(&seen)).zip(found) {
        match (step, found) {
            (Step::Bind, Some(binding)) if binds(binding.subjects.as_deref(), &peer) => {}
            (Step::Bind, _) if prepared.is_ok() => bind(&world.home.cluster, &namespace, role, &peer).await?,
            (Step::Unbind, Some(binding)) => {
                tracing::info!(peer, namespace, role, "role of a peer taken back");
                world.home.cluster.remove(binding.as_ref()).await?;
            }
            _ => {}
        }
    }
    prepared?;
    let now = now().0.as_second();
    let grants = [seen.grants.provider, seen.grants.consumer];
    let soon = grants.into_iter().zip(clocks).filter(|(_, runs)| *runs).filter_map(|(grant, _)| grant.ends_in(now));
    let more_in = world.exchange.limits.more_in(now);
    Ok(soon.chain(more_in).min().map(|rest| rest.max(Duration::from_secs(1))))
}

/// Makes what a tenant namespace must have before the peer has a right to create anything.
async fn prepare(world: &World, tenant: &Namespace) -> Result<(), KubeError> {
    let namespace = tenant.name_any();
    world.exchange.limit(&world.home.cluster, &namespace).await?;
    bind_replicator(world, &namespace).await?;
    tenant::secure(&world.home.cluster, tenant, world.pod_security).await
}

fn seen(world: &World, tenant: &Namespace, peer: &str, bound: [bool; 4]) -> Seen {
    let namespace = tenant.name_any();
    let foreign_cluster = world.foreign_cluster(peer);
    let is_in_band = foreign_cluster.as_ref().is_some_and(|one| one.spec.peering_type == PeeringType::InBand);
    let lies_here = |one: &NetworkConfig| one.namespace().as_ref() == Some(&namespace) && is_replica(one, peer);
    let has_map = |one: &NamespaceMap| one.namespace().as_ref() == Some(&namespace) && is_replica(one, peer);
    let networks = world.networks.iter().filter(|_| !is_in_band);
    let [_, outgoing, incoming, _] = bound;
    Seen {
        is_peer: foreign_cluster.is_some(),
        needs_identity: foreign_cluster
            .as_ref()
            .is_some_and(|one| one.annotations().contains_key(annotation::LAST_CERTIFICATE))
            && world.secrets.get(&namespace, names::REMOTE_CERTIFICATE_SECRET).is_none(),
        is_banned: foreign_cluster.is_some_and(|one| is_banned(&one)),
        grants: world.grants(peer),
        agreed: [
            world.our_request(&namespace, peer).is_some() || world.their_offer(&namespace, peer).is_some(),
            world.their_request(&namespace, peer).is_some() || world.our_offer(&namespace, peer).is_some(),
        ],
        bound: [outgoing, incoming],
        has_map: !world.maps.filter(has_map).is_empty(),
        has_network: networks.flat_map(|store| store.filter(lies_here)).next().is_some(),
        clocks: CLOCKS.map(|key| tenant.annotations().contains_key(key)),
    }
}

/// The place of the direction *consumer* in a pair.
const CONSUMER: usize = 1;

/// The time a direction began to leave; directions are *provider* and *consumer*, in this order.
const CLOCKS: [&str; 2] = [annotation::OUTGOING_LEAVING_SINCE, annotation::INCOMING_LEAVING_SINCE];

/// Starts and ends the times of leaving.
async fn write_down(cluster: &Cluster, tenant: &Namespace, old: &[bool; 2], new: &[bool; 2]) -> Result<(), KubeError> {
    let mut annotations = serde_json::Map::new();
    for ((key, old), new) in CLOCKS.into_iter().zip(old).zip(new).filter(|((_, old), new)| old != new) {
        tracing::info!(
            namespace = tenant.name_any(),
            direction = key,
            leaves = new,
            was = old,
            "leave is taken of a peer"
        );
        annotations.insert(key.to_owned(), if *new { json!(now()) } else { Value::Null });
    }
    cluster.merge(tenant, json!({"metadata": {"uid": tenant.uid(), "annotations": annotations}})).await.map(drop)
}

/// Everything the bindings depend on. Pairs are *provider* and *consumer*.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The peer has a `ForeignCluster`.
    is_peer: bool,
    /// The peer was banned, and no key has been certified for its ID since.
    needs_identity: bool,
    /// The peer is banned.
    is_banned: bool,
    grants: Grants,
    /// A request or an offer is there.
    agreed: [bool; 2],
    /// The role of the direction is bound.
    bound: [bool; 2],
    /// The peer, as a consumer, has a map here, which only the peer withdraws: request and offer may go before the map.
    has_map: bool,
    /// The peer has announced its network here, and has to withdraw the announcement.
    has_network: bool,
    /// The time of leaving is written down.
    clocks: [bool; 2],
}

impl Seen {
    fn grants(&self) -> [Grant; 2] {
        [self.grants.provider, self.grants.consumer]
    }
}

/// For which directions a time of leaving is to be written down: what was granted, no longer is, and left something.
fn clocks(seen: &Seen) -> [bool; 2] {
    let grants = seen.grants();
    let network_left = seen.has_network && !grants.iter().any(|grant| grant.is_granted());
    [0, 1].map(|one| {
        let left = seen.agreed[one] || network_left || (one == CONSUMER && seen.has_map);
        !grants[one].is_granted() && left && (seen.bound[one] || seen.clocks[one])
    })
}

/// One wanted binding, or none, for each of [`ROLES`].
fn plan(seen: &Seen) -> [Step; 4] {
    if seen.is_banned {
        return [Step::Unbind; 4];
    }
    let grants = seen.grants();
    // What a direction is about is gone, or its time is over: the peer takes back what is left, and makes nothing more.
    let takes_back = |one: usize| seen.clocks[one] && (grants[one] == Grant::Nothing || !seen.agreed[one]);
    // The ban took every role. A role that is there was bound when the key was certified, a moment before this controller sees the key.
    let bind = if seen.needs_identity { Step::Keep } else { Step::Bind };
    let step = |one: usize| match grants[one] {
        Grant::Full | Grant::Kept => bind,
        Grant::Leaving { .. } if !takes_back(one) => Step::Keep,
        Grant::Leaving { .. } | Grant::Nothing => Step::Unbind,
    };
    let basic = if seen.is_peer { bind } else { Step::Keep };
    let leaving = (0..2).any(|one| !grants[one].is_granted() && takes_back(one));
    [basic, step(0), step(CONSUMER), if leaving { bind } else { Step::Unbind }]
}

/// Lets the replicator read the identities in a tenant namespace, as long as the namespace is there: also a peer that is banned has
/// replicas that are to be removed.
async fn bind_replicator(world: &World, namespace: &str) -> Result<(), KubeError> {
    let (cluster, name) = (&world.home.cluster, names::CRD_REPLICATOR_TENANT_ROLE);
    let (account, found) = (replicator(&world.home.namespace), world.bindings.get(namespace, name));
    match (replicator_step(found.as_deref(), &account), found) {
        (Step::Unbind, Some(found)) => cluster.remove(&*found).await,
        (Step::Bind, _) => apply_binding(cluster, (namespace, name), name, account).await,
        (Step::Keep | Step::Unbind, _) => Ok(()),
    }
}

/// The account of the replicator; `namespace` is that of Liqo.
fn replicator(namespace: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: names::CRD_REPLICATOR.to_owned(),
        namespace: Some(namespace.to_owned()),
        api_group: None,
    }
}

/// What becomes of the binding of the replicator's role. A role reference cannot be changed: a binding with another one is removed, and
/// its end wakes this controller.
fn replicator_step(found: Option<&RoleBinding>, account: &Subject) -> Step {
    match found {
        Some(found) if found.role_ref != role_ref(names::CRD_REPLICATOR_TENANT_ROLE) => Step::Unbind,
        Some(found) if found.subjects.as_deref() == Some(std::slice::from_ref(account)) => Step::Keep,
        _ => Step::Bind,
    }
}

fn user(peer: &str) -> Subject {
    Subject { api_group: Some(RBAC.to_owned()), kind: "User".to_owned(), name: peer.to_owned(), namespace: None }
}

fn role_ref(name: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC.to_owned()), kind: "ClusterRole".to_owned(), name: name.to_owned() }
}

fn binds(subjects: Option<&[Subject]>, peer: &str) -> bool {
    matches!(subjects, Some([one]) if one.kind == "User" && one.name == peer)
}

/// Binds the user of a peer to a cluster role in a namespace.
///
/// # Errors
/// When the API server refuses, or there is no such role.
pub(crate) async fn bind(cluster: &Cluster, namespace: &str, role: &str, peer: &str) -> Result<(), KubeError> {
    apply_binding(cluster, (namespace, &binding_name(role)), role, user(peer)).await
}

/// Binds a subject to a cluster role in a namespace. The binding goes with the role, when the product is removed.
async fn apply_binding(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    role: &str,
    subject: Subject,
) -> Result<(), KubeError> {
    let found: Option<ClusterRole> = cluster.get("", role).await?;
    let binding = RoleBinding {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            owner_references: found.map(|role| vec![owner_reference(&role, false)]),
            ..ObjectMeta::default()
        },
        role_ref: role_ref(role),
        subjects: Some(vec![subject]),
    };
    cluster.apply(&binding).await.map(drop)
}

/// Lets a peer read the metrics of its own pods.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn grant_metrics(cluster: &Cluster, peer: &ClusterIdentity) -> Result<(), KubeError> {
    let name = format!("{}{}", names::TENANT_REMOTE_PREFIX, peer.cluster_name);
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let rule = PolicyRule {
        api_groups: Some(vec!["metrics.liqo.io".to_owned()]),
        resources: Some(vec!["scrape".to_owned(), "scrape/metrics".to_owned()]),
        resource_names: Some(vec![peer.cluster_id.clone()]),
        verbs: vec!["get".to_owned()],
        ..PolicyRule::default()
    };
    let role = ClusterRole { metadata: metadata.clone(), rules: Some(vec![rule]), aggregation_rule: None };
    cluster.apply(&role).await?;
    let subjects = Some(vec![user(&peer.cluster_id)]);
    cluster.apply(&ClusterRoleBinding { metadata, role_ref: role_ref(&name), subjects }).await.map(drop)
}

/// Takes back what [`grant_metrics`] gave. The peer may be known by its ID alone: the binding tells the name.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn revoke_metrics(cluster: &Cluster, peer: &str) -> Result<(), KubeError> {
    for binding in cluster.list::<ClusterRoleBinding>("", "").await? {
        let name = binding.name_any();
        if name.starts_with(names::TENANT_REMOTE_PREFIX) && binds(binding.subjects.as_deref(), peer) {
            cluster.remove(&binding).await?;
            if let Some(role) = cluster.get::<ClusterRole>("", &name).await? {
                cluster.remove(&role).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAVING: Grant = Grant::Leaving { until: 9 };

    fn seen(provider: Grant, consumer: Grant) -> Seen {
        Seen {
            is_peer: true,
            needs_identity: false,
            is_banned: false,
            grants: Grants { provider, consumer },
            agreed: [false, false],
            bound: [false, false],
            has_map: false,
            has_network: false,
            clocks: [false, false],
        }
    }

    #[test]
    fn the_replicator_alone_reads_identities() {
        let (account, other) = (replicator("liqo"), replicator("elsewhere"));
        let binding = |role: &str, subjects: &[&Subject]| RoleBinding {
            role_ref: role_ref(role),
            subjects: Some(subjects.iter().map(|one| (*one).clone()).collect()),
            ..RoleBinding::default()
        };
        let role = names::CRD_REPLICATOR_TENANT_ROLE;
        for (what, found, wanted) in [
            ("nothing is bound", None, Step::Bind),
            ("as wanted", Some(binding(role, &[&account])), Step::Keep),
            ("nobody is bound", Some(binding(role, &[])), Step::Bind),
            ("another account", Some(binding(role, &[&other])), Step::Bind),
            ("one account more", Some(binding(role, &[&account, &other])), Step::Bind),
            ("a peer", Some(binding(role, &[&user("milan")])), Step::Bind),
            ("another role", Some(binding("cluster-admin", &[&account])), Step::Unbind),
            ("another role of another", Some(binding("cluster-admin", &[&other])), Step::Unbind),
        ] {
            assert_eq!(replicator_step(found.as_ref(), &account), wanted, "{what}");
        }
    }

    #[test]
    fn bindings_follow_what_is_granted() {
        use Grant::{Full, Kept, Nothing};
        use Step::{Bind, Keep, Unbind};
        let runs = |provider, consumer| Seen { clocks: [true, true], ..seen(provider, consumer) };
        for (what, seen, steps) in [
            ("a peer", seen(Nothing, Nothing), [Bind, Unbind, Unbind, Unbind]),
            ("a stranger", Seen { is_peer: false, ..seen(Nothing, Nothing) }, [Keep, Unbind, Unbind, Unbind]),
            ("a provider", seen(Full, Nothing), [Bind, Bind, Unbind, Unbind]),
            ("a consumer", seen(Nothing, Full), [Bind, Unbind, Bind, Unbind]),
            ("both", seen(Full, Full), [Bind, Bind, Bind, Unbind]),
            ("a cordoned consumer", seen(Nothing, Kept), [Bind, Unbind, Bind, Unbind]),
            ("one that waits for an offer", seen(Nothing, LEAVING), [Bind, Unbind, Keep, Unbind]),
            (
                "a consumer on its way out",
                Seen { agreed: [true, true], ..runs(Full, LEAVING) },
                [Bind, Bind, Keep, Unbind],
            ),
            ("one of which only the map is left", runs(Full, LEAVING), [Bind, Bind, Unbind, Bind]),
            ("one whose time is over", runs(Full, Nothing), [Bind, Bind, Unbind, Bind]),
            ("one whose ban was lifted", Seen { needs_identity: true, ..seen(Full, Full) }, [Keep, Keep, Keep, Unbind]),
            (
                "one whose ban was lifted, on its way out",
                Seen { needs_identity: true, ..runs(Nothing, LEAVING) },
                [Keep, Unbind, Unbind, Keep],
            ),
            ("one that is banned", Seen { is_banned: true, ..runs(Nothing, Nothing) }, [Unbind; 4]),
        ] {
            assert_eq!(plan(&seen), steps, "{what}");
        }
    }

    #[test]
    fn the_time_runs_while_something_is_left_of_what_was_granted() {
        use Grant::{Full, Nothing};
        let (left, bound) = ([false, true], [false, true]);
        for (what, seen, wanted) in [
            ("granted", Seen { agreed: left, bound, ..seen(Nothing, Full) }, [false, false]),
            ("never granted", Seen { agreed: left, ..seen(Nothing, LEAVING) }, [false, false]),
            ("withdrawn", Seen { agreed: left, bound, ..seen(Nothing, LEAVING) }, [false, true]),
            ("over", Seen { agreed: left, clocks: left, ..seen(Nothing, Nothing) }, [false, true]),
            ("its map is left", Seen { has_map: true, bound, ..seen(Nothing, LEAVING) }, [false, true]),
            ("a map without a grant", Seen { has_map: true, ..seen(Nothing, Nothing) }, [false, false]),
            ("its network is left", Seen { has_network: true, bound, ..seen(Nothing, Nothing) }, [false, true]),
            (
                "its network is needed by the other direction",
                Seen { has_network: true, bound: [true, true], ..seen(Full, Nothing) },
                [false, false],
            ),
            ("nothing is left", Seen { bound, clocks: left, ..seen(Nothing, Nothing) }, [false, false]),
            ("granted again", Seen { agreed: left, bound, clocks: left, ..seen(Nothing, Full) }, [false, false]),
        ] {
            assert_eq!(clocks(&seen), wanted, "{what}");
        }
    }
}
