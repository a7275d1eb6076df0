//! The plan: which networks this cluster and its peers use, and how peers come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    Around, Refusal,
    endpoint::Endpoint,
    network::{is_private, overlap, parse, same_version, size_of_a_peer},
    space::free_network,
};

/// Networks peers' networks are taken from when theirs are in use here (RFC 1918), in this order.
pub const DEFAULT_POOLS: [&str; 3] = ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"];

/// Address of the tunnel's end inside the gateway, the same in every cluster. Peers reach it, for the connection check,
/// at the second address of the external network.
pub const TUNNEL_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 0, 1));

/// A network and what it is called here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// What its owner says; `None` when a store of Liqo 0.8.3, which does not keep it, was read.
    pub announced: Option<IpNet>,
    /// What this cluster uses instead; the same when nothing here is in the way.
    pub used: IpNet,
}

/// How a peer sees our networks. Both have the size of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Our pod network.
    pub pod: IpNet,
    /// Our external network.
    pub external: IpNet,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its pod network.
    pub pod: Range,
    /// Its external network.
    pub external: Range,
    /// How it sees our networks, once it has told.
    pub seen: Option<Seen>,
}

/// Which networks and addresses are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub(crate) pools: Vec<IpNet>,
    pub(crate) reserved: Vec<IpNet>,
    pub(crate) pod: Option<IpNet>,
    pub(crate) service: Option<IpNet>,
    pub(crate) external: Option<IpNet>,
    pub(crate) peers: BTreeMap<String, Peer>,
    pub(crate) endpoints: BTreeMap<IpAddr, Endpoint>,
}

impl Plan {
    /// Sets what the administrator decides; the external network is chosen the first time and stays.
    ///
    /// Pod and service network can be set once. Pools and reserved networks may change at any time: networks given out
    /// from a pool that is gone stay with their peers, and no new ones come from it.
    ///
    /// # Errors
    /// When a text is no network, two networks overlap that must not, or no pool has room for the external network.
    pub fn configure(&self, pod: &str, service: &str, reserved: &[String], pools: &[String]) -> Result<Self, Refusal> {
        let pod = once("pod network", self.pod, parse("pod network", pod)?)?;
        let service = once("service network", self.service, parse("service network", service)?)?;
        refuse_overlap("pod network", &pod, [("service network".to_owned(), service)])?;
        let mut new = Self {
            pod: Some(pod),
            service: Some(service),
            pools: pools_with(pools)?,
            reserved: Vec::new(),
            ..self.clone()
        };
        for text in reserved {
            let network = parse("reserved network", text)?;
            refuse_overlap("reserved network", &network, new.held())?;
            new.reserved.push(network);
        }
        if new.external.is_none() {
            let length = pod.prefix_len();
            new.external = Some(new.take_free("the external network", &pod, length, &[])?);
        }
        Ok(new)
    }

    /// Our own networks: pod, service, external.
    ///
    /// # Errors
    /// While [`Plan::configure`] has not been called.
    pub fn own(&self) -> Result<[IpNet; 3], Refusal> {
        match (self.pod, self.service, self.external) {
            (Some(pod), Some(service), Some(external)) => Ok([pod, service, external]),
            _ => Err(Refusal::NotConfigured),
        }
    }

    /// What is known of a peer.
    pub fn peer(&self, cluster: &str) -> Option<&Peer> {
        self.peers.get(cluster)
    }

