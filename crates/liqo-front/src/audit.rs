//! Which answers have a line in the log, target `audit`.
//!
//! Keeps true: every answer to a known caller has a line; lines about unknown callers are limited.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use liqo_kube::rate::{Limiter, Rate, source};

/// Lines about one source without a known caller, and about all.
const LINES: Rate = Rate::new(60, Duration::from_millis(200));
const ALL_LINES: Rate = Rate::new(600, Duration::from_millis(200));
/// Sources whose lines are counted.
const COUNTED: usize = 4096;

/// The lines of one server.
pub(crate) struct Audit(Limiter<IpAddr>);

impl Default for Audit {
    fn default() -> Self {
        Self(Limiter::new(LINES, ALL_LINES, COUNTED))
    }
}

impl Audit {
    /// Whether an answer has a line: to `user`, who is known, or, with an empty name, to somebody at this address.
    pub(crate) fn tells(&self, user: &str, address: SocketAddr) -> bool {
        !user.is_empty() || self.0.take(source(address.ip())).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_fill_the_log_and_take_no_line_from_others() {
        let (audit, stranger) = (Audit::default(), SocketAddr::from(([10, 0, 0, 1], 1)));
        let told = (0..1000).filter(|_| audit.tells("", stranger)).count();
        assert!((60..100).contains(&told), "{told}");
        assert!(audit.tells("ada", stranger), "a known caller of the same source");
        assert!(audit.tells("", SocketAddr::from(([10, 0, 0, 2], 1))), "another source");
    }
}
