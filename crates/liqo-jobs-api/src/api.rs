//! The paths of the API of jobs.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Extension, Path, RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode};
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobSpec, JobTemplateSpec, Phase};
use liqo_front::{
    Caller, Front, Routes, json,
    page::{Cut, Page, parameter},
    problem::Problem,
};
use liqo_kube::access::{Act, User};
use liqo_results::File;
use serde_json::{Value, json as object};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    follow, links,
    model::{JobView, NewJob, ResultView, TemplateView},
    pages, results, stores,
    submit::{self, Submitted},
    world::World,
};

/// What all handlers share.
pub(crate) struct App {
    pub(crate) front: Arc<Front>,
    pub(crate) world: Arc<World>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "liqo-jobs-api",
    description = "Work that is submitted once, runs on any cluster of the federation and leaves its results in a store. Everything is done with the rights of the caller."
))]
struct Document;

/// The handlers with their document.
pub(crate) fn routes(app: Arc<App>) -> Routes {
    let router = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list_jobs, submit_job))
        .routes(routes!(get_job, delete_job))
        .routes(routes!(cancel_job))
        .routes(routes!(rerun_job))
        .routes(routes!(follow::get_log))
        .routes(routes!(list_results))
        .routes(routes!(get_result))
        .routes(routes!(links::make_link))
        .routes(routes!(list_templates))
        .routes(routes!(stores::list_stores))
        .routes(routes!(follow::watch_events));
    let (router, document) = router.split_for_parts();
    let router =
        router.route("/", axum::routing::get(pages::list)).route("/jobs/{name}", axum::routing::get(pages::one));
    let router = router.route(&format!("{}{{key}}", links::PATH), axum::routing::get(links::read_link));
    let mut openapi = serde_json::to_value(document).expect("a document is JSON");
    describe_spec(&mut openapi);
    Routes { router: router.with_state(app), openapi, pages: pages::PAGES, links: Some(links::PATH) }
}

/// The specs are described by the schemas of the custom resources: OpenAPI 3.1 and they speak the same JSON Schema.
fn describe_spec(document: &mut Value) {
    let schema = |schema: schemars::Schema| {
        let mut value = serde_json::to_value(schema).expect("a schema is JSON");
        value.as_object_mut().into_iter().for_each(|map| _ = map.remove("$schema"));
        value
    };
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let generator = settings.into_generator();
    let specs = [
        ("NewJob", schema(generator.clone().into_root_schema_for::<JobSpec>())),
        ("JobView", schema(generator.clone().into_root_schema_for::<JobSpec>())),
        ("TemplateView", schema(generator.into_root_schema_for::<JobTemplateSpec>())),
    ];
    for (name, spec) in specs {
        document["components"]["schemas"][name]["properties"]["spec"] = spec;
    }
}

pub(crate) type AppState = State<Arc<App>>;
pub(crate) type Known = Extension<Caller>;

