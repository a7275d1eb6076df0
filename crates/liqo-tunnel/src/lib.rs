//! WireGuard: one interface, two engines, the kernel's and ours in this process.
//!
//! Knows peers, keys and packets; nothing of Liqo, nothing of Kubernetes. An engine owns one tunnel interface, which lives in
//! the network namespace it was opened with, and one UDP port, which lives in the namespace of the caller: what leaves
//! the tunnel and what carries it never share a routing table.
//!
//! ```text
//!   namespace of the tunnel            namespace of the caller
//!   routes -> liqo.tunnel  -- seal -->  UDP port -> peers
//!             liqo.tunnel <-- open --   UDP port <- peers
//! ```
//!
//! Everything here is synchronous: [`Engine`] may be called from any thread, and calls return without waiting for packets.

mod error;
mod kernel;
mod key;
mod namespace;
mod plan;
mod sys;
mod userspace;

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

pub use error::Error;
pub use key::{ParseKeyError, PrivateKey, PublicKey};

/// The tunnel interface and what it answers as.
#[derive(Clone, Debug)]
pub struct Device {
    /// Name of the interface, at most 15 bytes: `liqo.tunnel`.
    pub interface: String,
    /// UDP port, on all addresses of the caller's namespace, IPv4 and IPv6. 0 lets the kernel choose.
    pub port: u16,
    /// Our static key.
    pub key: PrivateKey,
    /// Largest IP packet that enters the tunnel, in bytes. Routes may ask for less per peer.
    pub mtu: u32,
}

/// What is wished of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's static public key.
    pub key: PublicKey,
    /// Where it is expected. `None`: it must come to us first. A peer that shows itself elsewhere, authenticated, is followed
    /// there (roaming) until this field changes.
    pub endpoint: Option<SocketAddr>,
    /// What is sent to it (longest prefix wins among all peers) and the only sources accepted from it.
    pub allowed: Vec<IpNet>,
    /// An empty packet is sent this often, so that NAT on the way keeps its mapping. Whole seconds, 1 to 65535.
    pub keepalive: Option<Duration>,
}

/// What is known of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// The peer's static public key.
    pub key: PublicKey,
    /// Where its last authenticated packet came from, or where it is expected.
    pub endpoint: Option<SocketAddr>,
    /// When both sides last agreed on keys.
    pub last_handshake: Option<SystemTime>,
    /// Bytes of authenticated packets from it, as they are inside the tunnel.
    pub received: u64,
    /// Bytes sent to it, as they are inside the tunnel.
    pub sent: u64,
}

/// Who moves the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// The kernel's WireGuard, driven by netlink.
    Kernel,
    /// Ours, in this process.
    Userspace,
}

impl Implementation {
    /// The word shown in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}

/// A running tunnel. Dropping it stops it and removes the interface.
pub trait Engine: Send + Sync {
    /// Who moves the packets.
    fn implementation(&self) -> Implementation;

    /// Why the kernel's engine was not taken although it was not ruled out; `None` for the kernel's.
    fn fallback_reason(&self) -> Option<&str>;

    /// The UDP port in use.
    fn port(&self) -> u16;

    /// Answers under a new key from now on. Peers that only know the old one stay connected, until a handshake under the new
    /// key has succeeded with them.
    ///
    /// # Errors
    /// The kernel refused.
    fn set_key(&self, key: &PrivateKey) -> Result<(), Error>;

    /// Makes the peers equal to this list. Peers that stay keep their session, also when endpoint, allowed prefixes
    /// or keepalive change. A peer whose key is new and whose prefixes are those of a peer that is leaving takes its place only after
    /// its first handshake: until then the old key carries the traffic.
    ///
    /// # Errors
    /// The list names one key twice, or the kernel refused.
    fn set_peers(&self, peers: &[Peer]) -> Result<(), Error>;

    /// What is known of all peers, those on their way out included.
    ///
    /// # Errors
    /// The kernel refused.
    fn peers(&self) -> Result<Vec<PeerState>, Error>;

    /// Starts a handshake with a peer now, even if its keys are fresh: a new active gateway makes itself known like this.
    ///
    /// # Errors
    /// The peer is unknown, has no endpoint, or the packet could not be sent.
    fn handshake(&self, peer: &PublicKey) -> Result<(), Error>;

    /// Tells whether the engine still moves packets.
    ///
    /// # Errors
    /// Why it ended: usually its interface went away. It must then be opened anew.
    fn check(&self) -> Result<(), Error>;

    /// Ends it and removes the interface; returns when both are done.
    fn stop(self: Box<Self>);
}

/// Opens a tunnel. The interface is made in `tun_namespace` (a file descriptor of a network namespace), up, with the MTU of
/// `device` and without addresses; the UDP port is bound in the namespace of the calling thread.
///
/// `wish` names the implementation; `None` takes the kernel's where it exists and ours otherwise, for the reason that
/// [`Engine::fallback_reason`] tells.
///
/// # Errors
/// The name is too long, the interface exists and is not ours, the port is taken, or rights are missing (`CAP_NET_ADMIN` in
/// both namespaces).
pub fn open(
    device: &Device,
    tun_namespace: BorrowedFd<'_>,
    wish: Option<Implementation>,
) -> Result<Box<dyn Engine>, Error> {
    if device.interface.is_empty()
        || device.interface.len() > 15
        || device.interface.contains(|c: char| c == '/' || c.is_whitespace())
    {
        return Err(Error::Name(device.interface.clone()));
    }
    let userspace =
        |reason| userspace::open(device, tun_namespace, reason).map(|engine| Box::new(engine) as Box<dyn Engine>);
    match wish {
        Some(Implementation::Userspace) => userspace(None),
        Some(Implementation::Kernel) => Ok(Box::new(kernel::open(device, tun_namespace)?)),
        None => match kernel::open(device, tun_namespace) {
            Ok(engine) => Ok(Box::new(engine)),
            Err(error @ Error::NoKernel(_)) => userspace(Some(error.to_string())),
            Err(error) => Err(error),
        },
    }
}

/// Refuses a list with one key in it twice.
fn distinct(peers: &[Peer]) -> Result<(), Error> {
    let mut keys = std::collections::HashSet::new();
    match peers.iter().find(|peer| !keys.insert(peer.key)) {
        Some(twice) => Err(Error::Twice(twice.key)),
        None => Ok(()),
    }
}
