//! Paths under `/services`, of the later generation: a service is a JobTemplate, a workflow a job, and the one input of a service the
//! environment of its worker.
//!
//! Keeps true: nothing is kept in this process; results stay with the workflow that left them; who does not show the token of the
//! operator gets 403.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures::TryStreamExt;
use http::{HeaderMap, Method, StatusCode};
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobTemplate, Phase, SUBMITTER_ANNOTATION};
use liqo_front::{json::once as answer, page::parameter, problem::Problem};
use serde_json::{Value, json};

use super::{Facade, Order, order, place::below, upload};
use crate::{
    api::{What, phase_of, result},
    submit,
};

/// The one input of a service.
const ENVIRONMENT: &str = "environment";
/// Annotation of a job: the service that it is a workflow of.
const SERVICE_ANNOTATION: &str = "jobs.liqo.io/service";
/// Bytes and lines of a log that a status shows, when not all of it is asked for, and bytes when all of it is.
const LOG: usize = 64 * 1024;
const LINES: usize = 100;
const WHOLE_LOG: usize = 1024 * 1024;
/// Longest token, bytes.
const LONGEST_TOKEN: usize = 4096;

pub(super) fn routes(facade: &Facade) -> Router<Facade> {
    let mut all = Router::new();
    for end in ["", "/"] {
        all = all
            .route(&format!("/services{end}"), get(list))
            .route(&format!("/services/{{id}}/info{end}"), get(info))
            .route(&format!("/services/{{id}}/input/{{resource}}{end}"), put(input))
            .route(&format!("/services/{{id}}/output{end}"), get(output))
            .route(&format!("/services/{{id}}/workflow{end}"), get(workflows))
            .route(&format!("/services/{{id}}/workflow/execute{end}"), post(execute))
            .route(&format!("/services/{{id}}/workflow/stop/{{workflow}}{end}"), post(stop))
            .route(&format!("/services/{{id}}/workflow/status/{{workflow}}{end}"), get(status));
    }
    all.layer(middleware::from_fn_with_state(facade.clone(), known))
}

/// Lets through who shows the token of the operator, which is read again each time: Secrets change.
async fn known(State(facade): State<Facade>, request: Request, next: Next) -> Response {
    let shown = ["access-token", "access_token"].iter().find_map(|name| request.headers().get(*name));
    let wanted = match &facade.token {
        Some(file) => tokio::fs::read(&**file).await.unwrap_or_default(),
        None => Vec::new(),
    };
    if is_token(wanted.trim_ascii(), shown.map(http::HeaderValue::as_bytes).unwrap_or_default()) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::FORBIDDEN, "show the token of this service as header access-token").into_response()
}

/// Compares digests, so that the time says nothing about the token.
fn is_token(wanted: &[u8], shown: &[u8]) -> bool {
    let key = |text: &[u8]| ring::digest::digest(&ring::digest::SHA256, text);
    !wanted.is_empty() && shown.len() <= LONGEST_TOKEN && key(wanted).as_ref() == key(shown).as_ref()
}

fn description(template: &JobTemplate) -> Value {
    let spec = &template.spec;
    json!({
        "service_id": template.name_any(),
        "inputs": [{"resource_name": ENVIRONMENT, "type": 1, "mount_path": "", "description": "variables of the worker, a dotenv file"}],
        "outputs": [{"resource_name": "", "type": 2, "mount_path": spec.output_dir, "description": "each result by its path"}],
        "workflow_resource": {
            "worker_image": spec.image, "worker_image_output_directory": spec.output_dir,
            "worker_image_command": spec.command, "worker_image_args": spec.args, "gpu": spec.resources.contains_key(order::GPU),
        },
    })
}

async fn list(State(facade): State<Facade>) -> Result<Response, Problem> {
    facade.may("list", What::Templates, "").await?;
    Ok(answer(&facade.app.world.templates().iter().map(|one| description(one)).collect::<Vec<_>>()))
}

