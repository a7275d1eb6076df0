//! What the kernel gives back of a table.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use crate::nft::element::{Element, Payload, Shape, previous};
use crate::nft::encode::{
    GETCHAIN, GETGEN, GETRULE, GETSET, GETSETELEM, GETTABLE, NEWCHAIN, NEWGEN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE,
    SUBSYSTEM, UDATA_HASH, header,
};
use crate::nft::expression::{NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE};
use crate::nft::seal::{Declaration, Found, Hash, Hooked, Seal, VERDICTS};
use crate::nft::{Family, Table};
use crate::socket::{Refusal, Socket};
use crate::wire::{Message, Writer, attributes, be32_at, find, text};

/// Number of transactions that this namespace has seen: unchanged means that nothing changed, ours or others'.
pub(crate) fn generation(socket: &Socket) -> Result<u32, Refusal> {
    let mut generation = 0;
    socket.request(
        GETGEN,
        0,
        &[0; 4],
        |_| (),
        |message| {
            if message.kind == NEWGEN {
                generation = value(message, 1).and_then(|value| be32_at(value, 0)).unwrap_or(0);
            }
        },
    )?;
    Ok(generation)
}

/// The table as it is; `None`: there is none. An empty chain is seen only if `wanted` names it: the kernel lists chains
/// of all tables or one by one. All is restricted to the table by the kernel.
pub(crate) fn seal(
    socket: &Socket,
    family: Family,
    table: &str,
    wanted: Option<&Table>,
) -> Result<Option<Seal>, Refusal> {
    let Some(members) = read_table(socket, family, table)? else { return Ok(None) };
    let mut seal = Seal { members, ..Seal::default() };
    let mut rules: BTreeMap<String, Vec<Option<Hash>>> = BTreeMap::new();
    for name in wanted.iter().flat_map(|table| table.chains.keys()) {
        rules.insert(name.clone(), Vec::new());
    }
    for (chain, hash) in read_rules(socket, family, table)? {
        rules.entry(chain).or_default().push(hash);
    }
    for (name, rules) in rules {
        if let Some(hooked) = read_chain(socket, family, table, &name)? {
            seal.chains.insert(name, Found { hooked, rules });
        }
    }
    for (name, declaration) in read_sets(socket, family, table)? {
        let elements = match wanted.and_then(|table| table.sets.get(&name)) {
            Some(set) => read_elements(socket, (family, table, &name), set.shape())?,
            None => BTreeSet::new(),
        };
        seal.sets.insert(name, (declaration, elements));
    }
    Ok(Some(seal))
}

/// Whether a notice is about a table of this name.
pub(crate) fn notice(message: Message<'_>, family: Family, table: &str) -> bool {
    let generation = matches!(message.kind, NEWGEN | GETGEN);
    message.kind & 0xff00 == SUBSYSTEM
        && !generation
        && message.body.first() == Some(&header(family)[0])
        && value(message, 1).is_some_and(|name| text(name) == table)
}

/// Absent is no error.
fn absent<T: Default>(answer: Result<T, Refusal>) -> Result<T, Refusal> {
    match answer {
        Err(Refusal { errno: Errno::NOENT, .. }) => Ok(T::default()),
        other => other,
    }
}

/// How many chains and sets the table has.
fn read_table(socket: &Socket, family: Family, table: &str) -> Result<Option<u32>, Refusal> {
    let mut members = None;
    absent(socket.request(
        GETTABLE,
        0,
        &header(family),
        |w| w.put_str(1, table),
        |message| {
            if message.kind == NEWTABLE {
                members = number(message, 3);
            }
        },
    ))?;
    Ok(members)
}

/// Where a chain stands, if it is a base chain; `None`: there is no such chain.
fn read_chain(socket: &Socket, family: Family, table: &str, chain: &str) -> Result<Option<Option<Hooked>>, Refusal> {
    let mut found = None;
    let names = |w: &mut Writer| {
        w.put_str(1, table);
        w.put_str(3, chain);
    };
    absent(socket.request(GETCHAIN, 0, &header(family), names, |message| {
        if message.kind == NEWCHAIN {
            found = Some(value(message, 4).map(|hook| {
                let number = |kind| find(hook, kind).and_then(|value| be32_at(value, 0)).unwrap_or(u32::MAX);
                Hooked {
                    kind: value(message, 7).map(text).unwrap_or_default(),
                    hook: number(1),
                    priority: number(2).cast_signed(),
                    policy: self::number(message, 5).unwrap_or(u32::MAX),
                }
            }));
        }
    }))?;
    Ok(found)
}

