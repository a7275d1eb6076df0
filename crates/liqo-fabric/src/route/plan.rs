//! What the route agent makes on a node.
//!
//! Nodes are each other's next hops by their own addresses, over an overlay that carries no other address: nothing
//! has to be invented that could collide. Routes are per peer and per node. The way back from the
//! gateway goes by the overlay as well, so that a strict reverse-path filter finds every packet where it expects it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use liqo_netlink::{
    Address, Family, Fdb, Link, LinkKind, Neighbour, Realm, Route, Rule, State, mac_of,
    nft::{
        self, Base, Chain, ChainKind, Hook, ICMP_TOO_BIG, Item, Key, KeyType, Set, Statement, Table, Target, Value,
        Verdict, is, not, outside, rule, within,
    },
};

use crate::{
    layout::{
        MARK_FROM_PEERS, NFT_TABLE, OVERLAY, OVERLAY_PORT, OVERLAY_VNI, RULE_TO_NODES, RULE_TO_PEERS, TABLE_TO_NODES,
        TABLE_TO_PEERS, TUNNEL_IP, VETH_GATEWAY_IP, VETH_HOST,
    },
    network::Networks,
};

/// Our number among those who write routes.
const PROTOCOL: u8 = 119;
/// Before the masquerading of the network plugin, which is at 100 or just before it.
const BEFORE_SOURCE_NAT: i32 = 90;
/// After the translation of Services, which is at -100.
const AFTER_DNAT: i32 = -90;
/// Before connections are tracked.
const RAW: i32 = -300;
/// Before anything looks at marks.
const MANGLE: i32 = -150;
/// Their numbers over IP.
const ICMP: u32 = 1;
const UDP: u32 = 17;
const PEERS: &str = "peers";
const NODES: &str = "nodes";
/// Set of pairs of a node address with itself, to find packets that return to their node.
const THEMSELVES: &str = "themselves";

/// A node of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) ip: IpAddr,
    /// Networks of its pods: the pod ranges of the node or, where the ranges are not in use, the address of each pod.
    pub(super) pods: Vec<IpNet>,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Address of this node.
    pub(super) me: IpAddr,
    /// The other nodes.
    pub(super) others: Vec<Node>,
    /// Node of the active gateway.
    pub(super) gateway: Option<IpAddr>,
    /// The peers.
    pub(super) peers: Vec<Networks>,
    /// Largest packet on the overlay.
    pub(super) mtu: u32,
}

/// What is ours on a node.
pub(super) fn realm() -> Realm {
    Realm {
        links: [OVERLAY.to_owned()].into(),
        tables: [TABLE_TO_PEERS, TABLE_TO_NODES].into(),
        protocol: PROTOCOL,
        table: Some((nft::Family::Ip, NFT_TABLE.to_owned())),
    }
}

/// What this node shall look like.
pub(super) fn wanted(view: &View) -> State {
    let overlay = Link {
        kind: LinkKind::Vxlan { vni: OVERLAY_VNI, port: OVERLAY_PORT, local: view.me },
        mac: Some(mac_of(view.me)),
        mtu: Some(view.mtu),
        up: true,
        arp: None,
    };
    let hops = |node: &Node| (OVERLAY.to_owned(), node.ip, mac_of(node.ip));
    State {
        links: BTreeMap::from([(OVERLAY.to_owned(), overlay)]),
        // Whatever is masqueraded towards the overlay gets a source that leads back here.
        addresses: [Address { dev: OVERLAY.to_owned(), net: view.me.into() }].into(),
        neighbours: view.others.iter().map(hops).map(|(dev, ip, mac)| Neighbour { dev, ip, mac }).collect(),
        fdb: view.others.iter().map(hops).map(|(dev, dst, mac)| Fdb { dev, mac, dst }).collect(),
        sysctls: [
            ("ipv4/ip_forward".to_owned(), "1".to_owned()),
            // Pods of other nodes come by the overlay while the network plugin's route leads elsewhere; as with 0.8.3.
            (format!("ipv4/conf/{OVERLAY}/rp_filter"), "2".to_owned()),
        ]
        .into(),
        routes: to_peers(view).chain(to_nodes(view)).collect(),
        rules: rules(),
        table: Some(table(view)),
    }
}

fn to_peers(view: &View) -> impl Iterator<Item = Route> {
    let (via, dev) = match view.gateway {
        Some(gateway) if gateway == view.me => (Some(VETH_GATEWAY_IP.into()), VETH_HOST),
        gateway => (gateway, OVERLAY),
    };
    let route = move |prefix| {
        let src = Some(view.me);
        Route { table: TABLE_TO_PEERS, prefix, via, dev: dev.to_owned(), onlink: true, mtu: None, src }
    };
    // What does not fit into the tunnel is told by its end: that has to have come from where the peers are.
    let tunnel = std::iter::once(IpNet::from(IpAddr::V4(TUNNEL_IP))).filter(|_| !view.peers.is_empty());
    tunnel.chain(view.peers.iter().flat_map(Networks::remote)).filter(move |_| via.is_some()).map(route)
}

