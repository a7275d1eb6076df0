//! Tables as written by us beside tables as written by `nft`. Needs root and `nft`.

#[path = "bed/bed.rs"]
mod bed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bed::Ns;
use ipnet::IpNet;
use liqo_netlink::nft::{
    Base, Chain, ChainKind, DataType, Datum, Family, Hook, Item, Key, KeyType, Rule, Set, Statement, TCP_SYN, Table,
    Target, Verdict, ct, is, not, outside, rule, within,
};
use liqo_netlink::{Kind, Realm, State};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn item(text: &str) -> Item {
    let net = text.parse::<IpNet>().or(text.parse::<std::net::IpAddr>().map(IpNet::from));
    match (net, text.parse::<u32>()) {
        (Ok(net), _) => Item::Net(net),
        (_, Ok(number)) => Item::Number(number),
        _ => Item::Name(text.into()),
    }
}

fn set(keys: &[KeyType], interval: bool, elements: &[&[&str]]) -> Set {
    let elements = elements.iter().map(|key| (key.iter().map(|it| item(it)).collect(), None)).collect();
    Set { keys: keys.to_vec(), interval, data: None, elements }
}

fn map(keys: &[KeyType], interval: bool, data: DataType, elements: &[(&[&str], Datum)]) -> Set {
    let elements =
        elements.iter().map(|(key, datum)| (key.iter().map(|it| item(it)).collect(), Some(datum.clone()))).collect();
    Set { keys: keys.to_vec(), interval, data: Some(data), elements }
}

fn base(kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { base: Some(Base { kind, hook, priority, drop: false }), rules }
}

