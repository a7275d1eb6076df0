//! How far the mover is.

use std::sync::atomic::{AtomicU64, Ordering};

use super::tree::Found;

/// Counts files and bytes.
#[derive(Debug)]
pub(super) struct Progress {
    files: (AtomicU64, u64),
    bytes: (AtomicU64, u64),
}

impl Progress {
    pub(super) fn new(files: &[Found]) -> Self {
        let bytes = files.iter().fold(0_u64, |sum, found| sum.saturating_add(found.size));
        let count = u64::try_from(files.len()).unwrap_or(u64::MAX);
        Self { files: (AtomicU64::new(0), count), bytes: (AtomicU64::new(0), bytes) }
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.1
    }

    /// A file is stored.
    pub(super) fn file(&self) {
        self.files.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Some bytes are stored.
    pub(super) fn sent(&self, bytes: u64) {
        self.bytes.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Logs where things are.
    pub(super) fn log(&self) {
        let [files, bytes] = [&self.files, &self.bytes].map(|(done, _)| done.load(Ordering::Relaxed));
        tracing::info!(files, of = self.files.1, bytes, of_bytes = self.bytes.1, "storing");
    }
}
