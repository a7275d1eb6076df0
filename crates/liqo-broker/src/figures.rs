//! The metrics of the market.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use liqo_kube::metrics::{Metric, Samples};

use crate::world::World;

const PROVIDERS: Metric = Metric::gauge(
    "liqo_market_providers",
    "Providers, by whether they were heard of lately (fresh, stale).",
    &["state"],
);
const RESERVATIONS: Metric = Metric::gauge("liqo_market_reservations", "Reservations, by phase.", &["phase"]);
const HEARTBEATS: Metric =
    Metric::counter("liqo_market_heartbeats_total", "Heartbeats of providers that were taken.", &[]);
const SELECTIONS: Metric = Metric::counter("liqo_market_selections_total", "Selections that were answered.", &[]);

/// What has happened since this process began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) heartbeats: AtomicU64,
    pub(crate) selections: AtomicU64,
}

impl Counts {
    /// One more.
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The figures of one scrape.
pub(crate) fn samples(world: &World, samples: &mut Samples) {
    let mut providers = BTreeMap::from([("fresh", 0_u32), ("stale", 0)]);
    for profile in world.profiles() {
        *providers.entry(if world.is_fresh(&profile.spec.cluster_id) { "fresh" } else { "stale" }).or_default() += 1;
    }
    providers.iter().for_each(|(state, count)| samples.gauge(&PROVIDERS, &[state], f64::from(*count)));
    samples.describe(&RESERVATIONS);
    for (phase, count) in world.phases() {
        samples.gauge(&RESERVATIONS, &[&phase], f64::from(count));
    }
    samples.count(&HEARTBEATS, &[], world.counts.heartbeats.load(Ordering::Relaxed));
    samples.count(&SELECTIONS, &[], world.counts.selections.load(Ordering::Relaxed));
}
