//! From the cluster's objects to what the tunnel, the kernel and the connection check shall do.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use liqo_api::net::{NatMapping, TunnelEndpoint};
use liqo_tunnel::PublicKey;

use super::{
    check::Target,
    resolve::Resolver,
    rules,
    segregation::{ReachableAddresses, Shared},
    space,
};
use crate::{
    layout::{PUBLIC_KEY, TUNNEL_OVERHEAD_V4, TUNNEL_OVERHEAD_V6},
    network::{self, Networks},
};

/// What packets of a path that nobody has measured may have: every path in use carries it.
const CAUTIOUS_MTU: u16 = 1280;
/// NAT on the way forgets silent connections after 30 s (RFC 4787); the pings keep it awake, this is for when they stop.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// A peer that can be served.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) tunnel: Arc<TunnelEndpoint>,
    pub(crate) networks: Networks,
    pub(crate) wire: liqo_tunnel::Peer,
    pub(crate) exports: rules::Exports,
    /// What the peer reaches here; empty in the mode in which peers reach every pod.
    pub(crate) reach: ReachableAddresses,
    pub(crate) target: Option<Target>,
}

/// Everything that is known of the peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) good: Vec<Peer>,
    /// The others, and what is wrong with them.
    pub(crate) bad: Vec<(Arc<TunnelEndpoint>, String)>,
}

/// Reads the objects. `ceiling` is the largest packet that our own side carries outside the tunnel, `own` our own key.
/// Of two peers with one key WireGuard would serve one: the older one keeps it.
pub(crate) fn read(
    tunnels: &[Arc<TunnelEndpoint>],
    mappings: &[Arc<NatMapping>],
    resolver: &Resolver,
    (ceiling, own): (u16, PublicKey),
) -> Peers {
    let (usable, unusable) = network::usable(tunnels.iter().map(AsRef::as_ref));
    let find = |tunnel: &TunnelEndpoint| tunnels.iter().find(|one| std::ptr::eq(one.as_ref(), tunnel)).cloned();
    let mut peers = Peers::default();
    for (tunnel, why) in unusable {
        peers.bad.extend(find(tunnel).map(|tunnel| (tunnel, why)));
    }
    let by_cluster: HashMap<&str, &NatMapping> =
        mappings.iter().map(|mapping| (mapping.spec.cluster_id.as_str(), mapping.as_ref())).collect();
    for (tunnel, networks) in usable {
        let Some(tunnel) = find(tunnel) else { continue };
        let id = &tunnel.spec.cluster_identity.cluster_id;
        let wire = wire(&tunnel, &networks, resolver).and_then(|wire| peers.fit(&wire, own).map(|()| wire));
        match wire {
            Err(why) => peers.bad.push((tunnel, why)),
            Ok(wire) => {
                let mapping = by_cluster.get(id.as_str()).map(|mapping| &mapping.spec.cluster_mappings);
                let target = rules::tunnel_address(networks.remote_external).map(|address| Target {
                    id: id.clone(),
                    address,
                    ceiling: fits(ceiling, wire.endpoint),
                });
                let exports = mapping.map(rules::exports).unwrap_or_default();
                peers.good.push(Peer { tunnel, networks, wire, exports, reach: ReachableAddresses::new(), target });
            }
        }
    }
    peers
}

impl Peers {
    /// Says of each peer what it reaches of what is shared.
    pub(crate) fn share(&mut self, shared: &Shared) {
        for peer in &mut self.good {
            peer.reach = shared.reach(&peer.tunnel.spec.cluster_identity, &peer.networks, &peer.exports);
        }
    }

    /// Whether one more peer can be served beside the current peers; if not, the reason as a sentence.
    fn fit(&self, wire: &liqo_tunnel::Peer, own: PublicKey) -> Result<(), String> {
        if wire.key == own {
            return Err("the peer has the WireGuard key of this gateway itself".to_owned());
        }
        let name = |peer: &Peer| peer.tunnel.spec.cluster_identity.cluster_name.clone();
        if let Some(other) = self.good.iter().find(|other| other.wire.key == wire.key) {
            return Err(format!("the peer has the WireGuard key of {}, whose tunnel is older", name(other)));
        }
        let at = wire.endpoint.map(|endpoint| endpoint.ip());
        let within = at.and_then(|at| self.good.iter().find(|other| other.networks.has(at)));
        within.map_or(Ok(()), |other| Err(format!("the peer's gateway is in the networks of {}", name(other))))
    }
}

/// What fits into the tunnel when `outside` fits outside.
fn fits(outside: u16, endpoint: Option<SocketAddr>) -> u16 {
    let overhead =
        if endpoint.is_some_and(|endpoint| endpoint.is_ipv6()) { TUNNEL_OVERHEAD_V6 } else { TUNNEL_OVERHEAD_V4 };
    outside.saturating_sub(overhead)
}

fn wire(tunnel: &TunnelEndpoint, networks: &Networks, resolver: &Resolver) -> Result<liqo_tunnel::Peer, String> {
    let spec = &tunnel.spec;
    if spec.backend_type != "wireguard" {
        return Err(format!("backendType {:?} is not known; there is wireguard", spec.backend_type));
    }
    let entry = |name: &str| spec.backend_config.get(name).map(String::as_str).unwrap_or_default();
    let key: PublicKey =
        entry(PUBLIC_KEY).parse().map_err(|_| format!("{:?} is no WireGuard public key", entry(PUBLIC_KEY)))?;
    let port: u16 = entry("port").parse().map_err(|_| format!("{:?} is no UDP port", entry("port")))?;
    let address: Option<IpAddr> = resolver.address(&spec.endpoint_ip);
    if let Some(address) = address.filter(|at| !liqo_ipam::is_unicast(*at) || networks.local_pods.contains(at)) {
        return Err(format!("endpointIP {} is {address}: no gateway of a peer can be there", spec.endpoint_ip));
    }
    Ok(liqo_tunnel::Peer {
        key,
        // Without an address the peer may still come to us.
        endpoint: address.map(|address| SocketAddr::new(address, port)),
        allowed: networks.remote().to_vec(),
        keepalive: Some(KEEPALIVE),
    })
}

impl Peer {
    /// As the kernel shall see it, given the largest packet known to pass.
    pub(crate) fn space(&self, measured: Option<u16>) -> space::Peer {
        let ceiling = self.target.as_ref().map_or(CAUTIOUS_MTU, |target| target.ceiling);
        let mtu = measured.unwrap_or(CAUTIOUS_MTU).min(ceiling);
        space::Peer { networks: self.networks.clone(), exports: self.exports.clone(), reach: self.reach.clone(), mtu }
    }

    /// The peer's cluster ID.
    pub(crate) fn id(&self) -> &str {
        &self.tunnel.spec.cluster_identity.cluster_id
    }
}
