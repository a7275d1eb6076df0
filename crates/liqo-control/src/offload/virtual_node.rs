//! Virtual nodes: each has a namespace map, and does not go before it.
//!
//! Keeps true: a provider with a virtual node has exactly one live map, made again when somebody deletes
//! it; a node that goes waits for its map while the provider can be asked to tidy up, but no longer than the deadline
//! of a withdrawal, and never for a provider that is banned. A node that somebody deletes while the offer behind it is in force comes
//! back, and finds its map: namespaces and pods in the provider outlive it.
//!
//! Watches   virtual `Node`s, `NamespaceMap`s, `ForeignCluster`s.
//! Writes    `NamespaceMap` originals; the finalizer of virtual nodes.
//! Removes   the maps of a node that goes for good.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::ResourceExt;
use liqo_api::{
    discovery::ForeignCluster,
    meta::{finalizer, label},
    virtualkubelet::{NamespaceMap, NamespaceMapSpec},
};
use liqo_core::{decision::is_banned, naming};
use liqo_kube::{KubeError, Queue, drive, now, owner_reference, owners_with};
use serde_json::json;

use super::{Shared, answers, is_leaving, is_original, provider_of};

/// How soon to look again for something no watch tells us about.
const SOON: Duration = Duration::from_secs(5);

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A virtual node.
    Node(String),
    /// A provider, by ID: its map or its `ForeignCluster`.
    Provider(String),
}

/// What to do for a node, in this order.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Add our finalizer.
    Hold,
    /// Make the map.
    Create(Box<NamespaceMap>),
    /// Give the map this owner and these labels.
    Repair(Arc<NamespaceMap>, OwnerReference, BTreeMap<String, String>),
    /// Take the node from the owners of the map, so that the map outlives it.
    Detach(Arc<NamespaceMap>),
    /// Delete the map.
    Remove(Arc<NamespaceMap>),
    /// Take our finalizer away.
    Release,
    /// The tenant namespace is not known yet.
    Wait,
}

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, queue: Queue<Key>) {
    shared.ready().await;
    drive("virtual-node", queue.clone(), 2, |key| settle(&shared, &queue, key)).await;
}

async fn settle(shared: &Shared, queue: &Queue<Key>, key: Key) -> Result<Option<Duration>, KubeError> {
    let name = match key {
        Key::Node(name) => name,
        Key::Provider(id) => {
            let nodes = shared.virtual_nodes_of(&id);
            nodes.iter().for_each(|node| queue.push(Key::Node(node.name_any())));
            if nodes.is_empty() && !comes_back(shared, &id) {
                for map in stranded(&originals_of(shared, &id)) {
                    shared.home.cluster.remove(&*map).await?;
                }
            }
            return Ok(None);
        }
    };
    let Some(node) = shared.virtual_node(&name) else { return Ok(None) };
    let id = provider_of(&*node);
    let maps = originals_of(shared, id);
    if is_leaving(&*node) && comes_back(shared, id) {
        act(shared, &node, let_go(&node, &maps)).await?;
        return Ok(None);
    }
    let peer = shared.peer(id);
    let patience = patience(&node, peer.as_deref(), shared.ledger.policy.deadline, now().0.as_second());
    let steps = plan(&node, &maps, (peer.as_deref(), shared.tenant_namespace(id)), patience);
    let again = act(shared, &node, steps).await?;
    Ok(again.into_iter().chain(patience).min())
}

/// The maps of this cluster for a provider.
fn originals_of(shared: &Shared, provider: &str) -> Vec<Arc<NamespaceMap>> {
    shared.memory.maps.filter(|map| is_original(map) && provider_of(map) == provider)
}

/// Whether a virtual kubelet makes the node of a provider again when the node is deleted: this cluster wants the resources, and
/// the provider's offer stands.
fn comes_back(shared: &Shared, provider: &str) -> bool {
    let tenant = shared.tenant_namespace(provider).unwrap_or_default();
    let offer = shared.ledger.their_offer(&tenant, provider);
    let stands = offer.is_some_and(|offer| !is_leaving(&*offer) && offer.spec.withdrawal_timestamp.is_none());
    stands && shared.ledger.grants(provider).provider.is_granted()
}

