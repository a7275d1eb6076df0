//! What is to be done next for a request for a peering.

use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Aspect, PeeringEnabled},
    market::{PeeringPhase, PeeringRequest, PeeringRequestStatus},
};
use liqo_core::peering::status;

/// Finalizer of a request: the peering is ended and the resources are given back before the request is gone.
pub(crate) const FINALIZER: &str = "market.liqo.io/peering";
/// Annotation of a `ForeignCluster` that was made for a request: the UID of the request.
pub(crate) const MADE_FOR: &str = "market.liqo.io/peering-request";

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Put the finalizer on the request.
    Hold,
    /// Choose a provider and reserve there.
    Select,
    /// Ask for the invitation, and write the peering.
    Accept,
    /// Let the reservation last longer.
    Renew,
    /// Say how the peering stands.
    Tell(Box<PeeringRequestStatus>),
    /// Nothing for so many seconds, unless something changes.
    Rest(u64),
    /// Take no more resources from the provider.
    Disable,
    /// Wait until the peering is down.
    Wait,
    /// Remove what was written about the provider.
    Forget,
    /// Give the resources back, and let the request go.
    Release,
}

/// What is to be done next: `foreign` is the `ForeignCluster` of the chosen provider, `now` in seconds since 1970.
pub(crate) fn next(request: &PeeringRequest, foreign: Option<&ForeignCluster>, now: i64) -> Step {
    let found = request.status.clone().unwrap_or_default();
    if request.metadata.deletion_timestamp.is_some() {
        return leave(request, foreign);
    }
    if !request.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER) {
        return Step::Hold;
    }
    if found.reservation.is_none() {
        // A peering whose resources are not held any longer ends before another provider is chosen.
        return match leave(request, foreign) {
            Step::Release => Step::Select,
            step => step,
        };
    }
    let left = found.held_until.as_ref().map_or(0, |until| until.0.as_second().saturating_sub(now));
    let lease = i64::from(request.spec.lease_seconds);
    if left * 2 < lease {
        return Step::Renew;
    }
    if found.foreign_cluster.is_none() || foreign.is_none() {
        return Step::Accept;
    }
    let told = standing(&found, foreign);
    if told == found {
        Step::Rest(u64::try_from(left - lease / 2).unwrap_or(0).max(1))
    } else {
        Step::Tell(Box::new(told))
    }
}

/// How the peering stands.
fn standing(found: &PeeringRequestStatus, foreign: Option<&ForeignCluster>) -> PeeringRequestStatus {
    let of = |aspect| foreign.map(|foreign| status(foreign, aspect)).unwrap_or_default();
    let network = of(Aspect::NetworkStatus);
    let is_there =
        of(Aspect::OutgoingPeering) == Status::Established && matches!(network, Status::Established | Status::External);
    let why = || {
        let conditions = foreign.and_then(|foreign| foreign.status.as_ref()).map(|status| &status.peering_conditions);
        let bad = |kind| matches!(kind, Status::Denied | Status::EmptyDenied | Status::Error);
        let bad = conditions.into_iter().flatten().find(|one| bad(one.status))?;
        Some(bad.message.chars().take(512).collect())
    };
    let phase = if is_there { PeeringPhase::Peered } else { PeeringPhase::Peering };
    PeeringRequestStatus { phase, message: if is_there { None } else { why() }, ..found.clone() }
}

/// The way back. What others wrote about the provider stays.
fn leave(request: &PeeringRequest, foreign: Option<&ForeignCluster>) -> Step {
    let is_ours = |one: &&ForeignCluster| is_made_for(one, request) && one.metadata.deletion_timestamp.is_none();
    let Some(foreign) = foreign.filter(is_ours) else { return Step::Release };
    if foreign.spec.outgoing_peering_enabled != PeeringEnabled::No {
        return Step::Disable;
    }
    match (status(foreign, Aspect::OutgoingPeering), status(foreign, Aspect::IncomingPeering)) {
        (Status::None, Status::None) => Step::Forget,
        // The provider takes resources from here: that peering is not ours to end.
        (Status::None, _) => Step::Release,
        _ => Step::Wait,
    }
}

