//! Role `liqo-jobs`: gives jobs their turn, runs them, says how they stand.
//!
//! Watches   `Job`s and `JobTemplate`s of one namespace; the `batch/v1` Jobs and Pods made for them.
//! Writes    the status and the finalizer of `Job`s; for each job that has its turn a `batch/v1` Job and the Secret with the
//!           place of its results.
//! Removes   what was made for a job that is cancelled or deleted; its results in the store; jobs whose time is over.
//!
//! Where workers run is decided by the offloading of the namespace; providers know nothing of jobs. Nothing is kept in memory
//! only: the next process goes on where the last one ended.

mod settle;
mod state;
mod store;
mod turn;
mod worker;

use std::sync::Arc;

use liqo_kube::{
    Cluster,
    args::RuntimeArgs,
    drive, lease,
    life::{self, Life},
};

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
    #[arg(long, env = "POD_NAMESPACE", default_value = "liqo-jobs")]
    pub namespace: String,
    /// Name of this replica, for leader election.
    #[arg(long, env = "POD_NAME", default_value = "liqo-jobs")]
    pub pod_name: String,
    /// Jobs that have their turn at the same time.
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub running: usize,
    /// Image of the mover: the image of this process.
    #[arg(long, default_value = "ghcr.io/liqo-rs/liqo", value_name = "IMAGE")]
    pub mover_image: String,
}

/// The lease that says which replica decides.
const LEASE: &str = "liqo-jobs";

/// Runs the controller until SIGTERM.
///
/// # Errors
/// A text that says why it could not start.
pub async fn run(args: JobsArgs) -> Result<(), String> {
    let life = Life::start("liqo-jobs", &args.runtime).await?;
    let (client, _) = life::home_client(&args.runtime).await?;
    let cluster = Cluster::new(client, "liqo-jobs");
    let calls = Arc::clone(cluster.calls());
    life.metrics(move || calls.text("home"));
    let lead = async {
        lease::lead(&cluster, &life, &args.namespace, LEASE, &args.pod_name).await;
        let store = JobStore::open(&cluster, &args.namespace, args.store.clone()).await;
        let store = store.map_err(|error| error.to_string())?;
        let world = Arc::new(settle::World::start(cluster.clone(), store, &args));
        let busy = life.busy();
        life.spawn("jobs", async move {
            world.ready().await;
            drop(busy);
            drive("jobs", world.queue.clone(), 8, |key| world.settle(key)).await;
        });
        std::future::pending().await
    };
    tokio::select! {
        () = life.until_signal() => {}
        outcome = lead => return outcome,
    }
    lease::release(&cluster, &args.namespace, LEASE, &args.pod_name).await;
    Ok(())
}
