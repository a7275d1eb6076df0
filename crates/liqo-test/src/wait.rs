//! Waiting for the world: look often, give up in time, say what was waited for.

use std::{
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(75);
/// The longest wait of this process since [`forget`].
static LONGEST: Mutex<Option<(Duration, String)>> = Mutex::new(None);

/// Looks until `look` gives something. An error of `look` is not the end: it is told if time runs out.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let seen = match look() {
            Ok(Some(found)) => {
                remember(what, began.elapsed());
                return Ok(found);
            }
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if began.elapsed() > limit {
            remember(what, began.elapsed());
            bail!("{what}: not within {limit:?}{seen}");
        }
        sleep(PAUSE);
    }
}

fn remember(what: &str, waited: Duration) {
    let mut longest = LONGEST.lock().unwrap_or_else(PoisonError::into_inner);
    if longest.as_ref().is_none_or(|(known, _)| *known < waited) {
        *longest = Some((waited, what.to_owned()));
    }
}

/// The longest wait since the last reset, and the condition that was waited for.
pub(crate) fn longest() -> Option<(Duration, String)> {
    LONGEST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Forgets the waits so far.
pub(crate) fn forget() {
    *LONGEST.lock().unwrap_or_else(PoisonError::into_inner) = None;
}
