//! Keeps the ledger of a provider: what is promised of its offer, and what becomes of the reservations there.
//!
//! Keeps true: the ledger is written under the version that it was computed from, and before a reservation is told that it holds; a
//! promise ends only when its reservation has ended, is gone for sure, or is refused by the provider.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
    jiff::Timestamp,
};
use kube::ResourceExt;
use liqo_api::market::{
    FRESH, Grant as Kept, OVERBOOKED, Outage, ProviderProfile, ProviderProfileStatus, Reservation,
    ReservationPhase as Phase, ReservationStatus,
};
use liqo_core::{quantity::Amount, resources};
use liqo_kube::{KubeError, now};
use liqo_market::{Ask, Booked, Grant, Verdict, book, free, provider::record, uptime::Record, wish::amounts};

use crate::{heard::Last, world::World};

/// Pause until the stores have caught up.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Pause while providers have not had the time to be heard of.
const YOUNG: Duration = Duration::from_secs(1);

/// What is known of a provider at one moment.
struct Seen<'a> {
    profile: &'a ProviderProfile,
    reservations: &'a [Arc<Reservation>],
    last: Option<&'a Last>,
    /// When the provider was heard of last, in seconds since 1970, if that is known.
    heard: Option<i64>,
    is_fresh: bool,
    now: &'a Time,
}

/// Looks at one provider.
pub(crate) async fn settle(world: &World, provider: String) -> Result<Option<Duration>, KubeError> {
    let reservations = world.reservations_at(&provider);
    let Some(profile) = world.profile(&provider) else {
        return nobody(world, &reservations).await;
    };
    let at = Instant::now();
    let (last, age, limit) = (world.heard.last(&provider), world.heard.age(&provider, at), world.heard.limit());
    let is_fresh = age.is_some_and(|age| age <= limit);
    if age.is_none() && world.heard.is_young(at) {
        return Ok(Some(YOUNG));
    }
    if !all_known(world, &profile, &reservations).await? {
        return Ok(Some(CATCH_UP));
    }
    let now = now();
    let heard = age.map(|age| second(&now).saturating_sub_unsigned(age.as_secs()));
    let seen = Seen { profile: &profile, reservations: &reservations, last: last.as_ref(), heard, is_fresh, now: &now };
    let booked = booked(&seen);
    let status = status(&seen, &booked);
    if profile.status.as_ref() != Some(&status) && world.cluster.put_status_as_seen(&*profile, &status).await?.is_none()
    {
        return Ok(Some(CATCH_UP));
    }
    for reservation in &reservations {
        let verdict = reservation.uid().and_then(|uid| booked.verdicts.get(&uid).cloned());
        let refusal = refusal(last.as_ref(), reservation).filter(|_| !phase(reservation).is_final());
        if let Some(told) = told(refusal, verdict.as_ref()).filter(|told| reservation.status.as_ref() != Some(told)) {
            world.cluster.put_status(&**reservation, &told).await?;
        }
    }
    let stale = age.filter(|_| is_fresh).map(|age| (limit - age).as_secs() + 1);
    Ok(booked
        .next_end(now.0.as_second())
        .into_iter()
        .chain(stale)
        .min()
        .map(|seconds| Duration::from_secs(seconds.max(1))))
}

/// Reservations at a provider that nobody has heard of.
async fn nobody(world: &World, reservations: &[Arc<Reservation>]) -> Result<Option<Duration>, KubeError> {
    for reservation in reservations.iter().filter(|one| !phase(one).is_final()) {
        let told = failed("NoSuchProvider", "no provider with this cluster ID offers anything".to_owned());
        world.cluster.put_status(&**reservation, &told).await?;
    }
    Ok(None)
}

/// Whether no promise would be ended only because our view of the reservations is older than that of the ledger.
async fn all_known(
    world: &World,
    profile: &ProviderProfile,
    reservations: &[Arc<Reservation>],
) -> Result<bool, KubeError> {
    let grants = profile.status.iter().flat_map(|status| &status.grants);
    for grant in grants.filter(|grant| !reservations.iter().any(|one| one.uid().as_ref() == Some(&grant.uid))) {
        let found = world.cluster.get::<Reservation>(&grant.namespace, &grant.name).await?;
        if found.is_some_and(|found| found.uid().as_ref() == Some(&grant.uid)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn phase(reservation: &Reservation) -> Phase {
    reservation.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

/// Why the provider does not want the consumer of a reservation.
fn refusal<'a>(last: Option<&'a Last>, reservation: &Reservation) -> Option<&'a String> {
    last?.refusals.get(&reservation.uid()?)
}

fn second(time: &Time) -> i64 {
    time.0.as_second()
}

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap_or(Timestamp::MAX))
}

