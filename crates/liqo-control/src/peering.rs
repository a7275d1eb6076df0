//! Who our peers are, what they may do, what is asked of them and offered to them.
//!
//! | file | what it decides |
//! |---|---|
//! | [`tenant`] | the namespace shared with a peer |
//! | [`token`] | what a peer must know, what we must know |
//! | [`identity`], [`auth_client`] | how we become known to a peer |
//! | [`issuer`], [`auth`] | how a peer becomes known to us, and the door it comes by |
//! | [`foreign_cluster`] | our request, and how everything stands |
//! | [`checker`] | whether a peer is alive |
//! | [`request`], [`monitor`] | what a peer is offered |
//! | [`offer`] | what becomes of what we are offered |
//! | [`permissions`] | what a peer may do here |
//!
//! All of them look at one [`world`] and are woken by what changes in it; nothing is polled
//! except the API servers of peers.

pub mod auth;

mod auth_client;
mod checker;
mod condition;
mod foreign_cluster;
mod identity;
pub(crate) mod issuer;
mod limits;
pub(crate) mod monitor;
mod offer;
pub(crate) mod permissions;
mod request;
mod settings;
mod tenant;
mod token;
mod wire;
mod world;

use std::sync::Arc;

use liqo_kube::{drive, life::Life};

use crate::{args::ManagerArgs, home::Home, ledger::Ledger, memory::Memory};
pub(crate) use foreign_cluster::is_nobody;
pub(crate) use request::foul;
pub(crate) use settings::Settings;
use world::World;

/// Peers handled at the same time, whatever the flag says: one that does not answer must not keep the
/// others waiting.
const WORKERS: usize = 8;

/// Starts everything about peers.
pub(crate) fn spawn(
    home: &Home,
    args: &ManagerArgs,
    known: (&Memory, Ledger, Settings),
    issuer: &issuer::Issuer,
    life: &Life,
) {
    issuer.keep(life);
    let busy = life.busy();
    let (world, wakes) = World::open(home, args, known);
    let world = Arc::new(world);
    let router = Arc::clone(&world);
    life.spawn("peering", async move {
        // Until the stores are complete nobody decides anything.
        router.ready().await;
        drop(busy);
        router.route(wakes).await;
    });
    let workers = args.peering.foreign_cluster_workers.max(WORKERS);
    let (this, attempts) = (Arc::clone(&world), identity::Attempts::default());
    life.spawn("foreign-cluster", async move {
        let settle = |name| foreign_cluster::settle(&this, &attempts, name);
        drive("foreign-cluster", this.queues.foreign_clusters.clone(), workers, settle).await;
    });
    let (this, requests) = (Arc::clone(&world), request::Requests::new(&args.storage));
    life.spawn("resource-request", async move {
        let settle = |key| request::settle(&this, &requests, key);
        drive("resource-request", this.queues.requests.clone(), workers, settle).await;
    });
    let (this, offers) = (Arc::clone(&world), offer::Offers::new(&args.kubelets));
    life.spawn("resource-offer", async move {
        let settle = |key| offer::settle(&this, &offers, key);
        drive("resource-offer", this.queues.offers.clone(), workers, settle).await;
    });
    life.spawn("permissions", async move {
        let this = world;
        drive("permissions", this.queues.permissions.clone(), workers, |key| permissions::settle(&this, key)).await;
    });
}
