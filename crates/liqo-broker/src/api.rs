//! The handlers.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Extension, Path, RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::RETRY_AFTER};
use kube::ResourceExt;
use liqo_api::market::{Reservation, ReservationPhase};
use liqo_front::{
    Caller, Front, Routes, events, json,
    page::{Cut, Page},
    problem::Problem,
};
use liqo_kube::access::{Act, User};
use liqo_market::wire::{Heartbeat, HeartbeatAnswer, Invitation, NewReservation};
use serde::de::DeserializeOwned;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    beat,
    catalogue::{Filter, legacy},
    follow,
    model::{ProviderView, Renewal, ReservationView},
    reserve::{self, Made, refused},
    selection::{self, NewSelection, SelectionView, describe},
    world::World,
};

/// The API group of the market.
const GROUP: &str = "market.liqo.io";

/// What all handlers share.
pub(crate) struct App {
    front: Arc<Front>,
    world: Arc<World>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "liqo-broker",
    description = "Who offers what, which provider fits a wish and why, and reservations. Everything is done with the rights of the caller."
))]
struct Document;

/// The handlers with their document.
pub(crate) fn routes(app: Arc<App>) -> Routes {
    let router = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list_clusters))
        .routes(routes!(list_providers))
        .routes(routes!(watch_providers))
        .routes(routes!(get_provider))
        .routes(routes!(send_heartbeat))
        .routes(routes!(select_providers))
        .routes(routes!(list_reservations, make_reservation))
        .routes(routes!(get_reservation, release_reservation))
        .routes(routes!(renew_reservation))
        .routes(routes!(get_invitation));
    let (router, document) = router.split_for_parts();
    let mut openapi = serde_json::to_value(document).expect("a document is JSON");
    describe(&mut openapi);
    Routes { router: router.with_state(app), openapi, pages: &[], links: None }
}

type AppState = State<Arc<App>>;
type Known = Extension<Caller>;

/// What a right is about: resource and part.
type What = (&'static str, &'static str);
/// To see the catalogue and to select from it. Not the objects themselves, whose ledgers name the customers.
const CATALOG: What = ("providerprofiles", "catalog");
/// To speak as a provider.
const HEARTBEAT: What = ("providerprofiles", "heartbeat");
/// To reserve for a consumer.
const CONSUMERS: What = ("consumers", "");
const RESERVATIONS: What = ("reservations", "");
const INVITATION: What = ("reservations", "invitation");

impl App {
    pub(crate) fn new(front: Arc<Front>, world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { front, world })
    }

    /// Whether the caller may do it; 403 if not.
    async fn may(
        &self,
        user: &User,
        verb: &'static str,
        what: What,
        (namespace, name): (&str, &str),
    ) -> Result<(), Problem> {
        let (resource, subresource) = what;
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.front.may(user, &Act { verb, group: GROUP, resource, subresource, namespace, name }).await
    }

    fn reservation(&self, namespace: &str, name: &str) -> Result<Arc<Reservation>, Problem> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no reservation {name:?}"));
        self.world.reservation(namespace, name).ok_or_else(missing)
    }

    fn view(&self, profile: &liqo_api::market::ProviderProfile) -> ProviderView {
        ProviderView::of(profile, self.world.age(&profile.name_any()), self.world.heard.limit().as_secs())
    }
}

fn read<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Problem> {
    let wrong = |error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is no {what}: {error}"));
    serde_json::from_slice(body).map_err(wrong)
}

/// The peers of this cluster, as programs of the first generation read them
///
/// An array of ForeignClusters, by name. Where their authentication services are is shown to those who may get ForeignClusters.
#[utoipa::path(get, path = "/api/clusters", responses((status = 200, body = Vec<Object>), (status = 403, body = Problem)))]
async fn list_clusters(
    State(app): AppState,
    Extension(caller): Known,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", CATALOG, ("", "")).await?;
    let act = Act { verb: "get", group: "discovery.liqo.io", resource: "foreignclusters", ..Act::default() };
    let may_see = app.front.reviews.allows(&caller.user, &act).await.map_err(|error| Problem::unanswered(&error))?;
    let all: Vec<_> = app.world.peers().iter().map(|peer| legacy(peer, may_see)).collect();
    json::answer(&method, &headers, &all)
}

/// The providers, by cluster ID
#[utoipa::path(get, path = "/api/v1/providers",
    params(("region" = Option<String>, Query, description = "Only providers of this region"), ("fresh" = Option<bool>, Query, description = "Only providers that were heard of lately, or only others"), ("labels" = Option<String>, Query, description = "Only providers with these labels: key=value,key=value"), ("limit" = Option<usize>, Query, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<ProviderView>), (status = 400, body = Problem), (status = 403, body = Problem)))]
