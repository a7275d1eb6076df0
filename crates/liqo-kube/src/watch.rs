//! What an API server holds, kept in memory.
//!
//! A malformed object is logged and left out, it never stops a watch. A broken watch is resumed with
//! a short back-off, for as long as anybody holds the store.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
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
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    trim: fn(&mut K),
    calls: Arc<Calls>,
}

/// Forgets what no decision reads: the managed fields, which are half of an object.
pub fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

impl<K: Object> Watch<K> {
    pub(crate) fn new(api: Api<DeserializeGuard<K>>, calls: Arc<Calls>) -> Self {
        Self { api, config: watcher::Config::default().page_size(200), trim: strip, calls }
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
        let objects: Objects<K> = Arc::default();
        let (ready, is_ready) = watch::channel(false);
        let task = tokio::spawn(keep(self, Arc::clone(&objects), ready, seen));
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

async fn keep<K: Object>(
    watch: Watch<K>,
    objects: Objects<K>,
    ready: watch::Sender<bool>,
    seen: impl Fn(&K) + Send + Sync + 'static,
) {
    let Watch { api, config, trim, calls } = watch;
    let mut events = watcher::watcher(api, config).backoff(Pause::default()).boxed();
    let mut listed: HashMap<Key, Arc<K>> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                calls.add("watch", &K::kind(&()));
                listed.clear();
            }
            Ok(Event::InitApply(object)) => {
                if let Some((key, object)) = accept(object, trim) {
                    listed.insert(key, object);
                }
            }
            Ok(Event::InitDone) => {
                listed.shrink_to_fit();
                let new = std::mem::take(&mut listed);
                let old = std::mem::replace(&mut *write(&objects), new);
                ready.send_replace(true);
                let current: Vec<_> = write(&objects).values().cloned().collect();
                old.values().chain(&current).for_each(|object| seen(object));
            }
            Ok(Event::Apply(object)) => {
                let Some((key, object)) = accept(object, trim) else { continue };
                let old = write(&objects).insert(key, Arc::clone(&object));
                old.iter().chain([&object]).for_each(|object| seen(object));
            }
            Ok(Event::Delete(object)) => {
                let Some((key, object)) = accept(object, trim) else { continue };
                write(&objects).remove(&key);
                seen(&object);
            }
            Err(error) => {
                tracing::debug!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "watch interrupted");
            }
        }
    }
}

fn write<K>(objects: &Objects<K>) -> std::sync::RwLockWriteGuard<'_, HashMap<Key, Arc<K>>> {
    objects.write().unwrap_or_else(PoisonError::into_inner)
}

fn accept<K: Object>(object: DeserializeGuard<K>, trim: fn(&mut K)) -> Option<(Key, Arc<K>)> {
    match object.0 {
        Ok(mut object) => {
            trim(&mut object);
            let key = (object.namespace().unwrap_or_default(), object.name_any());
            Some((key, Arc::new(object)))
        }
        Err(invalid) => {
            let name = invalid.metadata.name.unwrap_or_default();
            tracing::warn!(kind = %K::kind(&()), name, error = invalid.error, "malformed object left out");
            None
        }
    }
}

/// 200 ms, doubling to [`LONGEST_PAUSE`], started over as soon as a watch works.
#[derive(Debug, Default)]
struct Pause(u32);

impl Iterator for Pause {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.saturating_add(1).min(6);
        Some(Duration::from_millis(100 << self.0).min(LONGEST_PAUSE))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = 0;
    }
}
