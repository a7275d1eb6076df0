//! What size of packet a path carries, found out by sending packets of that size.
//!
//! A search halves the range between a size that came through and one that did not. Between searches the size in
//! use is tried again and again: a path that begins to swallow large packets without telling (RFC 2923) is searched
//! anew after a few losses in a row, and a path that has become wider is noticed after a while. Sizes are those of packets
//! in the tunnel; RFC 8899 describes the method. Who asks must know that a loss is one of size: see [`Prober::lost`].

use std::time::{Duration, Instant};

/// Every link carries this (RFC 791); below it nothing is sought.
pub(crate) const FLOOR: u16 = 576;
/// A search ends when it is this exact: WireGuard pads packets to multiples of 16.
const GRAIN: u16 = 16;
/// The size in use is tried this often.
const CONFIRM: Duration = Duration::from_secs(2);
/// A size below the ceiling is tried to be raised after this, then ever more seldom.
const RAISE: Duration = Duration::from_secs(10);
const SELDOM: Duration = Duration::from_secs(600);

/// The search for one path. Time is an argument.
#[derive(Debug)]
pub(crate) struct Prober {
    ceiling: u16,
    /// The size in use; none before the first search has ended.
    found: Option<u16>,
    /// The largest size known to pass, and the smallest known not to.
    range: (u16, u16),
    searching: bool,
    /// How many of the size that is tried were lost in a row.
    losses: u8,
    next: Instant,
    /// When the last search ended, and how long to wait before more is tried.
    searched: Instant,
    pause: Duration,
}

impl Prober {
    /// Nothing is known yet; no size above `ceiling` is ever tried.
    pub(crate) fn new(ceiling: u16, now: Instant) -> Self {
        let range = (FLOOR, ceiling.saturating_add(1));
        Self { ceiling, found: None, range, searching: true, losses: 0, next: now, searched: now, pause: RAISE }
    }

    /// The largest size known to pass.
    pub(crate) fn mtu(&self) -> Option<u16> {
        self.found
    }

    /// The sizes that may be tried have changed, or the path is another one: begin anew, keep what is in use.
    pub(crate) fn restart(&mut self, ceiling: u16, now: Instant) {
        *self = Self { found: self.found.map(|found| found.min(ceiling)), ..Self::new(ceiling, now) };
    }

