//! What an API server holds, kept in memory.
//!
//! A malformed object is logged and left out, it never stops a watch. A broken watch is resumed with
//! a short back-off, for as long as anybody holds the store.
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

use crate::{Object, count::Calls};

/// Longest pause between two attempts to watch.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A watch that has not been started.
pub struct Watch<K: Resource> {
    api: Api<DynamicObject>,
    kind: String,
    config: watcher::Config,
    trim: fn(&mut K),
    calls: Arc<Calls>,
}

/// Forgets what no decision reads: the managed fields, which are half of an object.
pub fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

impl<K: Object> Watch<K> {
    pub(crate) fn new(api: Api<DynamicObject>, kind: String, calls: Arc<Calls>) -> Self {
        Self { api, kind, config: watcher::Config::default().page_size(200), trim: strip, calls }
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

    /// What to forget of each object before it is stored; [`strip`] unless said otherwise.
    #[must_use]
    pub fn trim(mut self, trim: fn(&mut K)) -> Self {
        self.trim = trim;
        self
    }

    /// Starts watching. `seen` is called with every object that came, changed (before and after) or went;
    /// after a relist with every object. It must be quick.
    pub fn start(self, seen: impl Fn(&K) + Send + Sync + 'static) -> Store<K> {
        let Self { api, kind, config, trim, calls } = self;
        let objects: Objects<K> = Arc::default();
        let (ready, is_ready) = watch::channel(false);
        let held = Held { objects: Arc::clone(&objects), listed: HashMap::new(), trim, seen };
        let task = tokio::spawn(keep(api, config, kind, calls, ready, Box::new(held)));
        Store { objects, is_ready, _task: Arc::new(Abort(task)) }
    }
}

type Key = (String, String);
type Objects<K> = Arc<RwLock<HashMap<Key, Arc<K>>>>;

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
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// All objects, in no order.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The objects that `wanted` accepts, in no order.
    pub fn filter(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().filter(|object| wanted(object)).cloned().collect()
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

/// Where a watch puts what it sees. What differs between kinds is behind this, so that the watch itself is
/// compiled once.
trait Keeper: Send {
    /// A list begins.
    fn begin(&mut self);
    /// A list has this object.
    fn list(&mut self, object: DynamicObject) -> Result<(), serde_json::Error>;
    /// The list is complete.
    fn listed(&mut self);
    /// An object came or changed.
    fn apply(&mut self, object: DynamicObject) -> Result<(), serde_json::Error>;
    /// An object went.
    fn delete(&mut self, object: DynamicObject) -> Result<(), serde_json::Error>;
}

struct Held<K, F> {
    objects: Objects<K>,
    listed: HashMap<Key, Arc<K>>,
    trim: fn(&mut K),
    seen: F,
}

impl<K: Object, F: Fn(&K) + Send> Held<K, F> {
    fn objects(&self) -> RwLockWriteGuard<'_, HashMap<Key, Arc<K>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, object: DynamicObject) -> Result<(Key, Arc<K>), serde_json::Error> {
        let mut object: K = serde_json::from_value(serde_json::to_value(object)?)?;
        (self.trim)(&mut object);
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        Ok((key, Arc::new(object)))
    }
}

impl<K: Object, F: Fn(&K) + Send> Keeper for Held<K, F> {
    fn begin(&mut self) {
        self.listed.clear();
    }

    fn list(&mut self, object: DynamicObject) -> Result<(), serde_json::Error> {
        let (key, object) = self.accept(object)?;
        self.listed.insert(key, object);
        Ok(())
    }

    fn listed(&mut self) {
        self.listed.shrink_to_fit();
        let new = std::mem::take(&mut self.listed);
        let current: Vec<_> = new.values().cloned().collect();
        let old = std::mem::replace(&mut *self.objects(), new);
        old.values().chain(&current).for_each(|object| (self.seen)(object));
    }

    fn apply(&mut self, object: DynamicObject) -> Result<(), serde_json::Error> {
        let (key, object) = self.accept(object)?;
        let old = self.objects().insert(key, Arc::clone(&object));
        old.iter().chain([&object]).for_each(|object| (self.seen)(object));
        Ok(())
    }

    fn delete(&mut self, object: DynamicObject) -> Result<(), serde_json::Error> {
        let (key, object) = self.accept(object)?;
        self.objects().remove(&key);
        (self.seen)(&object);
        Ok(())
    }
}

async fn keep(
    api: Api<DynamicObject>,
    config: watcher::Config,
    kind: String,
    calls: Arc<Calls>,
    ready: watch::Sender<bool>,
    mut keeper: Box<dyn Keeper>,
) {
    let mut events = watcher::watcher(api, config).backoff(Pause::default()).boxed();
    while let Some(event) = events.next().await {
        let (name, outcome) = match event {
            Ok(Event::Init) => {
                calls.add("watch", &kind);
                keeper.begin();
                continue;
            }
            Ok(Event::InitDone) => {
                keeper.listed();
                ready.send_replace(true);
                continue;
            }
            Ok(Event::InitApply(object)) => (object.name_any(), keeper.list(object)),
            Ok(Event::Apply(object)) => (object.name_any(), keeper.apply(object)),
            Ok(Event::Delete(object)) => (object.name_any(), keeper.delete(object)),
            Err(error) => {
                tracing::debug!(kind, error = &error as &dyn std::error::Error, "watch interrupted");
                continue;
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(kind, name, error = %error, "malformed object left out");
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
