//! The pages: jobs, and one job with its results.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Extension, Path, RawQuery, State},
    response::Response,
};
use http::StatusCode;
use kube::ResourceExt;
use liqo_api::jobs::{Job, Phase};
use liqo_front::{
    Caller,
    look::{self, Frame},
    page::{Cut, Page},
    problem::Problem,
};
use liqo_kube::now;

use crate::{
    api::{App, What, phase_of},
    model::{JobView, ResultView},
};

/// Pages for people: name, path.
pub(crate) const PAGES: &[(&str, &str)] = &[("Jobs", "/"), ("API", "/front/api")];
/// Steps of a job: its turn, the start of its worker, the end of it, its results.
const STEPS: usize = 4;
/// Results shown on the page of a job; the API has them all.
const SHOWN: usize = 500;

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage<'a> {
    counts: Vec<(&'static str, usize)>,
    page: &'a Page<JobView>,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage<'a> {
    job: &'a JobView,
    /// The place among jobs that wait, and their number.
    place: Option<(usize, usize)>,
    results: &'a [ResultView],
    more: usize,
    /// Why no results are shown; empty: they are.
    hidden: &'a str,
}

/// `/`: all jobs.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    app.may(&caller.user, "list", What::Jobs, "").await?;
    let all = app.world.jobs();
    let page = cut.of(&all, |job| job.name_any()).map(|job| JobView::of(&job));
    let main = JobsPage { counts: counts(all.iter().map(|job| phase_of(job))), page: &page };
    Ok(framed(&app, &caller, ("jobs", "/", "/api/v1/jobs"), &main))
}

/// `/jobs/{name}`: one job.
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    app.may(&caller.user, "get", What::Jobs, &name).await?;
    let job = app.job(&name)?;
    let (results, hidden) = match app.may(&caller.user, "get", What::Results, &name).await {
        Err(problem) => (Vec::new(), problem.detail),
        Ok(()) if job.status.as_ref().is_none_or(|status| status.results.is_none()) => {
            (Vec::new(), "The results are not complete.".to_owned())
        }
        Ok(()) => match app.page(&job, Cut { limit: SHOWN, after: String::new() }).await {
            Ok((_, page)) => (page.items, String::new()),
            Err(problem) => (Vec::new(), problem.detail),
        },
    };
    let all = job.status.as_ref().and_then(|status| usize::try_from(status.results.as_ref()?.files).ok());
    let more = all.unwrap_or_default().saturating_sub(SHOWN);
    let place = place(&name, &app.world.jobs());
    let main = JobPage { job: &JobView::of(&job), place, results: &results, more, hidden: &hidden };
    let (here, json) = (format!("/jobs/{name}"), format!("/api/v1/jobs/{name}"));
    Ok(framed(&app, &caller, (&name, &here, &json), &main))
}

fn framed(app: &App, caller: &Caller, (title, here, json): (&str, &str, &str), main: &impl Template) -> Response {
    let main = main.render().expect("a template is rendered into memory");
    let (cluster, id) = &app.front.cluster;
    let (user, time) = (&caller.user.name, now().0.to_string());
    look::answer(
        StatusCode::OK,
        Frame { cluster, id, title, user, pages: PAGES, here, time: &time, main: &main, json }.html(),
    )
}

/// How many jobs wait, run and have ended well or badly.
fn counts(phases: impl Iterator<Item = Phase> + Clone) -> Vec<(&'static str, usize)> {
    let count = |is: fn(Phase) -> bool| phases.clone().filter(|phase| is(*phase)).count();
    vec![
        ("Queued", count(|phase| phase == Phase::Queued)),
        ("Running", count(Phase::is_active)),
        ("Succeeded", count(|phase| phase == Phase::Succeeded)),
        ("Failed", count(|phase| phase == Phase::Failed)),
        ("Cancelled", count(|phase| phase == Phase::Cancelled)),
    ]
}

/// The class of the style sheet for a phase.
fn class(phase: &str) -> &'static str {
    match phase {
        "Succeeded" => "good",
        "Failed" => "bad",
        _ => "wait",
    }
}

/// Steps of a job that are behind it, of [`STEPS`].
fn done(phase: &str) -> usize {
    match phase {
        "Queued" => 0,
        "Starting" => 1,
        "Running" => 2,
        "Storing" => 3,
        _ => STEPS,
    }
}

