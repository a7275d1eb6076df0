//! The networks of a peer, as a `TunnelEndpoint` tells them.
//!
//! `Local…NAT` is how the peer sees ours, `Remote…NAT` how we see the peer's, `None` that nothing is remapped
//! (data-plane 7.2). Everything else in the fabric works with what is effective.

use std::net::IpAddr;

use ipnet::IpNet;
use kube::ResourceExt;
use liqo_api::{
    meta::label,
    net::{TunnelEndpoint, TunnelEndpointSpec},
};

/// The networks in use with one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// Our pods, as we see them.
    pub local_pods: IpNet,
    /// Our pods, as the peer sees them.
    pub local_pods_there: IpNet,
    /// Addresses we export, as the peer sees them.
    pub local_external_there: IpNet,
    /// The peer's pods, as we see them.
    pub remote_pods: IpNet,
    /// Addresses the peer exports, as we see them.
    pub remote_external: IpNet,
}

impl Networks {
    /// Reads the networks of a tunnel.
    ///
    /// # Errors
    /// A sentence that names the field and what is wrong with it.
    pub fn of(spec: &TunnelEndpointSpec) -> Result<Self, String> {
        let networks = Self {
            local_pods: network("localPodCIDR", &spec.local_pod_cidr)?,
            local_pods_there: effective("localNATPodCIDR", &spec.local_nat_pod_cidr, &spec.local_pod_cidr)?,
            local_external_there: effective(
                "localNATExternalCIDR",
                &spec.local_nat_external_cidr,
                &spec.local_external_cidr,
            )?,
            remote_pods: effective("remoteNATPodCIDR", &spec.remote_nat_pod_cidr, &spec.remote_pod_cidr)?,
            remote_external: effective(
                "remoteNATExternalCIDR",
                &spec.remote_nat_external_cidr,
                &spec.remote_external_cidr,
            )?,
        };
        if networks.local_pods.prefix_len() != networks.local_pods_there.prefix_len() {
            return Err(format!(
                "localNATPodCIDR {} and localPodCIDR {} have different sizes",
                networks.local_pods_there, networks.local_pods
            ));
        }
        Ok(networks)
    }

    /// What lies behind the tunnel to this peer.
    pub fn remote(&self) -> [IpNet; 2] {
        [self.remote_pods, self.remote_external]
    }

    /// Whether the peer sees our pods under other addresses.
    pub fn is_remapped(&self) -> bool {
        self.local_pods != self.local_pods_there
    }

    /// Whether a network of the peer behind this tunnel shares addresses with a network of the peer behind the other tunnel.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.remote().iter().any(|one| other.remote().iter().any(|two| overlap(one, two)))
    }

    /// Whether an address lies behind the tunnel.
    pub fn has(&self, address: IpAddr) -> bool {
        self.remote().iter().any(|network| network.contains(&address))
    }

    /// Whether the peer lies where our own pods are.
    pub fn hides_ours(&self) -> bool {
        self.remote().iter().any(|one| overlap(one, &self.local_pods))
    }
}

fn overlap(one: &IpNet, two: &IpNet) -> bool {
    one.contains(two) || two.contains(one)
}

fn effective(field: &str, remapped: &str, original: &str) -> Result<IpNet, String> {
    network(field, if remapped == "None" || remapped.is_empty() { original } else { remapped })
}

fn network(field: &str, text: &str) -> Result<IpNet, String> {
    let network: IpNet = text.parse().map_err(|_| format!("{field} {text:?} is no network like 10.0.0.0/16"))?;
    Ok(network.trunc())
}

/// Tunnels, each with what is said of it.
pub type Told<'t, T> = Vec<(&'t TunnelEndpoint, T)>;

