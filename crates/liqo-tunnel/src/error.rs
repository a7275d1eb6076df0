//! What can go wrong with a tunnel.

use std::io;

use crate::PublicKey;

/// Why a tunnel could not be opened, changed or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the way was refused.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, as a verb phrase.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An interface name the kernel would not take.
    #[error("`{0}` is no interface name: 1 to 15 bytes, no slash, no white space")]
    Name(String),
    /// The kernel has no WireGuard.
    #[error("the kernel has no WireGuard ({0}); load the module `wireguard` or use the engine in user space")]
    NoKernel(String),
    /// A list of peers with one key in it twice.
    #[error("the key {0} is wished twice; give each peer its own key")]
    Twice(PublicKey),
    /// No such peer.
    #[error("there is no peer with the key {0}")]
    Unknown(PublicKey),
    /// A peer nobody knows the address of.
    #[error("the peer {0} has no endpoint yet; set one, or wait until it comes to us")]
    NoEndpoint(PublicKey),
    /// The engine moves no packets any more.
    #[error("the tunnel has ended ({0}); open it again")]
    Ended(String),
}

impl Error {
    /// Wraps what the kernel said.
    pub(crate) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing: doing.into(), source: source.into() }
    }
}
