//! Links, addresses, neighbours, routes and rules in real namespaces, looked at with `ip`. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "bed/bed.rs"]
mod bed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use bed::{Ns, Spot};
use liqo_netlink::{
    Address, Family, Fdb, Kernel, Kind, Link, LinkKind, Neighbour, Netns, Realm, Route, Rule, State, mac_of,
};

const PROTOCOL: u8 = 76;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(kind: LinkKind, mac: &str) -> Link {
    Link { kind, mac: Some(mac_of(ip(mac))), mtu: Some(1400), up: true, arp: Some(false) }
}

fn route(prefix: &str, via: Option<&str>, dev: &str, table: u32) -> Route {
    let via = via.map(ip);
    Route { table, prefix: prefix.parse().unwrap(), via, dev: dev.into(), onlink: via.is_some(), mtu: None, src: None }
}

fn rule(family: Family, priority: u32, iif: Option<&str>, to: Option<&str>) -> Rule {
    let to = to.map(|to| to.parse().unwrap());
    Rule { family, priority, table: 18952, iif: iif.map(Into::into), mark: iif.map(|_| 0x10), from: None, to }
}

fn realm(links: &[&str]) -> Realm {
    Realm {
        links: links.iter().map(|&name| name.into()).collect(),
        tables: BTreeSet::from([18952, 18953]),
        protocol: PROTOCOL,
        table: None,
    }
}

/// What a node holds: the overlay, a pair into another namespace, routes in both tables and in `main`, rules.
fn node(inside: &Path) -> State {
    let pair = LinkKind::Veth { peer: "liqo.gateway".into(), peer_netns: Some(inside.into()) };
    let overlay = LinkKind::Vxlan { vni: 18952, port: 4879, local: ip("127.0.0.1") };
    let on = |dev: &str, net: &str| Address { dev: dev.into(), net: net.parse().unwrap() };
    let hop = |dev: &str, address: &str| Neighbour { dev: dev.into(), ip: ip(address), mac: mac_of(ip(address)) };
    let to = |node: &str| Fdb { dev: "liqo.vxlan".into(), mac: mac_of(ip(node)), dst: ip(node) };
    let with_mtu = Route {
        mtu: Some(1280),
        src: Some(ip("172.30.0.11")),
        ..route("10.71.0.0/16", Some("169.254.100.1"), "liqo.host", 18952)
    };
    State {
        links: BTreeMap::from([
            ("liqo.host".into(), link(pair, "169.254.100.2")),
            ("liqo.vxlan".into(), link(overlay, "172.30.0.11")),
        ]),
        addresses: [on("liqo.vxlan", "172.30.0.11/32"), on("liqo.vxlan", "fd00:30::11/128")].into(),
        neighbours: [
            hop("liqo.host", "169.254.100.1"),
            hop("liqo.vxlan", "172.30.0.12"),
            hop("liqo.vxlan", "fd00:30::12"),
        ]
        .into(),
        fdb: [to("172.30.0.12"), to("172.30.0.13")].into(),
        sysctls: BTreeMap::from([
            ("ipv4/ip_forward".into(), "1".into()),
            ("ipv4/conf/liqo.vxlan/rp_filter".into(), "2".into()),
        ]),
        routes: [
            with_mtu,
            route("10.72.0.0/16", Some("172.30.0.12"), "liqo.vxlan", 18952),
            route("fd00:72::/64", Some("fd00:30::12"), "liqo.vxlan", 18952),
            route("10.73.0.0/16", None, "liqo.vxlan", 18953),
            route("10.74.0.0/16", None, "liqo.host", 254),
        ]
        .into(),
        rules: [
            rule(Family::V4, 1000, None, None),
            rule(Family::V6, 1000, None, None),
            rule(Family::V4, 1001, Some("liqo.host"), Some("10.0.0.0/8")),
        ]
        .into(),
        table: None,
    }
}

