//! What others may try: garbage, copies, lies about who they are.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use liqo_tunnel::{Peer, PrivateKey};

use crate::bed::{INTERFACE, Machine, Noise, Switch, connected, echo};

const SOON: Duration = Duration::from_secs(5);
const NOT: Duration = Duration::from_millis(700);

/// Everything that is sent to `machine` from now on is copied.
fn tap(machine: &Machine) -> impl Fn(Duration) -> Vec<Vec<u8>> + use<> {
    let socket = machine.outside.run(crate::bed::packet_socket);
    move |time| {
        let begun = Instant::now();
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_536];
        while begun.elapsed() < time {
            match rustix::net::recv(&socket, &mut buffer, rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, length)) => frames.push(buffer[..length.min(buffer.len())].to_vec()),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        frames
    }
}

/// The datagrams to the tunnel's port among IPv4 frames.
fn datagrams(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let to_port = |frame: &&Vec<u8>| {
        frame.len() > 42 && frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == [0x16, 0xef]
    };
    frames.iter().filter(to_port).map(|frame| frame[42..].to_vec()).collect()
}

#[test]
fn a_copied_packet_is_dropped() {
    let (switch, machines) = connected(2);
    let (a, b) = (&machines[0], &machines[1]);
    let tapped = tap(b);
    let server = b.inside.run(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let client = a.inside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    for i in 0..20u8 {
        client.send_to(&[i; 100], (b.inner4(), 9000)).unwrap();
        assert_eq!(server.recv(&mut [0; 200]).unwrap(), 100);
    }
    let copies = datagrams(&tapped(Duration::from_millis(200)));
    assert!(copies.len() >= 20, "{} were copied", copies.len());
    let received = b.state_of(a).received;
    // From where it came, and from elsewhere.
    let third = Machine::new(&switch, 3);
    let attacker = third.outside.run(|| UdpSocket::bind("0.0.0.0:5871").unwrap());
    for copy in copies.iter().chain(&copies) {
        attacker.send_to(copy, ("192.0.2.2", 5871)).unwrap();
    }
    assert!(server.recv(&mut [0; 200]).is_err(), "a copy arrived");
    let state = b.state_of(a);
    assert_eq!(state.received, received);
    assert_eq!(state.endpoint, Some("192.0.2.1:5871".parse().unwrap()), "a copy moves nobody");
}

#[test]
fn a_copied_handshake_is_not_answered() {
    let (switch, machines) = connected(2);
    let (a, b) = (&machines[0], &machines[1]);
    let tapped = tap(b);
    a.engine().handshake(&b.key.public()).unwrap();
    let copies = datagrams(&tapped(Duration::from_millis(300)));
    let initiation = copies.iter().find(|copy| copy[0] == 1 && copy.len() == 148).expect("an initiation");
    let third = Machine::new(&switch, 3);
    let attacker = third.outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    attacker.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    attacker.send_to(initiation, ("192.0.2.2", 5871)).unwrap();
    assert!(attacker.recv(&mut [0; 200]).is_err());
    assert!(echo(a, b, b.inner4(), NOT));
}

#[test]
fn a_peer_may_not_send_from_addresses_of_others() {
    let (_switch, machines) = connected(3);
    let (a, b) = (&machines[0], &machines[1]);
    // B pretends to be 3, and somebody nobody knows.
    for lie in ["10.0.3.1", "203.0.113.5", "fd00:3::1"] {
        let server = a.inside.run(|| UdpSocket::bind(("::".parse::<IpAddr>().unwrap(), 9001)).unwrap());
        server.set_read_timeout(Some(NOT)).unwrap();
        let (prefix, target) = if lie.contains(':') { (128, a.inner6()) } else { (32, a.inner4()) };
        b.inside.ip(&format!("address add {lie}/{prefix} dev lo"));
        std::thread::sleep(Duration::from_millis(50));
        let liar = b.inside.run(|| UdpSocket::bind((lie.parse::<IpAddr>().unwrap(), 0)));
        let Ok(liar) = liar else { panic!("no socket on {lie}") };
        liar.send_to(b"I am 3", (target, 9001)).unwrap();
        assert!(server.recv(&mut [0; 64]).is_err(), "{lie}");
    }
}

#[test]
fn a_stranger_with_a_good_key_of_his_own_is_not_answered() {
    let switch = Switch::new();
    let a = Machine::open(&switch, 1);
    let stranger = Machine::open(&switch, 2);
    let friend = PrivateKey::generate().unwrap().public();
    a.engine().set_peers(&[Peer { key: friend, ..stranger.peer() }]).unwrap();
    stranger.engine().set_peers(&[a.peer()]).unwrap();
    assert!(!echo(&stranger, &a, a.inner4(), Duration::from_secs(2)));
    assert_eq!(a.engine().peers().unwrap()[0].last_handshake, None);
    assert_eq!(stranger.state_of(&a).last_handshake, None);
}

/// Ten seconds of datagrams of every kind at full rate; the same from our own test of parsers would not meet the socket.
#[test]
fn garbage_at_full_rate_harms_nobody() {
    let (switch, machines) = connected(2);
    let (a, b) = (&machines[0], &machines[1]);
    let attacker = Machine::new(&switch, 3);
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let flood = attacker.outside.spawn(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let (mut noise, mut bytes, mut sent) = (Noise(99), [0; 1400], 0u64);
        while !finished.load(Ordering::Relaxed) {
            noise.fill(&mut bytes);
            let kind = bytes[5] % 6;
            let length = [1 + usize::from(bytes[6]) * 5, 148, 92, 64, 1400, 32][usize::from(kind)].min(1400);
            if kind > 0 {
                bytes[..4].copy_from_slice(&[kind.min(4), 0, 0, 0]);
            }
            sent += u64::from(socket.send_to(&bytes[..length], ("192.0.2.2", 5871)).is_ok());
        }
        sent
    });
    let begun = Instant::now();
    let mut trips = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        assert!(echo(a, b, b.inner4(), SOON), "after {:?}", begun.elapsed());
        trips += 1;
    }
    crate::bed::stream(a, b, b.inner4(), 16 << 20);
    a.engine().handshake(&b.key.public()).unwrap();
    assert!(echo(b, a, a.inner4(), SOON));
    done.store(true, Ordering::Relaxed);
    let sent = flood.join().unwrap();
    assert!(sent > 50_000 && trips > 50, "{sent} pieces of garbage, {trips} round trips");
    b.engine().check().unwrap();
}

