//! From the peers to the interface: receive in batches, open, merge, hand over. The clock of the protocol runs here too.

use std::io::{self, IoSlice, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::Packet;
use boringtun::noise::handshake::parse_handshake_anon;

use super::Shared;
use super::limit::{Limit, Verdict};
use super::link::{COOKIE, DATA, INITIATION, OVERHEAD, Opened, RESPONSE, SMALLEST, State};
use super::merge::{Merger, Output};
use super::outbound::send_now;
use super::table::{COOKIE_LENGTH, Entry, Identity, Reader, Table};
use crate::PublicKey;
use crate::sys::{Datagrams, Endpoint, MESSAGE, Outgoing, Tun};

/// How often the clock of the protocol is looked at. Its shortest times are seconds.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Opened packets that wait for being merged: four full messages.
const ARENA: usize = 4 * MESSAGE;
/// How often the socket is looked at before what was opened goes on, and before the clock is looked at again.
const LOOKS: usize = 4;
const SCRATCH: usize = 1 << 16;

/// The state of the thread.
pub(crate) struct Inbound {
    shared: Arc<Shared>,
    reader: Reader,
    datagrams: Datagrams,
    opened: Arena,
    scratch: Box<[u8]>,
    limit: Limit,
    ticked: Instant,
}

/// Opened packets of a batch.
struct Arena {
    bytes: Box<[u8]>,
    used: usize,
    merger: Merger,
    /// The last source that was looked up, and whether it may send: neighbours mostly have the same.
    source: Option<(IpAddr, u32, bool)>,
}

impl Inbound {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let merger = Merger::new(shared.tun.uso);
        Self {
            reader: Reader::new(&shared.board),
            shared,
            datagrams: Datagrams::new(),
            opened: Arena { bytes: vec![0; ARENA].into_boxed_slice(), used: 0, merger, source: None },
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            limit: Limit::default(),
            ticked: Instant::now(),
        }
    }

    /// Until the tunnel ends.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.shared.is_stopping() {
            let received = self.shared.wire.receive(&mut self.datagrams, true);
            // After the wait, not before: what has arrived since must meet what is wished since.
            let table = self.reader.refresh(&self.shared.board);
            match received {
                Ok(count) => self.gather(&table, count),
                // Time to look at the clock, or news of a datagram sent earlier: ICMP errors are a matter of one peer.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Err(_) => {}
            }
            let now = Instant::now();
            if now.duration_since(self.ticked) >= TICK {
                self.ticked = now;
                self.tick(&table, now);
            }
        }
        Ok(())
    }

    /// Opens a batch and what follows on its heels, then hands all of it over. A frame of 64 KiB is longer when it is sealed, so it
    /// takes two messages: without the second look it would go on as two, at twice the price all the way to its receiver.
    fn gather(&mut self, table: &Table, mut count: usize) {
        self.opened.source = None;
        let mut looks = 1;
        while self.batch(table, count) && looks < LOOKS {
            match self.shared.wire.receive(&mut self.datagrams, false) {
                Ok(more @ 1..) => count = more,
                // Nothing more, or something to be told at the next look.
                _ => break,
            }
            looks += 1;
        }
        self.opened.flush(&self.shared.tun);
    }

    /// Opens messages. Tells whether one of them held several datagrams.
    fn batch(&mut self, table: &Table, count: usize) -> bool {
        let mut several = false;
        for i in 0..count {
            let Some((bytes, size, endpoint)) = self.datagrams.message(i) else { continue };
            if self.opened.used + bytes.len() + OVERHEAD > ARENA {
                self.opened.flush(&self.shared.tun);
            }
            several |= bytes.len() > size;
            let mut datagrams = bytes.chunks(size).peekable();
            while let Some(datagram) = datagrams.next() {
                let Some(index) = data_index(datagram) else {
                    let mut desk = Desk {
                        shared: &self.shared,
                        table,
                        scratch: &mut self.scratch,
                        limit: &mut self.limit,
                        now: self.ticked,
                    };
                    desk.handshake(datagram, endpoint);
                    continue;
                };
                let Some(entry) = table.by_index(index) else { continue };
                // All of one peer that lie together, under one lock.
                let run = std::iter::once(datagram)
                    .chain(std::iter::from_fn(|| datagrams.next_if(|next| data_index(next) == Some(index))));
                self.opened.open(table, entry, run, endpoint, &self.shared);
            }
        }
        several
    }

    fn tick(&mut self, table: &Table, now: Instant) {
        for entry in table.entries() {
            send_now(&self.shared.wire, &entry.link, &mut self.scratch, |state, buffer| {
                state.tick(now, entry.eager, buffer)
            });
        }
    }
}