/// From the tunnel to the other nodes and their pods.
fn to_nodes(view: &View) -> impl Iterator<Item = Route> {
    view.others.iter().flat_map(|node| {
        let itself = IpNet::from(node.ip);
        let same = move |net: &IpNet| net.addr().is_ipv4() == node.ip.is_ipv4();
        std::iter::once(itself).chain(node.pods.iter().copied().filter(same)).map(|prefix| Route {
            table: TABLE_TO_NODES,
            prefix,
            via: Some(node.ip),
            dev: OVERLAY.to_owned(),
            onlink: true,
            mtu: None,
            src: None,
        })
    })
}

fn rules() -> BTreeSet<Rule> {
    let rule = |priority, table, iif: Option<&str>| Rule {
        family: Family::V4,
        priority,
        table,
        iif: iif.map(str::to_owned),
        mark: iif.map(|_| MARK_FROM_PEERS),
        from: None,
        to: None,
    };
    [rule(RULE_TO_NODES, TABLE_TO_NODES, Some(VETH_HOST)), rule(RULE_TO_PEERS, TABLE_TO_PEERS, None)].into()
}

fn table(view: &View) -> Table {
    let set = |nets: &mut dyn Iterator<Item = IpNet>| Set {
        keys: vec![KeyType::Ipv4],
        interval: true,
        data: None,
        elements: nets.filter(|net| net.addr().is_ipv4()).map(|net| (vec![Item::Net(net)], None)).collect(),
    };
    let everyone = || view.others.iter().map(|node| node.ip).chain([view.me]);
    let themselves = everyone().filter(IpAddr::is_ipv4).map(|ip| (vec![ip.into(), ip.into()], None));
    let themselves = Set { keys: vec![KeyType::Ipv4; 2], interval: false, data: None, elements: themselves.collect() };
    let sets = [
        (PEERS.to_owned(), set(&mut view.peers.iter().flat_map(Networks::remote))),
        (NODES.to_owned(), set(&mut everyone().map(IpNet::from))),
        (THEMSELVES.to_owned(), themselves),
    ];
    let rules = match view.peers.first() {
        Some(peer) => postrouting(peer.local_pods),
        None => Vec::new(),
    };
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, drop: false });
    let mark = rule("the way back is the overlay's", [is(Key::Iif, VETH_HOST), Statement::SetMark(MARK_FROM_PEERS)]);
    let chains = [
        ("prerouting".to_owned(), Chain { base: base(ChainKind::Filter, Hook::Prerouting, MANGLE), rules: vec![mark] }),
        ("postrouting".to_owned(), Chain { base: base(ChainKind::Nat, Hook::Postrouting, BEFORE_SOURCE_NAT), rules }),
        (
            "translated".to_owned(),
            Chain { base: base(ChainKind::Filter, Hook::Prerouting, AFTER_DNAT), rules: translated() },
        ),
        ("input".to_owned(), Chain { base: base(ChainKind::Filter, Hook::Input, 0), rules: input() }),
        ("sent".to_owned(), Chain { base: base(ChainKind::Filter, Hook::Output, RAW), rules: overlay(Key::Daddr) }),
        (
            "received".to_owned(),
            Chain { base: base(ChainKind::Filter, Hook::Prerouting, RAW), rules: overlay(Key::Saddr) },
        ),
    ];
    Table { family: nft::Family::Ip, name: NFT_TABLE.to_owned(), sets: sets.into(), chains: chains.into() }
}

/// What nodes send each other over the overlay is nobody's to translate. It bears the mark of the packet inside, and where that
/// still asks for being masqueraded (kube-proxy's), the outer one would be, and its checksum spoilt: the kernel takes it
/// for one that is to be finished, like the inner one.
fn overlay(other: Key) -> Vec<nft::Rule> {
    let port = is(Key::Dport, u32::from(OVERLAY_PORT));
    let packets = [is(Key::Protocol, UDP), port, within(&[other], NODES), Statement::NoTrack];
    vec![rule("packets of the overlay are left alone", packets)]
}

/// What a node asks a node port of another one, and has to go to a peer from there.
fn translated() -> Vec<nft::Rule> {
    let (nodes, peers) = (within(&[Key::Saddr], NODES), within(&[Key::Daddr], PEERS));
    let translated = Statement::AnyBit(Key::CtStatus, nft::ct::DNAT);
    let rules = [nodes, peers, translated, Statement::AllowFragments];
    vec![rule("nodes are not told what a tunnel carries, see below", rules)]
}

