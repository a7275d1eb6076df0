//! Packets through a router that holds our table: what the other side sees, and that answers come back. Needs root.
//!
//! A pod (10.244.1.5) talks through a router to a peer that lives at 10.71.2.7 and sees our pods as 10.61.0.0/16.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "bed/bed.rs"]
mod bed;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bed::{Ns, cable};
use ipnet::IpNet;
use liqo_netlink::nft::{
    Base, Chain, ChainKind, DataType, Datum, Family, Hook, Item, Key, KeyType, Rule, Set, Statement, TCP_SYN, Table,
    Target, Verdict, is, not, outside, rule, within,
};
use liqo_netlink::{Link, LinkKind, Realm, Route, State};

const LIMIT: Duration = Duration::from_secs(5);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A set of keys of one type each, or a map if data are given.
fn keys(key: &[KeyType], elements: &[(&[&str], Option<Datum>)], data: Option<DataType>) -> Set {
    let item =
        |text: &&str| Item::Net(text.parse::<IpNet>().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into()));
    let elements = elements.iter().map(|(key, datum)| (key.iter().map(item).collect(), datum.clone())).collect();
    Set { keys: key.to_vec(), interval: true, data, elements }
}

fn nat(hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { base: Some(Base { kind: ChainKind::Nat, hook, priority, drop: false }), rules }
}

/// The gateway's table: constant in rules, whatever the number of peers.
fn table(comment: &str) -> Table {
    let two = [KeyType::Ipv4, KeyType::Ipv4];
    let prefix = |text: &str| Some(Datum::Prefix(net(text)));
    let address = |text: &str| Some(Datum::Address(text.parse().unwrap()));
    let sets = [
        ("remote", keys(&[KeyType::Ipv4], &[(&["10.71.0.0/16"], None)], None)),
        ("images", keys(&[KeyType::Ipv4], &[(&["10.71.0.0/16"], prefix("10.61.0.0/16"))], Some(DataType::Prefix4))),
        ("images6", keys(&[KeyType::Ipv6], &[(&["fd00:71::/64"], prefix("fd00:61::/64"))], Some(DataType::Prefix6))),
        ("bases", keys(&[KeyType::Ipv4], &[(&["10.71.0.0/16"], address("10.61.0.0"))], Some(DataType::Ipv4))),
        ("inbound", keys(&two, &[(&["10.71.0.0/16", "10.61.0.0/16"], None)], None)),
        ("exports", keys(&two, &[(&["10.71.0.0/16", "10.97.0.5"], address("10.244.1.5"))], Some(DataType::Ipv4))),
    ];
    let to = |map: &str| Target::Map(vec![Key::Daddr], map.into());
    let pre = vec![
        rule(comment, [Statement::Dnat(Target::Map(vec![Key::Saddr, Key::Daddr], "exports".into()))]),
        rule("", [within(&[Key::Saddr, Key::Daddr], "inbound"), Statement::Dnat(Target::Prefix(net("10.244.0.0/16")))]),
        rule(
            "",
            [
                is(Key::Saddr6, net("fd00:71::/64")),
                is(Key::Daddr6, net("fd00:61::/64")),
                Statement::Dnat(Target::Prefix(net("fd00:244::/64"))),
            ],
        ),
    ];
    let post = vec![
        rule("", [is(Key::Saddr, net("10.244.0.0/16")), Statement::Counter, Statement::Snat(to("images"))]),
        rule("", [not(Key::Saddr, net("10.244.0.0/16")), Statement::Snat(to("bases"))]),
        rule("", [Statement::Snat(Target::Map(vec![Key::Daddr6], "images6".into()))]),
        rule("", [is(Key::Oif, "out"), outside(&[Key::Daddr], "remote"), Statement::Masquerade]),
    ];
    let clamp = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: -150, drop: false };
    let clamp = Chain {
        base: Some(clamp),
        rules: vec![rule("", [Statement::AnyBit(Key::TcpFlags, TCP_SYN), Statement::ClampMss])],
    };
    Table {
        family: Family::Inet,
        name: "liqo".into(),
        sets: sets.map(|(name, set)| (name.to_owned(), set)).into(),
        chains: BTreeMap::from([
            ("pre".into(), nat(Hook::Prerouting, -101, pre)),
            ("post".into(), nat(Hook::Postrouting, 99, post)),
            ("clamp".into(), clamp),
        ]),
    }
}

struct Bed {
    pod: Ns,
    router: Ns,
    peer: Ns,
    realm: Realm,
}

