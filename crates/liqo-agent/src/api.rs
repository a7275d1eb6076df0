//! The handlers: peerings on demand.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Extension, Path, RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode};
use kube::ResourceExt;
use liqo_api::market::{PeeringRequest, PeeringRequestSpec, Reconsider, Selection};
use liqo_front::{
    Caller, Front, Routes, json,
    page::{Cut, Page},
    problem::Problem,
};
use liqo_kube::{
    KubeError,
    access::{Act, User},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::peer::Peers;

/// What all handlers share.
pub(crate) struct App {
    front: Arc<Front>,
    peers: Arc<Peers>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "liqo-agent",
    description = "Peerings on demand: a provider that fits is chosen at the broker, its resources are reserved, and this cluster is peered. Everything is done with the rights of the caller."
))]
struct Document;

/// A peering to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewPeering {
    /// Name.
    name: String,
    /// What is asked of a provider: the selection of a PeeringRequest of market.liqo.io/v1alpha1.
    #[schema(value_type = Object)]
    selection: Selection,
    /// Name of a SelectionPolicy in the namespace, in the place of criteria and weights of the selection.
    #[serde(default)]
    policy: Option<String>,
    /// When another provider is chosen after the peering is established: Never (left out), Failing or Better.
    #[serde(default)]
    #[schema(value_type = String)]
    reconsider: Reconsider,
    /// Seconds for which the resources are held at a time, 60 to 86400; left out: 600.
    #[serde(default)]
    lease_seconds: Option<u32>,
}

/// A peering on demand.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PeeringView {
    /// Name.
    name: String,
    /// Selecting, Reserved, Peering or Peered.
    phase: String,
    /// One sentence for people: why.
    message: String,
    /// Cluster ID of the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// Name of the ForeignCluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign_cluster: Option<String>,
    /// Until when the resources are held, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_until: Option<String>,
}

impl PeeringView {
    fn of(request: &PeeringRequest) -> Self {
        let status = request.status.clone().unwrap_or_default();
        Self {
            name: request.name_any(),
            phase: format!("{:?}", status.phase),
            message: status.message.unwrap_or_default(),
            provider: status.provider,
            foreign_cluster: status.foreign_cluster,
            held_until: status.held_until.map(|time| time.0.to_string()),
        }
    }
}

/// The handlers with their document.
pub(crate) fn routes(app: Arc<App>) -> Routes {
    let router = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list_peerings, request_peering))
        .routes(routes!(get_peering, end_peering));
    let (router, document) = router.split_for_parts();
    let mut openapi = serde_json::to_value(document).expect("a document is JSON");
    describe(&mut openapi);
    Routes { router: router.with_state(app), openapi, pages: &[], links: None }
}

/// Selections are described by the schema of the custom resource.
fn describe(document: &mut Value) {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<Selection>();
    let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
    schema.as_object_mut().into_iter().for_each(|map| _ = map.remove("$schema"));
    document["components"]["schemas"]["NewPeering"]["properties"]["selection"] = schema;
}

type AppState = State<Arc<App>>;
type Known = Extension<Caller>;

impl App {
    pub(crate) fn new(front: Arc<Front>, peers: Arc<Peers>) -> Arc<Self> {
        Arc::new(Self { front, peers })
    }

    async fn may(&self, user: &User, verb: &'static str, namespace: &str, name: &str) -> Result<(), Problem> {
        let (group, resource) = ("market.liqo.io", "peeringrequests");
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.front.may(user, &Act { verb, group, resource, subresource: "", namespace, name }).await
    }

    fn request(&self, namespace: &str, name: &str) -> Result<Arc<PeeringRequest>, Problem> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no peering {name:?}"));
        self.peers.request(namespace, name).ok_or_else(missing)
    }
}

fn refused(error: &KubeError) -> Problem {
    let words = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    match error.code() {
        Some(code @ (400 | 404 | 409 | 422)) => {
            Problem::new(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST), words)
        }
        _ => Problem::unanswered(error),
    }
}

