//! Transactions: a table as a whole, elements alone, removal (`linux/netfilter/nfnetlink.h`, `nf_tables.h`).

use sha2::{Digest as _, Sha256};

use crate::nft::element::{Element, Elements, Payload, SetChange, Shape, next};
use crate::nft::expression::{self, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE};
use crate::nft::seal::Hash;
use crate::nft::{Base, Chain, ChainKind, DataType, Family, Hook, KeyType, Rule, Set, Table};
use crate::wire::{APPEND, CREATE, Writer};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEWTABLE: u16 = SUBSYSTEM;
pub(super) const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
pub(super) const NEWCHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GETCHAIN: u16 = SUBSYSTEM | 4;
pub(super) const NEWRULE: u16 = SUBSYSTEM | 6;
pub(super) const GETRULE: u16 = SUBSYSTEM | 7;
const NEWSET: u16 = SUBSYSTEM | 9;
pub(super) const NEWSETELEM: u16 = SUBSYSTEM | 12;
pub(super) const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;
pub(super) const NEWGEN: u16 = SUBSYSTEM | 15;
pub(super) const GETGEN: u16 = SUBSYSTEM | 16;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// Bytes of elements in one message; the attribute that holds them has a length of 16 bits.
const ELEMENTS_ROOM: usize = 48 * 1024;
/// Our type in user data, beside those that `nft` reads (it skips what it does not know).
pub(super) const UDATA_HASH: u8 = 0x4c;
const UDATA_COMMENT: u8 = 0;
const UDATA_SET_KEYBYTEORDER: u8 = 0;
const UDATA_SET_DATA_INTERVAL: u8 = 6;
/// Room for a comment in 256 bytes of user data.
const COMMENT_ROOM: usize = 100;

/// Replaces the table, or makes it.
pub(crate) fn replace(w: &mut Writer, table: &Table) {
    batch(w, |w| {
        let header = header(table.family);
        w.message(NEWTABLE, CREATE, &header, |w| w.put_str(1, &table.name));
        w.message(DELTABLE, 0, &header, |w| w.put_str(1, &table.name));
        let hash = structure_hash(table);
        w.message(NEWTABLE, CREATE, &header, |w| {
            w.put_str(1, &table.name);
            w.put(6, &udata(&[(UDATA_HASH, &hash)]));
        });
        structure(w, table, |w, table| {
            for (name, set) in &table.sets {
                let elements = set.encoded();
                send_elements(w, NEWSETELEM, (table.family, &table.name, name), set.shape(), elements.iter());
            }
        });
    });
}

/// Adds and removes elements.
pub(crate) fn change_elements(w: &mut Writer, elements: &Elements) {
    batch(w, |w| {
        for (name, SetChange { shape, remove, add }) in &elements.sets {
            let set = (elements.family, elements.table.as_str(), name.as_str());
            send_elements(w, DELSETELEM, set, *shape, remove.iter());
            send_elements(w, NEWSETELEM, set, *shape, add.iter());
        }
    });
}

/// Removes the table.
pub(crate) fn remove_table(w: &mut Writer, family: Family, name: &str) {
    batch(w, |w| w.message(DELTABLE, 0, &header(family), |w| w.put_str(1, name)));
}

/// `nfgenmsg`.
pub(super) fn header(family: Family) -> [u8; 4] {
    let family = match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Ip6 => 10,
    };
    [family, 0, 0, 0]
}

/// All or nothing; there must be a message.
fn batch(w: &mut Writer, messages: impl FnOnce(&mut Writer)) {
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    let of_nftables = [0, 0, high, low];
    w.message(BATCH_BEGIN, 0, &of_nftables, |_| ());
    messages(w);
    // Kernels before 6.10 do not answer the end itself.
    w.acknowledge();
    w.message(BATCH_END, 0, &of_nftables, |_| ());
}

/// A hash of all that the table is but its elements.
pub(super) fn structure_hash(table: &Table) -> Hash {
    let mut w = Writer::new(1);
    structure(&mut w, table, |_, _| ());
    hash(w.bytes())
}

/// A hash of the rule's expressions.
pub(super) fn rule_hash(table: &Table, rule: &Rule) -> Hash {
    let mut w = Writer::new(1);
    expression::write(&mut w, table, rule);
    hash(&[w.bytes(), rule.comment.as_bytes()].concat())
}

fn hash(bytes: &[u8]) -> Hash {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|at| digest[at])
}

/// Sets, chains, then `elements` (verdicts name chains), then rules (they name sets).
fn structure(w: &mut Writer, table: &Table, elements: impl FnOnce(&mut Writer, &Table)) {
    for (id, (name, set)) in (1..).zip(&table.sets) {
        w.message(NEWSET, CREATE, &header(table.family), |w| declare_set(w, table, name, set, id));
    }
    for (name, chain) in &table.chains {
        w.message(NEWCHAIN, CREATE, &header(table.family), |w| declare_chain(w, table, name, chain));
    }
    elements(w, table);
    for (name, chain) in &table.chains {
        for rule in &chain.rules {
            let hash = rule_hash(table, rule);
            w.message(NEWRULE, CREATE | APPEND, &header(table.family), |w| {
                w.put_str(1, &table.name);
                w.put_str(2, name);
                w.nest(4, |w| expression::write(w, table, rule));
                w.put(7, &udata(&[(UDATA_COMMENT, &comment(&rule.comment)), (UDATA_HASH, &hash)]));
            });
        }
    }
}