impl Bed {
    fn new() -> Self {
        let (pod, router, peer) = (Ns::new(), Ns::new(), Ns::new());
        cable(&pod, "eth0", "10.244.1.5/24", &router, "in", "10.244.1.1/24");
        cable(&router, "out", "192.0.2.1/24", &peer, "eth0", "192.0.2.2/24");
        pod.run("ip route add default via 10.244.1.1 && ip addr add fd00:244::5/64 dev eth0 nodad");
        pod.run("ip route add default via fd00:244::1");
        router.run("ip addr add fd00:244::1/64 dev in nodad && ip addr add fd00:2::1/64 dev out nodad");
        peer.run("ip addr add 10.71.2.7/32 dev lo && ip addr add fd00:71::7/128 dev lo nodad && ip addr add fd00:2::2/64 dev eth0 nodad");
        peer.run("ip route add 10.61.0.0/16 via 192.0.2.1 && ip route add 10.97.0.0/16 via 192.0.2.1 && ip route add fd00:61::/64 via fd00:2::1");
        let bed = Self {
            pod,
            router,
            peer,
            realm: Realm { protocol: 76, table: Some((Family::Inet, "liqo".into())), ..Realm::default() },
        };
        bed.settle(table("one"), None);
        bed
    }

    /// The router as wanted; `mtu` is that of the path to the peer.
    fn settle(&self, table: Table, mtu: Option<u32>) {
        let route = |prefix: &str, via: &str| Route {
            table: 254,
            prefix: net(prefix),
            via: Some(via.parse().unwrap()),
            dev: "out".into(),
            onlink: false,
            mtu,
            src: None,
        };
        let wanted = State {
            links: BTreeMap::from([(
                "out".into(),
                Link { kind: LinkKind::Other, mac: None, mtu: None, up: true, arp: None },
            )]),
            routes: [route("10.71.0.0/16", "192.0.2.2"), route("fd00:71::/64", "fd00:2::2")].into(),
            sysctls: [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]
                .map(|(key, value)| (key.into(), value.into()))
                .into(),
            table: Some(table),
            ..State::default()
        };
        self.router.kernel.settle(&self.realm, &wanted).unwrap();
    }
}