/// The peerings of a namespace, by name
#[utoipa::path(get, path = "/api/v1/namespaces/{namespace}/peerings",
    params(("namespace" = String, Path, description = "Namespace"), ("limit" = Option<usize>, Query, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<PeeringView>), (status = 403, body = Problem)))]
async fn list_peerings(
    State(app): AppState,
    Extension(caller): Known,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    app.may(&caller.user, "list", &namespace, "").await?;
    let page = cut.of(&app.peers.requests(&namespace), |one| one.name_any());
    json::answer(&method, &headers, &page.map(|one| PeeringView::of(&one)))
}

/// Ask for a peering with a provider that fits
///
/// A repeated request with the same name and content finds the peering of the first one.
#[utoipa::path(post, path = "/api/v1/namespaces/{namespace}/peerings", request_body = NewPeering,
    params(("namespace" = String, Path, description = "Namespace")),
    responses((status = 202, body = PeeringView), (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn request_peering(
    State(app): AppState,
    Extension(caller): Known,
    Path(namespace): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    app.may(&caller.user, "create", &namespace, "").await?;
    let wrong = |error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is no peering: {error}"));
    let NewPeering { name, selection, policy, reconsider, lease_seconds } =
        serde_json::from_slice(&body).map_err(wrong)?;
    let spec = PeeringRequestSpec { selection, policy, reconsider, lease_seconds: lease_seconds.unwrap_or(600) };
    let mut wanted = PeeringRequest::new(&name, spec);
    wanted.metadata.namespace = Some(namespace.clone());
    let made = match app.peers.cluster.create(&wanted).await {
        Err(error) if error.is_conflict() => {
            let known = app.peers.cluster.get::<PeeringRequest>(&namespace, &name).await;
            let known = known.map_err(|error| refused(&error))?;
            let is_same =
                |known: &PeeringRequest| known.spec == wanted.spec && known.metadata.deletion_timestamp.is_none();
            let other = || Problem::new(StatusCode::CONFLICT, format!("another peering has the name {name:?}"));
            known.filter(is_same).ok_or_else(other)?
        }
        made => made.map_err(|error| refused(&error))?,
    };
    let place = format!("/api/v1/namespaces/{namespace}/peerings/{name}");
    Ok(json::made(StatusCode::ACCEPTED, &place, &PeeringView::of(&made)))
}

/// One peering
#[utoipa::path(get, path = "/api/v1/namespaces/{namespace}/peerings/{name}",
    params(("namespace" = String, Path, description = "Namespace"), ("name" = String, Path, description = "Name")),
    responses((status = 200, body = PeeringView), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn get_peering(
    State(app): AppState,
    Extension(caller): Known,
    Path((namespace, name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", &namespace, &name).await?;
    json::answer(&method, &headers, &PeeringView::of(&*app.request(&namespace, &name)?))
}

/// End a peering and give its resources back
#[utoipa::path(delete, path = "/api/v1/namespaces/{namespace}/peerings/{name}",
    params(("namespace" = String, Path, description = "Namespace"), ("name" = String, Path, description = "Name")),
    responses((status = 202, description = "It goes"), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn end_peering(
    State(app): AppState,
    Extension(caller): Known,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    app.may(&caller.user, "delete", &namespace, &name).await?;
    app.peers.cluster.remove(&*app.request(&namespace, &name)?).await.map_err(|error| refused(&error))?;
    Ok(StatusCode::ACCEPTED.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_selections_by_their_own_schema() {
        let mut document = serde_json::to_value(Document::openapi()).unwrap();
        describe(&mut document);
        let selection = &document["components"]["schemas"]["NewPeering"]["properties"]["selection"];
        assert!(selection["properties"]["criteria"].is_object(), "{selection}");
        assert!(!document.to_string().contains("$defs"), "references would lead nowhere");
    }
}
