//! What a peer tells us of its networks, and the tunnel that follows (data-plane 7.4, steps 3 to 6).
//!
//! Pure. The peer's networks have a place here for as long as its `NetworkConfig` exists; it knows ours for as long as
//! our own `NetworkConfig` exists and the peer has processed it; the `TunnelEndpoint` exists while both hold.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use liqo_api::{
    ClusterIdentity,
    discovery::ForeignCluster,
    meta::label,
    net::{NetworkConfig, NetworkConfigStatus, TunnelEndpoint, TunnelEndpointSpec},
};
use liqo_core::naming::unique_name;
use liqo_ipam::{Around, NOT_REMAPPED, Plan, Refusal};
use liqo_kube::owner_reference;
use liqo_tunnel::PublicKey;

use super::announce::is_for;
use crate::layout::PUBLIC_KEY;

/// The peer's `NetworkConfig`, as it is found in the tenant namespace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// The peer has told nothing, or has taken it back.
    Nothing,
    /// This.
    This(Arc<NetworkConfig>),
    /// Several things; only the peer can say which one counts.
    Several,
}

/// What a peer told: of several, those that are going do not count.
pub(crate) fn told(remotes: &[Arc<NetworkConfig>]) -> Told {
    let mut live = remotes.iter().filter(|one| is_live(&***one));
    match (live.next(), live.next()) {
        (None, _) => Told::Nothing,
        (Some(one), None) => Told::This(Arc::clone(one)),
        _ => Told::Several,
    }
}

/// Our own `NetworkConfig` for the peer: the oldest that stays.
pub(crate) fn ours<'l>(locals: &'l [Arc<NetworkConfig>], peer: &str) -> Option<&'l Arc<NetworkConfig>> {
    locals
        .iter()
        .filter(|one| is_live(&***one) && is_for(one, peer))
        .min_by_key(|one| (one.creation_timestamp(), one.uid()))
}

/// Whether an object is there to stay.
pub(crate) fn is_live<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_none()
}

/// The identity of a peer: the ID of its tenant namespace, and the name in its `ForeignCluster`.
pub(crate) fn identity(peer: &str, foreign: Option<&ForeignCluster>, local: Option<&NetworkConfig>) -> ClusterIdentity {
    let of_foreign = foreign.and_then(|foreign| foreign.spec.cluster_identity.as_ref());
    let named = of_foreign.or(local.map(|local| &local.spec.cluster)).filter(|named| named.cluster_id == peer);
    named.cloned().unwrap_or_else(|| ClusterIdentity::new(peer, peer))
}

/// What of the peer's words could not be agreed to. Then what was agreed before stays, except for what is covered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refused {
    /// Its networks.
    Networks(Refusal),
    /// How it sees ours.
    View(Refusal),
    /// The peer's networks cover an address that this cluster has started to use since: the tunnel is closed.
    Covers(Refusal),
    /// Where its gateway is.
    Gateway(String),
    /// Another cluster has the same WireGuard key; `None` stands for this cluster.
    Key(String, Option<String>),
}

/// The address plan, once what the peer tells, and how it sees us, are in it; and what could not be.
#[must_use]
pub(crate) fn agreed(
    plan: &Plan,
    peer: &str,
    remote: Option<&NetworkConfig>,
    local: Option<&NetworkConfig>,
    around: &Around,
) -> (Plan, Option<Refused>) {
    let Some(remote) = remote else { return (plan.forget(peer), None) };
    let assigned = match plan.assign(peer, &remote.spec.pod_cidr, &remote.spec.external_cidr, around) {
        Ok(assigned) => assigned,
        Err(refusal) => return (plan.clone(), Some(Refused::Networks(refusal))),
    };
    let covered = assigned.covered(peer, around).map(Refused::Covers);
    let Some(status) = local.and_then(|local| local.status.as_ref()).filter(|status| status.processed) else {
        return (assigned.unlearn(peer), covered);
    };
    let nat = |text: &Option<String>| text.clone().filter(|text| !text.is_empty() && text != NOT_REMAPPED);
    let (pod, external) = (nat(&status.pod_cidr_nat), nat(&status.external_cidr_nat));
    match assigned.learn(peer, pod.as_deref(), external.as_deref()) {
        Ok(learnt) => (learnt, covered),
        Err(refusal) => (assigned, covered.or(Some(Refused::View(refusal)))),
    }
}

