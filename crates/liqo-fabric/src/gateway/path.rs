//! Whether a peer answers, how fast, and how much is lost: what is known of one path, from packets that crossed it.
//!
//! A ping is answered or not; nothing else counts. Answered ones come every [`CALM`]; after a miss they come every
//! [`ALARM`], so that a dead path is known after [`DEAD`] while a lossy one is not mistaken for it: more than thirty pings
//! must be lost in a row. At a loss of 30 % in each direction that happens once in ten thousand million misses. A probe of some size counts as lost only when the ping sent right after it is answered: what else is
//! lost says nothing of the size.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::mtu::Prober;

/// Pause between pings that are answered.
const CALM: Duration = Duration::from_millis(250);
/// Pause between pings while one is missing.
const ALARM: Duration = Duration::from_millis(20);
/// No answer to anything sent in this time, or in four round trips: the path is dead.
const DEAD: Duration = Duration::from_millis(700);
/// Pause between pings on a dead path: it need not be quick, but must be noticed when it comes back.
const LOST: Duration = Duration::from_millis(250);
/// Time a probe still has after the answer to the small ping sent with the probe; a longer round trip counts instead.
const GRACE: Duration = Duration::from_millis(50);
/// Probes in a row that must be lost on a path that loses nothing else.
const ATTEMPTS: f64 = 3.0;
/// Further probes per unit of loss on a lossy path: at a loss of a fifth, ten probes in a row are lost by chance once in ten
/// million cases.
const MORE: f64 = 35.0;
/// Pings the loss is counted over.
const WINDOW: usize = 256;
/// An answer that is later than this is no answer.
const TOO_LATE: Duration = Duration::from_secs(3);

/// A ping to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its number, to be found again when the answer comes.
    pub(crate) number: u64,
    /// Size of the packet; 0: as short as possible.
    pub(crate) size: u16,
}

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An answer to no ping of this gateway, or an answer that was counted before.
    Unknown,
    /// One to a ping; `back`: the peer had not answered for a while.
    Ping { back: bool },
    /// One to a probe of some size.
    Probe,
}

/// What can be said of a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Report {
    /// Answers come.
    pub(crate) connected: bool,
    /// Round trip time, smoothed.
    pub(crate) rtt: Option<Duration>,
    /// Part of the last pings that were not answered, 0 to 1.
    pub(crate) loss: f64,
    /// Largest packet that passes.
    pub(crate) mtu: Option<u16>,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    at: Instant,
    size: u16,
}

/// A probe under way, and the ping that was sent right after it.
#[derive(Debug)]
struct Trial {
    size: u16,
    at: Instant,
    companion: u64,
    /// When the companion was answered.
    heard: Option<Instant>,
}

/// One path. Time is an argument.
#[derive(Debug)]
pub(crate) struct Path {
    prober: Prober,
    trial: Option<Trial>,
    connected: bool,
    sent: VecDeque<Sent>,
    number: u64,
    next: Instant,
    /// When the last answer came, and since when there are unanswered pings after it.
    waiting: Option<Instant>,
    rtt: Option<Duration>,
    outcomes: VecDeque<bool>,
}

impl Path {
    /// A path nothing is known of.
    pub(crate) fn new(ceiling: u16, now: Instant) -> Self {
        Self {
            prober: Prober::new(ceiling, now),
            trial: None,
            connected: false,
            sent: VecDeque::new(),
            number: 0,
            next: now,
            waiting: None,
            rtt: None,
            outcomes: VecDeque::new(),
        }
    }

    /// The peer turned out to carry no more than this.
    pub(crate) fn limit(&mut self, ceiling: u16, now: Instant) {
        self.prober.restart(ceiling, now);
        self.trial = None;
    }