impl Arena {
    /// Opens the messages of one peer and keeps what is for the interface.
    fn open<'a>(
        &mut self,
        table: &Table,
        entry: &Entry,
        messages: impl Iterator<Item = &'a [u8]>,
        endpoint: Endpoint,
        shared: &Shared,
    ) {
        let mut state = entry.link.lock();
        let mut authentic = false;
        for message in messages {
            authentic |= self.open_one(table, entry, &mut state, message, &shared.tun);
        }
        if authentic {
            state.seen_at(endpoint);
            // The first packet under keys we answered for: what waited for them can go.
            let room = self.bytes.get_mut(self.used..).unwrap_or_default();
            while let Some(length) = state.queued(room) {
                shared.wire.send(room, &[Outgoing { start: 0, length, size: length, endpoint }]);
            }
            drop(state);
            if entry.link.establish() {
                shared.settle();
            }
        }
    }

    fn open_one(&mut self, table: &Table, entry: &Entry, state: &mut State, message: &[u8], tun: &Tun) -> bool {
        let Some(room) = self.bytes.get_mut(self.used..).filter(|room| room.len() >= message.len().max(SMALLEST))
        else {
            return false;
        };
        match state.open(message, room) {
            Opened::Refused => false,
            Opened::Nothing | Opened::Answer(_) => true,
            Opened::Packet(length, from) => {
                let allowed = match self.source {
                    Some((source, group, allowed)) if source == from && group == entry.group => allowed,
                    _ => table.may_send(entry.group, from),
                };
                self.source = Some((from, entry.group, allowed));
                if allowed {
                    let span = (self.used, length);
                    self.used += length.next_multiple_of(16);
                    self.merger.push(&mut self.bytes, span, &mut Interface(tun));
                }
                true
            }
        }
    }

    fn flush(&mut self, tun: &Tun) {
        self.merger.flush(&mut self.bytes, &mut Interface(tun));
        self.used = 0;
    }
}

/// The interface takes merged packets. One that is down or full drops them, like any other.
struct Interface<'a>(&'a Tun);

impl Output for Interface<'_> {
    fn write(&mut self, pieces: &[IoSlice<'_>]) {
        let _ = (&self.0.file).write_vectored(pieces);
    }
}

/// The receiver index of a data message.
fn data_index(datagram: &[u8]) -> Option<u32> {
    let (&[kind, 0, 0, 0, a, b, c, d], rest) = datagram.split_first_chunk::<8>()? else { return None };
    (kind == DATA && rest.len() >= OVERHEAD - 8).then(|| u32::from_le_bytes([a, b, c, d]))
}

/// Where messages are looked at that are no data.
struct Desk<'a> {
    shared: &'a Shared,
    table: &'a Table,
    scratch: &'a mut [u8],
    limit: &'a mut Limit,
    now: Instant,
}

impl Desk<'_> {
    /// Cheapest first: form, then the first MAC, then the rate of its sender (and the cookie), then the keys.
    fn handshake(&mut self, datagram: &[u8], endpoint: Endpoint) {
        if !matches!(datagram.first(), Some(&(INITIATION | RESPONSE | COOKIE))) {
            return;
        }
        let table = self.table;
        let mut cookie = [0; COOKIE_LENGTH];
        for identity in &table.identities {
            // For another of our keys, or garbage.
            let Some((packet, proven)) = identity.examine(datagram, endpoint.to.ip(), &mut cookie) else { continue };
            let entry = match packet {
                Packet::HandshakeInit(message) => {
                    if !self.admits(proven, &cookie, endpoint) {
                        return;
                    }
                    let Ok(half) = parse_handshake_anon(&identity.secret, &identity.point, &message) else { return };
                    table.by_keys(identity.public, PublicKey::from_bytes(half.peer_static_public))
                }
                Packet::HandshakeResponse(message) => {
                    let entry = table.by_index(message.receiver_idx);
                    let asked = entry.is_some_and(|entry| entry.link.lock().has_asked(message.receiver_idx));
                    entry.filter(|_| asked || self.admits(proven, &cookie, endpoint))
                }
                Packet::PacketCookieReply(message) => table.by_index(message.receiver_idx),
                Packet::PacketData(_) => None,
            };
            return self.deliver(entry, identity, datagram, endpoint);
        }
    }

    /// Whether the sender of a message may use up time; if it must first prove its address, it is asked to.
    fn admits(&mut self, proven: bool, cookie: &[u8], endpoint: Endpoint) -> bool {
        let verdict = self.limit.judge(endpoint.to.ip(), proven, self.now);
        if verdict == Verdict::Ask {
            let length = cookie.len();
            self.shared.wire.send(cookie, &[Outgoing { start: 0, length, size: length, endpoint }]);
        }
        verdict == Verdict::Answer
    }

    fn deliver(&mut self, entry: Option<&Entry>, identity: &Identity, message: &[u8], endpoint: Endpoint) {
        let Some(entry) = entry.filter(|entry| entry.link.ours == identity.public || message[0] == COOKIE) else {
            return;
        };
        let mut state = entry.link.lock();
        // The library dates sessions by its last look at the clock, and the younger of two is the one it uses.
        let length = state.tick(Instant::now(), entry.eager, self.scratch);
        if let Some(length) = length
            && let Some(endpoint) = state.destination(&self.scratch[..length])
        {
            self.shared.wire.send(self.scratch, &[Outgoing { start: 0, length, size: length, endpoint }]);
        }
        let Opened::Answer(length) = state.open(message, self.scratch) else { return };
        if message[0] == RESPONSE {
            state.answered_at(message, endpoint);
        } else {
            state.seen_at(endpoint);
        }
        let endpoint = state.endpoint().unwrap_or(endpoint);
        self.shared.wire.send(self.scratch, &[Outgoing { start: 0, length, size: length, endpoint }]);
        // An initiation proves that the peer is there; only the response to ours proves that both have the same keys.
        if message[0] != RESPONSE {
            return;
        }
        while let Some(length) = state.queued(self.scratch) {
            self.shared.wire.send(self.scratch, &[Outgoing { start: 0, length, size: length, endpoint }]);
        }
        drop(state);
        if entry.link.establish() {
            self.shared.settle();
        }
    }
}

#[cfg(test)]
mod tests;