/// What to do for a node that was deleted and comes back: Kubernetes deletes what the node owns, so first it owns no map.
fn let_go(node: &Node, maps: &[Arc<NamespaceMap>]) -> Vec<Step> {
    let owned: Vec<_> =
        maps.iter().filter(|map| is_owned_by(map, node)).map(|map| Step::Detach(Arc::clone(map))).collect();
    let held = node.finalizers().iter().any(|one| one == finalizer::VIRTUAL_NODE);
    if owned.is_empty() && held { vec![Step::Release] } else { owned }
}

fn is_owned_by(map: &NamespaceMap, node: &Node) -> bool {
    map.owner_references().iter().any(|owner| Some(&owner.uid) == node.metadata.uid.as_ref())
}

/// Maps whose node was deleted and did not come back before the peering ended: nothing else removes them.
fn stranded(maps: &[Arc<NamespaceMap>]) -> Vec<Arc<NamespaceMap>> {
    maps.iter().filter(|map| map.owner_references().is_empty() && !is_leaving(&***map)).cloned().collect()
}

/// How long a node that goes still waits for the provider to let go of its map; `None`: it does not wait.
fn patience(node: &Node, peer: Option<&ForeignCluster>, deadline: Duration, now: i64) -> Option<Duration> {
    let since = node.metadata.deletion_timestamp.as_ref()?.0.as_second();
    let gone = Duration::from_secs(u64::try_from(now.saturating_sub(since)).unwrap_or_default());
    let rest = deadline.checked_sub(gone).filter(|rest| !rest.is_zero())?;
    (answers(peer) && !peer.is_some_and(is_banned)).then_some(rest)
}

fn plan(
    node: &Node,
    maps: &[Arc<NamespaceMap>],
    (peer, tenant): (Option<&ForeignCluster>, Option<String>),
    patience: Option<Duration>,
) -> Vec<Step> {
    let held = node.finalizers().iter().any(|one| one == finalizer::VIRTUAL_NODE);
    if is_leaving(node) {
        let alive = maps.iter().filter(|map| !is_leaving(&***map));
        let mut steps: Vec<_> = alive.map(|map| Step::Remove(Arc::clone(map))).collect();
        // A map whose provider is not waited for stays behind as a note for the replicator.
        if held && steps.is_empty() && (maps.is_empty() || patience.is_none()) {
            steps.push(Step::Release);
        }
        return steps;
    }
    let mut steps = if held { vec![] } else { vec![Step::Hold] };
    let identity = peer.and_then(|peer| peer.spec.cluster_identity.clone());
    let (Some(identity), Some(tenant)) = (identity, tenant) else {
        steps.push(Step::Wait);
        return steps;
    };
    let wanted = forge(node, &naming::unique_name(&identity), &tenant);
    match maps.iter().find(|map| map.name_any() == wanted.name_any()) {
        None => steps.push(Step::Create(Box::new(wanted))),
        // Its end brings us back here.
        Some(map) if is_leaving(&**map) => {}
        Some(map) if like(map, &wanted) => {}
        Some(map) => steps.push(Step::Repair(
            Arc::clone(map),
            owner_reference(node, true),
            wanted.metadata.labels.unwrap_or_default(),
        )),
    }
    steps
}

/// Whether a map has the owner and the labels it should have.
fn like(map: &NamespaceMap, wanted: &NamespaceMap) -> bool {
    wanted.owner_references().iter().all(|owner| map.owner_references().contains(owner))
        && wanted.labels().iter().all(|(key, value)| map.labels().get(key) == Some(value))
}

fn forge(node: &Node, name: &str, tenant: &str) -> NamespaceMap {
    let id = provider_of(node).to_owned();
    let mut map = NamespaceMap::new(name, NamespaceMapSpec::default());
    map.metadata.namespace = Some(tenant.to_owned());
    map.metadata.owner_references = Some(vec![owner_reference(node, true)]);
    map.labels_mut().extend([
        (label::REMOTE_CLUSTER_ID.to_owned(), id.clone()),
        (label::REMOTE_ID.to_owned(), id),
        (label::REPLICATION.to_owned(), "true".to_owned()),
    ]);
    map
}

