//! Paths under `/job`, and `/health`.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    response::Response,
    routing::{any, get, post},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::LOCATION};
use kube::ResourceExt;
use liqo_api::jobs::{Job, Phase};
use liqo_front::{json::once as answer, page::parameter, problem::Problem};
use liqo_results::File;
use serde_json::{Map, Value, json};

use super::{Facade, Order, place, upload, with};
use crate::api::{What, phase_of, result};

pub(super) fn routes() -> Router<Facade> {
    let mut all = Router::new().route("/health", get(async || answer(&json!({"health": "alive"}))));
    // The first generation ends some paths with a slash, and its callers end others so.
    for end in ["", "/"] {
        all = all
            .route(&format!("/job/deploy{end}"), any(deploy))
            .route(&format!("/job/{{id}}{end}"), get(state).delete(delete))
            .route(&format!("/job/{{id}}/result/list{end}"), get(list))
            .route(&format!("/job/{{id}}/result{end}"), get(file))
            .route(&format!("/job/{{id}}/result/store{end}"), post(store))
            .route(&format!("/job/{{id}}/resultnew/list{end}"), get(list))
            .route(&format!("/job/{{id}}/resultnew{end}"), get(file));
    }
    all
}

/// The answer to who has submitted a job.
pub(super) fn deployed(status: StatusCode, job: &Job) -> Response {
    let id = job.uid().unwrap_or_default();
    let mut response = answer(&json!({"status": "job deployed", "job_uuid": id}));
    *response.status_mut() = status;
    response.headers_mut().extend(HeaderValue::from_str(&format!("/job/{id}")).ok().map(|place| (LOCATION, place)));
    response
}

async fn deploy(
    State(facade): State<Facade>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    if !matches!(method, Method::GET | Method::POST) {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "jobs are deployed by GET or POST"));
    }
    let order = Order::read(&upload::files(&headers, body).await?, query.as_deref())?;
    Ok(deployed(StatusCode::CREATED, &facade.submit(order).await?))
}

async fn state(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    let job = facade.job(&id)?;
    facade.may("get", What::Jobs, &job.name_any()).await?;
    Ok(answer(&pod_state(&job)))
}

/// What the first generation said of the one pod of a job.
fn pod_state(job: &Job) -> Value {
    let status = job.status.clone().unwrap_or_default();
    let (pod, worker) = match status.phase {
        Phase::Queued | Phase::Starting => ("Pending", "waiting"),
        Phase::Running => ("Running", "running"),
        Phase::Storing => ("Running", "terminated"),
        Phase::Succeeded => ("Succeeded", "terminated"),
        Phase::Failed | Phase::Cancelled => ("Failed", "terminated"),
    };
    let states = Map::from_iter([("worker".to_owned(), json!(worker))]);
    json!({"pod_name": status.pod.unwrap_or_default(), "pod.status.phase": pod, "container_states": states})
}

async fn delete(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    let job = facade.job(&id)?;
    facade.may("delete", What::Jobs, &job.name_any()).await?;
    facade.app.deleted(&job).await?;
    Ok(with(StatusCode::ACCEPTED, answer(&json!({}))))
}

async fn list(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    let job = facade.job(&id)?;
    facade.may("get", What::Results, &job.name_any()).await?;
    Ok(answer(&paths(&facade, &job).await?))
}

/// The paths of the results of a job.
pub(super) async fn paths(facade: &Facade, job: &Job) -> Result<Vec<Box<str>>, Problem> {
    let keep = |paths: &mut Vec<Box<str>>, file: File| paths.push(file.path);
    facade.app.results(job, Vec::new(), keep).await.map(|(_, paths)| paths)
}

async fn file(
    State(facade): State<Facade>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::BAD_REQUEST, "name the result: ?file=PATH");
    let named = |name| parameter(query.as_deref(), name);
    let file = named("file").or_else(|| named("result_file")).ok_or_else(missing)?;
    let job = facade.job(&id)?;
    let name = job.name_any();
    facade.may("get", What::Results, &name).await?;
    let illegal = || Problem::new(StatusCode::BAD_REQUEST, "illegal request");
    let path = place::below(&facade.output_dir(&job), &file).ok_or_else(illegal)?;
    result(&facade.app, &name, &path, &method, &headers).await
}

/// Results are stored without being asked for: this says whether they are.
async fn store(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    let job = facade.job(&id)?;
    facade.may("get", What::Results, &job.name_any()).await?;
    let status = if phase_of(&job).is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(with(status, answer(&json!({}))))
}

impl Facade {
    /// The directory in which the worker of a job leaves its results.
    pub(super) fn output_dir(&self, job: &Job) -> String {
        let named =
            || self.app.world.template(job.spec.template_name.as_deref()?).map(|one| one.spec.output_dir.clone());
        let own = job.spec.template.as_ref().map(|template| template.output_dir.clone());
        own.or_else(named).unwrap_or_else(|| "/output".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use liqo_api::jobs::{JobSpec, JobStatus};

    use super::*;

    #[test]
    fn the_state_is_that_of_one_pod() {
        let mut job = Job::new("j", JobSpec::default());
        job.status = Some(JobStatus { phase: Phase::Storing, pod: Some("j-x".to_owned()), ..JobStatus::default() });
        let wanted =
            json!({"pod_name": "j-x", "pod.status.phase": "Running", "container_states": {"worker": "terminated"}});
        assert_eq!(pod_state(&job), wanted);
        assert_eq!(pod_state(&Job::new("j", JobSpec::default()))["pod.status.phase"], "Pending", "a job without a pod");
    }
}
