//! Stores that the operator names, and the jobs that wait for them.

use std::time::Duration;

use kube::ResourceExt;
use liqo_api::jobs::{Job, JobTemplateSpec};

use super::{Failure, Key, World, phase};
use crate::store;

impl World {
    /// The worker of a job that waits, where the store of its results is fit for another job.
    pub(super) fn could_start(&self, job: &Job) -> Result<JobTemplateSpec, (&'static str, String)> {
        let worker = self.worker(job)?;
        let Some(name) = &worker.result_store else { return Ok(worker) };
        let unknown =
            || format!("there is no ResultStore {name:?}: ask the operator, or run the job with another store");
        let store = self.store.other(name).ok_or_else(|| ("ResultStoreNotFound", unknown()))?;
        let unfit = |why| ("ResultStoreNotReady", format!("ResultStore {name:?} is not ready: {why}"));
        store.fit().map_err(unfit)?;
        Ok(worker)
    }

    /// Tries a store; jobs that wait for it, or end with it, are looked at again.
    pub(super) async fn store(&self, name: &str) -> Result<Option<Duration>, Failure> {
        let again = store::check(&self.store, name).await?;
        let uses = |job: &Job| job.status.as_ref().and_then(|status| status.result_store.as_deref()) == Some(name);
        let waits = |job: &Job| !phase(job).is_final() && !phase(job).is_active();
        for job in self.jobs.filter(|job| uses(job) || waits(job)) {
            self.queue.push(Key::Job(job.name_any()));
        }
        Ok(again)
    }
}
