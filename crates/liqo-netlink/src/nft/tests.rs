use std::collections::BTreeSet;

use crate::nft::element::{Element, Payload, Shape};
use crate::nft::seal::{Declaration, Found, Hooked, Seal};
use crate::nft::transaction::Step;
use crate::nft::{
    Base, Chain, ChainKind, Family, Hook, Item, Key, KeyType, Rule, Set, Statement, Table, encode, rule, within,
};

fn set(prefixes: &[&str]) -> Set {
    let elements = prefixes.iter().map(|text| (vec![Item::Net(text.parse().unwrap())], None)).collect();
    Set { keys: vec![KeyType::Ipv4], interval: true, data: None, elements }
}

fn base(rules: Vec<Rule>) -> Chain {
    Chain { base: Some(Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 99, drop: false }), rules }
}

fn table() -> Table {
    let post = vec![rule("one", [within(&[Key::Daddr], "peers"), Statement::Masquerade])];
    Table {
        family: Family::Ip,
        name: "liqo".into(),
        sets: [("peers".to_owned(), set(&["10.1.0.0/16"]))].into(),
        chains: [("post".to_owned(), base(post)), ("side".to_owned(), Chain::default())].into(),
    }
}

/// What reading this very table back gives.
fn seal(table: &Table) -> Seal {
    let chain = |chain: &Chain| Found {
        hooked: chain.base.map(Hooked::of),
        rules: chain.rules.iter().map(|rule| Some(encode::rule(table, rule).hash)).collect(),
    };
    Seal {
        members: (table.sets.len() + table.chains.len()) as u32,
        chains: table.chains.iter().map(|(name, it)| (name.clone(), chain(it))).collect(),
        sets: table.sets.iter().map(|(name, it)| (name.clone(), (Declaration::of(it), it.encoded()))).collect(),
    }
}

/// The steps of each transaction, by name.
fn steps(wanted: &Table, seen: Option<&Seal>) -> Vec<Vec<&'static str>> {
    let name = |step: &Step| match step {
        Step::AddTable => "add table",
        Step::RemoveTable => "remove table",
        Step::AddSet(..) => "add set",
        Step::RemoveSet(_) => "remove set",
        Step::AddElements(..) => "add elements",
        Step::RemoveElements(..) => "remove elements",
        Step::AddChain(..) => "add chain",
        Step::RemoveChain(_) => "remove chain",
        Step::Flush(_) => "flush",
        Step::AddRule(..) => "add rule",
    };
    wanted.transactions(seen).iter().map(|it| it.steps.iter().map(name).collect()).collect()
}

#[test]
fn sets_are_full_before_rules_look_into_them() {
    let fresh = steps(&table(), None);
    assert_eq!(fresh, [vec!["add table", "add chain", "add set", "add elements"], vec!["add chain", "add rule"]]);
    assert!(steps(&table(), Some(&seal(&table()))).is_empty());
}

#[test]
fn elements_rules_and_chains_change_alone() {
    let there = seal(&table());
    let mut more = table();
    more.sets.insert("peers".into(), set(&["10.2.0.0/16", "10.1.0.0/16"]));
    assert_eq!(steps(&more, Some(&there)), [["add elements"]]);
    assert!(more.transactions(Some(&there))[0].is_of_elements());
    assert_eq!(steps(&table(), Some(&seal(&more))), [["remove elements"]]);

    let mut rules = table();
    rules.chains.get_mut("post").unwrap().rules.push(rule("two", [Statement::Counter]));
    assert_eq!(steps(&rules, Some(&there)), [["flush", "add rule", "add rule"]]);

    let mut policy = table();
    policy.chains.get_mut("post").unwrap().base.as_mut().unwrap().drop = true;
    assert_eq!(steps(&policy, Some(&there)), [["flush", "remove chain", "add chain", "add rule"]]);
}

#[test]
fn what_is_no_longer_wanted_goes_after_the_rules_that_use_it() {
    let mut old = table();
    old.sets.insert("old".into(), set(&["10.9.0.0/16"]));
    old.chains.insert("old".into(), base(vec![rule("old", [within(&[Key::Saddr], "old")])]));
    assert_eq!(steps(&table(), Some(&seal(&old))), [vec!["flush", "remove chain"], vec!["remove set"]]);
}

#[test]
fn what_cannot_be_known_is_replaced_as_a_whole() {
    let whole = vec!["remove table", "add table", "add chain", "add set", "add elements", "add chain", "add rule"];
    let mut foreign = seal(&table());
    foreign.members += 1;
    assert_eq!(steps(&table(), Some(&foreign)), std::slice::from_ref(&whole));
    let mut other = table();
    other.sets.get_mut("peers").unwrap().interval = false;
    assert_eq!(steps(&table(), Some(&seal(&other))), [whole]);
}

#[test]
fn a_rule_of_somebody_else_is_never_taken_for_ours() {
    let mut there = seal(&table());
    there.chains.get_mut("post").unwrap().rules[0] = None;
    assert_eq!(steps(&table(), Some(&there)), [["flush", "add rule"]]);
}

#[test]
fn a_prefix_is_its_first_and_last_address() {
    let element = |low: [u8; 4], high: [u8; 4]| Element { low: low.into(), high: high.into(), data: Payload::Nothing };
    let (all, last) = (set(&["0.0.0.0/0"]), set(&["255.255.255.255/32", "10.1.2.3/9"]));
    assert_eq!(all.shape(), Shape::Tree);
    assert_eq!(all.encoded(), BTreeSet::from([element([0; 4], [255; 4])]));
    assert_eq!(
        last.encoded(),
        BTreeSet::from([element([255; 4], [255; 4]), element([10, 0, 0, 0], [10, 127, 255, 255])])
    );
}
