//! The demand of pods that were admitted a moment ago and that the watch has not shown yet.
//!
//! Keeps true: a review is a claim, and so is a reservation that follows from a review. A reservation delays other pods
//! of its peer, for [`LASTS`] at most, and never refuses one by itself: by then the watch has shown the object, or nobody
//! has stored the object. A request is compared with the reservations made before its arrival only, so that no flood of
//! reviews delays a request for longer. The memory is bounded for each peer.

use std::{collections::HashMap, time::Duration};

use liqo_core::resources::{self, Resources};
use tokio::time::Instant;

/// Life of a reservation. The API server stores an object within milliseconds after the last webhook has answered.
const LASTS: Duration = Duration::from_secs(2);
/// Reservations of one peer; an API server processes no more writes at a time by default. A pod beyond is admitted without one.
const MOST: usize = 256;

/// The position of a request in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival(u64);

/// All reservations, by the UID of the object: no two objects share a UID.
#[derive(Default)]
pub(super) struct Reserved {
    arrivals: u64,
    all: HashMap<String, Reservation>,
}

struct Reservation {
    origin: String,
    demand: Resources,
    made: Arrival,
    until: Instant,
}

/// The reservations that a request is compared with.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Earlier {
    /// The sum of their demands.
    pub demand: Resources,
    /// When the first of them ends; `None`: there is none.
    pub ends: Option<Instant>,
}

impl Reserved {
    /// The position of a request that arrives now.
    pub(super) fn arrive(&mut self) -> Arrival {
        self.arrivals += 1;
        Arrival(self.arrivals)
    }

    /// The reservations for pods of `origin` that were made before `arrival`, without the reservation of the object `uid`.
    pub(super) fn earlier(&mut self, origin: &str, uid: &str, arrival: Arrival, now: Instant) -> Earlier {
        self.all.retain(|_, one| one.until > now);
        let counts = |(of, one): &(&String, &Reservation)| one.origin == origin && *of != uid && one.made < arrival;
        let mut earlier = Earlier::default();
        for (_, one) in self.all.iter().filter(counts) {
            resources::add(&mut earlier.demand, &one.demand);
            earlier.ends = Some(earlier.ends.map_or(one.until, |ends| ends.min(one.until)));
        }
        earlier
    }

    /// Reserves the demand of the object `uid`.
    pub(super) fn make(&mut self, origin: &str, uid: &str, demand: Resources, now: Instant) {
        if self.all.values().filter(|one| one.origin == origin).count() < MOST {
            let made = self.arrive();
            let one = Reservation { origin: origin.to_owned(), demand, made, until: now + LASTS };
            self.all.insert(uid.to_owned(), one);
        }
    }

    /// The watch shows the object `uid`, or its end; says whether a reservation has ended with that.
    pub(super) fn seen(&mut self, uid: &str) -> bool {
        self.all.remove(uid).is_some()
    }
}

#[cfg(test)]
mod tests {
    use liqo_core::quantity::Amount;

    use super::*;

    fn cpu(count: i64) -> Resources {
        [("cpu".to_owned(), Amount::whole(count))].into()
    }

    #[test]
    fn a_request_is_compared_with_earlier_reservations_of_its_peer() {
        let (mut reserved, now) = (Reserved::default(), Instant::now());
        reserved.make("milan", "a", cpu(1), now);
        reserved.make("turin", "b", cpu(10), now);
        let request = reserved.arrive();
        reserved.make("milan", "c", cpu(100), now);
        let first = Earlier { demand: cpu(1), ends: Some(now + LASTS) };
        assert_eq!(reserved.earlier("milan", "x", request, now), first, "neither turin's, nor the later one");
        assert_eq!(reserved.earlier("milan", "a", request, now), Earlier::default(), "its own does not count");
        let next = reserved.arrive();
        assert_eq!(reserved.earlier("milan", "x", next, now).demand, cpu(101));
        assert!(reserved.seen("c") && !reserved.seen("c"));
        assert_eq!(reserved.earlier("milan", "x", next, now).demand, cpu(1));
    }

    #[test]
    fn a_reservation_whose_object_does_not_come_ends_by_itself() {
        let (mut reserved, now) = (Reserved::default(), Instant::now());
        reserved.make("milan", "a", cpu(1), now);
        let request = reserved.arrive();
        assert_eq!(reserved.earlier("milan", "x", request, now + LASTS), Earlier::default());
        assert!(!reserved.seen("a"), "and is forgotten");
    }

    #[test]
    fn one_peer_has_so_many_reservations_and_takes_none_from_others() {
        let (mut reserved, now) = (Reserved::default(), Instant::now());
        for number in 0..3 * MOST {
            reserved.make("turin", &number.to_string(), cpu(1), now);
        }
        assert_eq!(reserved.all.len(), MOST);
        reserved.make("milan", "a", cpu(1), now);
        let request = reserved.arrive();
        assert_eq!(reserved.earlier("milan", "x", request, now).demand, cpu(1));
    }
}
