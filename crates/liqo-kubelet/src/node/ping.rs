//! Does the other cluster answer? Asked directly, and not believed to be gone before it has been silent
//! several times in a row.

use std::time::Duration;

use liqo_kube::Cluster;
use tokio::sync::watch;

/// So many failures in a row mean that it is gone.
const FAILURES: u32 = 3;
/// Pause between two tries while it does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What is known about the other API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Connectivity {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers.
    Reached,
    /// It does not answer.
    Lost,
}

/// Asks for ever. With an interval of zero nobody is asked and the other cluster counts as reached.
pub(super) async fn run(there: Cluster, interval: Duration, timeout: Duration, reach: watch::Sender<Connectivity>) {
    if interval.is_zero() {
        reach.send_replace(Connectivity::Reached);
        return std::future::pending().await;
    }
    let timeout = timeout.max(Duration::from_secs(1));
    let mut failures = 0;
    loop {
        let answer = there.alive(timeout).await;
        let state = *reach.borrow();
        let (next, count) = next(state, failures, answer.is_ok());
        failures = count;
        if next != state {
            match (&answer, next) {
                (Err(error), Connectivity::Lost) => tracing::warn!(error, "the other cluster does not answer"),
                _ => tracing::info!("the other cluster answers"),
            }
            reach.send_replace(next);
        }
        tokio::time::sleep(if failures == 0 { interval } else { RETRY }).await;
    }
}

fn next(state: Connectivity, failures: u32, answered: bool) -> (Connectivity, u32) {
    match (answered, failures.saturating_add(1)) {
        (true, _) => (Connectivity::Reached, 0),
        (false, count) if count >= FAILURES => (Connectivity::Lost, count),
        (false, count) => (state, count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_are_needed() {
        assert_eq!(next(Connectivity::Unknown, 0, true), (Connectivity::Reached, 0));
        assert_eq!(next(Connectivity::Reached, 0, false), (Connectivity::Reached, 1));
        assert_eq!(next(Connectivity::Reached, 1, false), (Connectivity::Reached, 2));
        assert_eq!(next(Connectivity::Reached, 2, false), (Connectivity::Lost, 3));
        assert_eq!(next(Connectivity::Lost, 9, false), (Connectivity::Lost, 10));
        assert_eq!(next(Connectivity::Lost, 10, true), (Connectivity::Reached, 0));
        assert_eq!(next(Connectivity::Reached, 2, true), (Connectivity::Reached, 0));
    }
}
