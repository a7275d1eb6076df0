//! Reservations for callers who may make them.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use kube::ResourceExt;
use liqo_api::market::{Reservation, ReservationPhase as Phase, ReservationSpec};
use liqo_front::problem::Problem;
use liqo_kube::{KubeError, now};
use liqo_market::{book::LONGEST, wire::NewReservation};
use serde_json::json;

use crate::world::World;

/// How long a caller waits for the decision about a reservation.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a caller gets.
pub(crate) enum Made {
    /// The resources are held; an earlier request had asked for the same.
    Known(Arc<Reservation>),
    /// The resources are held.
    New(Arc<Reservation>),
    /// Nobody has decided yet.
    Undecided(Arc<Reservation>),
}

/// The end of a reservation that lasts `seconds` from now, in whole seconds.
///
/// # Errors
/// 400 when the seconds make no sense.
pub(crate) fn end(seconds: u32) -> Result<Time, Problem> {
    let wrong = || Problem::new(StatusCode::BAD_REQUEST, format!("ttlSeconds is a number from 1 to {LONGEST}"));
    if seconds == 0 || i64::from(seconds) > LONGEST {
        return Err(wrong());
    }
    let end = now().0.checked_add(SignedDuration::from_secs(i64::from(seconds))).map_err(|_| wrong())?;
    k8s_openapi::jiff::Timestamp::from_second(end.as_second()).map(Time).map_err(|_| wrong())
}

/// Makes a reservation and waits for the decision.
///
/// # Errors
/// 409 when the resources are not there (nothing is left behind then), or when another reservation has the name.
pub(crate) async fn make(world: &World, namespace: &str, new: NewReservation) -> Result<Made, Problem> {
    let NewReservation { name, provider, consumer, resources, ttl_seconds } = new;
    liqo_market::wish::amounts("resources", &resources).map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why))?;
    let spec = ReservationSpec { provider, consumer, resources, until: end(ttl_seconds)? };
    let mut wanted = Reservation::new(&name, spec);
    wanted.metadata.namespace = Some(namespace.to_owned());
    let mut changes = world.changes();
    let (made, is_known) = match world.cluster.create(&wanted).await {
        Ok(made) => (made, false),
        Err(error) if error.is_conflict() => (same(world, &wanted).await?, true),
        Err(error) => return Err(refused(&error)),
    };
    let decided = tokio::time::timeout(PATIENCE, async {
        loop {
            changes.borrow_and_update();
            let now = world.reservation(namespace, &name).filter(|one| one.uid() == made.uid());
            if let Some(now) = now.filter(|one| phase(one) != Phase::Pending) {
                return now;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    });
    match decided.await {
        Err(_) => Ok(Made::Undecided(Arc::new(made))),
        Ok(now) if phase(&now) == Phase::Granted => Ok(if is_known { Made::Known(now) } else { Made::New(now) }),
        Ok(now) => {
            let status = now.status.clone().unwrap_or_default();
            world.cluster.remove(&*now).await.map_err(|error| refused(&error))?;
            let reason = status.reason.unwrap_or_default();
            let message = status.message.unwrap_or_default();
            Err(Problem::new(StatusCode::CONFLICT, format!("{reason}: {message}"))
                .with_remedy("select again: another provider may fit"))
        }
    }
}

fn phase(reservation: &Reservation) -> Phase {
    reservation.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

/// The reservation of an earlier request with the same content.
async fn same(world: &World, wanted: &Reservation) -> Result<Reservation, Problem> {
    let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
    let found = world.cluster.get::<Reservation>(&namespace, &name).await.map_err(|error| refused(&error))?;
    let again = || Problem::new(StatusCode::CONFLICT, format!("reservation {name} was released just now, try again"));
    let found = found.ok_or_else(again)?;
    let content =
        |one: &Reservation| (one.spec.provider.clone(), one.spec.consumer.clone(), one.spec.resources.clone());
    if content(&found) == content(wanted) && found.metadata.deletion_timestamp.is_none() {
        return Ok(found);
    }
    Err(Problem::new(StatusCode::CONFLICT, format!("another reservation has the name {name:?}")))
}

/// Lets a reservation that holds last longer.
pub(crate) async fn renew(world: &World, reservation: &Reservation, seconds: u32) -> Result<Reservation, Problem> {
    if phase(reservation) != Phase::Granted {
        let detail = format!("the reservation is {:?} and cannot be renewed", phase(reservation));
        return Err(Problem::new(StatusCode::CONFLICT, detail).with_remedy("make another reservation"));
    }
    let patch = json!({"metadata": {"uid": reservation.uid()}, "spec": {"until": end(seconds)?}});
    world.cluster.merge(reservation, patch).await.map_err(|error| refused(&error))
}

/// What the API server refused, as a problem; its own words are for the caller.
pub(crate) fn refused(error: &KubeError) -> Problem {
    let words = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let status = match error.code() {
        Some(400) => StatusCode::BAD_REQUEST,
        Some(404) => StatusCode::NOT_FOUND,
        Some(409) => StatusCode::CONFLICT,
        Some(422) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => return Problem::unanswered(error),
    };
    Problem::new(status, words)
}
