//! Addresses of the peer's pods as this cluster uses them, computed from the networks of the tunnel.
//!
//! Keeps true: the answers are those of the IPAM (`GetHomePodIP`), which writes the same networks into the `TunnelEndpoint`.

use std::net::IpAddr;

use ipnet::IpNet;
use liqo_api::net::TunnelEndpointSpec;
use liqo_ipam::NOT_REMAPPED;

use super::Answer;

/// The pod network of the peer, there and here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Remapping {
    /// The tunnels have not been listed yet.
    #[default]
    Unread,
    /// There is no tunnel to the peer, or the networks of the tunnel are none.
    Absent,
    /// Pods of the network `theirs` have addresses of the network `ours` here.
    Of {
        /// The network as the peer announces it.
        theirs: IpNet,
        /// The same network as this cluster uses it.
        ours: IpNet,
    },
}

impl Remapping {
    /// The remapping of pods behind a tunnel.
    pub(super) fn of(spec: &TunnelEndpointSpec) -> Self {
        let (theirs, nat) = (spec.remote_pod_cidr.trim(), spec.remote_nat_pod_cidr.trim());
        let ours = if nat.is_empty() || nat == NOT_REMAPPED { theirs } else { nat };
        match (theirs.parse(), ours.parse()) {
            (Ok(theirs), Ok(ours)) => Self::Of { theirs, ours },
            _ => Self::Absent,
        }
    }

    /// What is known about the address of a pod of the peer; `None`: the IPAM has to say.
    pub(super) fn answer(self, ip: IpAddr) -> Option<Answer> {
        match self {
            Self::Unread => Some(Answer::Asking),
            Self::Absent => None,
            Self::Of { theirs, ours } => {
                Some(liqo_ipam::remap(ip, &theirs, &ours).map_or(Answer::Failed, Answer::Known))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_the_networks_of_the_tunnel_make_of_it() {
        let failed = Some(Answer::Failed);
        let known = |ip: &str| Some(Answer::Known(ip.parse().unwrap()));
        for (theirs, nat, ip, wanted) in [
            ("10.244.0.0/16", "10.71.0.0/16", "10.244.1.2", known("10.71.1.2")),
            ("10.244.0.0/16", "None", "10.244.1.2", known("10.244.1.2")),
            ("10.244.0.0/16", "", "10.244.1.2", known("10.244.1.2")),
            (" 10.244.0.0/16", "10.71.0.0/16 ", "10.244.1.2", known("10.71.1.2")),
            ("10.244.0.0/16", "10.71.0.0/16", "10.245.1.2", failed),
            ("10.244.0.0/16", "10.71.0.0/24", "10.244.1.2", failed),
            ("10.244.0.0/16", "10.71.0.0/16", "fd00::1", failed),
            ("fd00::/64", "fd01::/64", "fd00::7", known("fd01::7")),
            ("", "10.71.0.0/16", "10.244.1.2", None),
            ("10.244.0.0/16", "nonsense", "10.244.1.2", None),
        ] {
            let spec = TunnelEndpointSpec {
                remote_pod_cidr: theirs.to_owned(),
                remote_nat_pod_cidr: nat.to_owned(),
                ..TunnelEndpointSpec::default()
            };
            assert_eq!(Remapping::of(&spec).answer(ip.parse().unwrap()), wanted, "{theirs} {nat} {ip}");
        }
        let ip = "10.244.1.2".parse().unwrap();
        assert_eq!((Remapping::Unread.answer(ip), Remapping::Absent.answer(ip)), (Some(Answer::Asking), None));
    }
}