    /// The size to be tried now, if any. Call it often, and not while the last one is under way.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u16> {
        if !self.searching && self.found < Some(self.ceiling) && now.duration_since(self.searched) >= self.pause {
            self.pause = (self.pause * 2).min(SELDOM);
            self.begin(self.found.unwrap_or(FLOOR), now);
        }
        if now < self.next {
            return None;
        }
        if self.searching { Some(self.middle()) } else { self.found }
    }

    /// A packet of that size came through, both ways, perhaps late.
    pub(crate) fn passed(&mut self, size: u16, now: Instant) {
        if size > self.ceiling {
            return;
        }
        self.losses = 0;
        if size >= self.range.1 {
            // It was not the size, after all.
            self.range.1 = self.ceiling.saturating_add(1);
            self.searching = true;
        }
        if self.searching {
            self.range.0 = self.range.0.max(size);
            self.conclude(now);
        } else {
            self.next = now + CONFIRM;
        }
    }

    /// A packet of that size was lost, while a short one sent right after it came through. `enough` losses in a row are
    /// taken to be due to the size.
    pub(crate) fn lost(&mut self, size: u16, enough: u8, now: Instant) {
        self.losses += 1;
        self.next = now;
        if self.losses < enough {
            return;
        }
        self.losses = 0;
        if self.searching {
            self.range.1 = self.range.1.min(size);
            self.conclude(now);
        } else {
            self.pause = RAISE;
            self.begin(FLOOR, now);
        }
    }

    fn begin(&mut self, passes: u16, now: Instant) {
        self.searching = true;
        self.losses = 0;
        self.range = (passes, self.ceiling.saturating_add(1));
        self.next = now;
    }

    /// Most paths carry everything: the ceiling is tried first.
    fn middle(&self) -> u16 {
        let (low, high) = self.range;
        if high > self.ceiling { self.ceiling } else { low + (high - low) / 2 }
    }

    fn conclude(&mut self, now: Instant) {
        let (low, high) = self.range;
        if high.saturating_sub(low) > GRAIN && low < self.ceiling {
            self.next = now;
            return;
        }
        self.searching = false;
        self.found = Some(low);
        self.searched = now;
        self.next = now + CONFIRM;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets time pass over a path that carries `limit` until `end`; returns what was found and when it last changed.
    fn run(prober: &mut Prober, limit: u16, begin: Instant, end: Duration) -> (Option<u16>, Duration) {
        let (mut found, mut changed) = (prober.mtu(), Duration::ZERO);
        let mut passed = Duration::ZERO;
        while passed < end {
            let now = begin + passed;
            match prober.due(now) {
                Some(size) if size <= limit => prober.passed(size, now),
                Some(size) => prober.lost(size, 3, now),
                None => {}
            }
            if prober.mtu() != found {
                (found, changed) = (prober.mtu(), passed);
            }
            passed += Duration::from_millis(100);
        }
        (found, changed)
    }

    #[test]
    fn every_limit_is_found_within_ten_seconds() {
        for limit in [FLOOR, 600, 999, 1220, 1340, 1419, 1420, 9000] {
            let begin = Instant::now();
            let mut prober = Prober::new(1420, begin);
            let (found, when) = run(&mut prober, limit, begin, Duration::from_secs(20));
            let found = found.unwrap();
            assert!(found <= limit && found + GRAIN >= limit.min(1420), "limit {limit}: found {found}");
            assert!(when < Duration::from_secs(10), "limit {limit}: after {when:?}");
        }
    }

    #[test]
    fn a_path_that_begins_to_swallow_large_packets_is_searched_anew() {
        let begin = Instant::now();
        let mut prober = Prober::new(1420, begin);
        assert_eq!(run(&mut prober, 1500, begin, Duration::from_secs(5)).0, Some(1420));
        let later = begin + Duration::from_secs(5);
        let (found, when) = run(&mut prober, 1220, later, Duration::from_secs(20));
        assert!(found.unwrap() <= 1220 && found.unwrap() > 1200, "{found:?}");
        assert!(when < Duration::from_secs(10), "{when:?}");
    }

    #[test]
    fn a_path_that_has_become_wider_is_noticed() {
        let begin = Instant::now();
        let mut prober = Prober::new(1420, begin);
        assert!(run(&mut prober, 1000, begin, Duration::from_secs(20)).0.unwrap() <= 1000);
        let later = begin + Duration::from_secs(20);
        let found = run(&mut prober, 1500, later, RAISE * 2).0;
        assert_eq!(found, Some(1420));
    }

    #[test]
    fn more_is_tried_ever_more_seldom() {
        let begin = Instant::now();
        let mut prober = Prober::new(1420, begin);
        run(&mut prober, 1000, begin, Duration::from_secs(10_000));
        assert_eq!(prober.pause, SELDOM);
        let (found, when) = run(&mut prober, 900, begin + Duration::from_secs(10_000), Duration::from_secs(9));
        assert!(found.unwrap() <= 900 && when < Duration::from_secs(9));
        assert_eq!(prober.pause, RAISE, "a path that has changed may change again");
    }

    #[test]
    fn an_answer_that_comes_late_counts() {
        let begin = Instant::now();
        let mut prober = Prober::new(1420, begin);
        for _ in 0..3 {
            assert_eq!(prober.due(begin), Some(1420));
            prober.lost(1420, 3, begin);
        }
        assert!(prober.due(begin) < Some(1420));
        prober.passed(1420, begin);
        assert_eq!(prober.mtu(), Some(1420));
    }

    #[test]
    fn one_loss_means_nothing() {
        let begin = Instant::now();
        let mut prober = Prober::new(1420, begin);
        run(&mut prober, 1500, begin, Duration::from_secs(5));
        let later = begin + Duration::from_secs(8);
        assert_eq!(prober.due(later), Some(1420));
        prober.lost(1420, 3, later);
        assert_eq!(prober.due(later), Some(1420), "tried again at once");
        prober.passed(1420, later + Duration::from_secs(1));
        assert_eq!(prober.mtu(), Some(1420));
        assert!(!prober.searching);
    }
}