fn declare_set(w: &mut Writer, table: &Table, name: &str, set: &Set, id: u32) {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const CONCAT: u32 = 0x80;
    let padded = |key: &KeyType| key.length().next_multiple_of(4);
    let (concat, length) = match set.keys.as_slice() {
        [key] => (0, key.length()),
        keys => (CONCAT, keys.iter().map(padded).sum()),
    };
    w.put_str(1, &table.name);
    w.put_str(2, name);
    let interval = if set.interval { INTERVAL } else { 0 };
    w.put_be32(3, interval | concat | if set.data.is_some() { MAP } else { 0 });
    w.put_be32(4, set.keys.iter().fold(0, |all, key| (all << 6) | key_type(*key)));
    w.put_be32(5, length as u32);
    if let Some(data) = set.data {
        w.put_be32(6, data_type(data));
        w.put_be32(7, data.length() as u32);
    }
    if concat != 0 {
        w.nest(9, |w| {
            w.nest(2, |w| {
                for key in &set.keys {
                    w.nest(1, |w| w.put_be32(1, key.length() as u32));
                }
            });
        });
    }
    w.put_be32(10, id);
    // For readers with `nft`: byte order (1: the machine's, 2: network) and whether data are ranges.
    let order: u32 = if set.keys == [KeyType::Mark] || set.keys == [KeyType::Name] { 1 } else { 2 };
    let ranges = u32::from(matches!(set.data, Some(DataType::Prefix4 | DataType::Prefix6)));
    let order = (UDATA_SET_KEYBYTEORDER, &order.to_ne_bytes()[..]);
    w.put(13, &udata(&[order, (UDATA_SET_DATA_INTERVAL, &ranges.to_ne_bytes())]));
}

/// Numbers by which `nft` knows types.
fn key_type(key: KeyType) -> u32 {
    match key {
        KeyType::Ipv4 => 7,
        KeyType::Ipv6 => 8,
        KeyType::Protocol => 12,
        KeyType::Port => 13,
        KeyType::Mark => 19,
        KeyType::Name => 41,
    }
}

fn data_type(data: DataType) -> u32 {
    match data {
        DataType::Ipv4 | DataType::Prefix4 => 7,
        DataType::Ipv6 | DataType::Prefix6 => 8,
        DataType::Verdict => 0xffff_ff00,
    }
}

fn declare_chain(w: &mut Writer, table: &Table, name: &str, chain: &Chain) {
    w.put_str(1, &table.name);
    w.put_str(3, name);
    if let Some(Base { kind, hook, priority, drop }) = chain.base {
        w.nest(4, |w| {
            w.put_be32(
                1,
                match hook {
                    Hook::Prerouting => 0,
                    Hook::Input => 1,
                    Hook::Forward => 2,
                    Hook::Output => 3,
                    Hook::Postrouting => 4,
                },
            );
            w.put_be32(2, priority.cast_unsigned());
        });
        w.put_be32(5, u32::from(!drop));
        w.put_str(
            7,
            match kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
                ChainKind::Route => "route",
            },
        );
    }
}

fn send_elements<'a>(
    w: &mut Writer,
    kind: u16,
    (family, table, set): (Family, &str, &str),
    shape: Shape,
    elements: impl Iterator<Item = &'a Element>,
) {
    let mut elements = elements.peekable();
    let flags = if kind == NEWSETELEM { CREATE } else { 0 };
    while elements.peek().is_some() {
        w.message(kind, flags, &header(family), |w| {
            w.put_str(1, table);
            w.put_str(2, set);
            w.nest(3, |w| {
                let start = w.bytes().len();
                while w.bytes().len() - start < ELEMENTS_ROOM
                    && let Some(element) = elements.next()
                {
                    write_element(w, shape, element);
                }
            });
        });
    }
}

fn write_element(w: &mut Writer, shape: Shape, element: &Element) {
    const INTERVAL_END: u32 = 1;
    let key = |w: &mut Writer, kind, key: &[u8]| w.nest(kind, |w| w.put(NFTA_DATA_VALUE, key));
    w.nest(1, |w| {
        key(w, 1, &element.low);
        if shape == Shape::Ranges || (shape == Shape::Exact && element.low != element.high) {
            key(w, 10, &element.high);
        }
        match &element.data {
            Payload::Nothing => {}
            Payload::Value(value) => w.nest(2, |w| w.put(NFTA_DATA_VALUE, value)),
            Payload::Verdict(code, chain) => w.nest(2, |w| {
                w.nest(NFTA_DATA_VERDICT, |w| {
                    w.put_be32(NFTA_VERDICT_CODE, code.cast_unsigned());
                    if let Some(chain) = chain {
                        w.put_str(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            }),
        }
    });
    if shape == Shape::Tree
        && let Some(end) = next(&element.high)
    {
        w.nest(1, |w| {
            key(w, 1, &end);
            w.put_be32(3, INTERVAL_END);
        });
    }
}

/// Type, length, value; each of one byte but the value.
fn udata(fields: &[(u8, &[u8])]) -> Vec<u8> {
    fields.iter().flat_map(|(kind, value)| [&[*kind, value.len() as u8], *value].concat()).collect()
}

/// A comment with its final zero, cut to what there is room for.
fn comment(text: &str) -> Vec<u8> {
    let end = (0..=text.len().min(COMMENT_ROOM)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    [&text.as_bytes()[..end], &[0]].concat()
}