fn end(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

/// Every statement and every kind of set there is.
fn everything(family: Family, name: &str) -> Table {
    let prefix = |text: &str| Datum::Prefix(net(text));
    let address = |text: &str| Datum::Address(text.parse().unwrap());
    let jump = |chain: &str| Datum::Verdict(Verdict::Jump(chain.into()));
    let sets = [
        (
            "peers",
            set(&[KeyType::Ipv4], true, &[&["10.71.0.0/16"], &["10.72.0.0/16"], &["255.0.0.0/8"], &["0.0.0.0/8"]]),
        ),
        ("hosts", set(&[KeyType::Ipv4], false, &[&["192.0.2.1"], &["192.0.2.2"]])),
        (
            "pairs",
            set(
                &[KeyType::Ipv4, KeyType::Ipv4],
                true,
                &[&["10.71.0.0/16", "10.80.0.0/16"], &["10.72.0.0/16", "10.81.0.5"]],
            ),
        ),
        ("ports", set(&[KeyType::Protocol, KeyType::Port], false, &[&["6", "80"], &["17", "53"]])),
        ("links", set(&[KeyType::Name], false, &[&["eth0"], &["liqo.tunnel"]])),
        ("marks", set(&[KeyType::Mark], false, &[&["7"]])),
        ("six", set(&[KeyType::Ipv6], true, &[&["fd00:71::/32"]])),
        (
            "images",
            map(
                &[KeyType::Ipv4],
                true,
                DataType::Prefix4,
                &[(&["10.71.0.0/16"], prefix("10.61.0.0/16")), (&["10.72.0.0/16"], prefix("10.62.0.0/16"))],
            ),
        ),
        (
            "exports",
            map(
                &[KeyType::Ipv4, KeyType::Ipv4],
                true,
                DataType::Ipv4,
                &[(&["10.71.0.0/16", "10.97.0.5"], address("10.244.1.9"))],
            ),
        ),
        ("plain", map(&[KeyType::Ipv4], true, DataType::Ipv4, &[(&["10.71.0.0/16"], address("10.61.0.0"))])),
        (
            "turns",
            map(
                &[KeyType::Ipv4],
                true,
                DataType::Verdict,
                &[(&["10.71.0.0/16"], jump("side")), (&["10.72.0.0/16"], Datum::Verdict(Verdict::Drop))],
            ),
        ),
    ];
    let pre = vec![
        rule(
            "a",
            [is(Key::Iif, "liqo.tunnel"), Statement::Dnat(Target::Map(vec![Key::Saddr, Key::Daddr], "exports".into()))],
        ),
        rule(
            "b",
            [
                within(&[Key::Saddr], "peers"),
                is(Key::Daddr, net("10.61.0.0/16")),
                Statement::Counter,
                Statement::Dnat(Target::Prefix(net("10.244.0.0/16"))),
            ],
        ),
        rule(
            "c",
            [
                is(Key::Saddr, net("10.9.9.0/24")),
                is(Key::Protocol, 17),
                Statement::Dnat(Target::Address("10.1.2.3".parse().unwrap())),
            ],
        ),
    ];
    let post = vec![
        rule(
            "d",
            [
                is(Key::Saddr, net("10.244.0.0/17")),
                within(&[Key::Daddr], "peers"),
                Statement::Snat(Target::Own(Key::Saddr)),
            ],
        ),
        rule(
            "e",
            [not(Key::Saddr, net("10.244.0.0/16")), Statement::Snat(Target::Map(vec![Key::Daddr], "plain".into()))],
        ),
        rule("f", [Statement::Snat(Target::Map(vec![Key::Daddr], "images".into()))]),
        rule("g", [is(Key::Oif, "eth0"), outside(&[Key::Daddr], "peers"), Statement::Masquerade]),
    ];
    let forward = vec![
        rule("clamp the segment size", [Statement::AnyBit(Key::TcpFlags, TCP_SYN), Statement::ClampMss]),
        rule("h", [Statement::AnyBit(Key::CtState, ct::ESTABLISHED | ct::RELATED), end(Verdict::Accept)]),
        rule("i", [Statement::AnyBit(Key::CtStatus, ct::DNAT), end(Verdict::Return)]),
        rule("j", [within(&[Key::Saddr, Key::Daddr], "pairs"), end(Verdict::Drop)]),
        rule(
            "k",
            [within(&[Key::Protocol, Key::Dport], "ports"), Statement::SetMark(9), end(Verdict::Goto("side".into()))],
        ),
        rule(
            "l",
            [
                within(&[Key::Iif], "links"),
                is(Key::Mark, 7),
                within(&[Key::Mark], "marks"),
                end(Verdict::Jump("side".into())),
            ],
        ),
        rule("m", [Statement::VerdictMap(vec![Key::Saddr], "turns".into())]),
        rule(
            "n",
            [
                is(Key::Daddr, net("192.0.2.7/32")),
                outside(&[Key::Saddr], "hosts"),
                is(Key::CtMark, 5),
                is(Key::DaddrType, 2),
                end(Verdict::Drop),
            ],
        ),
    ];
    let six =
        vec![rule("o", [within(&[Key::Saddr6], "six"), not(Key::Daddr6, net("fd00:72::/33")), end(Verdict::Drop)])];
    let mut chains = BTreeMap::from([
        ("pre".into(), base(ChainKind::Nat, Hook::Prerouting, -101, pre)),
        ("post".into(), base(ChainKind::Nat, Hook::Postrouting, 99, post)),
        (
            "forward".into(),
            Chain {
                base: Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: -150, drop: true }),
                rules: forward,
            },
        ),
        ("side".into(), Chain { base: None, rules: vec![rule("side", [Statement::Counter])] }),
    ]);
    let mut sets = BTreeMap::from(sets.map(|(name, set)| (name.to_owned(), set)));
    if family == Family::Inet {
        chains.insert("late".into(), base(ChainKind::Filter, Hook::Output, 10, six));
    } else {
        sets.remove("six");
    }
    Table { family, name: name.into(), sets, chains }
}

