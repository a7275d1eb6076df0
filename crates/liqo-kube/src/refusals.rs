//! The metric `liqo_refusals_total`: requests that this process has refused, and writes of this process that other clusters have refused.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

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

/// Refusals so far, in the Prometheus text format.
pub(crate) fn metrics() -> String {
    let mut text = String::new();
    for ((door, reason), count) in COUNTS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = writeln!(text, "liqo_refusals_total{{door=\"{door}\",reason=\"{reason}\"}} {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_door_and_reason() {
        for status in [403, 403, 429, 503] {
            count("refusals-test", reason_of(status));
        }
        for line in ["forbidden\"} 2\n", "too-often\"} 1\n", "unavailable\"} 1\n"] {
            let line = format!("liqo_refusals_total{{door=\"refusals-test\",reason=\"{line}");
            assert!(metrics().contains(&line), "{line}{}", metrics());
        }
    }

    #[test]
    fn every_status_has_one_of_few_reasons() {
        let all: std::collections::BTreeSet<_> = (0..=u16::MAX).map(reason_of).collect();
        assert_eq!(all.len(), 7, "{all:?}");
    }
}
