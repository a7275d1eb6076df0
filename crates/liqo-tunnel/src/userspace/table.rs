//! What the packet threads look up: pairs by number, by keys and by address. Never changed, only replaced as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;

use super::link::Link;
use super::routes::Routes;
use crate::{PrivateKey, PublicKey};

/// Bytes of a cookie reply.
pub(crate) const COOKIE_LENGTH: usize = 64;

/// One of our keys that peers may address: the current one, and former ones that still carry traffic.
pub(crate) struct Identity {
    pub(crate) private: PrivateKey,
    pub(crate) secret: x25519::StaticSecret,
    pub(crate) point: x25519::PublicKey,
    pub(crate) public: PublicKey,
    /// Checks both MACs of every handshake message.
    gate: RateLimiter,
    /// For the pairs, which see only what passed the gate: counts nothing.
    pub(crate) inner: Arc<RateLimiter>,
}

impl Identity {
    pub(crate) fn new(private: &PrivateKey) -> Self {
        let public = private.public();
        Self {
            private: private.clone(),
            secret: private.secret(),
            point: public.point(),
            public,
            gate: RateLimiter::new(&public.point(), 0),
            inner: Arc::new(RateLimiter::new(&public.point(), u64::MAX)),
        }
    }

    /// The kind of a handshake message made for this key, and whether its sender has proved its source address. Without the
    /// proof, `cookie` holds the message that asks for the proof.
    pub(crate) fn examine<'a>(
        &self,
        datagram: &'a [u8],
        from: IpAddr,
        cookie: &mut [u8; COOKIE_LENGTH],
    ) -> Option<(Packet<'a>, bool)> {
        match self.gate.verify_packet(Some(from), datagram, cookie) {
            Ok(packet) => Some((packet, true)),
            // The first MAC is right, the second is not.
            Err(TunnResult::WriteToNetwork(_)) => Some((Tunn::parse_incoming_packet(datagram).ok()?, false)),
            Err(_) => None,
        }
    }
}

/// A pair and its place.
pub(crate) struct Entry {
    pub(crate) link: Arc<Link>,
    /// The number of the wished peer it works for.
    pub(crate) group: u32,
    /// Somebody waits for its handshake.
    pub(crate) eager: bool,
}

/// A snapshot.
#[derive(Default)]
pub(crate) struct Table {
    /// Hides how many pairs there are: numbers on the wire are slots xored with it. 24 bits.
    pub(crate) mask: u32,
    pub(crate) entries: Vec<Option<Entry>>,
    pub(crate) by_keys: HashMap<(PublicKey, PublicKey), u32>,
    /// For each wished peer the slot that carries its traffic.
    pub(crate) senders: Vec<u32>,
    pub(crate) routes: Routes,
    pub(crate) identities: Vec<Arc<Identity>>,
}

impl Table {
    /// The pair a message names by its receiver index.
    pub(crate) fn by_index(&self, index: u32) -> Option<&Entry> {
        self.entries.get(((index >> 8) ^ self.mask) as usize)?.as_ref()
    }

    /// The pair of one of our keys and one of theirs.
    pub(crate) fn by_keys(&self, ours: PublicKey, theirs: PublicKey) -> Option<&Entry> {
        self.entries.get(*self.by_keys.get(&(ours, theirs))? as usize)?.as_ref()
    }

    /// The pair a packet to this address goes out by.
    pub(crate) fn by_destination(&self, address: IpAddr) -> Option<&Arc<Link>> {
        let slot = *self.senders.get(self.routes.find(address)? as usize)?;
        self.entries.get(slot as usize)?.as_ref().map(|entry| &entry.link)
    }

    /// Whether a peer may send from this address.
    pub(crate) fn may_send(&self, group: u32, address: IpAddr) -> bool {
        self.routes.find(address) == Some(group)
    }

    /// All pairs.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }
}

/// Where the newest snapshot is.
#[derive(Default)]
pub(crate) struct Board {
    version: AtomicU64,
    table: Mutex<Arc<Table>>,
}

impl Board {
    /// Replaces the snapshot; readers see it with their next packet.
    pub(crate) fn publish(&self, table: Table) {
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The newest snapshot.
    pub(crate) fn latest(&self) -> Arc<Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A thread's own snapshot: looking whether it is the newest costs one load.
pub(crate) struct Reader {
    seen: u64,
    table: Arc<Table>,
}

impl Reader {
    pub(crate) fn new(board: &Board) -> Self {
        Self { seen: board.version.load(Ordering::Acquire), table: board.latest() }
    }

    pub(crate) fn refresh(&mut self, board: &Board) -> Arc<Table> {
        let version = board.version.load(Ordering::Acquire);
        if version != self.seen {
            *self = Self { seen: version, table: board.latest() };
        }
        self.table.clone()
    }
}
