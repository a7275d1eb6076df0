//! The demand of pods that were admitted a moment ago and that the watch has not shown yet.
//!
//! Keeps true: a review is a claim, and so is a reservation that follows from a review. A reservation delays other pods
//! of its peer and never refuses one by itself. A reservation ends after [`LASTS`]: by then the watch has shown the object, or
//! nobody has stored the object. No request waits for longer than that, however many reservations are made meanwhile. The
//! memory is bounded for each peer.

use std::{collections::HashMap, time::Duration};

use liqo_core::resources::{self, Resources};
use tokio::time::Instant;

/// Life of a reservation, and the longest wait of a request for reservations to end. The API server stores an object within
/// milliseconds after the last webhook has answered.
pub(super) const LASTS: Duration = Duration::from_secs(2);
/// Reservations of one peer; an API server processes no more writes at a time by default. A pod beyond is admitted without one.
const MOST: usize = 256;

/// All reservations, by the UID of the object: no two objects share a UID.
#[derive(Default)]
pub(super) struct Reserved(HashMap<String, Reservation>);

struct Reservation {
    origin: String,
    demand: Resources,
    until: Instant,
}

/// The reservations that a request is compared with.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Others {
    /// The sum of their demands.
    pub demand: Resources,
    /// When the first of them ends; `None`: there is none.
    pub ends: Option<Instant>,
}

impl Reserved {
    /// The reservations for pods of `origin`, without the reservation of the object `uid`.
    pub(super) fn others(&mut self, origin: &str, uid: &str, now: Instant) -> Others {
        self.0.retain(|_, one| one.until > now);
        let mut others = Others::default();
        for (_, one) in self.0.iter().filter(|(of, one)| one.origin == origin && *of != uid) {
            resources::add(&mut others.demand, &one.demand);
            others.ends = Some(others.ends.map_or(one.until, |ends| ends.min(one.until)));
        }
        others
    }

    /// Reserves the demand of the object `uid`.
    pub(super) fn make(&mut self, origin: &str, uid: &str, demand: Resources, now: Instant) {
        if self.0.values().filter(|one| one.origin == origin).count() < MOST {
            let one = Reservation { origin: origin.to_owned(), demand, until: now + LASTS };
            self.0.insert(uid.to_owned(), one);
        }
    }

    /// The watch shows the object `uid`, or its end; says whether a reservation has ended with that.
    pub(super) fn seen(&mut self, uid: &str) -> bool {
        self.0.remove(uid).is_some()
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
    fn a_request_is_compared_with_the_other_reservations_of_its_peer() {
        let (mut reserved, now) = (Reserved::default(), Instant::now());
        reserved.make("milan", "a", cpu(1), now);
        reserved.make("turin", "b", cpu(10), now);
        let first = Others { demand: cpu(1), ends: Some(now + LASTS) };
        assert_eq!(reserved.others("milan", "x", now), first, "not turin's");
        assert_eq!(reserved.others("milan", "a", now), Others::default(), "its own does not count");
        reserved.make("milan", "c", cpu(100), now + LASTS / 2);
        assert_eq!(reserved.others("milan", "x", now), Others { demand: cpu(101), ..first });
        assert!(reserved.seen("c") && !reserved.seen("c"));
        assert_eq!(reserved.others("milan", "x", now).demand, cpu(1));
    }

    #[test]
    fn a_reservation_whose_object_does_not_come_ends_by_itself() {
        let (mut reserved, now) = (Reserved::default(), Instant::now());
        reserved.make("milan", "a", cpu(1), now);
        assert_eq!(reserved.others("milan", "x", now + LASTS), Others::default());
        assert!(!reserved.seen("a"), "and is forgotten");
    }

    #[test]
    fn one_peer_has_so_many_reservations_and_takes_none_from_others() {
        let (mut reserved, now) = (Reserved::default(), Instant::now());
        for number in 0..3 * MOST {
            reserved.make("turin", &number.to_string(), cpu(1), now);
        }
        assert_eq!(reserved.0.len(), MOST);
        reserved.make("milan", "a", cpu(1), now);
        assert_eq!(reserved.others("milan", "x", now).demand, cpu(1));
    }
}
