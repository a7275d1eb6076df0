//! The engine in this process: two threads that share a table of pairs of keys.
//!
//! ```text
//!   outbound   interface -> split -> seal -> UDP      waits on the interface
//!   inbound    UDP -> open -> merge -> interface      waits on the socket; handshakes and timers
//!   control    what is wished -> plan -> table        runs in its caller, or in inbound after a handshake
//! ```
//!
//! The two threads hold open files and no capability. Nothing is allocated per packet: buffers belong to the threads, not to peers. A peer owns the protocol's state, a few kB.

mod control;
mod inbound;
mod limit;
mod link;
mod merge;
mod outbound;
mod packet;
mod routes;
mod split;
mod table;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ring::rand::{SecureRandom, SystemRandom};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use crate::sys::{Datagrams, Endpoint, Outgoing, Tun};
use crate::{Device, Engine, Error, Implementation, Peer, PeerState, PrivateKey, PublicKey, namespace, sys};
use control::Control;
use inbound::{Inbound, TICK};
use link::{Link, SMALLEST};
use outbound::{Outbound, send_now};
use table::Board;

/// The engine in this process.
pub(crate) struct Userspace {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    port: u16,
    reason: Option<String>,
}

/// What the threads share.
pub(crate) struct Shared {
    tun: Tun,
    wire: Wire,
    board: Board,
    control: Mutex<Control>,
    stopping: AtomicBool,
    wake: OwnedFd,
    ended: Mutex<Option<String>>,
}

/// The UDP side.
pub(crate) struct Wire {
    socket: OwnedFd,
    v6: bool,
    /// The way out does checksums, so large messages can be cut on it.
    large: AtomicBool,
}

/// Opens the interface in its namespace and the socket in ours, and starts the threads.
pub(crate) fn open(device: &Device, tun_namespace: BorrowedFd<'_>, reason: Option<String>) -> Result<Userspace, Error> {
    let (socket, v6) =
        sys::open_udp(device.port, TICK).map_err(|error| Error::io(format!("bind UDP port {}", device.port), error))?;
    let port = rustix::net::getsockname(&socket)
        .ok()
        .and_then(|address| std::net::SocketAddr::try_from(address).ok())
        .map_or(device.port, |address| address.port());
    let tun = namespace::within(tun_namespace, || sys::open_tun(&device.interface, device.mtu))?
        .map_err(|error| Error::io(format!("make the interface `{}`", device.interface), error))?;
    let mut mask = [0; 4];
    SystemRandom::new()
        .fill(&mut mask)
        .map_err(|_| Error::io("read random bytes", io::Error::other("getrandom failed")))?;
    let shared = Arc::new(Shared {
        tun,
        wire: Wire { socket, v6, large: AtomicBool::new(true) },
        board: Board::default(),
        control: Mutex::new(Control::new(&device.key, u32::from_ne_bytes(mask))),
        stopping: AtomicBool::new(false),
        wake: eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| Error::io("make an eventfd", error))?,
        ended: Mutex::new(None),
    });
    shared.lock().settle(&shared.board);
    let mut engine = Userspace { shared, threads: Vec::new(), port, reason };
    let mut outbound = Outbound::new(engine.shared.clone(), device.mtu as usize);
    engine.spawn("tunnel-out", move || outbound.run())?;
    let mut inbound = Inbound::new(engine.shared.clone());
    engine.spawn("tunnel-in", move || inbound.run())?;
    Ok(engine)
}