async fn list_providers(
    State(app): AppState,
    Extension(caller): Known,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (cut, filter) = (Cut::read(query.as_deref())?, Filter::read(query.as_deref())?);
    app.may(&caller.user, "get", CATALOG, ("", "")).await?;
    let mut all = app.world.profiles();
    all.retain(|profile| filter.takes(profile, app.view(profile).fresh));
    let page = cut.of(&all, |profile| profile.name_any()).map(|profile| app.view(&profile));
    json::answer(&method, &headers, &page)
}

/// The providers, watched, as server-sent events
///
/// Each `provider` carries a provider that is new or has changed, in the beginning every one; `gone` carries the cluster ID of one that
/// is not listed any longer; `problem` is the last event, and says why the stream ends.
#[utoipa::path(get, path = "/api/v1/events",
    params(("region" = Option<String>, Query, description = "Only providers of this region"), ("fresh" = Option<bool>, Query, description = "Only providers that were heard of lately, or only others"), ("labels" = Option<String>, Query, description = "Only providers with these labels: key=value,key=value")),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 400, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem)))]
async fn watch_providers(
    State(app): AppState,
    Extension(caller): Known,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let filter = Filter::read(query.as_deref())?;
    app.may(&caller.user, "get", CATALOG, ("", "")).await?;
    let place = app.front.streams.take(&caller.user.name)?;
    let changes = app.world.catalogue_changes();
    Ok(events::follow(place, changes, move |last: Option<follow::Seen>| {
        let (app, caller, filter) = (Arc::clone(&app), caller.clone(), filter.clone());
        async move {
            if last.is_some() {
                app.front.again(&caller).await?;
                app.may(&caller.user, "get", CATALOG, ("", "")).await?;
            }
            Ok(follow::look(&app.world, &filter, last.as_ref()))
        }
    }))
}

/// One provider
#[utoipa::path(get, path = "/api/v1/providers/{id}", params(("id" = String, Path, description = "Cluster ID")),
    responses((status = 200, body = ProviderView), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn get_provider(
    State(app): AppState,
    Extension(caller): Known,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", CATALOG, ("", &id)).await?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no provider {id:?}"));
    json::answer(&method, &headers, &app.view(&*app.world.profile(&id).ok_or_else(missing)?))
}

/// Say what a provider offers
///
/// A provider that was not heard of for three intervals gets no new reservations. A heartbeat that says nothing new writes nothing.
#[utoipa::path(post, path = "/api/v1/providers/{id}/heartbeat", request_body = Heartbeat,
    params(("id" = String, Path, description = "Cluster ID of the provider")),
    responses((status = 200, body = HeartbeatAnswer), (status = 400, body = Problem), (status = 403, body = Problem), (status = 422, body = Problem)))]
async fn send_heartbeat(
    State(app): AppState,
    Extension(caller): Known,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    app.may(&caller.user, "update", HEARTBEAT, ("", &id)).await?;
    Ok(json::once(&beat::take(&app.world, &id, read(&body, "heartbeat")?).await?))
}

/// Which providers fit, and why the others do not
///
/// Nothing is reserved.
#[utoipa::path(post, path = "/api/v1/selections", request_body = NewSelection,
    responses((status = 200, body = SelectionView), (status = 400, body = Problem), (status = 403, body = Problem)))]
async fn select_providers(State(app): AppState, Extension(caller): Known, body: Bytes) -> Result<Response, Problem> {
    app.may(&caller.user, "get", CATALOG, ("", "")).await?;
    let new = read(&body, "selection")?;
    // A selection among very many providers takes tens of milliseconds.
    let view = tokio::task::spawn_blocking(move || selection::decide(&app.world, new)).await;
    let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the selection was not finished");
    Ok(json::once(&view.map_err(broken)??))
}

/// The reservations of a namespace, by name
#[utoipa::path(get, path = "/api/v1/namespaces/{namespace}/reservations",
    params(("namespace" = String, Path, description = "Namespace"), ("limit" = Option<usize>, Query, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<ReservationView>), (status = 403, body = Problem)))]
async fn list_reservations(
    State(app): AppState,
    Extension(caller): Known,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    app.may(&caller.user, "list", RESERVATIONS, (&namespace, "")).await?;
    let page = cut.of(&app.world.reservations(&namespace), |one| one.name_any());
    json::answer(&method, &headers, &page.map(|one| ReservationView::of(&one)))
}

/// Reserve resources of a provider
///
/// The answer comes when the decision is stored. A repeated request finds the reservation of the first one.
#[utoipa::path(post, path = "/api/v1/namespaces/{namespace}/reservations", request_body = NewReservation,
    params(("namespace" = String, Path, description = "Namespace")),
    responses((status = 201, body = ReservationView), (status = 200, body = ReservationView, description = "An earlier request has reserved the same"), (status = 202, body = ReservationView, description = "Nobody has decided yet"), (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem, description = "The resources are not there")))]
