//! `liqoctl job`: work that runs once, on any cluster of the federation, and leaves results in a store.
//!
//! Writes    `Job`s of the group `jobs.liqo.io`; `cancel` sets `spec.cancel`.

mod results;
mod run;
mod show;

use std::time::Duration;

use anyhow::Context;
use liqo_api::jobs::Job;
use liqo_kube::Cluster;

use crate::{
    clusters::ConnectionArgs,
    completion, flag,
    out::{Format, Out},
    table::ShowArgs,
};

/// Arguments of `job`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct JobArgs {
    /// The namespace of the jobs
    #[arg(short, long, global = true, default_value = "liqo-jobs", value_name = "NAME", add = clap_complete::ArgValueCompleter::new(completion::namespaces))]
    namespace: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Submit a job
    ///
    /// The worker is an image with what it is called with, or a JobTemplate. With --wait the command ends when the
    /// job does, with the exit code of the worker.
    ///
    /// Examples:
    ///   liqoctl job run --image busybox:1.36 -- sh -c 'date > /output/when'
    ///   liqoctl job run --template render --env SCENE=12 --placement Remote --wait
    ///   liqoctl job run --template render --wait -o json
    #[command(verbatim_doc_comment)]
    Run(Box<run::RunArgs>),
    /// List jobs
    ///
    /// Examples:
    ///   liqoctl job list -o wide
    ///   liqoctl job list -o json
    #[command(verbatim_doc_comment)]
    List(ShowArgs),
    /// Show a job
    ///
    /// Example:
    ///   liqoctl job get render-12
    #[command(verbatim_doc_comment)]
    Get {
        #[command(flatten)]
        job: NameArgs,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Print the log of the worker of a job
    ///
    /// Example:
    ///   liqoctl job logs render-12 --follow
    #[command(verbatim_doc_comment)]
    Logs {
        #[command(flatten)]
        job: NameArgs,
        /// Go on printing until the worker ends
        #[arg(short, long)]
        follow: bool,
    },
    /// List or download the results of a job
    ///
    /// Without --output-dir, the results are listed. A download that was interrupted goes on where it ended, and every file
    /// is compared with its digest.
    ///
    /// Examples:
    ///   liqoctl job results render-12
    ///   liqoctl job results render-12 --output-dir ./render-12
    #[command(verbatim_doc_comment)]
    Results(results::ResultsArgs),
    /// End a job; what its worker has left behind is kept
    ///
    /// Example:
    ///   liqoctl job cancel render-12
    #[command(verbatim_doc_comment)]
    Cancel(NameArgs),
    /// Submit a job again, under a new name
    ///
    /// Example:
    ///   liqoctl job rerun render-12 --wait
    #[command(verbatim_doc_comment)]
    Rerun {
        #[command(flatten)]
        job: NameArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct NameArgs {
    /// Name of the job
    #[arg(value_name = "JOB")]
    name: String,
}

#[derive(Clone, Debug, clap::Args)]
struct WaitArgs {
    /// Wait until the job has ended; exit with the exit code of its worker
    #[arg(long)]
    wait: bool,
    /// How long to wait for that
    #[arg(long, default_value = "1h", value_parser = flag::duration, value_name = "DURATION", requires = "wait")]
    timeout: Duration,
    /// Print the job for programs: as submitted, or with --wait as it ended
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// `liqoctl job …`
pub(crate) async fn run(args: JobArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let JobArgs { namespace, verb } = args;
    let cluster = connection.open().await?.cluster;
    let jobs = Jobs { cluster, namespace };
    match verb {
        Verb::Run(args) => run::run(&jobs, *args).await,
        Verb::Rerun { job, wait } => run::again(&jobs, &job.name, wait).await,
        Verb::List(ShowArgs { output }) => show::list(&jobs, output).await,
        Verb::Get { job, show } => show::one(&jobs, &job.name, show.output).await,
        Verb::Logs { job, follow } => show::logs(&jobs, &job.name, follow).await,
        Verb::Results(args) => results::run(&jobs, args).await,
        Verb::Cancel(NameArgs { name }) => {
            let job = jobs.get(&name).await?;
            jobs.cluster.merge(&job, serde_json::json!({"spec": {"cancel": true}})).await?;
            Out::new(false).done(format!("{name}: the job is being ended"));
            Ok(())
        }
    }
}

/// Where jobs are.
struct Jobs {
    cluster: Cluster,
    namespace: String,
}

impl Jobs {
    async fn get(&self, name: &str) -> anyhow::Result<Job> {
        let found = self.cluster.get::<Job>(&self.namespace, name).await.context("looking for the job")?;
        found.with_context(|| {
            format!("there is no job {name:?} in namespace {:?}; `liqoctl job list` names them", self.namespace)
        })
    }
}
