//! What an idle tunnel costs, by number of peers.

#![expect(clippy::disallowed_methods, reason = "starts the tunnels that are measured")]

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use liqo_tunnel::{Device, Implementation, Peer, PrivateKey};

use crate::bed::Netns;
use crate::load::OUTER;
use crate::machine::{self, Clock};

const HUB: u16 = 51820;
const SPOKES: u16 = 52000;
const KEEPALIVE: Option<Duration> = Some(Duration::from_secs(25));

/// Prints memory and processor time of a hub with 1, 10 and 100 peers, all of which have shaken hands.
pub(crate) fn measure() {
    println!("| peers, all connected, no traffic but keepalives | memory (RSS), MiB | per peer, kB | CPU, cores |");
    println!("|---|---|---|---|");
    let mut alone = 0;
    for peers in [1u16, 10, 100] {
        let (memory, cpu) = idle(peers);
        if peers == 1 {
            alone = memory;
        }
        let each = if peers == 1 {
            String::from("-")
        } else {
            format!("{:.1}", (memory - alone) as f64 * 1.024 / f64::from(peers - 1))
        };
        println!("| {peers} | {:.2} | {each} | {cpu:.5} |", memory as f64 / 1024.0);
    }
}

fn idle(peers: u16) -> (u64, f64) {
    let sides = [Netns::new(), Netns::new()];
    sides[0].join("wire", &sides[1], "wire");
    for (side, address) in sides.iter().zip(OUTER) {
        side.ip(&format!("address add {address}/24 dev wire"));
        side.ip("link set dev wire up");
    }
    let mut hub = spawn(&sides[0], "serve-hub", peers);
    let mut spokes = spawn(&sides[1], "serve-many", peers);
    // First handshakes, and a keepalive of each.
    std::thread::sleep(Duration::from_secs(6));
    let pid = [hub.id()];
    let clock = Clock::now(&pid);
    std::thread::sleep(Duration::from_secs(30));
    let used = clock.since(&pid);
    let memory = machine::memory(hub.id(), "VmRSS");
    for child in [&mut hub, &mut spokes] {
        assert!(child.try_wait().unwrap().is_none(), "a tunnel ended by itself");
        let _ = child.kill();
        let _ = child.wait();
    }
    (memory, used.tunnels / used.seconds)
}

fn spawn(side: &Netns, role: &str, peers: u16) -> Child {
    let program = std::env::current_exe().unwrap();
    side.run(|| Command::new(program).args([role, &peers.to_string()]).stdin(Stdio::null()).spawn().unwrap())
}

/// Keys both processes can make.
fn key(n: u16) -> PrivateKey {
    let mut bytes = [9; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    PrivateKey::from_bytes(bytes)
}

fn endpoint(side: usize, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(OUTER[side].parse().unwrap(), port))
}

pub(crate) fn serve_hub(arguments: &[String]) {
    let count: u16 = arguments[0].parse().unwrap();
    let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let device = Device { interface: String::from("hub"), port: HUB, key: key(0), mtu: 1420 };
    let engine = liqo_tunnel::open(&device, here.as_fd(), Some(Implementation::Userspace)).unwrap();
    let peers: Vec<Peer> = (1..=count)
        .map(|n| Peer {
            key: key(n).public(),
            endpoint: endpoint(1, SPOKES + n),
            allowed: vec![format!("10.{}.{}.0/24", n >> 8, n & 255).parse().unwrap()],
            keepalive: KEEPALIVE,
        })
        .collect();
    engine.set_peers(&peers).unwrap();
    std::thread::sleep(Duration::from_secs(15));
    let met = engine.peers().unwrap().iter().filter(|peer| peer.last_handshake.is_some()).count();
    assert_eq!(met, usize::from(count), "peers that have shaken hands");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

pub(crate) fn serve_many(arguments: &[String]) {
    let count: u16 = arguments[0].parse().unwrap();
    let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let engines: Vec<_> = (1..=count)
        .map(|n| {
            let device = Device { interface: format!("spoke{n}"), port: SPOKES + n, key: key(n), mtu: 1420 };
            let engine = liqo_tunnel::open(&device, here.as_fd(), Some(Implementation::Userspace)).unwrap();
            let allowed = vec!["10.0.0.0/8".parse().unwrap()];
            engine
                .set_peers(&[Peer { key: key(0).public(), endpoint: endpoint(0, HUB), allowed, keepalive: KEEPALIVE }])
                .unwrap();
            engine
        })
        .collect();
    loop {
        std::thread::sleep(Duration::from_secs(3600));
        assert!(engines.iter().all(|engine| engine.check().is_ok()));
    }
}
