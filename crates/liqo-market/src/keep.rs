//! When a provider that was chosen gives way to another one.
//!
//! Keeps true: a provider that meets the criteria gives way only to one that was better by the margin, without a break, for as long as
//! the customer says; so nobody is moved to and fro.

use liqo_api::market::Stability;

/// What a new selection says about a provider that was chosen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// The score of the provider; `None`: it does not meet a criterion any longer.
    pub score: Option<u32>,
    /// The best of the others, and its score.
    pub best: Option<(&'a str, u32)>,
}

/// Another provider is better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Better {
    /// Cluster ID of the other provider.
    pub id: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// What is done about the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider stays.
    Keep,
    /// The provider stays for now: another one is better, but not for long enough yet.
    Wait(Better),
    /// The other provider, with this cluster ID, takes its place.
    Switch(String),
    /// The provider does not meet a criterion, and nobody else does.
    Nobody,
}

/// Decides about the provider. `before` is what the last [`Verdict::Wait`] said, if the last verdict was one.
pub fn decide(standing: Standing<'_>, before: Option<&Better>, stability: Stability, now: i64) -> Verdict {
    let Some(score) = standing.score else {
        return standing.best.map_or(Verdict::Nobody, |(id, _)| Verdict::Switch(id.to_owned()));
    };
    match standing.best {
        Some((id, best)) if best > score && best - score >= stability.switch_margin => {
            let since = before.filter(|before| before.id == id).map_or(now, |before| before.since);
            if now.saturating_sub(since) >= i64::from(stability.settle_seconds) {
                Verdict::Switch(id.to_owned())
            } else {
                Verdict::Wait(Better { id: id.to_owned(), since })
            }
        }
        _ => Verdict::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_gives_way_only_to_one_that_stays_better() {
        let stability = Stability { switch_margin: 100, settle_seconds: 600 };
        let better = |id: &str, since| Better { id: id.into(), since };
        let switch = |id: &str| Verdict::Switch(id.into());
        for (score, best, before, wanted) in [
            (Some(500), None, None, Verdict::Keep),
            (Some(500), Some(("b", 599)), None, Verdict::Keep),
            (Some(500), Some(("b", 599)), Some(better("b", 0)), Verdict::Keep),
            (Some(500), Some(("b", 600)), None, Verdict::Wait(better("b", 1000))),
            (Some(500), Some(("b", 600)), Some(better("b", 401)), Verdict::Wait(better("b", 401))),
            (Some(500), Some(("b", 600)), Some(better("b", 400)), switch("b")),
            (Some(500), Some(("b", 600)), Some(better("c", 400)), Verdict::Wait(better("b", 1000))),
            (Some(900), Some(("b", 100)), None, Verdict::Keep),
            (None, Some(("b", 1)), None, switch("b")),
            (None, None, None, Verdict::Nobody),
        ] {
            let found = decide(Standing { score, best }, before.as_ref(), stability, 1000);
            assert_eq!(found, wanted, "{score:?} {best:?} {before:?}");
        }
    }

    #[test]
    fn equal_scores_never_move_anybody() {
        let at_once = Stability { switch_margin: 0, settle_seconds: 0 };
        let standing = |best| Standing { score: Some(500), best: Some(("b", best)) };
        assert_eq!(decide(standing(500), None, at_once, 0), Verdict::Keep);
        assert_eq!(decide(standing(501), None, at_once, 0), Verdict::Switch("b".into()));
    }
}
