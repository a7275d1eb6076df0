//! Counts the calls made to API servers.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

/// Calls by verb and kind.
#[derive(Debug, Default)]
pub struct Calls(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Calls {
    pub(crate) fn add(&self, verb: &'static str, kind: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((verb, kind.to_owned())).or_default() += 1;
    }

    /// In the Prometheus text format, one counter; `cluster` tells the clusters of a process apart.
    pub fn text(&self, cluster: &str) -> String {
        let mut text = String::new();
        for ((verb, kind), count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(
                text,
                "liqo_api_requests_total{{cluster=\"{cluster}\",verb=\"{verb}\",kind=\"{kind}\"}} {count}"
            );
        }
        text
    }
}
