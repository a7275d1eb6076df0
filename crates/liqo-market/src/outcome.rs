//! What a selection is about, and what becomes of it.

use std::{cmp::Reverse, collections::BTreeMap};

use liqo_core::resources::Resources;

use crate::placement::Placed;

/// So many providers that fit are brought into order.
pub const ORDERED: usize = 1000;

/// One word for programs: why a provider is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The wish excludes the provider.
    Excluded,
    /// The provider takes no reservations.
    Cordoned,
    /// The last heartbeat is too long ago, or there was none.
    Stale,
    /// The region is not allowed.
    NotInRegion,
    /// A label is missing or has another value.
    LabelMismatch,
    /// Too little is free, or the largest pod does not fit.
    NotEnough,
    /// A value is above its limit.
    AboveMaximum,
    /// A value is below its limit.
    BelowMinimum,
    /// A value is not known.
    Missing,
    /// Prices are in another currency.
    CurrencyMismatch,
}

/// What of a wish a provider does not meet. Numbers count the labels and resources of the wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// `exclude`.
    Exclude,
    /// The provider takes no reservations.
    Cordoned,
    /// `maxAgeSeconds`.
    MaxAge,
    /// `regions`.
    Regions,
    /// `notRegions`.
    NotRegions,
    /// One of `labels`.
    Label(u8),
    /// One resource of `request`, or of a part of it.
    Request(u8),
    /// One resource of `minFree`.
    MinFree(u8),
    /// One resource of `largestPod`.
    LargestPod(u8),
    /// `maxPrice`.
    MaxPrice,
    /// `maxLatencyMillis`.
    MaxLatency,
    /// `minUptime`.
    MinUptime,
    /// `maxCarbonGrams`.
    MaxCarbon,
    /// `minScore`.
    MinScore,
}

/// Why a provider is left out. [`crate::explain`] says it in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    pub(crate) row: u32,
    /// The score, where that is too small.
    pub(crate) score: u32,
    /// What is not met.
    pub criterion: Criterion,
    /// One word.
    pub code: Code,
}

/// The parts of a score, each in thousandths; `None` does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// How cheap the provider is.
    pub price: Option<u16>,
    /// How near the provider is.
    pub latency: Option<u16>,
    /// How steady the provider is.
    pub uptime: Option<u16>,
    /// How clean the provider is.
    pub carbon: Option<u16>,
    /// How much is left there.
    pub headroom: Option<u16>,
}

/// A provider that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    pub(crate) row: u32,
    /// The score, in thousandths.
    pub score: u32,
    /// The parts of the score.
    pub parts: Parts,
    /// What an hour of the request costs, in billionths of its currency, where that is known.
    pub cost: Option<u64>,
    /// How many parts of the request the provider can hold.
    pub(crate) capacity: u32,
    pub(crate) headroom: u32,
    pub(crate) lot: u64,
}

impl Fit {
    pub(crate) fn rank(&self) -> (Reverse<u32>, Reverse<u32>, u64, u64, u32) {
        (Reverse(self.score), Reverse(self.headroom), self.cost.unwrap_or(u64::MAX), self.lot, self.row)
    }
}

/// What a selection is about besides the wish.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// What the customer measured: milliseconds by cluster ID.
    pub latency: BTreeMap<String, u32>,
    /// The customer: who is equally good is taken in another order by each customer.
    pub consumer: String,
    /// A provider that holds resources for this customer already, and what: they count as free there.
    pub current: Option<(String, Resources)>,
    /// Now, in seconds of the clock of [`Table::heard`].
    pub clock: i64,
    /// Now, in seconds since 1970.
    pub now: i64,
}

/// What becomes of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Providers that fit: the first [`ORDERED`] are the best, the best one first; the others are in any order.
    pub fits: Vec<Fit>,
    /// Why the others do not, those of one provider together.
    pub reasons: Vec<Reason>,
    /// How many do not.
    pub rejected: usize,
    /// How the request is shared out.
    pub placed: Placed,
}
