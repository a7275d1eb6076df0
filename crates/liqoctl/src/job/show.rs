//! `liqoctl job list|get|logs`.

use anyhow::{Context, bail};
use futures::AsyncReadExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use liqo_api::jobs::{Job, SUBMITTER_ANNOTATION};

use super::Jobs;
use crate::{
    out::Out,
    table::{self, Form},
};

/// Bytes of a log that are kept in memory.
const PIECE: usize = 16 * 1024;

/// `liqoctl job list`
pub(super) async fn list(jobs: &Jobs, output: Option<Form>) -> anyhow::Result<()> {
    let format = output.and_then(Form::for_programs);
    let out = Out::new(format.is_some());
    let mut all = jobs.cluster.list::<Job>(&jobs.namespace, "").await.context("listing jobs")?;
    all.sort_by_key(|job| (job.creation_timestamp().map(|time| time.0), job.name_any()));
    if let Some(format) = format {
        return out.value(&all, format);
    }
    if all.is_empty() {
        out.info(format!("there are no jobs in namespace {}; `liqoctl job run` submits one", jobs.namespace));
        return Ok(());
    }
    out.data(&table(&all, output == Some(Form::Wide)))
}

/// The columns of a table of jobs; the wide table has all of them.
const COLUMNS: [&str; 11] =
    ["NAME", "PHASE", "REASON", "NODE", "RESULTS", "EXIT", "ATTEMPTS", "SUBMITTER", "SUBMITTED", "FINISHED", "MESSAGE"];
const NARROW: usize = 5;

/// The jobs, one in a line.
fn table(jobs: &[Job], is_wide: bool) -> String {
    let shown = if is_wide { COLUMNS.len() } else { NARROW };
    let rows = std::iter::once(COLUMNS.map(str::to_owned)).chain(jobs.iter().map(row));
    table::table(rows.map(|row| row.into_iter().take(shown).collect()).collect())
}

fn row(job: &Job) -> [String; 11] {
    let status = job.status.clone().unwrap_or_default();
    let text = |text: Option<String>| text.unwrap_or_default();
    let time = |time: Option<Time>| time.map(|Time(at)| at.to_string()).unwrap_or_default();
    [
        job.name_any(),
        format!("{:?}", status.phase),
        text(status.reason),
        text(status.node),
        text(status.results.map(|results| results.files.to_string())),
        text(status.exit_code.map(|code| code.to_string())),
        status.attempts.to_string(),
        text(job.annotations().get(SUBMITTER_ANNOTATION).cloned()),
        time(job.creation_timestamp()),
        time(status.finished_at),
        text(status.message),
    ]
}

/// `liqoctl job get`
pub(super) async fn one(jobs: &Jobs, name: &str, output: Option<Form>) -> anyhow::Result<()> {
    let job = jobs.get(name).await?;
    let format = output.and_then(Form::for_programs);
    let out = Out::new(format.is_some());
    if let Some(format) = format {
        return out.value(&job, format);
    }
    if output == Some(Form::Wide) {
        return out.data(&table(&[job], true));
    }
    let status = job.status.clone().unwrap_or_default();
    let exit = status.exit_code.map(|code| code.to_string());
    let results =
        status.results.as_ref().map(|all| format!("{} files, {} bytes in {}", all.files, all.bytes, all.location));
    let time = |time: Option<Time>| time.map(|Time(at)| at.to_string());
    let rows = [
        ("Job", Some(name.to_owned())),
        ("Phase", Some(format!("{:?}", status.phase))),
        ("Reason", status.reason),
        ("Message", status.message),
        ("Node", status.node),
        ("Pod", status.pod),
        ("Exit code", exit),
        ("Attempts", Some(status.attempts.to_string())),
        ("Results", results),
        ("Started", time(status.started_at)),
        ("Finished", time(status.finished_at)),
    ];
    let lines = rows.into_iter().filter_map(|(key, value)| Some(format!("{:12}{}", format!("{key}:"), value?)));
    out.data(&lines.collect::<Vec<_>>().join("\n"))
}

/// `liqoctl job logs`
pub(super) async fn logs(jobs: &Jobs, name: &str, follow: bool) -> anyhow::Result<()> {
    let job = jobs.get(name).await?;
    let status = job.status.unwrap_or_default();
    let Some(pod) = status.pod else { bail!("job {name} has no worker yet: it is {:?}", status.phase) };
    let stream = jobs.cluster.log((&jobs.namespace, &pod), "worker", follow).await.context("reading the log")?;
    let (mut stream, mut piece, out) = (std::pin::pin!(stream), vec![0; PIECE], Out::new(true));
    // Bytes, not lines: a worker may print anything.
    loop {
        let read = stream.read(&mut piece).await.context("reading the log")?;
        if read == 0 || !out.bytes(piece.get(..read).unwrap_or_default())? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use liqo_api::jobs::{JobSpec, JobStatus, Phase};

    use super::*;

    #[test]
    fn a_table_has_one_line_for_each_job() {
        let mut job = Job::new("render-12", JobSpec::default());
        job.status =
            Some(JobStatus { phase: Phase::Running, node: Some("liqo-milan".to_owned()), ..JobStatus::default() });
        let text = table(&[job.clone(), Job::new("b", JobSpec::default())], false);
        assert_eq!(
            text,
            "NAME        PHASE     REASON   NODE         RESULTS\nrender-12   Running            liqo-milan\nb           Queued"
        );
        job.annotations_mut().insert(SUBMITTER_ANNOTATION.to_owned(), "ann".to_owned());
        let wide = table(&[job], true);
        let columns =
            |line: usize| wide.lines().nth(line).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(columns(0), COLUMNS);
        assert_eq!(columns(1), ["render-12", "Running", "liqo-milan", "0", "ann"]);
    }
}