/// Why nothing is sent where a peer says its gateway is. What a name stands for is looked at by our gateway.
pub(crate) fn gateway(plan: &Plan, peer: &str, remote: &NetworkConfig) -> Option<Refused> {
    let text = remote.spec.endpoint_ip.as_str();
    let address = text.trim_matches(['[', ']']).parse().ok()?;
    let refused =
        |why: String| Some(Refused::Gateway(format!("the gateway of cluster {peer} cannot be at {text}: {why}")));
    if !liqo_ipam::is_unicast(address) {
        return refused("that is no address of a single machine somewhere else".to_owned());
    }
    let own = plan.own().ok()?;
    if let Some(network) = own.iter().find(|network| network.contains(&address)) {
        return refused(format!("{network} is a network of this cluster"));
    }
    plan.peer_at(address, peer).and_then(|other| refused(format!("that is in a network used for cluster {other}")))
}

/// Why the key of a peer's gateway is refused: WireGuard identifies peers by their keys, so two peers with one key would be one
/// peer. The peer whose tunnel exists keeps the key.
pub(crate) fn key(
    remote: &NetworkConfig,
    own: Option<&str>,
    mine: &[Arc<TunnelEndpoint>],
    all: &[Arc<TunnelEndpoint>],
) -> Option<Refused> {
    let announced = key_of(&remote.spec.backend_config)?;
    if own.and_then(|own| own.parse::<PublicKey>().ok()) == Some(announced) {
        let text = "the peer announces the WireGuard key of this cluster's own gateway: it must make a key of its own";
        return Some(Refused::Key(text.to_owned(), None));
    }
    let with_it = |one: &&Arc<TunnelEndpoint>| is_live(&***one) && key_of(&one.spec.backend_config) == Some(announced);
    let age = |one: &&Arc<TunnelEndpoint>| (one.creation_timestamp(), one.uid());
    let is_mine = |one: &Arc<TunnelEndpoint>| mine.iter().any(|my| my.uid() == one.uid());
    let oldest = all.iter().filter(with_it).min_by_key(age).filter(|oldest| !is_mine(oldest))?;
    let other = &oldest.spec.cluster_identity;
    let text = format!(
        "the peer announces the WireGuard key that cluster {} ({}) has: one of the two must make a new key; the tunnel to that \
         cluster stays",
        other.cluster_name, other.cluster_id
    );
    Some(Refused::Key(text, Some(other.cluster_id.clone())))
}

fn key_of(config: &BTreeMap<String, String>) -> Option<PublicKey> {
    config.get(PUBLIC_KEY)?.parse().ok()
}

/// What the peer is answered: under which networks we see its own.
pub(crate) fn answer(plan: &Plan, peer: &str, remote: &NetworkConfig) -> Option<NetworkConfigStatus> {
    let known = plan.peer(peer)?;
    let nat = |used: String, announced: &str| if used == announced { NOT_REMAPPED.to_owned() } else { used };
    Some(NetworkConfigStatus {
        processed: true,
        pod_cidr_nat: Some(nat(known.pod.used.to_string(), remote.spec.pod_cidr.trim())),
        external_cidr_nat: Some(nat(known.external.used.to_string(), remote.spec.external_cidr.trim())),
    })
}

/// The references a peer's `NetworkConfig` shall have: the `ForeignCluster`, plainly, so that the copy goes with it.
/// `None` when they are as they should be.
pub(crate) fn owners_of_copy(remote: &NetworkConfig, foreign: Option<&ForeignCluster>) -> Option<Vec<OwnerReference>> {
    let wanted = owner_reference(foreign.filter(|one| is_live(*one))?, false);
    let mut all = remote.owner_references().to_vec();
    if all.iter().any(|one| one.uid == wanted.uid) {
        return None;
    }
    // An earlier ForeignCluster of this peer is gone: its reference would only have the copy collected.
    all.retain(|one| one.kind != wanted.kind);
    all.push(wanted);
    Some(all)
}

