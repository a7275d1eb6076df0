//! How a request is shared out to providers that fit.
//!
//! Keeps true: the shares hold the whole request, no provider gets more parts than fit there, and there are no more providers than
//! the wish allows; `Pack` takes as few providers as possible, `Spread` as many regions as possible.

use std::collections::BTreeMap;

use liqo_api::market::Mode;

use crate::{
    outcome::{Code, Fit},
    table::Table,
    wish::Wish,
};

/// The share of one provider: the place of the provider among the providers that fit, and a number of parts of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Place in [`crate::Outcome::fits`].
    pub fit: usize,
    /// Parts of the request.
    pub parts: u32,
}

/// How a request is shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// So; nobody when no provider fits.
    Shares(Vec<Share>),
    /// The providers that fit cannot hold the request together: the field of the wish, one word, what is asked for, and what there is.
    Not(&'static str, Code, String, String),
}

impl Default for Placed {
    fn default() -> Self {
        Self::Shares(Vec::new())
    }
}

/// Shares the request out. `fits` are in order.
pub(crate) fn place(table: &Table, wish: &Wish, fits: &[Fit]) -> Placed {
    if fits.is_empty() {
        return Placed::default();
    }
    match wish.mode {
        Mode::Single => Placed::Shares(vec![Share { fit: 0, parts: wish.parts }]),
        Mode::Pack => pack(wish, fits),
        Mode::Spread => spread(table, wish, fits),
    }
}

/// The places of the roomiest ones, the better one first where two have the same room.
fn roomiest(fits: &[Fit], count: usize) -> Vec<usize> {
    let key = |at: &usize| (std::cmp::Reverse(fits[*at].capacity), *at);
    let mut places: Vec<usize> = (0..fits.len()).filter(|at| fits[*at].capacity > 0).collect();
    if places.len() > count {
        places.select_nth_unstable_by_key(count, key);
        places.truncate(count);
    }
    places.sort_unstable_by_key(key);
    places
}

fn room(fits: &[Fit], places: &[usize]) -> u32 {
    places.iter().map(|at| fits[*at].capacity).fold(0, u32::saturating_add)
}

fn too_little(wish: &Wish, there: u32, providers: usize) -> Placed {
    let required = format!("{} parts at {} providers", wish.parts, wish.max_providers);
    Placed::Not("placement.maxProviders", Code::NotEnough, required, format!("{there} parts at {providers} providers"))
}

/// The fewest providers; among those the best one, then the next best one, as long as the rest can still be held.
fn pack(wish: &Wish, fits: &[Fit]) -> Placed {
    let roomiest = roomiest(fits, wish.max_providers);
    let fewest = (1..=roomiest.len()).find(|count| room(fits, &roomiest[..*count]) >= wish.parts);
    let Some(fewest) = fewest else { return too_little(wish, room(fits, &roomiest), roomiest.len()) };
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < fewest {
        let left = wish.parts.saturating_sub(room(fits, &chosen));
        let after = fewest - chosen.len() - 1;
        let holds = |at: &usize| {
            let others = roomiest.iter().filter(|other| *other != at && !chosen.contains(other)).take(after);
            let others = others.map(|other| fits[*other].capacity).fold(0, u32::saturating_add);
            fits[*at].capacity.saturating_add(others) >= left
        };
        // One of the roomiest always holds.
        let Some(next) = (0..fits.len()).find(|at| !chosen.contains(at) && holds(at)) else { break };
        chosen.push(next);
    }
    chosen.sort_unstable();
    let mut left = wish.parts;
    let shares = chosen.into_iter().map(|fit| {
        let parts = fits[fit].capacity.min(left);
        left -= parts;
        Share { fit, parts }
    });
    Placed::Shares(shares.filter(|share| share.parts > 0).collect())
}

