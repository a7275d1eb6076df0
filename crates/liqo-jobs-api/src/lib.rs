//! The role `liqo-jobs-api`: jobs by REST and as pages.
//!
//! Watches: Jobs and JobTemplates of one namespace.
//! Writes: Jobs, for callers who may; reviews of tokens and rights.
//! Keeps true: what a caller gets or does is what the API server lets that caller get or do; nothing is decided here about the
//! work itself. Who may `get` `jobs/results` of the group `jobs.liqo.io` may read results, who may `get` `pods/log` may read logs.

mod api;
mod follow;
mod legacy;
mod model;
mod pages;
mod results;
mod submit;
mod world;

use std::{sync::Arc, time::Duration};

use liqo_front::{Front, certificate::Certificate};
use liqo_jobs::{JobStore, StoreArgs};
use liqo_kube::{
    Cluster,
    args::RuntimeArgs,
    drain::Patience,
    life::{self, Life},
    server::Listen,
};

/// Endpoints change a moment after the signal; a download that is under way has a minute.
const PEOPLE: Patience = Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(60) };

/// Flags of the API of jobs.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-jobs-api", version, about = "Jobs by REST and as pages, and their results")]
pub struct ApiArgs {
    /// The own cluster, the log and health.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Where results are kept.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Namespace of the jobs.
    #[arg(long, env = "POD_NAMESPACE", default_value = "liqo-jobs")]
    pub namespace: String,
    /// Name of this cluster, for the pages.
    #[arg(long, default_value = "")]
    pub cluster_name: String,
    /// Address of the API, HTTPS.
    #[arg(long, default_value = ":8443", value_name = "HOST:PORT")]
    pub address: Listen,
    /// Directory with the `tls.crt` and `tls.key` to show; without it the API makes its own certificate.
    #[arg(long, value_name = "DIRECTORY")]
    pub tls_directory: Option<std::path::PathBuf>,
    /// The facade of older programs.
    #[command(flatten)]
    pub legacy: legacy::LegacyArgs,
}

/// Serves until SIGTERM.
///
/// # Errors
/// A text that says why it could not start.
pub async fn run(args: ApiArgs) -> Result<(), String> {
    let life = Life::start("liqo-jobs-api", &args.runtime).await?;
    let busy = life.busy();
    let (client, _) = life::home_client(&args.runtime).await?;
    let home = Cluster::new(client, "liqo-jobs-api");
    life.metrics({
        let calls = Arc::clone(home.calls());
        move || calls.text("home")
    });
    let certificate = Certificate::open(args.tls_directory, "liqo-jobs-api")?;
    let world = tokio::select! {
        world = async {
            let store = JobStore::wait(&home, &args.namespace, args.store).await;
            let world = world::World::start(home.clone(), args.namespace.clone(), store);
            world.ready().await;
            world
        } => Arc::new(world),
        () = life.until_signal() => return Ok(()),
    };
    let front = Front::new(home, life.drain().clone(), (args.cluster_name, String::new()));
    if let Some(legacy) = legacy::Legacy::new(args.legacy, &world, &front, life.drain().clone())? {
        life.spawn("legacy", legacy.serve());
    }
    let routes = api::routes(api::App::new(Arc::clone(&front), world));
    life.spawn("front", front.serve(args.address, certificate.shown(), busy, routes));
    life.spawn("certificate", certificate.follow());
    life.until_signal().await;
    life.drained(PEOPLE).await;
    Ok(())
}