/// The tunnels that can be used, each with its networks, the oldest first; the others with what is wrong with them.
/// Two tunnels to the same addresses or to the same cluster contradict each other: the older one stays.
pub fn usable<'t>(tunnels: impl IntoIterator<Item = &'t TunnelEndpoint>) -> (Told<'t, Networks>, Told<'t, String>) {
    let mut all: Vec<_> = tunnels.into_iter().filter(|tunnel| tunnel.metadata.deletion_timestamp.is_none()).collect();
    all.sort_by_key(|tunnel| (tunnel.metadata.creation_timestamp.clone(), tunnel.metadata.uid.clone()));
    let (mut good, mut bad): (Told<'t, Networks>, Told<'t, String>) = (Vec::new(), Vec::new());
    for tunnel in all {
        let id = &tunnel.spec.cluster_identity.cluster_id;
        if tunnel.labels().get(label::TUNNEL_CLUSTER_ID) != Some(id) {
            bad.push((
                tunnel,
                format!("the label {} and spec.clusterIdentity name two clusters", label::TUNNEL_CLUSTER_ID),
            ));
            continue;
        }
        if let Some((other, _)) = good.iter().find(|(other, _)| other.spec.cluster_identity.cluster_id == *id) {
            let (namespace, name) = (other.namespace().unwrap_or_default(), other.name_any());
            bad.push((tunnel, format!("cluster {id} has an older tunnel, {namespace}/{name}")));
            continue;
        }
        match Networks::of(&tunnel.spec) {
            Err(why) => bad.push((tunnel, why)),
            Ok(networks) if networks.hides_ours() => {
                bad.push((tunnel, format!("the peer's networks overlap our pods' {}", networks.local_pods)));
            }
            Ok(networks) => match good.iter().find(|(_, other)| networks.overlaps(other)) {
                Some((other, _)) => {
                    let name = &other.spec.cluster_identity.cluster_name;
                    bad.push((tunnel, format!("the peer's networks overlap those of {name}")));
                }
                None => good.push((tunnel, networks)),
            },
        }
    }
    (good, bad)
}