/// Providers of as many regions as possible, the best ones if they have the room, else the roomiest ones.
fn spread(table: &Table, wish: &Wish, fits: &[Fit]) -> Placed {
    let region = |at: usize| table.rows[fits[at].row as usize].region;
    let mut best: BTreeMap<u32, usize> = BTreeMap::new();
    let mut widest: BTreeMap<u32, usize> = BTreeMap::new();
    for at in (0..fits.len()).filter(|at| fits[*at].capacity > 0) {
        best.entry(region(at)).or_insert(at);
        let known = widest.entry(region(at)).or_insert(at);
        if fits[at].capacity > fits[*known].capacity {
            *known = at;
        }
    }
    let regions = best.len();
    if regions < wish.min_regions {
        let (required, actual) = (wish.min_regions.to_string(), regions.to_string());
        return Placed::Not("placement.minRegions", Code::BelowMinimum, required, actual);
    }
    let mut good: Vec<usize> = best.into_values().collect();
    good.sort_unstable();
    let mut wide: Vec<usize> = widest.into_values().collect();
    wide.sort_unstable_by_key(|at| (std::cmp::Reverse(fits[*at].capacity), *at));
    let roomiest = roomiest(fits, 2 * wish.max_providers);
    let mut most = (0, 0);
    for count in (wish.min_regions..=regions.min(wish.max_providers)).rev() {
        for first in [&good[..count], &wide[..count]] {
            let mut chosen = first.to_vec();
            for at in &roomiest {
                if chosen.len() < wish.max_providers && room(fits, &chosen) < wish.parts && !chosen.contains(at) {
                    chosen.push(*at);
                }
            }
            if room(fits, &chosen) >= wish.parts {
                chosen.sort_unstable();
                return Placed::Shares(evenly(wish.parts, fits, &chosen, region));
            }
            most = most.max((room(fits, &chosen), chosen.len()));
        }
    }
    too_little(wish, most.0, most.1)
}

