//! Counts the calls made to API servers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::metrics::{Metric, Samples};

const MADE: Metric = Metric::counter(
    "liqo_api_requests_total",
    "Calls made to API servers, by cluster (home, remote, or the ID of a peer), verb and kind.",
    &["cluster", "verb", "kind"],
);
const REFUSED: Metric = Metric::counter(
    "liqo_api_answers_refused_total",
    "Lists and watches that were given up because they show more than is kept.",
    &["cluster", "kind"],
);

/// Calls by verb and kind, and what was too much to be kept, by kind.
#[derive(Debug, Default)]
pub struct Calls {
    made: Mutex<BTreeMap<(&'static str, String), u64>>,
    refused: Mutex<BTreeMap<String, u64>>,
}

impl Calls {
    pub(crate) fn add(&self, verb: &'static str, kind: &str) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner).entry((verb, kind.to_owned())).or_default() += 1;
    }

    /// An answer about this kind is larger than the budget allows.
    pub(crate) fn refuse(&self, kind: &str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(kind.to_owned()).or_default() += 1;
    }

    /// Two counters; `cluster` tells the clusters of a process apart.
    pub fn samples(&self, cluster: &str, samples: &mut Samples) {
        describe(samples);
        for ((verb, kind), count) in self.made.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            samples.count(&MADE, &[cluster, verb, kind], *count);
        }
        for (kind, count) in self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            samples.count(&REFUSED, &[cluster, kind], *count);
        }
    }
}

/// The families of [`Calls::samples`].
pub(crate) fn describe(samples: &mut Samples) {
    samples.describe(&MADE);
    samples.describe(&REFUSED);
}
