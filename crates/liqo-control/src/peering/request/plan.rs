//! What follows from a request and an offer. All pure.

use http::Uri;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{OfferState, ResourceRequest, ResourceRequestStatus},
    meta::label,
    sharing::{ResourceOffer, VirtualKubeletStatus},
};
use liqo_core::naming::dns_label_error;

/// Why a request has no right to be heard, given whose tenant namespace it lies in.
pub(crate) fn foul(request: &ResourceRequest, peer: &str, here: &ClusterIdentity) -> Option<String> {
    let asked = &request.spec.cluster_identity;
    let origin = request.labels().get(label::ORIGIN_ID).map(String::as_str).unwrap_or_default();
    if asked.cluster_id != peer || origin != peer {
        return Some(format!(
            "the tenant namespace is that of cluster {peer}, but the request speaks for cluster {} and comes from \
             cluster {origin}: it is ignored",
            asked.cluster_id
        ));
    }
    if asked.cluster_id == here.cluster_id {
        return Some("the request comes from this cluster: it is ignored".to_owned());
    }
    if let Some(why) = dns_label_error(&asked.cluster_name) {
        return Some(format!("the cluster name {:?} {why}: the request is ignored", asked.cluster_name));
    }
    let url = request.spec.auth_url.parse::<Uri>().ok();
    let is_https = url.is_some_and(|url| url.scheme_str() == Some("https") && url.host().is_some());
    (!is_https).then(|| {
        format!("authUrl {:?} is not a URL https://host[:port]: the request is ignored", request.spec.auth_url)
    })
}

/// Everything the decision depends on.
pub(super) struct Seen<'a> {
    pub(super) request: Option<&'a ResourceRequest>,
    pub(super) offer: Option<&'a ResourceOffer>,
    /// Whether this cluster gives resources to the peer at all.
    pub(super) accepted: bool,
    /// Whether the peer has been silent for too long to be waited for.
    pub(super) dead: bool,
    /// Whether the time the peer had to take leave is over.
    pub(super) overdue: bool,
}

/// What to do with the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    /// Make it, or keep it up to date.
    Make,
    Withdraw,
    Remove,
}

/// What to say about the end of the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    Said,
    TakenBack,
    AsItIs,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Plan {
    pub(super) step: Step,
    /// Whether the peer may read its metrics.
    pub(super) metrics: bool,
    /// Whether only the consumer, or its death, brings us further.
    pub(super) waits_for_the_consumer: bool,
    state: OfferState,
    farewell: Farewell,
}

/// Decides.
pub(super) fn plan(seen: &Seen<'_>) -> Plan {
    let stands = |request: &ResourceRequest| {
        request.metadata.deletion_timestamp.is_none() && request.spec.withdrawal_timestamp.is_none()
    };
    let allowed = seen.accepted && seen.request.is_some_and(stands);
    let state = if seen.offer.is_some() { OfferState::Created } else { OfferState::None };
    let keep =
        Plan { step: Step::Keep, metrics: allowed, waits_for_the_consumer: false, state, farewell: Farewell::Said };
    if allowed {
        return allow(seen, Plan { farewell: Farewell::TakenBack, ..keep });
    }
    let Some(offer) = seen.offer else { return keep };
    let is_used = kubelet(offer) != VirtualKubeletStatus::None;
    match offer.metadata.deletion_timestamp {
        Some(_) => keep,
        // Nobody is left to be asked first; deleting the offer makes the consumer drain its node.
        None if seen.request.is_none() || !is_used || seen.dead || seen.overdue => Plan { step: Step::Remove, ..keep },
        None => {
            let step = if offer.spec.withdrawal_timestamp.is_none() { Step::Withdraw } else { Step::Keep };
            Plan { step, waits_for_the_consumer: true, farewell: Farewell::AsItIs, ..keep }
        }
    }
}

