//! The two tunnels that are compared, each as two processes.

#![expect(clippy::disallowed_methods, reason = "starts the tunnels that are measured")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use liqo_tunnel::{Device, Implementation, Peer, PrivateKey};

use crate::load::{OUTER, Wire};
use crate::machine;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Raw,
    Go,
    Ours,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw veth",
            Self::Go => "wireguard-go",
            Self::Ours => "ours",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    A,
    B,
}

/// The processes of a tunnel; they end with it.
pub(crate) struct Tunnel(Vec<Child>);

pub(crate) const NAMES: [&str; 2] = ["bench-a", "bench-b"];
const PORT: u16 = 51820;
pub(crate) const MTU: u32 = 1420;

impl Tunnel {
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }

    /// Resident KiB of one side.
    pub(crate) fn memory(&self, side: Side) -> u64 {
        self.0.get(side as usize).map_or(0, |child| machine::memory(child.id(), "VmRSS"))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn start(kind: Kind, wire: &Wire) -> Tunnel {
    let keys = [PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap()];
    let children = (0..2)
        .filter(|_| kind != Kind::Raw)
        .map(|i| {
            let peer = format!("{}:{PORT}", OUTER[1 - i]).parse::<SocketAddr>().unwrap();
            let (own, other) = (&keys[i], &keys[1 - i]);
            wire.sides[i].run(|| {
                if kind == Kind::Go { go(NAMES[i], own, other, peer) } else { ours(NAMES[i], own, other, peer) }
            })
        })
        .collect();
    let tunnel = Tunnel(children);
    if kind != Kind::Raw {
        wire.address_tunnel();
    }
    tunnel
}

fn ours(name: &str, own: &PrivateKey, other: &PrivateKey, peer: SocketAddr) -> Child {
    let program = std::env::current_exe().unwrap();
    let arguments = ["serve", name, &own.to_base64(), &other.public().to_string(), &peer.to_string()];
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn().unwrap();
    wait(|| link_exists(name));
    child
}

/// The body of one of our tunnel processes.
pub(crate) fn serve(arguments: &[String]) {
    let [name, own, other, peer] = arguments else { panic!("serve NAME PRIVATE PUBLIC ENDPOINT") };
    let device = Device { interface: name.clone(), port: PORT, key: own.parse().unwrap(), mtu: MTU };
    let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let engine = liqo_tunnel::open(&device, here.as_fd(), Some(Implementation::Userspace)).unwrap();
    let allowed = vec!["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
    let endpoint = Some(peer.parse().unwrap());
    engine.set_peers(&[Peer { key: other.parse().unwrap(), endpoint, allowed, keepalive: None }]).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(3600));
        engine.check().unwrap();
    }
}

fn go(name: &str, own: &PrivateKey, other: &PrivateKey, peer: SocketAddr) -> Child {
    let path = "../../bench/network/wireguard-go";
    let output = Command::new(path).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    let program = String::from_utf8(output.stdout).unwrap();
    let child = Command::new(program.trim())
        .args(["-f", name])
        .env("LOG_LEVEL", "error")
        .env("WG_PROCESS_FOREGROUND", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = format!("/var/run/wireguard/{name}.sock");
    wait(|| UnixStream::connect(&socket).is_ok() && link_exists(name));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let config = format!(
        "set=1\nprivate_key={}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={}\nendpoint={peer}\nallowed_ip=10.9.0.0/24\nallowed_ip=fd09::/64\n\n",
        hex(own.as_bytes()),
        hex(other.public().as_bytes())
    );
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(config.as_bytes()).unwrap();
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"errno=0"), "{}", String::from_utf8_lossy(&answer[..length]));
    child
}

/// In the namespace of the calling thread.
fn link_exists(name: &str) -> bool {
    std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default().contains(&format!("{name}:"))
}

pub(crate) fn wait(mut test: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !test() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the tunnel did not start within 10 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}