/// What is too large for a tunnel is told to whoever sent it. To a node that had asked a node port of another one this
/// would come from that node and seem to speak of the path to it; the overlay takes that path, would carry less, and say so
/// in the same way, until next to nothing passed. A node says nothing of the path to itself otherwise.
fn input() -> Vec<nft::Rule> {
    vec![rule(
        "node ports say nothing of the path between nodes",
        [
            is(Key::Protocol, Value::Number(ICMP)),
            is(Key::IcmpKind, Value::Number(ICMP_TOO_BIG)),
            within(&[Key::Saddr, Key::IcmpDaddr], THEMSELVES),
            Statement::Verdict(Verdict::Drop),
        ],
    )]
}

fn postrouting(pods: IpNet) -> Vec<nft::Rule> {
    // Accepting would not do: it ends this chain, not the one of the network plugin.
    let stay = || Statement::Snat(Target::Own(Key::Saddr));
    let to_peers = within(&[Key::Daddr], PEERS);
    let from_peers = || within(&[Key::Saddr], PEERS);
    vec![
        // Not those that ask a node port: their pod may be elsewhere, and the answer has to come back by this node.
        rule(
            "pods are seen as themselves by peers",
            [is(Key::Saddr, pods), to_peers, outside(&[Key::OriginalDaddr], NODES), stay()],
        ),
        rule("peers are seen as themselves by pods", [from_peers(), is(Key::Daddr, pods), stay()]),
        rule(
            "outside the cluster nobody knows the way back to peers",
            [
                from_peers(),
                not(Key::Oif, OVERLAY),
                not(Key::Oif, VETH_HOST),
                outside(&[Key::Daddr], NODES),
                Statement::Masquerade,
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(gateway: Option<&str>) -> View {
        let net = |text: &str| text.parse().unwrap();
        let node = |ip: &str, pods: &str| Node { ip: ip.parse().unwrap(), pods: vec![net(pods)] };
        View {
            me: "172.30.0.11".parse().unwrap(),
            others: vec![node("172.30.0.12", "10.244.1.0/24"), node("172.31.0.12", "10.244.2.0/24")],
            gateway: gateway.map(|ip| ip.parse().unwrap()),
            peers: vec![Networks {
                local_pods: net("10.244.0.0/16"),
                local_pods_there: net("10.245.0.0/16"),
                local_external_there: net("10.98.0.0/16"),
                remote_pods: net("10.245.0.0/16"),
                remote_external: net("10.98.0.0/16"),
            }],
            mtu: 1450,
        }
    }

    fn way(state: &State, table: u32) -> Vec<String> {
        let ours = state.routes.iter().filter(|route| route.table == table);
        ours.map(|route| format!("{} via {} dev {}", route.prefix, route.via.unwrap(), route.dev)).collect()
    }

    #[test]
    fn peers_lie_behind_the_gateway_node() {
        let state = wanted(&view(Some("172.30.0.12")));
        assert_eq!(
            way(&state, TABLE_TO_PEERS),
            [
                "10.98.0.0/16 via 172.30.0.12 dev liqo.vxlan",
                "10.245.0.0/16 via 172.30.0.12 dev liqo.vxlan",
                "169.254.0.1/32 via 172.30.0.12 dev liqo.vxlan",
            ]
        );
        let state = wanted(&view(Some("172.30.0.11")));
        assert_eq!(
            way(&state, TABLE_TO_PEERS),
            [
                "10.98.0.0/16 via 169.254.100.1 dev liqo.host",
                "10.245.0.0/16 via 169.254.100.1 dev liqo.host",
                "169.254.0.1/32 via 169.254.100.1 dev liqo.host",
            ]
        );
        assert!(way(&wanted(&view(None)), TABLE_TO_PEERS).is_empty());
    }

    #[test]
    fn nodes_that_share_three_octets_do_not_collide() {
        let state = wanted(&view(None));
        assert_eq!(state.fdb.len(), 2);
        let macs: BTreeSet<_> = state.fdb.iter().map(|entry| entry.mac).collect();
        assert_eq!(macs.len(), 2);
        assert_eq!(way(&state, TABLE_TO_NODES).len(), 4);
    }

    #[test]
    fn a_node_needs_one_rule_for_all_peers() {
        let one = wanted(&view(Some("172.30.0.12")));
        let mut many = view(Some("172.30.0.12"));
        for index in 0..100_u8 {
            let mut peer = many.peers[0].clone();
            peer.remote_pods = format!("11.{index}.0.0/16").parse().unwrap();
            peer.remote_external = format!("12.{index}.0.0/16").parse().unwrap();
            many.peers.push(peer);
        }
        let many = wanted(&many);
        assert_eq!(one.rules, many.rules);
        let rules = |state: &State| state.table.as_ref().unwrap().chains["postrouting"].rules.len();
        assert_eq!(rules(&one), rules(&many));
    }
}