/// The ledger as it has to be.
fn booked(seen: &Seen<'_>) -> Booked {
    let held = seen.profile.status.iter().flat_map(|status| &status.grants).map(|kept| Grant {
        id: kept.uid.clone(),
        resources: resources::read(&kept.resources),
        asked: second(&kept.asked),
        until: second(&kept.until),
    });
    let stands = |one: &&Arc<Reservation>| {
        !phase(one).is_final() && one.metadata.deletion_timestamp.is_none() && refusal(seen.last, one).is_none()
    };
    let asks = seen.reservations.iter().filter(stands).map(|one| Ask {
        id: one.uid().unwrap_or_default(),
        made: one.metadata.creation_timestamp.as_ref().map(second).unwrap_or_default(),
        resources: amounts("resources", &one.spec.resources),
        until: second(&one.spec.until),
        was_granted: phase(one) == Phase::Granted,
    });
    let closed = match (seen.profile.spec.cordoned, seen.is_fresh) {
        (true, _) => Some("the provider takes no new reservations"),
        (false, false) => Some("the provider was not heard of lately"),
        (false, true) => None,
    };
    let (held, asks): (Vec<_>, Vec<_>) = (held.collect(), asks.collect());
    book(&resources::read(&offer(seen).0), &held, &asks, second(seen.now), closed)
}

/// What the provider offers, and what the largest pod can have: as it said last, else as it was stored.
fn offer(seen: &Seen<'_>) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
    match seen.last {
        Some(last) => last.offer.clone(),
        None => {
            let status = seen.profile.status.clone().unwrap_or_default();
            (status.offered, status.largest_allocation)
        }
    }
}

/// The status of the profile as it has to be.
fn status(seen: &Seen<'_>, booked: &Booked) -> ProviderProfileStatus {
    let (offered, largest_allocation) = offer(seen);
    let left = free(&resources::read(&offered), &booked.grants);
    let mut reserved = resources::Resources::new();
    booked.grants.iter().for_each(|grant| resources::add(&mut reserved, &grant.resources));
    let short: Vec<_> =
        left.iter().filter(|(_, amount)| **amount < Amount::ZERO).map(|(name, _)| name.as_str()).collect();
    let before = seen.profile.status.iter().flat_map(|status| status.conditions.clone()).collect::<Vec<_>>();
    let fresh = match seen.is_fresh {
        true => (FRESH, true, "Heard", String::new()),
        false => (FRESH, false, "NoHeartbeat", "three heartbeats did not come".to_owned()),
    };
    let overbooked = match short.is_empty() {
        true => (OVERBOOKED, false, "Covered", String::new()),
        false => (OVERBOOKED, true, "OfferShrank", format!("more is promised than offered of {}", short.join(", "))),
    };
    let record = profile_record(seen);
    ProviderProfileStatus {
        observed_since: record.since.map(time),
        outages: record.outages.iter().map(|one| Outage { from: time(one.from), until: one.until.map(time) }).collect(),
        free: resources::write(&left.into_iter().map(|(name, amount)| (name, amount.at_least_zero())).collect()),
        reserved: resources::write(&reserved),
        grants: booked.grants.iter().filter_map(|grant| kept(seen, grant)).collect(),
        conditions: [fresh, overbooked].map(|told| condition(&before, told, seen.now)).into(),
        offered,
        largest_allocation,
    }
}

/// When the provider was there, as it has to be.
fn profile_record(seen: &Seen<'_>) -> Record {
    let before = seen.profile.status.as_ref().map(record).unwrap_or_default();
    before.noted(seen.is_fresh, seen.heard, second(seen.now))
}

/// A promise as it is stored.
fn kept(seen: &Seen<'_>, grant: &Grant) -> Option<Kept> {
    let reservation = seen.reservations.iter().find(|one| one.uid().as_ref() == Some(&grant.id))?;
    Some(Kept {
        uid: grant.id.clone(),
        namespace: reservation.namespace().unwrap_or_default(),
        name: reservation.name_any(),
        resources: resources::write(&grant.resources),
        asked: time(grant.asked),
        until: time(grant.until),
    })
}

fn condition(
    before: &[Condition],
    (kind, is_true, reason, message): (&str, bool, &str, String),
    now: &Time,
) -> Condition {
    let status = if is_true { "True" } else { "False" };
    let same = before.iter().find(|one| one.type_ == kind && one.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: same.map_or_else(|| time(second(now)), |one| one.last_transition_time.clone()),
        observed_generation: None,
    }
}

fn failed(reason: &str, message: String) -> ReservationStatus {
    ReservationStatus {
        phase: Phase::Failed,
        reason: Some(reason.to_owned()),
        message: Some(message),
        expires_at: None,
    }
}

/// What a reservation is told; nothing when it has ended before.
fn told(refusal: Option<&String>, verdict: Option<&Verdict>) -> Option<ReservationStatus> {
    if let Some(why) = refusal {
        return Some(failed("ProviderRefused", why.clone()));
    }
    let told = match verdict? {
        Verdict::Granted(until) => ReservationStatus {
            phase: Phase::Granted,
            reason: Some("Held".to_owned()),
            message: None,
            expires_at: Some(time(*until)),
        },
        Verdict::NotEnough(resource, required, there) => failed(
            "NotEnough",
            format!("{} of {resource} is asked for, {} is free", required.quantity().0, there.quantity().0),
        ),
        Verdict::Invalid(why) => failed("Invalid", why.clone()),
        Verdict::Closed(why) => failed("Closed", why.clone()),
        Verdict::Expired => ReservationStatus {
            phase: Phase::Expired,
            reason: Some("TimeIsOver".to_owned()),
            message: None,
            expires_at: None,
        },
    };
    Some(told)
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
