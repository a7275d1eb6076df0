//! How soon gateways and route agents look again at the kernel they keep as it shall be.

use std::time::Duration;

use liqo_kube::life::Busy;

/// Everything is looked at again after this, news or not.
const AGAIN: Duration = Duration::from_secs(5);
/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Counts as busy until the first look that went well.
pub(crate) struct Pace {
    busy: Option<Busy>,
}

impl Pace {
    pub(crate) fn new(busy: Busy) -> Self {
        Self { busy: Some(busy) }
    }

    /// When to look again after a look that ended so; a failure is told.
    pub(crate) fn after(&mut self, outcome: Result<(), String>) -> Duration {
        match outcome {
            Ok(()) => {
                drop(self.busy.take());
                AGAIN
            }
            Err(why) => {
                tracing::warn!("{why}; will be tried again");
                RETRY
            }
        }
    }
}