async fn act(shared: &Shared, node: &Node, steps: Vec<Step>) -> Result<Option<Duration>, KubeError> {
    let cluster = &shared.home.cluster;
    let mut again = None;
    for step in steps {
        match step {
            Step::Hold => drop(cluster.hold(node, finalizer::VIRTUAL_NODE).await?),
            Step::Create(map) => match cluster.create(&*map).await {
                Ok(_) => tracing::info!(node = node.name_any(), map = map.name_any(), "namespace map created"),
                // The watch has not shown it to us yet.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            },
            Step::Repair(map, owner, labels) => {
                let owners = owners_with(&*map, owner).unwrap_or_else(|| map.owner_references().to_vec());
                let version = map.resource_version();
                let meta =
                    json!({"uid": map.uid(), "resourceVersion": version, "ownerReferences": owners, "labels": labels});
                cluster.merge(&*map, json!({ "metadata": meta })).await?;
            }
            Step::Detach(map) => {
                let owners: Vec<_> = map
                    .owner_references()
                    .iter()
                    .filter(|owner| Some(&owner.uid) != node.metadata.uid.as_ref())
                    .collect();
                let meta =
                    json!({"uid": map.uid(), "resourceVersion": map.resource_version(), "ownerReferences": owners});
                cluster.merge(&*map, json!({ "metadata": meta })).await?;
                tracing::info!(node = node.name_any(), map = map.name_any(), "node deleted by hand, its map stays");
            }
            Step::Remove(map) => cluster.remove(&*map).await?,
            Step::Release => {
                cluster.release(node, finalizer::VIRTUAL_NODE).await?;
                tracing::info!(node = node.name_any(), "virtual node released");
            }
            Step::Wait => again = Some(SOON),
        }
    }
    Ok(again)
}

#[cfg(test)]
mod tests {
    use liqo_api::{
        ClusterIdentity,
        discovery::{
            ForeignClusterSpec, ForeignClusterStatus, PeeringCondition, PeeringConditionStatus, PeeringConditionType,
        },
        meta::annotation,
    };

    use super::*;

    const ID: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

    fn node(held: bool, leaving: bool) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some("liqo-provider".to_owned());
        node.metadata.uid = Some("node-uid".to_owned());
        node.labels_mut().insert(label::REMOTE_CLUSTER_ID.to_owned(), ID.to_owned());
        node.metadata.finalizers = held.then(|| vec![finalizer::VIRTUAL_NODE.to_owned()]);
        node.metadata.deletion_timestamp = leaving.then(liqo_kube::now);
        node
    }

    fn peer(api_server: PeeringConditionStatus) -> ForeignCluster {
        let identity = ClusterIdentity::new(ID, "provider");
        let mut peer = ForeignCluster::new(
            "provider",
            ForeignClusterSpec { cluster_identity: Some(identity), ..ForeignClusterSpec::default() },
        );
        peer.status = Some(ForeignClusterStatus {
            peering_conditions: vec![PeeringCondition {
                type_: PeeringConditionType::APIServerStatus,
                status: api_server,
                last_transition_time: None,
                reason: String::new(),
                message: String::new(),
            }],
            ..ForeignClusterStatus::default()
        });
        peer
    }

    fn map(leaving: bool) -> Arc<NamespaceMap> {
        let mut map = forge(&node(true, false), "provider-ca6261", "tenant");
        map.metadata.deletion_timestamp = leaving.then(liqo_kube::now);
        Arc::new(map)
    }

    fn names(steps: &[Step]) -> Vec<&'static str> {
        let name = |step: &Step| match step {
            Step::Hold => "hold",
            Step::Create(_) => "create",
            Step::Repair(..) => "repair",
            Step::Detach(_) => "detach",
            Step::Remove(_) => "remove",
            Step::Release => "release",
            Step::Wait => "wait",
        };
        steps.iter().map(name).collect()
    }

    #[test]
    fn a_node_gets_its_map_and_keeps_it() {
        let ready = peer(PeeringConditionStatus::Established);
        let steps = |held, maps: &[_]| plan(&node(held, false), maps, (Some(&ready), Some("tenant".to_owned())), None);
        assert_eq!(names(&steps(false, &[])), ["hold", "create"]);
        assert_eq!(names(&steps(true, &[])), ["create"], "a deleted map is made again");
        assert_eq!(names(&steps(true, &[map(true)])), [""; 0], "but only when the old one is gone");
        assert_eq!(names(&steps(true, &[map(false)])), [""; 0]);
        let mut stale = (*map(false)).clone();
        stale.metadata.owner_references.as_mut().unwrap()[0].uid = "an older node".to_owned();
        assert_eq!(names(&steps(true, &[Arc::new(stale)])), ["repair"]);
        assert_eq!(names(&plan(&node(true, false), &[], (Some(&ready), None), None)), ["wait"]);
        assert_eq!(names(&plan(&node(true, false), &[], (None, Some("tenant".to_owned())), None)), ["wait"]);
    }

    #[test]
    fn the_map_is_the_one_recorded_from_a_real_cluster() {
        let ready = peer(PeeringConditionStatus::Established);
        let tenant = Some("liqo-tenant-provider-ca6261".to_owned());
        let steps = plan(&node(true, false), &[], (Some(&ready), tenant), None);
        let [Step::Create(map)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(map.name_any(), "provider-ca6261");
        assert_eq!(map.namespace().as_deref(), Some("liqo-tenant-provider-ca6261"));
        let labels: Vec<_> = map.labels().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            labels,
            [("liqo.io/remote-cluster-id", ID), ("liqo.io/remoteID", ID), ("liqo.io/replication", "true")]
        );
        let owner = &map.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.controller, owner.block_owner_deletion),
            ("Node", Some(true), Some(true))
        );
    }

    #[test]
    fn a_leaving_node_waits_for_its_map_while_it_has_patience() {
        let leaving = node(true, true);
        let soon = Some(Duration::from_secs(1));
        let steps = |maps: &[_], patience| names(&plan(&leaving, maps, (None, None), patience));
        assert_eq!(steps(&[map(false)], soon), ["remove"]);
        assert_eq!(steps(&[map(false)], None), ["remove"]);
        assert_eq!(steps(&[map(true)], soon), [""; 0]);
        assert_eq!(steps(&[map(true)], None), ["release"]);
        assert_eq!(steps(&[], soon), ["release"]);
        assert_eq!(names(&plan(&node(false, true), &[], (None, None), None)), [""; 0]);
    }

    #[test]
    fn a_node_that_comes_back_loses_no_map() {
        let leaving = node(true, true);
        assert_eq!(
            names(&let_go(&leaving, &[map(false)])),
            ["detach"],
            "before the node goes, which would take the map"
        );
        let mut free = (*map(false)).clone();
        free.metadata.owner_references = None;
        let free = Arc::new(free);
        assert_eq!(names(&let_go(&leaving, &[Arc::clone(&free)])), ["release"]);
        assert_eq!(names(&let_go(&leaving, &[])), ["release"]);
        assert_eq!(names(&let_go(&node(false, true), &[Arc::clone(&free)])), [""; 0]);
        let ready = peer(PeeringConditionStatus::Established);
        let back = plan(&node(true, false), &[Arc::clone(&free)], (Some(&ready), Some("tenant".to_owned())), None);
        assert_eq!(names(&back), ["repair"], "the new node is the owner");
        assert_eq!(stranded(&[free, map(false)]).len(), 1, "a map with an owner goes with its owner");
    }

    #[test]
    fn nobody_is_waited_for_who_is_banned_does_not_answer_or_had_its_time() {
        let leaving = node(true, true);
        let since = leaving.metadata.deletion_timestamp.as_ref().unwrap().0.as_second();
        let rest = |peer: Option<&ForeignCluster>, passed| {
            patience(&leaving, peer, Duration::from_secs(300), since + passed).map(|rest| rest.as_secs())
        };
        let (ready, dead) = (peer(PeeringConditionStatus::Established), peer(PeeringConditionStatus::Error));
        let mut banned = ready.clone();
        banned.annotations_mut().insert(annotation::TENANT_CONDITION.to_owned(), "Banned".to_owned());
        assert_eq!(rest(Some(&ready), 0), Some(300));
        assert_eq!(rest(Some(&ready), 299), Some(1));
        assert_eq!(rest(Some(&ready), 300), None);
        assert_eq!(rest(Some(&dead), 0), None);
        assert_eq!(rest(Some(&banned), 0), None);
        assert_eq!(rest(None, 0), None);
        assert_eq!(patience(&node(true, false), Some(&ready), Duration::from_secs(300), since), None, "it does not go");
    }
}
