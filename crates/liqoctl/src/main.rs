//! `liqoctl`, also `kubectl liqo`: says what is wanted on a cluster and tells what happens.
//!
//! A command writes only objects and waits for what the controllers make of them; it holds no state and no
//! protocol of its own. Exit code 0: done; 1: anything else; that of the worker for `job run --wait`.

mod clusters;
mod completion;
mod condition;
mod docs;
mod flag;
mod generate;
mod helm;
mod here;
mod in_band;
mod install;
mod job;
mod market;
mod offload;
mod out;
mod peer;
mod status;
mod table;
mod tenant;
mod token;
mod uninstall;
mod unoffload;
mod unpeer;
mod version;
mod view;
mod wait;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::anyhow;
use clap::{CommandFactory, FromArgMatches, Parser, error::ErrorKind};

use crate::{clusters::ConnectionArgs, out::Out};

/// Install Liqo, peer clusters and offload namespaces
///
/// Liqo lets independent Kubernetes clusters share capacity: a peered cluster shows up as one more node, and
/// namespaces extend to it.
///
/// The way to a pod in another cluster:
///   liqoctl install kubeadm --cluster-name rome     on both clusters, each with its own name
///   liqoctl generate peer-command                   on the cluster that gives resources
///   liqoctl peer out-of-band ...                    on the other one: the command just printed
///   liqoctl offload namespace demo                  there, too
///   liqoctl status peer                             shows how things stand
#[derive(Clone, Debug, Parser)]
#[command(name = "liqoctl", verbatim_doc_comment, arg_required_else_help = true, max_term_width = 100)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct Cli {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Enable verbose logs; with `status`, show more
    #[arg(short, long, global = true, help_heading = clusters::GLOBAL)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    Install(Box<install::InstallArgs>),
    Uninstall(uninstall::UninstallArgs),
    /// Enable a peering towards a remote cluster
    ///
    /// Takes resources from a cluster that is already known, by the name of its ForeignCluster. A cluster that
    /// is not known yet is peered with `peer out-of-band`, or with `peer in-band` by somebody who may administer
    /// both clusters.
    ///
    /// Example:
    ///   liqoctl peer milan
    #[command(verbatim_doc_comment)]
    Peer(peer::PeerArgs),
    /// Disable a peering towards a remote cluster
    ///
    /// Pods that run there are evicted and run elsewhere, then the virtual node goes. The other direction is
    /// left as it is, and the cluster stays known: `unpeer out-of-band` forgets it, too.
    ///
    /// Example:
    ///   liqoctl unpeer milan
    #[command(verbatim_doc_comment)]
    Unpeer(unpeer::UnpeerArgs),
    /// Grant a remote cluster nothing new; its pods and namespaces here go on
    ///
    /// New offers, namespaces and pods of the cluster are refused. `uncordon` undoes it.
    ///
    /// Example:
    ///   liqoctl cordon tenant rome
    #[command(verbatim_doc_comment)]
    Cordon(tenant::TenantArgs),
    /// Grant a remote cluster again what its ForeignCluster allows
    ///
    /// Undoes `cordon`, `drain` and the ban of `evict`.
    ///
    /// Example:
    ///   liqoctl uncordon tenant rome
    #[command(verbatim_doc_comment)]
    Uncordon(tenant::TenantArgs),
    /// Take back the resources that a remote cluster uses here
    ///
    /// The offer is withdrawn, and the cluster evicts its pods within its PodDisruptionBudgets. What it has not taken
    /// back when the withdrawal deadline is over is ended. `uncordon` undoes it.
    ///
    /// Example:
    ///   liqoctl drain tenant rome
    #[command(verbatim_doc_comment)]
    Drain(tenant::WaitingArgs),
    /// End at once everything a remote cluster has here, and ban the cluster
    ///
    /// The command does not wait for the cluster: the rights, pods, namespaces and offers of the cluster end whatever the
    /// cluster does, and its certificate is no longer accepted. `uncordon` lifts the ban.
    ///
    /// Example:
    ///   liqoctl evict tenant rome
    ///   liqoctl evict tenant rome --dry-run
    #[command(verbatim_doc_comment)]
    Evict(tenant::EvictArgs),
    /// Generate data or commands to perform additional operations
    ///
    /// Example:
    ///   liqoctl generate peer-command
    #[command(verbatim_doc_comment)]
    Generate(generate::GenerateArgs),
    /// Offload a resource to remote clusters
    ///
    /// Example:
    ///   liqoctl offload namespace demo
    #[command(verbatim_doc_comment)]
    Offload(offload::OffloadArgs),
    /// Take a resource back from remote clusters
    ///
    /// Example:
    ///   liqoctl unoffload namespace demo
    #[command(verbatim_doc_comment)]
    Unoffload(unoffload::UnoffloadArgs),
    /// Show the status of Liqo
    ///
    /// Checks the namespace and the components of Liqo and shows what peers are told about this cluster.
    /// `status peer` shows the peers. With --verbose, more of everything. Fails when a check does.
    ///
    /// Examples:
    ///   liqoctl status
    ///   liqoctl status peer milan -o json
    #[command(verbatim_doc_comment)]
    Status(status::StatusArgs),
    /// Run jobs on any cluster of the federation, and get their results
    ///
    /// Jobs run in the namespace liqo-jobs, wherever it is offloaded to. Needs jobs.enabled=true in the values of Liqo.
    ///
    /// Examples:
    ///   liqoctl job run --image busybox:1.36 --wait -- sh -c 'date > /output/when'
    ///   liqoctl job list
    ///   liqoctl job results job-x7k2p --output-dir results
    #[command(verbatim_doc_comment)]
    Job(Box<job::JobArgs>),
    /// Find providers in a market and reserve their resources
    ///
    /// Asks the broker that the agent of this cluster was told of, with the agent's token. Needs agent.enabled=true in the
    /// values of Liqo.
    ///
    /// Examples:
    ///   liqoctl market list
    ///   liqoctl market select --request cpu=8,memory=16Gi --explain
    ///   liqoctl market reserve batch --request cpu=8,memory=16Gi
    #[command(verbatim_doc_comment)]
    Market(Box<market::MarketArgs>),
    /// Print the version of liqoctl and of the Liqo it talks to
    ///
    /// Example:
    ///   liqoctl version --client
    #[command(verbatim_doc_comment)]
    Version(version::VersionArgs),
    /// Generate the completion script of a shell
    ///
    /// Names of namespaces, peers, contexts and so on are completed, too.
    ///
    /// Example:
    ///   source <(liqoctl completion bash)
    #[command(verbatim_doc_comment)]
    Completion(completion::CompletionArgs),
    /// Generate the reference of all commands
    ///
    /// Example:
    ///   liqoctl docs --dir reference
    #[command(hide = true, verbatim_doc_comment)]
    Docs(docs::DocsArgs),
}

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).var(completion::VARIABLE).complete();
    let words: Vec<OsString> = std::env::args_os().collect();
    let program = program(words.first());
    let short = program.rsplit('/').next().unwrap_or(&program);
    let cli = match Cli::command().bin_name(short).try_get_matches_from(words) {
        Ok(matches) => Cli::from_arg_matches(&matches).expect("the matches are those of this command"),
        Err(error) => return refuse(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli, &program)),
        Err(error) => Err(anyhow!("starting: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(out::WorkerFailed(code)) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            if !error.is::<out::Told>() {
                Out::error(&error);
            }
            ExitCode::FAILURE
        }
    }
}

