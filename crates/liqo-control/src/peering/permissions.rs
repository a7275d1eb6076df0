//! What a peer may do here: bindings of its user, which is named after its cluster ID.
//!
//! In its tenant namespace the role *basic* as soon as it is a peer, *outgoing* while we ask it for
//! resources, *incoming* while it asks us. These follow from the requests and offers that exist, not
//! from conditions: while a tombstone waits for a dead peer, the peer keeps the right to clean up its
//! side of it, and no `ForeignCluster` is needed to take the right away in the end. For the same reason nothing is
//! taken away while the peer still has to take its `NetworkConfig` from here; in-band that goes with the namespace.
//!
//! Watches   `Namespace`, `ForeignCluster`, `ResourceRequest`, `ResourceOffer`, `NetworkConfig`, `RoleBinding`.
//! Writes    `RoleBinding` `liqo-binding-*`; `ClusterRole` and `ClusterRoleBinding` `liqo-tenant-remote-*`.
//! Removes   the same, except *basic*.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleBinding, RoleRef, Subject};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{
    ClusterIdentity,
    discovery::{PeeringType, ResourceRequest},
    names,
    net::NetworkConfig,
    sharing::ResourceOffer,
};
use liqo_kube::{Cluster, KubeError, owner_reference};

use super::{
    tenant,
    world::{World, is_original, is_replica},
};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The three roles a peer may be bound to.
pub(crate) const ROLES: [&str; 3] =
    [names::PEERING_BASIC_ROLE, names::PEERING_OUTGOING_ROLE, names::PEERING_INCOMING_ROLE];

/// Name of the binding of a role in tenant namespaces.
pub(crate) fn binding_name(role: &str) -> String {
    format!("{}{role}", names::PEERING_BINDING_PREFIX)
}

/// What becomes of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Bound,
    Unbound,
    AsItIs,
}

/// Gives each tenant namespace the bindings its requests and offers ask for.
pub(crate) async fn settle(world: &World, namespace: String) -> Result<Option<Duration>, KubeError> {
    let Some(tenant) = world.namespaces.get("", &namespace) else { return Ok(None) };
    let Some(peer) = tenant::peer_of(&tenant).filter(|_| tenant.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    let foreign_cluster = world.foreign_cluster(peer);
    let is_in_band = foreign_cluster.as_ref().is_some_and(|one| one.spec.peering_type == PeeringType::InBand);
    let lies_here = |one: &NetworkConfig| one.namespace().as_ref() == Some(&namespace) && is_replica(one, peer);
    let networks = world.networks.iter().filter(|_| !is_in_band);
    let wishes = plan(
        Standing {
            is_peer: foreign_cluster.is_some(),
            has_network: networks.flat_map(|store| store.filter(lies_here)).next().is_some(),
        },
        &world.requests.filter(|one| one.namespace().as_ref() == Some(&namespace)),
        &world.offers.filter(|one| one.namespace().as_ref() == Some(&namespace)),
        peer,
    );
    for (role, wish) in ROLES.into_iter().zip(wishes) {
        let found = world.bindings.iter().find_map(|store| store.get(&namespace, &binding_name(role)));
        match (wish, found) {
            (Wish::Bound, Some(binding)) if binds(binding.subjects.as_deref(), peer) => {}
            (Wish::Bound, _) => bind(&world.home.cluster, &namespace, role, peer).await?,
            (Wish::Unbound, Some(binding)) => world.home.cluster.remove(binding.as_ref()).await?,
            _ => {}
        }
    }
    Ok(None)
}

/// What counts besides requests and offers.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// It has a `ForeignCluster`.
    is_peer: bool,
    /// It has told us its network, and has to take that back.
    has_network: bool,
}

/// Basic, outgoing, incoming.
fn plan(
    Standing { is_peer, has_network }: Standing,
    requests: &[impl AsRef<ResourceRequest>],
    offers: &[impl AsRef<ResourceOffer>],
    peer: &str,
) -> [Wish; 3] {
    let requests = || requests.iter().map(AsRef::as_ref);
    let offers = || offers.iter().map(AsRef::as_ref);
    let asks = requests().any(|one| is_original(one, peer)) || offers().any(|one| is_replica(one, peer));
    let is_asked = requests().any(|one| is_replica(one, peer)) || offers().any(|one| is_original(one, peer));
    let wish = |bound| match (bound, has_network) {
        (true, _) => Wish::Bound,
        (false, true) => Wish::AsItIs,
        (false, false) => Wish::Unbound,
    };
    [if is_peer { Wish::Bound } else { Wish::AsItIs }, wish(asks), wish(is_asked)]
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
    let found: Option<ClusterRole> = cluster.get("", role).await?;
    let binding = RoleBinding {
        metadata: ObjectMeta {
            name: Some(binding_name(role)),
            namespace: Some(namespace.to_owned()),
            owner_references: found.map(|role| vec![owner_reference(&role, false)]),
            ..ObjectMeta::default()
        },
        role_ref: role_ref(role),
        subjects: Some(vec![user(peer)]),
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
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    const PEER: &str = "16fbeaec";

    fn original() -> Value {
        json!({"name": "a", "labels": {"liqo.io/replication": "true", "liqo.io/remoteID": PEER}})
    }

    fn replica(of: &str) -> Value {
        json!({"name": "a", "labels": {"liqo.io/replication": "false", "liqo.io/replicated": "true", "liqo.io/originID": of}})
    }

    fn request(metadata: Value) -> Arc<ResourceRequest> {
        let spec = json!({"clusterIdentity": {"clusterID": "x", "clusterName": "y"}, "authUrl": ""});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn offer(metadata: Value) -> Arc<ResourceOffer> {
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": {"clusterId": "x"}})).unwrap())
    }

    #[test]
    fn bindings_follow_requests_and_offers() {
        use Wish::{AsItIs, Bound, Unbound};
        for (is_peer, requests, offers, wishes) in [
            (true, vec![], vec![], [Bound, Unbound, Unbound]),
            (false, vec![], vec![], [AsItIs, Unbound, Unbound]),
            (true, vec![request(original())], vec![], [Bound, Bound, Unbound]),
            (false, vec![], vec![offer(replica(PEER))], [AsItIs, Bound, Unbound]),
            (true, vec![request(replica(PEER))], vec![], [Bound, Unbound, Bound]),
            (false, vec![], vec![offer(original())], [AsItIs, Unbound, Bound]),
            (true, vec![request(original()), request(replica(PEER))], vec![], [Bound, Bound, Bound]),
            (true, vec![request(replica("somebody"))], vec![], [Bound, Unbound, Unbound]),
        ] {
            let standing = Standing { is_peer, has_network: false };
            assert_eq!(plan(standing, &requests, &offers, PEER), wishes);
        }
    }

    #[test]
    fn nothing_is_taken_away_while_the_peer_has_its_network_here() {
        use Wish::{AsItIs, Bound};
        let standing = Standing { is_peer: true, has_network: true };
        let none: [Arc<ResourceRequest>; 0] = [];
        let no_offers: [Arc<ResourceOffer>; 0] = [];
        assert_eq!(plan(standing, &none, &no_offers, PEER), [Bound, AsItIs, AsItIs]);
        assert_eq!(plan(standing, &[request(original())], &no_offers, PEER), [Bound, Bound, AsItIs]);
    }
}
