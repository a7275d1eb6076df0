//! Keys that wait to be settled; [`crate::drive`] settles them.
//!
//! Invariants: a key waits at most once; a key is never settled twice at the same time; a key pushed while it is being
//! settled is settled again afterwards. Keys belong to owners, and owners take turns: before the only waiting key of an
//! owner is settled, no other owner has more than one key settled.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Longest pause after a failure.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Keys that wait to be settled. Copies share one queue.
pub struct Queue<K>(Arc<Inner<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

/// Tells the owners of keys apart.
type OwnerOf<K> = Box<dyn Fn(&K) -> u64 + Send + Sync>;

struct Inner<K> {
    owner: OwnerOf<K>,
    state: Mutex<State<K>>,
    news: Notify,
}

struct State<K> {
    /// Owners with waiting keys, in the order of their turns.
    turns: VecDeque<u64>,
    /// The waiting keys of each.
    order: HashMap<u64, VecDeque<K>>,
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
    /// An empty queue whose keys all belong to one owner.
    pub fn new() -> Self {
        Self::fair(|_| ())
    }

    /// An empty queue whose keys have owners: the many waiting keys of one owner do not delay the keys of another.
    pub fn fair<O: Hash>(owner: impl Fn(&K) -> O + Send + Sync + 'static) -> Self {
        let owner = move |key: &K| {
            let mut hasher = DefaultHasher::new();
            owner(key).hash(&mut hasher);
            hasher.finish()
        };
        let state = State {
            turns: VecDeque::new(),
            order: HashMap::new(),
            waiting: HashSet::new(),
            active: HashSet::new(),
            again: HashSet::new(),
            failures: HashMap::new(),
            due: HashMap::new(),
        };
        Self(Arc::new(Inner { owner: Box::new(owner), state: Mutex::new(state), news: Notify::new() }))
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
            let owner = (self.0.owner)(&key);
            let keys = state.order.entry(owner).or_default();
            keys.push_back(key);
            if keys.len() == 1 {
                state.turns.push_back(owner);
            }
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

    pub(crate) async fn next(&self) -> K {
        loop {
            if let Some(key) = self.take() {
                return key;
            }
            self.0.news.notified().await;
        }
    }

    fn take(&self) -> Option<K> {
        let mut state = self.state();
        let owner = state.turns.pop_front()?;
        let keys = state.order.get_mut(&owner)?;
        let key = keys.pop_front()?;
        if keys.is_empty() {
            state.order.remove(&owner);
        } else {
            state.turns.push_back(owner);
        }
        state.waiting.remove(&key);
        state.active.insert(key.clone());
        if !state.turns.is_empty() {
            self.0.news.notify_one();
        }
        Some(key)
    }

    /// How many keys of a queue wait, as long as the queue is there.
    pub(crate) fn depth(&self) -> impl Fn() -> Option<usize> + Send + Sync + use<K> {
        let inner: Weak<Inner<K>> = Arc::downgrade(&self.0);
        move || Some(Self(inner.upgrade()?).state().waiting.len())
    }

    /// The settling of a key was given up: the key waits again.
    pub(crate) fn give_back(&self, key: K) {
        self.state().active.remove(&key);
        self.push(key);
    }

    /// Ends the settling of a key; returns the pause before the next try if it failed, given the first one.
    pub(crate) fn done(&self, key: &K, failed: Option<Duration>) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        prelude::{prop_assert, proptest},
    };

    use super::*;

    const FIRST_PAUSE: Duration = Duration::from_millis(200);

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
        assert_eq!(pause_after(FIRST_PAUSE, 1000), LONGEST_PAUSE);
    }

    #[test]
    fn ten_thousand_keys_of_one_owner_delay_nobody() {
        let queue = Queue::fair(|(owner, _): &(&'static str, u32)| *owner);
        (0..10_000).for_each(|i| queue.push(("loud", i)));
        queue.push(("quiet", 0));
        queue.push(("shy", 0));
        let order: Vec<_> = (0..4).filter_map(|_| queue.take()).collect();
        assert_eq!(order, [("loud", 0), ("quiet", 0), ("shy", 0), ("loud", 1)]);
        queue.push(("quiet", 1));
        assert_eq!(queue.take(), Some(("loud", 2)));
        assert_eq!(queue.take(), Some(("quiet", 1)));
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 9_997, "none is lost");
    }

    proptest! {
        #[test]
        fn who_waits_is_overtaken_once_by_each_other_owner(pushes in vec((0u8..5, 0u16..50), 1..300)) {
            let queue = Queue::fair(|(owner, _): &(u8, u16)| *owner);
            let mut waiting = HashSet::new();
            for key in pushes {
                queue.push(key);
                waiting.insert(key);
            }
            let mut since: HashMap<u8, usize> = HashMap::new();
            let mut at = 0;
            while let Some(key) = queue.take() {
                prop_assert!(waiting.remove(&key), "each comes once");
                prop_assert!(at - since.insert(key.0, at).unwrap_or(0) <= 5);
                at += 1;
            }
            prop_assert!(waiting.is_empty());
        }
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
