//! The demands booked for pods of peers: what the controller of shadow pods has found within an offer.
//!
//! Keeps true: all bookings are here, under one lock, and one call compares a demand with everything that is booked or
//! exists and books the demand, so that no two pods are booked into the same room. A place (namespace and name) has one
//! booking at a time. A booking ends when neither the `ShadowPod` nor its pod exists. Until the watch shows a pod that was
//! asked for, the booking stands for the pod. After a restart the pods are the record of what was booked.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use liqo_api::{
    sharing::ResourceOffer,
    virtualkubelet::{ShadowPod, ShadowPodPhase},
};
use liqo_core::{
    grants::Grant,
    resources::{self, Resources},
};

use super::{super::guest, Place, Used, covers, demand, demand_of, given, judge, made_from, place_of};

/// Whether a pod fits into an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The pod fits beside what exists and what is claimed.
    Fits,
    /// The pod fits beside what exists, not beside what is claimed as well.
    NotBesideClaims,
    /// The pod does not fit beside what exists, or its demand cannot be counted: the reason.
    Never(String),
}

/// Compares a pod with what is left of `limit`: beside what is `used`, then beside what is `claimed` as well. A claim is a
/// demand of which it is not known whether an object follows; a claim delays a pod and never refuses a pod.
pub(crate) fn fit(limit: &Resources, mut used: Resources, claimed: &Resources, pod: &PodSpec) -> Fit {
    if let Err(why) = judge(limit, &used, pod) {
        return Fit::Never(why);
    }
    resources::add(&mut used, claimed);
    match judge(limit, &used, pod) {
        Ok(()) => Fit::Fits,
        Err(_) => Fit::NotBesideClaims,
    }
}

/// What is known of a pod that is to be made, when its demand is to be booked.
struct Seen<'a> {
    grant: Grant,
    /// Whether pods of peers are limited to the offer.
    is_enforced: bool,
    /// The demand was booked before: whether that covers the demand of now.
    is_covered: bool,
    /// The pod has run once.
    ran: bool,
    /// The specification is the one with which the `ShadowPod` was created.
    is_as_made: bool,
    /// ID of the peer.
    peer: &'a str,
}

/// What follows for a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing is booked anew.
    Keep,
    /// Books without a comparison.
    Book,
    /// Books if the demand fits into the offer.
    Compare,
    Refuse(String),
}

/// Decides: new pods are made while the peer is granted more, pods that ran once while the peer is granted anything.
fn plan(seen: &Seen<'_>) -> Step {
    if !(seen.grant.may_grow() || seen.grant.is_in_force() && seen.ran) {
        let peer = seen.peer;
        return Step::Refuse(format!(
            "this cluster does not run the pod: the cluster {peer:?} is granted no more pods now"
        ));
    }
    match seen {
        _ if !seen.is_enforced || seen.is_covered => Step::Keep,
        // What ran once was within the offer. That the offer is smaller now does not end the pod.
        _ if seen.ran && seen.is_as_made => Step::Book,
        _ => Step::Compare,
    }
}

/// The booking of one place.
#[derive(Clone, Debug, Default)]
struct Booking {
    /// UID of the `ShadowPod`: a new `ShadowPod` of the same name has another UID.
    uid: String,
    /// ID of the peer.
    peer: String,
    /// The demand that was found within the offer to the peer.
    demand: Option<Resources>,
    /// The creation of the pod was asked for, and the watch has not shown the pod since.
    awaits_pod: bool,
}

/// All bookings.
pub(crate) struct Bookings {
    /// Whether pods of peers are limited to the offer to the peer.
    is_enforced: bool,
    all: Mutex<HashMap<Place, Booking>>,
}

/// What exists of a peer.
pub(crate) struct Existing {
    /// `ShadowPod`s that count.
    pub shadows: Vec<Arc<ShadowPod>>,
    /// Pods that count.
    pub pods: Vec<Arc<Pod>>,
}

