//! Addresses outside of the plan that networks of peers must not cover.

use std::net::IpAddr;

use ipnet::IpNet;

/// What networks used for a peer must keep clear of, besides what the plan itself holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Addresses vital to this cluster (of its nodes and its API server), each with a description. No network in use for a peer
    /// may cover such an address, also when the address appears later.
    pub vital: Vec<(IpNet, String)>,
    /// Addresses of peers' gateways. A newly chosen network covers none of them. A network in use stays: the gateway address
    /// that one peer claims does not affect another peer.
    pub gateways: Vec<IpNet>,
    /// Whether announced networks that are neither private nor in a pool are used unchanged; otherwise such networks are
    /// remapped.
    pub public: bool,
}

impl Around {
    /// Whether one of these networks contains an address.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.networks().any(|network| network.contains(&address))
    }

    /// All of it.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.vital.iter().map(|(network, _)| *network).chain(self.gateways.iter().copied())
    }
}
