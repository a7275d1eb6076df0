//! Answers that last: a log that is followed, and changes of jobs.
//!
//! Keeps true: such an answer takes one of the places of streams, and ends when its caller may not read it any more.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Extension, Path, RawQuery, State},
    response::Response,
};
use futures::{StreamExt, stream::BoxStream};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
};
use kube::ResourceExt;
use liqo_api::jobs::Job;
use liqo_front::{
    Caller,
    events::{self, Event},
    page::parameter,
    problem::Problem,
};
use liqo_kube::access::User;
use serde_json::{Value, json as object};

use crate::{
    api::{App, AppState, Known, What},
    lines::{self, Lines},
    model::JobView,
};

/// The media type of server-sent events.
const EVENTS: &str = "text/event-stream";

impl App {
    /// The log of the last worker of a job, as it comes.
    pub(crate) async fn log(
        &self,
        pod: &str,
        follow: bool,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Problem> {
        if pod.is_empty() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "the job has no worker yet"));
        }
        let stream = self.world.cluster.log((&self.world.namespace, pod), "worker", follow).await.map_err(|error| {
            tracing::info!(error = &error as &dyn std::error::Error, pod, "no log");
            Problem::new(
                StatusCode::NOT_FOUND,
                "the log of the worker is not there: it has not started, or its pod is gone",
            )
        })?;
        let pieces = futures::stream::try_unfold(Box::pin(stream), |mut stream| async move {
            let mut piece = vec![0; 16 * 1024];
            let read = futures::AsyncReadExt::read(&mut stream, &mut piece).await?;
            piece.truncate(read);
            Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(piece), stream)))
        });
        Ok(pieces.boxed())
    }

    /// The pod of the last worker of a job, for a caller who may read the log of the job; empty while there was none.
    async fn readable(&self, user: &User, job: &str) -> Result<String, Problem> {
        self.may(user, "get", What::Jobs, job).await?;
        let pod = self.job(job)?.status.as_ref().and_then(|status| status.pod.clone()).unwrap_or_default();
        self.may(user, "get", What::Logs, &pod).await?;
        Ok(pod)
    }
}

/// The log of the worker of a job
///
/// Who accepts `text/event-stream` gets it line by line until the worker ends: each `line` carries JSON text, `end` is the last event.
#[utoipa::path(get, path = "/api/v1/jobs/{name}/log",
    params(("name" = String, Path, description = "Name of the job"), ("follow" = Option<bool>, Query, description = "Go on until the worker ends"), ("Last-Event-ID" = Option<String>, Header, description = "The last event that the caller knows")),
    responses((status = 200, content_type = "text/plain", body = String), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn get_log(
    State(app): AppState,
    Extension(caller): Known,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pod = app.readable(&caller.user, &name).await?;
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_stream = text(ACCEPT).is_some_and(|accepted| accepted.contains(EVENTS));
    let follow = match parameter(query.as_deref(), "follow").as_deref() {
        Some("" | "true") => true,
        None | Some("false") => false,
        Some(_) => return Err(Problem::new(StatusCode::BAD_REQUEST, "follow is true or false")),
    };
    let mut log = app.log(&pod, follow || is_stream).await?;
    if is_stream {
        let last = text(HeaderName::from_static("last-event-id"));
        log = lines::events(log, Lines::of(&pod, last), events::TICK);
    }
    let body = if follow || is_stream { lasting(&app, caller, name, log)? } else { Body::from_stream(log) };
    let mut response = Response::new(body);
    let kind = if is_stream { EVENTS } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A log that is followed takes one of the places of streams for as long as it lasts, and ends with the rights of its reader.
fn lasting(
    app: &Arc<App>,
    caller: Caller,
    name: String,
    log: BoxStream<'static, std::io::Result<Bytes>>,
) -> Result<Body, Problem> {
    let place = app.front.streams.take(&caller.user.name)?;
    let app = Arc::clone(app);
    Ok(events::guarded(place, log, events::TICK, move || {
        let (app, caller, name) = (Arc::clone(&app), caller.clone(), name.clone());
        async move {
            app.front.again(&caller).await?;
            app.readable(&caller.user, &name).await.map(drop)
        }
    }))
}

/// Changes of jobs, as server-sent events
///
/// The first event is `begin` with the number of jobs; each `change` carries `name` and the new `object`, or `null` when the job is
/// gone; `problem` is the last one, and says why the stream ends.
#[utoipa::path(get, path = "/api/v1/events", responses((status = 200, content_type = "text/event-stream", body = String), (status = 403, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn watch_events(State(app): AppState, Extension(caller): Known) -> Result<Response, Problem> {
    app.may(&caller.user, "watch", What::Jobs, "").await?;
    let place = app.front.streams.take(&caller.user.name)?;
    let changes = app.world.changes();
    Ok(events::follow(place, changes, move |last| {
        let (app, caller) = (Arc::clone(&app), caller.clone());
        async move {
            if last.is_some() {
                app.front.again(&caller).await?;
                app.may(&caller.user, "watch", What::Jobs, "").await?;
            }
            let now = app.world.jobs();
            let news = news(last.as_deref(), &now);
            Ok((now, news))
        }
    }))
}

/// What the caller is told; at the beginning the number of jobs.
fn news(last: Option<&[Arc<Job>]>, now: &[Arc<Job>]) -> Vec<Event> {
    match last {
        None => vec![Event::new("begin", &object!({"jobs": now.len()}))],
        Some(before) => differences(before, now).iter().map(|one| Event::new("change", one)).collect(),
    }
}

/// Pure: which jobs are new, other or gone. Both lists ascend by name.
fn differences(before: &[Arc<Job>], now: &[Arc<Job>]) -> Vec<Value> {
    let has = |all: &[Arc<Job>], one: &Job| all.binary_search_by(|other| other.name_any().cmp(&one.name_any())).ok();
    let is_other = |one: &&Arc<Job>| {
        let old = has(before, one).and_then(|at| before.get(at));
        old.is_none_or(|old| !Arc::ptr_eq(old, one) && JobView::of(old) != JobView::of(one))
    };
    let changed = now.iter().filter(is_other).map(|one| object!({"name": one.name_any(), "object": JobView::of(one)}));
    let gone = before.iter().filter(|one| has(now, one).is_none());
    changed.chain(gone.map(|one| object!({"name": one.name_any(), "object": null}))).collect()
}

#[cfg(test)]
mod tests {
    use liqo_api::jobs::{JobSpec, JobStatus, Phase};

    use super::*;

    #[test]
    fn changes_are_told_by_name() {
        let job = |name: &str, phase| {
            let mut job = Job::new(name, JobSpec::default());
            job.status = Some(JobStatus { phase, ..JobStatus::default() });
            Arc::new(job)
        };
        let before = [job("a", Phase::Running), job("b", Phase::Running), job("d", Phase::Queued)];
        let now = [job("b", Phase::Succeeded), job("c", Phase::Queued), job("d", Phase::Queued)];
        let told: Vec<_> = differences(&before, &now)
            .iter()
            .map(|one| (one["name"].clone(), one["object"]["phase"].clone()))
            .collect();
        assert_eq!(object!(told), object!([["b", "Succeeded"], ["c", "Queued"], ["a", null]]));
        assert!(differences(&now, &now).is_empty());
    }
}
