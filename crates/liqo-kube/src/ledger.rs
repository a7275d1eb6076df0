//! A value that several replicas change, kept in one object of a cluster.
//!
//! Every change is: read, compute, write if nobody else has written since, else again. Changes that come while one is being
//! written are written together.
//!
//! Keeps true: an answer is given only after what it says is stored, or was read from the API server as it is. So nothing is
//! given twice, however many replicas answer, and nothing that was told is lost.

use std::{borrow::Borrow, sync::Arc};

use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Cluster, KubeError, Object, Queue, Store, drive::drive, life::Life};

/// Changes written together at most.
const BATCH: usize = 256;
/// How often others may be quicker before a change is given back as failed.
const ATTEMPTS: usize = 50;

/// How a value is kept in the field `spec` of one object.
pub trait Kept: Send + Sync + 'static {
    /// The value; [`Default`] is the value of an object that is not there.
    type Value: Clone + Default + Send + Sync + 'static;
    /// The kind of the object.
    type Object: Object;
    /// The field of the object.
    type Spec: PartialEq + Serialize + Send;

    /// Names the ledger in errors, logs and metrics.
    const NAME: &'static str;
    /// The label, `key=value`, by which the object is found; of several objects the oldest counts.
    const LABEL: &'static str;

    /// The object before anything is kept in it. The name is always the same, so that two replicas cannot make two objects.
    fn blank() -> Self::Object;
    /// The stored field of an object.
    fn spec(object: &Self::Object) -> &Self::Spec;
    /// Reads what is stored. Never fails: what is not understood is left out.
    fn load(spec: &Self::Spec) -> Self::Value;
    /// The field to store for a value.
    fn store(value: &Self::Value) -> Self::Spec;
}

/// Why a change was not made: the object could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{ledger} cannot be changed: {why}")]
pub struct Away {
    ledger: &'static str,
    why: Arc<str>,
}

impl Away {
    fn new<K: Kept>(why: &str) -> Self {
        Self { ledger: K::NAME, why: why.into() }
    }

    fn of<K: Kept>(error: &KubeError) -> Self {
        Self::new::<K>(&crate::drive::chain(error))
    }
}

/// A change that waits. It may be computed several times, on values of others.
trait Job<V>: Send {
    fn apply(&mut self, value: &V) -> V;
    fn finish(self: Box<Self>, outcome: Result<(), Away>);
}

type Jobs<V> = Vec<Box<dyn Job<V>>>;

struct Change<T, F> {
    change: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, Away>>,
}

impl<V, T: Send, F: Fn(&V) -> (V, T) + Send> Job<V> for Change<T, F> {
    fn apply(&mut self, value: &V) -> V {
        let (new, result) = (self.change)(value);
        self.result = Some(result);
        new
    }

    fn finish(self: Box<Self>, outcome: Result<(), Away>) {
        let Self { result, answer, .. } = *self;
        // The caller may have stopped waiting for the answer.
        let _ = answer.send(outcome.map(|()| result.expect("a change was computed before it was written")));
    }
}

/// The ledger of one value. Copies share it.
pub struct Ledger<K: Kept> {
    jobs: mpsc::UnboundedSender<Box<dyn Job<K::Value>>>,
    latest: watch::Receiver<Option<Arc<K::Value>>>,
}

impl<K: Kept> Clone for Ledger<K> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), latest: self.latest.clone() }
    }
}

impl<K: Kept> Ledger<K> {
    /// Starts working and watching. `differ` is called with the value before and after each change that the API server tells.
    pub fn start(
        cluster: &Cluster,
        life: &Life,
        differ: impl Fn(&K::Value, &K::Value) + Send + Sync + 'static,
    ) -> Self {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (publish, latest) = watch::channel(None);
        let news = Queue::new();
        let ring = news.clone();
        let stored = cluster.watch::<K::Object>("").labels(K::LABEL).start(move |_| ring.push(()));
        life.spawn(K::NAME, Clerk::<K> { cluster: cluster.clone(), known: None }.work(waiting));
        life.spawn(K::NAME, async move {
            stored.ready().await;
            news.push(());
            drive(K::NAME, news, 1, |()| {
                publish_latest::<K>(&stored, &publish, &differ);
                std::future::ready(Ok::<_, KubeError>(None))
            })
            .await;
        });
        Self { jobs, latest }
    }