impl JobView {
    /// Why the worker runs where it runs.
    fn why_there(&self) -> String {
        let clusters = self.spec["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids: Vec<_> = clusters.iter().filter_map(|id| id.as_str()).collect();
        let chosen = if ids.is_empty() { String::new() } else { format!(", one of {}", ids.join(", ")) };
        match self.placement.as_str() {
            "Local" => "the job asks for this cluster".to_owned(),
            "Remote" => format!("the job asks for another cluster{chosen}"),
            _ => format!("wherever its namespace is offloaded to{chosen}"),
        }
    }
}

/// The place of a job among those that wait, oldest first, and their number; nothing when the job does not wait.
fn place(name: &str, all: &[Arc<Job>]) -> Option<(usize, usize)> {
    let mut waiting: Vec<_> = all.iter().filter(|job| phase_of(job) == Phase::Queued).collect();
    waiting.sort_by_key(|job| (job.metadata.creation_timestamp.clone(), job.name_any()));
    let at = waiting.iter().position(|job| job.name_any() == name)?;
    Some((at + 1, waiting.len()))
}

/// A time for people, to the second, UTC; a dash where there is none.
fn second(time: Option<&String>) -> String {
    let text = |time: &String| time.chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect();
    time.map_or_else(|| "–".to_owned(), text)
}

impl ResultView {
    /// Its size for people.
    fn amount(&self) -> String {
        bytes(self.size)
    }
}

/// Bytes for people.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (count.max(1).ilog2() / 10).min(4);
    let (whole, unit) = (count >> (10 * power), units.get(power as usize).unwrap_or(&"TiB"));
    let tenth = if power == 0 { 0 } else { (count >> (10 * (power - 1))) % 1024 * 10 / 1024 };
    if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

/// A path as part of a URL (RFC 3986): everything that is not unreserved, and no slash, is encoded.
fn url(path: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    path.bytes().map(encoded).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use liqo_api::jobs::{JobSpec, JobStatus};

    use super::*;

    #[test]
    fn nothing_of_a_job_becomes_markup() {
        let evil = "<b onload=x>\"'";
        let job = JobView { name: "j".into(), message: evil.into(), phase: "Failed".into(), ..JobView::default() };
        let results = [ResultView { path: evil.into(), size: 1536, sha256: "aa".into() }];
        let html = JobPage { job: &job, place: Some((2, 3)), results: &results, more: 0, hidden: "" }.render().unwrap();
        assert!(!html.contains(evil) && html.contains("%3Cb%20onload%3Dx%3E%22%27"), "{html}");
        assert!(html.contains("1.5 KiB") && html.contains("class=\"bad\""), "{html}");
        assert!(html.contains("2 of 3 that wait") && html.contains("4 of 4 steps"), "{html}");
    }

    #[test]
    fn a_job_that_waits_knows_its_place() {
        let job = |name: &str, phase, second| {
            let mut job = Job::new(name, JobSpec::default());
            job.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
            job.status = Some(JobStatus { phase, ..JobStatus::default() });
            Arc::new(job)
        };
        let all = [job("a", Phase::Queued, 9), job("b", Phase::Queued, 1), job("c", Phase::Running, 0)];
        assert_eq!([place("a", &all), place("b", &all), place("c", &all)], [Some((2, 2)), Some((1, 2)), None]);
        let phases = ["Queued", "Starting", "Running", "Storing", "Failed"];
        assert_eq!(phases.map(done), [0, 1, 2, 3, STEPS]);
        let spec = serde_json::json!({"clusters": ["x", "y"]});
        let view = JobView { placement: "Remote".into(), spec, ..JobView::default() };
        assert_eq!(view.why_there(), "the job asks for another cluster, one of x, y");
    }

    #[test]
    fn amounts_and_times_are_for_people() {
        assert_eq!([bytes(0), bytes(1023), bytes(1024), bytes(3 << 29)], ["0 B", "1023 B", "1 KiB", "1.5 GiB"]);
        assert_eq!(second(Some(&"2026-01-02T03:04:05.6Z".to_owned())), "2026-01-02 03:04:05");
        assert_eq!(second(None), "–");
    }
}
