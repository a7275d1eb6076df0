//! A table with everything, as a value and in words.

use std::collections::BTreeMap;

use ipnet::IpNet;
use liqo_netlink::nft::{
    Base, Chain, ChainKind, DataType, Datum, Family, Hook, Item, Key, KeyType, Rule, Set, Statement, TCP_SYN, Table,
    Target, Verdict, ct, is, not, outside, rule, within,
};

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn item(text: &str) -> Item {
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

fn sets() -> BTreeMap<String, Set> {
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
    sets.map(|(name, set)| (name.to_owned(), set)).into()
}

fn prerouting() -> Vec<Rule> {
    vec![
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
    ]
}

fn postrouting() -> Vec<Rule> {
    vec![
        rule(
            "d",
            [
                is(Key::Saddr, net("10.244.0.0/17")),
                within(&[Key::Daddr], "peers"),
                outside(&[Key::OriginalDaddr], "hosts"),
                Statement::Snat(Target::Own(Key::Saddr)),
            ],
        ),
        rule(
            "e",
            [not(Key::Saddr, net("10.244.0.0/16")), Statement::Snat(Target::Map(vec![Key::Daddr], "plain".into()))],
        ),
        rule("f", [Statement::Snat(Target::Map(vec![Key::Daddr], "images".into()))]),
        rule("g", [is(Key::Oif, "eth0"), outside(&[Key::Daddr], "peers"), Statement::Masquerade]),
    ]
}

fn forward() -> Vec<Rule> {
    vec![
        rule("clamp the segment size", [Statement::AnyBit(Key::TcpFlags, TCP_SYN), Statement::ClampMss]),
        rule("h", [Statement::AnyBit(Key::CtState, ct::ESTABLISHED | ct::RELATED), end(Verdict::Accept)]),
        rule("i", [Statement::AnyBit(Key::CtStatus, ct::DNAT), end(Verdict::Return)]),
        rule("q", [is(Key::CtDirection, ct::REPLY), outside(&[Key::Saddr, Key::Daddr], "pairs"), end(Verdict::Drop)]),
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
    ]
}

/// Every statement and every kind of set there is.
pub(crate) fn everything(family: Family, name: &str) -> Table {
    let six =
        vec![rule("o", [within(&[Key::Saddr6], "six"), not(Key::Daddr6, net("fd00:72::/33")), end(Verdict::Drop)])];
    let mut chains = BTreeMap::from([
        ("pre".into(), base(ChainKind::Nat, Hook::Prerouting, -101, prerouting())),
        ("post".into(), base(ChainKind::Nat, Hook::Postrouting, 99, postrouting())),
        (
            "forward".into(),
            Chain {
                base: Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: -150, drop: true }),
                rules: forward(),
            },
        ),
        (
            "raw".into(),
            base(
                ChainKind::Filter,
                Hook::Prerouting,
                -300,
                vec![rule("p", [is(Key::Protocol, 17), Statement::NoTrack])],
            ),
        ),
        ("side".into(), Chain { base: None, rules: vec![rule("side", [Statement::Counter])] }),
    ]);
    let mut sets = sets();
    if family == Family::Inet {
        chains.insert("late".into(), base(ChainKind::Filter, Hook::Output, 10, six));
    } else {
        sets.remove("six");
    }
    Table { family, name: name.into(), sets, chains }
}

/// The same in words.
pub(crate) fn words(inet: bool, name: &str) -> String {
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
        chain raw {{ type filter hook prerouting priority -300; meta l4proto 17 notrack comment \"p\"; }}
        chain pre {{ type nat hook prerouting priority -101;
            iifname \"liqo.tunnel\" dnat {nat}to ip saddr . ip daddr map @exports comment \"a\"
            ip saddr @peers ip daddr 10.61.0.0/16 counter dnat ip prefix to 10.244.0.0/16 comment \"b\"
            ip saddr 10.9.9.0/24 meta l4proto 17 dnat {nat}to 10.1.2.3 comment \"c\"; }}
        chain post {{ type nat hook postrouting priority 99;
            ip saddr 10.244.0.0/17 ip daddr @peers ct original ip daddr != @hosts snat {nat}to ip saddr comment \"d\"
            ip saddr != 10.244.0.0/16 snat {nat}to ip daddr map @plain comment \"e\"
            snat ip prefix to ip daddr map @images comment \"f\"
            oifname \"eth0\" ip daddr != @peers masquerade comment \"g\"; }}
        chain forward {{ type filter hook forward priority -150; policy drop;
            tcp flags syn tcp option maxseg size set rt mtu comment \"clamp the segment size\"
            ct state established,related accept comment \"h\"
            ct status dnat return comment \"i\"
            ct direction reply ip saddr . ip daddr != @pairs drop comment \"q\"
            ip saddr . ip daddr @pairs drop comment \"j\"
            meta l4proto . th dport @ports meta mark set 9 goto side comment \"k\"
            iifname @links meta mark 7 meta mark @marks jump side comment \"l\"
            ip saddr vmap @turns comment \"m\"
            ip daddr 192.0.2.7 ip saddr != @hosts ct mark 5 fib daddr type local drop comment \"n\"; }}
        {six}
        }}"
    )
}
