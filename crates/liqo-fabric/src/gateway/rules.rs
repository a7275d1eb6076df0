//! The packet rules in the tunnel's namespace: who is seen as whom.
//!
//! One table; peers are elements of its sets and maps, never rules, so that a packet costs the same among a thousand
//! peers as with one. What a peer may reach is what is written here and nothing else: our pods, and addresses
//! exported to that very peer (data-plane 7.6). Pods of Liqo itself are none of those: what a peer needs of them is exported.
//! In the segregated mode each packet that a peer sends, unless it answers, must in addition be for what the peer reaches.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use liqo_netlink::nft::{
    Base, Chain, ChainKind, DataType, Datum, Family, Hook, Item, Key, KeyType, Rule, Set, Statement, TCP_SYN, Table,
    Target, Verdict, ct, is, not, outside, rule, within,
};

use super::segregation::{ReachableAddresses, SecurityMode};
use crate::{
    layout::{NFT_TABLE, PING_PORT, TUNNEL, VETH_GATEWAY},
    network::Networks,
};

/// Destination, as the peer sees it, to destination, as it is: for one peer and one exported address.
pub(crate) type Exports = BTreeMap<Ipv4Addr, Ipv4Addr>;

const EXPORTS: &str = "exports";
const REMAPPED: &str = "remapped";
const DIRECT: &str = "direct";
const SOURCES: &str = "sources";
const HOSTS: &str = "hosts";
/// Where peers' connection checks are answered, as we see it.
const CHECKED: &str = "checked";
/// Where peers' connection checks come from: the address their gateway itself is seen by, which is no pod's.
const CHECKERS: &str = "checkers";
/// Liqo's own pods.
const COMPONENTS: &str = "components";
/// Pods of a peer and what they reach here; in the segregated mode only.
const REACHABLE: &str = "reachable";
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMP: u32 = 1;

/// The nftables table for these peers and these pods of the Liqo namespace. What a peer reaches counts in the segregated mode
/// only.
pub(crate) fn table<'p>(
    mode: SecurityMode,
    peers: impl IntoIterator<Item = (&'p Networks, &'p Exports, &'p ReachableAddresses)> + Clone,
    components: &BTreeSet<IpAddr>,
) -> Table {
    let pods: Vec<_> = peers.clone().into_iter().map(|(networks, ..)| networks.local_pods).collect();
    let mut table = Table { family: Family::Ip, name: NFT_TABLE.to_owned(), sets: sets(mode), chains: BTreeMap::new() };
    for (networks, exports, reach) in peers {
        fill(&mut table.sets, networks, exports, reach);
    }
    if let Some(set) = table.sets.get_mut(COMPONENTS) {
        set.elements = components.iter().filter(|ip| ip.is_ipv4()).map(|ip| (vec![(*ip).into()], None)).collect();
    }
    let pods = pods.first().copied();
    let chain = |kind, hook, priority, drop, rules| {
        let base = Base { kind, hook, priority, drop };
        Chain { base: Some(base), rules }
    };
    table.chains = [
        ("prerouting", chain(ChainKind::Nat, Hook::Prerouting, -100, false, prerouting(pods))),
        ("postrouting", chain(ChainKind::Nat, Hook::Postrouting, 100, false, postrouting(pods))),
        ("forward", chain(ChainKind::Filter, Hook::Forward, 0, true, forward(mode))),
        ("input", chain(ChainKind::Filter, Hook::Input, 0, true, input())),
    ]
    .map(|(name, chain)| (name.to_owned(), chain))
    .into();
    table
}

