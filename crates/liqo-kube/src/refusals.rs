//! The metric `liqo_refusals_total`: requests that this process has refused, and writes of this process that other clusters have refused.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::metrics::{Metric, Samples};

const REFUSALS: Metric = Metric::counter(
    "liqo_refusals_total",
    "Requests that this process refused, and writes of this process that other clusters refused.",
    &["door", "reason"],
);

/// Number of refusals of this process, by door and reason. Both are words of this program, never of a caller, so that their
/// number is bounded.
static COUNTS: Mutex<BTreeMap<(&'static str, &'static str), u64>> = Mutex::new(BTreeMap::new());

/// Counts a refusal at `door` for `reason`.
pub fn count(door: &'static str, reason: &'static str) {
    *COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry((door, reason)).or_default() += 1;
}

/// The reason of a refusal that has an HTTP status.
pub fn reason_of(status: u16) -> &'static str {
    match status {
        400 | 405 | 413 | 415 | 422 => "invalid",
        401 => "unauthorized",
        403 => "forbidden",
        409 => "conflict",
        429 => "too-often",
        500.. => "unavailable",
        _ => "other",
    }
}

/// Refusals so far.
pub(crate) fn samples(samples: &mut Samples) {
    samples.describe(&REFUSALS);
    for ((door, reason), count) in COUNTS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        samples.count(&REFUSALS, &[door, reason], *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_door_and_reason() {
        for status in [403, 403, 429, 503] {
            count("refusals-test", reason_of(status));
        }
        let mut all = Samples::default();
        samples(&mut all);
        let text = all.text();
        for line in ["forbidden\"} 2\n", "too-often\"} 1\n", "unavailable\"} 1\n"] {
            let line = format!("liqo_refusals_total{{door=\"refusals-test\",reason=\"{line}");
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[test]
    fn every_status_has_one_of_few_reasons() {
        let all: std::collections::BTreeSet<_> = (0..=u16::MAX).map(reason_of).collect();
        assert_eq!(all.len(), 7, "{all:?}");
    }
}
