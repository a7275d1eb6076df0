//! The paths of the status page.

use std::sync::Arc;

use axum::{
    extract::{Extension, Path, RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode};
use liqo_front::{
    Caller, Front, Routes,
    accept::{Form, preferred},
    events::{self, Event},
    json,
    page::{Cut, Page, parameter},
    problem::Problem,
    scope::{Kind, Scope, scope},
};
use serde::Serialize;
use serde_json::{Value, json as object};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    model::{Namespace, Overview, Peer, Pod},
    observe::{Objects, Watches},
    pages,
    view::{Rights, View, view},
};

const PEERS: Kind = Kind { group: "discovery.liqo.io", resource: "foreignclusters" };
const NODES: Kind = Kind { group: "", resource: "nodes" };
const TUNNELS: Kind = Kind { group: "net.liqo.io", resource: "tunnelendpoints" };
const OFFLOADINGS: Kind = Kind { group: "offloading.liqo.io", resource: "namespaceoffloadings" };
const PODS: Kind = Kind { group: "", resource: "pods" };

/// What all handlers share.
pub(crate) struct App {
    front: Arc<Front>,
    watches: Watches,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "liqo-status",
    description = "What this cluster gives to and takes from its peers. Everything is shown with the rights of the caller."
))]
struct Document;

/// The handlers with their document.
pub(crate) fn routes(app: Arc<App>) -> Routes {
    let router = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(get_status))
        .routes(routes!(list_peers))
        .routes(routes!(get_peer))
        .routes(routes!(list_namespaces))
        .routes(routes!(list_pods))
        .routes(routes!(watch_events));
    let (router, document) = router.split_for_parts();
    let router = router
        .route("/", axum::routing::get(first_page))
        .route("/namespaces", axum::routing::get(namespaces_page))
        .route("/pods", axum::routing::get(pods_page));
    let openapi = serde_json::to_value(document).expect("a document is JSON");
    Routes { router: router.with_state(app), openapi, pages: pages::PAGES, links: None }
}

type AppState = State<Arc<App>>;

impl App {
    /// What the handlers share.
    pub(crate) fn new(front: Arc<Front>, watches: Watches) -> Arc<Self> {
        Arc::new(Self { front, watches })
    }

    async fn may(
        &self,
        caller: &Caller,
        kind: Kind,
        namespaces: impl IntoIterator<Item = String>,
    ) -> Result<Scope, Problem> {
        scope(&self.front.reviews, &caller.user, kind, namespaces).await
    }

    async fn view(&self, caller: &Caller) -> Result<(View, Rights), Problem> {
        let objects = self.watches.objects();
        let mut with_pods = Objects::namespaces(&objects.elsewhere);
        with_pods.extend(Objects::namespaces(&objects.guests));
        let rights = Rights {
            peers: self.may(caller, PEERS, []).await?,
            nodes: self.may(caller, NODES, []).await?,
            tunnels: self.may(caller, TUNNELS, Objects::namespaces(&objects.tunnels)).await?,
            offloadings: self.may(caller, OFFLOADINGS, Objects::namespaces(&objects.offloadings)).await?,
            pods: self.may(caller, PODS, with_pods).await?,
        };
        Ok((view(&self.front.cluster, &objects, &rights), rights))
    }
}

/// Counts, what needs somebody, and what is hidden from the caller
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = Overview), (status = 401, body = Problem)))]
async fn get_status(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    json::answer(&method, &headers, &app.view(&caller).await?.0.overview)
}

/// The peers, by name
#[utoipa::path(get, path = "/api/v1/peers",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<Peer>), (status = 403, body = Problem)))]
async fn list_peers(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    let (view, rights) = app.view(&caller).await?;
    rights.peers.check(&caller.user, PEERS)?;
    json::answer(&method, &headers, &cut.of(&view.peers, |one| one.name.clone()))
}

/// One peer
#[utoipa::path(get, path = "/api/v1/peers/{name}", params(("name" = String, Path, description = "Name of the ForeignCluster")),
    responses((status = 200, body = Peer), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn get_peer(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (view, rights) = app.view(&caller).await?;
    rights.peers.check(&caller.user, PEERS)?;
    let peer = view.peers.into_iter().find(|one| one.name == name);
    let peer = peer.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no peer {name:?}")))?;
    json::answer(&method, &headers, &peer)
}

/// The offloaded namespaces, by name
#[utoipa::path(get, path = "/api/v1/namespaces",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<Namespace>), (status = 403, body = Problem)))]
async fn list_namespaces(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    let (view, rights) = app.view(&caller).await?;
    rights.offloadings.check(&caller.user, OFFLOADINGS)?;
    let page = cut.of(&view.namespaces, |one| one.name.clone());
    json::answer(&method, &headers, &Page { only_in: rights.offloadings.only_in(), ..page })
}

/// The pods that run in other clusters, by namespace and name
#[utoipa::path(get, path = "/api/v1/pods",
    params(("namespace" = Option<String>, Query, description = "Only of this namespace"), ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<Pod>), (status = 403, body = Problem)))]