impl App {
    pub(crate) fn new(front: Arc<Front>, world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { front, world })
    }

    /// Whether the caller may do it; 403 if not.
    pub(crate) async fn may(&self, user: &User, verb: &'static str, what: What, name: &str) -> Result<(), Problem> {
        let (group, resource, subresource) = match what {
            What::Jobs => ("jobs.liqo.io", "jobs", ""),
            What::Results => ("jobs.liqo.io", "jobs", "results"),
            What::Templates => ("jobs.liqo.io", "jobtemplates", ""),
            What::Logs => ("", "pods", "log"),
            What::ConfigMaps => ("", "configmaps", ""),
            What::Secrets => ("", "secrets", ""),
        };
        let (namespace, name) = (self.world.namespace.clone(), name.to_owned());
        let act = Act { verb, group, resource, subresource, namespace, name };
        self.front.may(user, &act).await
    }

    pub(crate) fn job(&self, name: &str) -> Result<Arc<Job>, Problem> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no job {name:?}"));
        self.world.job(name).ok_or_else(missing)
    }

    /// The store, and what `take` keeps of the complete results of a job, which come by path.
    pub(crate) async fn results<T: Send + 'static>(
        &self,
        job: &Job,
        kept: T,
        take: impl FnMut(&mut T, File) + Send + 'static,
    ) -> Result<(liqo_results::Store, T), Problem> {
        let store = self.world.store.reading(job).await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "no key for the results");
            Problem::new(StatusCode::BAD_GATEWAY, "the store of the results cannot be opened")
        })?;
        let reading = self.world.reading.acquire().await.expect("nobody closes it");
        let found = store.scan(kept, take).await.map_err(|error| results::trouble(&error))?;
        drop(reading);
        let detail = || format!("job {:?} has no complete results: it is {:?}", job.name_any(), phase_of(job));
        found.map(|(_, kept)| (store, kept)).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, detail()))
    }

    /// A page of the complete results of a job.
    pub(crate) async fn page(&self, job: &Job, cut: Cut) -> Result<(liqo_results::Store, Page<ResultView>), Problem> {
        let wanted = cut.clone();
        let keep = move |kept: &mut Vec<ResultView>, file: File| {
            if wanted.needs(kept.len(), &file.path) {
                kept.push(ResultView::of(&file));
            }
        };
        let (store, kept) = self.results(job, Vec::new(), keep).await?;
        Ok((store, cut.of(&kept, |one| one.path.clone())))
    }

    pub(crate) async fn cancelled(&self, job: &Job) -> Result<Job, Problem> {
        let patch = object!({"metadata": {"uid": job.uid()}, "spec": {"cancel": true}});
        self.world.cluster.merge(job, patch).await.map_err(|error| submit::refused(&error))
    }

    pub(crate) async fn deleted(&self, job: &Job) -> Result<(), Problem> {
        self.world.cluster.remove(job).await.map_err(|error| submit::refused(&error))
    }
}

/// What a right is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Jobs,
    Results,
    Templates,
    Logs,
    ConfigMaps,
    Secrets,
}

fn made(status: StatusCode, job: &Job) -> Response {
    json::made(status, &format!("/api/v1/jobs/{}", job.name_any()), &JobView::of(job))
}

/// The jobs, by name
#[utoipa::path(get, path = "/api/v1/jobs",
    params(("phase" = Option<String>, Query, description = "Only jobs in this phase"), ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<JobView>), (status = 400, body = Problem), (status = 403, body = Problem)))]
async fn list_jobs(
    State(app): AppState,
    Extension(caller): Known,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    app.may(&caller.user, "list", What::Jobs, "").await?;
    let phase = parameter(query.as_deref(), "phase");
    let mut all = app.world.jobs();
    all.retain(|job| phase.as_ref().is_none_or(|wanted| format!("{:?}", phase_of(job)).eq_ignore_ascii_case(wanted)));
    json::answer(&method, &headers, &cut.of(&all, |job| job.name_any()).map(|job| JobView::of(&job)))
}

