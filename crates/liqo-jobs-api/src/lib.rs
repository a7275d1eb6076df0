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
use liqo_kube::{args::RuntimeArgs, drain::Patience, life::Life, role::Role, server::Listen};

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

impl Role for ApiArgs {
    const NAME: &'static str = "liqo-jobs-api";
    const PATIENCE: Patience = PEOPLE;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let busy = life.busy();
        let home = life.home(&self.runtime, Self::NAME).await?;
        let certificate = Certificate::open(self.tls_directory, Self::NAME)?;
        let store = JobStore::wait(&home, &self.namespace, self.store).await;
        let world = Arc::new(world::World::start(home.clone(), self.namespace, store));
        world.ready().await;
        let front = Front::new(home, life.drain().clone(), (self.cluster_name, String::new()));
        if let Some(legacy) = legacy::Legacy::new(self.legacy, &world, &front, life.drain().clone())? {
            life.spawn("legacy", legacy.serve());
        }
        let routes = api::routes(api::App::new(Arc::clone(&front), world));
        life.spawn("front", front.serve(self.address, certificate.shown(), busy, routes));
        life.spawn("certificate", certificate.follow());
        Ok(())
    }
}
