//! Values that wait to be acted on: for each key the last one.
//!
//! Keeps true: of several values of one key only the last one is acted on, and a key is acted on at most once in a pause. Keys
//! belong to owners, and owners take turns, as in [`Queue::fair`]. The memory grows with the number of keys, never with the number
//! of values, and an owner has at most [`KEYS`] keys.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Queue, drive};

/// Keys of one owner for which something waits or was done within the pause; values of further keys are left out.
pub const KEYS: usize = 64;

/// Values that wait, by owner `O` and key `K`. Clones share the values.
pub struct Latest<O, K, V>(Arc<Inner<O, K, V>>);

struct Inner<O, K, V> {
    pause: Duration,
    queue: Queue<(O, K)>,
    held: Mutex<HashMap<(O, K), Held<V>>>,
}

/// What is known about a key.
struct Held<V> {
    value: Option<V>,
    acted: Option<Instant>,
}

/// What is to be done about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Turn<V> {
    Act(V),
    /// The pause of the key ends after this time.
    Wait(Duration),
    Nothing,
}

impl<O, K, V> Clone for Latest<O, K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O, K, V> fmt::Debug for Latest<O, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latest")
    }
}

impl<O, K, V> Latest<O, K, V>
where
    O: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    V: Clone + PartialEq + Send + 'static,
{
    /// Without values. A key is acted on at most once in `pause`; the first value of a key does not wait.
    pub fn new(pause: Duration) -> Self {
        let queue = Queue::fair(|(owner, _): &(O, K)| owner.clone());
        Self(Arc::new(Inner { pause, queue, held: Mutex::default() }))
    }

    /// Lets a value wait, in place of the value of the same key that waits.
    pub fn push(&self, owner: O, key: K, value: V) {
        let at = (owner, key);
        let mut all = self.lock();
        if let Some(held) = all.get_mut(&at) {
            held.value = Some(value);
        } else if all.keys().filter(|(owner, _)| *owner == at.0).count() < KEYS {
            all.insert(at.clone(), Held { value: Some(value), acted: None });
        } else {
            return;
        }
        drop(all);
        self.0.queue.push(at);
    }

    /// The value that waits for a key no longer counts.
    pub fn withdraw(&self, owner: O, key: K) {
        if let Some(held) = self.lock().get_mut(&(owner, key)) {
            held.value = None;
        }
    }

    /// Acts on values for ever, on one at a time. A value whose action failed waits on, unless another one took its place.
    pub async fn drive<E, F>(&self, name: &'static str, act: impl Fn(K, V) -> F + Send + Sync)
    where
        E: Error + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send,
    {
        drive(name, self.0.queue.clone(), 1, |at| {
            let turn = self.turn(&at, Instant::now());
            let action = match &turn {
                Turn::Act(value) => Some(act(at.1.clone(), value.clone())),
                Turn::Wait(_) | Turn::Nothing => None,
            };
            async move {
                match (turn, action) {
                    (Turn::Act(value), Some(action)) => {
                        let outcome = action.await;
                        self.acted(&at, Some(&value).filter(|_| outcome.is_ok()), Instant::now());
                        outcome.map(|()| Some(self.0.pause))
                    }
                    (Turn::Wait(rest), _) => Ok(Some(rest)),
                    _ => Ok(None),
                }
            }
        })
        .await;
    }

    fn turn(&self, at: &(O, K), now: Instant) -> Turn<V> {
        let mut all = self.lock();
        let Some(held) = all.get(at) else { return Turn::Nothing };
        let rest = held.acted.map(|acted| (acted + self.0.pause).saturating_duration_since(now));
        match (rest.filter(|rest| !rest.is_zero()), &held.value) {
            (Some(rest), _) => Turn::Wait(rest),
            (None, Some(value)) => Turn::Act(value.clone()),
            (None, None) => {
                all.remove(at);
                Turn::Nothing
            }
        }
    }

    /// Notes that the key was acted on, and that the value `done`, if any, no longer waits.
    fn acted(&self, at: &(O, K), done: Option<&V>, now: Instant) {
        if let Some(held) = self.lock().get_mut(at) {
            held.acted = Some(now);
            held.value.take_if(|waits| Some(&*waits) == done);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(O, K), Held<V>>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    fn at(owner: &'static str, key: usize) -> (&'static str, usize) {
        (owner, key)
    }

    #[test]
    fn ten_thousand_values_take_the_memory_of_one_and_the_last_one_counts() {
        let latest = Latest::new(PAUSE);
        (0..10_000).for_each(|value| latest.push("loud", 0, value));
        latest.push("quiet", 0, 7);
        assert_eq!((latest.lock().len(), latest.0.queue.depth()()), (2, Some(2)));
        let now = Instant::now();
        assert_eq!(latest.turn(&at("loud", 0), now), Turn::Act(9_999));
        assert_eq!(latest.turn(&at("quiet", 0), now), Turn::Act(7));
    }

    #[test]
    fn keys_of_one_owner_are_bounded_and_take_no_place_of_another() {
        let latest = Latest::new(PAUSE);
        (0..10_000).for_each(|key| latest.push("loud", key, ()));
        latest.push("quiet", 0, ());
        assert_eq!(latest.lock().len(), KEYS + 1);
        assert_eq!(latest.turn(&at("quiet", 0), Instant::now()), Turn::Act(()));
        assert_eq!(latest.turn(&at("loud", KEYS), Instant::now()), Turn::Nothing);
    }

    #[test]
    fn a_key_is_acted_on_once_in_a_pause_and_then_forgotten() {
        let (latest, start) = (Latest::new(PAUSE), Instant::now());
        let one = at("peer", 0);
        latest.push("peer", 0, "a");
        latest.push("peer", 0, "b");
        latest.acted(&one, None, start);
        assert_eq!(latest.turn(&one, start), Turn::Wait(PAUSE), "an action that failed is repeated after the pause");
        latest.acted(&one, Some(&"a"), start);
        assert_eq!(latest.turn(&one, start), Turn::Wait(PAUSE), "another value came meanwhile");
        assert_eq!(latest.turn(&one, start + PAUSE), Turn::Act("b"));
        latest.acted(&one, Some(&"b"), start + PAUSE);
        latest.push("peer", 0, "c");
        latest.withdraw("peer", 0);
        assert_eq!(latest.turn(&one, start + PAUSE * 2), Turn::Nothing);
        assert_eq!(latest.lock().len(), 0);
    }

    #[tokio::test]
    async fn a_value_whose_action_failed_is_acted_on_again() {
        let latest = Latest::new(Duration::from_millis(10));
        latest.push("peer", 0, "a");
        let tries = Mutex::new(Vec::new());
        let all = latest.drive("latest-test", |key, value| {
            let mut tries = tries.lock().unwrap();
            tries.push((key, value));
            let fails = tries.len() == 1;
            async move { if fails { Err(std::io::Error::other("no")) } else { Ok(()) } }
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), all).await.is_err());
        assert_eq!(*tries.lock().unwrap(), [(0, "a"), (0, "a")]);
        assert_eq!(latest.lock().len(), 0);
    }
}