/// The tunnels that take none of the addresses `vital` away from a node, and the refused tunnels with the reason. Routes to
/// peers take precedence over all other routes, whichever component wrote the tunnel.
pub fn harmless<'t>(
    usable: Told<'t, Networks>,
    vital: &[(IpAddr, &'static str)],
) -> (Told<'t, Networks>, Told<'t, String>) {
    let (mut good, mut bad): (Told<'t, Networks>, Told<'t, String>) = (Vec::new(), Vec::new());
    for (tunnel, networks) in usable {
        match vital.iter().find(|(address, _)| networks.has(*address)) {
            None => good.push((tunnel, networks)),
            Some((address, what)) => {
                let [pods, external] = networks.remote();
                let text = format!(
                    "no route to {pods} and {external} of {}: they cover {address}, {what}",
                    tunnel.spec.cluster_identity.cluster_name
                );
                bad.push((tunnel, text));
            }
        }
    }
    (good, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(local_nat: &str, remote: &str, remote_nat: &str) -> TunnelEndpointSpec {
        TunnelEndpointSpec {
            local_pod_cidr: "10.244.0.0/16".into(),
            local_nat_pod_cidr: local_nat.into(),
            local_external_cidr: "10.97.0.0/16".into(),
            local_nat_external_cidr: "None".into(),
            remote_pod_cidr: remote.into(),
            remote_nat_pod_cidr: remote_nat.into(),
            remote_external_cidr: "10.97.0.0/16".into(),
            remote_nat_external_cidr: "10.98.0.0/16".into(),
            ..TunnelEndpointSpec::default()
        }
    }

    fn tunnel(age: i64, spec: TunnelEndpointSpec) -> TunnelEndpoint {
        let mut tunnel = TunnelEndpoint::new(&format!("t{age}"), spec);
        tunnel.spec.cluster_identity.cluster_id = format!("c{age}");
        tunnel.metadata.labels = Some([(label::TUNNEL_CLUSTER_ID.to_owned(), format!("c{age}"))].into());
        let time = k8s_openapi::jiff::Timestamp::from_second(age).unwrap();
        tunnel.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        tunnel
    }

    #[test]
    fn what_is_effective_is_read() {
        let networks = Networks::of(&spec("10.245.0.0/16", "10.244.0.0/16", "10.245.0.0/16")).unwrap();
        assert_eq!(networks.remote_pods.to_string(), "10.245.0.0/16");
        assert_eq!(networks.local_pods_there.to_string(), "10.245.0.0/16");
        assert_eq!(networks.local_external_there.to_string(), "10.97.0.0/16");
        assert!(networks.is_remapped());
        assert!(!Networks::of(&spec("None", "10.200.0.0/16", "None")).unwrap().is_remapped());
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_sentence() {
        let error = Networks::of(&spec("10.245.0.0/24", "10.244.0.0/16", "None")).unwrap_err();
        assert!(error.contains("different sizes"), "{error}");
        let error = Networks::of(&spec("None", "10.244.0/16", "None")).unwrap_err();
        assert_eq!(error, "remoteNATPodCIDR \"10.244.0/16\" is no network like 10.0.0.0/16");
    }

    #[test]
    fn the_older_of_two_that_overlap_stays() {
        let all = [
            tunnel(2, spec("None", "10.1.0.0/16", "None")),
            tunnel(1, spec("None", "10.0.0.0/15", "None")),
            tunnel(3, spec("None", "10.244.0.0/16", "None")),
            tunnel(4, spec("None", "0.0.0.0/0", "None")),
        ];
        let (good, bad) = usable(&all);
        assert_eq!(good.iter().map(|(tunnel, _)| tunnel.metadata.name.as_deref().unwrap()).collect::<Vec<_>>(), ["t1"]);
        assert_eq!(bad.len(), 3);
    }

    #[test]
    fn a_tunnel_that_leads_away_what_a_node_needs_is_refused() {
        let mut tunnels =
            [tunnel(1, spec("None", "172.30.0.8/29", "None")), tunnel(2, spec("None", "10.1.0.0/16", "None"))];
        tunnels[1].spec.remote_nat_external_cidr = "10.2.0.0/16".into();
        let vital = [("10.9.0.1", "a node"), ("172.30.0.9", "the default gateway")];
        let vital = vital.map(|(address, what)| (address.parse().unwrap(), what));
        let (both, _) = usable(&tunnels);
        let (good, bad) = harmless(both, &vital);
        assert_eq!((good.len(), good[0].0.name_any()), (1, "t2".to_owned()));
        assert!(bad[0].1.contains("they cover 172.30.0.9, the default gateway"), "{}", bad[0].1);
    }

    #[test]
    fn a_cluster_has_one_tunnel_the_one_its_label_names() {
        let first = tunnel(1, spec("None", "10.0.0.0/16", "None"));
        let mut second = tunnel(2, spec("None", "10.1.0.0/16", "None"));
        second.spec.cluster_identity.cluster_id = "c1".to_owned();
        let (good, bad) = usable([&second, &first]);
        assert_eq!((good.len(), good[0].0.name_any()), (1, "t1".to_owned()));
        assert!(bad[0].1.contains("name two clusters"), "{}", bad[0].1);
        second.metadata.labels = first.metadata.labels.clone();
        let (good, bad) = usable([&second, &first]);
        assert_eq!((good.len(), good[0].0.name_any()), (1, "t1".to_owned()));
        assert_eq!(bad[0].1, "cluster c1 has an older tunnel, /t1");
    }

    /// What a tunnel tells is networks of which ours are equally large on both sides, or a sentence.
    #[test]
    fn fuzz_tunnels() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "tunnel_endpoint", |bytes| {
            let Ok(spec) = serde_json::from_slice::<TunnelEndpointSpec>(bytes) else { return };
            if let Ok(networks) = Networks::of(&spec) {
                assert_eq!(networks.local_pods.prefix_len(), networks.local_pods_there.prefix_len());
                assert!(networks.remote().iter().all(|network| *network == network.trunc()), "host bits");
            }
        });
    }
}
