//! Machines made of network namespaces: one for the UDP side, one for the tunnel. They have no names, so nothing is left behind.

#![expect(clippy::disallowed_methods, reason = "tests may run programs to set the scene")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use liqo_tunnel::{Device, Engine, Implementation, Peer, PrivateKey};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace that lives as long as this value.
pub(crate) struct Netns(File);

impl Netns {
    pub(crate) fn new() -> Self {
        let file = std::thread::spawn(|| {
            // SAFETY would be the word of `unshare_unsafe`: only the network of this short-lived thread changes.
            #[expect(unsafe_code, reason = "unshare is unsafe for file descriptor tables only")]
            // SAFETY: NEWNET does not touch the table of file descriptors.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let netns = Self(file.join().unwrap());
        netns.ip("link set lo up");
        netns
    }

    /// Runs `work` inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside that goes on.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let file = self.0.try_clone().unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// `ip ARGUMENTS`, which must succeed.
    pub(crate) fn ip(&self, arguments: &str) {
        self.command("/usr/sbin/ip", arguments);
    }

    pub(crate) fn command(&self, program: &str, arguments: &str) -> String {
        self.run(|| {
            let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "{program} {arguments}: {told}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            told
        })
    }

    /// A wire from `name` here to `other_name` in another namespace.
    pub(crate) fn join(&self, name: &str, other: &Self, other_name: &str) {
        self.ip(&format!("link add dev {name} type veth peer name {other_name} netns {}", other.path()));
    }

    /// The same namespace once more.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One switch, to which machines are plugged.
pub(crate) struct Switch(Netns);

impl Switch {
    pub(crate) fn new() -> Self {
        let netns = Netns::new();
        netns.ip("link add dev switch type bridge");
        netns.ip("link set dev switch up");
        Self(netns)
    }

    /// Plugs `netns` in as `eth0` with 192.0.2.N and 2001:db8::N.
    pub(crate) fn plug(&self, netns: &Netns, n: u8) {
        self.0.join(&format!("port{n}"), netns, "eth0");
        self.0.ip(&format!("link set dev port{n} master switch up"));
        netns.ip(&format!("address add 192.0.2.{n}/24 dev eth0"));
        netns.ip(&format!("address add 2001:db8::{n}/64 dev eth0 nodad"));
        netns.ip("link set eth0 up");
    }

    /// Lets larger frames through the ports of machines 1 to `count`.
    pub(crate) fn widen(&self, mtu: u32, count: u8) {
        for n in 1..=count {
            self.0.ip(&format!("link set dev port{n} mtu {mtu}"));
        }
        self.0.ip(&format!("link set dev switch mtu {mtu}"));
    }
}

/// A machine with a tunnel: 10.0.N.1/24 and fd00:N::1/64 inside.
pub(crate) struct Machine {
    pub(crate) n: u8,
    pub(crate) outside: Netns,
    pub(crate) inside: Netns,
    pub(crate) key: PrivateKey,
    pub(crate) engine: Option<Box<dyn Engine>>,
}

pub(crate) const PORT: u16 = 5871;
pub(crate) const INTERFACE: &str = "liqo.tunnel";

impl Machine {
    /// Plugged in, without a tunnel yet.
    pub(crate) fn new(switch: &Switch, n: u8) -> Self {
        let (outside, inside) = (Netns::new(), Netns::new());
        switch.plug(&outside, n);
        Self { n, outside, inside, key: PrivateKey::generate().unwrap(), engine: None }
    }

    /// With a tunnel of ours.
    pub(crate) fn open(switch: &Switch, n: u8) -> Self {
        let mut machine = Self::new(switch, n);
        machine.start(1420);
        machine
    }

    /// Opens the tunnel.
    pub(crate) fn start(&mut self, mtu: u32) {
        let device = Device { interface: INTERFACE.to_owned(), port: PORT, key: self.key.clone(), mtu };
        let fd = self.inside.fd();
        let engine = self.outside.run(|| liqo_tunnel::open(&device, fd, Some(Implementation::Userspace)).unwrap());
        self.engine = Some(engine);
        self.inside.ip(&format!("address add 10.0.{}.1/24 dev {INTERFACE}", self.n));
        self.inside.ip(&format!("address add fd00:{}::1/64 dev {INTERFACE} nodad", self.n));
        self.inside.ip(&format!("route add 10.0.0.0/16 dev {INTERFACE}"));
        self.inside.ip(&format!("route add fd00::/16 dev {INTERFACE}"));
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        self.engine.as_deref().unwrap()
    }

    /// This machine as a peer of others, at its IPv4 address.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            key: self.key.public(),
            endpoint: Some(SocketAddr::new(format!("192.0.2.{}", self.n).parse().unwrap(), PORT)),
            allowed: vec![
                format!("10.0.{}.0/24", self.n).parse().unwrap(),
                format!("fd00:{}::/64", self.n).parse().unwrap(),
            ],
            keepalive: None,
        }
    }

    pub(crate) fn inner4(&self) -> IpAddr {
        format!("10.0.{}.1", self.n).parse().unwrap()
    }

    pub(crate) fn inner6(&self) -> IpAddr {
        format!("fd00:{}::1", self.n).parse().unwrap()
    }

    pub(crate) fn state_of(&self, peer: &Self) -> liqo_tunnel::PeerState {
        let peers = self.engine().peers().unwrap();
        peers.into_iter().find(|state| state.key == peer.key.public()).expect("the peer is known")
    }
}

/// A socket that gets a copy of every frame of `eth0`, in the namespace of the calling thread.
pub(crate) fn packet_socket() -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
    // ETH_P_ALL in network order.
    let all = Protocol::from_raw(std::num::NonZeroU32::new(u32::from(3u16.to_be())).unwrap());
    socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(all)).unwrap()
}

