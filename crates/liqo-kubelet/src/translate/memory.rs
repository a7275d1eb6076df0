//! What is known about addresses and who wants to know it. No clock and no wire: `now` is an argument, questions
//! are [`Step`]s.
//!
//! Keeps true: an address is asked for exactly while an object wants it; a mapping without users is released after
//! [`GRACE`], also when the answer to the request was lost, since the lost answer may have granted the mapping.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// So long an address stays ours after the last wish: what showed it elsewhere must have had time to change.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Pause after the first refusal; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after a refusal.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// While nobody answers at all, so long no further question is sent.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);
/// A refusal that lasts longer than this is told to the user: while a peering comes up there are always some.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// Who wants to know: a kind in a namespace, and the name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) scope: Arc<str>,
    pub(super) name: String,
}

/// What is known about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// On the other side it is this one.
    Known(IpAddr),
    /// The question is on its way.
    Asking,
    /// There is no answer for now; it is asked for again and again.
    Failed,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody answered.
    Away,
    /// The answer was no, in these words.
    Refused(String),
}

/// What to do about an address now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Look again after this pause.
    Wait(Duration),
    /// Ask for it.
    Ask,
    /// Give it back.
    Release,
    /// It is time, but nobody answers before that moment.
    Postpone(Instant),
}

#[derive(Debug, Default)]
struct Entry {
    answer: Option<IpAddr>,
    /// The answer may have changed, or there was none yet.
    doubtful: bool,
    users: HashSet<User>,
    /// Since when nobody wants it.
    unused: Option<Instant>,
    failures: u32,
    /// The last refusal, and since when there are only refusals.
    trouble: Option<(Trouble, Instant)>,
    /// Whether the users were shown that trouble lasts.
    told: bool,
    /// Not to be asked for before.
    retry: Option<Instant>,
    /// Somebody looks again at that time.
    alarm: Option<Instant>,
}

impl Entry {
    fn due(&self, now: Instant) -> Option<(Instant, Step)> {
        let not_before = |at: Instant| self.retry.map_or(at, |retry| retry.max(at));
        match self.unused {
            Some(since) => Some((not_before(since + GRACE), Step::Release)),
            None if self.doubtful => Some((not_before(now), Step::Ask)),
            None => None,
        }
    }

    /// Notes that there is no answer; whether that is news to the users.
    fn fail(&mut self, trouble: Trouble, retry: Instant, now: Instant) -> bool {
        self.retry = Some(retry);
        let since = self.trouble.as_ref().map_or(now, |(_, since)| *since);
        let lasts = now.duration_since(since) >= TELL_AFTER && !self.told;
        let is_first = self.trouble.is_none();
        (self.trouble, self.told) = (Some((trouble, since)), self.told || lasts);
        is_first || lasts
    }

    fn users_if(&self, is_news: bool) -> Vec<User> {
        if is_news { self.users.iter().cloned().collect() } else { Vec::new() }
    }
}

/// Everything known about the addresses of one way.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: HashMap<IpAddr, Entry>,
    wishes: HashMap<User, BTreeSet<IpAddr>>,
    /// Nobody answers; when to try again.
    outage: Option<Instant>,
}

impl Memory {
    /// From now on `user` wants exactly these addresses. Returns those that must be looked at.
    pub(super) fn wish(&mut self, user: &User, wanted: BTreeSet<IpAddr>, now: Instant) -> Vec<IpAddr> {
        let old = match wanted.is_empty() {
            true => self.wishes.remove(user),
            false => self.wishes.insert(user.clone(), wanted.clone()),
        };
        let old = old.unwrap_or_default();
        let mut look = Vec::new();
        for ip in wanted.difference(&old) {
            let entry = self.entries.entry(*ip).or_insert_with(|| Entry { doubtful: true, ..Entry::default() });
            if entry.users.is_empty() {
                entry.unused = None;
                look.push(*ip);
            }
            entry.users.insert(user.clone());
        }
        for ip in old.difference(&wanted) {
            let Some(entry) = self.entries.get_mut(ip) else { continue };
            entry.users.remove(user);
            if entry.users.is_empty() {
                entry.unused = Some(now);
                look.push(*ip);
            }
        }
        look
    }

    /// Nobody of a scope wants anything any more. Returns the addresses that must be looked at.
    pub(super) fn leave(&mut self, scope: &str, now: Instant) -> Vec<IpAddr> {
        let users: Vec<_> = self.wishes.keys().filter(|user| &*user.scope == scope).cloned().collect();
        users.iter().flat_map(|user| self.wish(user, BTreeSet::new(), now)).collect()
    }

    /// What a user wants.
    pub(super) fn wished(&self, user: &User) -> BTreeSet<IpAddr> {
        self.wishes.get(user).cloned().unwrap_or_default()
    }

    /// The names of a scope that want anything.
    pub(super) fn names(&self, scope: &str) -> Vec<String> {
        self.wishes.keys().filter(|user| &*user.scope == scope).map(|user| user.name.clone()).collect()
    }

