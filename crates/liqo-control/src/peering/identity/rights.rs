//! Whether an identity has the rights that every identity has: to read our request in our namespace on the peer.
//!
//! Keeps true: a peer that answers our request is not asked, so that two clusters at rest send nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use liqo_api::discovery::ResourceRequest;
use liqo_kube::{Cluster, peer::PeerIdentity};

use super::{Asking, Attempt, plan::DAY};

/// Most peers answer a request sooner.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Pause between two looks at a peer that leaves our request unanswered.
const LOOK: Duration = Duration::from_secs(15);

/// The rights of a valid identity.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// As far as is known they are there; when to look again.
    Given(Duration),
    /// The peer refuses what every identity may do.
    Ended,
}

/// What to do about the rights of an identity.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing is known against them; the time of the next look, if there is to be one.
    Rest(Option<Instant>),
    /// The peer refused us a moment ago.
    Refused,
    Look,
}

/// Decides: a peer is looked at from time to time while it is in `doubt`; one that has refused us is asked again first.
fn step(attempt: &Attempt, doubt: bool, now: Instant) -> Step {
    match attempt.look {
        _ if !doubt => Step::Rest(None),
        _ if attempt.ended && attempt.next.is_some_and(|next| next > now) => Step::Refused,
        Some(look) if look <= now => Step::Look,
        look => Step::Rest(Some(look.unwrap_or(now + FIRST_LOOK))),
    }
}

impl Asking<'_> {
    /// The rights of a valid identity `in_doubt`, if there is one. With rights, what was tried before is forgotten when
    /// nothing is left to try (`is_settled`).
    pub(super) async fn rights(&self, attempt: &Attempt, in_doubt: Option<&PeerIdentity>, is_settled: bool) -> Rights {
        let (id, now) = (&self.peer.cluster_id, Instant::now());
        let look = match (step(attempt, in_doubt.is_some(), now), in_doubt) {
            (Step::Refused, _) => return Rights::Ended,
            (Step::Rest(look), _) => look,
            (Step::Look, Some(identity)) if self.is_shut_out(identity).await => return Rights::Ended,
            (Step::Look, _) => Some(now + LOOK),
        };
        if is_settled {
            self.attempts.forget(id);
        }
        if look.is_some() {
            self.attempts.lock().entry(id.clone()).or_default().look = look;
        }
        Rights::Given(look.map_or(DAY, |look| look.saturating_duration_since(now)))
    }

    /// Whether the API server of the peer knows the identity and refuses it, or does not know it.
    async fn is_shut_out(&self, identity: &PeerIdentity) -> bool {
        let code = self.try_out(identity).await.err().and_then(|(code, _)| code);
        matches!(code, Some(401 | 403))
    }

    /// Whether a new identity does what the old one did.
    pub(super) async fn works(&self, data: &BTreeMap<&'static str, String>) -> Result<(), String> {
        let bytes = data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.clone().into_bytes())));
        let secret = Secret { data: Some(bytes.collect()), ..Secret::default() };
        let identity = PeerIdentity::from_secret(&secret).ok_or("it is not complete")?;
        self.try_out(&identity).await.map_err(|(_, why)| why)
    }

    /// Reads our request on the peer. An error is the status code, if the API server answered, and a text.
    async fn try_out(&self, identity: &PeerIdentity) -> Result<(), (Option<u16>, String)> {
        let client = identity.client(&self.world.home.reach).await.map_err(|why| (None, why))?;
        let there = Cluster::new(client, "liqo-controller-manager");
        let name = &self.world.home.identity.cluster_name;
        let outcome = there.get::<ResourceRequest>(&identity.namespace, name).await;
        outcome.map(drop).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            (error.code(), format!("{error}: {source}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_peer_that_leaves_a_request_unanswered_is_looked_at() {
        let now = Instant::now();
        let (past, soon) = (now.checked_sub(LOOK).unwrap(), now + LOOK);
        let attempt = |look, ended, next| Attempt { look, ended, next, ..Attempt::default() };
        for (what, attempt, doubt, wanted) in [
            ("answered", attempt(Some(past), false, None), false, Step::Rest(None)),
            ("answered after a refusal", attempt(Some(past), true, Some(soon)), false, Step::Rest(None)),
            ("just sent", attempt(None, false, None), true, Step::Rest(Some(now + FIRST_LOOK))),
            ("looked at", attempt(Some(soon), false, None), true, Step::Rest(Some(soon))),
            ("time to look", attempt(Some(past), false, None), true, Step::Look),
            ("refused a moment ago", attempt(Some(past), true, Some(soon)), true, Step::Refused),
            ("time to ask again", attempt(Some(past), true, Some(past)), true, Step::Look),
            ("a renewal failed", attempt(Some(soon), false, Some(soon)), true, Step::Rest(Some(soon))),
        ] {
            assert_eq!(step(&attempt, doubt, now), wanted, "{what}");
        }
    }
}