/// Help is what was asked for, also by saying nothing; the rest is wrong.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand || !error.use_stderr();
    if asked {
        let _ = Out::new(false).data(&error.render().ansi().to_string());
        return ExitCode::SUCCESS;
    }
    let _ = error.print();
    ExitCode::FAILURE
}

async fn run(cli: Cli, program: &str) -> anyhow::Result<()> {
    let Cli { connection, verbose, command } = cli;
    // For `status` the flag means more of the result.
    if verbose && !matches!(command, Command::Status(_)) {
        let filter = tracing_subscriber::EnvFilter::new("info,liqo_kube=debug,kube=debug");
        let _ =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).try_init();
    }
    // Helm has to take back what it began: the commands that run it end in their own way.
    let runs_helm = matches!(command, Command::Install(_) | Command::Uninstall(_));
    let work = dispatch(command, &connection, program, verbose);
    if runs_helm { work.await } else { wait::interruptible(work).await }
}

async fn dispatch(command: Command, connection: &ConnectionArgs, program: &str, verbose: bool) -> anyhow::Result<()> {
    match command {
        Command::Install(args) => install::run(*args, connection).await,
        Command::Uninstall(args) => uninstall::run(args, connection).await,
        Command::Peer(args) => peer::run(args, connection).await,
        Command::Unpeer(args) => unpeer::run(args, connection).await,
        Command::Cordon(args) => tenant::run(tenant::Verdict::Cordon, args, connection).await,
        Command::Uncordon(args) => tenant::run(tenant::Verdict::Uncordon, args, connection).await,
        Command::Drain(args) => tenant::drain(args, connection).await,
        Command::Evict(args) => tenant::evict(args, connection).await,
        Command::Generate(args) => generate::run(args, connection, program).await,
        Command::Offload(args) => offload::run(args, connection).await,
        Command::Unoffload(args) => unoffload::run(args, connection).await,
        Command::Status(args) => status::run(args, connection, verbose).await,
        Command::Job(args) => job::run(*args, connection).await,
        Command::Market(args) => market::run(*args, connection).await,
        Command::Version(args) => version::run(args, connection).await,
        Command::Completion(args) => completion::run(&args, program),
        Command::Docs(args) => docs::run(&args),
    }
}

/// What people typed to call us: `kubectl-liqo` is called by kubectl, as `kubectl liqo`.
fn program(argument: Option<&OsString>) -> String {
    let typed = argument.map_or_else(|| "liqoctl".to_owned(), |name| name.to_string_lossy().into_owned());
    let file = Path::new(&typed).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if file.starts_with("kubectl-") { file.replace('-', " ").replace('_', "-") } else { typed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declarations_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_plugin_is_called_as_kubectl_does() {
        let called = |name: &str| program(Some(&name.into()));
        assert_eq!(called("/usr/bin/kubectl-liqo"), "kubectl liqo");
        assert_eq!(called("kubectl-liqo_dev"), "kubectl liqo-dev");
        assert_eq!(called("./liqoctl"), "./liqoctl");
    }
}
