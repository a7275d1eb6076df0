//! Which providers fit a wish, in order, and why the others do not.
//!
//! Keeps true: every provider is in the outcome once, as one that fits or with every reason there is; a value that is not known never
//! makes a provider better.

use liqo_api::market::Missing;

use crate::{
    count,
    outcome::{Asked, Code, Criterion, Fit, ORDERED, Outcome, Parts, Reason},
    placement,
    table::{Column, NOTHING, PAGE, Room, Row, Table, UNPRICED, mark},
    uptime,
    wish::Wish,
};

/// What a full part of the score is.
pub(crate) const FULL: u32 = 1000;
/// The price at which the part of the price is 0, in billionths, unless the wish has a limit.
const USUAL_PRICE: u64 = 10_000_000_000;
/// The milliseconds at which the part of the latency is 0, unless the wish has a limit.
const USUAL_LATENCY: u32 = 200;
/// The uptime at which the part of the uptime is 0, in millionths, unless the wish has a limit.
const USUAL_UPTIME: u32 = 900_000;
/// The grams at which the part of the carbon is 0, unless the wish has a limit.
const USUAL_CARBON: u32 = 800;

/// Decides about every provider.
pub fn select(table: &Table, wish: &Wish, asked: &Asked) -> Outcome {
    let judge = Judge::new(table, wish, asked);
    let mut outcome = Outcome::default();
    let mut rooms = vec![None; judge.needs.len()];
    for first in (0..table.rows.len()).step_by(PAGE) {
        for (room, need) in rooms.iter_mut().zip(&judge.needs) {
            *room = need.column.and_then(|column| column.page(first / PAGE));
        }
        for row in first..table.rows.len().min(first + PAGE) {
            let before = outcome.reasons.len();
            let rooms = |need: usize| rooms[need].map_or(Room::NOTHING, |page: &[Room; PAGE]| page[row % PAGE]);
            if let Some(fit) = judge.judge(row, rooms, &mut outcome.reasons) {
                outcome.fits.push(fit);
            }
            outcome.rejected += usize::from(outcome.reasons.len() > before);
        }
    }
    order(&mut outcome.fits);
    outcome.placed = placement::place(table, wish, &outcome.fits);
    outcome
}

/// Brings the best ones into order and to the front.
fn order(fits: &mut [Fit]) {
    if fits.len() > ORDERED {
        fits.select_nth_unstable_by_key(ORDERED, Fit::rank);
    }
    let ordered = fits.len().min(ORDERED);
    fits[..ordered].sort_unstable_by_key(Fit::rank);
}

/// An amount of one resource that must be there.
struct Need<'a> {
    criterion: Criterion,
    column: Option<&'a Column>,
    /// What must be there.
    wanted: i64,
    /// What is asked for in sum; nothing unless the criterion is the request.
    request: i64,
    /// What the current provider holds for the customer already.
    held: i64,
    is_bytes: bool,
}

/// A wish as the table counts.
struct Judge<'a> {
    table: &'a Table,
    wish: &'a Wish,
    asked: &'a Asked,
    needs: Vec<Need<'a>>,
    current: usize,
    latency: Vec<(u32, u32)>,
    exclude: Vec<u32>,
    regions: Vec<u32>,
    not_regions: Vec<u32>,
    labels: Vec<u32>,
    currency: u32,
    /// Price, latency, uptime, carbon, headroom.
    weights: [u32; 5],
    lot: u64,
}

