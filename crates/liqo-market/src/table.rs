//! All providers, laid out so that a selection reads few bytes of each.
//!
//! Keeps true: the table says the same as the providers it was made of; what a provider invents (names of resources, labels,
//! regions) takes memory in proportion to what the provider says, and gives it back.

use std::collections::HashMap;

use crate::{
    count,
    provider::{Provider, nanos},
};

/// Rows of one page.
pub(crate) const PAGE: usize = 64;
/// No price is known.
pub(crate) const UNPRICED: u64 = u64::MAX;

/// What a provider has of one resource, in small units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) offered: i64,
    pub(crate) free: i64,
    pub(crate) largest: i64,
    /// Billionths for 1 or 1Gi in an hour.
    pub(crate) price: u64,
    pub(crate) currency: u32,
}

impl Room {
    pub(crate) const NOTHING: Self = Self { offered: 0, free: 0, largest: 0, price: UNPRICED, currency: NOTHING };
}

/// The rooms of some rows, and how many of them have something.
#[derive(Clone, Debug)]
struct Page {
    rooms: [Room; PAGE],
    used: u32,
}

/// One resource of all providers: pages where any provider has something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    pages: Vec<Option<Box<Page>>>,
}

impl Column {
    pub(crate) fn page(&self, page: usize) -> Option<&[Room; PAGE]> {
        self.pages.get(page)?.as_deref().map(|page| &page.rooms)
    }

    fn put(&mut self, row: usize, room: Room) {
        let page = row / PAGE;
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new(Page { rooms: [Room::NOTHING; PAGE], used: 0 }));
        page.rooms[row % PAGE] = room;
        page.used += 1;
    }

    fn clear(&mut self, row: usize) {
        let Some(place) = self.pages.get_mut(row / PAGE) else { return };
        let Some(page) = place.as_deref_mut() else { return };
        page.rooms[row % PAGE] = Room::NOTHING;
        page.used -= 1;
        if page.used == 0 {
            *place = None;
        }
        while self.pages.last().is_some_and(Option::is_none) {
            self.pages.pop();
        }
    }
}

/// The number of a text that nobody says.
pub(crate) const NOTHING: u32 = u32::MAX;

/// Texts that several providers say, each with a number.
#[derive(Clone, Debug, Default)]
struct Words {
    /// Number, and how many times the text is said.
    known: HashMap<String, (u32, u32)>,
    spare: Vec<u32>,
    next: u32,
}

impl Words {
    fn take(&mut self, text: &str) -> u32 {
        if let Some((number, used)) = self.known.get_mut(text) {
            *used += 1;
            return *number;
        }
        let number = self.spare.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.known.insert(text.to_owned(), (number, 1));
        number
    }

    fn give(&mut self, text: &str) {
        let Some((number, used)) = self.known.get_mut(text) else { return };
        *used -= 1;
        if *used == 0 {
            self.spare.push(*number);
            self.known.remove(text);
        }
    }

    fn find(&self, text: &str) -> u32 {
        self.known.get(text).map_or(NOTHING, |(number, _)| *number)
    }
}

/// What every selection looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) region: u32,
    pub(crate) carbon: Option<u32>,
    pub(crate) cordoned: bool,
    /// When the provider was heard of last, in seconds of any clock.
    pub(crate) heard: Option<i64>,
    /// A number that follows from the cluster ID.
    pub(crate) mark: u64,
}

/// All providers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    at: HashMap<String, usize>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) rows: Vec<Row>,
    pub(crate) labels: Vec<Box<[u32]>>,
    columns: HashMap<String, Column>,
    words: Words,
}

fn label((key, value): (&String, &String)) -> String {
    format!("l{key}={value}")
}

impl Table {
    /// How many providers there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no provider.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A provider, by cluster ID.
    pub fn get(&self, id: &str) -> Option<&Provider> {
        self.at.get(id).map(|row| &self.providers[*row])
    }

    /// Puts a provider into the table, in the place of what was known of it. When the provider was heard of last stays.
    pub fn put(&mut self, provider: Provider) {
        let known = self.at.get(&provider.id).copied();
        let heard = known.and_then(|row| self.rows[row].heard);
        if let Some(row) = known {
            self.clear(row);
        }
        let new = Row {
            region: self.words.take(&format!("r{}", provider.region)),
            carbon: provider.carbon,
            cordoned: provider.cordoned,
            heard,
            mark: mark(provider.id.as_bytes()),
        };
        let mut labels: Vec<u32> = provider.labels.iter().map(|pair| self.words.take(&label(pair))).collect();
        labels.sort_unstable();
        let row = known.unwrap_or(self.rows.len());
        self.fill(row, &provider);
        if known.is_some() {
            (self.rows[row], self.labels[row], self.providers[row]) = (new, labels.into(), provider);
        } else {
            self.at.insert(provider.id.clone(), row);
            self.rows.push(new);
            self.labels.push(labels.into());
            self.providers.push(provider);
        }
    }

    /// Takes a provider out of the table.
    pub fn remove(&mut self, id: &str) {
        let Some(row) = self.at.remove(id) else { return };
        self.clear(row);
        let last = self.rows.len() - 1;
        if row != last {
            let moved = self.providers[last].clone();
            self.drain(last, &moved);
            self.fill(row, &moved);
            self.at.insert(moved.id, row);
        }
        self.rows.swap_remove(row);
        self.labels.swap_remove(row);
        self.providers.swap_remove(row);
    }