    /// Changes the value and gives what the change gave. The change is computed on what is stored, perhaps several times.
    ///
    /// # Errors
    /// When the object cannot be read or written; the change is not made.
    pub async fn change<T: Send + 'static>(
        &self,
        change: impl Fn(&K::Value) -> (K::Value, T) + Send + 'static,
    ) -> Result<T, Away> {
        let (answer, answered) = oneshot::channel();
        let ended = || Away::new::<K>("the process is ending");
        self.jobs.send(Box::new(Change { change, result: None, answer })).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// The value as the API server last told, a moment old.
    pub fn latest(&self) -> Option<Arc<K::Value>> {
        self.latest.borrow().clone()
    }

    /// Returns when the value is known and `holds`.
    pub async fn until(&self, holds: impl Fn(&K::Value) -> bool) {
        let known = |value: &Option<Arc<K::Value>>| value.as_ref().is_some_and(|value| holds(value));
        let _ = self.latest.clone().wait_for(known).await;
    }
}

/// Tells everybody the value as it is stored now.
fn publish_latest<K: Kept>(
    stored: &Store<K::Object>,
    publish: &watch::Sender<Option<Arc<K::Value>>>,
    differ: &impl Fn(&K::Value, &K::Value),
) {
    let all = stored.all();
    let value = oldest(&all).map(|object| K::load(K::spec(object))).unwrap_or_default();
    let before = publish.send_replace(Some(Arc::new(value.clone()))).unwrap_or_default();
    differ(&before, &value);
}

/// Of several objects the one that every replica finds.
fn oldest<O: Object, T: Borrow<O>>(all: &[T]) -> Option<&O> {
    all.iter().map(Borrow::borrow).min_by_key(|one| (one.creation_timestamp(), one.uid()))
}

/// The one task that reads and writes.
struct Clerk<K: Kept> {
    cluster: Cluster,
    /// What was last read or written; somebody else may have changed it since.
    known: Option<K::Object>,
}

impl<K: Kept> Clerk<K> {
    async fn work(mut self, mut waiting: mpsc::UnboundedReceiver<Box<dyn Job<K::Value>>>) {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let outcome = self.settle(&mut batch).await;
            batch.drain(..).for_each(|job| job.finish(outcome.clone()));
        }
    }

    /// Applies all changes in order, and stores what comes out.
    async fn settle(&mut self, batch: &mut Jobs<K::Value>) -> Result<(), Away> {
        for _ in 0..ATTEMPTS {
            let (object, is_fresh) = match self.known.take() {
                Some(object) => (object, false),
                None => (self.read().await?, true),
            };
            let before = K::load(K::spec(&object));
            let after = K::store(&batch.iter_mut().fold(before, |value, job| job.apply(&value)));
            if after == *K::spec(&object) {
                // Without a write there is no conflict to show that the known object is old: read the object again.
                if is_fresh {
                    self.known = Some(object);
                    return Ok(());
                }
                continue;
            }
            match self.cluster.put(&object, true, &[("/spec", json!(after))]).await {
                Ok(stored) => {
                    self.known = Some(stored);
                    return Ok(());
                }
                Err(error) if error.is_conflict() || is_stale(&error) => {}
                Err(error) => return Err(Away::of::<K>(&error)),
            }
        }
        Err(Away::new::<K>("others have changed it all the time"))
    }

    async fn read(&self) -> Result<K::Object, Away> {
        loop {
            let all = self.cluster.list::<K::Object>("", K::LABEL).await.map_err(|error| Away::of::<K>(&error))?;
            if let Some(object) = oldest::<K::Object, _>(&all) {
                return Ok(object.clone());
            }
            match self.cluster.create(&K::blank()).await {
                Ok(object) => return Ok(object),
                Err(error) if error.is_conflict() => tokio::task::yield_now().await,
                Err(error) => return Err(Away::of::<K>(&error)),
            }
        }
    }
}

/// Deleted and made anew meanwhile: gone, or its UID is another one, which the API server calls unprocessable.
fn is_stale(error: &KubeError) -> bool {
    error.is_not_found() || error.code() == Some(422)
}
