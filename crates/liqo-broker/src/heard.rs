//! What providers said lately: in memory, because it comes again with the next heartbeats.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use liqo_market::wire::{Heartbeat, Invitation, Resources};

/// Providers that are remembered at most.
const MOST: usize = 20_000;

/// What the provider said last.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    at: Instant,
    /// What is offered, and what the largest pod can have.
    pub(crate) offer: (Resources, Resources),
    /// Invitations, by UID of the reservation.
    pub(crate) invitations: BTreeMap<String, Invitation>,
    /// Why a consumer is not wanted, by UID of the reservation.
    pub(crate) refusals: BTreeMap<String, String>,
}

/// What all providers said last.
pub(crate) struct Heard {
    began: Instant,
    heartbeat: Duration,
    providers: Mutex<HashMap<String, Last>>,
}

impl Heard {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self { began: Instant::now(), heartbeat, providers: Mutex::default() }
    }

    /// Seconds between two heartbeats.
    pub(crate) fn interval(&self) -> u64 {
        self.heartbeat.as_secs()
    }

    /// How long after its last heartbeat a provider counts.
    pub(crate) fn limit(&self) -> Duration {
        self.heartbeat * 3
    }

    fn providers(&self) -> MutexGuard<'_, HashMap<String, Last>> {
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a heartbeat; of earlier invitations and refusals those that `stands` tells by the UID of their reservation. Says
    /// whether the heartbeat tells anything about a ledger; `None`: there are too many providers.
    pub(crate) fn note(&self, id: &str, beat: Heartbeat, now: Instant, stands: impl Fn(&str) -> bool) -> Option<bool> {
        let mut providers = self.providers();
        if providers.len() >= MOST && !providers.contains_key(id) {
            return None;
        }
        let before = providers.remove(id);
        let offer = (beat.offered, beat.largest_allocation);
        let was_away = before.as_ref().is_none_or(|last| now.duration_since(last.at) > self.limit());
        let is_news = was_away || !beat.refusals.is_empty() || before.as_ref().is_none_or(|last| last.offer != offer);
        let (mut invitations, mut refusals) = before.map(|last| (last.invitations, last.refusals)).unwrap_or_default();
        invitations.extend(beat.invitations.into_iter().map(|one| (one.reservation.clone(), one)));
        refusals.extend(beat.refusals.into_iter().map(|one| (one.reservation, one.reason)));
        invitations.retain(|uid, _| stands(uid));
        refusals.retain(|uid, _| stands(uid));
        providers.insert(id.to_owned(), Last { at: now, offer, invitations, refusals });
        Some(is_news)
    }

    /// What the provider said last.
    pub(crate) fn last(&self, id: &str) -> Option<Last> {
        self.providers().get(id).cloned()
    }

    /// How long ago the provider was heard of.
    pub(crate) fn age(&self, id: &str, now: Instant) -> Option<Duration> {
        self.providers().get(id).map(|last| now.duration_since(last.at))
    }

    /// Whether a provider that was not heard of yet may simply not have had the time since this process began.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        now.duration_since(self.began) < self.limit()
    }
}

#[cfg(test)]
mod tests {
    use liqo_market::wire::Refusal;

    use super::*;

    fn beat(cpu: &str) -> Heartbeat {
        let offered = serde_json::from_value(serde_json::json!({"cpu": cpu})).unwrap();
        Heartbeat { offered, ..Heartbeat::default() }
    }

    #[test]
    fn only_what_is_new_is_news() {
        let (heard, now) = (Heard::new(Duration::from_secs(10)), Instant::now());
        assert_eq!((heard.age("a", now), heard.is_young(now)), (None, true));
        let note = |beat| heard.note("a", beat, now, |_| true);
        assert_eq!([note(beat("1")), note(beat("1")), note(beat("2"))], [Some(true), Some(false), Some(true)]);
        let refusal = Refusal { reservation: "r".into(), reason: "no".into() };
        assert_eq!(note(Heartbeat { refusals: vec![refusal], ..beat("2") }), Some(true));
        let later = now + Duration::from_secs(31);
        assert_eq!((heard.age("a", later), heard.is_young(later)), (Some(Duration::from_secs(31)), false));
        assert_eq!(heard.note("a", beat("2"), later, |_| true), Some(true), "a provider that was away is back");
    }

    #[test]
    fn what_belongs_to_no_reservation_is_forgotten() {
        let heard = Heard::new(Duration::from_secs(10));
        let invitation = |uid: &str| Invitation { reservation: uid.into(), ..Invitation::default() };
        let first = Heartbeat { invitations: vec![invitation("r"), invitation("s")], ..beat("1") };
        heard.note("a", first, Instant::now(), |uid| uid != "s");
        let invited = || heard.last("a").unwrap().invitations.into_keys().collect::<Vec<_>>();
        assert_eq!(invited(), ["r"]);
        heard.note("a", beat("1"), Instant::now(), |_| true);
        assert_eq!(invited(), ["r"], "a heartbeat without invitations takes none back");
        heard.note("a", beat("1"), Instant::now(), |_| false);
        assert!(invited().is_empty());
    }
}
