//! What an API server holds, kept in memory.
//!
//! A malformed object is logged and left out, it never stops a watch. A broken watch is resumed with
//! a short back-off, for as long as anybody holds the store. A cluster that shows more than may be kept of it is asked
//! again after a longer pause; until then the store stays as it was.
#![expect(clippy::disallowed_types, reason = "the watches of the one door to API servers")]

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    api::DynamicObject,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event},
    },
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    Object,
    budget::{Budget, Room, TooMuch, weight},
    cluster::LIST_DEADLINE,
    count::Calls,
    guard::{guarded, guarded_now},
};

/// Longest pause between two attempts to watch.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Pause before a cluster that shows too much is asked again.
const PAUSE_AFTER_TOO_MUCH: Duration = Duration::from_secs(60);

/// A watch that has not been started.
pub struct Watch<K: Resource> {
    api: Api<DynamicObject>,
    kind: String,
    config: watcher::Config,
    trim: fn(&mut K),
    calls: Arc<Calls>,
    budget: Arc<Budget>,
}

/// Forgets what no decision reads: the managed fields, which are half of an object.
pub fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

impl<K: Object> Watch<K> {
    pub(crate) fn new(api: Api<DynamicObject>, kind: String, calls: Arc<Calls>, budget: Arc<Budget>) -> Self {
        Self { api, kind, config: watcher::Config::default().page_size(200), trim: strip, calls, budget }
    }

    /// Only objects that match a label selector.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Only objects that match a field selector.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.config = self.config.fields(selector);
        self
    }

    /// Objects of one answer of the API server, 200 unless said otherwise: for kinds with large objects.
    #[must_use]
    pub fn pages(mut self, objects: u32) -> Self {
        self.config = self.config.page_size(objects);
        self
    }

    /// What to forget of each object before it is stored; [`strip`] unless said otherwise.
    #[must_use]
    pub fn trim(mut self, trim: fn(&mut K)) -> Self {
        self.trim = trim;
        self
    }

    /// Starts watching. `seen` is called with every object that came, changed (before and after) or went;
    /// after a relist with every object. It must be quick.
    pub fn start(self, seen: impl Fn(&K) + Send + Sync + 'static) -> Store<K> {
        self.start_with_changes(move |before, after| before.into_iter().chain(after).for_each(&seen))
    }

    /// Starts watching. `seen` is called with every object that came, changed or went, as the object was before and as the object
    /// is now; after a relist with every object. It must be quick.
    pub fn start_with_changes(self, seen: impl Fn(Option<&K>, Option<&K>) + Send + Sync + 'static) -> Store<K> {
        let Self { api, kind, config, trim, calls, budget } = self;
        let objects: Objects<K> = Arc::default();
        let (ready, is_ready) = watch::channel(false);
        let held = Held { objects: Arc::clone(&objects), listed: HashMap::new(), trim, seen, budget };
        let task = tokio::spawn(keep(Source { api, config, kind, calls, ready }, Box::new(held)));
        Store { objects, is_ready, _task: Arc::new(Abort(task)) }
    }
}

type Key = (String, String);
type Objects<K> = Arc<RwLock<HashMap<Key, Kept<K>>>>;

/// An object and the room it takes.
struct Kept<K> {
    object: Arc<K>,
    _room: Room,
}

/// The objects of a watch. The watch ends with the last copy of its store.
pub struct Store<K> {
    objects: Objects<K>,
    is_ready: watch::Receiver<bool>,
    _task: Arc<Abort>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { objects: Arc::clone(&self.objects), is_ready: self.is_ready.clone(), _task: Arc::clone(&self._task) }
    }
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<K> Store<K> {
    /// The object, if it exists. Cluster-wide kinds have the empty namespace.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(&key).map(|kept| Arc::clone(&kept.object))
    }

    /// All objects, in no order.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.filter(|_| true)
    }

    /// The objects that `wanted` accepts, in no order.
    pub fn filter(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().map(|kept| &kept.object).filter(|object| wanted(object)).cloned().collect()
    }

    /// Returns when the first list is complete.
    pub async fn ready(&self) {
        // The sender lives as long as the task, which lives as long as this store.
        let _ = self.is_ready.clone().wait_for(|ready| *ready).await;
    }

    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        *self.is_ready.borrow()
    }
}

/// Why an object is not kept.
#[derive(Debug, thiserror::Error)]
enum Unkept {
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

/// Where a watch puts what it sees. What differs between kinds is behind this, so that the watch itself is
/// compiled once.
trait Keeper: Send {
    /// A list begins.
    fn begin(&mut self);
    /// A list has this object.
    fn list(&mut self, object: DynamicObject) -> Result<(), Unkept>;
    /// The list is complete.
    fn listed(&mut self);
    /// An object came or changed.
    fn apply(&mut self, object: DynamicObject) -> Result<(), Unkept>;
    /// An object went.
    fn delete(&mut self, object: DynamicObject) -> Result<(), Unkept>;
}

struct Held<K, F> {
    objects: Objects<K>,
    listed: HashMap<Key, Kept<K>>,
    trim: fn(&mut K),
    seen: F,
    budget: Arc<Budget>,
}

impl<K: Object, F: Fn(Option<&K>, Option<&K>) + Send> Held<K, F> {
    fn objects(&self) -> RwLockWriteGuard<'_, HashMap<Key, Kept<K>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The typed object and the room it takes.
    fn accept(&self, object: DynamicObject) -> Result<Kept<K>, Unkept> {
        let object = serde_json::to_value(object)?;
        let bytes = weight(&object);
        let mut object: K = serde_json::from_value(object)?;
        (self.trim)(&mut object);
        Ok(Kept { object: Arc::new(object), _room: self.budget.room(bytes)? })
    }

