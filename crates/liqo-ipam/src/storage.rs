//! How a plan is kept: the fields of `IpamStorage`, those of Liqo 0.8.3, and one of our own.
//!
//! `prefixes` is opaque by contract. Ours maps every network in use to JSON that says for what ([`PrefixUse`]), as in
//! `{"use":"peerPod","cluster":"<ID>","announced":"10.244.0.0/16"}`. Only `announced` is information of its own, what a
//! peer calls the network; the rest tells people, and follows from the other fields. Liqo 0.8.3 keeps a serialised Go
//! value there: it is not read, what it says follows from the other fields, too. Nothing stored makes loading fail:
//! what cannot be understood is left out and told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::IpAddr,
    str::FromStr,
};

use ipnet::IpNet;
use k8s_openapi::ByteString;
use liqo_api::net::{ClusterMapping, EndpointMapping, IpamStorageSpec, NatMappingSpec, Subnets};
use serde::{Deserialize, Serialize};

use crate::{
    Peer, Plan, Range, Seen, TUNNEL_ADDRESS,
    endpoint::{Endpoint, translated},
    network::overlap,
};

/// What stands in place of a network that is not remapped.
pub const NOT_REMAPPED: &str = "None";

/// For what a network is used: the value of an entry of `prefixes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "use", rename_all = "camelCase")]
pub enum PrefixUse {
    /// Our pods.
    Pod,
    /// Our Services.
    Service,
    /// Our endpoints outside the pod network, for peers.
    External,
    /// Nothing: the administrator keeps it free.
    Reserved,
    /// Pods of a peer.
    PeerPod {
        /// The peer.
        cluster: String,
        /// What the peer calls it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        announced: Option<String>,
    },
    /// Endpoints of a peer outside its pod network.
    PeerExternal {
        /// The peer.
        cluster: String,
        /// What the peer calls it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        announced: Option<String>,
    },
}

/// What was read, and what could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What was understood.
    pub plan: Plan,
    /// One sentence for everything left out.
    pub left_out: Vec<String>,
}

/// What `prefixes` says, as far as it is ours.
pub fn prefix_uses(spec: &IpamStorageSpec) -> BTreeMap<String, PrefixUse> {
    let ours = spec.prefixes.iter().filter_map(|(network, bytes)| {
        serde_json::from_slice(&bytes.0).ok().map(|used: PrefixUse| (network.clone(), used))
    });
    ours.collect()
}

impl Plan {
    /// Reads what is stored, by us or by Liqo 0.8.3. Never fails.
    pub fn load(spec: &IpamStorageSpec) -> Loaded {
        let mut reader = Reader::default();
        let plan = Self {
            pools: spec.pools.iter().filter_map(|text| reader.value("pools", text)).collect(),
            reserved: spec.reserved_subnets.iter().filter_map(|text| reader.value("reservedSubnets", text)).collect(),
            pod: reader.optional("podCIDR", &spec.pod_cidr),
            service: reader.optional("serviceCIDR", &spec.service_cidr),
            external: reader.optional("externalCIDR", &spec.external_cidr),
            peers: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        };
        let plan = reader.peers(plan, spec);
        let plan = reader.endpoints(plan, spec);
        Loaded { plan, left_out: reader.left_out }
    }

    /// What to store.
    pub fn store(&self) -> IpamStorageSpec {
        let text = |network: Option<IpNet>| network.map(|network| network.to_string()).unwrap_or_default();
        IpamStorageSpec {
            prefixes: self.prefixes(),
            pools: self.pools.iter().map(ToString::to_string).collect(),
            reserved_subnets: self.reserved.iter().map(ToString::to_string).collect(),
            cluster_subnets: self.peers.iter().map(|(cluster, peer)| (cluster.clone(), self.subnets(peer))).collect(),
            external_cidr: text(self.external),
            endpoint_mappings: self.endpoint_mappings(),
            nat_mappings_configured: self.told().map(|(cluster, _)| (cluster.to_owned(), Default::default())).collect(),
            pod_cidr: text(self.pod),
            service_cidr: text(self.service),
        }
    }

