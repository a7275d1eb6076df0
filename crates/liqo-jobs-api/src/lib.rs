//! The role `liqo-jobs-api`: jobs by REST and as pages.
//!
//! Watches: Jobs and JobTemplates of one namespace; ResultStores of its own namespace.
//! Writes: Jobs, for callers who may; reviews of tokens and rights.
//! Keeps true: what a caller gets or does is what the API server lets that caller get or do; nothing is decided here about the
//! work itself. Who may `get` `jobs/results` of the group `jobs.liqo.io` may read results, who may `get` `pods/log` may read logs.

mod api;
mod follow;
mod legacy;
mod lines;
mod links;
mod model;
mod pages;
mod results;
mod stores;
mod submit;
mod world;

use std::sync::Arc;

use liqo_front::{FrontArgs, Opening, patience};
use liqo_jobs::{JobStore, StoreArgs};
use liqo_kube::{args::RuntimeArgs, drain::Patience, life::Life, role::Role};

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
    #[arg(long, default_value = "liqo-jobs", value_name = "NAME")]
    pub namespace: String,
    /// Name of this cluster, for the pages.
    #[arg(long, default_value = "")]
    pub cluster_name: String,
    /// Where and with which certificate the API is served.
    #[command(flatten)]
    pub front: FrontArgs,
    /// The facade of older programs.
    #[command(flatten)]
    pub legacy: legacy::LegacyArgs,
}

impl Role for ApiArgs {
    const NAME: &'static str = "liqo-jobs-api";
    /// A download that is under way has a minute.
    const PATIENCE: Patience = patience(60);

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let opening = Opening::begin(&life, &self.runtime, self.front, Self::NAME).await?;
        let home = opening.home.clone();
        let own_namespace = self.store.own_namespace.clone();
        let store = JobStore::wait(&home, self.store).await;
        let links = links::Links::open(&home, &own_namespace).await.map_err(|error| error.to_string())?;
        let world = Arc::new(world::World::start(home, self.namespace, store, links));
        world.ready().await;
        let front = opening.front((self.cluster_name, String::new()));
        if let Some(legacy) = legacy::Legacy::new(self.legacy, &world, &front, life.drain().clone())? {
            life.spawn("legacy", legacy.serve());
        }
        let routes = api::routes(api::App::new(Arc::clone(&front), world));
        opening.serve(front, routes);
        Ok(())
    }
}
