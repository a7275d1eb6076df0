//! `liqoctl job run|rerun`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail, ensure};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use liqo_api::jobs::{Job, JobSpec, JobTemplateSpec, Phase, Placement, QUEUE_LABEL, RERUN_OF_ANNOTATION, Variable};

use super::{Jobs, WaitArgs};
use crate::{
    flag,
    out::{Out, WorkerFailed},
    wait::{Deadline, Watched},
};

/// Arguments of `job run`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Name of the job; made up if left out
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Name of the JobTemplate
    #[arg(long, value_name = "NAME", required_unless_present = "image", conflicts_with = "image")]
    template: Option<String>,
    /// Image of the worker
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Variable of the worker, may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// What the worker needs, e.g. cpu=500m,memory=1Gi,nvidia.com/gpu=1
    #[arg(long, value_parser = flag::pairs, value_name = "RESOURCE=QUANTITY", default_value = "", conflicts_with = "template")]
    resources: BTreeMap<String, String>,
    /// Where the worker may run: Any, Local or Remote
    #[arg(long, default_value = "Any", value_name = "WHERE", value_parser = placement)]
    placement: Placement,
    /// ID of a cluster the worker may run on, may be repeated; left out: every one
    #[arg(long, value_name = "ID")]
    cluster: Vec<String>,
    /// Queue of Kueue that lets the worker start
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// ResultStore for the results; left out: that of the template, or the embedded one
    #[arg(long, value_name = "NAME")]
    result_store: Option<String>,
    /// Directory in which the worker leaves its results
    #[arg(long, default_value = "/output", value_name = "DIR", conflicts_with = "template")]
    output_dir: String,
    /// Room for the results
    #[arg(long, default_value = "2Gi", value_name = "QUANTITY", conflicts_with = "template")]
    output_size: String,
    /// End the worker after this time; 0: never
    #[arg(long, default_value = "0", value_parser = flag::duration, value_name = "DURATION", conflicts_with = "template")]
    worker_timeout: Duration,
    /// Start a worker that failed again, so many times
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with = "template")]
    retries: u8,
    /// Remove the job and its results this time after its end
    #[arg(long, value_parser = flag::duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Command of the worker, instead of the image's own
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "template")]
    command: Vec<String>,
}

fn placement(text: &str) -> Result<Placement, String> {
    match text.to_ascii_lowercase().as_str() {
        "any" => Ok(Placement::Any),
        "local" => Ok(Placement::Local),
        "remote" => Ok(Placement::Remote),
        _ => Err(format!("invalid value {text}: say Any, Local or Remote")),
    }
}

/// The job that the arguments describe.
fn wanted(args: RunArgs) -> anyhow::Result<(Job, WaitArgs)> {
    let RunArgs {
        name,
        template,
        image,
        env,
        resources,
        placement,
        cluster,
        queue,
        result_store,
        output_dir,
        output_size,
        worker_timeout,
        retries,
        ttl,
        wait,
        command,
    } = args;
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let worker = image.map(|image| JobTemplateSpec {
        image,
        command,
        resources: resources.into_iter().map(|(key, value)| (key, Quantity(value))).collect(),
        output_dir,
        output_size: Quantity(output_size),
        timeout_seconds: whole(worker_timeout),
        retries: i32::from(retries),
        ..JobTemplateSpec::default()
    });
    let base = template.clone().unwrap_or_else(|| "job".to_owned());
    let spec = JobSpec {
        template_name: template,
        template: worker,
        env: env.iter().map(|one| variable(one)).collect::<anyhow::Result<_>>()?,
        placement,
        clusters: cluster,
        result_store,
        ttl_seconds_after_finished: ttl.map(whole),
        ..JobSpec::default()
    };
    let mut job = Job::new("", spec);
    called(&mut job, name, &base);
    job.labels_mut().extend(queue.map(|queue| (QUEUE_LABEL.to_owned(), queue)));
    Ok((job, wait))
}

/// Gives a job its name; without one, the API server makes one up.
fn called(job: &mut Job, name: Option<String>, base: &str) {
    job.metadata.generate_name = name.is_none().then(|| format!("{}-", base.chars().take(40).collect::<String>()));
    job.metadata.name = name;
}

fn variable(text: &str) -> anyhow::Result<Variable> {
    let (name, value) = text.split_once('=').with_context(|| format!("--env {text}: write NAME=VALUE"))?;
    ensure!(!name.is_empty(), "--env {text}: write NAME=VALUE");
    Ok(Variable { name: name.to_owned(), value: value.to_owned() })
}

