//! Role `liqo-jobs`: gives jobs their turn, runs them, says how they stand.
//!
//! Watches   `Job`s and `JobTemplate`s of one namespace; the `batch/v1` Jobs and Pods made for them; the endpoints of the embedded store;
//!           `ResultStore`s of its own namespace, other stores that the operator names.
//! Writes    the status and the finalizer of `Job`s; the status of `ResultStore`s; for each job that has its turn a `batch/v1` Job and the Secret with the
//!           place of its results; the quota of jobs; the endpoints of the store for workers.
//! Removes   what was made for a job that is cancelled or deleted; its results in the store; jobs whose time is over.
//!
//! The process, its lease and the master key of the store are in a namespace of their own: who may edit the namespace of
//! the jobs may read all Secrets there. Where workers run is decided by the offloading of the namespace; providers know
//! nothing of jobs. Nothing is kept in memory only: the next process goes on where the last one ended.

mod brief;
mod endpoints;
mod owned;
mod room;
mod settle;
mod state;
mod store;
mod turn;
mod worker;

use std::sync::Arc;

use liqo_kube::{Queue, args::RuntimeArgs, drive, life::Life, role::Role};

use settle::{Key, World};
pub use store::{JobStore, StoreArgs, StoreError};

/// Flags of the controller of jobs.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-jobs", version, about = "Runs jobs on any cluster of the federation and keeps their results")]
pub struct JobsArgs {
    /// How the own cluster is reached.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Where results are kept.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Namespace of the jobs.
    #[arg(long, default_value = "liqo-jobs", value_name = "NAME")]
    pub namespace: String,
    /// Name of this replica, for leader election.
    #[arg(long, env = "POD_NAME", default_value = "liqo-jobs")]
    pub pod_name: String,
    /// Jobs that have their turn at the same time.
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub running: usize,
    /// Seconds that a job may have its turn: no worker runs longer.
    #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(i64).range(60..=31_536_000), value_name = "SECONDS")]
    pub longest_turn: i64,
    /// Jobs in the namespace, those that ended too; more are refused. 0: no limit.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub most: u32,
    /// Templates in the namespace; more are refused. 0: no limit.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub most_templates: u32,
    /// Image of the mover: the image of this process.
    #[arg(long, default_value = "ghcr.io/liqo-rs/liqo", value_name = "IMAGE")]
    pub mover_image: String,
}

/// The lease that says which replica decides.
const LEASE: &str = "liqo-jobs";

impl Role for JobsArgs {
    const NAME: &'static str = "liqo-jobs";

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let cluster = life.home(&self.runtime, Self::NAME).await?;
        life.lead(&cluster, &self.store.own_namespace, LEASE, &self.pod_name).await;
        let queue = Queue::new();
        let of_stores = queue.clone();
        let seen = move |name| of_stores.push(Key::StoreChanged(name));
        let store = JobStore::open(&cluster, &self.namespace, self.store.clone(), seen).await;
        let store = store.map_err(|error| error.to_string())?;
        let world = Arc::new(World::start(cluster, store, &self, queue));
        let busy = life.busy();
        life.spawn("jobs", async move {
            world.ready().await;
            drop(busy);
            drive("jobs", world.queue.clone(), 8, |key| world.settle(key)).await;
        });
        Ok(())
    }
}
