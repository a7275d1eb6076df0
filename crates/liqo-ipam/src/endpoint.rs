//! Endpoints: under which addresses peers reach what is here, and how we reach their pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Plan, Refusal, Seen, TUNNEL_ADDRESS,
    network::{host_in, nth, remap},
    space::free_address,
};

/// How many exported addresses one peer may use.
pub const MAPPINGS_OF_PEER: usize = 4096;
/// How many pairs of an exported address and a peer that uses it there may be. About 8,000 fill the largest object an API
/// server keeps; then no peer could be taken in or let go any more.
pub const MAPPINGS: usize = 6000;

/// An address outside the pod network that peers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The address in our external network that stands for it.
    pub(crate) external: IpAddr,
    /// The peers that use it; never empty.
    pub(crate) clusters: BTreeSet<String>,
}

impl Plan {
    /// The address under which a peer must use the local endpoint `ip`, and the plan that keeps it so.
    ///
    /// A pod is seen in the network the peer uses for our pods. Anything else gets an address in our external network,
    /// one for all peers, which the peer sees in the network it uses for that.
    ///
    /// # Errors
    /// When the peer is unknown or has not told how it sees us, the address cannot be exported, none is left, or as many are
    /// in use as may be ([`MAPPINGS_OF_PEER`], [`MAPPINGS`]).
    pub fn map_endpoint(&self, cluster: &str, ip: IpAddr) -> Result<(Self, IpAddr), Refusal> {
        let [pod, _, external] = self.own()?;
        let seen = self.seen_by(cluster)?;
        if let Some(mapped) = remap(ip, &pod, &seen.pod) {
            return Ok((self.clone(), mapped));
        }
        refuse_unexportable(ip, &external.addr())?;
        if !self.endpoints.get(&ip).is_some_and(|endpoint| endpoint.clusters.contains(cluster)) {
            self.refuse_too_many(cluster)?;
        }
        let mut new = self.clone();
        let ours = match new.endpoints.get_mut(&ip) {
            Some(endpoint) => {
                endpoint.clusters.insert(cluster.to_owned());
                endpoint.external
            }
            None => {
                let held = self.endpoints.values().map(|endpoint| endpoint.external).collect();
                let ours = free_address(&external, &held).ok_or(Refusal::ExternalExhausted(external))?;
                let clusters = BTreeSet::from([cluster.to_owned()]);
                new.endpoints.insert(ip, Endpoint { external: ours, clusters });
                ours
            }
        };
        Ok((new, translated(ours, &seen)))
    }

    /// Whether [`Self::map_endpoint`] answers without an export that does not exist yet: the address is a pod's of this cluster,
    /// or is exported to the peer.
    pub fn is_reachable_by(&self, cluster: &str, ip: IpAddr) -> bool {
        self.pod.is_some_and(|pod| pod.contains(&ip))
            || self.endpoints.get(&ip).is_some_and(|endpoint| endpoint.clusters.contains(cluster))
    }

    fn refuse_too_many(&self, cluster: &str) -> Result<(), Refusal> {
        let of_peer = self.endpoints.values().filter(|endpoint| endpoint.clusters.contains(cluster)).count();
        if of_peer >= MAPPINGS_OF_PEER {
            return Err(Refusal::TooManyOfPeer { cluster: cluster.to_owned(), limit: MAPPINGS_OF_PEER });
        }
        if self.mapping_count() >= MAPPINGS { Err(Refusal::TooMany { limit: MAPPINGS }) } else { Ok(()) }
    }

    /// The number of pairs of an exported address and a peer that uses the address.
    pub fn mapping_count(&self) -> usize {
        self.endpoints.values().map(|endpoint| endpoint.clusters.len()).sum()
    }

    /// A peer no longer uses the local endpoint `ip`; its address is free when no peer is left. Anything that was
    /// not mapped changes nothing.
    #[must_use]
    pub fn unmap_endpoint(&self, cluster: &str, ip: IpAddr) -> Self {
        let mut new = self.clone();
        if let Some(endpoint) = new.endpoints.get_mut(&ip) {
            endpoint.clusters.remove(cluster);
            if endpoint.clusters.is_empty() {
                new.endpoints.remove(&ip);
            }
        }
        new
    }

    /// The address under which this cluster reaches the pod `ip` of a peer.
    ///
    /// # Errors
    /// When the peer is unknown, or the address is not in the pod network it announced.
    pub fn home_pod_ip(&self, cluster: &str, ip: IpAddr) -> Result<IpAddr, Refusal> {
        let peer = self.peers.get(cluster).ok_or_else(|| Refusal::UnknownPeer(cluster.to_owned()))?;
        let home = match &peer.pod.announced {
            Some(announced) => remap(ip, announced, &peer.pod.used),
            None => host_in(ip, &peer.pod.used),
        };
        let network = peer.pod.announced.unwrap_or(peer.pod.used);
        home.ok_or_else(|| Refusal::Outside { ip, what: format!("the pod network of cluster {cluster},"), network })
    }

    /// Whether an address lies in our pod network.
    ///
    /// # Errors
    /// While our networks are not known.
    pub fn belongs_to_pod_network(&self, ip: IpAddr) -> Result<bool, Refusal> {
        self.pod.map(|pod| pod.contains(&ip)).ok_or(Refusal::NotConfigured)
    }

    /// What is translated for a peer: local address to the address the peer uses. Empty for one that has not told how it
    /// sees us.
    pub fn translations(&self, cluster: &str) -> BTreeMap<IpAddr, IpAddr> {
        let Ok(seen) = self.seen_by(cluster) else { return BTreeMap::new() };
        let of_peer = self.all_endpoints().into_iter().filter(|(_, endpoint)| endpoint.clusters.contains(cluster));
        of_peer.map(|(ip, endpoint)| (ip, translated(endpoint.external, &seen))).collect()
    }

    /// The endpoints, and the tunnel's end, which every peer that has told how it sees us uses.
    pub(crate) fn all_endpoints(&self) -> BTreeMap<IpAddr, Endpoint> {
        let mut all = self.endpoints.clone();
        let told = self.peers.iter().filter(|(_, peer)| peer.seen.is_some());
        let clusters: BTreeSet<String> = told.map(|(cluster, _)| cluster.clone()).collect();
        if let Some(external) = self.external.filter(|external| external.addr().is_ipv4() && !clusters.is_empty()) {
            all.insert(TUNNEL_ADDRESS, Endpoint { external: nth(&external, 1), clusters });
        }
        all
    }

    pub(crate) fn seen_by(&self, cluster: &str) -> Result<Seen, Refusal> {
        let peer = self.peers.get(cluster).ok_or_else(|| Refusal::UnknownPeer(cluster.to_owned()))?;
        peer.seen.ok_or_else(|| Refusal::NotYetSeen(cluster.to_owned()))
    }
}

/// How a peer sees an address of our external network; both networks are of one size.
pub(crate) fn translated(ours: IpAddr, seen: &Seen) -> IpAddr {
    host_in(ours, &seen.external).unwrap_or(ours)
}

/// What has a meaning on its own machine only must not be reached by others, and could not.
fn refuse_unexportable(ip: IpAddr, like: &IpAddr) -> Result<(), Refusal> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let reason = match ip {
        _ if ip.is_ipv4() != like.is_ipv4() => "it is of another IP version than our networks",
        _ if ip.is_unspecified() || ip.is_multicast() => "it is no single machine's address",
        _ if ip.is_loopback() || link_local => "it is valid on its own machine only",
        _ => return Ok(()),
    };
    Err(Refusal::Endpoint { ip, reason })
}