/// Machines 1 to `count`, all peers of each other.
pub(crate) fn full_mesh(switch: &Switch, count: u8) -> Vec<Machine> {
    let machines: Vec<Machine> = (1..=count).map(|n| Machine::open(switch, n)).collect();
    for machine in &machines {
        let peers: Vec<Peer> = machines.iter().filter(|other| other.n != machine.n).map(Machine::peer).collect();
        machine.engine().set_peers(&peers).unwrap();
    }
    machines
}

/// A mesh of `count` machines in which the tunnel between the first two carries packets.
pub(crate) fn connected(count: u8) -> (Switch, Vec<Machine>) {
    let switch = Switch::new();
    let machines = full_mesh(&switch, count);
    assert!(echo(&machines[0], &machines[1], machines[1].inner4(), Duration::from_secs(5)));
    (switch, machines)
}

/// Sends datagrams to `to` and back until one returns, for at most `limit`. Tells whether one did.
pub(crate) fn echo(from: &Machine, to: &Machine, address: IpAddr, limit: Duration) -> bool {
    let unspecified: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let server = to.inside.run(|| UdpSocket::bind((unspecified, 0)).unwrap());
    let port = server.local_addr().unwrap().port();
    server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let client = from.inside.run(|| UdpSocket::bind((unspecified, 0)).unwrap());
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begun = Instant::now();
    let mut buffer = [0; 64];
    while begun.elapsed() < limit {
        let _ = client.send_to(b"there", (address, port));
        if let Ok((length, sender)) = server.recv_from(&mut buffer) {
            assert_eq!(&buffer[..length], b"there");
            let _ = server.send_to(b"and back", sender);
            if client.recv_from(&mut buffer).is_ok_and(|(length, _)| &buffer[..length] == b"and back") {
                return true;
            }
        }
    }
    false
}

/// Waits for `what`, which must come true within ten seconds.
pub(crate) fn eventually(what: &str, test: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, test);
}

/// Waits for `what`, which must come true in this time.
pub(crate) fn within(limit: Duration, what: &str, mut test: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !test() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes that look random and can be made again.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Sends `bytes` bytes through one TCP connection and compares each of them.
pub(crate) fn stream(from: &Machine, to: &Machine, address: IpAddr, bytes: usize) {
    let unspecified: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let listener = to.inside.run(|| TcpListener::bind((unspecified, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (mut noise, mut got, mut wanted, mut total) = (Noise(7), vec![0; 1 << 16], vec![0; 1 << 16], 0);
        while total < bytes {
            let length = got.len().min(bytes - total);
            stream.read_exact(&mut got[..length]).unwrap();
            noise.fill(&mut wanted[..length]);
            assert!(got[..length] == wanted[..length], "damaged within 64 KiB after {total} bytes");
            total += length;
        }
        stream.write_all(b"all").unwrap();
    });
    from.inside.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(10)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut noise, mut buffer, mut total) = (Noise(7), vec![0; 1 << 16], 0);
        while total < bytes {
            let length = buffer.len().min(bytes - total);
            noise.fill(&mut buffer[..length]);
            stream.write_all(&buffer[..length]).unwrap();
            total += length;
        }
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"all");
    });
    receiver.join().unwrap();
}