fn sets(mode: SecurityMode) -> BTreeMap<String, Set> {
    let set = |keys: &[KeyType], data| Set { keys: keys.to_vec(), interval: true, data, elements: BTreeMap::new() };
    let pair = [KeyType::Ipv4, KeyType::Ipv4];
    let segregated = mode == SecurityMode::IntraClusterTrafficSegregation;
    let always = [
        (EXPORTS, set(&pair, Some(DataType::Ipv4))),
        (REMAPPED, set(&pair, None)),
        (DIRECT, set(&pair, None)),
        (SOURCES, set(&pair[..1], Some(DataType::Prefix4))),
        (HOSTS, set(&pair[..1], Some(DataType::Ipv4))),
        (CHECKED, set(&pair[..1], None)),
        (CHECKERS, set(&pair[..1], None)),
        (COMPONENTS, set(&pair[..1], None)),
    ];
    let all = always.into_iter().chain(segregated.then(|| (REACHABLE, set(&pair, None))));
    all.map(|(name, set)| (name.to_owned(), set)).collect()
}

fn fill(sets: &mut BTreeMap<String, Set>, networks: &Networks, exports: &Exports, reach: &ReachableAddresses) {
    let mut put = |set: &str, key: Vec<Item>, datum: Option<Datum>| {
        if let Some(set) = sets.get_mut(set) {
            set.elements.insert(key, datum);
        }
    };
    let from: Item = networks.remote_pods.into();
    for (there, here) in exports {
        put(EXPORTS, vec![from.clone(), IpAddr::V4(*there).into()], Some(Datum::Address(IpAddr::V4(*here))));
    }
    for address in reach {
        put(REACHABLE, vec![from.clone(), IpAddr::V4(*address).into()], None);
    }
    let pods = if networks.is_remapped() { REMAPPED } else { DIRECT };
    put(pods, vec![from, networks.local_pods_there.into()], None);
    for network in networks.remote() {
        if networks.is_remapped() {
            put(SOURCES, vec![network.into()], Some(Datum::Prefix(networks.local_pods_there)));
        }
        put(HOSTS, vec![network.into()], Some(Datum::Address(networks.local_pods_there.network())));
    }
    put(CHECKERS, vec![networks.remote_pods.network().into()], None);
    if let Some(address) = tunnel_address(networks.remote_external) {
        put(CHECKED, vec![address.into()], None);
    }
}

fn prerouting(pods: Option<IpNet>) -> Vec<Rule> {
    let pair = [Key::Saddr, Key::Daddr];
    let exported = Statement::Dnat(Target::Map(pair.to_vec(), EXPORTS.to_owned()));
    let mut rules = vec![rule("addresses exported to the peer", [is(Key::Iif, TUNNEL), exported])];
    rules.extend(pods.map(|pods| {
        let back = Statement::Dnat(Target::Prefix(pods));
        rule("pods, seen elsewhere by the peer", [is(Key::Iif, TUNNEL), within(&pair, REMAPPED), back])
    }));
    rules
}

fn postrouting(pods: Option<IpNet>) -> Vec<Rule> {
    let map = |name: &str| Statement::Snat(Target::Map(vec![Key::Daddr], name.to_owned()));
    let Some(pods) = pods else { return Vec::new() };
    vec![
        rule("pods, one to one", [is(Key::Oif, TUNNEL), is(Key::Saddr, pods), map(SOURCES)]),
        rule("everything else behind the first address", [is(Key::Oif, TUNNEL), not(Key::Saddr, pods), map(HOSTS)]),
    ]
}

fn forward(mode: SecurityMode) -> Vec<Rule> {
    let accept = || Statement::Verdict(Verdict::Accept);
    let pair = [Key::Saddr, Key::Daddr];
    let syn = [is(Key::Protocol, TCP), Statement::AnyBit(Key::TcpFlags, TCP_SYN), Statement::ClampMss];
    let [udp, port] = connection_check();
    let drop = Statement::Verdict(Verdict::Drop);
    let mut rules = vec![
        rule(
            "nobody but the gateway itself checks the connection",
            [is(Key::Iif, VETH_GATEWAY), udp, port, within(&[Key::Daddr], CHECKED), drop],
        ),
        rule("segments as large as the path carries", syn),
    ];
    if mode == SecurityMode::IntraClusterTrafficSegregation {
        rules.extend(segregation());
    }
    rules.extend([
        rule("", [Statement::AnyBit(Key::CtState, ct::ESTABLISHED | ct::RELATED), accept()]),
        rule(
            "peers reach Liqo itself where it is exported, nowhere else",
            [is(Key::Iif, TUNNEL), within(&[Key::Daddr], COMPONENTS), Statement::Verdict(Verdict::Drop)],
        ),
        rule("to peers", [is(Key::Iif, VETH_GATEWAY), is(Key::Oif, TUNNEL), accept()]),
        rule(
            "exported addresses and remapped pods",
            [is(Key::Iif, TUNNEL), Statement::AnyBit(Key::CtStatus, ct::DNAT), accept()],
        ),
        rule("pods seen as they are", [is(Key::Iif, TUNNEL), within(&pair, DIRECT), accept()]),
    ]);
    rules
}