/// Names and types of the table's sets.
fn read_sets(socket: &Socket, family: Family, table: &str) -> Result<Vec<(String, Declaration)>, Refusal> {
    absent(socket.list(
        GETSET,
        &header(family),
        |w| w.put_str(1, table),
        |message| {
            if message.kind != NEWSET || text(value(message, 1)?) != table {
                return None;
            }
            let length = |kind| if kind == VERDICTS { 0 } else { number(message, 7).unwrap_or(0) };
            let declaration = Declaration {
                flags: number(message, 3).unwrap_or(0),
                key_type: number(message, 4).unwrap_or(0),
                key_length: number(message, 5).unwrap_or(0),
                data: number(message, 6).map(|kind| (kind, length(kind))),
            };
            Some((text(value(message, 2)?), declaration))
        },
    ))
}

fn read_rules(socket: &Socket, family: Family, table: &str) -> Result<Vec<(String, Option<Hash>)>, Refusal> {
    absent(socket.list(
        GETRULE,
        &header(family),
        |w| w.put_str(1, table),
        |message| {
            if message.kind != NEWRULE || text(value(message, 1)?) != table {
                return None;
            }
            Some((text(value(message, 2)?), value(message, 7).and_then(udata_hash)))
        },
    ))
}

fn read_elements(
    socket: &Socket,
    (family, table, set): (Family, &str, &str),
    shape: Shape,
) -> Result<BTreeSet<Element>, Refusal> {
    let names = |w: &mut Writer| {
        w.put_str(1, table);
        w.put_str(2, set);
    };
    let parts = absent(socket.list(GETSETELEM, &header(family), names, |message| {
        let list = if message.kind == NEWSETELEM { value(message, 3)? } else { return None };
        Some(attributes(list, 0).filter_map(|(_, element)| decode(element)).collect::<Vec<_>>())
    }))?;
    Ok(join(parts.into_iter().flatten().collect(), shape))
}

/// An element as listed: in a tree the end of a range is one of its own, without data.
struct Listed {
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    end: bool,
    data: Payload,
}

fn decode(element: &[u8]) -> Option<Listed> {
    let bytes = |kind| find(find(element, kind)?, NFTA_DATA_VALUE).map(<[u8]>::to_vec);
    let data = match find(element, 2) {
        None => Payload::Nothing,
        Some(data) => match find(data, NFTA_DATA_VERDICT) {
            Some(verdict) => Payload::Verdict(
                be32_at(find(verdict, NFTA_VERDICT_CODE)?, 0)?.cast_signed(),
                find(verdict, NFTA_VERDICT_CHAIN).map(text),
            ),
            None => Payload::Value(find(data, NFTA_DATA_VALUE)?.to_vec()),
        },
    };
    let flags = find(element, 3).and_then(|flags| be32_at(flags, 0)).unwrap_or(0);
    Some(Listed { low: bytes(1)?, high: bytes(10), end: flags & 1 != 0, data })
}

/// Puts beginnings and ends of ranges together.
fn join(mut listed: Vec<Listed>, shape: Shape) -> BTreeSet<Element> {
    if shape != Shape::Tree {
        let whole =
            |it: Listed| Element { high: it.high.unwrap_or_else(|| it.low.clone()), low: it.low, data: it.data };
        return listed.into_iter().map(whole).collect();
    }
    // At the same key one range ends before the next begins.
    listed.sort_by(|a, b| (&a.low, !a.end).cmp(&(&b.low, !b.end)));
    let mut elements = BTreeSet::new();
    let mut listed = listed.into_iter().peekable();
    while let Some(start) = listed.next() {
        if start.end {
            continue;
        }
        // Without an end a range goes on to the last key.
        let end = listed.next_if(|next| next.end).and_then(|end| previous(&end.low));
        let high = end.unwrap_or_else(|| vec![0xff; start.low.len()]);
        elements.insert(Element { low: start.low, high, data: start.data });
    }
    elements
}

/// Our hash in user data.
fn udata_hash(mut udata: &[u8]) -> Option<Hash> {
    while let [kind, length, rest @ ..] = udata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == UDATA_HASH {
            return value.try_into().ok();
        }
        udata = &rest[value.len()..];
    }
    None
}

/// The first attribute of this number.
fn value(message: Message<'_>, kind: u16) -> Option<&[u8]> {
    attributes(message.body, 4).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in network order.
fn number(message: Message<'_>, kind: u16) -> Option<u32> {
    value(message, kind).and_then(|value| be32_at(value, 0))
}