impl<'a> Judge<'a> {
    fn new(table: &'a Table, wish: &'a Wish, asked: &'a Asked) -> Self {
        let rows = |ids: &mut dyn Iterator<Item = &String>| -> Vec<u32> {
            let mut rows: Vec<u32> = ids.filter_map(|id| u32::try_from(table.row(id)?).ok()).collect();
            rows.sort_unstable();
            rows
        };
        let mut latency: Vec<(u32, u32)> = asked
            .latency
            .iter()
            .filter_map(|(id, millis)| Some((u32::try_from(table.row(id)?).ok()?, *millis)))
            .collect();
        latency.sort_unstable();
        let weights = wish.weights;
        let mut weights = [weights.price, weights.latency, weights.uptime, weights.carbon, weights.headroom];
        if weights == [0; 5] {
            weights[4] = FULL;
        }
        Self {
            table,
            wish,
            asked,
            needs: needs(table, wish, asked),
            current: asked.current.as_ref().and_then(|(id, _)| table.row(id)).unwrap_or(usize::MAX),
            latency,
            exclude: rows(&mut wish.exclude.iter()),
            regions: wish.regions.iter().map(|region| table.region(region)).collect(),
            not_regions: wish.not_regions.iter().map(|region| table.region(region)).collect(),
            labels: wish.labels.iter().map(|(key, value)| table.label(key, value)).collect(),
            currency: wish.max_price.as_ref().map_or(NOTHING, |(_, currency)| table.currency(currency)),
            weights,
            lot: mark(asked.consumer.as_bytes()),
        }
    }

    fn judge(&self, row: usize, rooms: impl Fn(usize) -> Room, reasons: &mut Vec<Reason>) -> Option<Fit> {
        let number = u32::try_from(row).unwrap_or(u32::MAX);
        let before = reasons.len();
        let mut no = |criterion, code| reasons.push(Reason { row: number, score: 0, criterion, code });
        let known = &self.table.rows[row];
        self.standing(number, known, &mut no);
        for (at, need) in self.needs.iter().enumerate() {
            let room = rooms(at);
            let there = match need.criterion {
                Criterion::LargestPod(_) => room.largest,
                _ if row == self.current => room.free.saturating_add(need.held),
                _ => room.free,
            };
            if there < need.wanted || need.wanted == count::MOST {
                no(need.criterion, Code::NotEnough);
            }
        }
        let (price, cost) = self.price(&rooms, &mut no);
        let latency = self.latency.binary_search_by_key(&number, |(row, _)| *row).ok().map(|at| self.latency[at].1);
        let near = self.below(latency, self.wish.max_latency, (Criterion::MaxLatency, 1, USUAL_LATENCY), &mut no);
        let uptime = self.uptime(row, &mut no);
        let clean = self.below(known.carbon, self.wish.max_carbon, (Criterion::MaxCarbon, 3, USUAL_CARBON), &mut no);
        if reasons.len() > before {
            return None;
        }
        let headroom = self.left_over(row, &rooms);
        let parts = [price, near, uptime, clean, Some(headroom)];
        let score = score(parts, self.weights);
        if score < self.wish.min_score {
            reasons.push(Reason { row: number, score, criterion: Criterion::MinScore, code: Code::BelowMinimum });
            return None;
        }
        let part = |at: usize| parts[at].filter(|_| self.weights[at] > 0).and_then(|part| u16::try_from(part).ok());
        let parts = Parts { price: part(0), latency: part(1), uptime: part(2), carbon: part(3), headroom: part(4) };
        let capacity = self.capacity(row, &rooms);
        let lot = (known.mark ^ self.lot).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some(Fit { row: number, score, parts, cost, capacity, headroom, lot })
    }

    /// What speaks against a provider whatever is asked for.
    fn standing(&self, number: u32, known: &Row, no: &mut impl FnMut(Criterion, Code)) {
        if !self.exclude.is_empty() && self.exclude.binary_search(&number).is_ok() {
            no(Criterion::Exclude, Code::Excluded);
        }
        // Nothing new is promised there; what is there stays.
        if known.cordoned && number as usize != self.current {
            no(Criterion::Cordoned, Code::Cordoned);
        }
        if known.heard.is_none_or(|heard| self.asked.clock.saturating_sub(heard) > self.wish.max_age) {
            no(Criterion::MaxAge, Code::Stale);
        }
        if !self.regions.is_empty() && !self.regions.contains(&known.region) {
            no(Criterion::Regions, Code::NotInRegion);
        }
        if self.not_regions.contains(&known.region) {
            no(Criterion::NotRegions, Code::NotInRegion);
        }
        if !self.labels.is_empty() {
            let has = &self.table.labels[number as usize];
            for (at, label) in (0_u8..).zip(&self.labels) {
                if has.binary_search(label).is_err() {
                    no(Criterion::Label(at), Code::LabelMismatch);
                }
            }
        }
    }

