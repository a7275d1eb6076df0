//! Topics about which something was told a short while ago. Callers choose how often they are refused, so that each refusal
//! is told once in a while only.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long nothing more is told about a topic.
const QUIET: Duration = Duration::from_secs(600);
/// Topics that are remembered, at most; about a further topic nothing is told.
const MOST: usize = 1024;

/// The topics about which something was told within [`QUIET`].
#[derive(Default)]
pub(crate) struct Quiet(Mutex<HashMap<String, Instant>>);

impl Quiet {
    /// Whether something is to be told about a topic now; if so, the topic is quiet from now on.
    pub(crate) fn is_news(&self, topic: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| since.elapsed() < QUIET);
        known.len() < MOST && known.insert(topic.to_owned(), Instant::now()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_not_told_again_at_once() {
        let quiet = Quiet::default();
        assert!(quiet.is_news("a"));
        assert!(!quiet.is_news("a"));
        assert!(quiet.is_news("b"));
        for number in 0..2 * MOST {
            quiet.is_news(&number.to_string());
        }
        assert_eq!(quiet.0.lock().unwrap().len(), MOST);
    }
}
