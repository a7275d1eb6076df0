//! The engine in this process.

use std::os::fd::BorrowedFd;

use crate::{Device, Engine, Error, Implementation, Peer, PeerState, PrivateKey, PublicKey};

/// The engine in this process.
pub(crate) struct Userspace {
    port: u16,
    reason: Option<String>,
}

pub(crate) fn open(
    device: &Device,
    _tun_namespace: BorrowedFd<'_>,
    reason: Option<String>,
) -> Result<Userspace, Error> {
    Ok(Userspace { port: device.port, reason })
}

impl Engine for Userspace {
    fn implementation(&self) -> Implementation {
        Implementation::Userspace
    }

    fn fallback_reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn set_key(&self, _key: &PrivateKey) -> Result<(), Error> {
        Ok(())
    }

    fn set_peers(&self, _peers: &[Peer]) -> Result<(), Error> {
        Ok(())
    }

    fn peers(&self) -> Result<Vec<PeerState>, Error> {
        Ok(Vec::new())
    }

    fn handshake(&self, peer: &PublicKey) -> Result<(), Error> {
        Err(Error::Unknown(*peer))
    }

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn stop(self: Box<Self>) {}
}