impl Userspace {
    fn spawn(&mut self, name: &str, mut run: impl FnMut() -> io::Result<()> + Send + 'static) -> Result<(), Error> {
        let shared = self.shared.clone();
        let body = move || {
            if let Err(error) = give_up_power().and_then(|()| run()) {
                tracing::error!(%error, "the tunnel ended: its interface or its socket is gone");
                *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                shared.stop();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push(thread.map_err(|error| Error::io("start a thread", error))?);
        Ok(())
    }

    /// Starts handshakes.
    fn greet(&self, links: &[Arc<Link>]) {
        let mut scratch = [0; SMALLEST];
        for link in links {
            send_now(&self.shared.wire, link, &mut scratch, |state, buffer| state.greet(Instant::now(), buffer));
        }
    }
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

    fn set_key(&self, key: &PrivateKey) -> Result<(), Error> {
        self.check()?;
        let new = self.shared.lock().set_key(key, &self.shared.board);
        self.greet(&new);
        Ok(())
    }

    fn set_peers(&self, peers: &[Peer]) -> Result<(), Error> {
        self.check()?;
        let new = self.shared.lock().set_peers(peers, &self.shared.board)?;
        self.greet(&new);
        Ok(())
    }

    fn peers(&self) -> Result<Vec<PeerState>, Error> {
        let peers = self.shared.lock().by_peer();
        Ok(peers.into_iter().map(|(key, links)| told(key, &links)).collect())
    }

    fn handshake(&self, peer: &PublicKey) -> Result<(), Error> {
        self.check()?;
        let link = self.shared.lock().current(peer).ok_or(Error::Unknown(*peer))?;
        let mut scratch = [0; SMALLEST];
        let sent =
            send_now(&self.shared.wire, &link, &mut scratch, |state, buffer| state.greet(Instant::now(), buffer));
        if sent { Ok(()) } else { Err(Error::NoEndpoint(*peer)) }
    }

    fn check(&self) -> Result<(), Error> {
        match &*self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(Error::Ended(why.clone())),
            None => Ok(()),
        }
    }

    fn stop(self: Box<Self>) {}
}

impl Drop for Userspace {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; there is nothing left to end.
            let _ = thread.join();
        }
    }
}

/// A thread that reads datagrams of strangers needs only its open files: it drops all capabilities, and a program that it
/// started would have none either.
fn give_up_power() -> io::Result<()> {
    let none = CapabilitySet::empty();
    set_no_new_privs(true)?;
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// What is known of a peer through all its pairs.
fn told(key: PublicKey, links: &[Arc<Link>]) -> PeerState {
    let mut told = PeerState { key, endpoint: None, last_handshake: None, received: 0, sent: 0 };
    for link in links {
        let state = link.lock();
        let (received, sent, last_handshake) = state.figures();
        told.received += received;
        told.sent += sent;
        if told.endpoint.is_none() || last_handshake > told.last_handshake {
            told.endpoint = state.endpoint().map(|endpoint| endpoint.to);
        }
        told.last_handshake = told.last_handshake.max(last_handshake);
    }
    told
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pair has shaken hands: those it replaces can go.
    fn settle(&self) {
        let mut control = self.lock();
        if control.is_waiting() {
            control.settle(&self.board);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Wakes both threads for the last time.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        // Refused for a socket without a peer, but it wakes its reader all the same.
        let _ = rustix::net::shutdown(&self.wire.socket, rustix::net::Shutdown::Both);
    }

    fn wait_for_frames(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.tun.file, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Wire {
    fn receive(&self, datagrams: &mut Datagrams, wait: bool) -> io::Result<usize> {
        datagrams.receive(self.socket.as_fd(), wait)
    }

    /// Sends what can be sent. A message that is refused (no route, too large, a firewall) is a lost packet and no more.
    fn send(&self, buffer: &[u8], mut messages: &[Outgoing]) {
        if !self.large.load(Ordering::Relaxed) {
            return messages.iter().for_each(|message| self.send_apart(buffer, message));
        }
        while let Some(first) = messages.first() {
            match sys::send(self.socket.as_fd(), self.v6, buffer, messages) {
                Ok(sent) => messages = &messages[sent.clamp(1, messages.len())..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The device on the way out cannot cut: it never will.
                    if error.raw_os_error() == Some(libc::EIO) {
                        self.large.store(false, Ordering::Relaxed);
                    }
                    self.send_apart(buffer, first);
                    messages = &messages[1..];
                }
            }
        }
    }

    /// Sends the datagrams of a message one by one, and if it must be from an address that the routing table chooses: ours may be gone.
    fn send_apart(&self, buffer: &[u8], message: &Outgoing) {
        for offset in (0..message.length).step_by(message.size.max(1)) {
            let length = message.size.min(message.length - offset);
            let datagram = Outgoing { start: message.start + offset, length, size: length, ..*message };
            let Err(error) = sys::send(self.socket.as_fd(), self.v6, buffer, &[datagram]) else { continue };
            // What the kernel says of a source that is no address of ours any more depends on the routes.
            let no_source = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENETUNREACH | libc::EHOSTUNREACH));
            if no_source && message.endpoint.from.is_some() {
                let endpoint = Endpoint::new(message.endpoint.to);
                let _ = sys::send(self.socket.as_fd(), self.v6, buffer, &[Outgoing { endpoint, ..datagram }]);
            }
        }
    }
}
