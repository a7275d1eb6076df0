//! The one memory of addresses: the `IpamStorage` of this cluster, changed by as many replicas as there are.
//!
//! Every change is: read, compute ([`liqo_ipam::Plan`]), write if nobody else has written since, else again. Changes that
//! come while one is being written are written together. An answer is given only after what it says is stored, or was
//! read from the API server as it is: no address is given twice, however many replicas answer.
//!
//! Watches   `IpamStorage`.
//! Writes    `IpamStorage`: makes it, replaces its whole spec.
//! Removes   nothing.

use std::{collections::BTreeSet, sync::Arc};

use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::net::{IpamStorage, IpamStorageSpec};
use liqo_ipam::{Loaded, Plan};
use liqo_kube::{Cluster, KubeError, Queue, Store, life::Life};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::write;

/// Label of the storage.
const LABEL: &str = "net.liqo.io/ipamstorage";
/// Name of a storage we make: a fixed one, so that two replicas cannot make two. One made by Liqo 0.8.3 is found by label.
const NAME: &str = "ipamstorage";
/// Changes written together at most.
const BATCH: usize = 256;
/// How often others may be quicker before a change is given back as failed.
const ATTEMPTS: usize = 50;

/// Why a change was not made: the storage could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("address storage: {0}")]
pub(crate) struct Away(Arc<str>);

impl From<KubeError> for Away {
    fn from(error: KubeError) -> Self {
        let source = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self(format!("{error}{source}").into())
    }
}

/// A change that waits. It may be computed several times, on plans of others.
trait Job: Send {
    fn apply(&mut self, plan: &Plan) -> Plan;
    fn finish(self: Box<Self>, outcome: Result<(), Away>);
}

struct Change<T, F> {
    change: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, Away>>,
}

impl<T: Send, F: Fn(&Plan) -> (Plan, T) + Send> Job for Change<T, F> {
    fn apply(&mut self, plan: &Plan) -> Plan {
        let (new, result) = (self.change)(plan);
        self.result = Some(result);
        new
    }

    fn finish(self: Box<Self>, outcome: Result<(), Away>) {
        let Self { result, answer, .. } = *self;
        // Whoever asked may have gone.
        let _ = answer.send(outcome.map(|()| result.expect("a change was computed before it was written")));
    }
}

/// The memory of addresses. Copies share it.
#[derive(Clone)]
pub(crate) struct Ledger {
    jobs: mpsc::UnboundedSender<Box<dyn Job>>,
    latest: watch::Receiver<Option<Arc<Plan>>>,
}

impl Ledger {
    /// Starts working and watching. `differ` is called with the peers for which something has changed.
    pub(crate) fn start(
        cluster: &Cluster,
        life: &Life,
        differ: impl Fn(BTreeSet<String>) + Send + Sync + 'static,
    ) -> Self {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (publish, latest) = watch::channel(None);
        let news = Queue::new();
        let ring = news.clone();
        let stored = cluster.watch::<IpamStorage>("").labels(&format!("{LABEL}=true")).start(move |_| ring.push(()));
        life.spawn("ledger", Clerk { cluster: cluster.clone(), known: None }.work(waiting));
        life.spawn("ledger-watch", async move {
            stored.ready().await;
            news.push(());
            liqo_kube::drive("ledger", news, 1, |()| {
                publish_latest(&stored, &publish, &differ);
                std::future::ready(Ok::<_, KubeError>(None))
            })
            .await;
        });
        Self { jobs, latest }
    }