impl Bookings {
    /// No bookings; with `is_enforced` pods of peers are limited to the offer to the peer.
    pub(crate) fn new(is_enforced: bool) -> Self {
        Self { is_enforced, all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Place, Booking>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the pod of a `ShadowPod`, which the watch shows. After a restart the pod is the record of what was booked: a
    /// specification that has changed since is booked for no more than the pod has.
    pub(crate) fn note(&self, shadow: &ShadowPod, pod: &Pod) {
        let mut all = self.all();
        let booking = of(&mut all, shadow);
        booking.awaits_pod = false;
        if self.is_enforced && booking.demand.is_none() && made_from(pod) == shadow.metadata.uid.as_deref() {
            let (asked, has) = (demand_of(shadow), pod.spec.as_ref().map(demand).unwrap_or_default());
            booking.demand = Some(if is_as_made(shadow) || covers(&has, &asked) { asked } else { has });
        }
    }

    /// Books the demand of a `ShadowPod` whose pod is to be made, beside what exists of its peer.
    ///
    /// # Errors
    /// A text that says why the demand is not booked.
    pub(crate) fn book(
        &self,
        shadow: &ShadowPod,
        existing: impl FnOnce() -> Existing,
        (grant, offer): (Grant, Option<Arc<ResourceOffer>>),
    ) -> Result<(), String> {
        let (mut all, peer) = (self.all(), guest::origin(&shadow.metadata));
        let demand = demand_of(shadow);
        let is_covered = of(&mut all, shadow).demand.as_ref().is_some_and(|booked| covers(booked, &demand));
        let is_enforced = self.is_enforced;
        let (ran, is_as_made) = (ran(shadow), is_as_made(shadow));
        match plan(&Seen { grant, is_enforced, is_covered, ran, is_as_made, peer }) {
            Step::Refuse(why) => return Err(why),
            Step::Keep => return Ok(()),
            Step::Book => {}
            Step::Compare => {
                let offer = offer.ok_or_else(|| format!("nothing is offered to the cluster {peer}"))?;
                let used = used_beside(shadow, &existing(), &all);
                let pod = shadow.spec.pod.clone().unwrap_or_default();
                if let Fit::Never(why) = fit(&given(&offer), used, &Resources::new(), &pod) {
                    return Err(why);
                }
            }
        }
        of(&mut all, shadow).demand = Some(demand);
        Ok(())
    }

    /// Notes whether a pod of the `ShadowPod` may exist that the watch has not shown.
    pub(crate) fn await_pod(&self, shadow: &ShadowPod, awaits_pod: bool) {
        of(&mut self.all(), shadow).awaits_pod = awaits_pod;
    }

    /// Whether a pod at this place may exist that the watch has not shown.
    pub(crate) fn is_awaited(&self, place: &Place) -> bool {
        self.all().get(place).is_some_and(|booking| booking.awaits_pod)
    }

    /// There is no pod at this place.
    pub(crate) fn no_pod(&self, place: &Place) {
        if let Some(booking) = self.all().get_mut(place) {
            booking.awaits_pod = false;
        }
    }

    /// Ends the booking of a place at which neither a `ShadowPod` nor a pod exists.
    pub(crate) fn end(&self, place: &Place) {
        self.all().remove(place);
    }
}

/// The booking of a `ShadowPod`; the booking of an earlier `ShadowPod` at the same place ends.
fn of<'a>(all: &'a mut HashMap<Place, Booking>, shadow: &ShadowPod) -> &'a mut Booking {
    let uid = shadow.uid().unwrap_or_default();
    let booking = all.entry(place_of(shadow)).or_default();
    if booking.uid != uid {
        *booking = Booking { uid, peer: guest::origin(&shadow.metadata).to_owned(), ..Booking::default() };
    }
    booking
}

/// What the peer uses besides `shadow`: its pods, also pods whose `ShadowPod` is gone and pods that the watch has not
/// shown yet; and `ShadowPod`s without a pod whose pod may be made without a new booking.
fn used_beside(shadow: &ShadowPod, existing: &Existing, all: &HashMap<Place, Booking>) -> Resources {
    let owners: HashSet<_> = existing.pods.iter().filter_map(|pod| made_from(pod)).collect();
    let booked = |one: &ShadowPod| {
        let booking = all.get(&place_of(one)).filter(|booking| Some(&booking.uid) == one.metadata.uid.as_ref());
        booking.and_then(|booking| booking.demand.as_ref())
    };
    let is_made = |one: &ShadowPod| {
        let has_pod = one.metadata.uid.as_deref().is_some_and(|uid| owners.contains(uid));
        one.uid() != shadow.uid() && (has_pod || ran(one) || booked(one).is_some())
    };
    let made: Vec<_> = existing.shadows.iter().filter(|one| is_made(one)).map(AsRef::as_ref).collect();
    let mut used = Used::of(&made, &existing.pods);
    for one in made {
        booked(one).into_iter().for_each(|booked| used.raise(place_of(one), booked));
    }
    let peer = guest::origin(&shadow.metadata);
    for (place, booking) in all.iter().filter(|(_, booking)| booking.awaits_pod && booking.peer == peer) {
        booking.demand.iter().for_each(|booked| used.raise(place.clone(), booked));
    }
    used.beside(&place_of(shadow))
}

/// Whether the pod of a `ShadowPod` has run. Such a pod is made again without a comparison, so its `ShadowPod` counts until
/// its work is done.
fn ran(shadow: &ShadowPod) -> bool {
    shadow.status.as_ref().is_some_and(|status| status.phase != ShadowPodPhase::Pending)
}

/// Whether the specification is the one with which the `ShadowPod` was created. Admission lets no change of a demand pass;
/// where the webhook is away, only this counts.
fn is_as_made(shadow: &ShadowPod) -> bool {
    shadow.metadata.generation.unwrap_or_default() <= 1
}
