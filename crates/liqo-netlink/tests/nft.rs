//! Tables as written by us beside tables as written by `nft`. Needs root and `nft`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "bed/bed.rs"]
mod bed;
#[path = "bed/everything.rs"]
mod everything;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bed::Ns;
use everything::{everything, item, net, words};
use liqo_netlink::nft::{Datum, Family, Key, Table, rule, within};
use liqo_netlink::{Kind, Realm, State};

fn realm(family: Family) -> Realm {
    Realm { table: Some((family, "liqo".into())), ..Realm::default() }
}

fn wanted(table: Table) -> State {
    State { table: Some(table), ..State::default() }
}

/// The listing of a table without what differs by chance: numbers of rules, order of chains, which register `nft` takes
/// for the end of a prefix, the empty beginning that it puts into trees, user data. Rules as bytecode stay whole.
fn listing(ns: &Ns, command: &str, word: &str) -> BTreeSet<String> {
    let text = ns.run(command).replace("theirs", "liqo").replace("reg 2 ", "reg 9 ");
    let mut parts = BTreeSet::new();
    let mut rule: Option<String> = None;
    for line in text.lines() {
        let head = line.strip_prefix(&format!("{word} liqo ")).filter(|head| !head.starts_with('@'));
        if head.is_some() || !line.starts_with("  ") {
            parts.extend(rule.take());
        }
        let line = line.split("  userdata").next().unwrap_or(line).trim();
        match (&mut rule, head) {
            (_, Some(head)) => rule = head.split(' ').next().map(str::to_owned),
            (Some(rule), _) => rule.push_str(line),
            (None, _) if line.is_empty() || (line.starts_with("element 0000") && line.ends_with(" : 1 [end]")) => {}
            (None, _) => drop(parts.insert(line.to_owned())),
        }
    }
    parts.extend(rule);
    parts
}

#[test]
fn what_we_write_reads_like_what_nft_writes() {
    for (family, word) in [(Family::Ip, "ip"), (Family::Inet, "inet")] {
        let ns = Ns::new();
        ns.nft(&words(family == Family::Inet, "theirs"));
        ns.kernel.settle(&realm(family), &wanted(everything(family, "liqo"))).unwrap();
        for look in ["nft list table", "nft --debug=netlink list table"] {
            let ours = listing(&ns, &format!("{look} {word} liqo"), word);
            let theirs = listing(&ns, &format!("{look} {word} theirs"), word);
            let only: Vec<_> = ours.symmetric_difference(&theirs).collect();
            assert!(ours.len() > 40, "{ours:#?}");
            assert!(only.is_empty(), "{look} {word}: {only:#?}\n{}", ns.run(&format!("{look} {word} liqo")));
        }
    }
}

