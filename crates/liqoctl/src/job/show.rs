//! `liqoctl job list|get|logs`.

use anyhow::{Context, bail};
use futures::AsyncReadExt;
use kube::ResourceExt;
use liqo_api::jobs::Job;

use super::Jobs;
use crate::out::{Format, Out};

/// Bytes of a log that are kept in memory.
const PIECE: usize = 16 * 1024;

/// `liqoctl job list`
pub(super) async fn list(jobs: &Jobs, output: Option<Format>) -> anyhow::Result<()> {
    let out = Out::new(output.is_some());
    let mut all = jobs.cluster.list::<Job>(&jobs.namespace, "").await.context("listing jobs")?;
    all.sort_by_key(|job| (job.creation_timestamp().map(|time| time.0), job.name_any()));
    if let Some(format) = output {
        return out.value(&all, format);
    }
    if all.is_empty() {
        out.info(format!("there are no jobs in namespace {}; `liqoctl job run` submits one", jobs.namespace));
        return Ok(());
    }
    out.data(&table(&all))
}

/// The jobs, one in a line.
fn table(jobs: &[Job]) -> String {
    let head = ["NAME", "PHASE", "REASON", "NODE", "RESULTS"].map(str::to_owned);
    let rows = jobs.iter().map(|job| {
        let status = job.status.clone().unwrap_or_default();
        let results = status.results.map_or_else(String::new, |results| results.files.to_string());
        let text = |text: Option<String>| text.unwrap_or_default();
        [job.name_any(), format!("{:?}", status.phase), text(status.reason), text(status.node), results]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `liqoctl job get`
pub(super) async fn one(jobs: &Jobs, name: &str, output: Option<Format>) -> anyhow::Result<()> {
    let job = jobs.get(name).await?;
    let out = Out::new(output.is_some());
    if let Some(format) = output {
        return out.value(&job, format);
    }
    let status = job.status.clone().unwrap_or_default();
    let exit = status.exit_code.map(|code| code.to_string());
    let results =
        status.results.as_ref().map(|all| format!("{} files, {} bytes in {}", all.files, all.bytes, all.location));
    let time = |time: Option<_>| time.map(|k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at)| at.to_string());
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
        let text = table(&[job, Job::new("b", JobSpec::default())]);
        assert_eq!(
            text,
            "NAME        PHASE     REASON   NODE         RESULTS\nrender-12   Running            liqo-milan\nb           Queued"
        );
    }
}
