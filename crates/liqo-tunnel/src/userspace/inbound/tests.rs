//! What comes from the network, with a peer that has a session: sockets on the loopback address, no root.

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::sample::Index;

use super::{Inbound, Shared};
use crate::sys::Tun;
use crate::userspace::Wire;
use crate::userspace::control::Control;
use crate::userspace::table::Board;
use crate::{Peer, PrivateKey};

/// How long keys are used here: shorter than the protocol allows.
const AGE: Duration = Duration::from_secs(60);

/// Our side, and a peer of ours with a session.
struct Bed {
    inbound: Inbound,
    to: SocketAddr,
    peer: Tunn,
    socket: UdpSocket,
    begun: Instant,
}

fn shared(key: &PrivateKey, peers: &[Peer], socket: UdpSocket) -> Arc<Shared> {
    let shared = Shared {
        tun: Tun { file: std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap(), uso: true },
        wire: Wire { socket: socket.into(), v6: false, large: AtomicBool::new(false) },
        board: Board::default(),
        control: Mutex::new(Control::new(key, 0x00a5_5a5a)),
        stopping: AtomicBool::new(false),
        wake: rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap(),
        ended: Mutex::new(None),
    };
    shared.lock().set_peers(peers, &shared.board).unwrap();
    Arc::new(shared)
}

impl Bed {
    fn new() -> Self {
        let (key, theirs) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = ours.local_addr().unwrap();
        let allowed = vec!["10.0.0.0/8".parse().unwrap()];
        let peer = Peer { key: theirs.public(), endpoint: None, allowed, keepalive: None };
        let inbound = Inbound::new(shared(&key, &[peer], ours));
        let peer = Tunn::new(theirs.secret(), key.public().point(), None, None, 77, None);
        let mut bed = Self { inbound, to, peer, socket, begun: Instant::now() };
        bed.shake_hands();
        bed
    }

    fn shake_hands(&mut self) {
        let mut buffer = [0; 2048];
        let TunnResult::WriteToNetwork(initiation) = self.peer.format_handshake_initiation(&mut buffer, true) else {
            panic!("no initiation")
        };
        let initiation = initiation.to_vec();
        self.send(&initiation);
        let mut answer = [0; 2048];
        let length = self.socket.recv(&mut answer).unwrap();
        let TunnResult::WriteToNetwork(confirmation) = self.peer.decapsulate(None, &answer[..length], &mut buffer)
        else {
            panic!("no session")
        };
        let confirmation = confirmation.to_vec();
        self.send(&confirmation);
    }

    /// `packet` encrypted as the peer encrypts it.
    fn sealed(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; packet.len() + 200];
        match self.peer.encapsulate(packet, &mut buffer) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            other => panic!("not sealed: {other:?}"),
        }
    }

    /// Hands a datagram to the thread's body.
    fn send(&mut self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
        let inbound = &mut self.inbound;
        let table = inbound.reader.refresh(&inbound.shared.board);
        let count = inbound.shared.wire.receive(&mut inbound.datagrams, true).unwrap();
        inbound.gather(&table, count);
        inbound.tick(&table, Instant::now());
    }

    fn received(&self) -> u64 {
        let table = self.inbound.shared.board.latest();
        table.entries().map(|entry| entry.link.lock().figures().0).sum()
    }
}

/// A packet that the peer may send.
fn honest() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 1, 0, 1];
    packet.extend_from_slice(&[0; 8]);
    packet
}

/// What the peer itself may seal: anything, mostly with the head of a packet.
fn inner() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![Just(vec![]), Just(honest()), Just(vec![0x60, 0, 0, 0, 0, 8, 6, 64])];
    (head, prop::collection::vec(any::<u8>(), 0..1500)).prop_map(|(head, tail)| [head, tail].concat())
}

/// The mutations of a datagram on its way: changed bytes, a shorter length.
type Damage = (Vec<(Index, u8)>, Option<Index>);

fn damage() -> impl Strategy<Value = Damage> {
    (prop::collection::vec((any::<Index>(), any::<u8>()), 0..3), prop::option::of(any::<Index>()))
}

fn damaged(mut datagram: Vec<u8>, (bytes, cut): Damage) -> Vec<u8> {
    for (at, byte) in bytes {
        let at = at.index(datagram.len());
        datagram[at] = byte;
    }
    if let Some(cut) = cut {
        datagram.truncate(cut.index(datagram.len()));
    }
    datagram
}

/// Anybody's: the first byte of a message, then anything.
fn foreign() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..6, prop::sample::select(vec![0_usize, 3, 28, 60, 88, 144, 1400]), any::<u8>()).prop_flat_map(
        |(kind, length, more)| {
            prop::collection::vec(any::<u8>(), length..=length + usize::from(more % 2))
                .prop_map(move |rest| [vec![kind, 0, 0, 0], rest].concat())
        },
    )
}

thread_local! {
    static BED: RefCell<Bed> = RefCell::new(Bed::new());
}

/// Runs `attack`; then a good packet of the peer still arrives.
fn survives(attack: impl FnOnce(&mut Bed)) {
    BED.with_borrow_mut(|bed| {
        if bed.begun.elapsed() > AGE {
            *bed = Bed::new();
        }
        attack(bed);
        let before = bed.received();
        let good = bed.sealed(&honest());
        bed.send(&good);
        assert_eq!(bed.received(), before + honest().len() as u64, "the session is lost");
    });
}

proptest! {
    #[test]
    fn fuzz_datagrams_of_anybody(datagram in foreign()) {
        survives(|bed| bed.send(&datagram));
    }

    #[test]
    fn fuzz_packets_a_peer_seals(packet in inner()) {
        survives(|bed| {
            let sealed = bed.sealed(&packet);
            bed.send(&sealed);
        });
    }

    #[test]
    fn fuzz_damaged_data(packet in inner(), damage in damage()) {
        survives(|bed| {
            let sealed = damaged(bed.sealed(&packet), damage);
            bed.send(&sealed);
        });
    }

    #[test]
    fn fuzz_damaged_handshakes(damage in damage()) {
        survives(|bed| {
            let mut buffer = [0; 2048];
            let TunnResult::WriteToNetwork(initiation) = bed.peer.format_handshake_initiation(&mut buffer, true) else {
                panic!("no initiation")
            };
            let whole = initiation.to_vec();
            let initiation = damaged(whole.clone(), damage);
            bed.send(&initiation);
            // An initiation that arrives unchanged is answered, and the keys change.
            if initiation == whole {
                *bed = Bed::new();
            }
        });
    }
}

#[test]
fn fuzz_recorded_datagrams() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "datagram", |bytes| survives(|bed| bed.send(bytes)));
}

#[test]
fn fuzz_recorded_packets_of_a_peer() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "packet", |bytes| {
        survives(|bed| {
            let sealed = bed.sealed(bytes);
            bed.send(&sealed);
        });
    });
}
