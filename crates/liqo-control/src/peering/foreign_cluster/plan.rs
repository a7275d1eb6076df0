//! What follows from what is known about a peer: what to do with our request, what to tell.
//!
//! All pure. The table of stages is that of Liqo 0.8.3; beyond it: a wish renewed while the request is
//! still being withdrawn waits for the old one to be gone, and leave is taken of a dead peer without
//! waiting for it: the request stays behind as a tombstone that the replicator carries over later.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, OfferState, PeeringConditionType as Type, ResourceRequest, ResourceRequestSpec},
    meta::{annotation, label},
    sharing::{ResourceOffer, VirtualKubeletStatus},
};
use liqo_core::decision::{self, accepts, is_cordoned};
use liqo_kube::said;

use super::{
    super::{
        checker::Health,
        condition::{self, Fact, Stage},
        identity::Failure,
    },
    is_dead,
};

/// A provider that has made no offer and says nothing after a withdrawal (0.8.3 does not) is given so long.
const SILENCE: Duration = Duration::from_secs(5);

const TAKEN_BACK: &str = "What the remote cluster had here is taken back; the offer to it is removed as soon as the remote \
                          cluster lets go of its copy";
const CORDONED: &str = "The remote cluster asks for resources, and is granted nothing new while it is cordoned: \
                        `liqoctl uncordon tenant` ends that";

/// Whether the peer knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Authentication {
    /// The peer knows this cluster and gave it this namespace.
    Known(String),
    /// Not yet, or not any more.
    Unknown(Option<Failure>),
    /// We take leave: it no longer matters.
    Leaving,
}

/// Everything a decision depends on.
pub(super) struct Observed<'a> {
    pub(super) foreign_cluster: &'a ForeignCluster,
    /// The local tenant namespace.
    pub(super) namespace: &'a str,
    /// `--auto-join-discovered-clusters`.
    pub(super) auto_join: bool,
    /// `--enable-incoming-peering`.
    pub(super) accept_by_default: bool,
    pub(super) authentication: Authentication,
    pub(super) network: Option<Fact>,
    pub(super) health: Option<Health>,
    /// Our request.
    pub(super) request: Option<&'a ResourceRequest>,
    /// The peer's offer to us.
    pub(super) offer_here: Option<&'a ResourceOffer>,
    /// The peer's request.
    pub(super) their_request: Option<&'a ResourceRequest>,
    /// Our offer to the peer.
    pub(super) our_offer: Option<&'a ResourceOffer>,
    /// Our request as it should be, or why there can be none.
    pub(super) desired: Result<ResourceRequestSpec, String>,
    /// Whether the time is over that the peer had to take back what it provides; nothing else ends a withdrawal that a
    /// provider does not answer.
    pub(super) overdue: bool,
    /// Whether the peer is granted nothing here any more, as a consumer: the deadline of a withdrawal is over, or the peer is
    /// banned.
    pub(super) taken_back: bool,
    pub(super) now: Time,
}

/// What to do with our request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Keep,
    /// Create it, or make it look like this.
    Write(ResourceRequestSpec),
    Withdraw,
    Remove,
}

/// What follows.
#[must_use]
pub(super) struct Plan {
    pub(super) step: Step,
    pub(super) facts: Vec<Fact>,
    /// The object was made for a request that is no more, and records no decision of a user of this cluster.
    pub(super) superfluous: bool,
    pub(super) again: Option<Duration>,
}

/// Decides.
pub(super) fn plan(seen: &Observed<'_>) -> Plan {
    let mut facts = vec![condition::processable()];
    facts.extend(seen.network.clone());
    facts.extend(authentication(&seen.authentication));
    let (step, outgoing, again) = outgoing(seen);
    let incoming = incoming(seen);
    let unused = seen.request.is_none_or(is_leaving) && seen.their_request.is_none() && seen.our_offer.is_none();
    let superfluous = unused
        && step == Step::Keep
        && !wants(seen)
        && is_incoming(seen.foreign_cluster)
        && !decision::is_decided(seen.foreign_cluster)
        && !decision::is_remembered(seen.foreign_cluster, seen.now.0.as_second());
    // Before the peer knew us 0.8.3 said nothing about directions.
    if seen.request.is_some() || seen.their_request.is_some() || has_told(seen, Type::OutgoingPeering) || knows(seen) {
        facts.extend([outgoing, incoming]);
    }
    facts.extend(seen.health.map(|health| condition::api_server(health.ready)));
    let superfluous = superfluous && seen.foreign_cluster.metadata.deletion_timestamp.is_none();
    Plan { step, facts, superfluous, again }
}

