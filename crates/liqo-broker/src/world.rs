//! What the API server holds of the market, and what providers said lately.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::ResourceExt;
use liqo_api::{
    discovery::ForeignCluster,
    market::{ProviderProfile, Reservation},
};
use liqo_kube::{Cluster, Queue, Store};
use liqo_market::Provider;
use tokio::sync::watch;

use crate::heard::Heard;

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
}

impl World {
    pub(crate) fn start(cluster: Cluster, heartbeat: Duration) -> Self {
        let (queue, changes) = (Queue::new(), watch::Sender::new(0));
        let (of_profile, of_reservation, changed) = (queue.clone(), queue.clone(), changes.clone());
        let profiles = cluster.watch::<ProviderProfile>("").start(move |profile| of_profile.push(profile.name_any()));
        let reservations = cluster.watch::<Reservation>("").start(move |reservation| {
            of_reservation.push(reservation.spec.provider.clone());
            changed.send_modify(|count| *count += 1);
        });
        let peers = cluster.watch::<ForeignCluster>("").start(|_| {});
        Self { cluster, queue, heard: Heard::new(heartbeat), profiles, reservations, peers, changes }
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

    /// All providers as a selection sees them.
    pub(crate) fn providers(&self) -> Vec<Provider> {
        let all = self.profiles.all();
        all.iter().map(|profile| Provider::of(profile, self.age(&profile.name_any()))).collect()
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
