//! What we tell a peer of our networks: the local `NetworkConfig` (data-plane 7.4, steps 0 and 1).
//!
//! Pure. A peering that is established wants one; one that has ended wants none; whatever is between changes neither,
//! so that a peer that is away, or moves its pods before a withdrawal ends, keeps its tunnel. In-band peerings are introduced by `liqoctl`, which writes the
//! `NetworkConfig`s of both sides by hand before there is a way to replicate them: they are never made or removed here,
//! but kept current, whoever made them.

use std::sync::Arc;

use ipnet::IpNet;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringConditionType, PeeringType},
    meta::label,
    net::{NetworkConfig, NetworkConfigSpec},
};
use liqo_core::{
    decision,
    grants::{self, Shown},
    naming::unique_name,
    peering::{Gateway, PORT, networks},
};
use liqo_kube::owner_reference;

use super::endpoint::Unreachable;

/// Who makes local `NetworkConfig`s, as [`label::OWNERSHIP`] says it.
pub(crate) const OWNERSHIP: &str = "netcfgCreator";

/// What shall be done about the local `NetworkConfig`s of one peer.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub(crate) struct Announcement {
    /// Which are in excess.
    pub(crate) remove: Vec<Arc<NetworkConfig>>,
    /// What the one that stays becomes.
    pub(crate) write: Option<Write>,
    /// Why there is none though there should be, or why the one there is may be out of date.
    pub(crate) problem: Option<String>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// There is none yet.
    Create(Box<NetworkConfig>),
    /// This one shall say that.
    Replace(Arc<NetworkConfig>, Box<NetworkConfigSpec>),
}

/// Whether a peering wants our networks to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Tell them.
    Tell,
    /// Keep current what has been told.
    Follow,
    /// Take back what we told.
    TakeBack,
}

/// Whether the state of a peering lets the peer have a tunnel; `has` says whether the tunnel exists. Before an in-band peering
/// there is no `ForeignCluster`: the objects that `liqoctl` wrote are the administrator's decision.
pub(crate) fn lets_in(foreign: Option<&ForeignCluster>, has: bool) -> bool {
    foreign.is_none_or(|foreign| match wish(Some(foreign)) {
        _ if decision::is_banned(foreign) => false,
        Wish::Tell => true,
        Wish::Follow => has || foreign.spec.peering_type == PeeringType::InBand,
        Wish::TakeBack => false,
    })
}

/// Whether a local `NetworkConfig` is for this peer. This network manager makes none that names another cluster.
pub(crate) fn is_for(local: &NetworkConfig, peer: &str) -> bool {
    local.spec.cluster.cluster_id == peer
}

fn wish(foreign: Option<&ForeignCluster>) -> Wish {
    use PeeringConditionStatus::{Error, Established};
    let Some(foreign) = foreign else { return Wish::TakeBack };
    if foreign.spec.peering_type == PeeringType::InBand {
        return Wish::Follow;
    }
    if foreign.metadata.deletion_timestamp.is_some() || decision::is_banned(foreign) {
        return Wish::TakeBack;
    }
    let conditions = foreign.status.as_ref().map(|status| status.peering_conditions.as_slice()).unwrap_or_default();
    let directions = [PeeringConditionType::OutgoingPeering, PeeringConditionType::IncomingPeering];
    let is = |status| conditions.iter().any(|one| directions.contains(&one.type_) && one.status == status);
    // While a direction is granted or just taken back, pods or an offer of that direction may be there. A request that waits for
    // an offer has neither.
    let Shown { provider, consumer } = grants::shown(foreign);
    if is(Established) {
        Wish::Tell
    } else if provider || consumer || is(Error) {
        Wish::Follow
    } else {
        Wish::TakeBack
    }
}

/// Plans the local `NetworkConfig`s for `peer` in the namespace `tenant`: the oldest stays, and those that name another cluster
/// are removed.
pub(crate) fn plan(
    (tenant, peer): (&str, &str),
    foreign: Option<&ForeignCluster>,
    locals: &[Arc<NetworkConfig>],
    own: Option<[IpNet; 3]>,
    gateway: &Result<Gateway, Unreachable>,
) -> Announcement {
    let wish = wish(foreign);
    let live = locals.iter().filter(|one| one.metadata.deletion_timestamp.is_none()).cloned();
    let (mut staying, mut remove): (Vec<_>, Vec<_>) = live.partition(|one| is_for(one, peer));
    if wish == Wish::TakeBack {
        staying.retain(|one| one.labels().get(label::OWNERSHIP).is_some_and(|owner| owner == OWNERSHIP));
        remove.append(&mut staying);
        return Announcement { remove, ..Announcement::default() };
    }
    staying.sort_by_key(|one| (one.creation_timestamp(), one.uid()));
    remove.extend(staying.split_off(staying.len().min(1)));
    let current = staying.pop();
    // One on its way out keeps the name: its successor comes when it is gone.
    let may_create = wish == Wish::Tell && locals.is_empty();
    if current.is_none() && !may_create {
        return Announcement { remove, ..Announcement::default() };
    }
    let endpoint = match gateway {
        Ok(endpoint) => endpoint.clone(),
        Err(unreachable) => match begins_itself(unreachable, foreign, current.as_deref()) {
            Some(endpoint) => endpoint,
            None => return Announcement { remove, problem: Some(unreachable.why.clone()), ..Announcement::default() },
        },
    };
    let Some(own) = own else { return Announcement { remove, ..Announcement::default() } };
    let write = match (current, foreign) {
        (Some(current), _) => {
            let wanted = spec(&current.spec.cluster, own, &endpoint);
            (current.spec != wanted).then(|| Write::Replace(current, Box::new(wanted)))
        }
        (None, Some(foreign)) => create(tenant, foreign, own, &endpoint),
        (None, None) => None,
    };
    Announcement { remove, write, problem: None }
}

/// What an in-band peer knows of a gateway that it cannot reach: the address it was introduced with, and the current key. The
/// tunnel is opened from here.
fn begins_itself(
    unreachable: &Unreachable,
    foreign: Option<&ForeignCluster>,
    current: Option<&NetworkConfig>,
) -> Option<Gateway> {
    foreign.filter(|foreign| foreign.spec.peering_type == PeeringType::InBand)?;
    let (current, public_key) = (current?, unreachable.public_key.clone()?);
    let port = current.spec.backend_config.get(PORT)?.parse().ok()?;
    Some(Gateway { address: current.spec.endpoint_ip.clone(), port, public_key })
}

fn create(tenant: &str, foreign: &ForeignCluster, own: [IpNet; 3], endpoint: &Gateway) -> Option<Write> {
    let peer = foreign.spec.cluster_identity.as_ref().filter(|peer| !peer.cluster_id.is_empty())?;
    let mut config = NetworkConfig::new(&unique_name(peer), spec(peer, own, endpoint));
    config.metadata.namespace = Some(tenant.to_owned());
    let labels = [(label::REPLICATION, "true"), (label::OWNERSHIP, OWNERSHIP), (label::REMOTE_ID, &peer.cluster_id)];
    config.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    config.metadata.owner_references = Some(vec![owner_reference(foreign, true)]);
    Some(Write::Create(Box::new(config)))
}

fn spec(peer: &ClusterIdentity, [pod, _, external]: [IpNet; 3], endpoint: &Gateway) -> NetworkConfigSpec {
    networks(peer, [pod.to_string(), external.to_string()], endpoint)
}

#[cfg(test)]
mod tests;
