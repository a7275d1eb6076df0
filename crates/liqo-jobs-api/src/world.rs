//! The jobs as they are, and what this role can do with them.

use std::sync::Arc;

use kube::ResourceExt;
use liqo_api::jobs::{Job, JobTemplate};
use liqo_jobs::JobStore;
use liqo_kube::{Cluster, Store};
use tokio::sync::{Semaphore, watch};

use crate::links::Links;

/// Manifests that are read at the same time.
const READING: usize = 4;

/// Everything the handlers share besides the front.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
    pub(crate) store: JobStore,
    pub(crate) links: Links,
    /// Places of those who read a manifest.
    pub(crate) reading: Semaphore,
    jobs: Store<Job>,
    templates: Store<JobTemplate>,
    changes: watch::Sender<u64>,
}

impl World {
    pub(crate) fn start(cluster: Cluster, namespace: String, store: JobStore, links: Links) -> Self {
        let changes = watch::Sender::new(0);
        let changed = changes.clone();
        let jobs = cluster.watch::<Job>(&namespace).start(move |_| changed.send_modify(|count| *count += 1));
        let templates = cluster.watch::<JobTemplate>(&namespace).start(|_| {});
        Self { cluster, namespace, store, links, reading: Semaphore::new(READING), jobs, templates, changes }
    }

    pub(crate) async fn ready(&self) {
        self.jobs.ready().await;
        self.templates.ready().await;
        self.store.ready().await;
    }

    /// Says whenever a job has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// One job.
    pub(crate) fn job(&self, name: &str) -> Option<Arc<Job>> {
        self.jobs.get(&self.namespace, name)
    }

    /// The job with this UID.
    pub(crate) fn job_of(&self, uid: &str) -> Option<Arc<Job>> {
        self.jobs.filter(|job| job.metadata.uid.as_deref() == Some(uid)).pop()
    }

    /// One template.
    pub(crate) fn template(&self, name: &str) -> Option<Arc<JobTemplate>> {
        self.templates.get(&self.namespace, name)
    }

    /// All jobs, by name.
    pub(crate) fn jobs(&self) -> Vec<Arc<Job>> {
        let mut all = self.jobs.all();
        all.sort_by_key(|job| job.name_any());
        all
    }

    /// All templates, by name.
    pub(crate) fn templates(&self) -> Vec<Arc<JobTemplate>> {
        let mut all = self.templates.all();
        all.sort_by_key(|template| template.name_any());
        all
    }
}
