use std::collections::BTreeSet;

use crate::change::{Change, Kind};
use crate::plan::{Seen, plan};
use crate::state::{Address, Family, Fdb, Link, LinkKind, Mac, Neighbour, Realm, Route, Rule, State, mac_of};

fn realm() -> Realm {
    Realm { links: ["a", "b", "tun"].map(String::from).into(), tables: [7].into(), protocol: 76, table: None }
}

fn vxlan(vni: u32) -> Link {
    let kind = LinkKind::Vxlan { vni, port: 4879, local: "10.0.0.1".parse().unwrap() };
    Link { kind, mac: None, mtu: Some(1400), up: true, arp: Some(false) }
}

fn other() -> Link {
    Link { kind: LinkKind::Other, mac: None, mtu: Some(1400), up: true, arp: None }
}

fn route(prefix: &str, dev: &str) -> Route {
    Route { table: 7, prefix: prefix.parse().unwrap(), via: None, dev: dev.into(), onlink: false, mtu: None, src: None }
}

fn rule(to: Option<&str>) -> Rule {
    let to = to.map(|to| to.parse().unwrap());
    Rule { family: Family::V4, priority: 10, table: 7, iif: None, mark: None, from: None, to }
}

/// One of each, on link `a`.
fn one() -> State {
    let ip = "10.0.0.2".parse().unwrap();
    State {
        links: [("a".to_owned(), vxlan(1))].into(),
        addresses: [Address { dev: "a".into(), net: "10.0.0.1/32".parse().unwrap() }].into(),
        neighbours: [Neighbour { dev: "a".into(), ip, mac: mac_of(ip) }].into(),
        fdb: [Fdb { dev: "a".into(), mac: mac_of(ip), dst: ip }].into(),
        sysctls: [("ipv4/ip_forward".to_owned(), "1".to_owned())].into(),
        routes: [route("10.1.0.0/16", "a")].into(),
        rules: [rule(None)].into(),
        table: None,
    }
}

/// What is seen when all of a state is there.
fn seen(state: &State) -> Seen {
    let present = state.links.keys().cloned().collect();
    Seen { state: State { table: None, ..state.clone() }, table: None, present }
}

fn kinds(changes: &[Change]) -> Vec<Kind> {
    changes.iter().map(Change::kind).collect()
}

#[test]
fn nothing_leads_to_all_in_the_order_in_which_things_stand_on_each_other() {
    let changes = plan(&realm(), &one(), &Seen::default());
    let order = [Kind::Link, Kind::Address, Kind::Neighbour, Kind::Fdb, Kind::Sysctl, Kind::Route, Kind::Rule];
    assert_eq!(kinds(&changes), order);
    assert_eq!(plan(&realm(), &one(), &seen(&one())), []);
}

#[test]
fn all_leads_to_nothing_in_reverse_and_a_link_takes_with_it_what_is_on_it() {
    let changes = plan(&realm(), &State::default(), &seen(&one()));
    assert_eq!(changes, [Change::RemoveRule(rule(None)), Change::RemoveLink("a".into())]);
    // On a link of others everything is taken off by itself.
    let mut there = one();
    there.links = [("a".to_owned(), other())].into();
    let changes = plan(&realm(), &State::default(), &seen(&there));
    assert_eq!(kinds(&changes), [Kind::Rule, Kind::Route, Kind::Fdb, Kind::Neighbour, Kind::Address]);
}

#[test]
fn a_link_of_another_kind_is_made_anew_and_all_on_it() {
    let mut there = one();
    there.links.insert("a".into(), vxlan(2));
    let changes = plan(&realm(), &one(), &seen(&there));
    assert_eq!(changes[..2], [Change::RemoveLink("a".into()), Change::AddLink("a".into(), vxlan(1))]);
    assert_eq!(kinds(&changes[2..]), [Kind::Address, Kind::Neighbour, Kind::Fdb, Kind::Route]);
}

#[test]
fn only_wanted_properties_of_a_link_are_compared() {
    let with = |change: fn(&mut Link)| {
        let mut there = one();
        there.links.entry("a".into()).and_modify(change);
        kinds(&plan(&realm(), &one(), &seen(&there)))
    };
    assert_eq!(with(|link| link.mtu = Some(1300)), [Kind::Link]);
    assert_eq!(with(|link| link.up = false), [Kind::Link]);
    assert_eq!(with(|link| link.arp = Some(true)), [Kind::Link]);
    assert_eq!(with(|link| link.mac = Some(Mac([2, 0, 0, 0, 0, 1]))), []);
}

#[test]
fn what_has_a_key_is_replaced_and_not_removed() {
    let ip = "10.0.0.2".parse().unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let mut there = one();
    there.neighbours = [Neighbour { dev: "a".into(), ip, mac }].into();
    there.fdb = [Fdb { dev: "a".into(), mac: mac_of(ip), dst: "10.0.0.9".parse().unwrap() }].into();
    there.routes = [Route { mtu: Some(1280), ..route("10.1.0.0/16", "a") }].into();
    let changes = plan(&realm(), &one(), &seen(&there));
    assert_eq!(kinds(&changes), [Kind::Neighbour, Kind::Fdb, Kind::Route]);
    assert!(matches!(changes[2], Change::SetRoute(_)), "{changes:?}");
    // A second one of the same prefix beside the wanted one replaces nothing.
    let mut there = one();
    there.routes.insert(Route { mtu: Some(1280), ..route("10.1.0.0/16", "a") });
    assert!(matches!(plan(&realm(), &one(), &seen(&there))[..], [Change::RemoveRoute(_)]));
}

#[test]
fn what_needs_an_absent_link_waits_for_it() {
    let mut wanted = one();
    wanted.links.insert("tun".into(), other());
    wanted.routes = [route("10.1.0.0/16", "tun")].into();
    // The old route goes all the same: it may lead where nobody wants packets any more.
    let mut now = seen(&one());
    assert_eq!(plan(&realm(), &wanted, &now), [Change::RemoveRoute(route("10.1.0.0/16", "a"))]);
    // With the link there it is replaced, without a gap.
    now.present.insert("tun".into());
    now.state.links.insert("tun".into(), other());
    assert_eq!(plan(&realm(), &wanted, &now), [Change::SetRoute(route("10.1.0.0/16", "tun"))]);
}

#[test]
fn both_ends_of_a_pair_in_one_namespace_are_made_at_once() {
    let pair = Link { kind: LinkKind::Veth { peer: "b".into(), peer_netns: None }, ..other() };
    let wanted = State {
        links: [("a".to_owned(), pair), ("b".to_owned(), other())].into(),
        routes: [route("10.1.0.0/16", "b")].into(),
        ..State::default()
    };
    let changes = plan(&realm(), &wanted, &Seen::default());
    assert_eq!(kinds(&changes), [Kind::Link, Kind::Link, Kind::Route]);
    assert_eq!(changes[1], Change::SetLink("b".into(), other()));
}

#[test]
fn rules_and_prefixes_are_compared_as_the_kernel_tells_them() {
    let mut wanted = one();
    wanted.rules = [rule(Some("0.0.0.0/0"))].into();
    wanted.routes = [route("10.1.2.3/16", "a")].into();
    assert_eq!(plan(&realm(), &wanted, &seen(&one())), []);
}

#[test]
fn a_wanted_link_that_is_not_ours_is_never_removed() {
    let realm = Realm { links: BTreeSet::new(), ..realm() };
    assert_eq!(plan(&realm, &State::default(), &seen(&State { links: one().links, ..State::default() })), []);
}