    fn forget(&self, key: &Key) -> Option<Arc<K>> {
        self.objects().remove(key).map(|kept| kept.object)
    }
}

fn key(object: &DynamicObject) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<K: Object, F: Fn(Option<&K>, Option<&K>) + Send> Keeper for Held<K, F> {
    fn begin(&mut self) {
        self.listed = HashMap::new();
    }

    fn list(&mut self, object: DynamicObject) -> Result<(), Unkept> {
        let key = key(&object);
        let kept = self.accept(object)?;
        self.listed.insert(key, kept);
        Ok(())
    }

    fn listed(&mut self) {
        self.listed.shrink_to_fit();
        let new = std::mem::take(&mut self.listed);
        let current: Vec<_> = new.iter().map(|(key, kept)| (key.clone(), Arc::clone(&kept.object))).collect();
        let mut old = std::mem::replace(&mut *self.objects(), new);
        for (key, object) in current {
            let before = old.remove(&key);
            (self.seen)(before.as_ref().map(|kept| &*kept.object), Some(&object));
        }
        old.values().for_each(|kept| (self.seen)(Some(&kept.object), None));
    }

    fn apply(&mut self, object: DynamicObject) -> Result<(), Unkept> {
        let key = key(&object);
        let kept = match self.accept(object) {
            Err(error @ Unkept::Malformed(_)) => {
                // The version in the store no longer exists. A new list would leave the object out as well.
                self.forget(&key).iter().for_each(|old| (self.seen)(Some(old), None));
                return Err(error);
            }
            accepted => accepted?,
        };
        let object = Arc::clone(&kept.object);
        let old = self.objects().insert(key, kept);
        (self.seen)(old.as_ref().map(|kept| &*kept.object), Some(&object));
        Ok(())
    }

    fn delete(&mut self, object: DynamicObject) -> Result<(), Unkept> {
        let old = self.forget(&key(&object));
        // The last state carries what the watchers' keys are made of. Where it is malformed, the stored one does.
        match (self.accept(object), old) {
            (Ok(last), _) => (self.seen)(Some(&last.object), None),
            (Err(_), Some(old)) => (self.seen)(Some(&old), None),
            (Err(error), None) => return Err(error),
        }
        Ok(())
    }
}

/// What is watched.
struct Source {
    api: Api<DynamicObject>,
    config: watcher::Config,
    kind: String,
    calls: Arc<Calls>,
    ready: watch::Sender<bool>,
}

/// Why a watch begins anew after a long pause.
#[derive(Debug, thiserror::Error)]
enum Excess {
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    #[error("the list did not end within {} s", LIST_DEADLINE.as_secs())]
    Endless,
}

async fn keep(source: Source, mut keeper: Box<dyn Keeper>) {
    let kind = source.kind.as_str();
    loop {
        match guarded("watch", follow(&source, &mut *keeper)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                source.calls.refuse(kind);
                tracing::warn!(kind, error = %error, "not watched for {} s", PAUSE_AFTER_TOO_MUCH.as_secs());
            }
            Err(panic) => tracing::error!(kind, error = %panic, "watch starts over"),
        }
        keeper.begin();
        tokio::time::sleep(PAUSE_AFTER_TOO_MUCH).await;
    }
}

async fn follow(source: &Source, keeper: &mut dyn Keeper) -> Result<(), Excess> {
    let Source { api, config, kind, calls, ready } = source;
    let mut events = watcher::watcher(api.clone(), config.clone()).backoff(Pause::default()).boxed();
    let mut listed_by = None;
    loop {
        let next = match listed_by {
            Some(by) => tokio::time::timeout_at(by, events.next()).await.map_err(|_| Excess::Endless)?,
            None => events.next().await,
        };
        let Some(event) = next else { return Ok(()) };
        let (name, outcome) = match event {
            Ok(Event::Init) => {
                calls.add("watch", kind);
                keeper.begin();
                listed_by = Some(tokio::time::Instant::now() + LIST_DEADLINE);
                continue;
            }
            Ok(Event::InitDone) => {
                let _ = guarded_now("watch", || keeper.listed());
                ready.send_replace(true);
                listed_by = None;
                continue;
            }
            Ok(Event::InitApply(object)) => (object.name_any(), guarded_now("watch", || keeper.list(object))),
            Ok(Event::Apply(object)) => (object.name_any(), guarded_now("watch", || keeper.apply(object))),
            Ok(Event::Delete(object)) => (object.name_any(), guarded_now("watch", || keeper.delete(object))),
            Err(error) => {
                tracing::debug!(kind, error = &error as &dyn std::error::Error, "watch interrupted");
                listed_by = None;
                continue;
            }
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(Unkept::TooMuch(error))) => return Err(error.into()),
            Ok(Err(Unkept::Malformed(error))) => {
                tracing::warn!(kind, name, error = %error, "malformed object left out")
            }
            Err(panic) => tracing::error!(kind, name, error = %panic, "object left out"),
        }
    }
}

/// 200 ms, doubling to [`LONGEST_PAUSE`], started over when a watch has worked for a while: the beginning of a list
/// that is then refused counts as success, too.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Pause {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1).min(6);
        self.last = Some(Instant::now());
        Some(Duration::from_millis(100 << self.failures).min(LONGEST_PAUSE))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        if self.last.is_none_or(|last| last.elapsed() > LONGEST_PAUSE * 2) {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests;