/// What shall be done about the tunnels of one peer.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub(crate) struct Tunnels {
    /// Which are in excess.
    pub(crate) remove: Vec<Arc<TunnelEndpoint>>,
    /// What the one that stays becomes.
    pub(crate) write: Option<Write>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// There is none yet.
    Create(Box<TunnelEndpoint>),
    /// The first object gets the spec, the owners and the labels of the second.
    Replace(Arc<TunnelEndpoint>, Box<TunnelEndpoint>),
}

/// The tunnel when both sides agree; none otherwise. Of several the oldest stays.
pub(crate) fn tunnels(
    plan: &Plan,
    peer: &ClusterIdentity,
    remote: Option<&NetworkConfig>,
    local: Option<&NetworkConfig>,
    existing: &[Arc<TunnelEndpoint>],
) -> Tunnels {
    let mut staying: Vec<_> = existing.iter().filter(|one| is_live(&***one)).cloned().collect();
    let wanted = remote.zip(local).and_then(|(remote, local)| forge(plan, peer, remote, local));
    let Some(wanted) = wanted else { return Tunnels { remove: staying, write: None } };
    staying.sort_by_key(|one| (one.creation_timestamp(), one.uid()));
    let remove = if staying.is_empty() { Vec::new() } else { staying.split_off(1) };
    let write = match staying.pop() {
        Some(current) => {
            let id = (label::TUNNEL_CLUSTER_ID, Some(&peer.cluster_id));
            let same = current.spec == wanted.spec
                && current.owner_references() == wanted.owner_references()
                && current.labels().get(id.0) == id.1;
            (!same).then(|| Write::Replace(current, Box::new(wanted)))
        }
        // One on its way out keeps the name: its successor comes when it is gone.
        None if existing.is_empty() => Some(Write::Create(Box::new(wanted))),
        None => None,
    };
    Tunnels { remove, write }
}

fn forge(plan: &Plan, peer: &ClusterIdentity, remote: &NetworkConfig, local: &NetworkConfig) -> Option<TunnelEndpoint> {
    let known = plan.peer(&peer.cluster_id)?;
    let seen = known.seen?;
    let [pod, _, external] = plan.own().ok()?;
    let nat = |used: String, original: &str| if used == original { NOT_REMAPPED.to_owned() } else { used };
    let (remote_pod, remote_external) = (remote.spec.pod_cidr.trim(), remote.spec.external_cidr.trim());
    let spec = TunnelEndpointSpec {
        cluster_identity: peer.clone(),
        local_pod_cidr: pod.to_string(),
        local_nat_pod_cidr: nat(seen.pod.to_string(), &pod.to_string()),
        local_external_cidr: external.to_string(),
        local_nat_external_cidr: nat(seen.external.to_string(), &external.to_string()),
        remote_pod_cidr: remote_pod.to_owned(),
        remote_nat_pod_cidr: nat(known.pod.used.to_string(), remote_pod),
        remote_external_cidr: remote_external.to_owned(),
        remote_nat_external_cidr: nat(known.external.used.to_string(), remote_external),
        endpoint_ip: remote.spec.endpoint_ip.clone(),
        backend_type: remote.spec.backend_type.clone(),
        backend_config: remote.spec.backend_config.clone(),
    };
    let mut tunnel = TunnelEndpoint::new(&unique_name(peer), spec);
    tunnel.metadata.namespace = local.namespace();
    tunnel.metadata.labels = Some([(label::TUNNEL_CLUSTER_ID.to_owned(), peer.cluster_id.clone())].into());
    let controller = local.owner_references().iter().find(|one| one.controller == Some(true)).cloned();
    tunnel.metadata.owner_references = Some([owner_reference(local, false)].into_iter().chain(controller).collect());
    Some(tunnel)
}

#[cfg(test)]
mod tests;
