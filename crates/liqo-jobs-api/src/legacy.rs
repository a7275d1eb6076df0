//! The facade for programs of the first generation (`/job/deploy`, `/job/{id}/result/list`, `/demo`): the same jobs, other words.
//!
//! Keeps true: off unless switched on; on a loopback address unless somebody says otherwise; whoever can reach the address acts
//! as one named user of the cluster, with the rights of that user and no others. Every answer says that the facade is deprecated.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, RawQuery, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header::LOCATION};
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobSpec, Phase, SUBMITTER_ANNOTATION};
use liqo_front::{Front, json::once as answer, page::parameter, problem::Problem, session::is_forged};
use liqo_kube::{
    access::User,
    drain::Drain,
    server::{self, Limits, Listen, Reply},
};
use liqo_results::File;
use serde_json::{Map, Value, json};

use crate::{
    api::{App, What, phase_of, result},
    submit,
    world::World,
};

/// The result that `/demo` answers with, if the job leaves one of this name; else its first one.
const DEMO_RESULT: &str = "result";
/// How long `/demo` waits when the caller does not say, and at most: connectors give up after a minute.
const DEMO_WAIT: Duration = Duration::from_secs(55);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Jobs of the facade that have not ended, at most.
const MOST_JOBS: usize = 100;
/// Answers wait for jobs, so their time is bounded here and not by the server.
const LIMITS: Limits = Limits { answer: None, ..Limits::DEFAULT };

/// The facade's switches.
#[derive(Clone, Debug, clap::Args)]
pub struct LegacyArgs {
    /// Address of the facade for older programs, plain HTTP; left out: there is none.
    #[arg(long, value_name = "HOST:PORT", requires = "legacy_user")]
    pub legacy_address: Option<Listen>,
    /// The user of this cluster with whose rights the facade acts.
    #[arg(long, value_name = "USER")]
    pub legacy_user: Option<String>,
    /// Groups of that user.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub legacy_groups: Vec<String>,
    /// JobTemplate that `/job/deploy` and `/demo` run.
    #[arg(long, default_value = "legacy", value_name = "NAME")]
    pub legacy_template: String,
}

/// The facade, switched on.
pub(crate) struct Legacy {
    address: Listen,
    facade: Facade,
    drain: Drain,
}

#[derive(Clone)]
struct Facade {
    app: Arc<App>,
    user: User,
    template: String,
}

impl Legacy {
    /// The facade; none when it is not switched on.
    ///
    /// # Errors
    /// A text that says which flag is missing.
    pub(crate) fn new(
        args: LegacyArgs,
        world: &Arc<World>,
        front: &Arc<Front>,
        drain: Drain,
    ) -> Result<Option<Self>, String> {
        let LegacyArgs { legacy_address, legacy_user, legacy_groups, legacy_template } = args;
        let Some(address) = legacy_address else { return Ok(None) };
        let name = legacy_user.filter(|name| !name.is_empty());
        let name = name.ok_or("--legacy-user: name the user of this cluster with whose rights the facade acts")?;
        let user = User { name, groups: legacy_groups, ..User::default() };
        let app = App::new(Arc::clone(front), Arc::clone(world));
        Ok(Some(Self { address, facade: Facade { app, user, template: legacy_template }, drain }))
    }

    /// Serves for as long as the process lives.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub(crate) async fn serve(self) -> Result<(), String> {
        let Self { address, facade, drain } = self;
        let listener = address.bind().await?;
        let router = routes(facade.clone());
        let answer = move |request, _peer| answered(facade.clone(), router.clone(), request);
        server::serve_within(LIMITS, &drain, listener, None, answer).await;
        Ok(())
    }
}

fn routes(facade: Facade) -> Router {
    Router::new()
        .route("/job/deploy", any(deploy))
        .route("/job/deploy/", any(deploy))
        .route("/job/{id}", get(state).delete(delete))
        .route("/job/{id}/result/list", get(list))
        .route("/job/{id}/result", get(file))
        .route("/demo", get(demo))
        .route("/health", get(async || answer(&json!({"health": "alive"}))))
        .with_state(facade)
}

async fn answered(facade: Facade, router: Router, request: Request<hyper::body::Incoming>) -> Response<Reply> {
    use tower_service::Service;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // Nothing that is sent to the facade is read.
    let request = Request::from_parts(request.into_parts().0, Body::empty());
    let mut response = match facade.admit(request.headers()) {
        Ok(()) => {
            let answer: Result<Response, Infallible> = { router }.call(request).await;
            answer.unwrap_or_else(|never| match never {})
        }
        Err(refusal) => refusal.into_response(),
    };
    // RFC 9745 wants a date: that of the first release that has the successor.
    response.headers_mut().insert("deprecation", HeaderValue::from_static("@1796083200"));
    let successor = HeaderValue::from_static("</api/v1/jobs>; rel=\"successor-version\"");
    response.headers_mut().insert(http::header::LINK, successor);
    let status = response.status().as_u16();
    tracing::info!(target: "audit", facade = "legacy", %method, path, status, "request answered");
    response.map(|body| http_body_util::BodyExt::boxed_unsync(http_body_util::BodyExt::map_err(body, Into::into)))
}

