//! Places for connections, shared by source: an address, or a /64 of IPv6.
//!
//! Keeps true: there are never more than [`CONNECTIONS`], nor more than [`PER_SOURCE`] of one source. When all places are taken, a
//! source with fewer places than others gets one from the source that has the most: so no number of sources keeps another one out
//! until each source has one place. The connection on which nothing has moved for longest goes.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// Connections at the same time, and those of one source.
pub(crate) const CONNECTIONS: usize = 512;
pub(crate) const PER_SOURCE: usize = 128;

/// When bytes moved last on a connection. Copies are the same.
#[derive(Clone, Debug)]
pub(crate) struct Moved(Arc<AtomicU64>);

/// The time that [`Moved`] counts from.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Moved {
    fn new() -> Self {
        let moved = Self(Arc::default());
        moved.now();
        moved
    }

    /// Bytes move.
    pub(crate) fn now(&self) {
        self.0.store(milliseconds(), Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns when nothing has moved for so long.
    pub(crate) async fn silence(&self, longest: Duration) {
        while Duration::from_millis(milliseconds().saturating_sub(self.last())) < longest {
            tokio::time::sleep(longest / 12).await;
        }
    }
}

fn milliseconds() -> u64 {
    u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// All places. Copies are the same.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    /// Number of the next place.
    next: u64,
    by: HashMap<IpAddr, Vec<Held>>,
}

/// A connection that has a place.
struct Held {
    number: u64,
    moved: Moved,
    away: CancellationToken,
}

/// A place that is taken until this value goes.
pub(crate) struct Place {
    places: Places,
    source: IpAddr,
    number: u64,
    pub(crate) moved: Moved,
    away: CancellationToken,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`; none when the source has its share.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        let source = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            four => four,
        };
        let mut taken = self.lock();
        let mine = taken.by.get(&source).map_or(0, Vec::len);
        if mine >= PER_SOURCE || taken.count() >= CONNECTIONS && !taken.make_room(mine) {
            return None;
        }
        let (number, moved, away) = (taken.next, Moved::new(), CancellationToken::new());
        taken.next += 1;
        taken.by.entry(source).or_default().push(Held { number, moved: moved.clone(), away: away.clone() });
        Some(Place { places: self.clone(), source, number, moved, away })
    }
}

impl Taken {
    fn count(&self) -> usize {
        self.by.values().map(Vec::len).sum()
    }

    /// Takes a place away from the source with the most, if that source then still has more than `mine`.
    fn make_room(&mut self, mine: usize) -> bool {
        let most = self.by.iter().max_by_key(|(_, held)| held.len());
        let Some((source, held)) = most.filter(|(_, held)| held.len() > mine + 1) else { return false };
        let Some(still) = held.iter().min_by_key(|held| held.moved.last()) else { return false };
        let (source, number) = (*source, still.number);
        still.away.cancel();
        self.leave(source, number);
        true
    }

    fn leave(&mut self, source: IpAddr, number: u64) {
        if let Some(held) = self.by.get_mut(&source) {
            held.retain(|held| held.number != number);
            if held.is_empty() {
                self.by.remove(&source);
            }
        }
    }
}

impl Place {
    /// Returns when another source gets the place: the connection ends.
    pub(crate) async fn taken_away(&self) {
        self.away.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().leave(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_a_share_whatever_its_addresses() {
        let places = Places::default();
        let first: Vec<_> = (0..PER_SOURCE).map_while(|_| places.take(ip("::ffff:10.0.0.1"))).collect();
        assert!(places.take(ip("10.0.0.1")).is_none() && first.len() == PER_SOURCE);
        let network: Vec<_> = (0..PER_SOURCE).map_while(|n| places.take(ip(&format!("fd00::{n:x}")))).collect();
        assert!(places.take(ip("fd00::ffff")).is_none() && places.take(ip("fd00:0:0:1::1")).is_some());
        drop((first, network));
        assert!(places.take(ip("10.0.0.1")).is_some() && places.lock().by.is_empty());
    }

    #[test]
    fn sources_that_have_taken_all_places_give_one_to_each_other_source() {
        let places = Places::default();
        let greedy: Vec<_> =
            (0..CONNECTIONS).map(|n| places.take(ip(&format!("10.0.0.{}", n % 4))).expect("a place")).collect();
        let others: Vec<_> = (0..100).map(|n| places.take(ip(&format!("10.1.0.{n}"))).expect("a place")).collect();
        assert_eq!(greedy.iter().filter(|place| place.away.is_cancelled()).count(), others.len());
        assert!(places.take(ip("10.0.0.0")).is_none(), "who has the most gets no more");
        assert_eq!(places.lock().count(), CONNECTIONS);
        drop(greedy);
        assert_eq!(places.lock().count(), others.len(), "a place that was taken away is not given back twice");
    }

    #[test]
    fn no_more_than_all_places_are_taken_by_one_connection_of_each_source() {
        let places = Places::default();
        let take = |n: usize| places.take(ip(&format!("10.2.{}.{}", n / 256, n % 256)));
        let all: Vec<_> = (0..CONNECTIONS).map_while(take).collect();
        assert!(all.len() == CONNECTIONS && take(CONNECTIONS).is_none());
    }

    #[test]
    fn the_connection_that_is_still_for_longest_goes() {
        let places = Places::default();
        let take =
            |source: &str, count| (0..count).map(|_| places.take(ip(source)).expect("a place")).collect::<Vec<_>>();
        let most = take("10.0.0.1", PER_SOURCE);
        let _others: Vec<_> = (2..6).map(|n| take(&format!("10.0.0.{n}"), (CONNECTIONS - PER_SOURCE) / 4)).collect();
        most.iter().for_each(|place| place.moved.0.store(7, Ordering::Relaxed));
        most[9].moved.0.store(3, Ordering::Relaxed);
        let _new = places.take(ip("10.0.1.1")).expect("a place");
        let gone: Vec<_> =
            most.iter().enumerate().filter(|(_, place)| place.away.is_cancelled()).map(|(n, _)| n).collect();
        assert_eq!(gone, [9]);
    }
}
