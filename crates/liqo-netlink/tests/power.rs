//! The agent of a node and the gateway in the containers that the chart gives them: one or two capabilities, `/proc/sys` that cannot be
//! written, and beside it a mount of the part about the network. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(unsafe_code, reason = "a thread of its own gets a mount namespace of its own")]

#[expect(dead_code, reason = "the words are for another test")]
#[path = "bed/everything.rs"]
mod everything;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use liqo_netlink::nft::Family;
use liqo_netlink::{Address, Fdb, Kernel, Link, LinkKind, Neighbour, Netns, Realm, Route, Rule, State, mac_of};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, set_capabilities, unshare_unsafe};

const LINK: &str = "liqo.vxlan";
const MOUNTED: &str = "/run/proc-sys-net";
/// The namespace of a gateway.
const INSIDE: &str = "/run/netns/inside";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Creates one object of every kind that the route agent creates.
fn wanted() -> State {
    let (me, other) = (ip("127.0.0.1"), ip("172.30.0.12"));
    let link = Link {
        kind: LinkKind::Vxlan { vni: 18952, port: 4879, local: me },
        mac: Some(mac_of(me)),
        mtu: Some(1400),
        up: true,
        arp: None,
    };
    let route = Route {
        table: 18952,
        prefix: "10.71.0.0/16".parse().unwrap(),
        via: Some(other),
        dev: LINK.into(),
        onlink: true,
        mtu: None,
        src: None,
    };
    let rule = Rule {
        family: liqo_netlink::Family::V4,
        priority: 32764,
        table: 18952,
        iif: None,
        mark: None,
        from: None,
        to: None,
    };
    State {
        links: BTreeMap::from([(LINK.to_owned(), link)]),
        addresses: BTreeSet::from([Address { dev: LINK.into(), net: "172.30.0.11/32".parse().unwrap() }]),
        neighbours: BTreeSet::from([Neighbour { dev: LINK.into(), ip: other, mac: mac_of(other) }]),
        fdb: BTreeSet::from([Fdb { dev: LINK.into(), mac: mac_of(other), dst: other }]),
        sysctls: BTreeMap::from([
            ("ipv4/ip_forward".to_owned(), "1".to_owned()),
            (format!("ipv4/conf/{LINK}/rp_filter"), "2".to_owned()),
        ]),
        routes: BTreeSet::from([route]),
        rules: BTreeSet::from([rule]),
        table: Some(everything::everything(Family::Ip, "liqo")),
    }
}

/// Makes the calling thread a node of its own.
fn isolate() {
    // SAFETY: the thread shares no file table with its new namespaces, and ends with the test.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("none", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
}

/// The steps that the container runtime takes before it starts a container that is not privileged.
fn confine(power: CapabilitySet) {
    // SAFETY: as in `isolate`.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).unwrap();
    std::fs::create_dir(MOUNTED).unwrap();
    mount_bind("/proc/sys/net", MOUNTED).unwrap();
    mount_bind("/proc/sys", "/proc/sys").unwrap();
    mount_remount("/proc/sys", MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    set_capabilities(None, CapabilitySets { effective: power, permitted: power, inheritable: CapabilitySet::empty() })
        .unwrap();
    let refused = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

/// Makes all of `wanted` with one look, and finds nothing to do with the next.
fn settle(kernel: &Kernel, realm: &Realm, wanted: &State) {
    assert!(!kernel.settle(realm, wanted).unwrap().made.is_empty());
    assert!(kernel.settle(realm, wanted).unwrap().made.is_empty(), "all is as wanted");
}

#[test]
fn one_capability_and_one_mount_are_enough_for_a_node() {
    let body = || {
        isolate();
        confine(CapabilitySet::NET_ADMIN);
        let realm = Realm {
            links: BTreeSet::from([LINK.to_owned()]),
            tables: BTreeSet::from([18952]),
            protocol: 76,
            table: Some((Family::Ip, "liqo".to_owned())),
        };
        let kernel = Kernel::open(&Netns::current().unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _events = runtime.block_on(async { kernel.events(&realm).unwrap() });
        settle(&kernel, &realm, &wanted());
        let filter = std::fs::read_to_string(format!("{MOUNTED}/ipv4/conf/{LINK}/rp_filter")).unwrap();
        assert_eq!(filter.trim(), "2");
        kernel.clear(&realm).unwrap();
        assert!(kernel.link(LINK).unwrap().is_none());
    };
    std::thread::spawn(body).join().unwrap();
}

/// The gateway's side of a node: a pair of links into the namespace of the tunnels.
fn way_in() -> State {
    let kind = LinkKind::Veth { peer: "liqo.gateway".into(), peer_netns: Some(PathBuf::from(INSIDE)) };
    let link = Link { kind, mac: Some(mac_of(ip("169.254.100.2"))), mtu: Some(9000), up: true, arp: Some(false) };
    State {
        links: BTreeMap::from([("liqo.host".to_owned(), link)]),
        sysctls: BTreeMap::from([("ipv4/conf/liqo.host/rp_filter".to_owned(), "2".to_owned())]),
        ..State::default()
    }
}

/// Objects of the kinds that the gateway creates inside.
fn inside() -> State {
    let link = Link { kind: LinkKind::Other, mac: None, mtu: Some(9000), up: true, arp: Some(false) };
    State {
        links: BTreeMap::from([("liqo.gateway".to_owned(), link)]),
        sysctls: BTreeMap::from([("ipv4/ip_forward".to_owned(), "1".to_owned())]),
        table: Some(everything::everything(Family::Ip, "liqo")),
        ..State::default()
    }
}

/// The work of a gateway, from its start to its end, in the namespace that is there or a new one.
fn serve() {
    let realm = |link: &str, table| Realm {
        links: BTreeSet::from([link.to_owned()]),
        tables: BTreeSet::new(),
        protocol: 118,
        table,
    };
    let (node, netns) = (Netns::current().unwrap(), Netns::create(Path::new(INSIDE)).unwrap());
    let (outer, inner) = (Kernel::open(&node).unwrap(), Kernel::open(&netns).unwrap());
    let way = realm("liqo.host", None);
    settle(&outer, &way, &way_in());
    settle(&inner, &realm("liqo.gateway", Some((Family::Ip, "liqo".to_owned()))), &inside());
    assert!(outer.udp_flows(31871, 31871).unwrap().is_empty());
    outer.clear(&way).unwrap();
    drop((inner, netns));
    Netns::remove(Path::new(INSIDE)).unwrap();
}

#[test]
fn two_capabilities_are_enough_for_a_gateway() {
    let node = || {
        isolate();
        Netns::create(Path::new(INSIDE)).unwrap();
        let gateway = || {
            confine(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN);
            serve();
            // A gateway whose namespace is gone makes another one.
            serve();
        };
        std::thread::spawn(gateway).join().unwrap();
        assert!(!Path::new(INSIDE).exists(), "the node keeps no namespace");
    };
    std::thread::spawn(node).join().unwrap();
}