fn authentication(authentication: &Authentication) -> Option<Fact> {
    match authentication {
        Authentication::Known(_) => Some(condition::authenticated()),
        Authentication::Unknown(Some(Failure::Denied(why))) => Some(condition::denied(why)),
        Authentication::Unknown(Some(Failure::DeniedWithoutToken(why))) => Some(condition::denied_without_token(why)),
        Authentication::Unknown(Some(Failure::Failed(why))) => Some(condition::no_identity(why)),
        Authentication::Unknown(None) | Authentication::Leaving => None,
    }
}

fn knows(seen: &Observed<'_>) -> bool {
    matches!(seen.authentication, Authentication::Known(_))
}

fn has_told(seen: &Observed<'_>, direction: Type) -> bool {
    let status = seen.foreign_cluster.status.as_ref();
    status.is_some_and(|status| status.peering_conditions.iter().any(|one| one.type_ == direction))
}

fn is_leaving<K: ResourceExt>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

fn is_incoming(one: &ForeignCluster) -> bool {
    one.labels().get(label::DISCOVERY_TYPE).is_some_and(|kind| kind == label::DISCOVERY_INCOMING)
}

/// Whether we want resources from the peer.
fn wants(seen: &Observed<'_>) -> bool {
    decision::wants(seen.foreign_cluster, seen.auto_join)
}

fn outgoing(seen: &Observed<'_>) -> (Step, Fact, Option<Duration>) {
    match seen.request {
        _ if wants(seen) && knows(seen) => wanted(seen),
        // A wish is not taken back because the identity is missing for a while.
        Some(request) if wants(seen) && request.spec.withdrawal_timestamp.is_none() => {
            (Step::Keep, stage_of(seen, request), None)
        }
        _ => unwanted(seen),
    }
}

fn wanted(seen: &Observed<'_>) -> (Step, Fact, Option<Duration>) {
    let tell = |stage| condition::stage(Type::OutgoingPeering, stage, seen.namespace);
    let desired = match &seen.desired {
        Ok(desired) => desired,
        Err(why) => {
            let why = format!("No ResourceRequest can be sent: {why}");
            return (Step::Keep, condition::waiting(Type::OutgoingPeering, why), None);
        }
    };
    let Some(request) = seen.request else { return (Step::Write(desired.clone()), tell(Stage::NoOffer), None) };
    let status = request.status.clone().unwrap_or_default();
    if is_leaving(request) {
        return (Step::Keep, tell(Stage::Leaving), None);
    }
    if request.spec.withdrawal_timestamp.is_some() {
        // Once withdrawn, the offer comes back only with a new request: let the old one come to its end.
        let untouched = status.offer_state == OfferState::None && seen.offer_here.is_none();
        return match status.offer_withdrawal_timestamp {
            Some(_) => (Step::Remove, tell(Stage::Leaving), None),
            None if untouched => (Step::Write(desired.clone()), tell(Stage::NoOffer), None),
            None => (Step::Keep, tell(Stage::Leaving), None),
        };
    }
    let uid = seen.foreign_cluster.metadata.uid.as_ref();
    let is_ours = request.owner_references().iter().any(|owner| Some(&owner.uid) == uid);
    let step = if request.spec == *desired && is_ours { Step::Keep } else { Step::Write(desired.clone()) };
    (step, stage_of(seen, request), None)
}