    /// The `NatMapping` of a peer, once it has told how it sees us.
    pub fn nat_mapping(&self, cluster: &str) -> Option<NatMappingSpec> {
        let peer = self.peers.get(cluster)?;
        let seen = peer.seen?;
        let text = |(local, there): (&IpAddr, &IpAddr)| (local.to_string(), there.to_string());
        Some(NatMappingSpec {
            cluster_id: cluster.to_owned(),
            pod_cidr: peer.pod.used.to_string(),
            external_cidr: seen.external.to_string(),
            cluster_mappings: self.translations(cluster).iter().map(text).collect(),
        })
    }

    fn told(&self) -> impl Iterator<Item = (&str, Seen)> {
        self.peers.iter().filter_map(|(cluster, peer)| Some((cluster.as_str(), peer.seen?)))
    }

    fn subnets(&self, peer: &Peer) -> Subnets {
        let seen = |seen: Option<IpNet>, own: Option<IpNet>| match seen {
            None => String::new(),
            same if same == own => NOT_REMAPPED.to_owned(),
            Some(network) => network.to_string(),
        };
        Subnets {
            local_nat_pod_cidr: seen(peer.seen.map(|seen| seen.pod), self.pod),
            remote_pod_cidr: peer.pod.used.to_string(),
            local_nat_external_cidr: seen(peer.seen.map(|seen| seen.external), self.external),
            remote_external_cidr: peer.external.used.to_string(),
        }
    }

    fn endpoint_mappings(&self) -> BTreeMap<String, EndpointMapping> {
        let seen: BTreeMap<&str, Seen> = self.told().collect();
        let mapping = |endpoint: &Endpoint| {
            let natted = |cluster: &String| {
                let address = seen.get(cluster.as_str()).map(|seen| translated(endpoint.external, seen).to_string());
                (cluster.clone(), ClusterMapping { external_cidr_natted_ip: address.unwrap_or_default() })
            };
            EndpointMapping {
                external_cidr_original_ip: endpoint.external.to_string(),
                cluster_mappings: endpoint.clusters.iter().map(natted).collect(),
            }
        };
        self.all_endpoints().iter().map(|(ip, endpoint)| (ip.to_string(), mapping(endpoint))).collect()
    }

    fn prefixes(&self) -> BTreeMap<String, ByteString> {
        let own =
            [(self.pod, PrefixUse::Pod), (self.service, PrefixUse::Service), (self.external, PrefixUse::External)];
        let own = own.into_iter().filter_map(|(network, used)| Some((network?, used)));
        let reserved = self.reserved.iter().map(|network| (*network, PrefixUse::Reserved));
        let peers = self.peers.iter().flat_map(|(cluster, peer)| {
            let (cluster, announced) = (cluster.clone(), |range: &Range| range.announced.map(|one| one.to_string()));
            let pod = PrefixUse::PeerPod { cluster: cluster.clone(), announced: announced(&peer.pod) };
            let external = PrefixUse::PeerExternal { cluster, announced: announced(&peer.external) };
            [(peer.pod.used, pod), (peer.external.used, external)]
        });
        let json = |used: &PrefixUse| ByteString(serde_json::to_vec(used).expect("a use is JSON"));
        own.chain(reserved).chain(peers).map(|(network, used)| (network.to_string(), json(&used))).collect()
    }
}

#[derive(Default)]
struct Reader {
    left_out: Vec<String>,
}

impl Reader {
    fn value<T: FromStr>(&mut self, field: impl Display, text: &str) -> Option<T> {
        let value = text.parse().ok();
        if value.is_none() {
            self.left_out.push(format!("{field}: {text:?} is no network or address"));
        }
        value
    }