/// `liqoctl job run`
pub(super) async fn run(jobs: &Jobs, args: RunArgs) -> anyhow::Result<()> {
    let (job, wait) = wanted(args)?;
    submit(jobs, job, wait).await
}

/// `liqoctl job rerun`
pub(super) async fn again(jobs: &Jobs, name: &str, wait: WaitArgs) -> anyhow::Result<()> {
    let before = jobs.get(name).await?;
    let mut job = Job::new("", JobSpec { cancel: false, ..before.spec.clone() });
    called(&mut job, None, name);
    let queue = before.labels().get(QUEUE_LABEL).map(|queue| (QUEUE_LABEL.to_owned(), queue.clone()));
    job.labels_mut().extend(queue);
    job.annotations_mut().insert(RERUN_OF_ANNOTATION.to_owned(), name.to_owned());
    submit(jobs, job, wait).await
}

async fn submit(jobs: &Jobs, mut job: Job, wait: WaitArgs) -> anyhow::Result<()> {
    let WaitArgs { wait, timeout, output } = wait;
    job.metadata.namespace = Some(jobs.namespace.clone());
    let made = jobs.cluster.create(&job).await.context("submitting the job")?;
    let (out, name) = (Out::new(output.is_some()), made.name_any());
    out.done(format!("job {name} submitted"));
    let job = if wait { ended(jobs, &name, Deadline::after(timeout), out).await? } else { made };
    if let Some(format) = output {
        out.value(&job, format)?;
    }
    let status = job.status.unwrap_or_default();
    if !wait || status.phase == Phase::Succeeded {
        return Ok(());
    }
    let code = status.exit_code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Err(WorkerFailed(code.unwrap_or(1)).into())
}

/// Waits until a job has ended, and says how.
async fn ended(jobs: &Jobs, name: &str, deadline: Deadline, out: Out) -> anyhow::Result<Job> {
    let step = out.step(format!("{name}: waiting for the turn of the job"));
    let watched = Watched::<Job>::one(&jobs.cluster, &jobs.namespace, name);
    let job = watched.until(deadline, |all| {
        let Some(job) = all.first() else { return Some(None) };
        let status = job.status.clone().unwrap_or_default();
        let place = status.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        let why = status.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        step.say(format!("{name}: {:?}{place}{why}", status.phase));
        status.phase.is_final().then(|| Some(Job::clone(job)))
    });
    let job = job.await.with_context(|| format!("waiting for job {name}; it goes on"))?;
    let Some(job) = job else { bail!("somebody deleted job {name}") };
    let status = job.status.clone().unwrap_or_default();
    let results = status.results.as_ref().map(|all| format!(", {} results", all.files)).unwrap_or_default();
    let text = format!("{name}: {:?}{results}", status.phase);
    if status.phase == Phase::Succeeded {
        step.done(text);
    } else {
        let why = [status.reason, status.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
        step.warn(format!("{text}: {why}"));
    }
    Ok(job)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn job(line: &str) -> Result<Job, String> {
        let line = Line::try_parse_from(format!("x {line}").split_whitespace()).map_err(|error| error.to_string())?;
        wanted(line.args).map(|(job, _)| job).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_with_its_command_is_a_worker() {
        let job =
            job("--image i --env A=b=c --resources cpu=1 --placement remote --cluster a --cluster b --queue q --output-size 1Gi \
                 --ttl 1h --retries 2 -- sh -c x").unwrap();
        assert_eq!(job.spec.clusters, ["a", "b"]);
        assert_eq!(job.labels()[QUEUE_LABEL], "q");
        let worker = job.spec.template.unwrap();
        assert_eq!(
            (worker.image.as_str(), worker.command, worker.retries),
            ("i", vec!["sh".into(), "-c".into(), "x".into()], 2)
        );
        assert_eq!(job.spec.env, [Variable { name: "A".to_owned(), value: "b=c".to_owned() }]);
        assert_eq!((job.spec.placement, job.spec.ttl_seconds_after_finished), (Placement::Remote, Some(3600)));
        assert_eq!(job.metadata.generate_name.as_deref(), Some("job-"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (line, words) in [
            ("", "--template"),
            ("--image i --template t", "cannot be used with"),
            ("--template t --retries 3", "cannot be used with"),
            ("--template t -- sh", "cannot be used with"),
            ("--image i --env =x", "NAME=VALUE"),
            ("--image i --placement there", "Any, Local or Remote"),
        ] {
            let why = job(line).expect_err(line);
            assert!(why.contains(words), "{line}: {why}");
        }
    }
}
