//! When a certificate is renewed.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::Facts;

/// No certificate is renewed sooner after its issue. Signers date certificates back (that of Kubernetes by five minutes), so
/// a short one may be due when it is issued.
const SOONEST: i64 = 10;

/// The second at which two thirds of the life of a certificate are over.
fn due_at(facts: &Facts) -> i64 {
    let life = facts.not_after.as_second() - facts.not_before.as_second();
    facts.not_before.as_second() + life / 3 * 2
}

/// Whether a certificate should be renewed: two thirds of its life are over.
pub fn due(facts: &Facts, now: Timestamp) -> bool {
    now.as_second() >= due_at(facts)
}

/// How long after its issue a certificate should be renewed: when two thirds of its life are over, and not at once.
pub fn renewal_after(facts: &Facts, issued: Timestamp) -> Duration {
    let rest = (due_at(facts) - issued.as_second()).max(SOONEST);
    Duration::from_secs(rest.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::{super::Subject, *};

    #[test]
    fn a_certificate_that_is_due_when_it_is_issued_is_not_renewed_at_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        // The signer of Kubernetes dates back by 300 s.
        for (life, expected) in [(20, 10), (149, 10), (170, 12), (600, 300)] {
            let facts = Facts { subject: Subject::default(), not_before: at(700), not_after: at(1000 + life) };
            assert_eq!(renewal_after(&facts, at(1000)), Duration::from_secs(expected), "{life}");
        }
    }
}
