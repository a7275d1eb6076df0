//! Sizes of packets, inside and outside, and the outer IPv6.

use std::net::UdpSocket;
use std::time::Duration;

use liqo_tunnel::Peer;

use crate::bed::{Machine, Noise, Switch, echo, full_mesh, stream};

const SOON: Duration = Duration::from_secs(5);

/// Two machines that reach each other by IPv6 only.
fn outside_ipv6(switch: &Switch) -> Vec<Machine> {
    let machines = full_mesh(switch, 2);
    for machine in &machines {
        machine.outside.ip(&format!("address delete 192.0.2.{}/24 dev eth0", machine.n));
        let other = &machines[usize::from(2 - machine.n)];
        let endpoint = Some(format!("[2001:db8::{}]:5871", other.n).parse().unwrap());
        machine.engine().set_peers(&[Peer { endpoint, ..other.peer() }]).unwrap();
    }
    machines
}

#[test]
fn ipv6_outside_carries_both_families() {
    let switch = Switch::new();
    let machines = outside_ipv6(&switch);
    let (a, b) = (&machines[0], &machines[1]);
    a.engine().handshake(&b.key.public()).unwrap();
    assert!(echo(a, b, b.inner4(), SOON) && echo(b, a, a.inner6(), SOON));
    stream(a, b, b.inner4(), 32 << 20);
    stream(b, a, a.inner6(), 32 << 20);
    assert_eq!(a.state_of(b).endpoint, Some("[2001:db8::2]:5871".parse().unwrap()));
}

#[test]
fn datagrams_of_every_size_arrive_as_they_were() {
    let switch = Switch::new();
    let machines = full_mesh(&switch, 2);
    let (a, b) = (&machines[0], &machines[1]);
    assert!(echo(a, b, b.inner4(), SOON) && echo(a, b, b.inner6(), SOON));
    for target in [b.inner4(), b.inner6()] {
        let server = b.inside.run(|| UdpSocket::bind((target, 9002)).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let client = a.inside.run(|| UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap());
        let mut got = vec![0; 65_536];
        // Beyond the MTU the kernel cuts them into fragments, which pass like any other packet.
        for length in (0..1500).chain((1500..65_000).step_by(997)) {
            let mut bytes = vec![0; length];
            Noise(length as u64 + 1).fill(&mut bytes);
            client.send_to(&bytes, (target, 9002)).unwrap();
            let received = server.recv(&mut got).unwrap_or_else(|error| panic!("{length} bytes to {target}: {error}"));
            assert!(got[..received] == bytes[..], "{length} bytes to {target}");
        }
    }
}

/// Bursts of one flow are merged on the way; what arrives must be the datagrams that were sent.
#[test]
fn bursts_arrive_one_by_one_and_in_order() {
    let switch = Switch::new();
    let machines = full_mesh(&switch, 2);
    let (a, b) = (&machines[0], &machines[1]);
    assert!(echo(a, b, b.inner4(), SOON) && echo(a, b, b.inner6(), SOON));
    for target in [b.inner4(), b.inner6()] {
        let server = b.inside.run(|| UdpSocket::bind((target, 9003)).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let client = a.inside.run(|| UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap());
        for burst in 0..50u32 {
            for i in 0..60u32 {
                let mut bytes = vec![burst as u8; if i % 20 == 19 { 300 } else { 700 }];
                bytes[..4].copy_from_slice(&i.to_be_bytes());
                client.send_to(&bytes, (target, 9003)).unwrap();
            }
            let mut got = [0; 2000];
            for i in 0..60u32 {
                let length = server.recv(&mut got).unwrap();
                assert_eq!(
                    (&got[..4], length),
                    (&i.to_be_bytes()[..], if i % 20 == 19 { 300 } else { 700 }),
                    "burst {burst}"
                );
            }
        }
    }
}

#[test]
fn the_outer_packet_is_never_cut() {
    let switch = Switch::new();
    let machines = full_mesh(&switch, 2);
    let (a, b) = (&machines[0], &machines[1]);
    assert!(echo(a, b, b.inner4(), SOON));
    let server = b.inside.run(|| UdpSocket::bind((b.inner4(), 9004)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let client = a.inside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let arrives = |length: usize| {
        client.send_to(&vec![1; length], (b.inner4(), 9004)).unwrap();
        server.recv(&mut [0; 2000]).is_ok()
    };
    assert!(arrives(1392), "1420 inside, 1480 outside");
    // A narrow place on the way: 1300 outside are 1240 inside, that is 1212 of payload.
    a.outside.ip("link set eth0 mtu 1300");
    assert!(!arrives(1300), "too large: lost, not cut in pieces");
    assert!(arrives(1200));
    // Nothing was learned that would stay: a wider path is used at once.
    a.outside.ip("link set eth0 mtu 1500");
    assert!(arrives(1392));
}

#[test]
fn a_large_mtu_carries_large_packets() {
    let switch = Switch::new();
    let mut machines: Vec<Machine> = (1..=2).map(|n| Machine::new(&switch, n)).collect();
    switch.widen(9000, 2);
    for machine in &mut machines {
        machine.outside.ip("link set eth0 mtu 9000");
        machine.start(8920);
    }
    let peers: Vec<Peer> = machines.iter().map(Machine::peer).collect();
    machines[0].engine().set_peers(&peers[1..]).unwrap();
    machines[1].engine().set_peers(&peers[..1]).unwrap();
    assert!(echo(&machines[0], &machines[1], machines[1].inner4(), SOON));
    stream(&machines[0], &machines[1], machines[1].inner4(), 64 << 20);
}
