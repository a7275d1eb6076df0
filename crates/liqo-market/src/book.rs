//! Which reservations an offer can hold.
//!
//! Keeps true: no promise is made of what is not free at that moment; a promise that holds is kept until its end, even when the offer
//! shrinks; who came first is served first; to book once more changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use liqo_core::{
    quantity::Amount,
    resources::{self, Resources},
};

/// The longest promise, in seconds.
pub const LONGEST: i64 = 24 * 3600;

/// A promise that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// UID of the reservation.
    pub id: String,
    /// What is promised.
    pub resources: Resources,
    /// The end that the reservation asked for when the end was decided, in seconds since 1970.
    pub asked: i64,
    /// Until when the promise holds, in seconds since 1970.
    pub until: i64,
}

/// A reservation that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// UID of the reservation.
    pub id: String,
    /// When the reservation was made, in seconds since 1970.
    pub made: i64,
    /// What is asked for, or why that makes no sense.
    pub resources: Result<Resources, String>,
    /// Until when, in seconds since 1970.
    pub until: i64,
    /// Whether the reservation was granted before, so that an ended promise means that the time is over.
    pub was_granted: bool,
}

/// What becomes of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The resources are held until then.
    Granted(i64),
    /// So much of this resource is asked for, and so much is free.
    NotEnough(String, Amount, Amount),
    /// The reservation makes no sense.
    Invalid(String),
    /// The provider takes no reservations at this moment, and why.
    Closed(String),
    /// The time is over.
    Expired,
}

/// The ledger of a provider after all reservations were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// The promises that hold, by UID.
    pub grants: Vec<Grant>,
    /// What becomes of each reservation, by UID.
    pub verdicts: BTreeMap<String, Verdict>,
}

impl Booked {
    /// Seconds from `now` until the first promise ends.
    pub fn next_end(&self, now: i64) -> Option<u64> {
        self.grants.iter().map(|grant| u64::try_from(grant.until.saturating_sub(now)).unwrap_or(0)).min()
    }
}

/// What of an offer is not promised; negative where the offer has shrunk below what is promised.
pub fn free(offered: &Resources, grants: &[Grant]) -> Resources {
    let mut free = offered.clone();
    grants.iter().for_each(|grant| resources::take(&mut free, &grant.resources));
    free
}

/// Looks at all reservations of a provider: `closed` says why no new one is taken, if so.
pub fn book(offered: &Resources, grants: &[Grant], asks: &[Ask], now: i64, closed: Option<&str>) -> Booked {
    let mut booked = Booked::default();
    let mut order: Vec<&Ask> = asks.iter().collect();
    order.sort_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id)));
    let known: BTreeMap<&str, &Grant> = grants.iter().map(|grant| (grant.id.as_str(), grant)).collect();
    // Grants that hold come first: the resources of a grant that is kept are not free for later reservations.
    for ask in &order {
        let Some(grant) = known.get(ask.id.as_str()) else { continue };
        if grant.until <= now {
            booked.verdicts.insert(ask.id.clone(), Verdict::Expired);
            continue;
        }
        let mut kept = (*grant).clone();
        if ask.until != grant.asked {
            (kept.asked, kept.until) = (ask.until, ask.until.min(now.saturating_add(LONGEST)));
        }
        booked.verdicts.insert(ask.id.clone(), verdict(&kept, now));
        booked.grants.extend((kept.until > now).then_some(kept));
    }
    let mut left = free(offered, &booked.grants);
    let mut seen: BTreeSet<&str> = known.keys().copied().collect();
    for ask in order {
        if !seen.insert(&ask.id) {
            continue;
        }
        let verdict = match wanted(ask, &left, now, closed) {
            Err(verdict) => verdict,
            Ok(resources) => {
                let until = ask.until.min(now.saturating_add(LONGEST));
                resources::take(&mut left, resources);
                let resources = resources.clone();
                booked.grants.push(Grant { id: ask.id.clone(), resources, asked: ask.until, until });
                Verdict::Granted(until)
            }
        };
        booked.verdicts.insert(ask.id.clone(), verdict);
    }
    booked.grants.sort_by(|a, b| a.id.cmp(&b.id));
    booked
}

fn verdict(grant: &Grant, now: i64) -> Verdict {
    if grant.until > now { Verdict::Granted(grant.until) } else { Verdict::Expired }
}

/// What a new reservation would take, or why it does not get that.
fn wanted<'a>(ask: &'a Ask, left: &Resources, now: i64, closed: Option<&str>) -> Result<&'a Resources, Verdict> {
    let resources = ask.resources.as_ref().map_err(|why| Verdict::Invalid(why.clone()))?;
    if ask.until <= now || ask.was_granted {
        return Err(Verdict::Expired);
    }
    if let Some(why) = closed {
        return Err(Verdict::Closed(why.to_owned()));
    }
    let there = |name: &str| left.get(name).copied().unwrap_or_default().at_least_zero();
    match resources.iter().find(|(name, amount)| there(name) < **amount) {
        Some((name, amount)) => Err(Verdict::NotEnough(name.clone(), *amount, there(name))),
        None => Ok(resources),
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
