//! Rate limits: token buckets, one for each key and one for all keys together.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// So many at once, after a while without any.
    pub burst: u32,
    /// One more event becomes available after each pause of this length.
    pub every: Duration,
}

impl Rate {
    /// A rate; `every` must not be zero.
    pub const fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every }
    }
}

/// The state of a bucket: the time at which the bucket is full again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full: Instant,
}

impl Bucket {
    /// The bucket after one event; for an empty bucket, the time until an event is available.
    fn take(self, rate: Rate, now: Instant) -> Result<Self, Duration> {
        let full = self.full.max(now) + rate.every;
        let latest = now + rate.every.saturating_mul(rate.burst.max(1));
        if full > latest { Err(full - latest) } else { Ok(Self { full }) }
    }
}

/// Limits the events of each key and of all keys together. The memory is bounded: once the maximum of keys is known, an unknown
/// key must wait.
#[derive(Debug)]
pub struct Limiter<K> {
    each: Rate,
    all: Rate,
    most: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    all: Bucket,
    /// Of keys whose bucket is not full.
    each: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Limiter<K> {
    /// At most `each` for a key and `all` together; no more than `most` keys are remembered.
    pub fn new(each: Rate, all: Rate, most: usize) -> Self {
        let state = State { all: Bucket { full: Instant::now() }, each: HashMap::new() };
        Self { each, all, most, state: Mutex::new(state) }
    }

    /// Counts one for the key.
    ///
    /// # Errors
    /// The time to wait; the event is not counted.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, Instant::now())
    }

    /// Whether the rate of the key itself lets one more event pass now; nothing is counted.
    pub(crate) fn is_free(&self, key: &K) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.each.get(key).is_none_or(|bucket| bucket.take(self.each, Instant::now()).is_ok())
    }

    fn take_at(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.each.get(&key).copied();
        if known.is_none() && state.each.len() >= self.most {
            state.each.retain(|_, bucket| bucket.full > now);
            if state.each.len() >= self.most {
                return Err(self.each.every);
            }
        }
        let one = known.unwrap_or(Bucket { full: now }).take(self.each, now)?;
        state.all = state.all.take(self.all, now)?;
        state.each.insert(key, one);
        Ok(())
    }
}

/// The source that an address counts as: the address, or for IPv6 its /64, since one subscriber owns a whole /64.
pub fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => {
                let [a, b, c, d, ..] = six.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_and_then_one_after_each_pause() {
        let limiter = Limiter::new(Rate::new(3, SECOND), Rate::new(100, SECOND), 10);
        let now = Instant::now() + SECOND;
        let taken = |after: Duration| limiter.take_at("a", now + after);
        assert_eq!([taken(Duration::ZERO), taken(Duration::ZERO), taken(Duration::ZERO)], [Ok(()); 3]);
        assert_eq!(taken(Duration::ZERO), Err(SECOND));
        assert_eq!(taken(SECOND / 2), Err(SECOND / 2), "what is refused does not count");
        assert_eq!([taken(SECOND), taken(SECOND)], [Ok(()), Err(SECOND)]);
        assert_eq!(limiter.take_at("b", now), Ok(()), "another one is another one");
        assert_eq!((0..5).filter(|_| taken(SECOND * 60).is_ok()).count(), 3, "no more than a burst is saved");
    }

    #[test]
    fn all_together_are_limited_and_memory_is() {
        let limiter = Limiter::new(Rate::new(5, SECOND), Rate::new(8, SECOND), 100);
        let now = Instant::now() + SECOND;
        assert_eq!((0..50).filter(|i| limiter.take_at(*i, now).is_ok()).count(), 8);
        let limiter = Limiter::new(Rate::new(5, SECOND), Rate::new(1000, SECOND), 10);
        assert_eq!((0..50).filter(|i| limiter.take_at(*i, now).is_ok()).count(), 10);
        assert!(limiter.take_at(1, now).is_ok(), "who is known is not shut out");
        assert!(limiter.take_at(49, now + SECOND * 3).is_ok(), "who has been still is forgotten");
    }

    #[test]
    fn a_source_has_a_network_of_its_own() {
        let source = |text: &str| source(text.parse().unwrap()).to_string();
        assert_eq!(source("10.0.0.1"), "10.0.0.1");
        assert_eq!(source("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(source("2001:db8:1:2:3::4"), "2001:db8:1:2::");
    }
}
