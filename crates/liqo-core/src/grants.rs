//! The grants to a peer at this moment. Rights, namespaces, pods and tunnels follow from grants and from nothing else.
//!
//! A grant needs a [`decision`](crate::decision) of this cluster (a `ForeignCluster` that accepts the peer, or asks the peer
//! for resources) and an agreement in force (our offer, or our request); no object of a peer grants anything. A grant ends in two steps:
//! until a deadline the peer may remove its objects here, then this cluster removes them.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type, ResourceRequest},
    meta::annotation,
    sharing::ResourceOffer,
};

use crate::decision::{accepts, is_banned, is_cordoned, wants};

/// How far one direction of a peering is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// No grant, or the grant has ended: this cluster removes the objects of the peer.
    Nothing,
    /// Everything the direction needs.
    Full,
    /// Existing objects stay, new ones are refused.
    Kept,
    /// The peer removes its objects here until this time (Unix seconds).
    Leaving {
        /// When that is over.
        until: i64,
    },
}

impl Grant {
    /// Whether something may be added: a pod, a namespace, a tunnel.
    pub fn may_grow(self) -> bool {
        self == Self::Full
    }

    /// Whether the direction is granted, and not just on its way out.
    pub fn is_granted(self) -> bool {
        matches!(self, Self::Full | Self::Kept)
    }

    /// Whether what is there may stay.
    pub fn is_in_force(self) -> bool {
        self != Self::Nothing
    }

    /// How long until it ends by itself.
    pub fn ends_in(self, now: i64) -> Option<Duration> {
        match self {
            Self::Leaving { until } => Some(Duration::from_secs(u64::try_from(until - now).unwrap_or_default())),
            _ => None,
        }
    }
}

/// What a peer is granted in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// As our provider: the peer offers resources, and its virtual node exists here.
    pub provider: Grant,
    /// As our consumer: the peer has namespaces and pods here.
    pub consumer: Grant,
}

/// What was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests are accepted unless a `ForeignCluster` says no.
    pub accept_by_default: bool,
    /// Clusters found on the local network are asked.
    pub auto_join: bool,
    /// How long a peer has to take leave.
    pub deadline: Duration,
}

impl Policy {
    /// How long until this cluster itself evicts what a consumer that takes leave still has here; `None`: it does not. The
    /// first half of the consumer's time is the consumer's own, to move its pods within its disruption budgets; in the
    /// second half its pods are evicted within the budgets of this cluster; then what is left ends.
    pub fn evicts_in(&self, grant: Grant, now: i64) -> Option<Duration> {
        let Grant::Leaving { until } = grant else { return None };
        let half = i64::try_from(self.deadline.as_secs() / 2).unwrap_or(i64::MAX);
        let rest = until.saturating_sub(half).saturating_sub(now);
        Some(Duration::from_secs(u64::try_from(rest).unwrap_or_default()))
    }
}

/// What the decision depends on.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The `ForeignCluster` that counts for the peer, if there is one.
    pub foreign_cluster: Option<&'a ForeignCluster>,
    /// The peer's tenant namespace; it keeps the time of leaving.
    pub tenant: Option<&'a Namespace>,
    /// Our request to the peer.
    pub our_request: Option<&'a ResourceRequest>,
    /// The peer's request.
    pub their_request: Option<&'a ResourceRequest>,
    /// Our offer to the peer.
    pub our_offer: Option<&'a ResourceOffer>,
    /// The peer's offer to us.
    pub their_offer: Option<&'a ResourceOffer>,
    /// What was configured.
    pub policy: Policy,
    /// Unix seconds.
    pub now: i64,
}

/// Decides the grants.
pub fn of(seen: &Seen<'_>) -> Grants {
    if seen.foreign_cluster.is_some_and(is_banned) {
        return Grants { provider: Grant::Nothing, consumer: Grant::Nothing };
    }
    let stands = |meta: &ObjectMeta, withdrawn: bool| meta.deletion_timestamp.is_none() && !withdrawn;
    let asked = seen.our_request.is_some_and(|one| stands(&one.metadata, one.spec.withdrawal_timestamp.is_some()));
    let asks = seen.their_request.is_some_and(|one| stands(&one.metadata, one.spec.withdrawal_timestamp.is_some()));
    let offered = seen.our_offer.is_some_and(|one| stands(&one.metadata, one.spec.withdrawal_timestamp.is_some()));
    let to_give = seen.our_request.is_some() || seen.their_offer.is_some();
    let to_take = seen.their_request.is_some() || seen.our_offer.is_some();
    let provider = match seen.foreign_cluster {
        Some(one) if asked && wants(one, seen.policy.auto_join) => Grant::Full,
        _ => leaving(seen, annotation::OUTGOING_LEAVING_SINCE, to_give),
    };
    let consumer = match seen.foreign_cluster {
        Some(one) if asks && offered && accepts(one, seen.policy.accept_by_default).is_ok() => {
            if is_cordoned(one) {
                Grant::Kept
            } else {
                Grant::Full
            }
        }
        _ => leaving(seen, annotation::INCOMING_LEAVING_SINCE, to_take),
    };
    Grants { provider, consumer }
}