/// How far our request is, with what the peer says about it.
fn stage_of(seen: &Observed<'_>, request: &ResourceRequest) -> Fact {
    let stage = stage(Some(request), seen.offer_here);
    let mut fact = condition::stage(Type::OutgoingPeering, stage, seen.namespace);
    let words = request.annotations().get(annotation::REFUSAL).filter(|_| stage != Stage::Leaving);
    if let Some(words) = words {
        let peer = seen.foreign_cluster.spec.cluster_identity.as_ref().map_or("", |one| one.cluster_name.as_str());
        fact.message = format!("{}; {}", fact.message, said::by(peer, words));
    }
    fact
}

fn unwanted(seen: &Observed<'_>) -> (Step, Fact, Option<Duration>) {
    let tell = |stage| condition::stage(Type::OutgoingPeering, stage, seen.namespace);
    let lives = seen.offer_here.is_some_and(|offer| kubelet(offer) != VirtualKubeletStatus::None);
    let gone = || tell(if lives { Stage::Leaving } else { Stage::NoRequest });
    let Some(request) = seen.request.filter(|request| !is_leaving(*request)) else {
        return (Step::Keep, gone(), None);
    };
    let status = request.status.clone().unwrap_or_default();
    let Some(withdrawn) = &request.spec.withdrawal_timestamp else {
        return (Step::Withdraw, tell(Stage::Leaving), None);
    };
    let (dead, dead_in) = is_dead(seen.health);
    if status.offer_withdrawal_timestamp.is_some() || dead || seen.overdue {
        return (Step::Remove, gone(), None);
    }
    let never_offered = status.offer_state == OfferState::None && seen.offer_here.is_none();
    if !never_offered {
        return (Step::Keep, tell(Stage::Leaving), dead_in);
    }
    let silent = seen.now.0.as_second() - withdrawn.0.as_second();
    match SILENCE.checked_sub(Duration::from_secs(u64::try_from(silent).unwrap_or_default())) {
        Some(rest) if !rest.is_zero() => (Step::Keep, tell(Stage::Leaving), Some(rest)),
        _ => (Step::Remove, gone(), None),
    }
}

fn incoming(seen: &Observed<'_>) -> Fact {
    let ends = seen.our_offer.is_some_and(|offer| is_leaving(offer) || offer.spec.withdrawal_timestamp.is_some());
    let found = match stage(seen.their_request, seen.our_offer) {
        Stage::Established | Stage::NoKubelet if ends => Stage::Leaving,
        other => other,
    };
    if found == Stage::Leaving && seen.taken_back {
        return condition::waiting(Type::IncomingPeering, TAKEN_BACK.to_owned());
    }
    let refused = accepts(seen.foreign_cluster, seen.accept_by_default).err().map(str::to_owned);
    let cordoned = || match decision::unknown_condition(seen.foreign_cluster) {
        Some(unknown) => Some(format!("{CORDONED}. {}", decision::unknown_told(unknown))),
        None => is_cordoned(seen.foreign_cluster).then(|| CORDONED.to_owned()),
    };
    match refused.or_else(cordoned) {
        Some(why) if found == Stage::NoOffer => condition::waiting(Type::IncomingPeering, why),
        _ => condition::stage(Type::IncomingPeering, found, seen.namespace),
    }
}

fn kubelet(offer: &ResourceOffer) -> VirtualKubeletStatus {
    offer.status.as_ref().map(|status| status.virtual_kubelet_status).unwrap_or_default()
}

/// How far one direction is; the same table for both.
fn stage(request: Option<&ResourceRequest>, offer: Option<&ResourceOffer>) -> Stage {
    let Some(request) = request else { return Stage::NoRequest };
    let status = request.status.clone().unwrap_or_default();
    let withdrawn = request.spec.withdrawal_timestamp.is_some() || status.offer_withdrawal_timestamp.is_some();
    match (status.offer_state, offer) {
        (OfferState::None, _) => Stage::NoOffer,
        (OfferState::Created, _) if withdrawn => Stage::Leaving,
        (OfferState::Created, None) => Stage::NoOffer,
        (OfferState::Created, Some(offer)) if kubelet(offer) == VirtualKubeletStatus::Created => Stage::Established,
        (OfferState::Created, Some(_)) => Stage::NoKubelet,
    }
}

#[cfg(test)]
mod tests;
