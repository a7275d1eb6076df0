//! Telling "the table is as we wrote it" from what the kernel gives back.
//!
//! The kernel's listing of a rule is not what was sent: counters move, defaults appear. So each rule carries a hash of
//! itself in its user data, the table one of its structure; who edits a rule, even by one flag, makes a new rule whose
//! user data is not ours. Elements come back byte for byte and are compared as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::nft::element::{Element, Elements, SetChange};
use crate::nft::{Table, encode};

/// A hash of 128 bits.
pub(crate) type Hash = [u8; 16];

/// What can be read back of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    pub(crate) structure: Structure,
    /// By set. Shared: the kernel keeps the last one read.
    pub(crate) elements: Arc<BTreeMap<String, BTreeSet<Element>>>,
}

impl Seal {
    /// Whether what was looked at is all that this table names.
    pub(crate) fn covers(&self, table: &Table) -> bool {
        self.elements.len() == table.sets.len() && table.sets.keys().all(|set| self.elements.contains_key(set))
    }
}

/// All of a table but the elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Structure {
    /// The table's own hash; `None`: not ours.
    pub(crate) hash: Option<Hash>,
    /// How many chains and sets there are.
    pub(crate) members: u32,
    /// Hashes of the rules by chain; `None`: not ours.
    pub(crate) rules: BTreeMap<String, Vec<Option<Hash>>>,
    /// Base chains: what they do with what is not decided.
    pub(crate) drops: BTreeMap<String, bool>,
}

/// How a table differs from the one that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// In elements only.
    Elements(Elements),
    /// In more: it is replaced.
    Structure,
}

impl Table {
    /// What reading this table back must give.
    #[must_use]
    pub fn seal(&self) -> Seal {
        Seal {
            structure: self.structure(),
            elements: Arc::new(self.sets.iter().map(|(name, set)| (name.clone(), set.encoded())).collect()),
        }
    }

    /// How what was read back differs from this table.
    #[must_use]
    pub fn compare(&self, seen: Option<&Seal>) -> Difference {
        let Some(seen) = seen.filter(|seen| seen.structure == self.structure()) else {
            return Difference::Structure;
        };
        let mut sets = BTreeMap::new();
        for (name, set) in &self.sets {
            let wanted = set.encoded();
            let Some(seen) = seen.elements.get(name) else { return Difference::Structure };
            let remove: Vec<_> = seen.difference(&wanted).cloned().collect();
            let add: Vec<_> = wanted.difference(seen).cloned().collect();
            if !(remove.is_empty() && add.is_empty()) {
                sets.insert(name.clone(), SetChange { shape: set.shape(), remove, add });
            }
        }
        if sets.is_empty() {
            return Difference::None;
        }
        Difference::Elements(Elements { family: self.family, table: self.name.clone(), sets })
    }

    fn structure(&self) -> Structure {
        let rules = |(name, chain): (&String, &crate::nft::Chain)| {
            (name.clone(), chain.rules.iter().map(|rule| Some(encode::rule_hash(self, rule))).collect())
        };
        let base = |(name, chain): (&String, &crate::nft::Chain)| Some((name.clone(), chain.base?.drop));
        Structure {
            hash: Some(encode::structure_hash(self)),
            members: (self.sets.len() + self.chains.len()) as u32,
            rules: self.chains.iter().filter(|(_, chain)| !chain.rules.is_empty()).map(rules).collect(),
            drops: self.chains.iter().filter_map(base).collect(),
        }
    }
}