/// Gives each part to the region that has the fewest, there to the provider that has the fewest.
fn evenly(parts: u32, fits: &[Fit], chosen: &[usize], region: impl Fn(usize) -> u32) -> Vec<Share> {
    let mut shares: Vec<Share> = chosen.iter().map(|fit| Share { fit: *fit, parts: 0 }).collect();
    let mut loads: BTreeMap<u32, u32> = BTreeMap::new();
    for _ in 0..parts {
        let load = |share: &&mut Share| (loads.get(&region(share.fit)).copied().unwrap_or(0), share.parts, share.fit);
        let next = shares.iter_mut().filter(|share| share.parts < fits[share.fit].capacity).min_by_key(load);
        let Some(next) = next else { break };
        next.parts += 1;
        *loads.entry(region(next.fit)).or_default() += 1;
    }
    shares.retain(|share| share.parts > 0);
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Asked, Provider,
        outcome::Outcome,
        select,
        select::tests::{list, provider},
    };

    /// Providers by the CPUs that are free there, with their regions; `p0` is the best one.
    fn table(all: &[(i64, &str)]) -> Table {
        let mut table = Table::default();
        for (at, (cpus, region)) in all.iter().enumerate() {
            let cpus = cpus.to_string();
            let carbon = u32::try_from(at).ok();
            let (id, free) = (format!("p{at}"), list(&[("cpu", &cpus)]));
            table.put(Provider { region: (*region).into(), free, carbon, ..provider(&id) });
            table.heard(&id, 0);
        }
        table
    }

    fn wish(mode: Mode, parts: u32, max_providers: usize) -> Wish {
        let weights = liqo_api::market::Weights { carbon: 1, ..Default::default() };
        let (request, part) = (list(&[("cpu", &parts.to_string())]), list(&[("cpu", "1")]));
        Wish { request, part, mode, parts, max_providers, min_regions: 2, max_age: 30, weights, ..Wish::default() }
    }

    fn shares(table: &Table, outcome: &Outcome) -> Result<Vec<(String, u32)>, &'static str> {
        let name = |share: &Share| (outcome.provider(table, &outcome.fits[share.fit]).id.clone(), share.parts);
        match &outcome.placed {
            Placed::Shares(shares) => Ok(shares.iter().map(name).collect()),
            Placed::Not(field, ..) => Err(field),
        }
    }

    type Row<'a> = (Mode, u32, usize, &'a [(i64, &'a str)], Result<&'a [(&'a str, u32)], &'static str>);

    #[test]
    fn a_request_is_shared_out() {
        use Mode::{Pack, Single, Spread};
        let table_of: &[Row<'_>] = &[
            (Single, 4, 1, &[(3, "a"), (4, "a")], Ok(&[("p1", 4)])),
            (Pack, 4, 4, &[(1, "a"), (3, "a"), (4, "a")], Ok(&[("p2", 4)])),
            (Pack, 4, 4, &[(4, "a"), (9, "a")], Ok(&[("p0", 4)])),
            (Pack, 5, 4, &[(1, "a"), (3, "a"), (4, "a")], Ok(&[("p0", 1), ("p2", 4)])),
            (Pack, 8, 4, &[(1, "a"), (3, "a"), (4, "a")], Ok(&[("p0", 1), ("p1", 3), ("p2", 4)])),
            (Pack, 9, 4, &[(1, "a"), (3, "a"), (4, "a")], Err("placement.maxProviders")),
            (Pack, 8, 2, &[(1, "a"), (3, "a"), (4, "a")], Err("placement.maxProviders")),
            (Pack, 4, 2, &[], Ok(&[])),
            (Spread, 4, 4, &[(9, "a"), (9, "a"), (9, "b")], Ok(&[("p0", 2), ("p2", 2)])),
            (Spread, 5, 4, &[(9, "a"), (1, "b"), (9, "c")], Ok(&[("p0", 2), ("p1", 1), ("p2", 2)])),
            (Spread, 8, 4, &[(2, "a"), (2, "a"), (9, "b")], Ok(&[("p0", 2), ("p2", 6)])),
            (Spread, 8, 3, &[(2, "a"), (2, "a"), (4, "b")], Ok(&[("p0", 2), ("p1", 2), ("p2", 4)])),
            (Spread, 9, 3, &[(2, "a"), (2, "a"), (4, "b")], Err("placement.maxProviders")),
            (Spread, 15, 3, &[(9, "a"), (9, "a"), (1, "b"), (1, "c")], Ok(&[("p0", 7), ("p1", 7), ("p2", 1)])),
            (Spread, 4, 4, &[(9, "a"), (9, "a")], Err("placement.minRegions")),
        ];
        for (mode, parts, most, all, wanted) in table_of {
            let (table, mut wish) = (table(all), wish(*mode, *parts, *most));
            if *mode == Single {
                (wish.part, wish.parts) = (wish.request.clone(), *parts);
            }
            let outcome = select(&table, &wish, &Asked::default());
            let wanted = wanted.map(|all| all.iter().map(|(id, parts)| ((*id).to_owned(), *parts)).collect::<Vec<_>>());
            assert_eq!(shares(&table, &outcome), wanted, "{mode:?} {parts} {most} {all:?}");
        }
    }

    proptest! {
        /// Every placement holds the request within the room and the number of providers; `Pack` needs no more than necessary, and
        /// who says that there is no placement is right.
        #[test]
        fn a_placement_holds(
            all in proptest::collection::vec((1_i64..9, 0_usize..4), 1..9), parts in 1_u32..30, most in 1_usize..6,
        ) {
            let regions = ["a", "b", "c", "d"];
            let all: Vec<_> = all.into_iter().map(|(cpus, region)| (cpus, regions[region])).collect();
            let table = table(&all);
            for mode in [Mode::Pack, Mode::Spread] {
                let wish = Wish { min_regions: most.min(2), ..wish(mode, parts, most) };
                let outcome = select(&table, &wish, &Asked::default());
                // Every set of providers that would do.
                let sets = (0_u32..1 << all.len()).filter(|set| set.count_ones() as usize <= most).filter(|set| {
                    let chosen: Vec<_> = (0..all.len()).filter(|at| set & (1 << at) != 0).map(|at| all[at]).collect();
                    let room: i64 = chosen.iter().map(|(cpus, _)| cpus).sum();
                    let regions: std::collections::BTreeSet<_> = chosen.iter().map(|(_, region)| region).collect();
                    room >= i64::from(parts) && (mode == Mode::Pack || regions.len() >= wish.min_regions)
                });
                let fewest = sets.map(u32::count_ones).min();
                let Ok(shares) = shares(&table, &outcome) else {
                    prop_assert_eq!(fewest, None, "{:?} {:?} finds no placement", mode, all);
                    continue;
                };
                prop_assert_eq!(shares.iter().map(|(_, parts)| parts).sum::<u32>(), parts);
                prop_assert!(shares.len() <= most);
                for (id, parts) in &shares {
                    let at: usize = id.trim_start_matches('p').parse().unwrap();
                    prop_assert!(i64::from(*parts) <= all[at].0);
                }
                if mode == Mode::Pack {
                    prop_assert_eq!(shares.len(), fewest.unwrap_or_default() as usize);
                }
            }
        }
    }
}
