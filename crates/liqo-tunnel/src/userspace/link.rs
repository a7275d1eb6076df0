//! One pair of keys, ours and a peer's: the protocol's state, where the peer is, and what went through.
//!
//! The Noise handshake, the keys in use, the replay window and the protocol's timers are `boringtun`'s; where packets come from and go to,
//! who may send what, and when to try again are ours.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use ipnet::IpNet;

use crate::sys::Endpoint;
use crate::{Peer, PrivateKey, PublicKey};

/// Bytes a data message is longer than what it carries.
pub(crate) const OVERHEAD: usize = 32;
/// The shortest buffer a message is written to: a handshake initiation.
pub(crate) const SMALLEST: usize = 148;
/// The longest a message can be: what a UDP datagram holds.
const LONGEST: usize = 65_507;
/// Types of messages (white paper, 5.4).
pub(crate) const INITIATION: u8 = 1;
pub(crate) const RESPONSE: u8 = 2;
pub(crate) const COOKIE: u8 = 3;
pub(crate) const DATA: u8 = 4;
/// Packets that may wait for a first handshake, per peer. The library would keep 256, which is 360 kB.
const WAITING: u16 = 24;
/// How soon a handshake that somebody waits for is repeated, and how often.
const HURRY: Duration = Duration::from_millis(900);
const HURRIED: u8 = 10;
/// How soon after that, while somebody still waits: the protocol's own pause. The protocol itself would stop when it has answered
/// the peer, though answers may be lost, too.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keys younger than this need no new ones yet: the protocol makes them after 120 s (white paper, 6.1).
const FRESH: Duration = Duration::from_secs(110);

/// So long after a peer has answered at its new place, packets that come from the old one do not lead back: they were on their way.
const LATE: Duration = Duration::from_secs(5);

/// How often a peer that is well known elsewhere is asked where it is newly expected, before that is left.
const SEARCH: u32 = 8;

/// The number at this place of a message.
fn number(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes))
}

/// One pair of keys.
pub(crate) struct Link {
    /// Its number in the table, which peers repeat in every packet.
    pub(crate) slot: u32,
    /// Our public key in this pair.
    pub(crate) ours: PublicKey,
    /// The peer's.
    pub(crate) key: PublicKey,
    established: AtomicBool,
    state: Mutex<State>,
}

/// What the threads share of a link.
pub(crate) struct State {
    tunnel: Tunn,
    /// Where it is: where its last authentic packet came from, or where an initiation of ours was answered since.
    endpoint: Option<Endpoint>,
    allowed: Vec<IpNet>,
    /// As last wished: where the peer really is may differ.
    wished: Option<SocketAddr>,
    /// The configured endpoint is new and has not answered yet; handshakes still try the configured endpoint.
    unproven: bool,
    /// The endpoint before, and when the peer answered at the configured one.
    left: Option<(SocketAddr, Instant)>,
    /// Where our last two initiations went, by the numbers they bear.
    asked: [Option<(u32, Endpoint)>; 2],
    /// Initiations since both sides last agreed.
    tried: u32,
    keepalive: Option<Duration>,
    /// When something was last sent, and `sent` and `messages` then: the keepalive counts from there.
    spoke: (Instant, u64),
    /// Messages of any kind sent to it.
    messages: u64,
    waiting: u16,
    /// When we last asked for a handshake that somebody waits for, and how often that may be repeated in a hurry.
    hurry: Option<(Instant, u8)>,
    /// Our number for the keys of a handshake that we answered; the first packet that names it proves that the peer has them.
    answered: Option<u32>,
    last_handshake: Option<SystemTime>,
    sent: u64,
    received: u64,
}

/// What came of a packet from the network.
pub(crate) enum Opened {
    /// Nothing for the interface, but it was authentic.
    Nothing,
    /// An IP packet of this length, at the start of the buffer, from this address.
    Packet(usize, IpAddr),
    /// A message of this length to send back; then ask [`State::queued`].
    Answer(usize),
    /// Not authentic, replayed, or out of place.
    Refused,
}