    /// What happens to a value that is not known: the part of the score.
    fn unknown(
        &self,
        is_limit: bool,
        (criterion, weight): (Criterion, usize),
        no: &mut impl FnMut(Criterion, Code),
    ) -> Option<u32> {
        let (is_left, part) = match self.wish.missing {
            Missing::Reject => (is_limit || self.weights[weight] > 0, None),
            Missing::Worst => (is_limit, Some(0)),
            Missing::Ignore => (false, None),
        };
        if is_left {
            no(criterion, Code::Missing);
        }
        part
    }

    /// The part of a value that is better the smaller it is.
    fn below(
        &self,
        value: Option<u32>,
        most: Option<u32>,
        (criterion, weight, usual): (Criterion, usize, u32),
        no: &mut impl FnMut(Criterion, Code),
    ) -> Option<u32> {
        let Some(value) = value else { return self.unknown(most.is_some(), (criterion, weight), no) };
        if most.is_some_and(|most| value > most) {
            no(criterion, Code::AboveMaximum);
        }
        Some(down(u64::from(value), u64::from(most.unwrap_or(usual))))
    }

    /// The part of the price, and what an hour costs.
    fn price(
        &self,
        rooms: &impl Fn(usize) -> Room,
        no: &mut impl FnMut(Criterion, Code),
    ) -> (Option<u32>, Option<u64>) {
        let (mut sum, mut currency, mut is_known, mut is_mixed) = (0_u64, NOTHING, true, false);
        for (at, need) in self.needs.iter().enumerate().filter(|(_, need)| need.request > 0) {
            let room = rooms(at);
            is_known &= room.price != UNPRICED;
            is_mixed |= currency != NOTHING && room.currency != NOTHING && currency != room.currency;
            currency = if room.currency == NOTHING { currency } else { room.currency };
            sum = sum.saturating_add(count::cost(need.is_bytes, need.request, room.price));
        }
        let limit = self.wish.max_price.as_ref().map(|(most, _)| *most);
        if !is_known {
            return (self.unknown(limit.is_some(), (Criterion::MaxPrice, 0), no), None);
        }
        if is_mixed {
            if limit.is_some() || self.weights[0] > 0 {
                no(Criterion::MaxPrice, Code::CurrencyMismatch);
            }
            return (None, None);
        }
        match limit {
            Some(_) if currency != self.currency => no(Criterion::MaxPrice, Code::CurrencyMismatch),
            Some(most) if sum > most => no(Criterion::MaxPrice, Code::AboveMaximum),
            _ => {}
        }
        (Some(down(sum, limit.unwrap_or(USUAL_PRICE))), Some(sum))
    }

    /// The part of the uptime.
    fn uptime(&self, row: usize, no: &mut impl FnMut(Criterion, Code)) -> Option<u32> {
        let least = self.wish.min_uptime;
        if least.is_none() && self.weights[2] == 0 {
            return None;
        }
        let ratio = self.table.providers[row].record.ratio(self.wish.window, self.asked.now);
        let Some(ratio) = ratio else { return self.unknown(least.is_some(), (Criterion::MinUptime, 2), no) };
        if least.is_some_and(|least| ratio < least) {
            no(Criterion::MinUptime, Code::BelowMinimum);
        }
        let worst = least.unwrap_or(USUAL_UPTIME).min(uptime::WHOLE - 1);
        Some(down(u64::from(uptime::WHOLE - ratio), u64::from(uptime::WHOLE - worst)))
    }

