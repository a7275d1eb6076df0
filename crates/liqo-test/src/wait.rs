//! Waiting for the world: look often, give up in time, say what was waited for.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(75);

/// Looks until `look` gives something. An error of `look` is not the end: it is told if time runs out.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let seen = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if began.elapsed() > limit {
            bail!("{what}: not within {limit:?}{seen}");
        }
        sleep(PAUSE);
    }
}