#[test]
fn a_node_is_settled_in_one_go_and_stays() {
    let (host, inside) = (Ns::new(), Ns::new());
    let (realm, wanted) = (realm(&["liqo.host", "liqo.vxlan"]), node(&inside.path));
    let made = host.kernel.settle(&realm, &wanted).unwrap();
    assert_eq!(made.made[&Kind::Link], 2);
    assert_eq!(host.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::new());

    let links = host.run("ip -d link show liqo.vxlan");
    assert!(links.contains("vxlan id 18952 local 127.0.0.1") && links.contains("dstport 4879 nolearning"), "{links}");
    assert!(links.contains("mtu 1400") && links.contains("NOARP") && links.contains("0a:4c:ac:1e:00:0b"), "{links}");
    let routes = host.run("ip route show table 18952");
    assert!(
        routes
            .contains("10.71.0.0/16 via 169.254.100.1 dev liqo.host proto 76 src 172.30.0.11 onlink linkdown mtu 1280"),
        "{routes}"
    );
    assert!(host.run("ip -6 route show table 18952").contains("fd00:72::/64 via fd00:30::12 dev liqo.vxlan"));
    assert!(host.run("ip route show table 18953").contains("10.73.0.0/16 dev liqo.vxlan proto 76 scope link"));
    let rules = host.run("ip rule");
    assert!(
        rules.contains("1001:\tfrom all to 10.0.0.0/8 fwmark 0x10/0x10 iif liqo.host lookup 18952 proto 76"),
        "{rules}"
    );
    let fdb = host.run("bridge fdb show dev liqo.vxlan");
    assert!(fdb.contains("0a:4c:ac:1e:00:0c dst 172.30.0.12 self permanent"), "{fdb}");
    assert!(host.run("ip neigh show dev liqo.host").contains("169.254.100.1 lladdr 0a:4c:a9:fe:64:01 PERMANENT"));
    assert_eq!(host.run("cat /proc/sys/net/ipv4/conf/liqo.vxlan/rp_filter").trim(), "2");
    assert!(inside.kernel.link("liqo.gateway").unwrap().is_some());
}

#[test]
fn what_outsiders_break_is_repaired_and_counted() {
    let (host, inside) = (Ns::new(), Ns::new());
    let (realm, wanted) = (realm(&["liqo.host", "liqo.vxlan"]), node(&inside.path));
    host.kernel.settle(&realm, &wanted).unwrap();
    for (break_it, kind) in [
        ("ip link set liqo.vxlan mtu 1300", Kind::Link),
        ("ip link del liqo.host", Kind::Link),
        ("ip link set liqo.vxlan down", Kind::Link),
        ("ip link set liqo.vxlan address 02:00:00:00:00:01", Kind::Link),
        ("ip link set liqo.vxlan arp on", Kind::Link),
        ("ip addr add 10.1.1.1/24 dev liqo.vxlan", Kind::Address),
        ("ip addr del 172.30.0.11/32 dev liqo.vxlan", Kind::Address),
        ("ip neigh replace 172.30.0.12 dev liqo.vxlan lladdr 02:00:00:00:00:01 nud permanent", Kind::Neighbour),
        ("ip neigh add 172.30.0.99 dev liqo.vxlan lladdr 02:00:00:00:00:01 nud permanent", Kind::Neighbour),
        ("bridge fdb del 0a:4c:ac:1e:00:0c dev liqo.vxlan", Kind::Fdb),
        ("bridge fdb replace 0a:4c:ac:1e:00:0c dev liqo.vxlan dst 172.30.0.99", Kind::Fdb),
        ("sysctl -qw net.ipv4.ip_forward=0", Kind::Sysctl),
        ("ip route flush table 18952", Kind::Route),
        ("ip route add 10.99.0.0/16 dev liqo.vxlan table 18952", Kind::Route),
        ("ip route add blackhole 10.98.0.0/16 table 18952", Kind::Route),
        ("ip route add 10.97.0.0/16 dev lo table 18953", Kind::Route),
        ("ip -6 route add fd00:99::/64 dev liqo.vxlan table 18953", Kind::Route),
        ("ip route replace 10.74.0.0/16 dev liqo.vxlan proto 76", Kind::Route),
        ("ip rule del priority 1000", Kind::Rule),
        ("ip rule add priority 900 to 10.5.0.0/16 lookup 18952 protocol 76", Kind::Rule),
    ] {
        host.run(break_it);
        let repairs = host.kernel.settle(&realm, &wanted).unwrap();
        assert!(repairs.made.contains_key(&kind), "{break_it}: {repairs:?}");
        assert_eq!(host.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::new(), "{break_it}");
    }
}

