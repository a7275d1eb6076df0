//! Stores that the operator names, and the jobs that wait for them.

use kube::ResourceExt;
use liqo_api::jobs::{Job, JobTemplateSpec, ResultStore};

use super::{Key, World, phase};

impl World {
    /// The worker of a job that waits, where the store of its results is fit for another job.
    pub(super) fn could_start(&self, job: &Job) -> Result<JobTemplateSpec, (&'static str, String)> {
        let worker = self.worker(job)?;
        let Some(name) = &worker.result_store else { return Ok(worker) };
        let unknown =
            || format!("there is no ResultStore {name:?}: ask the operator, or run the job with another store");
        let store = self.store.other(name).ok_or_else(|| ("ResultStoreNotFound", unknown()))?;
        // Submitters see one word of what the store has answered.
        let unfit = |_| ("ResultStoreNotReady", format!("ResultStore {name:?} is not ready: {}", store.reason()));
        store.fit().map_err(unfit)?;
        Ok(worker)
    }

    /// Has the jobs that wait for a store, or end with it, looked at again, and the store tried if its specification is new.
    pub(super) fn store_changed(&self, name: &str) {
        let uses = |job: &Job| job.status.as_ref().and_then(|status| status.result_store.as_deref()) == Some(name);
        let waits = |job: &Job| !phase(job).is_final() && !phase(job).is_active();
        for job in self.jobs.filter(|job| uses(job) || waits(job)) {
            self.queue.push(Key::Job(job.name_any()));
        }
        if self.store.other(name).is_some_and(|store| is_new(&store)) {
            self.queue.push(Key::Store(name.to_owned()));
        }
    }
}

/// Whether the status of a store speaks of another specification.
fn is_new(store: &ResultStore) -> bool {
    store.status.as_ref().and_then(|status| status.observed_generation) != store.metadata.generation
}