/// What is there and has no time written down yet begins to leave now.
fn leaving(seen: &Seen<'_>, key: &str, exists: bool) -> Grant {
    let deadline = i64::try_from(seen.policy.deadline.as_secs()).unwrap_or(i64::MAX);
    let since = match seen.tenant.and_then(|tenant| leaving_since(tenant, key)) {
        Some(since) => since.min(seen.now),
        None if exists => seen.now,
        None => return Grant::Nothing,
    };
    let until = since.saturating_add(deadline);
    if until > seen.now { Grant::Leaving { until } } else { Grant::Nothing }
}

/// Since when a peer is leaving, as its tenant namespace has it (Unix seconds).
pub fn leaving_since(tenant: &Namespace, key: &str) -> Option<i64> {
    let text = tenant.metadata.annotations.as_ref()?.get(key)?;
    Some(text.parse::<Timestamp>().ok()?.as_second())
}

/// The grants as the status of a `ForeignCluster` shows them to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The peer is, or is being made, our provider.
    pub provider: bool,
    /// The peer has an offer of ours.
    pub consumer: bool,
}

/// Reads from the conditions of a `ForeignCluster` what its peer is granted, or is just taking back.
pub fn shown(one: &ForeignCluster) -> Shown {
    let all = one.status.as_ref().map(|status| status.peering_conditions.as_slice()).unwrap_or_default();
    let find = |type_| all.iter().find(|condition| condition.type_ == type_).filter(|_| !is_banned(one));
    let is_up = |status| matches!(status, Status::Established | Status::Disconnecting);
    let provider = find(Type::OutgoingPeering).is_some_and(|it| is_up(it.status) || it.status == Status::Pending);
    // A request that waits for an offer, or for approval, is granted nothing.
    let consumer = find(Type::IncomingPeering).is_some_and(|it| is_up(it.status) || it.reason == "KubeletPending");
    Shown { provider, consumer }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::tests::peer;

    const NOW: i64 = 1_767_225_600;
    const THEN: &str = "2025-12-31T23:58:00Z";

    fn request(withdrawn: bool, deleting: bool) -> ResourceRequest {
        let time = |set: bool| if set { json!(THEN) } else { Value::Null };
        serde_json::from_value(json!({
            "metadata": {"name": "rome", "deletionTimestamp": time(deleting)},
            "spec": {
                "clusterIdentity": {"clusterID": "b", "clusterName": "rome"}, "authUrl": "https://5.6.7.8",
                "withdrawalTimestamp": time(withdrawn),
            },
        }))
        .unwrap()
    }

    fn offer(withdrawn: bool) -> ResourceOffer {
        let time = if withdrawn { json!(THEN) } else { Value::Null };
        serde_json::from_value(
            json!({"metadata": {"name": "rome"}, "spec": {"clusterId": "b", "withdrawalTimestamp": time}}),
        )
        .unwrap()
    }

    fn tenant(key: &str, since: &str) -> Namespace {
        serde_json::from_value(json!({"metadata": {"name": "t", "annotations": {key: since}}})).unwrap()
    }

    fn seen<'a>(one: Option<&'a ForeignCluster>, tenant: Option<&'a Namespace>) -> Seen<'a> {
        let policy = Policy { accept_by_default: true, auto_join: true, deadline: Duration::from_secs(300) };
        Seen {
            foreign_cluster: one,
            tenant,
            our_request: None,
            their_request: None,
            our_offer: None,
            their_offer: None,
            policy,
            now: NOW,
        }
    }

    #[test]
    fn a_consumer_is_granted_what_was_accepted_and_offered() {
        let begins = Grant::Leaving { until: NOW + 300 };
        let leaves = Grant::Leaving { until: NOW + 180 };
        let [since, long_ago] =
            [THEN, "2025-12-31T23:00:00Z"].map(|time| tenant(annotation::INCOMING_LEAVING_SINCE, time));
        let (stands, withdrawn, ours, taken) = (request(false, false), request(true, false), offer(false), offer(true));
        for (what, incoming, condition, request, offer, tenant, expected) in [
            ("in force", "Auto", "", Some(&stands), Some(&ours), None, Grant::Full),
            ("a time from before does not count", "Yes", "", Some(&stands), Some(&ours), Some(&long_ago), Grant::Full),
            ("not offered yet", "Auto", "", Some(&stands), None, None, begins),
            ("refused", "No", "", Some(&stands), Some(&ours), None, begins),
            ("refused for two minutes", "No", "", Some(&stands), Some(&taken), Some(&since), leaves),
            ("refused for an hour", "No", "", Some(&stands), Some(&taken), Some(&long_ago), Grant::Nothing),
            ("withdrawn by the peer", "Yes", "", Some(&withdrawn), Some(&ours), Some(&since), leaves),
            ("an offer without a request", "Yes", "", None, Some(&ours), Some(&long_ago), Grant::Nothing),
            ("cordoned", "Yes", "Cordoned", Some(&stands), Some(&ours), None, Grant::Kept),
            ("misspelt", "Yes", "Baned", Some(&stands), Some(&ours), None, Grant::Kept),
            ("drained", "Yes", "Drained", Some(&stands), Some(&ours), Some(&since), leaves),
            ("banned", "Yes", "Banned", Some(&stands), Some(&ours), Some(&since), Grant::Nothing),
        ] {
            let one = peer("No", incoming, condition);
            let seen = Seen { their_request: request, our_offer: offer, ..seen(Some(&one), tenant) };
            assert_eq!(of(&seen).consumer, expected, "{what}");
        }
    }

    #[test]
    fn a_consumer_waits_for_a_person_unless_requests_are_accepted_by_default() {
        let (stands, ours, begins) = (request(false, false), offer(false), Grant::Leaving { until: NOW + 300 });
        for (accept_by_default, incoming, expected) in [
            (true, "Auto", Grant::Full),
            (true, "Yes", Grant::Full),
            (true, "No", begins),
            (false, "Auto", begins),
            (false, "Yes", Grant::Full),
            (false, "No", begins),
        ] {
            let one = peer("No", incoming, "");
            let asked = Seen { their_request: Some(&stands), our_offer: Some(&ours), ..seen(Some(&one), None) };
            let policy = Policy { accept_by_default, ..asked.policy };
            assert_eq!(of(&Seen { policy, ..asked }).consumer, expected, "{incoming}, {accept_by_default} by default");
        }
    }

    #[test]
    fn nobody_becomes_a_provider_unasked() {
        let long_ago = tenant(annotation::OUTGOING_LEAVING_SINCE, "2025-12-31T23:00:00Z");
        let (stands, withdrawn, going) = (request(false, false), request(true, false), request(false, true));
        for (what, one, request, expected) in [
            ("asked", Some(peer("Yes", "No", "")), Some(&stands), Grant::Full),
            ("a request nobody wished for", Some(peer("No", "Yes", "")), Some(&stands), Grant::Nothing),
            ("a wish without a request", Some(peer("Yes", "Yes", "")), None, Grant::Nothing),
            ("withdrawn", Some(peer("Yes", "Yes", "")), Some(&withdrawn), Grant::Nothing),
            ("being deleted", Some(peer("Yes", "Yes", "")), Some(&going), Grant::Nothing),
            ("no peer", None, Some(&stands), Grant::Nothing),
            ("banned", Some(peer("Yes", "Yes", "Banned")), Some(&stands), Grant::Nothing),
            ("cordoned as a consumer", Some(peer("Yes", "Yes", "Cordoned")), Some(&stands), Grant::Full),
        ] {
            let seen = Seen { our_request: request, ..seen(one.as_ref(), Some(&long_ago)) };
            assert_eq!(of(&seen).provider, expected, "{what}");
        }
    }

    #[test]
    fn a_time_in_the_future_does_not_extend_the_deadline() {
        let tomorrow = tenant(annotation::INCOMING_LEAVING_SINCE, "2026-01-02T00:00:00Z");
        assert_eq!(of(&seen(None, Some(&tomorrow))).consumer, Grant::Leaving { until: NOW + 300 });
        let nothing = Grants { provider: Grant::Nothing, consumer: Grant::Nothing };
        assert_eq!(of(&seen(None, None)), nothing, "nothing is there, nothing leaves");
        assert_eq!(Grant::Leaving { until: NOW + 300 }.ends_in(NOW), Some(Duration::from_secs(300)));
    }

    #[test]
    fn other_processes_read_the_decision_from_conditions() {
        let told = |type_: &str, status: &str, reason: &str| {
            let mut one = peer("Yes", "Yes", "");
            let all = json!([{"type": type_, "status": status, "reason": reason}]);
            one.status =
                Some(serde_json::from_value(json!({"peeringConditions": all, "tenantNamespace": {}})).unwrap());
            let Shown { provider, consumer } = shown(&one);
            (provider, consumer)
        };
        assert_eq!(told("OutgoingPeering", "Pending", "ResourceRequestPending"), (true, false));
        assert_eq!(told("OutgoingPeering", "None", "NoResourceRequest"), (false, false));
        assert_eq!(told("IncomingPeering", "Pending", "ResourceRequestPending"), (false, false));
        assert_eq!(told("IncomingPeering", "Pending", "KubeletPending"), (false, true));
        assert_eq!(told("IncomingPeering", "Disconnecting", "ResourceRequestDeleting"), (false, true));
    }

    #[test]
    fn the_second_half_of_the_time_is_for_evictions() {
        let policy = Policy { accept_by_default: true, auto_join: false, deadline: Duration::from_secs(300) };
        let in_seconds = |grant, now| policy.evicts_in(grant, now).map(|rest| rest.as_secs());
        let leaving = Grant::Leaving { until: NOW + 300 };
        assert_eq!(in_seconds(leaving, NOW), Some(150));
        assert_eq!(in_seconds(leaving, NOW + 149), Some(1));
        assert_eq!(in_seconds(leaving, NOW + 150), Some(0));
        assert_eq!(in_seconds(leaving, NOW + 299), Some(0));
        for grant in [Grant::Full, Grant::Kept, Grant::Nothing] {
            assert_eq!(in_seconds(grant, NOW + 299), None);
        }
    }
}
