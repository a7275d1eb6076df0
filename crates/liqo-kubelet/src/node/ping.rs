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
pub(crate) enum Reach {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers.
    Reached,
    /// It does not answer.
    Lost,
}

/// Asks for ever. With an interval of zero nobody is asked and the other cluster counts as reached.
pub(super) async fn run(there: Cluster, interval: Duration, timeout: Duration, reach: watch::Sender<Reach>) {
    if interval.is_zero() {
        reach.send_replace(Reach::Reached);
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
                (Err(error), Reach::Lost) => tracing::warn!(error, "the other cluster does not answer"),
                _ => tracing::info!("the other cluster answers"),
            }
            reach.send_replace(next);
        }
        tokio::time::sleep(if failures == 0 { interval } else { RETRY }).await;
    }
}

fn next(state: Reach, failures: u32, answered: bool) -> (Reach, u32) {
    match (answered, failures.saturating_add(1)) {
        (true, _) => (Reach::Reached, 0),
        (false, count) if count >= FAILURES => (Reach::Lost, count),
        (false, count) => (state, count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_are_needed() {
        assert_eq!(next(Reach::Unknown, 0, true), (Reach::Reached, 0));
        assert_eq!(next(Reach::Reached, 0, false), (Reach::Reached, 1));
        assert_eq!(next(Reach::Reached, 1, false), (Reach::Reached, 2));
        assert_eq!(next(Reach::Reached, 2, false), (Reach::Lost, 3));
        assert_eq!(next(Reach::Lost, 9, false), (Reach::Lost, 10));
        assert_eq!(next(Reach::Lost, 10, true), (Reach::Reached, 0));
        assert_eq!(next(Reach::Reached, 2, true), (Reach::Reached, 0));
    }
}
