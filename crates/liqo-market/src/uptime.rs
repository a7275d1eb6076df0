//! For which part of a time a provider was heard of.
//!
//! Keeps true: what is not known does not count as uptime; a record that is too long says less uptime than there was, never more.

/// Seconds that are remembered: 90 days.
pub const REMEMBERED: i64 = 90 * 86_400;
/// Outages of one provider that are remembered.
pub const MOST: usize = 64;
/// What an uptime of 1 is.
pub const WHOLE: u32 = 1_000_000;

/// A time in which a provider was not heard of, in seconds since 1970; `until` is `None` while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The last heartbeat before.
    pub from: i64,
    /// The first heartbeat after.
    pub until: Option<i64>,
}

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the provider was heard of first; `None`: never.
    pub since: Option<i64>,
    /// The outages, the oldest one first.
    pub outages: Vec<Outage>,
}

impl Record {
    /// The record after a look at `now`: whether the provider is heard of, and when it was last, if that is known.
    #[must_use]
    pub fn noted(&self, is_heard: bool, last: Option<i64>, now: i64) -> Self {
        let mut next = self.clone();
        let is_out = next.outages.last().is_some_and(|outage| outage.until.is_none());
        match (is_heard, next.since) {
            (true, None) => next.since = Some(now),
            (true, Some(_)) if is_out => {
                next.outages.last_mut().into_iter().for_each(|outage| outage.until = Some(now));
            }
            (false, Some(since)) if !is_out => {
                let earliest = next.outages.last().and_then(|outage| outage.until).unwrap_or(since);
                next.outages.push(Outage { from: last.unwrap_or(now).clamp(earliest, now.max(earliest)), until: None });
            }
            _ => {}
        }
        if next.outages != self.outages {
            let begin = now.saturating_sub(REMEMBERED);
            next.outages.retain(|outage| outage.until.is_none_or(|until| until > begin));
            next.shorten();
        }
        next
    }

    /// Makes one of the two outages that are nearest to each other.
    fn shorten(&mut self) {
        while self.outages.len() > MOST {
            let gap =
                |at: &usize| self.outages[at + 1].from.saturating_sub(self.outages[*at].until.unwrap_or(i64::MAX));
            let Some(at) = (0..self.outages.len() - 1).min_by_key(gap) else { return };
            self.outages[at].until = self.outages[at + 1].until;
            self.outages.remove(at + 1);
        }
    }

    /// The uptime within the last `window` seconds, in millionths; `None`: the provider is not known for so long.
    pub fn ratio(&self, window: i64, now: i64) -> Option<u32> {
        let begin = now.saturating_sub(window.max(1));
        if self.since.is_none_or(|since| since > begin) {
            return None;
        }
        let within = |outage: &Outage| (outage.until.unwrap_or(now).min(now) - outage.from.max(begin)).max(0);
        let down: i64 = self.outages.iter().map(within).sum();
        let up = i128::from((now - begin - down).max(0)) * i128::from(WHOLE) / i128::from(now - begin);
        Some(u32::try_from(up).unwrap_or(WHOLE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn out(from: i64, until: i64) -> Outage {
        Outage { from, until: Some(until) }
    }

    #[test]
    fn a_record_says_when_a_provider_was_away() {
        let new = Record::default();
        assert_eq!(new.noted(false, None, 5), new, "a provider that was never there is not away");
        let here = new.noted(true, Some(10), 10);
        assert_eq!(here.since, Some(10));
        assert_eq!(here.noted(true, Some(20), 20), here, "nothing new");
        let away = here.noted(false, Some(40), 70);
        assert_eq!(away.outages, [Outage { from: 40, until: None }]);
        assert_eq!(away.noted(false, None, 90), away, "still away");
        assert_eq!(away.noted(true, Some(100), 100).outages, [out(40, 100)]);
        assert_eq!(here.noted(false, None, 70).outages[0].from, 70, "nobody knows when it was there last");
        assert_eq!(here.noted(false, Some(3), 70).outages[0].from, 10, "not before it was there first");
    }

    #[test]
    fn uptime_is_the_part_of_the_window_without_outages() {
        let of = |outages: &[Outage]| Record { since: Some(0), outages: outages.to_vec() };
        for (record, window, now, wanted) in [
            (of(&[]), 100, 100, Some(WHOLE)),
            (of(&[]), 101, 100, None),
            (Record::default(), 1, 100, None),
            (of(&[out(10, 20)]), 100, 100, Some(900_000)),
            (of(&[out(10, 20)]), 80, 100, Some(WHOLE)),
            (of(&[out(10, 30), out(90, 95)]), 80, 100, Some(812_500)),
            (of(&[Outage { from: 75, until: None }]), 100, 100, Some(750_000)),
            (of(&[out(0, 100)]), 100, 100, Some(0)),
        ] {
            assert_eq!(record.ratio(window, now), wanted, "{record:?} {window} {now}");
        }
    }

    #[test]
    fn what_is_too_long_ago_is_forgotten() {
        let record = Record { since: Some(0), outages: vec![out(1, 2)] };
        assert_eq!(record.noted(false, None, REMEMBERED + 3).outages.len(), 1);
    }

    proptest! {
        /// However often a provider goes and comes, the record stays short and never says more uptime than there was.
        #[test]
        fn a_record_never_makes_better(times in proptest::collection::vec((1_i64..500, 1_i64..500), 1..100)) {
            let (mut record, mut now, mut up) = (Record::default().noted(true, Some(0), 0), 0, 0);
            for (here, away) in times {
                now += here;
                up += here;
                record = record.noted(false, Some(now), now);
                now += away;
                record = record.noted(true, Some(now), now);
                prop_assert!(record.outages.len() <= MOST);
                let most = u32::try_from(i64::from(WHOLE) * up / now).unwrap();
                prop_assert!(record.ratio(now, now).unwrap() <= most);
            }
        }
    }
}
