//! What leads from the table that is there to the one that is wanted, as transactions. Pure.
//!
//! A transaction is atomic for rules: packets see all old or all new ones. It is not for sets that are made or removed
//! in it: the kernel switches the rules first and fills a new set's lookup structure (PIPAPO) or empties a removed map
//! a moment later, so that for microseconds, or milliseconds with many elements, rules look into a set that seems empty
//! (seen on Linux 6.18: an address went out untranslated once in some hundred replacements of a table as a whole). So
//! sets are filled first, rules are exchanged in a transaction of their own, and sets stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::nft::element::{Element, Shape};
use crate::nft::encode;
use crate::nft::seal::{Declaration, Hash, Hooked, Seal};
use crate::nft::{Chain, Family, Set, Table};

/// All or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    AddTable,
    RemoveTable,
    AddSet(String, Set),
    RemoveSet(String),
    AddElements(String, Shape, Vec<Element>),
    RemoveElements(String, Shape, Vec<Element>),
    AddChain(String, Option<Hooked>),
    RemoveChain(String),
    /// Removes all rules of a chain.
    Flush(String),
    /// Adds a rule at the end of a chain.
    AddRule(String, Encoded),
}

/// A rule as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) comment: String,
    pub(super) hash: Hash,
    pub(super) expressions: Vec<u8>,
}

impl Transaction {
    /// Whether nothing but elements of sets changes.
    #[must_use]
    pub fn is_of_elements(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::AddElements(..) | Step::RemoveElements(..)))
    }

    /// Name of the table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    pub(crate) fn removal(family: Family, table: &str) -> Self {
        Self { family, table: table.into(), steps: vec![Step::RemoveTable] }
    }
}

impl Table {
    /// The transactions from the table that was read back to this table; empty when both are equal.
    #[must_use]
    pub fn transactions(&self, seen: Option<&Seal>) -> Vec<Transaction> {
        let steps = match seen {
            None => {
                let mut ground = vec![Step::AddTable];
                self.sets(&mut ground, &Seal::default());
                vec![ground, self.rules(&Seal::default())]
            }
            Some(seen) if self.can_grow_from(seen) => {
                let mut ground = Vec::new();
                self.sets(&mut ground, seen);
                let stale = seen.sets.keys().filter(|name| !self.sets.contains_key(*name));
                vec![ground, self.rules(seen), stale.cloned().map(Step::RemoveSet).collect()]
            }
            Some(_) => {
                let mut all = vec![Step::RemoveTable, Step::AddTable];
                self.sets(&mut all, &Seal::default());
                all.extend(self.rules(&Seal::default()));
                vec![all]
            }
        };
        let transaction = |steps| Transaction { family: self.family, table: self.name.clone(), steps };
        steps.into_iter().filter(|steps| !steps.is_empty()).map(transaction).collect()
    }

    /// Whether all that is there is known and each set is of the wanted type.
    fn can_grow_from(&self, seen: &Seal) -> bool {
        let known = seen.sets.len() + seen.chains.len();
        let same = |(name, set): (&String, &Set)| {
            seen.sets.get(name).is_none_or(|(declaration, _)| *declaration == Declaration::of(set))
        };
        seen.members as usize == known && self.sets.iter().all(same)
    }

    /// Sets with their elements, and the chains that are only jumped to, still empty: verdicts name them.
    fn sets(&self, steps: &mut Vec<Step>, seen: &Seal) {
        for (name, chain) in &self.chains {
            if chain.base.is_none() && !seen.chains.contains_key(name) {
                steps.push(Step::AddChain(name.clone(), None));
            }
        }
        for (name, set) in &self.sets {
            let wanted = set.encoded();
            let empty = BTreeSet::new();
            let there = seen.sets.get(name).map(|(_, elements)| elements);
            if there.is_none() {
                steps.push(Step::AddSet(name.clone(), Set { elements: BTreeMap::new(), ..set.clone() }));
            }
            let there = there.unwrap_or(&empty);
            let less: Vec<_> = there.difference(&wanted).cloned().collect();
            if !less.is_empty() {
                steps.push(Step::RemoveElements(name.clone(), set.shape(), less));
            }
            let more: Vec<_> = wanted.difference(there).cloned().collect();
            if !more.is_empty() {
                steps.push(Step::AddElements(name.clone(), set.shape(), more));
            }
        }
    }

    /// Chains that differ get all their rules anew.
    fn rules(&self, seen: &Seal) -> Vec<Step> {
        let stale: Vec<_> = seen.chains.keys().filter(|name| !self.chains.contains_key(*name)).collect();
        let mut steps: Vec<_> = stale.iter().map(|&name| Step::Flush(name.clone())).collect();
        for (name, chain) in &self.chains {
            let hooked = chain.base.map(Hooked::of);
            let rules = self.encoded(chain);
            match seen.chains.get(name) {
                Some(old) if old.hooked == hooked => {
                    if old.rules == rules.iter().map(|rule| Some(rule.hash)).collect::<Vec<_>>() {
                        continue;
                    }
                    steps.push(Step::Flush(name.clone()));
                }
                Some(_) => {
                    steps.push(Step::Flush(name.clone()));
                    steps.push(Step::RemoveChain(name.clone()));
                    steps.push(Step::AddChain(name.clone(), hooked));
                }
                // Made with the sets.
                None if hooked.is_none() => {}
                None => steps.push(Step::AddChain(name.clone(), hooked)),
            }
            steps.extend(rules.into_iter().map(|rule| Step::AddRule(name.clone(), rule)));
        }
        // Chains that others jump to can go only when those have let go.
        steps.extend(stale.into_iter().map(|name| Step::RemoveChain(name.clone())));
        steps
    }

    fn encoded(&self, chain: &Chain) -> Vec<Encoded> {
        chain.rules.iter().map(|rule| encode::rule(self, rule)).collect()
    }
}