impl Link {
    /// A pair that has not met yet.
    pub(crate) fn new(slot: u32, index: u32, ours: &PrivateKey, peer: &Peer, limiter: &Arc<RateLimiter>) -> Self {
        let tunnel = Tunn::new(ours.secret(), peer.key.point(), None, None, index, Some(limiter.clone()));
        let state = State {
            tunnel,
            endpoint: peer.endpoint.map(Endpoint::new),
            allowed: peer.allowed.clone(),
            wished: peer.endpoint,
            unproven: false,
            left: None,
            asked: [None; 2],
            tried: 0,
            keepalive: peer.keepalive,
            spoke: (Instant::now(), 0),
            messages: 0,
            waiting: 0,
            hurry: None,
            answered: None,
            last_handshake: None,
            sent: 0,
            received: 0,
        };
        Self { slot, ours: ours.public(), key: peer.key, established: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Whether a handshake has succeeded and a packet under its keys has come.
    pub(crate) fn is_established(&self) -> bool {
        self.established.load(Ordering::Acquire)
    }

    /// Notes that one has; `true` the first time.
    pub(crate) fn establish(&self) -> bool {
        !self.is_established() && !self.established.swap(true, Ordering::AcqRel)
    }

    /// For one packet or one burst; never kept over a system call.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Follows a changed wish. Tells whether the peer is expected elsewhere than before: then it should be greeted, and what is known
    /// of it stays valid until it has answered from there.
    pub(crate) fn wish(&mut self, peer: &Peer) -> bool {
        self.keepalive = peer.keepalive;
        self.allowed.clone_from(&peer.allowed);
        self.expect_at(peer.endpoint)
    }

    /// The part of [`State::wish`] that a pair follows, too, while another one is to take its place.
    pub(crate) fn expect_at(&mut self, place: Option<SocketAddr>) -> bool {
        if self.wished == place {
            return false;
        }
        self.wished = place;
        let wished = place.map(Endpoint::new);
        let is_elsewhere = wished.is_some() && self.endpoint.map(|endpoint| endpoint.to) != place;
        self.unproven = is_elsewhere && self.endpoint.is_some();
        self.endpoint = self.endpoint.or(wished);
        self.left = None;
        self.tried = 0;
        is_elsewhere
    }

    /// What is sent to it, as last wished.
    pub(crate) fn allowed(&self) -> &[IpNet] {
        &self.allowed
    }

    /// Where the peer is.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint
    }

    /// An authentic packet came from here.
    pub(crate) fn seen_at(&mut self, endpoint: Endpoint) {
        if self.endpoint != Some(endpoint) && !self.is_late(endpoint) {
            self.endpoint = Some(endpoint);
        }
    }

    /// Whether a packet from here was sent before the peer could know that we have moved on.
    fn is_late(&self, from: Endpoint) -> bool {
        self.left.is_some_and(|(place, when)| place == from.to && when.elapsed() < LATE)
    }

    /// An initiation of ours was answered: where that one went we are heard, wherever the answer came from.
    pub(crate) fn answered_at(&mut self, response: &[u8], from: Endpoint) {
        let number = number(response, 8);
        let asked = self.asked.iter().flatten().find(|(asked, _)| Some(*asked) == number);
        let place = asked.map(|(_, place)| *place).filter(|place| place.to != from.to).unwrap_or(from);
        if self.unproven && Some(place.to) == self.wished {
            self.unproven = false;
            self.left =
                self.endpoint.map(|before| (before.to, Instant::now())).filter(|(before, _)| *before != place.to);
        }
        self.seen_at(place);
    }

    /// Where a message goes that was just written.
    pub(crate) fn destination(&mut self, message: &[u8]) -> Option<Endpoint> {
        if message.first() != Some(&INITIATION) {
            return self.endpoint;
        }
        let place = self.aim()?;
        self.tried = self.tried.saturating_add(1);
        self.asked = [number(message, 4).map(|number| (number, place)), self.asked[0]];
        Some(place)
    }

    /// Whether an initiation of this engine carries this number. Only a host that has seen the initiation knows the number.
    pub(crate) fn has_asked(&self, number: u32) -> bool {
        self.asked.iter().flatten().any(|(asked, _)| *asked == number)
    }

    /// Where the next initiation goes. That packets come from a place does not prove that answers are heard there: an address that the peer
    /// has left may lead from it to us only, and `boringtun`, which peers with Liqo 0.8.3 may have, connects a socket to where a pair of
    /// keys was last in use, and takes whatever comes from there as of that pair, also while another one shakes hands. So one that
    /// is not answered is followed by one to the other place.
    fn aim(&self) -> Option<Endpoint> {
        let wished = self.wished.map(Endpoint::new);
        let (first, second) = if self.unproven { (wished, self.endpoint) } else { (self.endpoint, wished) };
        // Good keys are not made anew at the old place, but for the end: the library throws them away when it is not answered for 90 s.
        let are_fresh = || self.tunnel.time_since_last_handshake().is_some_and(|age| age < FRESH);
        let insists = self.unproven && self.tried < SEARCH && are_fresh();
        if insists || self.tried.is_multiple_of(2) { first } else { second.or(first) }
    }

    /// Bytes received and sent, and when keys were last agreed on.
    pub(crate) fn figures(&self) -> (u64, u64, Option<SystemTime>) {
        (self.received, self.sent, self.last_handshake)
    }

    /// Takes over the counters of the pair this one replaces.
    pub(crate) fn inherit(&mut self, before: &Self) {
        self.received += before.received;
        self.sent += before.sent;
        self.last_handshake = self.last_handshake.max(before.last_handshake);
    }

    /// Whether packets can be sealed now; else some wait and a handshake begins.
    pub(crate) fn can_seal(&self) -> bool {
        self.tunnel.time_since_last_handshake().is_some()
    }

    /// Writes the message that carries `packet`, or the one that must go first, and tells its length. The buffer needs
    /// [`OVERHEAD`] bytes more than the packet and at least [`SMALLEST`].
    pub(crate) fn seal(&mut self, packet: &[u8], buffer: &mut [u8]) -> Option<usize> {
        match self.tunnel.encapsulate(packet, buffer) {
            TunnResult::WriteToNetwork(message) => {
                let length = message.len();
                self.count(message[0] == DATA, length);
                Some(length)
            }
            _ => None,
        }
    }

    /// Like [`State::seal`] while there are no keys: keeps a few packets for the time after the handshake.
    pub(crate) fn wait(&mut self, packet: &[u8], buffer: &mut [u8]) -> Option<usize> {
        if self.waiting >= WAITING {
            return self.initiate(false, buffer);
        }
        self.waiting += 1;
        self.seal(packet, buffer)
    }

    /// Starts a handshake now, and repeats it every second for a while: the protocol alone would wait five.
    pub(crate) fn greet(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        self.hurry = Some((now, HURRIED));
        self.initiate(true, buffer)
    }

    /// Writes a handshake initiation; `again` also when one is under way.
    pub(crate) fn initiate(&mut self, again: bool, buffer: &mut [u8]) -> Option<usize> {
        match self.tunnel.format_handshake_initiation(buffer, again) {
            TunnResult::WriteToNetwork(message) => {
                self.messages += 1;
                Some(message.len())
            }
            _ => None,
        }
    }

    /// Opens a message of this peer. The buffer needs the length of the message, and at least [`SMALLEST`] bytes.
    pub(crate) fn open(&mut self, message: &[u8], buffer: &mut [u8]) -> Opened {
        let kind = message.first().copied();
        // Whether it proves that the peer has the keys that we answered for.
        let proves = kind == Some(DATA) && self.answered.is_some() && number(message, 4) == self.answered;
        let (length, from) = match self.tunnel.decapsulate(None, message, buffer) {
            TunnResult::Err(_) => return Opened::Refused,
            TunnResult::Done => {
                self.agree(proves);
                return Opened::Nothing;
            }
            TunnResult::WriteToNetwork(answer) => {
                let length = answer.len();
                self.answered = number(answer, 4).filter(|_| kind == Some(INITIATION));
                self.agree(kind == Some(RESPONSE));
                self.messages += 1;
                return Opened::Answer(length);
            }
            TunnResult::WriteToTunnelV4(packet, from) => (packet.len(), IpAddr::V4(from)),
            TunnResult::WriteToTunnelV6(packet, from) => (packet.len(), IpAddr::V6(from)),
        };
        self.agree(proves);
        self.received += length as u64;
        Opened::Packet(length, from)
    }

    /// Notes that both sides have the same keys.
    fn agree(&mut self, yes: bool) {
        if yes {
            self.answered = None;
            self.hurry = None;
            self.unproven &= self.tried <= SEARCH;
            self.tried = 0;
            self.last_handshake = Some(SystemTime::now());
        }
    }

    /// The next packet that waited for the handshake, as a message. The buffer must be as long as for [`State::seal`]; one that is
    /// too short gets nothing.
    pub(crate) fn queued(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.waiting == 0 || buffer.len() < LONGEST {
            return None;
        }
        match self.tunnel.decapsulate(None, &[], buffer) {
            TunnResult::WriteToNetwork(message) => {
                let length = message.len();
                self.count(message[0] == DATA, length);
                Some(length)
            }
            _ => {
                self.waiting = 0;
                None
            }
        }
    }

    /// A message of this length goes out.
    fn count(&mut self, data: bool, length: usize) {
        self.messages += 1;
        if data {
            self.sent += length.saturating_sub(OVERHEAD) as u64;
        }
    }

    /// What time asks for: new keys, a handshake once more, a keepalive. To be called a few times a second. `eager`: somebody waits for
    /// this pair, so it never gives up.
    pub(crate) fn tick(&mut self, now: Instant, eager: bool, buffer: &mut [u8]) -> Option<usize> {
        let message = match self.tunnel.update_timers(buffer) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            // The library gives up after 90 seconds; a peer that may come back is worth another series.
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                self.waiting = 0;
                if eager || self.keepalive.is_some() { self.initiate(true, buffer) } else { None }
            }
            _ => None,
        };
        if self.unproven && self.hurry.is_none() {
            self.hurry = Some((now, 0));
        }
        let message = message.or_else(|| match self.hurry {
            Some((asked, left)) if now.duration_since(asked) >= if left > 0 { HURRY } else { PATIENCE } => {
                let goes_on = eager || self.unproven;
                let left = if goes_on { Some(left.saturating_sub(1)) } else { left.checked_sub(1) };
                self.hurry = left.map(|left| (now, left));
                self.initiate(true, buffer)
            }
            _ => None,
        });
        if message.is_some() {
            self.messages += 1;
        }
        if self.spoke.1 != self.messages {
            self.spoke = (now, self.messages);
        }
        let silent = now.duration_since(self.spoke.0);
        match self.keepalive {
            Some(interval) if message.is_none() && silent >= interval => {
                self.spoke.0 = now;
                if self.can_seal() { self.seal(&[], buffer) } else { self.initiate(false, buffer) }
            }
            _ => message,
        }
    }
}