/// The same in words.
fn words(inet: bool, name: &str) -> String {
    let family = if inet { "inet" } else { "ip" };
    let nat = if inet { "ip " } else { "" };
    let six = "set six { type ipv6_addr; flags interval; elements = { fd00:71::/32 } }
        chain late { type filter hook output priority 10; ip6 saddr @six ip6 daddr != fd00:72::/33 drop comment \"o\"; }";
    let six = if inet { six } else { "" };
    format!(
        "table {family} {name} {{
        set peers {{ type ipv4_addr; flags interval; elements = {{ 0.0.0.0/8, 10.71.0.0/16, 10.72.0.0/16, 255.0.0.0/8 }} }}
        set hosts {{ type ipv4_addr; elements = {{ 192.0.2.1, 192.0.2.2 }} }}
        set pairs {{ type ipv4_addr . ipv4_addr; flags interval; elements = {{ 10.71.0.0/16 . 10.80.0.0/16, 10.72.0.0/16 . 10.81.0.5 }} }}
        set ports {{ type inet_proto . inet_service; elements = {{ tcp . 80, udp . 53 }} }}
        set links {{ type ifname; elements = {{ \"eth0\", \"liqo.tunnel\" }} }}
        set marks {{ type mark; elements = {{ 7 }} }}
        map images {{ type ipv4_addr : interval ipv4_addr; flags interval; elements = {{ 10.71.0.0/16 : 10.61.0.0/16, 10.72.0.0/16 : 10.62.0.0/16 }} }}
        map exports {{ type ipv4_addr . ipv4_addr : ipv4_addr; flags interval; elements = {{ 10.71.0.0/16 . 10.97.0.5 : 10.244.1.9 }} }}
        map plain {{ type ipv4_addr : ipv4_addr; flags interval; elements = {{ 10.71.0.0/16 : 10.61.0.0 }} }}
        map turns {{ type ipv4_addr : verdict; flags interval; elements = {{ 10.71.0.0/16 : jump side, 10.72.0.0/16 : drop }} }}
        chain side {{ counter comment \"side\"; }}
        chain pre {{ type nat hook prerouting priority -101;
            iifname \"liqo.tunnel\" dnat {nat}to ip saddr . ip daddr map @exports comment \"a\"
            ip saddr @peers ip daddr 10.61.0.0/16 counter dnat ip prefix to 10.244.0.0/16 comment \"b\"
            ip saddr 10.9.9.0/24 meta l4proto 17 dnat {nat}to 10.1.2.3 comment \"c\"; }}
        chain post {{ type nat hook postrouting priority 99;
            ip saddr 10.244.0.0/17 ip daddr @peers snat {nat}to ip saddr comment \"d\"
            ip saddr != 10.244.0.0/16 snat {nat}to ip daddr map @plain comment \"e\"
            snat ip prefix to ip daddr map @images comment \"f\"
            oifname \"eth0\" ip daddr != @peers masquerade comment \"g\"; }}
        chain forward {{ type filter hook forward priority -150; policy drop;
            tcp flags syn tcp option maxseg size set rt mtu comment \"clamp the segment size\"
            ct state established,related accept comment \"h\"
            ct status dnat return comment \"i\"
            ip saddr . ip daddr @pairs drop comment \"j\"
            meta l4proto . th dport @ports meta mark set 9 goto side comment \"k\"
            iifname @links meta mark 7 meta mark @marks jump side comment \"l\"
            ip saddr vmap @turns comment \"m\"
            ip daddr 192.0.2.7 ip saddr != @hosts ct mark 5 fib daddr type local drop comment \"n\"; }}
        {six}
        }}"
    )
}

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
            (None, _) if line.is_empty() || line == "element 00000000  : 1 [end]" => {}
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
    let settle = || ns.kernel.settle(&realm, &wanted).unwrap().made;
    ns.nft("table inet other { chain c { counter; }; }");
    assert_eq!(settle(), BTreeMap::from([(Kind::Table, 1)]));
    assert_eq!(settle(), BTreeMap::new());
    // Somebody else works on tables of his own.
    ns.nft("table inet other { chain d { accept; }; }");
    assert_eq!(settle(), BTreeMap::new());
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
        assert_eq!(settle(), BTreeMap::from([(Kind::Table, 1)]), "{break_it}");
        assert_eq!(settle(), BTreeMap::new(), "{break_it}");
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
        assert_eq!(settle(), BTreeMap::from([(Kind::Elements, 1)]), "{break_it}");
        assert_eq!(settle(), BTreeMap::new(), "{break_it}");
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
    assert!(error.to_string().starts_with("replacing nftables table liqo (at message "), "{error}");
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
    let timed = |table: Table| {
        let wanted = wanted(table);
        let start = Instant::now();
        let made = ns.kernel.settle(&realm, &wanted).unwrap().made;
        (made, start.elapsed(), wanted)
    };
    let (made, whole, _) = timed(hub(1000));
    assert_eq!(made, BTreeMap::from([(Kind::Table, 1)]));
    let (made, one, wanted) = timed(hub(1001));
    assert_eq!(made, BTreeMap::from([(Kind::Elements, 1)]));
    let start = Instant::now();
    assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::new());
    let first_look = start.elapsed();
    let start = Instant::now();
    assert_eq!(ns.kernel.settle(&realm, &wanted).unwrap().made, BTreeMap::new());
    let look = start.elapsed();
    println!(
        "1,000 peers, 9,000 elements: whole {whole:?}, one more {one:?}, first look {first_look:?}, look {look:?}"
    );
    assert!(whole < Duration::from_secs(2) && one < Duration::from_millis(300), "{whole:?} {one:?}");
}
