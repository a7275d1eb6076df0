//! What was found open: a story goes on after it, so that one run tells all.

use std::sync::{Mutex, PoisonError};

use anyhow::{Error, Result, bail};

static HOLES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Forgets those of an earlier story.
pub(crate) fn forget() {
    HOLES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Remembers one.
pub(crate) fn found(what: String) {
    HOLES.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

/// Nothing was found open, and nothing else went wrong.
pub(crate) fn none(others: impl Iterator<Item = Error>) -> Result<()> {
    let found = HOLES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let all: Vec<_> = found.into_iter().chain(others.map(|error| format!("{error:#}"))).collect();
    if all.is_empty() { Ok(()) } else { bail!("{} findings:\n- {}", all.len(), all.join("\n- ")) }
}
