//! Transactions as messages (`linux/netfilter/nfnetlink.h`, `nf_tables.h`).

use sha2::{Digest as _, Sha256};

use crate::nft::element::{Element, Payload, Shape, next};
use crate::nft::expression::{self, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE};
use crate::nft::seal::{Declaration, Hooked};
use crate::nft::transaction::{Encoded, Step, Transaction};
use crate::nft::{DataType, Family, KeyType, Rule, Set, Table};
use crate::wire::{APPEND, CREATE, Writer};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEWTABLE: u16 = SUBSYSTEM;
pub(super) const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
pub(super) const NEWCHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GETCHAIN: u16 = SUBSYSTEM | 4;
const DELCHAIN: u16 = SUBSYSTEM | 5;
pub(super) const NEWRULE: u16 = SUBSYSTEM | 6;
pub(super) const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;
pub(super) const NEWSET: u16 = SUBSYSTEM | 9;
pub(super) const GETSET: u16 = SUBSYSTEM | 10;
const DELSET: u16 = SUBSYSTEM | 11;
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

/// Writes a transaction. It is all or nothing, and must not be empty.
pub(crate) fn write(w: &mut Writer, transaction: &Transaction) {
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    let of_nftables = [0, 0, high, low];
    w.message(BATCH_BEGIN, 0, &of_nftables, |_| ());
    let mut sets = 0;
    for step in &transaction.steps {
        if matches!(step, Step::AddSet(..)) {
            sets += 1;
        }
        write_step(w, transaction, step, sets);
    }
    // Kernels before 6.10 do not answer the end itself.
    w.acknowledge();
    w.message(BATCH_END, 0, &of_nftables, |_| ());
}

/// `set` numbers the sets of a transaction.
fn write_step(w: &mut Writer, transaction: &Transaction, step: &Step, set: u32) {
    let Transaction { family, table, .. } = transaction;
    let header = header(*family);
    match step {
        Step::AddTable => w.message(NEWTABLE, CREATE, &header, |w| w.put_str(1, table)),
        Step::RemoveTable => w.message(DELTABLE, 0, &header, |w| w.put_str(1, table)),
        Step::AddSet(name, it) => w.message(NEWSET, CREATE, &header, |w| {
            w.put_str(1, table);
            w.put_str(2, name);
            declare_set(w, it, set);
        }),
        Step::RemoveSet(name) => w.message(DELSET, 0, &header, |w| {
            w.put_str(1, table);
            w.put_str(2, name);
        }),
        Step::AddElements(name, shape, elements) => {
            write_elements(w, (NEWSETELEM, CREATE), (*family, table, name), *shape, elements);
        }
        Step::RemoveElements(name, shape, elements) => {
            write_elements(w, (DELSETELEM, 0), (*family, table, name), *shape, elements);
        }
        Step::AddChain(name, hooked) => w.message(NEWCHAIN, CREATE, &header, |w| {
            w.put_str(1, table);
            w.put_str(3, name);
            if let Some(hooked) = hooked {
                hook(w, hooked);
            }
        }),
        Step::RemoveChain(name) => w.message(DELCHAIN, 0, &header, |w| {
            w.put_str(1, table);
            w.put_str(3, name);
        }),
        Step::Flush(chain) => w.message(DELRULE, 0, &header, |w| {
            w.put_str(1, table);
            w.put_str(2, chain);
        }),
        Step::AddRule(chain, rule) => w.message(NEWRULE, CREATE | APPEND, &header, |w| {
            w.put_str(1, table);
            w.put_str(2, chain);
            w.nest(4, |w| w.raw(&rule.expressions));
            w.put(7, &udata(&[(UDATA_COMMENT, &comment(&rule.comment)), (UDATA_HASH, &rule.hash)]));
        }),
    }
}

/// A rule as bytes.
pub(super) fn rule(table: &Table, rule: &Rule) -> Encoded {
    let mut w = Writer::default();
    expression::write(&mut w, table, rule);
    let expressions = w.bytes().to_vec();
    let digest = Sha256::digest([&expressions, rule.comment.as_bytes()].concat());
    Encoded { comment: rule.comment.clone(), hash: std::array::from_fn(|at| digest[at]), expressions }
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

fn declare_set(w: &mut Writer, set: &Set, id: u32) {
    let declaration = Declaration::of(set);
    w.put_be32(3, declaration.flags);
    w.put_be32(4, declaration.key_type);
    w.put_be32(5, declaration.key_length);
    if let Some((kind, length)) = declaration.data {
        w.put_be32(6, kind);
        w.put_be32(7, length);
    }
    if set.keys.len() > 1 {
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

fn hook(w: &mut Writer, hooked: &Hooked) {
    w.nest(4, |w| {
        w.put_be32(1, hooked.hook);
        w.put_be32(2, hooked.priority.cast_unsigned());
    });
    w.put_be32(5, hooked.policy);
    w.put_str(7, &hooked.kind);
}

/// As many messages as it takes.
fn write_elements(
    w: &mut Writer,
    (kind, flags): (u16, u16),
    (family, table, set): (Family, &str, &str),
    shape: Shape,
    elements: &[Element],
) {
    let mut elements = elements.iter().peekable();
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
