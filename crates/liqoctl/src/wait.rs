//! Waiting for an object to become what was wished: by watching it, never by sleeping.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::anyhow;
use liqo_kube::{Cluster, Object, Store};
use tokio::{sync::Notify, time::Instant};

/// When patience ends, shared by all waits of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `limit` from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// The same, but no later than `limit` from now.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self(self.0.min(Instant::now() + limit))
    }

    /// Whether patience has ended.
    pub(crate) fn is_over(self) -> bool {
        self.0 <= Instant::now()
    }
}

/// What kubectl says, too.
#[derive(Debug, thiserror::Error)]
#[error("timed out waiting for the condition")]
pub(crate) struct TimedOut;

/// Does `work` until it is done or somebody presses Ctrl-C.
pub(crate) async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted: what was written stays, run the command again to continue")),
    }
}

/// Objects that are watched.
pub(crate) struct Watched<K> {
    store: Store<K>,
    changed: Arc<Notify>,
}

impl<K: Object> Watched<K> {
    /// Watches the one object of this name.
    pub(crate) fn one(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        Self::start(cluster.watch(namespace).fields(&format!("metadata.name={name}")))
    }

    /// Watches all objects with these labels.
    pub(crate) fn labelled(cluster: &Cluster, namespace: &str, selector: &str) -> Self {
        Self::start(cluster.watch(namespace).labels(selector))
    }

    fn start(watch: liqo_kube::Watch<K>) -> Self {
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        Self { store: watch.start(move |_| notify.notify_one()), changed }
    }

    /// Waits until `check` makes something of what there is.
    pub(crate) async fn until<T>(
        &self,
        deadline: Deadline,
        mut check: impl FnMut(&[Arc<K>]) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let found = async {
            self.store.ready().await;
            loop {
                if let Some(found) = check(&self.store.all()) {
                    return found;
                }
                // `check` may depend on the time, too.
                let _ = tokio::time::timeout(Duration::from_millis(200), self.changed.notified()).await;
            }
        };
        tokio::time::timeout_at(deadline.0, found).await.map_err(|_| TimedOut)
    }

    /// Waits until there is nothing left.
    pub(crate) async fn gone(&self, deadline: Deadline) -> Result<(), TimedOut> {
        self.until(deadline, |all| all.is_empty().then_some(())).await
    }

    /// What there is now.
    pub(crate) fn now(&self) -> Vec<Arc<K>> {
        self.store.all()
    }
}