/// Whether a `ForeignCluster` was made for a request.
pub(crate) fn is_made_for(foreign: &ForeignCluster, request: &PeeringRequest) -> bool {
    let made_for = foreign.metadata.annotations.as_ref().and_then(|all| all.get(MADE_FOR));
    made_for.is_some() && made_for == request.metadata.uid.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

    fn request(meta: &Value, status: &Value) -> PeeringRequest {
        let mut metadata = json!({"name": "r", "namespace": "n", "uid": "u", "finalizers": [FINALIZER]});
        metadata.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "market.liqo.io/v1alpha1", "kind": "PeeringRequest", "metadata": metadata,
            "spec": {"selection": {"request": {"cpu": "1"}}, "leaseSeconds": 600}, "status": status
        }))
        .unwrap()
    }

    fn foreign(enabled: &str, conditions: &[(&str, &str)], made_for: &str) -> ForeignCluster {
        let conditions: Vec<_> =
            conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status, "message": "m"})).collect();
        serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster",
            "metadata": {"name": "milan", "annotations": {MADE_FOR: made_for}},
            "spec": {"foreignAuthUrl": "https://a.b", "outgoingPeeringEnabled": enabled},
            "status": {"peeringConditions": conditions}
        }))
        .unwrap()
    }

    fn held(until: &str) -> Value {
        json!({"phase": "Peering", "provider": "p", "reservation": "x", "heldUntil": until, "foreignCluster": "milan"})
    }

    #[test]
    fn a_request_goes_from_the_wish_to_the_peering() {
        let up = foreign("Yes", &[("OutgoingPeering", "Established"), ("NetworkStatus", "External")], "u");
        let coming = foreign("Yes", &[("AuthenticationStatus", "Denied")], "u");
        let long = "2026-01-01T00:09:00Z";
        let reserved = json!({"phase": "Reserved", "provider": "p", "reservation": "x", "heldUntil": long});
        assert_eq!(next(&request(&json!({"finalizers": []}), &json!({})), None, NOW), Step::Hold);
        assert_eq!(next(&request(&json!({}), &json!({})), None, NOW), Step::Select);
        assert_eq!(next(&request(&json!({}), &reserved), None, NOW), Step::Accept);
        assert_eq!(next(&request(&json!({}), &held(long)), None, NOW), Step::Accept, "somebody removed it");
        let told = |step| match step {
            Step::Tell(status) => (status.phase, status.message),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            told(next(&request(&json!({}), &held(long)), Some(&coming), NOW)),
            (PeeringPhase::Peering, Some("m".into()))
        );
        assert_eq!(told(next(&request(&json!({}), &held(long)), Some(&up), NOW)), (PeeringPhase::Peered, None));
        let mut done = held(long);
        done["phase"] = json!("Peered");
        assert_eq!(next(&request(&json!({}), &done), Some(&up), NOW), Step::Rest(240));
        assert_eq!(next(&request(&json!({}), &done), Some(&up), NOW + 241), Step::Renew);
    }

    #[test]
    fn a_peering_without_its_reservation_ends_before_another_is_chosen() {
        let lost = request(&json!({}), &json!({"phase": "Selecting", "provider": "p"}));
        for (foreign, wanted) in [
            (foreign("Yes", &[("OutgoingPeering", "Established")], "u"), Step::Disable),
            (foreign("No", &[("OutgoingPeering", "Disconnecting")], "u"), Step::Wait),
            (foreign("No", &[], "u"), Step::Forget),
            (foreign("Yes", &[("OutgoingPeering", "Established")], "somebody else"), Step::Select),
        ] {
            assert_eq!(next(&lost, Some(&foreign), NOW), wanted);
        }
    }

    #[test]
    fn a_request_that_goes_takes_along_what_was_made_for_it() {
        let gone = request(&json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), &held("2026-01-01T00:09:00Z"));
        for (foreign, wanted) in [
            (None, Step::Release),
            (Some(foreign("Yes", &[], "somebody else")), Step::Release),
            (Some(foreign("Yes", &[("OutgoingPeering", "Established")], "u")), Step::Disable),
            (Some(foreign("No", &[("OutgoingPeering", "Disconnecting")], "u")), Step::Wait),
            (
                Some(foreign("No", &[("OutgoingPeering", "None"), ("IncomingPeering", "Established")], "u")),
                Step::Release,
            ),
            (Some(foreign("No", &[], "u")), Step::Forget),
        ] {
            assert_eq!(next(&gone, foreign.as_ref(), NOW), wanted);
        }
    }
}