    /// What is asked for, with the room that is there.
    fn requested<'s>(
        &'s self,
        row: usize,
        rooms: &'s impl Fn(usize) -> Room,
    ) -> impl Iterator<Item = (&'s Need<'a>, i64, Room)> {
        let requested = self.needs.iter().enumerate().filter(|(_, need)| need.request > 0);
        requested.map(move |(at, need)| {
            let room = rooms(at);
            let held = if row == self.current { need.held } else { 0 };
            (need, room.free.saturating_add(held), room)
        })
    }

    /// The share of the offer that is left once one part is held, of the scarcest resource.
    fn left_over(&self, row: usize, rooms: &impl Fn(usize) -> Room) -> u32 {
        let share = |(need, free, room): (&Need<'_>, i64, Room)| {
            let (left, offered) = (free.saturating_sub(need.wanted).max(0), room.offered.max(0));
            let gone = offered.saturating_sub(left).max(0);
            down(gone.unsigned_abs(), offered.unsigned_abs())
        };
        self.requested(row, rooms).map(share).min().unwrap_or_default()
    }

    /// How many parts of the request fit.
    fn capacity(&self, row: usize, rooms: &impl Fn(usize) -> Room) -> u32 {
        if self.wish.parts <= 1 {
            return 1;
        }
        let parts = self.requested(row, rooms).map(|(need, free, _)| free / need.wanted.max(1)).min();
        u32::try_from(parts.unwrap_or(1)).unwrap_or(u32::MAX).min(self.wish.parts)
    }
}

/// Everything that must be there.
fn needs<'a>(table: &'a Table, wish: &Wish, asked: &Asked) -> Vec<Need<'a>> {
    let held = |name: &str| {
        let held = asked.current.as_ref().and_then(|(_, held)| held.get(name));
        held.map_or(0, |held| count::there(name, *held))
    };
    let need = |name: &str, criterion, wanted, request| Need {
        criterion,
        column: table.column(name),
        wanted: count::asked(name, wanted),
        request,
        held: held(name),
        is_bytes: count::is_bytes(name),
    };
    let request = (0_u8..).zip(&wish.part).map(|(at, (name, amount))| {
        let sum = wish.request.get(name).map_or(0, |amount| count::asked(name, *amount));
        need(name, Criterion::Request(at), *amount, sum)
    });
    let free = (0_u8..).zip(&wish.min_free);
    let free = free.map(|(at, (name, amount))| need(name, Criterion::MinFree(at), *amount, 0));
    let pod = (0_u8..).zip(&wish.largest_pod);
    let pod = pod.map(|(at, (name, amount))| need(name, Criterion::LargestPod(at), *amount, 0));
    request.chain(free).chain(pod).collect()
}

/// 1000 at nothing, 0 at the bound and above.
fn down(value: u64, bound: u64) -> u32 {
    // Values that are too large to be multiplied are halved together with the bound until they are not.
    let halvings = (64 - bound.leading_zeros()).saturating_sub(53);
    let (left, bound) = (bound.saturating_sub(value) >> halvings, (bound >> halvings).max(1));
    u32::try_from(left * u64::from(FULL) / bound).unwrap_or(FULL).min(FULL)
}

/// The weighted mean of the parts that count.
fn score(parts: [Option<u32>; 5], weights: [u32; 5]) -> u32 {
    let known = parts.iter().zip(weights).filter_map(|(part, weight)| part.map(|part| (part * weight, weight)));
    let (sum, all) = known.fold((0, 0), |(sum, all), (part, weight)| (sum + part, all + weight));
    sum / all.max(1)
}

#[cfg(test)]
#[path = "select_tests.rs"]
pub(crate) mod tests;
