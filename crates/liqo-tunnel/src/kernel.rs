//! The kernel's WireGuard, driven by netlink.
//!
//! The device is made in the caller's namespace, where its UDP socket stays, and then moved into the tunnel's. The kernel holds
//! one key per device: peers that only know an old key of ours are cut off by [`Engine::set_key`]. A peer's new key waits behind the old one as
//! in user space; whether it has shaken hands is looked at in [`Engine::peers`], which therefore must be called now and then.

mod codec;
mod netlink;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_wireguard::WireguardAttribute;

use crate::plan::{Present, plan};
use crate::{Device, Engine, Error, Implementation, Peer, PeerState, PrivateKey, PublicKey, namespace};
use codec::Seen;
use netlink::{Link, Wireguard};

/// A device of the kernel.
pub(crate) struct Kernel {
    name: String,
    port: u16,
    namespace: OwnedFd,
    state: Mutex<State>,
}

struct State {
    /// A socket in the tunnel's namespace.
    wireguard: Wireguard,
    own: PublicKey,
    wished: Vec<Peer>,
    waiting: bool,
}

/// Makes the device, moves it, and gives it key and port.
///
/// # Errors
/// [`Error::NoKernel`] when the kernel has no WireGuard; others when something else is wrong.
pub(crate) fn open(device: &Device, tun_namespace: BorrowedFd<'_>) -> Result<Kernel, Error> {
    let namespace = tun_namespace
        .try_clone_to_owned()
        .map_err(|error| Error::io("keep the network namespace of the tunnel", error))?;
    Link::new()?.create(&device.interface, device.mtu, tun_namespace)?;
    let opened = namespace::within(tun_namespace, || {
        let mut wireguard = Wireguard::new()?;
        wireguard.set(&device.interface, codec::device(&device.key, device.port))?;
        Link::new()?.up(&device.interface)?;
        let port = wireguard.get(&device.interface)?.iter().find_map(|attribute| match attribute {
            WireguardAttribute::ListenPort(port) => Some(*port),
            _ => None,
        });
        Ok((wireguard, port))
    })?;
    let kernel = |wireguard, port: Option<u16>| Kernel {
        name: device.interface.clone(),
        port: port.unwrap_or(device.port),
        namespace,
        state: Mutex::new(State { wireguard, own: device.key.public(), wished: Vec::new(), waiting: false }),
    };
    match opened {
        Ok((wireguard, port)) => Ok(kernel(wireguard, port)),
        Err(error) => {
            // Half a device would stand in the way of the other engine.
            let _ = namespace::within(tun_namespace, || Link::new()?.remove(&device.interface));
            Err(error)
        }
    }
}

impl Kernel {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the device's peers equal to `wished`.
    fn settle(&mut self, name: &str, wished: &[Peer]) -> Result<(), Error> {
        let seen = codec::peers(&self.wireguard.get(name)?);
        let present: Vec<Present> = seen
            .iter()
            .map(|peer| Present {
                ours: self.own,
                key: peer.key,
                allowed: peer.allowed.clone(),
                established: peer.last_handshake.is_some(),
            })
            .collect();
        let wanted = plan(&present, &self.own, wished);
        for message in codec::messages(codec::changes(&seen, &self.wished, wished, &wanted)) {
            self.wireguard.set(name, vec![WireguardAttribute::Peers(message)])?;
        }
        self.waiting = wanted.iter().any(|wanted| wanted.before.is_some());
        self.wished = wished.to_vec();
        Ok(())
    }
}

impl Engine for Kernel {
    fn implementation(&self) -> Implementation {
        Implementation::Kernel
    }

    fn fallback_reason(&self) -> Option<&str> {
        None
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn set_key(&self, key: &PrivateKey) -> Result<(), Error> {
        let mut state = self.lock();
        state.wireguard.set(&self.name, vec![WireguardAttribute::PrivateKey(*key.as_bytes())])?;
        state.own = key.public();
        Ok(())
    }

    fn set_peers(&self, peers: &[Peer]) -> Result<(), Error> {
        crate::distinct(peers)?;
        self.lock().settle(&self.name, peers)
    }

    fn peers(&self) -> Result<Vec<PeerState>, Error> {
        let mut state = self.lock();
        if state.waiting {
            let wished = std::mem::take(&mut state.wished);
            let settled = state.settle(&self.name, &wished);
            state.wished = wished;
            settled?;
        }
        Ok(codec::peers(&state.wireguard.get(&self.name)?).iter().map(Seen::state).collect())
    }

    /// The kernel shakes hands when it has something to send and no fresh keys: a keepalive is something to send.
    fn handshake(&self, peer: &PublicKey) -> Result<(), Error> {
        let mut state = self.lock();
        let wished = state.wished.iter().find(|wished| wished.key == *peer).ok_or(Error::Unknown(*peer))?.keepalive;
        for interval in
            [Some(0), Some(1), wished.is_none().then_some(0), wished.map(codec::seconds)].into_iter().flatten()
        {
            state.wireguard.set(&self.name, vec![WireguardAttribute::Peers(vec![codec::keepalive(peer, interval)])])?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        self.lock().wireguard.get(&self.name).map(drop).map_err(|error| Error::Ended(error.to_string()))
    }

    fn stop(self: Box<Self>) {}
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let removed = namespace::within(self.namespace.as_fd(), || Link::new()?.remove(&self.name));
        if let Err(error) | Ok(Err(error)) = removed {
            tracing::warn!(%error, interface = self.name, "the tunnel's interface stays behind");
        }
    }
}
