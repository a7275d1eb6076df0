//! The role `liqo-broker`: who offers what, which provider fits a wish and why, and what is promised to whom.
//!
//! Watches   `ProviderProfile`s, `Reservation`s; `ForeignCluster`s for the catalogue of the first generation.
//! Writes    `ProviderProfile`s, when a heartbeat says something new; the ledger in their status; the status of `Reservation`s;
//!           `Reservation`s for callers who may.
//! Keeps true: nothing is promised twice, because each ledger is written under its version; a heartbeat that says nothing new
//! writes nothing. When providers were heard of last, and their invitations, are in memory and come again with the next heartbeats.

mod api;
mod beat;
mod catalogue;
mod figures;
mod follow;
mod heard;
mod model;
mod reserve;
mod selection;
mod settle;
mod world;

use std::{sync::Arc, time::Duration};

use liqo_front::{FrontArgs, Opening, patience};
use liqo_kube::{args::RuntimeArgs, drain::Patience, drive, life::Life, role::Role};

/// Flags of the broker.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-broker", version, about = "The catalogue of providers, selections with reasons, reservations")]
pub struct BrokerArgs {
    /// The own cluster, the log and health.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Where and with which certificate the API is served.
    #[command(flatten)]
    pub front: FrontArgs,
    /// Name of this cluster, for the pages.
    #[arg(long, default_value = "")]
    pub cluster_name: String,
    /// Seconds between two heartbeats of a provider; after three without one nothing new is promised there.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=300), value_name = "SECONDS")]
    pub heartbeat: u32,
}

impl Role for BrokerArgs {
    const NAME: &'static str = "liqo-broker";
    const PATIENCE: Patience = patience(10);

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let opening = Opening::begin(&life, &self.runtime, self.front, Self::NAME).await?;
        let heartbeat = Duration::from_secs(u64::from(self.heartbeat));
        let world = Arc::new(world::World::start(opening.home.clone(), heartbeat));
        world.ready().await;
        let counted = Arc::clone(&world);
        life.metrics(move |samples| figures::samples(&counted, samples));
        let front = opening.front((self.cluster_name, String::new()));
        let routes = api::routes(api::App::new(Arc::clone(&front), Arc::clone(&world)));
        life.spawn("ledgers", async move {
            drive("ledgers", world.queue.clone(), 4, |provider| settle::settle(&world, provider)).await;
        });
        opening.serve(front, routes);
        Ok(())
    }
}