#[test]
fn what_is_not_ours_is_never_touched() {
    let (host, inside) = (Ns::new(), Ns::new());
    host.run("ip link add other type veth peer name rest && ip link set other up && ip link set rest up");
    host.run(
        "ip addr add 192.0.2.1/24 dev other && ip neigh add 192.0.2.9 dev other lladdr 02:00:00:00:00:09 nud permanent",
    );
    host.run("ip route add 10.200.0.0/16 dev other && ip route add 10.201.0.0/16 dev other table 100");
    host.run("ip rule add priority 1000 lookup 100");
    let look = || {
        ["ip -o addr show other", "ip neigh show dev other", "ip route show", "ip route show table 100"]
            .map(|look| host.run(look))
    };
    let before = look();
    let (realm, wanted) = (realm(&["liqo.host", "liqo.vxlan"]), node(&inside.path));
    host.kernel.settle(&realm, &wanted).unwrap();
    host.kernel.clear(&realm).unwrap();
    assert_eq!(look(), before);
    assert!(host.run("ip rule").contains("1000:\tfrom all lookup 100"));
    // And nothing of ours is left.
    assert_eq!(host.run("ip route show table all proto 76"), "");
    assert!(!host.run("ip rule").contains("18952") && !host.run("ip link").contains("liqo"));
    assert_eq!(host.kernel.clear(&realm).unwrap().made, BTreeMap::new());
}

#[test]
fn a_pair_into_a_namespace_that_was_made_anew_is_made_anew() {
    let host = Ns::new();
    let spot = Spot::new("again");
    let path = spot.0.clone();
    let first = Netns::create(&path).unwrap();
    let (realm, wanted) = (realm(&["liqo.host", "liqo.vxlan"]), node(&path));
    host.kernel.settle(&realm, &wanted).unwrap();
    let old = host.kernel.link("liqo.host").unwrap().unwrap().index;
    // Somebody holds the old one: the pair would live on.
    Netns::remove(&path).unwrap();
    let second = Netns::create(&path).unwrap();
    host.kernel.settle(&realm, &wanted).unwrap();
    assert_ne!(host.kernel.link("liqo.host").unwrap().unwrap().index, old);
    assert!(Kernel::open(&second).unwrap().link("liqo.gateway").unwrap().is_some());
    drop(first);
}

#[test]
fn what_stands_on_a_link_of_others_waits_for_it() {
    let ns = Ns::new();
    let tunnel = Link { kind: LinkKind::Other, mac: None, mtu: Some(1380), up: true, arp: None };
    let wanted = State {
        links: BTreeMap::from([("liqo.tunnel".into(), tunnel)]),
        addresses: [Address { dev: "liqo.tunnel".into(), net: "169.254.0.1/32".parse().unwrap() }].into(),
        routes: [route("10.71.0.0/16", None, "liqo.tunnel", 254)].into(),
        ..State::default()
    };
    let realm = realm(&["liqo.tunnel"]);
    let repairs = ns.kernel.settle(&realm, &wanted).unwrap();
    assert_eq!((repairs.made, repairs.awaited), (BTreeMap::new(), BTreeSet::from(["liqo.tunnel".into()])));
    ns.run("ip tuntap add liqo.tunnel mode tun");
    let repairs = ns.kernel.settle(&realm, &wanted).unwrap();
    assert_eq!((repairs.made.len(), repairs.awaited.len()), (3, 0));
    assert!(ns.run("ip route").contains("10.71.0.0/16 dev liqo.tunnel proto 76 scope link"));
    // Never removed: it is not ours to make.
    ns.kernel.clear(&realm).unwrap();
    assert!(ns.kernel.link("liqo.tunnel").unwrap().is_some());
    assert_eq!(ns.run("ip route"), "");
}