async fn info(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(answer(&description(&*facade.service(&id).await?)))
}

async fn input(
    State(facade): State<Facade>,
    Path((id, resource)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    facade.service(&id).await?;
    if resource != ENVIRONMENT {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("service {id:?} has no input {resource:?}")));
    }
    let files = upload::files(&headers, body).await?;
    let missing = || Problem::new(StatusCode::BAD_REQUEST, "send the input as a file of a form");
    let file = files.first().ok_or_else(missing)?;
    let variables = upload::variables(&files, &file.field)?.ok_or_else(missing)?;
    let name = facade.input_name(&id);
    facade.forget(&name).await?;
    facade.keep_resource(&name, variables).await?;
    Ok(answer(&json!({"filename": file.name, "resource": resource})))
}

async fn output(
    State(facade): State<Facade>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = |what: &str| Problem::new(StatusCode::BAD_REQUEST, format!("name the {what}"));
    let resource = parameter(query.as_deref(), "resource").ok_or_else(|| missing("output: ?resource=PATH"))?;
    let job = match parameter(query.as_deref(), "workflow_id") {
        Some(workflow) => facade.workflow(&id, &workflow).await?,
        None => {
            let ended = facade.workflows(&id).await?.into_iter().filter(|job| phase_of(job) == Phase::Succeeded);
            let none = || Problem::new(StatusCode::NOT_FOUND, format!("no workflow of service {id:?} has finished"));
            ended
                .max_by_key(|job| (job.status.as_ref().and_then(|status| status.finished_at.clone()), job.name_any()))
                .ok_or_else(none)?
        }
    };
    let name = job.name_any();
    facade.may("get", What::Results, &name).await?;
    let illegal = || Problem::new(StatusCode::BAD_REQUEST, "illegal request");
    let path = below(&facade.output_dir(&job), &resource).ok_or_else(illegal)?;
    result(&facade.app, &name, &path, &method, &headers).await
}

async fn workflows(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    let all = facade.workflows(&id).await?;
    Ok(answer(&all.iter().filter_map(|job| job.uid()).collect::<Vec<_>>()))
}

async fn execute(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    facade.service(&id).await?;
    let input = facade.input_name(&id);
    let resources = facade.resource(&input).await?.map(|_| input).into_iter().collect();
    let annotations = vec![(SERVICE_ANNOTATION.to_owned(), id.clone())];
    let job = facade.submit(Order { template: Some(id), resources, annotations, ..Order::default() }).await?;
    Ok(answer(&json!({"workflow_id": job.uid()})))
}

async fn stop(State(facade): State<Facade>, Path((id, workflow)): Path<(String, String)>) -> Result<Response, Problem> {
    let job = facade.workflow(&id, &workflow).await?;
    facade.may("update", What::Jobs, &job.name_any()).await?;
    if !phase_of(&job).is_final() {
        facade.app.cancelled(&job).await?;
    }
    Ok(answer(&json!({})))
}