/// Submit a job
///
/// With a header `Idempotency-Key`, a repeated request finds the job of the first one.
#[utoipa::path(post, path = "/api/v1/jobs", request_body = NewJob,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated request harmless, 1 to 255 characters")),
    responses((status = 201, body = JobView), (status = 200, body = JobView, description = "An earlier request with this key has submitted the job"), (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn submit_job(
    State(app): AppState,
    Extension(caller): Known,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    app.may(&caller.user, "create", What::Jobs, "").await?;
    let wrong =
        |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is no job: {error}"));
    let NewJob { name, spec } = serde_json::from_slice(&body).map_err(wrong)?;
    let job = submit::wanted(&headers, &caller.user.name, name, spec)?;
    Ok(submitted(&submit::submit(&app.world, job).await?))
}

fn submitted(submitted: &Submitted) -> Response {
    made(if submitted.is_known { StatusCode::OK } else { StatusCode::CREATED }, &submitted.job)
}

/// One job
#[utoipa::path(get, path = "/api/v1/jobs/{name}", params(("name" = String, Path, description = "Name of the job")),
    responses((status = 200, body = JobView), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn get_job(
    State(app): AppState,
    Extension(caller): Known,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", What::Jobs, &name).await?;
    json::answer(&method, &headers, &JobView::of(&*app.job(&name)?))
}

/// Delete a job and its results
///
/// A worker that runs is ended.
#[utoipa::path(delete, path = "/api/v1/jobs/{name}", params(("name" = String, Path, description = "Name of the job")),
    responses((status = 202, description = "It goes"), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn delete_job(
    State(app): AppState,
    Extension(caller): Known,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    app.may(&caller.user, "delete", What::Jobs, &name).await?;
    app.deleted(&*app.job(&name)?).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// End a job
///
/// What its worker has left behind is kept.
#[utoipa::path(post, path = "/api/v1/jobs/{name}/cancel", params(("name" = String, Path, description = "Name of the job")),
    responses((status = 202, body = JobView), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn cancel_job(
    State(app): AppState,
    Extension(caller): Known,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    app.may(&caller.user, "update", What::Jobs, &name).await?;
    let job = app.cancelled(&*app.job(&name)?).await?;
    Ok(made(StatusCode::ACCEPTED, &job))
}

/// Submit a job again, under a new name
///
/// With a header `Idempotency-Key`, a repeated request finds the job of the first one.
#[utoipa::path(post, path = "/api/v1/jobs/{name}/rerun",
    params(("name" = String, Path, description = "Name of the job"), ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated request harmless, 1 to 255 characters")),
    responses((status = 201, body = JobView), (status = 200, body = JobView, description = "An earlier request with this key has submitted the job"), (status = 400, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn rerun_job(
    State(app): AppState,
    Extension(caller): Known,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", What::Jobs, &name).await?;
    app.may(&caller.user, "create", What::Jobs, "").await?;
    let job = submit::again(&headers, &*app.job(&name)?, &caller.user.name)?;
    Ok(submitted(&submit::submit(&app.world, job).await?))
}

/// The results of a job, by path
#[utoipa::path(get, path = "/api/v1/jobs/{name}/results",
    params(("name" = String, Path, description = "Name of the job"), ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<ResultView>), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn list_results(
    State(app): AppState,
    Extension(caller): Known,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    app.may(&caller.user, "get", What::Results, &name).await?;
    let (_, page) = app.page(&*app.job(&name)?, cut).await?;
    json::answer(&method, &headers, &page)
}

/// One result, byte for byte
///
/// `ETag` and `Repr-Digest` carry its SHA-256. A part of it is asked for by `Range`.
#[utoipa::path(get, path = "/api/v1/jobs/{name}/results/{*path}",
    params(("name" = String, Path, description = "Name of the job"), ("path" = String, Path, description = "Path of the result, with its slashes"), ("Range" = Option<String>, Header, description = "bytes=FIRST-LAST")),
    responses((status = 200, content_type = "application/octet-stream", body = String), (status = 206, content_type = "application/octet-stream", body = String), (status = 403, body = Problem), (status = 404, body = Problem), (status = 416, description = "There are not so many bytes")))]
async fn get_result(
    State(app): AppState,
    Extension(caller): Known,
    Path((name, path)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", What::Results, &name).await?;
    result(&app, &name, &path, &method, &headers).await
}

/// Answers with one result of a job.
pub(crate) async fn result(
    app: &App,
    name: &str,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let (store, file) = found(app, name, path).await?;
    results::answer(&store, &file, method, headers).await
}

/// One result of a job, and the store that has it.
pub(crate) async fn found(app: &App, name: &str, path: &str) -> Result<(liqo_results::Store, File), Problem> {
    let wanted = path.to_owned();
    let keep = move |found: &mut Option<File>, file: File| {
        if *file.path == *wanted {
            *found = Some(file);
        }
    };
    let (store, file) = app.results(&*app.job(name)?, None, keep).await?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("job {name:?} has no result {path:?}"));
    Ok((store, file.ok_or_else(missing)?))
}

/// The templates of jobs, by name
#[utoipa::path(get, path = "/api/v1/templates",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<TemplateView>), (status = 403, body = Problem)))]
async fn list_templates(
    State(app): AppState,
    Extension(caller): Known,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    app.may(&caller.user, "list", What::Templates, "").await?;
    let page = cut.of(&app.world.templates(), |one| one.name_any());
    json::answer(&method, &headers, &page.map(|one| TemplateView::of(&one)))
}

/// The phase of a job; a job that nobody has looked at is queued.
pub(crate) fn phase_of(job: &Job) -> Phase {
    job.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_specs_by_their_own_schemas() {
        let mut document = serde_json::to_value(Document::openapi()).unwrap();
        describe_spec(&mut document);
        let spec = &document["components"]["schemas"]["NewJob"]["properties"]["spec"];
        assert!(spec["properties"]["templateName"].is_object(), "{spec}");
        assert!(!document.to_string().contains("$defs"), "references would lead nowhere");
    }
}