    /// Whether anybody but `scope` wants an address.
    pub(super) fn is_wanted_elsewhere(&self, ip: IpAddr, scope: &str) -> bool {
        self.entries.get(&ip).is_some_and(|entry| entry.users.iter().any(|user| &*user.scope != scope))
    }

    pub(super) fn answer(&self, ip: IpAddr) -> Answer {
        match self.entries.get(&ip) {
            Some(Entry { answer: Some(known), .. }) => Answer::Known(*known),
            Some(Entry { trouble: Some(_), .. }) => Answer::Failed,
            _ => Answer::Asking,
        }
    }

    /// Why an address has been refused for so long that the user should know.
    pub(super) fn lasting_refusal(&self, ip: IpAddr, now: Instant) -> Option<String> {
        match &self.entries.get(&ip)?.trouble {
            Some((Trouble::Refused(why), since)) if now.duration_since(*since) >= TELL_AFTER => Some(why.clone()),
            _ => None,
        }
    }

    /// An answer from before this process; to be confirmed.
    pub(super) fn recall(&mut self, ip: IpAddr, answer: IpAddr) {
        if let Some(entry) = self.entries.get_mut(&ip) {
            entry.answer.get_or_insert(answer);
        }
    }

    /// Every answer may have changed; until new ones come the old ones hold. Returns what must be looked at.
    pub(super) fn doubt(&mut self) -> Vec<IpAddr> {
        self.outage = None;
        for entry in self.entries.values_mut() {
            (entry.doubtful, entry.retry, entry.failures) = (true, None, 0);
        }
        self.entries.keys().copied().collect()
    }

    /// What to do about an address. A [`Step::Wait`] is handed out once for each moment.
    pub(super) fn step(&mut self, ip: IpAddr, now: Instant) -> Step {
        let outage = self.outage.filter(|until| *until > now);
        let Some(entry) = self.entries.get_mut(&ip) else { return Step::Rest };
        let Some((at, step)) = entry.due(now) else { return Step::Rest };
        if at <= now {
            entry.alarm = None;
            return outage.map_or(step, Step::Postpone);
        }
        if entry.alarm.is_some_and(|alarm| alarm > now && alarm <= at) {
            return Step::Rest;
        }
        entry.alarm = Some(at);
        Step::Wait(at - now)
    }

    /// Nobody is asked before `until`. Returns who has to look again.
    pub(super) fn postpone(&mut self, ip: IpAddr, until: Instant, now: Instant) -> Vec<User> {
        let Some(entry) = self.entries.get_mut(&ip) else { return Vec::new() };
        let is_news = entry.fail(Trouble::Away, until, now);
        entry.users_if(is_news)
    }

    /// What came of asking. Returns who has to look again.
    pub(super) fn learn(&mut self, ip: IpAddr, outcome: Result<IpAddr, Trouble>, now: Instant) -> Vec<User> {
        self.outage = matches!(outcome, Err(Trouble::Away)).then_some(now + OUTAGE_PAUSE);
        let Some(entry) = self.entries.get_mut(&ip) else { return Vec::new() };
        let is_news = match outcome {
            Ok(answer) => {
                let is_news = entry.answer != Some(answer) || entry.trouble.is_some();
                (entry.answer, entry.doubtful, entry.failures) = (Some(answer), false, 0);
                (entry.trouble, entry.told, entry.retry) = (None, false, None);
                is_news
            }
            Err(trouble) => {
                entry.failures = entry.failures.saturating_add(1);
                let retry = now + pause(&trouble, entry.failures);
                entry.fail(trouble, retry, now)
            }
        };
        entry.users_if(is_news)
    }

    /// What came of giving back. Returns whether it must be looked at again.
    pub(super) fn released(&mut self, ip: IpAddr, outcome: Result<(), Trouble>, now: Instant) -> bool {
        self.outage = matches!(outcome, Err(Trouble::Away)).then_some(now + OUTAGE_PAUSE);
        let Some(entry) = self.entries.get_mut(&ip) else { return false };
        match outcome {
            Ok(()) if entry.users.is_empty() => {
                self.entries.remove(&ip);
                return false;
            }
            // Wanted again meanwhile: what was known is no longer true.
            Ok(()) => (entry.answer, entry.doubtful, entry.retry) = (None, true, None),
            Err(trouble) => {
                entry.failures = entry.failures.saturating_add(1);
                entry.retry = Some(now + pause(&trouble, entry.failures));
            }
        }
        true
    }

    /// How many addresses are known, being asked for, and without an answer.
    pub(super) fn count(&self) -> [usize; 3] {
        let of = |wanted: fn(Answer) -> bool| self.entries.keys().filter(|ip| wanted(self.answer(**ip))).count();
        [
            of(|answer| matches!(answer, Answer::Known(_))),
            of(|answer| answer == Answer::Asking),
            of(|answer| answer == Answer::Failed),
        ]
    }

    /// Whether the last question found nobody.
    pub(super) fn is_out(&self) -> bool {
        self.outage.is_some()
    }
}

fn pause(trouble: &Trouble, failures: u32) -> Duration {
    match trouble {
        Trouble::Away => OUTAGE_PAUSE,
        Trouble::Refused(_) => FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests;