    fn optional<T: FromStr>(&mut self, field: impl Display, text: &str) -> Option<T> {
        if text.is_empty() { None } else { self.value(field, text) }
    }

    fn peers(&mut self, mut plan: Plan, spec: &IpamStorageSpec) -> Plan {
        let uses = prefix_uses(spec);
        for (cluster, subnets) in &spec.cluster_subnets {
            match self.peer(&plan, cluster, subnets, &uses) {
                Some(peer) => drop(plan.peers.insert(cluster.clone(), peer)),
                None => self.left_out.push(format!("clusterSubnets: the networks of cluster {cluster}")),
            }
        }
        plan
    }

    fn peer(
        &mut self,
        plan: &Plan,
        cluster: &str,
        subnets: &Subnets,
        uses: &BTreeMap<String, PrefixUse>,
    ) -> Option<Peer> {
        let field = |name: &str| format!("clusterSubnets of cluster {cluster}: {name}");
        let pod: IpNet = self.value(field("remotePodCIDR"), &subnets.remote_pod_cidr)?;
        let external: IpNet = self.value(field("remoteExternalCIDR"), &subnets.remote_external_cidr)?;
        let is_free = |network: &IpNet| plan.held().all(|(_, held)| !overlap(&held, network));
        if !is_free(&pod) || !is_free(&external) || overlap(&pod, &external) {
            return None;
        }
        let announced = |used: IpNet| {
            let text = match uses.get(&used.to_string()) {
                Some(
                    PrefixUse::PeerPod { cluster: owner, announced }
                    | PrefixUse::PeerExternal { cluster: owner, announced },
                ) if owner == cluster => announced.as_deref(),
                _ => None,
            };
            Range { announced: text.and_then(|text| text.parse().ok()), used }
        };
        let mut seen = |name: &str, text: &str, own: Option<IpNet>| match text {
            "" => None,
            NOT_REMAPPED => own,
            text => self.value(field(name), text).filter(|seen: &IpNet| own.is_some_and(|own| same_size(seen, &own))),
        };
        let seen_pod = seen("localNATPodCIDR", &subnets.local_nat_pod_cidr, plan.pod);
        let seen_external = seen("localNATExternalCIDR", &subnets.local_nat_external_cidr, plan.external);
        let seen = seen_pod.zip(seen_external).map(|(pod, external)| Seen { pod, external });
        Some(Peer { pod: announced(pod), external: announced(external), seen })
    }

    /// Only clusters that are known count, and of two endpoints with one address only one.
    fn endpoints(&mut self, mut plan: Plan, spec: &IpamStorageSpec) -> Plan {
        let mut held = BTreeSet::new();
        let Some(external) = plan.external else { return plan };
        for (ip, mapping) in &spec.endpoint_mappings {
            let Some(ip) = self.value::<IpAddr>("endpointMappings", ip).filter(|ip| *ip != TUNNEL_ADDRESS) else {
                continue;
            };
            let Some(ours) = self.value::<IpAddr>("endpointMappings", &mapping.external_cidr_original_ip) else {
                continue;
            };
            let known = mapping.cluster_mappings.keys().filter(|cluster| plan.peers.contains_key(*cluster));
            let clusters: BTreeSet<String> = known.cloned().collect();
            let is_inside =
                external.contains(&ours) && ours > crate::network::nth(&external, 1) && ours != external.broadcast();
            if clusters.is_empty() || !is_inside || !held.insert(ours) {
                self.left_out.push(format!("endpointMappings: {ip} as {ours}"));
                continue;
            }
            plan.endpoints.insert(ip, Endpoint { external: ours, clusters });
        }
        plan
    }
}

fn same_size(a: &IpNet, b: &IpNet) -> bool {
    a.max_prefix_len() == b.max_prefix_len() && a.prefix_len() == b.prefix_len()
}

#[cfg(test)]
mod tests;