/// An initiation that holds before the first MAC of `target`, of a key that `target` does not know.
fn foreign_initiation(attacker: &Machine, target: &Machine) -> Vec<u8> {
    attacker.engine().set_peers(&[target.peer()]).unwrap();
    let tapped = tap(target);
    attacker.engine().handshake(&target.key.public()).unwrap();
    let copies = datagrams(&tapped(Duration::from_millis(300)));
    copies.into_iter().find(|copy| copy[0] == 1 && copy.len() == 148).expect("an initiation")
}

/// Real initiations of a key nobody knows, from one address, faster than anybody needs: the first MAC holds, so only rate and cookie protect.
#[test]
fn a_flood_of_handshakes_is_asked_for_cookies() {
    let (switch, machines) = connected(2);
    let (a, b) = (&machines[0], &machines[1]);
    let attacker = Machine::open(&switch, 3);
    let initiation = foreign_initiation(&attacker, b);
    let socket = attacker.outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for _ in 0..2000 {
        socket.send_to(&initiation, SocketAddr::from(([192, 0, 2, 2], 5871))).unwrap();
    }
    let mut reply = [0; 200];
    let length = socket.recv(&mut reply).expect("a cookie");
    assert_eq!((length, reply[0]), (64, 3), "a cookie reply, not a response");
    // The peer of B is asked too while this lasts, and proves itself.
    a.engine().handshake(&b.key.public()).unwrap();
    assert!(echo(a, b, b.inner4(), SOON));
    let before = a.state_of(b).last_handshake;
    crate::bed::eventually("a handshake with a cookie or after the flood", || {
        let _ = a.engine().handshake(&b.key.public());
        std::thread::sleep(Duration::from_millis(100));
        a.state_of(b).last_handshake > before
    });
}

