//! Turns: bounded work, shared fairly among the sources of requests.
//!
//! Keeps true: no more than a fixed number of turns is taken at once, and no source takes more than its share. A request
//! therefore waits for at most one share of each other source, however many requests those have sent. Work runs on threads of
//! its own, so that the connections of others are served meanwhile.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rate::source;

/// Sources that are remembered without need.
const REMEMBERED: usize = 64;

/// The turns of one kind of work.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    share: usize,
    sources: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// One turn; dropping it gives the turn to somebody else.
#[derive(Debug)]
pub struct Turn {
    _all: Option<OwnedSemaphorePermit>,
    _share: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// `all` turns at once, `share` of them for one source; neither may be 0.
    pub fn new(all: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), share, sources: Mutex::default() }
    }

    /// Turns for work that needs a processor: a few more than there are processors, half of them for one source.
    pub fn of_processors() -> Self {
        let all = std::thread::available_parallelism().map_or(1, usize::from).max(4);
        Self::new(all, all / 2)
    }

    /// Waits for a turn of the source that an address counts as.
    pub async fn take(&self, address: IpAddr) -> Turn {
        let share = self.share_of(source(address));
        // First within the share: whoever waits for `all` is one of few of its source. No semaphore is ever closed.
        let share = share.acquire_owned().await.ok();
        Turn { _share: share, _all: Arc::clone(&self.all).acquire_owned().await.ok() }
    }

    /// Does work, on a thread of its own, when a turn is free. Work that was begun is finished, and its turn taken until then,
    /// also when nobody waits for the result any more.
    ///
    /// # Panics
    /// When the work does.
    pub async fn run<T: Send + 'static>(&self, address: IpAddr, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = self.take(address).await;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match done.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and nobody is answered any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn share_of(&self, source: IpAddr) -> Arc<Semaphore> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= REMEMBERED {
            // Whoever waits for a turn, or has one, holds its semaphore.
            sources.retain(|_, share| Arc::strong_count(share) > 1);
        }
        Arc::clone(sources.entry(source).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, sync::mpsc, task::Poll, time::Duration};

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    async fn is_ready(taken: impl Future) -> bool {
        let mut taken = pin!(taken);
        std::future::poll_fn(|cx| Poll::Ready(taken.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_loud_source_takes_no_more_than_its_share() {
        let turns = Turns::new(4, 2);
        let loud = [turns.take(ip(1)).await, turns.take(ip(1)).await];
        assert!(!is_ready(turns.take(ip(1))).await, "a third turn");
        let other = [turns.take(ip(2)).await, turns.take(ip(2)).await];
        assert!(!is_ready(turns.take(ip(3))).await, "all are taken");
        drop(loud);
        assert!(is_ready(turns.take(ip(3))).await && is_ready(turns.take(ip(1))).await);
        drop(other);
    }

    #[tokio::test]
    async fn whoever_waits_is_served_in_the_order_of_arrival() {
        let turns = Turns::new(1, 1);
        let first = turns.take(ip(1)).await;
        let mut quiet = pin!(turns.take(ip(2)));
        assert!(!is_ready(quiet.as_mut()).await);
        // A thousand more of the first source stand behind each other, not before the second source.
        let waiting: Vec<_> = (0..1000).map(|_| Box::pin(turns.take(ip(1)))).collect();
        for mut one in waiting {
            assert!(!is_ready(one.as_mut()).await);
        }
        drop(first);
        assert!(is_ready(quiet).await);
    }

    #[tokio::test]
    async fn work_keeps_its_turn_until_it_ends_and_memory_is_bounded() {
        let turns = Arc::new(Turns::new(2, 1));
        let (go, wait) = mpsc::channel::<()>();
        let mut left = Box::pin(turns.run(ip(1), move || wait.recv().is_ok()));
        assert!(!is_ready(left.as_mut()).await);
        drop(left);
        assert!(!is_ready(turns.take(ip(1))).await, "nobody waits for the result, but the work goes on");
        assert_eq!(turns.run(ip(2), || 7).await, 7);
        go.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), turns.take(ip(1))).await.unwrap();
        for last in 0..=255 {
            drop(turns.take(ip(last)).await);
        }
        assert!(turns.sources.lock().unwrap().len() <= REMEMBERED);
    }
}
