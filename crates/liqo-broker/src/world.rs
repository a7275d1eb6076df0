//! What the API server holds of the market, and what providers said lately.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt;
use liqo_api::{
    discovery::ForeignCluster,
    market::{ProviderProfile, Reservation, ReservationPhase},
};
use liqo_kube::{Cluster, Queue, Store};
use liqo_market::{Provider, Table, wire::Heartbeat};
use tokio::sync::watch;

use crate::{figures::Counts, heard::Heard};

/// Cluster IDs of providers.
type Ids = Arc<Mutex<BTreeSet<String>>>;

/// Everything that handlers and the keeper of the ledgers share.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// Cluster IDs of providers whose ledgers want to be looked at.
    pub(crate) queue: Queue<String>,
    pub(crate) heard: Heard,
    profiles: Store<ProviderProfile>,
    reservations: Store<Reservation>,
    peers: Store<ForeignCluster>,
    changes: watch::Sender<u64>,
    pub(crate) counts: Counts,
    /// Counts the changes of profiles.
    catalogue: watch::Sender<u64>,
    began: Instant,
    table: Mutex<Table>,
    /// Providers whose rows of the table are older than their profiles.
    outdated: Ids,
    /// When providers were heard of that the table does not know yet, by cluster ID: a heartbeat waits for no selection.
    beats: Mutex<BTreeMap<String, i64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn start(cluster: Cluster, heartbeat: Duration) -> Self {
        let (queue, changes) = (Queue::new(), watch::Sender::new(0));
        let (of_profile, of_reservation, changed) = (queue.clone(), queue.clone(), changes.clone());
        let outdated = Ids::default();
        let rows = Arc::clone(&outdated);
        let catalogue = watch::Sender::new(0);
        let listed = catalogue.clone();
        let profiles = cluster.watch::<ProviderProfile>("").start(move |profile| {
            lock(&rows).insert(profile.name_any());
            of_profile.push(profile.name_any());
            listed.send_modify(|count| *count += 1);
        });
        let reservations = cluster.watch::<Reservation>("").start(move |reservation| {
            of_reservation.push(reservation.spec.provider.clone());
            changed.send_modify(|count| *count += 1);
        });
        let peers = cluster.watch::<ForeignCluster>("").start(|_| {});
        let (heard, began, table) = (Heard::new(heartbeat), Instant::now(), Mutex::default());
        let counts = Counts::default();
        Self {
            cluster,
            queue,
            heard,
            profiles,
            reservations,
            peers,
            changes,
            counts,
            catalogue,
            began,
            table,
            outdated,
            beats: Mutex::default(),
        }
    }

    pub(crate) async fn ready(&self) {
        self.profiles.ready().await;
        self.reservations.ready().await;
        self.peers.ready().await;
    }

    /// Says whenever a reservation has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Says whenever the catalogue has changed.
    pub(crate) fn catalogue_changes(&self) -> watch::Receiver<u64> {
        self.catalogue.subscribe()
    }

    /// Whether a provider was heard of lately.
    pub(crate) fn is_fresh(&self, id: &str) -> bool {
        self.age(id).is_some_and(|age| age <= self.heard.limit().as_secs())
    }

    /// Whether a provider that was not heard of may not have had the time since this process began: nothing follows from its silence.
    pub(crate) fn may_be_late(&self, id: &str) -> bool {
        self.age(id).is_none() && self.heard.is_young(Instant::now())
    }

    /// How many reservations there are, by phase.
    pub(crate) fn phases(&self) -> BTreeMap<String, u32> {
        let mut phases = BTreeMap::new();
        for reservation in self.reservations.all() {
            let phase: ReservationPhase = reservation.status.as_ref().map(|status| status.phase).unwrap_or_default();
            *phases.entry(format!("{phase:?}")).or_default() += 1;
        }
        phases
    }

    /// The profile of a provider.
    pub(crate) fn profile(&self, id: &str) -> Option<Arc<ProviderProfile>> {
        self.profiles.get("", id)
    }

    /// All profiles, by cluster ID.
    pub(crate) fn profiles(&self) -> Vec<Arc<ProviderProfile>> {
        let mut all = self.profiles.all();
        all.sort_by_key(|profile| profile.name_any());
        all
    }

    /// All providers as a selection sees them, and the time of the clock that says when they were heard of.
    pub(crate) fn table(&self) -> (MutexGuard<'_, Table>, i64) {
        let clock = self.clock();
        let outdated = mem::take(&mut *lock(&self.outdated));
        let beats = mem::take(&mut *lock(&self.beats));
        let mut table = lock(&self.table);
        beats.iter().for_each(|(id, clock)| table.heard(id, *clock));
        for id in outdated {
            match self.profile(&id) {
                Some(profile) => table.put(Provider::of(&profile)),
                None => table.remove(&id),
            }
            if let Some(age) = self.age(&id) {
                table.heard(&id, clock.saturating_sub_unsigned(age));
            }
        }
        (table, clock)
    }

    /// Seconds since this process began.
    fn clock(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX)
    }

    /// Remembers a heartbeat; the answer is that of [`Heard::note`].
    pub(crate) fn note(&self, id: &str, beat: Heartbeat, stands: impl Fn(&str) -> bool) -> Option<bool> {
        let is_news = self.heard.note(id, beat, Instant::now(), stands)?;
        lock(&self.beats).insert(id.to_owned(), self.clock());
        Counts::add(&self.counts.heartbeats);
        Some(is_news)
    }

    /// Seconds since the last heartbeat of a provider.
    pub(crate) fn age(&self, id: &str) -> Option<u64> {
        self.heard.age(id, Instant::now()).map(|age| age.as_secs())
    }

    /// One reservation.
    pub(crate) fn reservation(&self, namespace: &str, name: &str) -> Option<Arc<Reservation>> {
        self.reservations.get(namespace, name)
    }

    /// The reservations of a namespace, by name.
    pub(crate) fn reservations(&self, namespace: &str) -> Vec<Arc<Reservation>> {
        let mut all = self.reservations.filter(|one| one.namespace().as_deref() == Some(namespace));
        all.sort_by_key(|one| one.name_any());
        all
    }

    /// The reservations at a provider.
    pub(crate) fn reservations_at(&self, provider: &str) -> Vec<Arc<Reservation>> {
        self.reservations.filter(|one| one.spec.provider == provider)
    }

    /// All peers of this cluster, by name.
    pub(crate) fn peers(&self) -> Vec<Arc<ForeignCluster>> {
        let mut all = self.peers.all();
        all.sort_by_key(|peer| peer.name_any());
        all
    }
}