#[test]
fn a_table_stays_until_somebody_touches_it() {
    let ns = Ns::new();
    let (realm, wanted) = (realm(Family::Inet), wanted(everything(Family::Inet, "liqo")));
    let settle = || ns.kernel.settle(&realm, &wanted).unwrap().made.into_keys().collect::<Vec<_>>();
    ns.nft("table inet other { chain c { counter; }; }");
    assert_eq!(settle(), [Kind::Table]);
    assert_eq!(settle(), []);
    // Somebody else works on tables of his own.
    ns.nft("table inet other { chain d { accept; }; }");
    assert_eq!(settle(), []);
    let first = |chain: &str| {
        let list = ns.run(&format!("nft -a list chain inet liqo {chain}"));
        let line = list.lines().find(|line| line.contains("comment")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    for break_it in [
        "nft flush ruleset".to_owned(),
        "nft delete table inet liqo".into(),
        "nft flush chain inet liqo pre".into(),
        "nft add rule inet liqo pre accept".into(),
        "nft insert rule inet liqo side drop".into(),
        format!("nft delete rule inet liqo forward handle {}", first("forward")),
        "nft add chain inet liqo more".into(),
        "nft 'add chain inet liqo forward { policy accept; }'".into(),
        "nft 'add set inet liqo more { type ipv4_addr; }'".into(),
    ] {
        ns.run(&break_it);
        assert_eq!(settle(), [Kind::Table], "{break_it}");
        assert_eq!(settle(), [], "{break_it}");
    }
    for break_it in [
        "nft flush set inet liqo peers",
        "nft flush map inet liqo exports",
        "nft delete element inet liqo hosts { 192.0.2.1 }",
        "nft delete element inet liqo images { 10.71.0.0/16 }",
        "nft add element inet liqo peers { 10.73.0.0/16, 10.70.0.0/16 }",
        "nft add element inet liqo ports { tcp . 443 }",
        "nft delete element inet liqo turns { 10.71.0.0/16 }",
        "nft add element inet liqo pairs { 10.1.0.0/16 . 10.2.0.0-10.2.0.9 }",
    ] {
        ns.run(break_it);
        assert_eq!(settle(), [Kind::Elements], "{break_it}");
        assert_eq!(settle(), [], "{break_it}");
    }
    assert!(ns.run("nft list table inet liqo").contains("0.0.0.0/8, 10.71.0.0/16"));
    ns.kernel.clear(&realm).unwrap();
    assert!(!ns.run("nft list ruleset").contains("liqo"));
}

#[test]
fn elements_come_and_go_without_touching_the_rest() {
    let ns = Ns::new();
    let realm = realm(Family::Ip);
    let mut table = everything(Family::Ip, "liqo");
    ns.kernel.settle(&realm, &wanted(table.clone())).unwrap();
    let handles = || ns.run("nft -a list chain ip liqo post");
    let before = handles();
    // Neighbouring prefixes, a changed image, a prefix split in two, the last address there is.
    let images = &mut table.sets.get_mut("images").unwrap().elements;
    images.insert(vec![item("10.73.0.0/16")], Some(Datum::Prefix(net("10.63.0.0/16"))));
    images.insert(vec![item("10.71.0.0/16")], Some(Datum::Prefix(net("10.99.0.0/16"))));
    let peers = &mut table.sets.get_mut("peers").unwrap().elements;
    for (key, stays) in [
        ("10.72.0.0/16", false),
        ("10.72.0.0/17", true),
        ("10.72.128.0/17", true),
        ("255.0.0.0/8", false),
        ("255.255.255.255/32", true),
        ("10.70.0.0/16", true),
    ] {
        if stays {
            peers.insert(vec![item(key)], None)
        } else {
            peers.remove(&vec![item(key)])
        };
    }
    let wanted = wanted(table);
    assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::from([(Kind::Elements, 1)]));
    assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::new());
    assert_eq!(handles(), before);
    let images = ns.run("nft list map ip liqo images");
    assert!(
        images.contains("10.71.0.0/16 : 10.99.0.0/16") && images.contains("10.73.0.0/16 : 10.63.0.0/16"),
        "{images}"
    );
    assert!(ns.run("nft list set ip liqo peers").contains("255.255.255.255"));
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_where() {
    let ns = Ns::new();
    let realm = realm(Family::Ip);
    let good = everything(Family::Ip, "liqo");
    ns.kernel.settle(&realm, &wanted(good.clone())).unwrap();
    let before = ns.run("nft list ruleset");
    let mut bad = good.clone();
    bad.chains.get_mut("side").unwrap().rules.push(rule("bad", [within(&[Key::Saddr], "absent")]));
    let error = ns.kernel.settle(&realm, &wanted(bad)).unwrap_err();
    assert!(error.to_string().starts_with("changing nftables table liqo (at message "), "{error}");
    assert_eq!(error.errno(), Some(libc::ENOENT));
    // A prefix in a set of single addresses would match one address only.
    let mut bad = good;
    bad.sets.get_mut("hosts").unwrap().elements.insert(vec![item("10.0.0.0/8")], None);
    assert!(ns.kernel.settle(&realm, &wanted(bad)).is_err());
    assert_eq!(ns.run("nft list ruleset"), before);
}

/// A hub with this many peers, each with two prefixes and five exported addresses.
fn hub(peers: u32) -> Table {
    let mut table = everything(Family::Ip, "liqo");
    for peer in 0..peers {
        let prefix = |first: u32| format!("{}.{}.{}.0/24", first + peer / 256 / 256, (peer / 256) % 256, peer % 256);
        for key in [prefix(100), prefix(110)] {
            table.sets.get_mut("peers").unwrap().elements.insert(vec![item(&key)], None);
            let image = Datum::Prefix(net(&prefix(60)));
            table.sets.get_mut("images").unwrap().elements.insert(vec![item(&key)], Some(image));
        }
        for export in 0..5 {
            let key = vec![item(&prefix(100)), item(&format!("10.97.0.{export}"))];
            let address = Datum::Address("10.244.1.9".parse().unwrap());
            table.sets.get_mut("exports").unwrap().elements.insert(key, Some(address));
        }
    }
    table
}

#[test]
fn a_thousand_peers_fit_and_one_more_is_cheap() {
    let ns = Ns::new();
    let realm = realm(Family::Ip);
    // What this thread used of a processor: the same whatever else runs on the machine.
    let used = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
    };
    let timed = |table: Table| {
        let wanted = wanted(table);
        let start = used();
        let made = ns.kernel.settle(&realm, &wanted).unwrap().made;
        (made, used() - start)
    };
    let (made, whole) = timed(hub(1000));
    assert_eq!(made, BTreeMap::from([(Kind::Table, 2)]));
    let (made, one) = timed(hub(1001));
    assert_eq!(made, BTreeMap::from([(Kind::Elements, 1)]));
    let (made, first_look) = timed(hub(1001));
    assert_eq!(made, BTreeMap::new());
    let (_, look) = timed(hub(1001));
    println!(
        "1,000 peers, 9,000 elements: whole {whole:?}, one more {one:?}, first look {first_look:?}, look {look:?}"
    );
    assert!(one < whole && one < Duration::from_millis(200), "{whole:?} {one:?}");
}
