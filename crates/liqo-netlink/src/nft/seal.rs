//! What is read back of a table, and the same of the one that is wanted.
//!
//! Chains, sets and elements come back as they were sent. A rule does not: counters move, defaults appear. So each
//! rule carries a hash of itself in its user data; who edits a rule makes a new one, whose user data is not ours.

use std::collections::{BTreeMap, BTreeSet};

use crate::nft::element::Element;
use crate::nft::{Base, ChainKind, DataType, Hook, KeyType, Set, Table};

/// A hash of 128 bits.
pub(crate) type Hash = [u8; 16];

/// What was read back of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// How many chains and sets there are, ours and others.
    pub(super) members: u32,
    /// Chains that were asked for or hold rules.
    pub(super) chains: BTreeMap<String, Found>,
    /// All sets; elements of those that were asked for.
    pub(super) sets: BTreeMap<String, (Declaration, BTreeSet<Element>)>,
}

impl Seal {
    /// Whether all that this table names was looked at and found.
    pub(crate) fn covers(&self, table: &Table) -> bool {
        table.sets.keys().all(|set| self.sets.contains_key(set))
            && table.chains.keys().all(|chain| self.chains.contains_key(chain))
    }
}

/// A chain as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) hooked: Option<Hooked>,
    /// Hashes of the rules in order; `None`: not ours.
    pub(super) rules: Vec<Option<Hash>>,
}

/// Where a base chain stands, in the kernel's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hooked {
    pub(super) kind: String,
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) policy: u32,
}

/// The type of a set, in the kernel's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) flags: u32,
    /// Six bits a field, by the numbers of `nft`.
    pub(super) key_type: u32,
    pub(super) key_length: u32,
    /// Type and length; verdicts have no length of their own.
    pub(super) data: Option<(u32, u32)>,
}

/// Flags of a set (`NFT_SET_*`).
const INTERVAL: u32 = 0x04;
const MAP: u32 = 0x08;
const CONCAT: u32 = 0x80;
/// The number of verdicts (`NFT_DATA_VERDICT`).
pub(super) const VERDICTS: u32 = 0xffff_ff00;

impl Declaration {
    pub(super) fn of(set: &Set) -> Self {
        let mut flags = if set.interval { INTERVAL } else { 0 };
        flags |= if set.data.is_some() { MAP } else { 0 };
        let padded = |key: &KeyType| key.length().next_multiple_of(4);
        let key_length = match set.keys.as_slice() {
            [key] => key.length(),
            keys => {
                flags |= CONCAT;
                keys.iter().map(padded).sum()
            }
        };
        let key_type = set.keys.iter().fold(0, |all, key| (all << 6) | number(*key));
        let data = set.data.map(|data| match data {
            DataType::Ipv4 | DataType::Prefix4 => (number(KeyType::Ipv4), data.length() as u32),
            DataType::Ipv6 | DataType::Prefix6 => (number(KeyType::Ipv6), data.length() as u32),
            DataType::Verdict => (VERDICTS, 0),
        });
        Self { flags, key_type, key_length: key_length as u32, data }
    }
}

/// Numbers by which `nft` knows types.
fn number(key: KeyType) -> u32 {
    match key {
        KeyType::Ipv4 => 7,
        KeyType::Ipv6 => 8,
        KeyType::Protocol => 12,
        KeyType::Port => 13,
        KeyType::Mark => 19,
        KeyType::Name => 41,
    }
}

impl Hooked {
    pub(super) fn of(base: Base) -> Self {
        let kind = match base.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let hook = match base.hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        Self { kind: kind.into(), hook, priority: base.priority, policy: u32::from(!base.drop) }
    }
}