fn allow(seen: &Seen<'_>, keep: Plan) -> Plan {
    match seen.offer {
        None => Plan { step: Step::Make, state: OfferState::Created, ..keep },
        Some(offer) if offer.metadata.deletion_timestamp.is_some() => keep,
        // Withdrawn and wanted again: the old offer comes to its end, then there is a new one.
        Some(offer) if offer.spec.withdrawal_timestamp.is_some() => match kubelet(offer) {
            VirtualKubeletStatus::None => Plan { step: Step::Remove, ..keep },
            _ if seen.overdue => Plan { step: Step::Remove, ..keep },
            _ => Plan { waits_for_the_consumer: true, ..keep },
        },
        Some(_) => Plan { step: Step::Make, ..keep },
    }
}

fn kubelet(offer: &ResourceOffer) -> VirtualKubeletStatus {
    offer.status.as_ref().map(|status| status.virtual_kubelet_status).unwrap_or_default()
}

impl Plan {
    /// The status of the request, if it is to change.
    pub(super) fn status(&self, old: Option<&ResourceRequestStatus>, now: &Time) -> Option<ResourceRequestStatus> {
        let said = old.and_then(|status| status.offer_withdrawal_timestamp.clone());
        let new = ResourceRequestStatus {
            offer_state: self.state,
            offer_withdrawal_timestamp: match self.farewell {
                Farewell::Said => said.or_else(|| Some(now.clone())),
                Farewell::TakenBack => None,
                Farewell::AsItIs => said,
            },
        };
        (old != Some(&new)).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PEER: &str = "09897b82";
    const THEN: &str = "2026-01-01T00:00:00Z";

    fn request(id: &str, origin: &str, url: &str, withdrawn: bool) -> ResourceRequest {
        let withdrawn = withdrawn.then_some(THEN);
        serde_json::from_value(json!({
            "metadata": {"name": "rome", "labels": {"liqo.io/originID": origin}},
            "spec": {
                "clusterIdentity": {"clusterID": id, "clusterName": "rome"},
                "authUrl": url,
                "withdrawalTimestamp": withdrawn,
            },
        }))
        .unwrap()
    }

    fn offer(kubelet: &str, withdrawn: bool, deleting: bool) -> ResourceOffer {
        let time = |set: bool| if set { json!(THEN) } else { Value::Null };
        serde_json::from_value(json!({
            "metadata": {"name": "milan", "deletionTimestamp": time(deleting)},
            "spec": {"clusterId": "16fbeaec", "withdrawalTimestamp": time(withdrawn)},
            "status": {"phase": "Accepted", "virtualKubeletStatus": kubelet},
        }))
        .unwrap()
    }

    #[test]
    fn a_request_speaks_only_for_whose_namespace_it_is_in() {
        let here = ClusterIdentity::new("16fbeaec", "milan");
        let url = "https://1.2.3.4:32000";
        assert_eq!(foul(&request(PEER, PEER, url, false), PEER, &here), None);
        for (bad, words) in [
            (request("somebody", PEER, url, false), "speaks for cluster somebody"),
            (request(PEER, "somebody", url, false), "comes from cluster somebody"),
            (request(PEER, "", url, false), "comes from cluster"),
            (request(PEER, PEER, "http://1.2.3.4", false), "authUrl"),
            (request(PEER, PEER, "nonsense", false), "authUrl"),
        ] {
            let why = foul(&bad, PEER, &here).unwrap();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, clippy::type_complexity, reason = "a table, one row for each case")]
    fn an_offer_exists_while_an_accepted_request_does() {
        use Step::{Keep, Make, Remove, Withdraw};
        let stands = request(PEER, PEER, "", false);
        let withdrawn = request(PEER, PEER, "", true);
        let table: Vec<(&str, Option<&ResourceRequest>, bool, bool, Option<ResourceOffer>, Step, OfferState, bool)> = vec![
            ("first", Some(&stands), true, false, None, Make, OfferState::Created, false),
            (
                "kept up to date",
                Some(&stands),
                true,
                false,
                Some(offer("Created", false, false)),
                Make,
                OfferState::Created,
                false,
            ),
            (
                "wanted again, node still there",
                Some(&stands),
                true,
                false,
                Some(offer("Created", true, false)),
                Keep,
                OfferState::Created,
                false,
            ),
            (
                "wanted again, node gone",
                Some(&stands),
                true,
                false,
                Some(offer("None", true, false)),
                Remove,
                OfferState::Created,
                false,
            ),
            (
                "wanted again, old one going",
                Some(&stands),
                true,
                false,
                Some(offer("None", true, true)),
                Keep,
                OfferState::Created,
                false,
            ),
            ("denied from the start", Some(&stands), false, false, None, Keep, OfferState::None, true),
            ("withdrawn before it was offered", Some(&withdrawn), true, false, None, Keep, OfferState::None, true),
            (
                "withdrawn",
                Some(&withdrawn),
                true,
                false,
                Some(offer("Created", false, false)),
                Withdraw,
                OfferState::Created,
                false,
            ),
            (
                "revoked",
                Some(&stands),
                false,
                false,
                Some(offer("Created", false, false)),
                Withdraw,
                OfferState::Created,
                false,
            ),
            (
                "consumer drains",
                Some(&withdrawn),
                true,
                false,
                Some(offer("Deleting", true, false)),
                Keep,
                OfferState::Created,
                false,
            ),
            (
                "consumer is done",
                Some(&withdrawn),
                true,
                false,
                Some(offer("None", true, false)),
                Remove,
                OfferState::Created,
                true,
            ),
            (
                "consumer is dead",
                Some(&withdrawn),
                true,
                true,
                Some(offer("Created", true, false)),
                Remove,
                OfferState::Created,
                true,
            ),
            (
                "offer going",
                Some(&withdrawn),
                true,
                false,
                Some(offer("None", true, true)),
                Keep,
                OfferState::Created,
                true,
            ),
            (
                "request gone",
                None,
                true,
                false,
                Some(offer("Created", false, false)),
                Remove,
                OfferState::Created,
                true,
            ),
        ];
        let now = liqo_kube::now();
        for (what, request, accepted, dead, offer, step, state, said) in table {
            let plan = plan(&Seen { request, offer: offer.as_ref(), accepted, dead, overdue: false });
            assert_eq!(plan.step, step, "{what}");
            let status = plan.status(None, &now).unwrap();
            assert_eq!((status.offer_state, status.offer_withdrawal_timestamp.is_some()), (state, said), "{what}");
        }
    }

    #[test]
    fn a_consumer_that_keeps_its_node_is_not_waited_for_without_end() {
        let stands = request(PEER, PEER, "", false);
        let taken = offer("Created", true, false);
        for (overdue, step) in [(false, Step::Keep), (true, Step::Remove)] {
            let seen = Seen { request: Some(&stands), offer: Some(&taken), accepted: false, dead: false, overdue };
            assert_eq!(plan(&seen).step, step);
        }
    }

    #[test]
    fn the_end_of_an_offer_is_said_once_and_taken_back_with_a_new_one() {
        let then: Time = serde_json::from_value(json!(THEN)).unwrap();
        let old =
            ResourceRequestStatus { offer_state: OfferState::None, offer_withdrawal_timestamp: Some(then.clone()) };
        let withdrawn = request(PEER, PEER, "", true);
        let ended = plan(&Seen { request: Some(&withdrawn), offer: None, accepted: true, dead: false, overdue: false });
        assert_eq!(ended.status(Some(&old), &liqo_kube::now()), None);
        let stands = request(PEER, PEER, "", false);
        let again = plan(&Seen { request: Some(&stands), offer: None, accepted: true, dead: false, overdue: false });
        let status = again.status(Some(&old), &liqo_kube::now()).unwrap();
        assert_eq!(
            status,
            ResourceRequestStatus { offer_state: OfferState::Created, offer_withdrawal_timestamp: None }
        );
    }
}