async fn status(
    State(facade): State<Facade>,
    Path((id, workflow)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let job = facade.workflow(&id, &workflow).await?;
    let mut state = json!({"state": state(phase_of(&job))});
    if let Some(reason) = job.status.as_ref().and_then(|status| status.reason.clone()) {
        state["reason"] = json!(reason);
    }
    match parameter(query.as_deref(), "verbose_level").as_deref() {
        None | Some("0") => {}
        Some("1") => state["logs"] = json!(last_lines(&facade.log_of(&job, LOG).await?)),
        Some("2") => state["logs"] = json!(facade.log_of(&job, WHOLE_LOG).await?),
        Some(_) => return Err(Problem::new(StatusCode::BAD_REQUEST, "verbose_level is 0, 1 or 2")),
    }
    Ok(answer(&state))
}

/// The states of the later generation, which knows no failure: its callers wait for one of the last two.
fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued | Phase::Starting => "PREPARING",
        Phase::Running => "RUNNING",
        Phase::Storing => "STORING",
        Phase::Succeeded => "FINISHED",
        Phase::Failed | Phase::Cancelled => "CANCELED",
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

impl Facade {
    /// The template that is a service.
    async fn service(&self, id: &str) -> Result<Arc<JobTemplate>, Problem> {
        self.may("get", What::Templates, id).await?;
        let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no service {id:?}"));
        self.app.world.template(id).ok_or_else(missing)
    }

    /// Name of what keeps the input of a service: the last one that was sent counts, for the workflows that start after that.
    fn input_name(&self, service: &str) -> String {
        format!("input-{}", submit::hex(format!("{}\0{service}", self.user.name).as_bytes(), 10))
    }

    /// The workflows of a service that the user of the facade has started, oldest first.
    async fn workflows(&self, service: &str) -> Result<Vec<Arc<Job>>, Problem> {
        self.may("list", What::Jobs, "").await?;
        let is_of = |job: &Job| {
            let annotation = |name| job.annotations().get(name).map(String::as_str);
            annotation(SERVICE_ANNOTATION) == Some(service) && annotation(SUBMITTER_ANNOTATION) == Some(&self.user.name)
        };
        let mut all: Vec<_> = self.app.world.jobs().into_iter().filter(|job| is_of(job)).collect();
        all.sort_by_key(|job| job.metadata.creation_timestamp.clone());
        Ok(all)
    }

    async fn workflow(&self, service: &str, id: &str) -> Result<Arc<Job>, Problem> {
        let found = self.workflows(service).await?.into_iter().find(|job| job.uid().as_deref() == Some(id));
        found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("service {service:?} has no workflow {id:?}")))
    }

    /// The end of the log of a workflow, of so many bytes at most; empty while there is none.
    async fn log_of(&self, job: &Job, most: usize) -> Result<String, Problem> {
        let pod = job.status.as_ref().and_then(|status| status.pod.clone()).unwrap_or_default();
        self.may("get", What::Logs, &pod).await?;
        let Ok(mut log) = self.app.log(&pod, false).await else { return Ok(String::new()) };
        let mut end = Vec::new();
        let broken = |_| Problem::new(StatusCode::BAD_GATEWAY, "the log broke off");
        while let Some(piece) = log.try_next().await.map_err(broken)? {
            end.extend_from_slice(&piece);
            end.drain(..end.len().saturating_sub(most));
        }
        Ok(String::from_utf8_lossy(&end).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_whole_and_there() {
        assert!(is_token(b"secret", b"secret"));
        for (wanted, shown) in [("secret", "secre"), ("secret", ""), ("", ""), ("", "secret"), ("secret", "secret2")] {
            assert!(!is_token(wanted.as_bytes(), shown.as_bytes()), "{wanted} {shown}");
        }
    }

    #[test]
    fn a_service_is_a_template() {
        let spec =
            serde_json::from_value(json!({"image": "i", "args": ["x"], "resources": {"nvidia.com/gpu": "1"}})).unwrap();
        let told = description(&JobTemplate::new("render", spec));
        assert_eq!((&told["service_id"], &told["inputs"][0]["type"]), (&json!("render"), &json!(1)));
        let wanted = json!({"worker_image": "i", "worker_image_output_directory": "/output", "worker_image_command": [],
            "worker_image_args": ["x"], "gpu": true});
        assert_eq!(told["workflow_resource"], wanted);
    }

    #[test]
    fn a_status_shows_the_last_lines() {
        let log: String = (0..250).map(|line| format!("{line}\n")).collect();
        let last = last_lines(&log);
        assert_eq!((last.lines().next(), last.lines().count()), (Some("150"), LINES));
        assert_eq!(last_lines(""), "");
        assert_eq!([Phase::Starting, Phase::Failed].map(state), ["PREPARING", "CANCELED"]);
    }
}
