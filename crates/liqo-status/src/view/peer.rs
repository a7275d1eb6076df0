//! The view of one peer: a state that sums up the conditions of the peer, the capacity of its offer, the round trip to its gateway.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringCondition, PeeringConditionStatus as Status, PeeringConditionType as Aspect},
    meta::label,
};
use liqo_core::resources::{self, Resources};
use liqo_front::scope::Scope;

use super::{Rights, capacity, elsewhere, namespace_of, requested};
use crate::{
    model::{Level, Peer},
    observe::Objects,
};

/// The state of a peer that gives or takes.
pub(crate) const ESTABLISHED: &str = "Established";

/// Pure: the peer as the caller sees it.
pub(super) fn peer(foreign: &ForeignCluster, objects: &Objects, rights: &Rights) -> Peer {
    let identity = foreign.spec.cluster_identity.clone().unwrap_or_default();
    let id = identity.cluster_id;
    let conditions = foreign.status.as_ref().map(|status| status.peering_conditions.as_slice()).unwrap_or_default();
    let (level, state, reason) = standing(conditions);
    let is_its = |node: &&Node| !id.is_empty() && node.labels().get(label::REMOTE_CLUSTER_ID) == Some(&id);
    let node = objects.nodes.iter().map(AsRef::as_ref).find(is_its).filter(|_| rights.nodes == Scope::All);
    let used = node.filter(|_| rights.pods == Scope::All).map(|node| {
        let name = node.name_any();
        let is_there = |spec: &k8s_openapi::api::core::v1::PodSpec| spec.node_name.as_ref() == Some(&name);
        requested(elsewhere(objects, rights).filter(|pod| pod.spec.as_ref().is_some_and(is_there)))
    });
    let tunnel = objects.tunnels.iter().find(|one| one.spec.cluster_identity.cluster_id == id);
    let tunnel = tunnel.filter(|one| rights.tunnels.has(&namespace_of(&***one)));
    let connection = tunnel.and_then(|one| one.status.as_ref()?.connection.as_ref());
    let round_trip = connection.and_then(|one| one.latency.as_ref()?.value.clone());
    let since = conditions.iter().filter_map(|one| one.last_transition_time.as_ref()).map(|time| time.0).max();
    Peer {
        name: foreign.name_any(),
        cluster_id: id,
        kind: format!("{:?}", foreign.spec.peering_type),
        level,
        state: state.to_owned(),
        reason,
        outgoing: format!("{:?}", status(conditions, Aspect::OutgoingPeering)),
        incoming: format!("{:?}", status(conditions, Aspect::IncomingPeering)),
        gives: node.map(|node| capacity(&offered(node))),
        used,
        round_trip: round_trip.filter(|value| value != "N/A"),
        since: since.map(|time| time.to_string()),
    }
}

/// What a virtual node offers.
pub(super) fn offered(node: &Node) -> Resources {
    node.status.as_ref().and_then(|status| status.allocatable.as_ref()).map(resources::read).unwrap_or_default()
}

fn status(conditions: &[PeeringCondition], aspect: Aspect) -> Status {
    conditions.iter().find(|one| one.type_ == aspect).map(|one| one.status).unwrap_or_default()
}

/// Pure: what the conditions say together: the worst one first, in the order in which one breaks the next.
pub(super) fn standing(conditions: &[PeeringCondition]) -> (Level, &'static str, String) {
    const BROKEN: [(Aspect, &str); 6] = [
        (Aspect::ProcessForeignClusterStatus, "Wrong"),
        (Aspect::AuthenticationStatus, "Refused"),
        (Aspect::APIServerStatus, "Unreachable"),
        (Aspect::NetworkStatus, "No path"),
        (Aspect::OutgoingPeering, "Not given"),
        (Aspect::IncomingPeering, "Not taken"),
    ];
    let find = |aspect, is: fn(Status) -> bool| conditions.iter().find(|one| one.type_ == aspect && is(one.status));
    let is_bad = |status| matches!(status, Status::Error | Status::Denied | Status::EmptyDenied);
    for (aspect, word) in BROKEN {
        if let Some(one) = find(aspect, is_bad) {
            return (Level::Bad, word, one.message.clone());
        }
    }
    for (waiting, word) in [(Status::Disconnecting, "Leaving"), (Status::Pending, "Pending")] {
        if let Some(one) = conditions.iter().find(|one| one.status == waiting) {
            return (Level::Waiting, word, one.message.clone());
        }
    }
    let is_there = |aspect| status(conditions, aspect) == Status::Established;
    if is_there(Aspect::OutgoingPeering) || is_there(Aspect::IncomingPeering) {
        return (Level::Good, ESTABLISHED, String::new());
    }
    (Level::Good, "Not peered", String::new())
}
