//! With wireguard-go, which has nothing in common with us but the protocol.

#![expect(clippy::disallowed_methods, reason = "starts wireguard-go")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use liqo_tunnel::PublicKey;

use crate::bed::{Machine, Netns, Switch, echo, eventually, stream};

const SOON: Duration = Duration::from_secs(5);

/// Sockets of wireguard-go lie in one directory, whatever the namespace: names must differ.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A machine whose tunnel is wireguard-go's. Its interface and its socket are in one namespace, as it knows no other way.
struct Stranger {
    machine: Machine,
    name: String,
    process: Child,
}

impl Stranger {
    fn new(switch: &Switch, n: u8, friend: &PublicKey) -> Self {
        let mut machine = Machine::new(switch, n);
        machine.inside = Netns::new();
        std::mem::swap(&mut machine.inside, &mut machine.outside);
        // Both names stand for the namespace with the wire.
        machine.outside = machine.inside.again();
        let path = "../../bench/network/wireguard-go";
        let told = Command::new(path).output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let program = String::from_utf8(told.stdout).unwrap();
        let name = format!("go{}-{}", COUNT.fetch_add(1, Ordering::Relaxed), std::process::id() % 100_000);
        let process = machine.inside.run(|| {
            Command::new(program.trim())
                .args(["-f", &name])
                .env("LOG_LEVEL", "error")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        let stranger = Self { machine, name, process };
        eventually("wireguard-go", || UnixStream::connect(stranger.socket()).is_ok());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        stranger.set(&format!(
            "private_key={}\nlisten_port=5871\npublic_key={}\nendpoint=192.0.2.1:5871\nallowed_ip=10.0.1.0/24\nallowed_ip=fd00:1::/64\n",
            hex(stranger.machine.key.as_bytes()),
            hex(friend.as_bytes())
        ));
        let netns = &stranger.machine.inside;
        netns.ip(&format!("address add 10.0.{n}.1/24 dev {}", stranger.name));
        netns.ip(&format!("address add fd00:{n}::1/64 dev {} nodad", stranger.name));
        netns.ip(&format!("link set {} mtu 1420 up", stranger.name));
        netns.ip(&format!("route add 10.0.0.0/16 dev {}", stranger.name));
        netns.ip(&format!("route add fd00::/16 dev {}", stranger.name));
        stranger
    }

    fn socket(&self) -> String {
        format!("/var/run/wireguard/{}.sock", self.name)
    }

    /// The configuration protocol of wireguard.com/xplatform.
    fn set(&self, lines: &str) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(format!("set=1\n{lines}\n").as_bytes()).unwrap();
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"errno=0"), "{}", String::from_utf8_lossy(&answer[..length]));
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}

#[test]
fn wireguard_go_understands_us_and_we_it() {
    let switch = Switch::new();
    let ours = Machine::open(&switch, 1);
    let theirs = Stranger::new(&switch, 2, &ours.key.public());
    ours.engine().set_peers(&[theirs.machine.peer()]).unwrap();
    // Who asks first: once we, once they.
    assert!(echo(&ours, &theirs.machine, theirs.machine.inner4(), SOON));
    ours.engine().set_peers(&[]).unwrap();
    ours.engine().set_peers(&[liqo_tunnel::Peer { endpoint: None, ..theirs.machine.peer() }]).unwrap();
    let hex: String = ours.key.public().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    theirs.set(&format!("public_key={hex}\nremove=true\n"));
    theirs.set(&format!("public_key={hex}\nendpoint=192.0.2.1:5871\nallowed_ip=10.0.1.0/24\nallowed_ip=fd00:1::/64\n"));
    assert!(echo(&theirs.machine, &ours, ours.inner4(), SOON));
    stream(&ours, &theirs.machine, theirs.machine.inner4(), 64 << 20);
    stream(&theirs.machine, &ours, ours.inner4(), 64 << 20);
    stream(&ours, &theirs.machine, theirs.machine.inner6(), 32 << 20);
    stream(&theirs.machine, &ours, ours.inner6(), 32 << 20);
}

#[test]
fn keys_rotate_with_wireguard_go() {
    let switch = Switch::new();
    let ours = Machine::open(&switch, 1);
    let theirs = Stranger::new(&switch, 2, &ours.key.public());
    ours.engine().set_peers(&[theirs.machine.peer()]).unwrap();
    assert!(echo(&ours, &theirs.machine, theirs.machine.inner4(), SOON));
    for _ in 0..5 {
        let before = ours.state_of(&theirs.machine).last_handshake.unwrap();
        // It answers one initiation per 50 ms.
        std::thread::sleep(Duration::from_millis(60));
        ours.engine().handshake(&theirs.machine.key.public()).unwrap();
        eventually("new keys", || ours.state_of(&theirs.machine).last_handshake.unwrap() > before);
        assert!(echo(&ours, &theirs.machine, theirs.machine.inner4(), SOON));
        assert!(echo(&theirs.machine, &ours, ours.inner4(), SOON));
    }
}