async fn make_reservation(
    State(app): AppState,
    Extension(caller): Known,
    Path(namespace): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    app.may(&caller.user, "create", RESERVATIONS, (&namespace, "")).await?;
    let new: NewReservation = read(&body, "reservation")?;
    app.may(&caller.user, "use", CONSUMERS, ("", &new.consumer)).await?;
    let (status, view) = match reserve::make(&app.world, &namespace, new).await? {
        Made::New(made) => (StatusCode::CREATED, ReservationView::of(&made)),
        Made::Known(made) => (StatusCode::OK, ReservationView::of(&made)),
        Made::Undecided(made) => (StatusCode::ACCEPTED, ReservationView::of(&made)),
    };
    Ok(json::made(status, &format!("/api/v1/namespaces/{namespace}/reservations/{}", view.name), &view))
}

/// One reservation
#[utoipa::path(get, path = "/api/v1/namespaces/{namespace}/reservations/{name}",
    params(("namespace" = String, Path, description = "Namespace"), ("name" = String, Path, description = "Name")),
    responses((status = 200, body = ReservationView), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn get_reservation(
    State(app): AppState,
    Extension(caller): Known,
    Path((namespace, name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", RESERVATIONS, (&namespace, &name)).await?;
    json::answer(&method, &headers, &ReservationView::of(&*app.reservation(&namespace, &name)?))
}

/// Give the resources of a reservation back
#[utoipa::path(delete, path = "/api/v1/namespaces/{namespace}/reservations/{name}",
    params(("namespace" = String, Path, description = "Namespace"), ("name" = String, Path, description = "Name")),
    responses((status = 202, description = "They are free in a moment"), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn release_reservation(
    State(app): AppState,
    Extension(caller): Known,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    app.may(&caller.user, "delete", RESERVATIONS, (&namespace, &name)).await?;
    let reservation = app.reservation(&namespace, &name)?;
    app.world.cluster.remove(&*reservation).await.map_err(|error| refused(&error))?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Hold the resources of a reservation for longer
#[utoipa::path(post, path = "/api/v1/namespaces/{namespace}/reservations/{name}/renew", request_body = Renewal,
    params(("namespace" = String, Path, description = "Namespace"), ("name" = String, Path, description = "Name")),
    responses((status = 202, body = ReservationView), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem, description = "The time was over")))]
async fn renew_reservation(
    State(app): AppState,
    Extension(caller): Known,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Problem> {
    app.may(&caller.user, "update", RESERVATIONS, (&namespace, &name)).await?;
    let Renewal { ttl_seconds } = read(&body, "renewal")?;
    let reservation = app.reservation(&namespace, &name)?;
    let mut response = json::once(&ReservationView::of(&reserve::renew(&app.world, &reservation, ttl_seconds).await?));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// How the consumer of a reservation peers with its provider
///
/// The provider sends it with a heartbeat after the reservation was granted; until then 404 with `Retry-After`.
#[utoipa::path(get, path = "/api/v1/namespaces/{namespace}/reservations/{name}/invitation",
    params(("namespace" = String, Path, description = "Namespace"), ("name" = String, Path, description = "Name")),
    responses((status = 200, body = Invitation), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem, description = "The reservation does not hold")))]
async fn get_invitation(
    State(app): AppState,
    Extension(caller): Known,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", INVITATION, (&namespace, &name)).await?;
    let reservation = app.reservation(&namespace, &name)?;
    let status = reservation.status.clone().unwrap_or_default();
    if status.phase.is_final() {
        let (reason, message) = (status.reason.unwrap_or_default(), status.message.unwrap_or_default());
        return Err(Problem::new(StatusCode::CONFLICT, format!("the reservation does not hold: {reason}: {message}")));
    }
    let last = app.world.heard.last(&reservation.spec.provider).filter(|_| status.phase == ReservationPhase::Granted);
    let invitation = last.and_then(|mut last| last.invitations.remove(&reservation.uid()?));
    match invitation {
        Some(invitation) => Ok(json::once(&invitation)),
        None => {
            let detail = "the provider has not sent the invitation yet";
            let mut response = Problem::new(StatusCode::NOT_FOUND, detail).into_response();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
            Ok(response)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_selections_by_their_own_schema() {
        let (_, document) = OpenApiRouter::<Arc<App>>::with_openapi(Document::openapi())
            .routes(routes!(select_providers))
            .split_for_parts();
        let mut document = serde_json::to_value(document).unwrap();
        describe(&mut document);
        let selection = &document["components"]["schemas"]["NewSelection"]["properties"]["selection"];
        assert!(selection["properties"]["criteria"].is_object(), "{selection}");
        assert!(!document.to_string().contains("$defs"), "references would lead nowhere");
    }
}
