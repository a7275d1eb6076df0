//! Elements of sets as the kernel holds them: bytes.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::nft::{DataType, Datum, Item, KeyType, Set, Verdict};
use crate::rt::octets;

/// An element: a key, or all keys from one to another, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Element {
    /// First key: its fields one after the other, each padded to four bytes.
    pub(super) low: Vec<u8>,
    /// Last key; the same in a set without intervals.
    pub(super) high: Vec<u8>,
    /// What it holds.
    pub(super) data: Payload,
}

/// What an element holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Payload {
    /// In a set: nothing.
    Nothing,
    /// Bytes.
    Value(Vec<u8>),
    /// A verdict: code and chain.
    Verdict(i32, Option<String>),
}

/// How a set keeps its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Single keys in a hash.
    Exact,
    /// One field: the first key, and apart from it the one after the last, in a red-black tree.
    Tree,
    /// Several fields: first and last key in one (PIPAPO).
    Ranges,
}

impl Set {
    pub(crate) fn shape(&self) -> Shape {
        match (self.interval, self.keys.len()) {
            (false, _) => Shape::Exact,
            (true, 1) => Shape::Tree,
            (true, _) => Shape::Ranges,
        }
    }

    /// All elements as bytes. An item of another type than its field makes a key of another length, which the kernel
    /// refuses.
    pub(crate) fn encoded(&self) -> BTreeSet<Element> {
        let length = self.keys.iter().map(|key| key.length().next_multiple_of(4)).sum();
        let one = |(key, datum): (&Vec<Item>, &Option<Datum>)| {
            let (mut low, mut high) = (Vec::with_capacity(length), Vec::with_capacity(length));
            for (kind, item) in self.keys.iter().zip(key) {
                bounds(&mut low, &mut high, *kind, item);
                if self.keys.len() > 1 {
                    low.resize(low.len().next_multiple_of(4), 0);
                    high.resize(high.len().next_multiple_of(4), 0);
                }
            }
            Element { low, high, data: datum.as_ref().map_or(Payload::Nothing, payload) }
        };
        self.elements.iter().map(one).collect()
    }
}

impl KeyType {
    /// Length in bytes.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 | Self::Name => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

impl DataType {
    /// Length in bytes; a verdict has none.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Prefix4 => 8,
            Self::Ipv6 => 16,
            Self::Prefix6 => 32,
            Self::Verdict => 0,
        }
    }
}

/// Code of a verdict and the chain it names (`linux/netfilter/nf_tables.h`).
pub(crate) fn code(verdict: &Verdict) -> (i32, Option<&str>) {
    match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    }
}

/// A link's name as registers hold it.
pub(crate) fn name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// A number as registers hold it: ports in network order, marks in the machine's.
pub(crate) fn number(length: usize, number: u32) -> Vec<u8> {
    match length {
        1 => vec![number as u8],
        2 => (number as u16).to_be_bytes().to_vec(),
        _ => number.to_ne_bytes().to_vec(),
    }
}

/// First and last address of a prefix.
pub(crate) fn ends(net: IpNet) -> (Vec<u8>, Vec<u8>) {
    (octets(net.network()), octets(net.broadcast()))
}

/// Appends the first and the last value that an item stands for. A hub has ten thousand of them: no allocations.
fn bounds(low: &mut Vec<u8>, high: &mut Vec<u8>, kind: KeyType, item: &Item) {
    match item {
        Item::Net(IpNet::V4(net)) => {
            low.extend(net.network().octets());
            high.extend(net.broadcast().octets());
        }
        Item::Net(IpNet::V6(net)) => {
            low.extend(net.network().octets());
            high.extend(net.broadcast().octets());
        }
        Item::Name(text) => {
            low.extend(name(text));
            high.extend(name(text));
        }
        Item::Number(value) => {
            low.extend(number(kind.length(), *value));
            high.extend(number(kind.length(), *value));
        }
    }
}

fn payload(datum: &Datum) -> Payload {
    match datum {
        Datum::Address(address) => Payload::Value(octets(*address)),
        Datum::Prefix(net) => {
            let (low, high) = ends(*net);
            Payload::Value([low, high].concat())
        }
        Datum::Verdict(verdict) => {
            let (code, chain) = code(verdict);
            Payload::Verdict(code, chain.map(str::to_owned))
        }
    }
}

/// The key after this one; `None`: it is the last one there is.
pub(crate) fn next(key: &[u8]) -> Option<Vec<u8>> {
    step(key, 0xff, |byte| byte.wrapping_add(1))
}

/// The key before this one; `None`: it is the first one there is.
pub(crate) fn previous(key: &[u8]) -> Option<Vec<u8>> {
    step(key, 0, |byte| byte.wrapping_sub(1))
}

/// Steps a big-endian number; `carry` is the byte at which the next higher one is stepped too.
fn step(key: &[u8], carry: u8, one: impl Fn(u8) -> u8) -> Option<Vec<u8>> {
    if key.iter().all(|byte| *byte == carry) {
        return None;
    }
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let over = *byte == carry;
        *byte = one(*byte);
        if !over {
            break;
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::{next, previous};

    #[test]
    fn keys_are_stepped_as_big_endian_numbers() {
        assert_eq!(next(&[10, 0, 255, 255]), Some(vec![10, 1, 0, 0]));
        assert_eq!(previous(&[10, 1, 0, 0]), Some(vec![10, 0, 255, 255]));
        assert_eq!((next(&[255; 4]), previous(&[0; 4])), (None, None));
    }
}