/// Before connections that exist are accepted: what a peer does not reach any more is cut off in their middle. A packet that
/// belongs to no connection has no direction; the last rule drops it. ICMP errors come from any router of the peer.
fn segregation() -> [Rule; 3] {
    let state = |bits| Statement::AnyBit(Key::CtState, bits);
    let accept = || Statement::Verdict(Verdict::Accept);
    let drop = Statement::Verdict(Verdict::Drop);
    [
        rule("errors about connections that exist", [is(Key::Iif, TUNNEL), state(ct::RELATED), accept()]),
        rule(
            "answers of peers to this cluster",
            [is(Key::Iif, TUNNEL), is(Key::CtDirection, ct::REPLY), state(ct::ESTABLISHED), accept()],
        ),
        rule(
            "peers reach what is shared with them, nothing else",
            [is(Key::Iif, TUNNEL), outside(&[Key::Saddr, Key::Daddr], REACHABLE), drop],
        ),
    ]
}

fn input() -> Vec<Rule> {
    let accept = || Statement::Verdict(Verdict::Accept);
    let [udp, port] = connection_check();
    vec![
        rule("", [Statement::AnyBit(Key::CtState, ct::ESTABLISHED | ct::RELATED), accept()]),
        rule("ping", [is(Key::Protocol, ICMP), accept()]),
        rule(
            "connection check of a peer's gateway",
            [is(Key::Iif, TUNNEL), udp, port, within(&[Key::Saddr], CHECKERS), accept()],
        ),
    ]
}

fn connection_check() -> [Statement; 2] {
    [is(Key::Protocol, UDP), is(Key::Dport, u32::from(PING_PORT))]
}

/// What a `NatMapping` exports: addresses outside IPv4 are none of ours.
pub(crate) fn exports(mappings: &BTreeMap<String, String>) -> Exports {
    let pairs = mappings.iter().filter_map(|(here, there)| Some((there.parse().ok()?, here.parse().ok()?)));
    pairs.collect()
}

/// The address a cluster's tunnel has within the network it exports: the first one (data-plane 7.2).
pub(crate) fn tunnel_address(external: IpNet) -> Option<IpAddr> {
    match external {
        IpNet::V4(net) => first(net).map(IpAddr::V4),
        IpNet::V6(_) => None,
    }
}