async fn list_pods(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    let (mut view, mut rights) = app.view(&caller).await?;
    if let Some(namespace) = parameter(query.as_deref(), "namespace") {
        // Whether there is a pod in the namespace or not, the right to list them there decides.
        rights.pods = app.may(&caller, PODS, [namespace.clone()]).await?;
        view.pods.retain(|one| one.namespace == namespace);
    }
    rights.pods.check(&caller.user, PODS)?;
    json::answer(&method, &headers, &Page { only_in: rights.pods.only_in(), ..cut.of(&view.pods, Pod::key) })
}

/// Changes of everything the caller may see, as server-sent events
///
/// The first event is `begin` with the overview; each `change` carries `kind`, `name` and the new `object`, or `null` when
/// it is gone; `problem` is the last one, and says why the stream ends.
#[utoipa::path(get, path = "/api/v1/events", responses((status = 200, content_type = "text/event-stream", body = String), (status = 401, body = Problem), (status = 429, body = Problem)))]
async fn watch_events(State(app): AppState, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let place = app.front.streams.take(&caller.user.name)?;
    let changes = app.watches.changes();
    Ok(events::follow(place, changes, move |last| {
        let (app, caller) = (Arc::clone(&app), caller.clone());
        async move {
            if last.is_some() {
                app.front.again(&caller).await?;
            }
            let (now, _) = app.view(&caller).await?;
            let news = news(last.as_ref(), &now);
            Ok((now, news))
        }
    }))
}

/// What the caller is told; at the beginning the overview.
fn news(last: Option<&View>, now: &View) -> Vec<Event> {
    match last {
        None => vec![Event::new("begin", &now.overview)],
        Some(before) => differences(before, now).iter().map(|one| Event::new("change", one)).collect(),
    }
}

/// Pure: what is new, other or gone.
fn differences(before: &View, now: &View) -> Vec<Value> {
    let mut all = Vec::new();
    changed(&mut all, "peer", &before.peers, &now.peers, |one| one.name.clone());
    changed(&mut all, "namespace", &before.namespaces, &now.namespaces, |one| one.name.clone());
    changed(&mut all, "pod", &before.pods, &now.pods, Pod::key);
    if before.overview != now.overview {
        all.push(object!({"kind": "status", "name": "", "object": now.overview}));
    }
    all
}

fn changed<T: Serialize + PartialEq>(
    all: &mut Vec<Value>,
    kind: &str,
    before: &[T],
    now: &[T],
    key: impl Fn(&T) -> String,
) {
    let (old, new): (std::collections::BTreeMap<_, _>, std::collections::BTreeMap<_, _>) =
        (before.iter().map(|one| (key(one), one)).collect(), now.iter().map(|one| (key(one), one)).collect());
    for (name, object) in &new {
        if old.get(name) != Some(object) {
            all.push(object!({"kind": kind, "name": name, "object": object}));
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        all.push(object!({"kind": kind, "name": name, "object": null}));
    }
}

/// The first page, for people and for programs.
async fn first_page(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    match preferred(&headers, &[Form::Html, Form::Json]) {
        Some(Form::Html) => {
            let (view, _) = app.view(&caller).await?;
            Ok(pages::first(&app.front.cluster, &caller.user.name, &view))
        }
        Some(Form::Json) => get_status(State(app), Extension(caller), method, headers).await,
        None => Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "there is text/html and application/json")),
    }
}

async fn namespaces_page(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    let (view, rights) = app.view(&caller).await?;
    rights.offloadings.check(&caller.user, OFFLOADINGS)?;
    let page = cut.of(&view.namespaces, |one| one.name.clone());
    Ok(pages::namespaces(&app.front.cluster, &caller.user.name, &view, &page).into_response())
}

async fn pods_page(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    let (view, rights) = app.view(&caller).await?;
    rights.pods.check(&caller.user, PODS)?;
    Ok(pages::pods(&app.front.cluster, &caller.user.name, &view, &cut.of(&view.pods, Pod::key)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_name() {
        let peer = |name: &str, state: &str| Peer { name: name.into(), state: state.into(), ..Peer::default() };
        let before = View { peers: vec![peer("a", "Established"), peer("b", "Pending")], ..View::default() };
        let now = View { peers: vec![peer("b", "Established"), peer("c", "Pending")], ..View::default() };
        let told: Vec<_> = differences(&before, &now)
            .iter()
            .map(|one| (one["name"].clone(), one["object"]["state"].clone()))
            .collect();
        assert_eq!(object!(told), object!([["b", "Established"], ["c", "Pending"], ["a", null]]));
        assert!(differences(&now, &now).is_empty());
    }
}