/// A UDP service that answers with the source that it sees.
fn udp_service(ns: &Ns, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = ns.netns.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

/// What a service at `to` says that it sees. The answer must come from where the question went.
fn udp_ask(ns: &Ns, from: &str, to: &str) -> std::io::Result<String> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let socket = ns.netns.enter(|| UdpSocket::bind(from)).unwrap()?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A TCP service that says which source it sees and then gives back what it gets.
fn tcp_service(ns: &Ns, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = ns.netns.enter(|| TcpListener::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let hello = format!("{} {}\n", stream.peer_addr().unwrap().ip(), maxseg(&stream));
                let _ = stream.write_all(hello.as_bytes());
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// The largest segment that the other side takes, less options.
fn maxseg(stream: &TcpStream) -> u32 {
    socket2::SockRef::from(stream).tcp_mss().unwrap()
}

/// A connection, the source and the segment size that the service sees.
fn tcp_dial(ns: &Ns, to: &str) -> (BufReader<TcpStream>, String, u32) {
    let to: SocketAddr = to.parse().unwrap();
    let stream = ns.netns.enter(|| TcpStream::connect_timeout(&to, LIMIT)).unwrap().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut stream = BufReader::new(stream);
    let mut hello = String::new();
    stream.read_line(&mut hello).unwrap();
    let (source, maxseg) = hello.trim().split_once(' ').unwrap();
    (stream, source.to_owned(), maxseg.parse().unwrap())
}

#[test]
fn both_sides_see_each_other_through_the_image() {
    let bed = Bed::new();
    udp_service(&bed.peer, "10.71.2.7:7000");
    udp_service(&bed.peer, "192.0.2.2:7000");
    udp_service(&bed.peer, "[fd00:71::7]:7000");
    udp_service(&bed.pod, "10.244.1.5:7000");
    udp_service(&bed.pod, "[fd00:244::5]:7000");
    tcp_service(&bed.peer, "10.71.2.7:7001");
    tcp_service(&bed.pod, "10.244.1.5:7001");
    let pod = "10.244.1.5:0";
    // A pod is seen at its image, with its host bits.
    assert_eq!(udp_ask(&bed.pod, pod, "10.71.2.7:7000").unwrap(), "10.61.1.5");
    assert_eq!(udp_ask(&bed.pod, "[fd00:244::5]:0", "[fd00:71::7]:7000").unwrap(), "fd00:61::5");
    assert_eq!(tcp_dial(&bed.pod, "10.71.2.7:7001").1, "10.61.1.5");
    // And reached there; the peer's own address is seen.
    assert_eq!(udp_ask(&bed.peer, "10.71.2.7:0", "10.61.1.5:7000").unwrap(), "10.71.2.7");
    assert_eq!(udp_ask(&bed.peer, "[fd00:71::7]:0", "[fd00:61::5]:7000").unwrap(), "fd00:71::7");
    // An exported address leads to what it stands for.
    assert_eq!(udp_ask(&bed.peer, "10.71.2.7:0", "10.97.0.5:7000").unwrap(), "10.71.2.7");
    // The router itself hides behind the base address of the image.
    assert_eq!(udp_ask(&bed.router, "192.0.2.1:0", "10.71.2.7:7000").unwrap(), "10.61.0.0");
    // To anywhere else the source is masqueraded.
    assert_eq!(udp_ask(&bed.pod, pod, "192.0.2.2:7000").unwrap(), "192.0.2.1");
}

#[test]
fn the_segment_size_follows_the_mtu_of_the_route() {
    let bed = Bed::new();
    tcp_service(&bed.peer, "10.71.2.7:7001");
    let (whole, _, whole_there) = tcp_dial(&bed.pod, "10.71.2.7:7001");
    assert!(maxseg(whole.get_ref()) > 1400 && whole_there > 1400, "{whole_there}");
    bed.settle(table("one"), Some(1280));
    let (clamped, _, clamped_there) = tcp_dial(&bed.pod, "10.71.2.7:7001");
    // 1280 less 40 bytes of headers, less 12 of time stamps.
    assert_eq!(clamped_there, 1228);
    assert_eq!(maxseg(clamped.get_ref()), 1228);
}

/// Four tables that differ in rules, in elements, in sets and chains.
fn variant(number: u32) -> Table {
    let mut table = table(if number.is_multiple_of(2) { "two" } else { "one" });
    if number % 4 > 1 {
        let other = [Item::Net(net("10.72.0.0/16"))];
        table.sets.get_mut("remote").unwrap().elements.insert(other.to_vec(), None);
        let image = Some(Datum::Prefix(net("10.62.0.0/16")));
        table.sets.get_mut("images").unwrap().elements.insert(other.to_vec(), image);
        let pair = [Item::Net(net("10.72.0.0/16")), Item::Net(net("10.62.0.0/16"))];
        table.sets.get_mut("inbound").unwrap().elements.insert(pair.to_vec(), None);
    }
    if number % 8 > 3 {
        table.sets.insert("more".into(), keys(&[KeyType::Ipv4], &[(&["10.99.0.0/16"], None)], None));
        let stop = Statement::Verdict(Verdict::Drop);
        table
            .chains
            .insert("more".into(), nat(Hook::Prerouting, -99, vec![rule("", [within(&[Key::Daddr], "more"), stop])]));
    }
    table
}

#[test]
fn replacing_the_table_under_traffic_loses_nothing() {
    let bed = Bed::new();
    tcp_service(&bed.peer, "10.71.2.7:7001");
    udp_service(&bed.peer, "10.71.2.7:7000");
    let stop = AtomicBool::new(false);
    let (trips, questions, replaced) = std::thread::scope(|scope| {
        let established = scope.spawn(|| {
            let (mut stream, source, _) = tcp_dial(&bed.pod, "10.71.2.7:7001");
            assert_eq!(source, "10.61.1.5");
            let mut trips = 0u64;
            let mut back = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                stream.get_mut().write_all(&[trips as u8; 4096]).unwrap();
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, [trips as u8; 4096]);
                trips += 1;
            }
            trips
        });
        let fresh = scope.spawn(|| {
            let mut questions = 0u64;
            while !stop.load(Ordering::Relaxed) {
                // Each a connection of its own: none may slip through untranslated.
                assert_eq!(
                    udp_ask(&bed.pod, "10.244.1.5:0", "10.71.2.7:7000").unwrap(),
                    "10.61.1.5",
                    "after {questions}"
                );
                questions += 1;
            }
            questions
        });
        let start = Instant::now();
        let mut replaced = 0;
        while start.elapsed() < Duration::from_secs(3) && !established.is_finished() && !fresh.is_finished() {
            bed.settle(variant(replaced), None);
            replaced += 1;
        }
        stop.store(true, Ordering::Relaxed);
        (established.join().unwrap(), fresh.join().unwrap(), replaced)
    });
    println!("{replaced} replacements under {trips} round trips of 4 KiB and {questions} new connections");
    assert!(trips > 100 && questions > 100 && replaced > 20, "{trips} {questions} {replaced}");
}

#[test]
fn only_a_fixed_source_escapes_the_masquerading_of_others() {
    let bed = Bed::new();
    udp_service(&bed.peer, "10.71.2.7:7000");
    bed.peer.run("ip route add 10.244.0.0/16 via 192.0.2.1");
    bed.router.nft("table ip other { chain post { type nat hook postrouting priority 100; masquerade; }; }");
    let with = |statement: Statement| {
        let post = nat(Hook::Postrouting, 99, vec![rule("", [is(Key::Saddr, net("10.244.0.0/16")), statement])]);
        let chains = BTreeMap::from([("post".into(), post)]);
        bed.settle(Table { family: Family::Ip, name: "liqo".into(), sets: BTreeMap::new(), chains }, None);
        udp_ask(&bed.pod, "10.244.1.5:0", "10.71.2.7:7000").unwrap()
    };
    bed.router.run("nft delete table inet liqo");
    assert_eq!(with(Statement::Snat(Target::Own(Key::Saddr))), "10.244.1.5");
    // A verdict ends this chain, not the hook: the next chain translates.
    assert_eq!(with(Statement::Verdict(Verdict::Accept)), "192.0.2.1");
}