    /// What is to be sent now: at most one ping, and one probe with its companion.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Due> {
        self.forget(now);
        let rtt = self.rtt.unwrap_or_default();
        let mut due = Vec::new();
        if now >= self.next {
            // What is merely on its way is no reason for alarm.
            let alarmed = self.waiting.is_some_and(|since| now.duration_since(since) > ALARM + rtt);
            self.next = now
                + if !self.connected {
                    LOST
                } else if alarmed {
                    ALARM
                } else {
                    CALM
                };
            due.push(self.send(0, now));
        }
        self.judge(now);
        if self.trial.is_none()
            && self.connected
            && self.waiting.is_none_or(|since| now.duration_since(since) < ALARM * 2 + rtt)
            && let Some(size) = self.prober.due(now)
        {
            due.push(self.send(size, now));
            let companion = self.send(0, now);
            self.trial = Some(Trial { size, at: now, companion: companion.number, heard: None });
            due.push(companion);
        }
        due
    }

    /// Gives up the probe under way when there is nothing more to wait for.
    fn judge(&mut self, now: Instant) {
        let Some(trial) = &self.trial else { return };
        let grace = GRACE.max(self.rtt.unwrap_or_default());
        if trial.heard.is_some_and(|heard| now.duration_since(heard) >= grace) {
            self.prober.lost(trial.size, self.attempts(), now);
            self.trial = None;
        } else if now.duration_since(trial.at) > self.dead_after() {
            self.trial = None;
        }
    }

    /// How many probes in a row must be lost for the size to be the reason.
    fn attempts(&self) -> u8 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "38 at most")]
        let attempts = (ATTEMPTS + MORE * self.report().loss) as u8;
        attempts
    }

    fn send(&mut self, size: u16, now: Instant) -> Due {
        self.number += 1;
        if size == 0 {
            self.waiting.get_or_insert(now);
        }
        self.sent.push_back(Sent { number: self.number, at: now, size });
        Due { number: self.number, size }
    }

    /// An answer came.
    pub(crate) fn answered(&mut self, number: u64, now: Instant) -> Answer {
        let place = self.sent.iter().position(|sent| sent.number == number);
        let Some(sent) = place.and_then(|place| self.sent.remove(place)) else { return Answer::Unknown };
        if sent.size > 0 {
            self.trial = self.trial.take().filter(|trial| trial.at != sent.at);
            self.prober.passed(sent.size, now);
            return Answer::Probe;
        }
        if let Some(trial) = self.trial.as_mut().filter(|trial| trial.companion == number) {
            trial.heard = Some(now);
        }
        self.waiting =
            self.sent.iter().filter(|other| other.size == 0 && other.at > sent.at).map(|other| other.at).min();
        self.record(true);
        let sample = now.duration_since(sent.at);
        // As TCP does it (RFC 6298): an eighth of each new sample.
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt - rtt / 8 + sample / 8));
        let back = !self.connected;
        self.connected = true;
        Answer::Ping { back }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(old) = self.sent.front().filter(|sent| now.duration_since(sent.at) > TOO_LATE) {
            let was_ping = old.size == 0;
            self.sent.pop_front();
            if was_ping {
                self.record(false);
            }
        }
    }

    fn record(&mut self, answered: bool) {
        self.outcomes.push_back(answered);
        if self.outcomes.len() > WINDOW {
            self.outcomes.pop_front();
        }
    }

    /// Whether the path has just died: true once.
    pub(crate) fn died(&mut self, now: Instant) -> bool {
        let dead = self.connected && self.waiting.is_some_and(|since| now.duration_since(since) >= self.dead_after());
        if dead {
            self.connected = false;
            self.rtt = None;
        }
        dead
    }

    fn dead_after(&self) -> Duration {
        DEAD.max(self.rtt.unwrap_or_default() * 4)
    }

    /// When something is to be done next.
    pub(crate) fn wake(&self, now: Instant) -> Instant {
        let death = self.waiting.filter(|_| self.connected).map(|since| since + self.dead_after());
        let verdict =
            self.trial.as_ref().and_then(|trial| Some(trial.heard? + GRACE.max(self.rtt.unwrap_or_default())));
        [death, verdict].into_iter().flatten().fold(self.next, Instant::min).max(now)
    }

    /// What is known.
    pub(crate) fn report(&self) -> Report {
        let lost = self.outcomes.iter().filter(|answered| !**answered).count();
        #[expect(clippy::cast_precision_loss, reason = "there are 256 at most")]
        let loss = if self.outcomes.is_empty() { 0.0 } else { lost as f64 / self.outcomes.len() as f64 };
        Report { connected: self.connected, rtt: self.rtt, loss, mtu: self.prober.mtu() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// Lets time pass; `lost` says whether the ping of that size sent at that time is lost. Returns the times of death.
    fn run(
        path: &mut Path,
        begin: Instant,
        length: Duration,
        lost: impl FnMut(Duration, u16) -> bool,
    ) -> Vec<Duration> {
        far(path, STEP, begin, length, lost).0
    }

    /// The same with another round trip time; returns also how many pings were sent.
    fn far(
        path: &mut Path,
        rtt: Duration,
        begin: Instant,
        length: Duration,
        mut lost: impl FnMut(Duration, u16) -> bool,
    ) -> (Vec<Duration>, u32) {
        let mut sent = 0;
        let mut deaths = Vec::new();
        let mut passed = Duration::ZERO;
        let mut flying: Vec<(Instant, u64)> = Vec::new();
        while passed < length {
            let now = begin + passed;
            if path.died(now) {
                deaths.push(passed);
            }
            for due in path.due(now) {
                sent += 1;
                if !lost(passed, due.size) {
                    flying.push((now + rtt, due.number));
                }
            }
            let (arrived, rest): (Vec<_>, Vec<_>) = flying.into_iter().partition(|(at, _)| *at <= now);
            flying = rest;
            for (_, number) in arrived {
                assert_ne!(path.answered(number, now), Answer::Unknown);
            }
            passed += STEP;
        }
        (deaths, sent)
    }

    #[test]
    fn a_dead_path_is_known_in_less_than_a_second() {
        let begin = Instant::now();
        let mut path = Path::new(1420, begin);
        assert!(run(&mut path, begin, Duration::from_secs(5), |_, _| false).is_empty());
        assert!(path.report().connected);
        for offset in (0..300).step_by(30) {
            let mut path = Path::new(1420, begin);
            let cut = Duration::from_secs(2) + Duration::from_millis(offset);
            let deaths = run(&mut path, begin, Duration::from_secs(10), |at, _| at >= cut);
            assert_eq!(deaths.len(), 1, "once");
            let took = deaths[0] - cut;
            assert!(took > Duration::from_millis(600) && took < Duration::from_secs(1), "{took:?}");
        }
    }

    #[test]
    fn a_path_that_loses_a_tenth_is_not_dead() {
        let begin = Instant::now();
        let mut path = Path::new(1420, begin);
        let mut dice = 12345_u64;
        let deaths = run(&mut path, begin, Duration::from_secs(3600), |_, _| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33).is_multiple_of(10)
        });
        assert!(deaths.is_empty(), "{deaths:?}");
        let loss = path.report().loss;
        assert!(loss > 0.02 && loss < 0.3, "{loss}");
        assert_eq!(path.report().mtu, Some(1420), "what is lost by chance says nothing of the size");
    }

    #[test]
    fn a_path_that_loses_a_third_in_each_direction_is_not_dead_and_its_end_is_known_in_a_second() {
        for (out, back) in [(30, 0), (0, 30), (30, 30)] {
            let begin = Instant::now();
            let mut path = Path::new(1420, begin);
            let mut dice = 54321_u64;
            let mut lost = |percent: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % 100 < percent
            };
            let hour = Duration::from_secs(3600);
            let deaths = run(&mut path, begin, hour, |_, _| lost(out) || lost(back));
            assert!(deaths.is_empty(), "{out} {back}: {deaths:?}");
            let deaths = run(&mut path, begin + hour, Duration::from_secs(2), |_, _| true);
            assert!(deaths.len() == 1 && deaths[0] < Duration::from_secs(1), "{out} {back}: {deaths:?}");
        }
    }

    #[test]
    fn far_peers_are_asked_no_more_often_and_their_paths_searched_as_well() {
        for rtt in [20, 70, 100, 200, 300, 600].map(Duration::from_millis) {
            let begin = Instant::now();
            let mut path = Path::new(1420, begin);
            let mut once = true;
            let minute = Duration::from_secs(60);
            let lost = |at: Duration, size| size > 1220 || at > minute / 2 && std::mem::take(&mut once);
            let (deaths, _) = far(&mut path, rtt, begin, minute, lost);
            let (later, sent) = far(&mut path, rtt, begin + minute, minute, |_, size| size > 1220);
            assert!(deaths.is_empty() && later.is_empty(), "{rtt:?}: {deaths:?} {later:?}");
            let mtu = path.report().mtu.unwrap();
            assert!(mtu <= 1220 && mtu > 1200, "{rtt:?}: {mtu}");
            // Four pings a second, twice as many now and then for probes.
            assert!(sent < 60 * 6, "{rtt:?}: {sent}");
        }
    }

    #[test]
    fn only_what_its_companion_survives_is_too_large() {
        let begin = Instant::now();
        let mut path = Path::new(1420, begin);
        run(&mut path, begin, Duration::from_secs(5), |_, _| false);
        assert_eq!(path.report().mtu, Some(1420));
        // Half a second of every second nothing passes at all.
        run(&mut path, begin + Duration::from_secs(5), Duration::from_secs(600), |at, _| at.subsec_millis() >= 500);
        assert_eq!(path.report().mtu, Some(1420));
        run(&mut path, begin + Duration::from_secs(605), Duration::from_secs(10), |_, size| size > 1220);
        let mtu = path.report().mtu.unwrap();
        assert!(mtu <= 1220 && mtu > 1200, "{mtu}");
    }

    #[test]
    fn a_path_comes_back() {
        let begin = Instant::now();
        let mut path = Path::new(1420, begin);
        let cut = Duration::from_secs(2)..Duration::from_secs(60);
        let deaths = run(&mut path, begin, Duration::from_secs(61), |at, _| cut.contains(&at));
        assert_eq!(deaths.len(), 1);
        assert!(path.report().connected);
        assert_eq!(path.report().mtu, Some(1420));
    }

    #[test]
    fn an_hour_apart_is_a_pause() {
        let begin = Instant::now();
        let mut path = Path::new(1420, begin);
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let cut = minute..minute + hour;
        let deaths = run(&mut path, begin, minute + hour - STEP, |at, _| cut.contains(&at));
        assert_eq!(deaths.len(), 1, "told once");
        assert!(!path.report().connected);
        let again = begin + minute + hour;
        assert!(run(&mut path, again, Duration::from_secs(2), |_, _| false).is_empty());
        assert!(path.report().connected);
        assert_eq!(path.report().mtu, Some(1420));
    }

    #[test]
    fn an_answer_counts_once_and_unknown_ones_never() {
        let begin = Instant::now();
        let mut path = Path::new(1420, begin);
        let due = path.due(begin);
        assert_eq!(path.answered(99, begin), Answer::Unknown);
        assert_eq!(path.answered(due[0].number, begin + STEP), Answer::Ping { back: true });
        assert_eq!(path.answered(due[0].number, begin + STEP), Answer::Unknown);
        assert_eq!(path.report().rtt, Some(STEP));
    }
}
