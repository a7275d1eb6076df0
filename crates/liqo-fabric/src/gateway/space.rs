//! What a gateway makes in the kernel: a pair of links into a namespace, the tunnel's routes in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use liqo_netlink::{Address, Link, LinkKind, Neighbour, Realm, Route, State, mac_of, nft};
use tokio::{sync::Notify, task::JoinSet};

use super::{
    Space,
    rules::{self, Exports},
    segregation::{ReachableAddresses, SecurityMode},
    told,
};
use crate::{
    layout::{NAMESPACE, NFT_TABLE, TUNNEL, TUNNEL_IP, VETH_GATEWAY, VETH_GATEWAY_IP, VETH_HOST, VETH_HOST_IP},
    network::Networks,
};

/// Our number among those who write routes.
const PROTOCOL: u8 = 118;
const MAIN: u32 = 254;
/// Room for whatever a node hands over; what fits into the tunnel is decided by its routes.
const VETH_MTU: u32 = 9000;

/// One peer, as far as the kernel is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) networks: Networks,
    pub(crate) exports: Exports,
    /// Empty in the mode in which peers reach every pod.
    pub(crate) reach: ReachableAddresses,
    /// Largest packet its path carries.
    pub(crate) mtu: u16,
}

/// Rings when others change something of ours in the kernel. The tasks listen for ever: the end of one is an error.
///
/// # Errors
/// What the kernel said.
pub(super) fn listen(space: &Space) -> Result<(Arc<Notify>, JoinSet<String>), String> {
    let (news, mut tasks) = (Arc::new(Notify::new()), JoinSet::new());
    for (kernel, realm) in [(&space.node, node_realm()), (&space.inside, namespace_realm())] {
        let mut events = kernel.events(&realm).map_err(|error| told(&error))?;
        let news = Arc::clone(&news);
        tasks.spawn(async move {
            loop {
                if let Err(error) = events.changed().await {
                    return told(&error);
                }
                news.notify_one();
                // A burst is looked at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    Ok((news, tasks))
}

/// What is ours on the gateway's node.
pub(crate) fn node_realm() -> Realm {
    Realm { links: [VETH_HOST.to_owned()].into(), tables: BTreeSet::new(), protocol: PROTOCOL, table: None }
}

/// The way into the namespace.
pub(crate) fn node() -> State {
    let kind = LinkKind::Veth { peer: VETH_GATEWAY.to_owned(), peer_netns: Some(PathBuf::from(NAMESPACE)) };
    State {
        links: [(VETH_HOST.to_owned(), veth(kind, VETH_HOST_IP.into()))].into(),
        neighbours: [neighbour(VETH_HOST, VETH_GATEWAY_IP.into())].into(),
        // What comes out of the namespace has passed the tunnel; that its sources lie behind other links is its nature.
        sysctls: sysctls(&[("ipv4/ip_forward", "1"), (&format!("ipv4/conf/{VETH_HOST}/rp_filter"), "2")]),
        ..State::default()
    }
}

/// What is ours in the namespace: everything that can be.
pub(crate) fn namespace_realm() -> Realm {
    Realm {
        links: [VETH_GATEWAY, TUNNEL].map(str::to_owned).into(),
        tables: BTreeSet::new(),
        protocol: PROTOCOL,
        table: Some((nft::Family::Ip, NFT_TABLE.to_owned())),
    }
}

/// The namespace with the tunnel to these peers, who reach none of the `components`.
pub(crate) fn namespace(mode: SecurityMode, peers: &[Peer], components: &BTreeSet<IpAddr>, tunnel_mtu: u32) -> State {
    let tunnel = Link { kind: LinkKind::Other, mac: None, mtu: Some(tunnel_mtu), up: true, arp: None };
    let mut routes = BTreeSet::from([Route {
        table: MAIN,
        prefix: IpNet::V4(ipnet::Ipv4Net::default()),
        via: Some(VETH_HOST_IP.into()),
        dev: VETH_GATEWAY.to_owned(),
        onlink: true,
        mtu: None,
        src: None,
    }]);
    for peer in peers {
        routes.extend(peer.networks.remote().map(|prefix| Route {
            table: MAIN,
            prefix,
            via: None,
            dev: TUNNEL.to_owned(),
            onlink: false,
            mtu: Some(u32::from(peer.mtu)),
            src: None,
        }));
    }
    State {
        links: [(VETH_GATEWAY.to_owned(), veth(LinkKind::Other, VETH_GATEWAY_IP.into())), (TUNNEL.to_owned(), tunnel)]
            .into(),
        addresses: [Address { dev: TUNNEL.to_owned(), net: IpAddr::V4(TUNNEL_IP).into() }].into(),
        neighbours: [neighbour(VETH_GATEWAY, VETH_HOST_IP.into())].into(),
        sysctls: sysctls(&[
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // A gateway that takes over sees connections from their middle on.
            ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
        ]),
        routes,
        table: Some(rules::table(
            mode,
            peers.iter().map(|peer| (&peer.networks, &peer.exports, &peer.reach)),
            components,
        )),
        ..State::default()
    }
}

fn veth(kind: LinkKind, address: IpAddr) -> Link {
    Link { kind, mac: Some(mac_of(address)), mtu: Some(VETH_MTU), up: true, arp: Some(false) }
}

fn neighbour(dev: &str, ip: IpAddr) -> Neighbour {
    Neighbour { dev: dev.to_owned(), ip, mac: mac_of(ip) }
}

fn sysctls(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