    /// Changes the plan and gives what the change gave. It is computed on what is stored, perhaps several times.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl Fn(&Plan) -> (Plan, T) + Send + 'static,
    ) -> Result<T, Away> {
        let (answer, answered) = oneshot::channel();
        let ended = || Away("the process is ending".into());
        self.jobs.send(Box::new(Change { change, result: None, answer })).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// The plan as the API server last told, a moment old.
    pub(crate) fn latest(&self) -> Option<Arc<Plan>> {
        self.latest.borrow().clone()
    }

    /// Returns when the plan is known and says which networks are ours.
    pub(crate) async fn ready(&self) {
        let known = |plan: &Option<Arc<Plan>>| plan.as_ref().is_some_and(|plan| plan.own().is_ok());
        let _ = self.latest.clone().wait_for(known).await;
    }

    /// Returns when the plan is known and does not say which networks are ours: the storage is new, or was deleted.
    pub(crate) async fn blank(&self) {
        let blank = |plan: &Option<Arc<Plan>>| plan.as_ref().is_some_and(|plan| plan.own().is_err());
        let _ = self.latest.clone().wait_for(blank).await;
    }
}

/// Tells everybody the plan as it is stored now.
fn publish_latest(
    stored: &Store<IpamStorage>,
    publish: &watch::Sender<Option<Arc<Plan>>>,
    differ: &impl Fn(BTreeSet<String>),
) {
    let all = stored.all();
    let plan = oldest(&all).map(|storage| loaded(&storage.spec)).unwrap_or_default();
    let before = publish.send_replace(Some(Arc::new(plan.clone()))).unwrap_or_default();
    let peers = before.peers_that_differ(&plan);
    if !peers.is_empty() {
        differ(peers);
    }
}

fn loaded(spec: &IpamStorageSpec) -> Plan {
    let Loaded { plan, left_out } = Plan::load(spec);
    for what in left_out {
        tracing::warn!(what, "not understood in the address storage, left out");
    }
    plan
}

/// Of several the one everybody else finds, too.
fn oldest<T: std::borrow::Borrow<IpamStorage>>(all: &[T]) -> Option<&IpamStorage> {
    all.iter().map(std::borrow::Borrow::borrow).min_by_key(|one| (one.creation_timestamp(), one.uid()))
}

/// The one who reads and writes.
struct Clerk {
    cluster: Cluster,
    /// What was last read or written; somebody else may have changed it since.
    known: Option<IpamStorage>,
}

impl Clerk {
    async fn work(mut self, mut waiting: mpsc::UnboundedReceiver<Box<dyn Job>>) {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let outcome = self.settle(&mut batch).await;
            batch.drain(..).for_each(|job| job.finish(outcome.clone()));
        }
    }

    /// Applies all jobs in order, and stores what comes out.
    async fn settle(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Away> {
        for _ in 0..ATTEMPTS {
            let (storage, is_fresh) = match self.known.take() {
                Some(storage) => (storage, false),
                None => (self.read().await?, true),
            };
            let before = loaded(&storage.spec);
            let after = batch.iter_mut().fold(before, |plan, job| job.apply(&plan)).store();
            if after == storage.spec {
                // Without a write there is no conflict to show that the known storage is old: read the storage again.
                if is_fresh {
                    self.known = Some(storage);
                    return Ok(());
                }
                continue;
            }
            match write::put(&self.cluster, &storage, true, &[("/spec", json!(after))]).await {
                Ok(stored) => {
                    self.known = Some(stored);
                    return Ok(());
                }
                Err(error) if error.is_conflict() || is_stale(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Away("others have changed it all the time".into()))
    }

    async fn read(&self) -> Result<IpamStorage, Away> {
        loop {
            let all = self.cluster.list::<IpamStorage>("", &format!("{LABEL}=true")).await?;
            if let Some(storage) = oldest(&all) {
                return Ok(storage.clone());
            }
            let mut new = IpamStorage::new(NAME, IpamStorageSpec::default());
            new.metadata = ObjectMeta { labels: Some([(LABEL.to_owned(), "true".to_owned())].into()), ..new.metadata };
            match self.cluster.create(&new).await {
                Ok(storage) => return Ok(storage),
                Err(error) if error.is_conflict() => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Deleted and made anew meanwhile: gone, or its UID is another one, which the API server calls unprocessable.
fn is_stale(error: &KubeError) -> bool {
    error.is_not_found() || error.code() == Some(422)
}
