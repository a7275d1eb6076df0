//! Findings: a story goes on after a finding, so that one run reports all of them.

use std::sync::{Mutex, PoisonError};

use anyhow::{Error, Result, bail};

static HOLES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Forgets the findings of earlier stories.
pub(crate) fn forget() {
    HOLES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Remembers one.
pub(crate) fn found(what: String) {
    HOLES.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

/// Fails if there is a finding or another error.
pub(crate) fn none(others: impl Iterator<Item = Error>) -> Result<()> {
    let found = HOLES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let all: Vec<_> = found.into_iter().chain(others.map(|error| format!("{error:#}"))).collect();
    if all.is_empty() { Ok(()) } else { bail!("{} findings:\n- {}", all.len(), all.join("\n- ")) }
}
