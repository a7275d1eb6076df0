//! `/demo`: a job and its result in one request.

use std::time::{Duration, Instant};

use axum::{
    Router,
    body::Bytes,
    extract::{RawQuery, State},
    response::Response,
    routing::{get, post},
};
use http::{HeaderMap, Method, StatusCode};
use kube::ResourceExt;
use liqo_api::jobs::Job;
use liqo_front::{json::once as answer, page::parameter, problem::Problem};
use serde_json::json;

use super::{Facade, Order, first, upload, with};
use crate::api::{What, result};

/// The result that `/demo` answers with, if the job leaves one of this name; else its first one.
const RESULT: &str = "result";
/// How long `/demo` waits when the caller does not say, and at most: connectors give up after a minute.
const WAIT: Duration = Duration::from_secs(55);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Annotation of a job that somebody waits, or waited, for.
const DEMO_ANNOTATION: &str = "jobs.liqo.io/demo";

pub(super) fn routes() -> Router<Facade> {
    let all = Router::new().route("/demo", get(demo)).route("/demo/", get(demo));
    all.route("/demo/forceQuit", post(quit)).route("/demo/forceQuit/", post(quit))
}

/// Runs a job and answers with its result; after the timeout, with where the job is. Who sent files gets the list of the results, as
/// the later callers of the first generation do.
async fn demo(
    State(facade): State<Facade>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let until = Instant::now() + timeout(query.as_deref())?;
    let files = upload::files(&headers, body).await?;
    facade.may("get", What::Results, "").await?;
    let mut order = Order::read(&files, query.as_deref())?;
    order.annotations.push((DEMO_ANNOTATION.to_owned(), "true".to_owned()));
    let mut changes = facade.app.world.changes();
    let job = facade.submit(order).await?;
    let name = job.name_any();
    loop {
        changes.mark_unchanged();
        let status = facade.app.world.job(&name).and_then(|job| job.status.clone()).unwrap_or_default();
        if status.phase.is_final() {
            return if files.is_empty() { one(&facade, &name, &headers).await } else { all(&facade, &job).await };
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !matches!(tokio::time::timeout(left, changes.changed()).await, Ok(Ok(()))) {
            return Ok(first::deployed(StatusCode::ACCEPTED, &job));
        }
    }
}

fn timeout(query: Option<&str>) -> Result<Duration, Problem> {
    let wrong = |_| Problem::new(StatusCode::BAD_REQUEST, "timeout is a number of seconds");
    let asked = parameter(query, "timeout").map(|text| text.parse().map_err(wrong)).transpose()?;
    Ok(asked.map_or(WAIT, Duration::from_secs).min(LONGEST_WAIT))
}

fn nothing() -> Response {
    with(StatusCode::BAD_REQUEST, answer(&json!({"message": "no result file"})))
}

async fn one(facade: &Facade, name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let job = facade.app.job(name)?;
    let Ok(paths) = first::paths(facade, &job).await else { return Ok(nothing()) };
    let Some(chosen) = paths.iter().find(|path| &***path == RESULT).or(paths.first()) else { return Ok(nothing()) };
    result(&facade.app, name, chosen, &Method::GET, headers).await
}

async fn all(facade: &Facade, job: &Job) -> Result<Response, Problem> {
    match first::paths(facade, job).await {
        Ok(paths) if !paths.is_empty() => Ok(answer(&json!({"job_id": job.uid(), "job_results": paths}))),
        _ => Ok(nothing()),
    }
}

/// Cancels the job that somebody waits for, and no other.
async fn quit(State(facade): State<Facade>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let waited = |job: &Job| job.annotations().contains_key(DEMO_ANNOTATION) && facade.is_mine_and_lasts(job);
    let all: Vec<_> = facade.app.world.jobs().into_iter().filter(|job| waited(job)).collect();
    let ids: Vec<_> = all.iter().filter_map(|job| job.uid()).collect();
    let Some(id) = chosen(&ids, parameter(query.as_deref(), "job_id").as_deref())? else {
        return Ok(answer(&json!({})));
    };
    let job = facade.job(id)?;
    facade.may("update", What::Jobs, &job.name_any()).await?;
    facade.app.cancelled(&job).await?;
    Ok(answer(&json!({"job_id": id})))
}

/// Which of the jobs that are waited for is ended. One call never ends the job of another caller by chance.
fn chosen<'a>(ids: &'a [String], named: Option<&str>) -> Result<Option<&'a String>, Problem> {
    match (named, ids) {
        (Some(named), _) => {
            let missing = || Problem::new(StatusCode::NOT_FOUND, format!("nobody waits for a job {named:?}"));
            ids.iter().find(|id| *id == named).map(Some).ok_or_else(missing)
        }
        (None, [] | [_]) => Ok(ids.first()),
        (None, many) => {
            let why = format!("{} jobs are waited for, name one of them: ?job_id=", many.len());
            Err(Problem::new(StatusCode::CONFLICT, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_ends_one_job() {
        let (none, one, two) = (vec![], vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]);
        let code = |ids: &[String], named| chosen(ids, named).map(|id| id.cloned()).map_err(|problem| problem.status);
        assert_eq!(code(&none, None), Ok(None));
        assert_eq!(code(&one, None), Ok(Some("a".to_owned())));
        assert_eq!(code(&two, None), Err(409));
        assert_eq!(code(&two, Some("b")), Ok(Some("b".to_owned())));
        assert_eq!(code(&two, Some("c")), Err(404));
    }

    #[test]
    fn a_timeout_is_a_bounded_number_of_seconds() {
        assert_eq!(timeout(None), Ok(WAIT));
        assert_eq!(timeout(Some("timeout=0")), Ok(Duration::ZERO));
        assert_eq!(timeout(Some("timeout=99999999")), Ok(LONGEST_WAIT));
        for text in ["timeout=-1", "timeout=x", "timeout=", "timeout=1.5"] {
            assert_eq!(timeout(Some(text)).map_err(|problem| problem.status), Err(400), "{text}");
        }
    }
}
