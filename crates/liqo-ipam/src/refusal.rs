//! Why something cannot be: facts for the user, one sentence each.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why something cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a network at all.
    #[error("{what} {text:?} is not a network: it must look like 10.244.0.0/16")]
    Syntax {
        /// Which network.
        what: String,
        /// What was given.
        text: String,
    },
    /// An address inside a network was given instead of the network.
    #[error("{what} {text} has bits set behind its mask: the network is {network}")]
    HostBits {
        /// Which network.
        what: String,
        /// What was given.
        text: String,
        /// What was probably meant.
        network: IpNet,
    },
    /// All addresses of an IP version.
    #[error("{what} {network} means every address there is: it would take all traffic of this cluster")]
    Everything {
        /// Which network.
        what: String,
        /// What was given.
        network: IpNet,
    },
    /// Addresses no pod can have.
    #[error("{what} {network} contains {range}, {reason}: no pod can be reached there")]
    Unroutable {
        /// Which network.
        what: String,
        /// What was given.
        network: IpNet,
        /// The part that cannot be.
        range: IpNet,
        /// What that part is.
        reason: &'static str,
    },
    /// No room for a first, a last, a tunnel's and one more address.
    #[error("{what} {network} is too small: it needs at least four addresses")]
    TooSmall {
        /// Which network.
        what: String,
        /// What was given.
        network: IpNet,
    },
    /// A network no cluster has.
    #[error("{what} {network} is of no size a cluster has: its mask must be from /{shortest} to /{longest}")]
    Length {
        /// Which network.
        what: String,
        /// What was given.
        network: IpNet,
        /// Mask length of the largest network.
        shortest: u8,
        /// Mask length of the smallest network.
        longest: u8,
    },
    /// A network in use for a peer leads away what this cluster lives on.
    #[error(
        "{what} {network} covers {covered}, {reason}: nothing is sent there any more; move one of them, or unpeer and \
         peer again to have the peer remapped"
    )]
    Covers {
        /// Which network.
        what: String,
        /// Its value.
        network: IpNet,
        /// What lies in it.
        covered: IpNet,
        /// What that is.
        reason: String,
    },
    /// A peer has as many addresses as one peer may have.
    #[error("cluster {cluster} uses {limit} exported addresses, as many as one peer may: give some back first")]
    TooManyOfPeer {
        /// The peer.
        cluster: String,
        /// How many that are.
        limit: usize,
    },
    /// The store has as many addresses as it can keep.
    #[error("{limit} exported addresses are in use by all peers, as many as can be kept: give some back first")]
    TooMany {
        /// How many that are.
        limit: usize,
    },
    /// IPv4 and IPv6 cannot be translated into each other.
    #[error("{what} {network} is of another IP version than our own pod network {own}")]
    Version {
        /// Which network.
        what: String,
        /// What was given.
        network: IpNet,
        /// Ours.
        own: IpNet,
    },
    /// One-to-one translation needs networks of one size.
    #[error("{what} {network} is not of the same size as {own}: addresses could not be translated one to one")]
    Size {
        /// Which network.
        what: String,
        /// What was given.
        network: IpNet,
        /// What it stands for.
        own: IpNet,
    },
    /// Two networks that must not overlap do.
    #[error("{what} {network} overlaps {other} {taken}")]
    Overlap {
        /// Which network.
        what: String,
        /// What was given.
        network: IpNet,
        /// What is there.
        other: String,
        /// Its network.
        taken: IpNet,
    },
    /// Something that can be set once only.
    #[error(
        "trying to change {what} from {old} to {new}: it cannot be changed once peers may know it; uninstall first"
    )]
    Changed {
        /// Which network.
        what: &'static str,
        /// What it is.
        old: IpNet,
        /// What it should become.
        new: IpNet,
    },
    /// The networks of this cluster have not been set yet.
    #[error("the networks of this cluster are not known yet")]
    NotConfigured,
    /// No pool has room.
    #[error("no pool has a free network of size /{length} for {what}: add a pool with --manager.additional-pools")]
    PoolsExhausted {
        /// For which network.
        what: String,
        /// Mask length needed.
        length: u8,
    },
    /// The external network has no free address.
    #[error("the external network {0} has no free address left")]
    ExternalExhausted(IpNet),
    /// We have no networks of that peer.
    #[error("cluster {0} is unknown: its networks have not been announced")]
    UnknownPeer(String),
    /// The peer has not told us how it sees our networks.
    #[error("cluster {0} has not told yet how it sees our networks")]
    NotYetSeen(String),
    /// An endpoint that cannot be exported.
    #[error("address {ip} cannot be exported: {reason}")]
    Endpoint {
        /// The address.
        ip: IpAddr,
        /// Why not.
        reason: &'static str,
    },
    /// An address that should be in a network and is not.
    #[error("address {ip} is not in {what} {network}")]
    Outside {
        /// The address.
        ip: IpAddr,
        /// Which network.
        what: String,
        /// Its value.
        network: IpNet,
    },
}