fn first(net: Ipv4Net) -> Option<Ipv4Addr> {
    u32::from(net.network()).checked_add(1).map(Ipv4Addr::from).filter(|address| net.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(remapped: bool, peer: u8) -> Networks {
        let net = |text: String| text.parse().unwrap();
        Networks {
            local_pods: net("10.244.0.0/16".into()),
            local_pods_there: net(if remapped { "10.245.0.0/16".into() } else { "10.244.0.0/16".into() }),
            local_external_there: net("10.98.0.0/16".into()),
            remote_pods: net(format!("10.{peer}.0.0/16")),
            remote_external: net(format!("10.{}.0.0/16", peer + 1)),
        }
    }

    #[test]
    fn peers_are_elements_and_never_rules() {
        let exports = exports(&[("169.254.0.1".to_owned(), "10.98.0.1".to_owned())].into());
        let count = |table: &Table| table.chains.values().map(|chain| chain.rules.len()).sum::<usize>();
        let all: Vec<_> = (0..50).map(|peer| networks(peer % 2 == 0, peer * 2)).collect();
        let (mode, reach) = (SecurityMode::IntraClusterTrafficSegregation, reach(3));
        let one = table(mode, [(&all[0], &exports, &reach)], &BTreeSet::new());
        let components = (0..30).map(|last| IpAddr::from([10, 244, 0, last])).collect();
        let fifty = table(mode, all.iter().map(|networks| (networks, &exports, &reach)), &components);
        assert_eq!(count(&one), count(&fifty));
        assert_eq!(one.chains.len(), fifty.chains.len());
        let size = |name: &str| fifty.sets[name].elements.len();
        assert_eq!([EXPORTS, REMAPPED, DIRECT, SOURCES, HOSTS].map(size), [50, 25, 25, 50, 100]);
        assert_eq!([CHECKED, CHECKERS, COMPONENTS, REACHABLE].map(size), [50, 50, 30, 150]);
    }

    #[test]
    fn the_default_mode_has_no_rule_and_no_set_of_the_other_one() {
        let (networks, exports, reach) = (networks(true, 20), exports(&BTreeMap::new()), reach(3));
        let made = |mode| table(mode, [(&networks, &exports, &reach)], &BTreeSet::new());
        let (full, segregated) = (made(SecurityMode::FullPodToPod), made(SecurityMode::IntraClusterTrafficSegregation));
        let rules = |table: &Table| table.chains["forward"].rules.clone();
        assert!(!full.sets.contains_key(REACHABLE) && segregated.sets.contains_key(REACHABLE));
        let mut others = rules(&segregated);
        others.retain(|rule| !segregation().contains(rule));
        assert_eq!((others, rules(&segregated).len()), (rules(&full), rules(&full).len() + 3));
    }

    #[test]
    fn what_a_peer_reaches_is_judged_before_connections_are_accepted() {
        let rules = forward(SecurityMode::IntraClusterTrafficSegregation);
        let at = |part: &str| rules.iter().position(|rule| rule.comment.contains(part)).unwrap();
        let established = rules.iter().position(|rule| rule.comment.is_empty()).unwrap();
        assert!(at("answers of peers") < at("what is shared") && at("what is shared") < established);
        let networks = networks(true, 20);
        let table = table(
            SecurityMode::IntraClusterTrafficSegregation,
            [(&networks, &Exports::new(), &reach(1))],
            &BTreeSet::new(),
        );
        let key = vec![Item::Net("10.20.0.0/16".parse().unwrap()), Item::Net("10.244.0.0/32".parse().unwrap())];
        assert_eq!(table.sets[REACHABLE].elements, [(key, None)].into(), "an address is reached by its peer only");
    }

    fn reach(count: u8) -> ReachableAddresses {
        (0..count).map(|last| Ipv4Addr::new(10, 244, 0, last)).collect()
    }

    #[test]
    fn an_export_is_only_for_its_peer() {
        let exports = exports(&[("10.96.0.1".to_owned(), "10.98.0.2".to_owned())].into());
        let table = table(SecurityMode::FullPodToPod, [(&networks(true, 20), &exports, &reach(0))], &BTreeSet::new());
        let key = vec![Item::Net("10.20.0.0/16".parse().unwrap()), Item::Net("10.98.0.2/32".parse().unwrap())];
        let datum = Datum::Address("10.96.0.1".parse().unwrap());
        assert_eq!(table.sets[EXPORTS].elements.get(&key), Some(&Some(datum)));
    }

    #[test]
    fn what_is_accepted_from_a_peer_comes_after_what_is_not() {
        let rules = forward(SecurityMode::FullPodToPod);
        let at = |part: &str| rules.iter().position(|rule| rule.comment.contains(part)).unwrap();
        let established = rules.iter().position(|rule| rule.comment.is_empty()).unwrap();
        let dropped = at("peers reach Liqo itself");
        assert!(established < dropped && dropped < at("remapped pods") && dropped < at("pods seen as they are"));
    }

    #[test]
    fn a_tunnel_has_the_first_address() {
        let address = |text: &str| tunnel_address(text.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(address("10.98.0.0/16").as_deref(), Some("10.98.0.1"));
        assert_eq!(address("10.98.0.7/32"), None);
    }
}