#[test]
fn a_route_is_replaced_without_a_gap_and_many_are_listed() {
    let ns = Ns::new();
    ns.run("ip tuntap add t0 mode tun && ip link set t0 up && ip tuntap add t1 mode tun && ip link set t1 up");
    let mut wanted = State::default();
    for at in 0..3000u32 {
        let prefix = format!("10.{}.{}.0/24", at / 250, at % 250);
        wanted.routes.insert(route(&prefix, None, "t0", 18952));
    }
    let realm = realm(&[]);
    assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made[&Kind::Route], 3000);
    assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::new());
    // Moved to another link: replaced, so that no lookup falls through to another table.
    wanted.routes = wanted.routes.into_iter().map(|it| Route { dev: "t1".into(), ..it }).collect();
    let monitor = std::thread::scope(|scope| {
        let watch = scope.spawn(|| ns.attempt("timeout 3 ip monitor route"));
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made[&Kind::Route], 3000);
        watch.join().unwrap().1
    });
    assert!(
        monitor.contains("dev t1") && !monitor.contains("Deleted"),
        "{}",
        monitor.chars().take(500).collect::<String>()
    );
    assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::new());
}

#[test]
fn a_stale_file_becomes_a_namespace_and_entering_moves_nobody() {
    let spot = Spot::new("stale");
    let path = spot.0.clone();
    std::fs::create_dir_all("/run/netns").unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(Netns::open(&path).is_err());
    let made = Netns::create(&path).unwrap();
    let inode = |netns: &Netns| rustix::fs::fstat(netns.as_fd()).unwrap().st_ino;
    let again = Netns::create(&path).unwrap();
    assert_eq!(inode(&made), inode(&again));
    let here = inode(&Netns::current().unwrap());
    assert_ne!(here, inode(&made));
    let inside = made.enter(|| inode(&Netns::current().unwrap())).unwrap();
    assert_eq!(inside, inode(&made));
    assert_eq!(here, inode(&Netns::current().unwrap()));
    Netns::remove(&path).unwrap();
    Netns::remove(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn errors_say_what_was_done_and_what_the_kernel_said() {
    let ns = Ns::new();
    let wanted = State { routes: [route("10.0.0.0/8", Some("192.0.2.1"), "lo", 18952)].into(), ..State::default() };
    let wrong = State {
        routes: wanted.routes.into_iter().map(|it| Route { onlink: false, ..it }).collect(),
        ..State::default()
    };
    let error = ns.kernel.settle(&realm(&[]), &wrong).unwrap_err();
    assert_eq!(
        error.to_string(),
        "setting route 10.0.0.0/8 via 192.0.2.1 dev lo table 18952 (Nexthop has invalid gateway)"
    );
    assert_eq!(error.errno(), Some(libc::ENETUNREACH));
}

#[tokio::test]
async fn changes_by_others_are_told_and_our_own_are_not() {
    let (host, inside) = (Ns::new(), Ns::new());
    let mut realm = realm(&["liqo.host", "liqo.vxlan"]);
    realm.table = Some((liqo_netlink::nft::Family::Ip, "liqo".into()));
    let mut wanted = node(&inside.path);
    wanted.table = Some(liqo_netlink::nft::Table {
        family: liqo_netlink::nft::Family::Ip,
        name: "liqo".into(),
        sets: BTreeMap::new(),
        chains: BTreeMap::from([("c".into(), liqo_netlink::nft::Chain::default())]),
    });
    let mut events = host.kernel.events(&realm).unwrap();
    host.kernel.settle(&realm, &wanted).unwrap();
    let quiet = |time| Duration::from_millis(time);
    // Links of ours appear: the kernel tells some of it in its own name.
    while tokio::time::timeout(quiet(300), events.changed()).await.is_ok() {}
    host.run(
        "ip link add other type veth peer name rest && ip link set other up && ip route add 10.200.0.0/16 dev other && \
         nft add table ip other && nft add table inet liqo && nft delete table ip other",
    );
    host.kernel
        .act(&realm, &[liqo_netlink::Change::SetRoute(route("10.80.0.0/16", None, "liqo.host", 18952))])
        .unwrap();
    assert!(tokio::time::timeout(quiet(300), events.changed()).await.is_err(), "told of others' or of our own");
    for break_it in [
        "ip link set liqo.vxlan mtu 1300",
        "ip addr add 10.1.1.1/24 dev liqo.vxlan",
        "ip neigh del 172.30.0.12 dev liqo.vxlan",
        "ip route flush table 18952",
        "ip rule del priority 1000",
        "ip link del liqo.host",
        "nft flush ruleset",
    ] {
        host.run(break_it);
        tokio::time::timeout(quiet(2000), events.changed()).await.expect(break_it).unwrap();
        while tokio::time::timeout(quiet(50), events.changed()).await.is_ok() {}
    }
}