    /// IDs of the peers that have networks here.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.peers.keys().map(String::as_str)
    }

    /// A peer announces its networks: which ones does this cluster use for it? The same announcement has the same
    /// answer; a changed one frees what was used before. What is used newly covers nothing that is `around`.
    ///
    /// # Errors
    /// When an announced network cannot be one, or no pool has room.
    pub fn assign(&self, cluster: &str, pod: &str, external: &str, around: &Around) -> Result<Self, Refusal> {
        let [own, ..] = self.own()?;
        let pod_text = format!("pod network of cluster {cluster}");
        let external_text = format!("external network of cluster {cluster}");
        let pod = announced(&pod_text, pod, &own)?;
        let external = announced(&external_text, external, &own)?;
        refuse_overlap(&external_text, &external, [(pod_text.clone(), pod)])?;
        let old = self.peers.get(cluster);
        let mut new = self.clone();
        // A range of the old answer that still fits stays; only the others are chosen anew, among what is then free.
        let keep = |old: Option<Range>, announced: &IpNet| old.filter(|range| still_fits(range, announced));
        let old_pod = keep(old.map(|peer| peer.pod), &pod);
        let old_external = keep(old.map(|peer| peer.external), &external);
        new.peers.remove(cluster);
        let kept = old_external.map(|range| range.used);
        let used_pod = match old_pod {
            Some(range) => range.used,
            None => new.choose(&pod_text, &pod, kept.as_slice(), around)?,
        };
        let used_external = match old_external {
            Some(range) => range.used,
            None => new.choose(&external_text, &external, &[used_pod], around)?,
        };
        let range = |announced, used| Range { announced: Some(announced), used };
        let peer = Peer {
            pod: range(pod, used_pod),
            external: range(external, used_external),
            seen: old.and_then(|peer| peer.seen),
        };
        new.peers.insert(cluster.to_owned(), peer);
        Ok(new)
    }

    /// Addresses vital to this cluster that a network in use for a peer covers: the addresses appeared after the network was
    /// chosen.
    pub fn covered(&self, cluster: &str, around: &Around) -> Option<Refusal> {
        let peer = self.peers.get(cluster)?;
        [("pod", peer.pod.used), ("external", peer.external.used)].into_iter().find_map(|(what, network)| {
            let (covered, reason) = around.vital.iter().find(|(one, _)| overlap(one, &network))?;
            let what = format!("the {what} network used for cluster {cluster},");
            Some(Refusal::Covers { what, network, covered: *covered, reason: reason.clone() })
        })
    }

    /// The peer other than `cluster` whose networks contain `address`.
    pub fn peer_at(&self, address: IpAddr, cluster: &str) -> Option<&str> {
        let contains = |peer: &Peer| [peer.pod.used, peer.external.used].iter().any(|used| used.contains(&address));
        let mut others = self.peers.iter().filter(|(id, _)| *id != cluster);
        others.find(|(_, peer)| contains(peer)).map(|(id, _)| id.as_str())
    }

    /// A peer tells how it sees our networks; `None` means as they are. What it uses for itself does not matter here.
    ///
    /// # Errors
    /// When the peer is unknown, or a network cannot stand for ours one to one.
    pub fn learn(&self, cluster: &str, pod: Option<&str>, external: Option<&str>) -> Result<Self, Refusal> {
        let [own_pod, _, own_external] = self.own()?;
        let peer = self.peers.get(cluster).ok_or_else(|| Refusal::UnknownPeer(cluster.to_owned()))?;
        let seen = |what: &str, text: Option<&str>, own: IpNet| match text {
            Some(text) => stands_for(&format!("what cluster {cluster} uses for our {what},"), text, own),
            None => Ok(own),
        };
        let seen = Seen {
            pod: seen("pod network", pod, own_pod)?,
            external: seen("external network", external, own_external)?,
        };
        let mut new = self.clone();
        new.peers.insert(cluster.to_owned(), Peer { seen: Some(seen), ..*peer });
        Ok(new)
    }

    /// A peer no longer says how it sees our networks: frees the addresses only it used. An unknown one changes nothing.
    #[must_use]
    pub fn unlearn(&self, cluster: &str) -> Self {
        let mut new = self.without_endpoints_of(cluster);
        if let Some(peer) = new.peers.get_mut(cluster) {
            peer.seen = None;
        }
        new
    }

    /// A peer is gone: frees its networks, and the addresses only it used. An unknown one changes nothing.
    #[must_use]
    pub fn forget(&self, cluster: &str) -> Self {
        let mut new = self.without_endpoints_of(cluster);
        new.peers.remove(cluster);
        new
    }

    fn without_endpoints_of(&self, cluster: &str) -> Self {
        let mut new = self.clone();
        new.endpoints.retain(|_, endpoint| {
            endpoint.clusters.remove(cluster);
            !endpoint.clusters.is_empty()
        });
        new
    }

    /// Peers for which something differs in the two plans: networks, or what is translated for them.
    pub fn peers_that_differ(&self, other: &Self) -> BTreeSet<String> {
        let own = |plan: &Self| (plan.pod, plan.external);
        if own(self) != own(other) {
            return self.peers.keys().chain(other.peers.keys()).cloned().collect();
        }
        let one_way = |a: &Self, b: &Self| {
            let peers = a.peers.iter().filter(|(cluster, peer)| b.peers.get(*cluster) != Some(peer));
            let endpoints = a.endpoints.iter().filter(|(ip, endpoint)| b.endpoints.get(ip) != Some(endpoint));
            let clusters = endpoints.flat_map(|(_, endpoint)| endpoint.clusters.iter());
            peers.map(|(cluster, _)| cluster).chain(clusters).cloned().collect::<BTreeSet<_>>()
        };
        one_way(self, other).union(&one_way(other, self)).cloned().collect()
    }

    /// How many endpoints have an address in the external network, and how many could have one.
    pub fn endpoint_count(&self) -> (usize, u128) {
        let hosts = |network: IpNet| 1_u128.checked_shl((network.max_prefix_len() - network.prefix_len()).into());
        let room = self.external.map(|network| hosts(network).unwrap_or(u128::MAX)).unwrap_or_default();
        (self.endpoints.len(), room.saturating_sub(3))
    }

    /// Everything in use, with its name.
    pub(crate) fn held(&self) -> impl Iterator<Item = (String, IpNet)> {
        let own = [("pod network", self.pod), ("service network", self.service), ("external network", self.external)];
        let own = own.into_iter().filter_map(|(what, network)| Some((format!("our {what}"), network?)));
        let reserved = self.reserved.iter().map(|network| ("the reserved network".to_owned(), *network));
        let peers = self.peers.iter().flat_map(|(cluster, peer)| {
            let text = |what: &str| format!("the {what} network used for cluster {cluster}");
            [(text("pod"), peer.pod.used), (text("external"), peer.external.used)]
        });
        own.chain(reserved).chain(peers)
    }

    /// Which network this cluster uses for one a peer announced; `also` is in use, too.
    fn choose(&self, what: &str, announced: &IpNet, also: &[IpNet], around: &Around) -> Result<IpNet, Refusal> {
        let taken: Vec<IpNet> = also.iter().copied().chain(around.networks()).collect();
        let is_free =
            self.held().map(|(_, network)| network).chain(taken.iter().copied()).all(|n| !overlap(&n, announced));
        let may_be_used =
            around.public || is_private(announced) || self.pools.iter().any(|pool| pool.contains(announced));
        let is_pool = self.pools.contains(announced);
        // A network larger than a pool would leave the pool without room for anybody else.
        let takes_a_pool = self.pools.iter().any(|pool| announced.contains(pool));
        if is_free && may_be_used && !takes_a_pool {
            return Ok(*announced);
        }
        match self.take_free(what, announced, announced.prefix_len(), &taken) {
            // A whole pool is given away only if there is nothing else.
            Err(Refusal::PoolsExhausted { .. }) if is_free && is_pool => Ok(*announced),
            chosen => chosen,
        }
    }

    /// A free network of the IP version of `like`.
    fn take_free(&self, what: &str, like: &IpNet, length: u8, also: &[IpNet]) -> Result<IpNet, Refusal> {
        let held: Vec<IpNet> = self.held().map(|(_, network)| network).chain(also.iter().copied()).collect();
        let mut pools = self.pools.iter().filter(|pool| same_version(pool, like));
        let found = pools.find_map(|pool| free_network(pool, length, &held));
        found.ok_or_else(|| Refusal::PoolsExhausted { what: what.to_owned(), length })
    }
}

