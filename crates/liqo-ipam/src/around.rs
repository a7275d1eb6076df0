//! Addresses outside of the plan that networks of peers must not cover.

use ipnet::IpNet;

/// What networks used for a peer must keep clear of, besides what the plan itself holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// What this cluster lives on, each with what it is: addresses of its nodes, of its API server. No network in use for
    /// a peer may cover one, whenever it was chosen.
    pub vital: Vec<(IpNet, String)>,
    /// Where gateways of peers are. A network chosen newly covers none of them; one in use stays: what one peer says of
    /// its gateway does not disturb another.
    pub gateways: Vec<IpNet>,
    /// Whether networks that are neither private nor in a pool are used as they are announced; otherwise they are
    /// remapped.
    pub public: bool,
}

impl Around {
    /// All of it.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.vital.iter().map(|(network, _)| *network).chain(self.gateways.iter().copied())
    }
}
