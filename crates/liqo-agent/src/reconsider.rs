//! Looks again at the provider of an established peering, for requests that want it.
//!
//! Keeps true: a provider gives way only when the broker says so by the criteria of the request, twice in a row where the provider
//! does not fit any longer; a broker that is away, or a latency that could not be measured, moves nobody;
//! the old peering ends before another provider is chosen, by the same way as when the resources are not held any longer.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::ResourceExt;
use liqo_api::market::{PeeringPhase, PeeringRequest, PeeringRequestStatus, Reconsider};
use liqo_kube::KubeError;
use liqo_market_client::{Better, Current, No, Selected, Verdict};

use crate::peer::{Key, Peers, asks_how_far, key};

/// Pause between two looks, each of which may measure every provider.
const PAUSE: Duration = Duration::from_secs(10);
/// What is logged about a request.
const TOPIC: &str = "reconsider";

/// What the last look found out about the provider of a request.
#[derive(Clone, Debug, Default)]
struct Look {
    /// Another provider is better, since when.
    better: Option<Better>,
    /// The provider did not fit.
    failed: bool,
}

/// The last looks, by request. In memory: a new process begins to count anew.
#[derive(Default)]
pub(crate) struct Memory(Mutex<HashMap<Key, Look>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn last(&self, key: &Key) -> Look {
        self.lock().get(key).cloned().unwrap_or_default()
    }

    fn note(&self, key: Key, said: &Verdict) {
        let look = Look { better: said.better.clone(), failed: !said.reasons.is_empty() };
        self.lock().insert(key, look);
    }
}

/// Why the provider gives way, if it does. A provider that does not fit gives way at the second look: one lost packet, or one late
/// heartbeat, ends no peering.
fn gives_way(when: Reconsider, said: &Verdict, failed_before: bool) -> Option<String> {
    let to = said.to.as_deref().filter(|_| said.verdict == "Switch")?;
    let reasons: Vec<_> = said.reasons.iter().map(|why| format!("{} {}", why.criterion, why.code)).collect();
    match (when, reasons.is_empty()) {
        (Reconsider::Failing | Reconsider::Better, false) if failed_before => {
            Some(format!("the provider does not fit any longer: {}", reasons.join(", ")))
        }
        (Reconsider::Better, true) => Some(format!("{to} has been better for long enough")),
        _ => None,
    }
}

impl Peers {
    /// Looks at the provider of a request for which there is nothing else to do for so long.
    pub(crate) async fn reconsider(
        &self,
        request: &PeeringRequest,
        rest: Duration,
    ) -> Result<Option<Duration>, KubeError> {
        let status = request.status.clone().unwrap_or_default();
        let is_wanted = request.spec.reconsider != Reconsider::Never && status.phase == PeeringPhase::Peered;
        let (Some(provider), Some(reservation), true) = (&status.provider, &status.reservation, is_wanted) else {
            return Ok(Some(rest));
        };
        let (pause, uid) = (Some(rest.min(PAUSE)), request.uid().unwrap_or_default());
        let said = match self.ask_again(request, provider).await {
            Ok(said) => said,
            Err(why) => {
                // What was better before the broker was away may not have been better meanwhile.
                self.memory.forget(&key(request));
                if self.told.is_news(&uid, TOPIC, &why) {
                    tracing::warn!(request = request.name_any(), why, "the provider of a peering is not looked at");
                }
                return Ok(pause);
            }
        };
        self.told.settle(&uid, TOPIC);
        let failed_before = self.memory.last(&key(request)).failed;
        self.memory.note(key(request), &said);
        let Some(why) = gives_way(request.spec.reconsider, &said, failed_before) else { return Ok(pause) };
        if let Err(no) = self.broker.release(reservation).await {
            tracing::debug!(%no, "the reservation is not released yet");
            return Ok(pause);
        }
        let message: Option<String> = Some(why.chars().take(512).collect());
        self.memory.forget(&key(request));
        // As when the resources are held no longer: the provider is still named, so that its peering ends first.
        let next = PeeringRequestStatus { message, provider: status.provider, ..PeeringRequestStatus::default() };
        self.tell(request, next).await
    }

    async fn ask_again(&self, request: &PeeringRequest, provider: &str) -> Result<Verdict, String> {
        let mut wish = self.wish(request)?;
        wish.criteria.exclude.push(self.local.cluster_id.clone());
        let told = |no: No| no.to_string();
        let mut known = self.known(&wish).await.map_err(told)?;
        if asks_how_far(&wish) && !known.measured.contains_key(provider) {
            return Err("the latency to the provider could not be measured".to_owned());
        }
        known.current = Some(Current {
            cluster_id: provider.to_owned(),
            held: request.spec.selection.request.clone(),
            better: self.memory.last(&key(request)).better,
        });
        let selected: Selected = self.broker.select(&wish, &known).await.map_err(told)?;
        selected.current.ok_or_else(|| "the broker says nothing about the provider".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use liqo_market_client::Why;

    use super::*;

    #[test]
    fn a_provider_gives_way_when_the_request_wants_it() {
        let said = |verdict: &str, to: Option<&str>, reasons: &[&str]| Verdict {
            verdict: verdict.into(),
            to: to.map(str::to_owned),
            better: None,
            reasons: reasons.iter().map(|code| Why { criterion: "maxPrice".into(), code: (*code).into() }).collect(),
        };
        let (failing, better) = (Reconsider::Failing, Reconsider::Better);
        for (when, said, wanted) in [
            (failing, said("Keep", None, &[]), None),
            (failing, said("Switch", Some("b"), &[]), None),
            (failing, said("Switch", Some("b"), &["AboveMaximum"]), Some("maxPrice AboveMaximum")),
            (failing, said("Nobody", None, &["AboveMaximum"]), None),
            (better, said("Switch", Some("b"), &[]), Some("b has been better")),
            (better, said("Switch", None, &[]), None),
            (better, said("Wait", None, &[]), None),
            (Reconsider::Never, said("Switch", Some("b"), &["AboveMaximum"]), None),
        ] {
            let found = gives_way(when, &said, true);
            assert_eq!(found.is_some(), wanted.is_some(), "{when:?} {said:?}");
            assert!(found.unwrap_or_default().contains(wanted.unwrap_or_default()), "{when:?} {said:?}");
        }
        let failed = said("Switch", Some("b"), &["AboveMaximum"]);
        assert_eq!(gives_way(failing, &failed, false), None, "one look is not enough");
        assert!(gives_way(better, &said("Switch", Some("b"), &[]), false).is_some());
    }
}
