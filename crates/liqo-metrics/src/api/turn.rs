//! Whose answer is made when.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use liqo_kube::rate::{Limiter, Rate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// How often a peer may ask, and all peers together: a metrics-server asks for one page each 15 seconds, a Prometheus for four each 30.
const PEER: Rate = Rate::new(10, Duration::from_secs(2));
const ALL_PEERS: Rate = Rate::new(200, Duration::from_millis(50));
/// Peers that are counted.
const COUNTED: usize = 4096;
/// Answers that one peer may wait for: its metrics-server asks for one page, its Prometheus for all four.
const OF_ONE_PEER: usize = 5;
/// Answers being made at the same time.
const MAKING: usize = 2;
/// Answers that are waited for, made, or on their way.
const OF_ALL: usize = 64;

/// Why there is no answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The peer asks too often; the time to wait.
    TooOften(Duration),
    /// Too many answers are waited for, or have not been read.
    Busy,
}

/// The answers that are waited for, by peer.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<BTreeMap<String, Line>>>);

struct Line {
    count: usize,
    /// One answer of the peer is made, or on its way, at a time.
    alone: Arc<Semaphore>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives turns.
pub(crate) struct Turns {
    waiting: Waiting,
    making: Semaphore,
    rate: Limiter<String>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            waiting: Waiting::default(),
            making: Semaphore::new(MAKING),
            rate: Limiter::new(PEER, ALL_PEERS, COUNTED),
        }
    }
}

impl Turns {
    /// A turn for a peer.
    ///
    /// # Errors
    /// When the peer, or all peers together, asked too often or wait for too much.
    pub(super) fn take(&self, id: &str) -> Result<Turn, Refused> {
        let mut waiting = self.waiting.lock();
        let all: usize = waiting.values().map(|line| line.count).sum();
        let own = waiting.get(id).map_or(0, |line| line.count);
        if all >= OF_ALL || own >= OF_ONE_PEER {
            return Err(Refused::Busy);
        }
        self.rate.take(id.to_owned()).map_err(Refused::TooOften)?;
        let line =
            waiting.entry(id.to_owned()).or_insert_with(|| Line { count: 0, alone: Arc::new(Semaphore::new(1)) });
        line.count += 1;
        Ok(Turn { waiting: self.waiting.clone(), alone: Arc::clone(&line.alone), id: id.to_owned() })
    }

    /// A place among the answers that are being made.
    pub(super) async fn making(&self) -> Option<SemaphorePermit<'_>> {
        self.making.acquire().await.ok()
    }
}

/// The turn of a peer; the turn ends when this value is dropped.
pub(super) struct Turn {
    waiting: Waiting,
    alone: Arc<Semaphore>,
    id: String,
}

impl Turn {
    /// Waits until no other answer of the peer is made or on its way.
    pub(super) async fn alone(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.alone).acquire_owned().await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        if let Some(line) = waiting.get_mut(&self.id) {
            line.count -= 1;
        }
        waiting.retain(|_, line| line.count > 0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_peer_waits_for_a_few_answers_and_has_one_made_at_a_time() {
        let turns = Turns::default();
        let mut own: Vec<_> = (0..OF_ONE_PEER).map(|_| turns.take("rome").unwrap()).collect();
        assert_eq!(turns.take("rome").err(), Some(Refused::Busy));
        let other = turns.take("turin").unwrap();
        let first = own[0].alone().now_or_never().expect("nothing else is made");
        assert!(own[1].alone().now_or_never().is_none(), "the first answer is on its way");
        assert!(other.alone().now_or_never().is_some(), "another peer does not wait");
        drop(first);
        assert!(own[1].alone().now_or_never().is_some());
        own.pop();
        assert!(turns.take("rome").is_ok());
        drop((own, other));
        assert!(turns.waiting.lock().is_empty());
    }

    #[test]
    fn peers_ask_only_so_often_and_wait_only_for_so_much() {
        let turns = Turns::default();
        let asked = (0..30).filter(|_| turns.take("rome").is_ok()).count();
        assert_eq!(asked, usize::try_from(PEER.burst).unwrap());
        assert!(matches!(turns.take("rome").err(), Some(Refused::TooOften(wait)) if wait <= PEER.every));
        let held: Vec<_> = (0..OF_ALL).map(|number| turns.take(&number.to_string()).unwrap()).collect();
        assert_eq!(turns.take("turin").err(), Some(Refused::Busy));
        drop(held);
        assert!(turns.take("turin").is_ok());
    }
}
