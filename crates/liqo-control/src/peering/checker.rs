//! Does a peer's API server answer?
//!
//! One task for each peer whose identity we have, known by the peer's ID. It asks `/livez` with that
//! identity and rings only when the answer changes. A peer that does not answer is asked more often, so
//! that its return is noticed soon.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use liqo_kube::{Cluster, guard::supervised, peer::PeerIdentity, reach::Reach};
use tokio::task::JoinHandle;

use super::{
    settings::Settings,
    world::{Bell, Wake},
};

/// Pause between two questions to a peer that does not answer, if the interval is not shorter.
const IMPATIENT: Duration = Duration::from_secs(2);

/// What was found out about a peer's API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Whether it answers.
    pub(crate) ready: bool,
    /// Since when that is so.
    pub(crate) since: Instant,
}

/// All peers being asked.
pub(crate) struct Checker {
    interval: Option<Duration>,
    timeout: Duration,
    reach: Reach,
    bell: Bell,
    peers: Arc<Mutex<HashMap<String, Probe>>>,
}

struct Probe {
    /// Version of the identity it uses.
    version: String,
    health: Option<Health>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Checker {
    pub(crate) fn new(settings: &Settings, reach: Reach, bell: Bell) -> Self {
        let peers = Arc::default();
        Self { interval: settings.probe_interval, timeout: settings.probe_timeout, reach, bell, peers }
    }

    /// Whether peers are asked at all.
    pub(crate) fn is_on(&self) -> bool {
        self.interval.is_some()
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<String, Probe>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known about a peer.
    pub(crate) fn health(&self, peer: &str) -> Option<Health> {
        self.peers().get(peer)?.health
    }

    /// The peer shall be asked, with this identity.
    pub(crate) fn watch(&self, peer: &str, identity: &PeerIdentity) {
        let mut peers = self.peers();
        let known = peers.get(peer).map(|probe| (probe.version == identity.version, probe.health));
        if matches!(known, Some((true, _))) {
            return;
        }
        let health = known.and_then(|(_, health)| health);
        let probe = match self.interval {
            // What was found out with the old identity holds until the new one has found out more.
            Some(interval) => {
                let probing = Probing {
                    peer: peer.to_owned(),
                    identity: identity.clone(),
                    interval,
                    timeout: self.timeout,
                    reach: self.reach.clone(),
                    bell: self.bell.clone(),
                    peers: Arc::clone(&self.peers),
                };
                let task = async move { supervised("probe", &probing.peer, || probe(&probing)).await };
                let task = tokio::spawn(task);
                Probe { version: identity.version.clone(), health, task: Some(task) }
            }
            None => {
                let health = Some(Health { ready: true, since: Instant::now() });
                Probe { version: identity.version.clone(), health, task: None }
            }
        };
        peers.insert(peer.to_owned(), probe);
    }

    /// Nobody wants to know about the other peers any more.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.peers().retain(|peer, _| wanted(peer));
    }
}

struct Probing {
    peer: String,
    identity: PeerIdentity,
    interval: Duration,
    timeout: Duration,
    reach: Reach,
    bell: Bell,
    peers: Arc<Mutex<HashMap<String, Probe>>>,
}

async fn probe(this: &Probing) {
    let cluster = this.identity.client(&this.reach).await;
    let cluster = cluster.map(|client| Cluster::new(client, "liqo-controller-manager"));
    loop {
        let outcome = match &cluster {
            Ok(cluster) => cluster.alive(this.timeout).await,
            Err(why) => Err(why.clone()),
        };
        this.note(&outcome);
        let pause = if outcome.is_ok() { this.interval } else { this.interval.min(IMPATIENT) };
        tokio::time::sleep(pause).await;
    }
}

impl Probing {
    fn note(&self, outcome: &Result<(), String>) {
        let ready = outcome.is_ok();
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(probe) = peers.get_mut(&self.peer).filter(|probe| probe.version == self.identity.version) else {
            return;
        };
        if probe.health.is_some_and(|health| health.ready == ready) {
            return;
        }
        probe.health = Some(Health { ready, since: Instant::now() });
        drop(peers);
        match outcome {
            Ok(()) => tracing::info!(peer = self.peer, "the API server of the peer is ready"),
            Err(why) => tracing::warn!(peer = self.peer, reason = why, "the API server of the peer is not ready"),
        }
        // Nobody listens any more when the process ends.
        let _ = self.bell.send(Wake::Peer(self.peer.clone()));
    }
}
