//! When to ask a peer for a certificate.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use liqo_kube::certs::{Facts, due};

use super::Failure;

/// First pause after a failure; doubles with each further one.
const FIRST: Duration = Duration::from_millis(200);
/// So many failures are followed by short pauses.
const IMPATIENT: u32 = 8;
/// Longest pause while we have no identity.
const LONGEST: Duration = Duration::from_secs(5);
/// Pause after a refusal, which only a person can change: by a new token, or by a change at the peer.
const REFUSED: Duration = Duration::from_secs(15);
/// Longest pause between two attempts to renew.
const RENEWAL: Duration = Duration::from_secs(600);
/// Nobody sleeps longer: clocks change.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing for so long.
    Nothing(Duration),
    /// The certificate is still valid, but only for so long.
    Renewal(Duration),
    /// There is no valid certificate.
    Identity,
    /// The certificate is valid, but the peer has ended its rights.
    Rights,
}

/// What is missing, given the best certificate there is.
pub(super) fn need(best: Option<&Facts>, now: Timestamp) -> Need {
    match best {
        Some(facts) if facts.not_after <= now => Need::Identity,
        Some(facts) if due(facts, now) => Need::Renewal(seconds(facts.not_after.as_second() - now.as_second())),
        Some(facts) => {
            let life = facts.not_after.as_second() - facts.not_before.as_second();
            let rest = facts.not_before.as_second() + life / 3 * 2 - now.as_second();
            Need::Nothing(seconds(rest).min(DAY))
        }
        None => Need::Identity,
    }
}

fn seconds(rest: i64) -> Duration {
    Duration::from_secs(u64::try_from(rest).unwrap_or_default().max(1))
}

impl Need {
    /// Reason and message of the Event that tells why the peer does not give what is missing; `None`: the conditions alone
    /// tell.
    pub(super) fn event(self, why: &str) -> Option<(&'static str, String)> {
        match self {
            Self::Renewal(_) => {
                let message = format!("The peer does not renew our certificate, the old one stays in use: {why}");
                Some(("IdentityNotRenewed", message))
            }
            Self::Rights => {
                Some(("IdentityRefused", format!("The peer has ended the rights of our certificate: {why}")))
            }
            Self::Nothing(_) | Self::Identity => None,
        }
    }
}

/// How long to wait after so many failures.
pub(super) fn pause_after(failures: u32, failure: &Failure, need: Need) -> Duration {
    // A user waits: a peer that is just being started is asked often, one that stays away seldom.
    let growing = if failures <= IMPATIENT { FIRST * (1 << failures.saturating_sub(1).min(2)) } else { LONGEST };
    match (need, failure) {
        // Several times before the certificate ends, however short its life.
        (Need::Renewal(rest), _) => (rest / 8).clamp(growing, RENEWAL),
        (_, Failure::Failed(_)) => growing,
        // The first refusals may come from a token that is only being written.
        _ if failures < 4 => growing,
        _ => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use liqo_kube::certs::Subject;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let facts = Facts { subject: Subject::default(), not_before: at(0), not_after: at(900) };
        for (now, expected) in [
            (100, Need::Nothing(Duration::from_secs(500))),
            (599, Need::Nothing(Duration::from_secs(1))),
            (600, Need::Renewal(Duration::from_secs(300))),
            (899, Need::Renewal(Duration::from_secs(1))),
            (900, Need::Identity),
        ] {
            assert_eq!(need(Some(&facts), at(now)), expected, "{now}");
        }
        assert_eq!(need(None, at(0)), Need::Identity);
    }

    #[test]
    fn a_peer_that_does_not_answer_is_asked_again_soon() {
        let failed = Failure::Failed(String::new());
        let denied = Failure::Denied(String::new());
        assert_eq!(pause_after(1, &failed, Need::Identity), Duration::from_millis(200));
        assert_eq!(pause_after(2, &failed, Need::Identity), Duration::from_millis(400));
        assert_eq!(pause_after(8, &failed, Need::Identity), Duration::from_millis(800));
        assert_eq!(pause_after(9, &failed, Need::Identity), LONGEST);
        assert_eq!(pause_after(1, &denied, Need::Identity), Duration::from_millis(200));
        assert_eq!(pause_after(9, &denied, Need::Identity), REFUSED);
        for (rest, pause) in [(DAY, RENEWAL), (Duration::from_secs(80), Duration::from_secs(10)), (FIRST, FIRST)] {
            assert_eq!(pause_after(1, &denied, Need::Renewal(rest)), pause);
        }
        assert_eq!(pause_after(9, &denied, Need::Renewal(FIRST)), LONGEST);
    }
}