    /// Notes when a provider was heard of, in seconds of any clock that is also that of selections.
    pub fn heard(&mut self, id: &str, at: i64) {
        if let Some(row) = self.at.get(id) {
            self.rows[*row].heard = Some(at);
        }
    }

    pub(crate) fn row(&self, id: &str) -> Option<usize> {
        self.at.get(id).copied()
    }

    pub(crate) fn column(&self, resource: &str) -> Option<&Column> {
        self.columns.get(resource)
    }

    pub(crate) fn region(&self, region: &str) -> u32 {
        self.words.find(&format!("r{region}"))
    }

    pub(crate) fn label(&self, key: &String, value: &String) -> u32 {
        self.words.find(&label((key, value)))
    }

    pub(crate) fn currency(&self, currency: &str) -> u32 {
        self.words.find(&format!("c{currency}"))
    }

    /// Forgets what a row says.
    fn clear(&mut self, row: usize) {
        let known = std::mem::take(&mut self.providers[row]);
        self.words.give(&format!("r{}", known.region));
        known.labels.iter().for_each(|pair| self.words.give(&label(pair)));
        self.drain(row, &known);
    }

    /// Writes what a provider has into the columns.
    fn fill(&mut self, row: usize, provider: &Provider) {
        for name in names(provider) {
            let amount =
                |list: &liqo_core::resources::Resources| list.get(name).map_or(0, |amount| count::there(name, *amount));
            let price = provider.prices.iter().find(|price| price.resource == name);
            let room = Room {
                offered: amount(&provider.offered),
                free: amount(&provider.free),
                largest: amount(&provider.largest),
                price: price.map_or(UNPRICED, |price| nanos(&price.amount).min(UNPRICED - 1)),
                currency: price.map_or(NOTHING, |price| self.words.take(&format!("c{}", price.currency))),
            };
            match self.columns.get_mut(name) {
                Some(column) => column.put(row, room),
                None => self.columns.entry(name.to_owned()).or_default().put(row, room),
            }
        }
    }

    /// Takes what a provider has out of the columns.
    fn drain(&mut self, row: usize, provider: &Provider) {
        for name in names(provider) {
            if let Some(price) = provider.prices.iter().find(|price| price.resource == name) {
                self.words.give(&format!("c{}", price.currency));
            }
            let Some(column) = self.columns.get_mut(name) else { continue };
            column.clear(row);
            if column.pages.is_empty() {
                self.columns.remove(name);
            }
        }
    }
}

/// The resources that a provider says anything about.
fn names(provider: &Provider) -> std::collections::BTreeSet<&str> {
    let lists = [&provider.offered, &provider.free, &provider.largest];
    let priced = provider.prices.iter().map(|price| price.resource.as_str());
    lists.into_iter().flat_map(|list| list.keys().map(String::as_str)).chain(priced).collect()
}

/// A number that follows from a text (FNV-1a).
pub(crate) fn mark(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::select::tests::provider;

    /// Everything that a table says of a provider.
    fn said(table: &Table, id: &str) -> Option<(String, Vec<(String, String)>)> {
        let row = table.row(id)?;
        assert_eq!(table.providers[row].id, id);
        let rooms = table.columns.iter().filter_map(|(name, column)| {
            let room = column.page(row / PAGE)?[row % PAGE];
            let has = room.offered != 0 || room.free != 0 || room.largest != 0 || room.price != UNPRICED;
            has.then(|| (name.clone(), format!("{} {} {} {}", room.offered, room.free, room.largest, room.price)))
        });
        let mut rooms: Vec<_> = rooms.collect();
        rooms.sort();
        let region = table.region(&table.providers[row].region) == table.rows[row].region;
        let labels =
            table.providers[row].labels.iter().all(|(key, value)| table.labels[row].contains(&table.label(key, value)));
        assert!(region && labels && table.labels[row].len() == table.providers[row].labels.len());
        Some((table.providers[row].region.clone(), rooms))
    }

    proptest! {
        /// Whatever comes and goes, a table says the same as one that was made of the providers that are left, and keeps nothing else.
        #[test]
        fn a_table_forgets_what_goes(steps in proptest::collection::vec((0_u32..90, 0_u8..5, any::<bool>()), 0..300)) {
            let mut table = Table::default();
            let mut left = std::collections::BTreeMap::new();
            for (id, odd, goes) in steps {
                let id = format!("p{id}");
                if goes {
                    table.remove(&id);
                    left.remove(&id);
                } else {
                    let mut one = Provider { region: format!("region-{odd}"), ..provider(&id) };
                    one.labels.insert(format!("own-{id}"), odd.to_string());
                    one.offered.insert(format!("example.com/{id}-{odd}"), liqo_core::quantity::Amount::whole(3));
                    table.put(one.clone());
                    left.insert(id, one);
                }
            }
            let mut fresh = Table::default();
            left.values().for_each(|one| fresh.put(one.clone()));
            prop_assert_eq!(table.len(), left.len());
            prop_assert!(left.keys().all(|id| said(&table, id).is_some() && said(&table, id) == said(&fresh, id)));
            prop_assert_eq!(table.columns.len(), fresh.columns.len());
            prop_assert_eq!(table.words.known.len(), fresh.words.known.len());
        }
    }
}
