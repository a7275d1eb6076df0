//! The addresses that endpoints of a peer may have: clients and ingress controllers of this cluster connect to these addresses.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Node, discovery::v1::Endpoint};
use liqo_api::net::TunnelEndpointSpec;
use liqo_core::endpoint::can_be_elsewhere;

/// Where endpoints of a peer may be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bounds {
    /// In these networks; none: nowhere.
    Networks(Vec<IpNet>),
    /// Any address that is not an address of these nodes of this cluster.
    Outside(BTreeSet<IpAddr>),
}

impl Bounds {
    /// Nowhere.
    pub(super) const NONE: Self = Self::Networks(Vec::new());

    /// The networks of a peer under the ranges that this cluster uses for them.
    pub(super) fn of_tunnel(tunnel: &TunnelEndpointSpec) -> Self {
        let seen =
            |own: &str, mapped: &str| if mapped.is_empty() || mapped == "None" { own } else { mapped }.parse().ok();
        let pods = seen(&tunnel.remote_pod_cidr, &tunnel.remote_nat_pod_cidr);
        let external = seen(&tunnel.remote_external_cidr, &tunnel.remote_nat_external_cidr);
        Self::Networks([pods, external].into_iter().flatten().collect())
    }

    /// Every address except the addresses of these nodes.
    pub(super) fn outside<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let statuses = nodes.into_iter().filter_map(|node| node.status.as_ref()?.addresses.as_ref());
        Self::Outside(statuses.flatten().filter_map(|one| one.address.parse().ok()).collect())
    }

    fn allow(&self, ip: IpAddr) -> bool {
        let within = match self {
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&ip)),
            Self::Outside(nodes) => !nodes.contains(&ip.to_canonical()),
        };
        within && can_be_elsewhere(ip)
    }

    /// An address of the endpoint that is out of bounds.
    pub(super) fn offence<'a>(&self, endpoint: &'a Endpoint) -> Option<&'a str> {
        let fits = |address: &&String| address.parse().is_ok_and(|ip| self.allow(ip));
        endpoint.addresses.iter().find(|address| !fits(address)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_in_the_networks_of_their_peer() {
        // As recorded from a real cluster.
        let text = str::to_owned;
        let tunnel = TunnelEndpointSpec {
            remote_pod_cidr: text("10.244.0.0/16"),
            remote_nat_pod_cidr: text("10.245.0.0/16"),
            remote_external_cidr: text("10.97.0.0/16"),
            remote_nat_external_cidr: text("None"),
            ..TunnelEndpointSpec::default()
        };
        let networks = Bounds::of_tunnel(&tunnel);
        let nodes: Node = serde_json::from_value(
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.8"}, {"type": "Hostname", "address": "n"}]}}),
        )
        .unwrap();
        let anywhere = Bounds::outside([&nodes]);
        for (address, inside, outside) in [
            ("10.245.0.43", true, true),
            ("10.97.3.4", true, true),
            ("10.244.0.43", false, true),
            ("172.30.0.8", false, false),
            ("::ffff:172.30.0.8", false, false),
            ("127.0.0.1", false, false),
            ("169.254.169.254", false, false),
            ("example.com", false, false),
        ] {
            let endpoint = Endpoint { addresses: vec![address.to_owned()], ..Endpoint::default() };
            let fits = |bounds: &Bounds| bounds.offence(&endpoint).is_none();
            assert_eq!((fits(&networks), fits(&anywhere), fits(&Bounds::NONE)), (inside, outside, false), "{address}");
        }
    }
}
