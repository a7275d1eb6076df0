//! The one control loop: keys come in from watches, each is settled, failures come back later.
//!
//! Invariants: a key waits at most once; a key is never settled twice at the same time; a key that
//! comes while it is being settled is settled again afterwards.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    error::Error,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::KubeError;

/// First pause when somebody else was quicker: only our view must catch up.
const FIRST_PAUSE_AFTER_CONFLICT: Duration = Duration::from_millis(10);
/// First pause after any other failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Keys that wait to be settled. Copies share one queue.
#[derive(Debug)]
pub struct Queue<K>(Arc<Inner<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<K> {
    state: Mutex<State<K>>,
    news: Notify,
}

#[derive(Debug)]
struct State<K> {
    order: VecDeque<K>,
    waiting: HashSet<K>,
    active: HashSet<K>,
    /// Came while active.
    again: HashSet<K>,
    failures: HashMap<K, u32>,
    /// When it comes by itself.
    due: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Queue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            order: VecDeque::new(),
            waiting: HashSet::new(),
            active: HashSet::new(),
            again: HashSet::new(),
            failures: HashMap::new(),
            due: HashMap::new(),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), news: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key shall be settled.
    pub fn push(&self, key: K) {
        let mut state = self.state();
        if state.active.contains(&key) {
            state.again.insert(key);
        } else if state.waiting.insert(key.clone()) {
            state.order.push_back(key);
            self.0.news.notify_one();
        }
    }

    /// The key shall be settled after a while, or earlier.
    pub fn push_after(&self, key: K, pause: Duration) {
        let due = Instant::now() + pause;
        {
            let mut state = self.state();
            if state.due.get(&key).is_some_and(|known| *known <= due) {
                return;
            }
            state.due.insert(key.clone(), due);
        }
        let queue = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            let mut state = queue.state();
            if state.due.get(&key) == Some(&due) {
                state.due.remove(&key);
                drop(state);
                queue.push(key);
            }
        });
    }

    async fn next(&self) -> K {
        loop {
            if let Some(key) = self.take() {
                return key;
            }
            self.0.news.notified().await;
        }
    }

    fn take(&self) -> Option<K> {
        let mut state = self.state();
        let key = state.order.pop_front()?;
        state.waiting.remove(&key);
        state.active.insert(key.clone());
        if !state.order.is_empty() {
            self.0.news.notify_one();
        }
        Some(key)
    }

    /// Ends the settling of a key; returns the pause before the next try if it failed, given the first one.
    fn done(&self, key: &K, failed: Option<Duration>) -> Option<Duration> {
        let mut state = self.state();
        state.active.remove(key);
        let again = state.again.remove(key);
        let pause = if let Some(first) = failed {
            let count = state.failures.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            Some(pause_after(first, *count))
        } else {
            state.failures.remove(key);
            None
        };
        drop(state);
        if again {
            self.push(key.clone());
        }
        pause
    }
}

fn pause_after(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

/// Settles keys for ever, `workers` at a time. `settle` says when it wants to look again, if at all;
/// an error becomes one log line and one more try.
pub async fn drive<K, E, F>(name: &'static str, queue: Queue<K>, workers: usize, settle: impl Fn(K) -> F + Send + Sync)
where
    K: Clone + Eq + Hash + std::fmt::Debug + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
    F: Future<Output = Result<Option<Duration>, E>> + Send,
{
    let worker = || async {
        loop {
            let key = queue.next().await;
            let outcome = settle(key.clone()).await;
            let failed = outcome.as_ref().err().map(|error| match is_conflict(error) {
                true => FIRST_PAUSE_AFTER_CONFLICT,
                false => FIRST_PAUSE,
            });
            let pause = queue.done(&key, failed);
            match outcome {
                Ok(None) => tracing::trace!(controller = name, ?key, "settled"),
                Ok(Some(later)) => queue.push_after(key, later),
                Err(error) => {
                    let text = chain(&error);
                    if is_conflict(&error) {
                        tracing::debug!(
                            controller = name,
                            ?key,
                            error = text,
                            "changed meanwhile, will be tried again"
                        );
                    } else {
                        tracing::warn!(controller = name, ?key, error = text, "not settled, will be tried again");
                    }
                    queue.push_after(key, pause.unwrap_or(LONGEST_PAUSE));
                }
            }
        }
    };
    futures::future::join_all((0..workers.max(1)).map(|_| worker())).await;
}

/// Somebody else was quicker: our view was old, the next one is coming. Nothing a person should read.
fn is_conflict(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<KubeError>().is_some_and(KubeError::is_conflict)
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_comes_again_when_pushed_while_active() {
        let queue = Queue::new();
        queue.push("a");
        queue.push("a");
        assert_eq!(queue.take(), Some("a"));
        assert_eq!(queue.take(), None);
        queue.push("a");
        assert_eq!(queue.take(), None, "active keys are not handed out twice");
        assert_eq!(queue.done(&"a", None), None);
        assert_eq!(queue.take(), Some("a"));
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let queue = Queue::new();
        queue.push(1);
        queue.take();
        assert_eq!(queue.done(&1, Some(FIRST_PAUSE)), Some(FIRST_PAUSE));
        assert_eq!(queue.done(&1, Some(FIRST_PAUSE)), Some(FIRST_PAUSE * 2));
        assert_eq!(queue.done(&1, None), None);
        assert_eq!(queue.done(&1, Some(FIRST_PAUSE)), Some(FIRST_PAUSE));
        assert_eq!(pause_after(FIRST_PAUSE_AFTER_CONFLICT, 1), FIRST_PAUSE_AFTER_CONFLICT);
        assert_eq!(pause_after(FIRST_PAUSE, 1000), LONGEST_PAUSE);
    }

    #[tokio::test]
    async fn a_key_comes_by_itself_once_and_at_the_earliest_time_asked_for() {
        let queue = Queue::new();
        for pause in [60_000, 50, 50, 90_000] {
            queue.push_after("a", Duration::from_millis(pause));
        }
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.done(&"a", None), None);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(queue.take(), None);
    }
}