/// A value that can be set once; the same again is fine.
fn once(what: &'static str, old: Option<IpNet>, new: IpNet) -> Result<IpNet, Refusal> {
    match old {
        Some(old) if old != new => Err(Refusal::Changed { what, old, new }),
        _ => Ok(new),
    }
}

fn refuse_overlap(
    what: &str,
    network: &IpNet,
    others: impl IntoIterator<Item = (String, IpNet)>,
) -> Result<(), Refusal> {
    let taken = others.into_iter().find(|(_, other)| overlap(other, network));
    taken.map_or(Ok(()), |(other, taken)| {
        Err(Refusal::Overlap { what: what.to_owned(), network: *network, other, taken })
    })
}

/// The default pools and the additional ones, which may not overlap.
fn pools_with(additional: &[String]) -> Result<Vec<IpNet>, Refusal> {
    let mut pools: Vec<IpNet> =
        DEFAULT_POOLS.iter().map(|text| text.parse().expect("the pools are networks")).collect();
    for text in additional {
        let pool = parse("additional pool", text)?;
        refuse_overlap("additional pool", &pool, pools.iter().map(|other| ("the pool".to_owned(), *other)))?;
        pools.push(pool);
    }
    Ok(pools)
}

fn announced(what: &str, text: &str, own: &IpNet) -> Result<IpNet, Refusal> {
    let network = size_of_a_peer(what, parse(what, text)?)?;
    if same_version(&network, own) {
        Ok(network)
    } else {
        Err(Refusal::Version { what: what.to_owned(), network, own: *own })
    }
}

fn still_fits(range: &Range, announced: &IpNet) -> bool {
    match range.announced {
        Some(before) => before == *announced,
        // Of a store that does not say: the owner has not changed it, as far as anybody can know.
        None => same_version(&range.used, announced) && range.used.prefix_len() == announced.prefix_len(),
    }
}

fn stands_for(what: &str, text: &str, own: IpNet) -> Result<IpNet, Refusal> {
    let network = parse(what, text)?;
    if same_version(&network, &own) && network.prefix_len() == own.prefix_len() {
        Ok(network)
    } else {
        Err(Refusal::Size { what: what.to_owned(), network, own })
    }
}

#[cfg(test)]
mod tests;
