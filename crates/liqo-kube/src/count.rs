//! Counts the calls made to API servers.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

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

    /// In the Prometheus text format, two counters; `cluster` tells the clusters of a process apart.
    pub fn text(&self, cluster: &str) -> String {
        let mut text = String::new();
        for ((verb, kind), count) in self.made.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(
                text,
                "liqo_api_requests_total{{cluster=\"{cluster}\",verb=\"{verb}\",kind=\"{kind}\"}} {count}"
            );
        }
        for (kind, count) in self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "liqo_api_answers_refused_total{{cluster=\"{cluster}\",kind=\"{kind}\"}} {count}");
        }
        text
    }
}