/// Whether jobs of the facade, of which so many have not ended, may become more.
fn has_room(waiting: usize) -> Result<(), Problem> {
    if waiting < MOST_JOBS { Ok(()) } else { Err(Problem::too_many(DEMO_WAIT)) }
}

impl Facade {
    /// Whether a request is looked at: programs ask at the rate of one user, and pages of other sites not at all.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if is_forged(headers) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the request was made by a page of another site"));
        }
        self.app.front.count(&self.user.name)
    }

    async fn may(&self, verb: &'static str, what: What, name: &str) -> Result<(), Problem> {
        self.app.may(&self.user, verb, what, name).await
    }

    /// The job with this UID.
    fn job(&self, id: &str) -> Result<Arc<Job>, Problem> {
        let found = self.app.world.jobs().into_iter().find(|job| job.uid().as_deref() == Some(id));
        found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no job {id:?}")))
    }

    async fn submit(&self) -> Result<Job, Problem> {
        self.may("create", What::Jobs, "").await?;
        let is_mine = |job: &&Arc<Job>| {
            job.annotations().get(SUBMITTER_ANNOTATION) == Some(&self.user.name) && !phase_of(job).is_final()
        };
        has_room(self.app.world.jobs().iter().filter(is_mine).count())?;
        let spec = JobSpec { template_name: Some(self.template.clone()), ..JobSpec::default() };
        let job = submit::wanted(&HeaderMap::new(), &self.user.name, None, spec)?;
        Ok(submit::submit(&self.app.world, job).await?.job)
    }
}

fn with(status: StatusCode, mut response: Response) -> Response {
    *response.status_mut() = status;
    response
}

fn deployed(status: StatusCode, job: &Job) -> Response {
    let id = job.uid().unwrap_or_default();
    let mut response = answer(&json!({"status": "job deployed", "job_uuid": id}));
    *response.status_mut() = status;
    response.headers_mut().extend(HeaderValue::from_str(&format!("/job/{id}")).ok().map(|place| (LOCATION, place)));
    response
}

async fn deploy(State(facade): State<Facade>, method: Method) -> Result<Response, Problem> {
    if !matches!(method, Method::GET | Method::POST) {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "jobs are deployed by GET or POST"));
    }
    Ok(deployed(StatusCode::CREATED, &facade.submit().await?))
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
    let keep = |paths: &mut Vec<Box<str>>, file: File| paths.push(file.path);
    let (_, paths) = facade.app.results(&job, Vec::new(), keep).await?;
    Ok(answer(&paths))
}

async fn file(
    State(facade): State<Facade>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::BAD_REQUEST, "name the result: ?file=PATH");
    let file = parameter(query.as_deref(), "file").ok_or_else(missing)?;
    let name = facade.job(&id)?.name_any();
    facade.may("get", What::Results, &name).await?;
    result(&facade.app, &name, &file, &method, &headers).await
}

/// Runs a job and answers with its result; after the timeout, with where the job is.
async fn demo(
    State(facade): State<Facade>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wrong = |_| Problem::new(StatusCode::BAD_REQUEST, "timeout is a number of seconds");
    let timeout = parameter(query.as_deref(), "timeout").map(|text| text.parse().map_err(wrong)).transpose()?;
    facade.may("get", What::Results, "").await?;
    let until = Instant::now() + timeout.map_or(DEMO_WAIT, Duration::from_secs).min(LONGEST_WAIT);
    let mut changes = facade.app.world.changes();
    let job = facade.submit().await?;
    let name = job.name_any();
    loop {
        changes.mark_unchanged();
        let status = facade.app.world.job(&name).and_then(|job| job.status.clone()).unwrap_or_default();
        if status.phase.is_final() {
            return demo_result(&facade, &name, &headers).await;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !matches!(tokio::time::timeout(left, changes.changed()).await, Ok(Ok(()))) {
            return Ok(deployed(StatusCode::ACCEPTED, &job));
        }
    }
}

async fn demo_result(facade: &Facade, name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let none = || with(StatusCode::BAD_REQUEST, answer(&json!({"message": "no result file"})));
    let keep = |chosen: &mut Option<Box<str>>, file: File| {
        if chosen.is_none() || *file.path == *DEMO_RESULT {
            *chosen = Some(file.path);
        }
    };
    let found = facade.app.results(&*facade.app.job(name)?, None, keep).await;
    let Ok((_, Some(chosen))) = found else { return Ok(none()) };
    result(&facade.app, name, &chosen, &Method::GET, headers).await
}

#[cfg(test)]
mod tests {
    use liqo_api::jobs::JobStatus;

    use super::*;

    #[test]
    fn the_facade_does_not_fill_the_queue() {
        assert!(has_room(MOST_JOBS - 1).is_ok());
        assert_eq!(has_room(MOST_JOBS).map_err(|problem| problem.status), Err(429));
    }

    #[test]
    fn the_state_is_that_of_one_pod() {
        let mut job = Job::new("j", JobSpec::default());
        job.status = Some(JobStatus { phase: Phase::Storing, pod: Some("j-x".to_owned()), ..JobStatus::default() });
        let wanted =
            json!({"pod_name": "j-x", "pod.status.phase": "Running", "container_states": {"worker": "terminated"}});
        assert_eq!(pod_state(&job), wanted);
    }
}