/// The same with the source address of a peer, written by somebody who does not get what is sent there: the peer is asked to prove its
/// address, and shakes hands while the flood lasts.
#[test]
fn initiations_with_a_forged_source_keep_no_peer_out() {
    let (switch, machines) = connected(2);
    let (a, b) = (&machines[0], &machines[1]);
    let attacker = Machine::open(&switch, 3);
    let initiation = foreign_initiation(&attacker, b);
    // The address of A without a word about it on the wire.
    attacker.outside.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "2").unwrap();
    });
    attacker.outside.ip("address add 192.0.2.1/32 dev lo");
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let flood = attacker.outside.spawn(move || {
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        let mut sent = 0;
        while !finished.load(Ordering::Relaxed) {
            sent += usize::from(socket.send_to(&initiation, "192.0.2.2:5871").is_ok());
            std::thread::sleep(Duration::from_millis(1));
        }
        sent
    });
    // The limit of A's address is used up by now.
    std::thread::sleep(Duration::from_millis(500));
    let before = a.state_of(b).last_handshake;
    a.engine().handshake(&b.key.public()).unwrap();
    crate::bed::within(SOON, "a handshake with a cookie", || a.state_of(b).last_handshake > before);
    assert!(echo(a, b, b.inner4(), SOON));
    done.store(true, Ordering::Relaxed);
    let sent = flood.join().unwrap();
    assert!(sent > 200, "{sent} initiations");
}

/// The threads that read datagrams of strangers hold open files and no capability.
#[test]
fn packet_threads_have_no_power() {
    let switch = Switch::new();
    let _machine = Machine::open(&switch, 1);
    let powers = |line: &str| {
        let (name, value) = line.split_once(':')?;
        ["CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs"]
            .contains(&name)
            .then(|| (name.to_owned(), value.trim().to_owned()))
    };
    let powerless = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
        let ours = statuses.filter(|status| status.starts_with("Name:\ttunnel-"));
        ours.filter(|status| {
            let powers: Vec<_> = status.lines().filter_map(powers).collect();
            powers.len() == 5
                && powers
                    .iter()
                    .all(|(name, value)| value.trim_start_matches('0') == if name == "NoNewPrivs" { "1" } else { "" })
        })
        .count()
    };
    crate::bed::eventually("both threads have given up all power", || powerless() >= 2);
}

/// A firewall that refuses, a port where nobody listens: errors of the socket are lost packets.
#[test]
fn errors_of_the_socket_do_not_end_it() {
    let (_switch, machines) = connected(2);
    let (a, b) = (&machines[0], &machines[1]);
    for endpoint in [
        "192.0.2.2:9",
        "192.0.2.200:5871",
        "203.0.113.1:5871",
        "[2001:db8::2]:9",
        "[2001:db8:ffff::1]:5871",
        "127.0.0.1:1",
    ] {
        let lost = Peer { endpoint: Some(endpoint.parse().unwrap()), ..b.peer() };
        a.engine().set_peers(&[lost]).unwrap();
        echo(a, b, b.inner4(), Duration::from_millis(100));
    }
    a.outside.ip("link set eth0 down");
    echo(a, b, b.inner4(), Duration::from_millis(100));
    a.outside.ip("link set eth0 up");
    a.outside.ip("address replace 2001:db8::1/64 dev eth0 nodad");
    a.inside.ip(&format!("link set {INTERFACE} down"));
    echo(b, a, a.inner4(), Duration::from_millis(100));
    a.inside.ip(&format!("link set {INTERFACE} up"));
    a.inside.ip(&format!("route replace 10.0.0.0/16 dev {INTERFACE}"));
    a.engine().set_peers(&[b.peer()]).unwrap();
    a.engine().check().unwrap();
    assert!(echo(a, b, b.inner4(), SOON));
}
