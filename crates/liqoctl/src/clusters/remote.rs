//! The flags of a second cluster: those of the first, each with `--remote-` in front of its name.
//!
//! Keeps true: there is one list of connection flags. The second one is derived from it, so that a flag that is
//! added to the first exists in both.

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use liqo_api::names;

use super::{Connection, ConnectionArgs};
use crate::completion;

/// Where help shows these flags.
const HEADING: &str = "Options of the remote cluster";

/// Which other cluster, as whom, and where Liqo lives there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RemoteArgs {
    #[command(flatten)]
    connection: RemoteConnectionArgs,
    /// The namespace where Liqo is installed in (in the remote cluster)
    #[arg(long, default_value = names::LIQO_NAMESPACE, value_name = "NAME", help_heading = HEADING, add = clap_complete::ArgValueCompleter::new(completion::remote_namespaces))]
    pub(crate) remote_namespace: String,
}

/// [`ConnectionArgs`] under their other names.
#[derive(Clone, Debug)]
struct RemoteConnectionArgs(ConnectionArgs);

impl RemoteArgs {
    /// Prepares both connections; nothing is sent yet.
    pub(crate) async fn open(&self, local: &ConnectionArgs) -> anyhow::Result<(Connection, Connection)> {
        let here = local.open().await.context("the local cluster")?;
        let there = self.connection.0.open().await.context("the remote cluster")?;
        if serde_json::to_value(&here.kubeconfig)? == serde_json::to_value(&there.kubeconfig)? {
            bail!(
                "local and remote clusters must be different: say with --remote-kubeconfig or --remote-context which is the other one"
            );
        }
        Ok((here, there))
    }
}

fn template() -> Command {
    ConnectionArgs::augment_args(Command::new("liqoctl").no_binary_name(true))
}

fn remote_id(arg: &Arg) -> String {
    format!("remote_{}", arg.get_id())
}

fn remote(arg: &Arg) -> Arg {
    let name = arg.get_long().expect("every connection flag has a long name");
    let mut other = Arg::new(remote_id(arg))
        .long(format!("remote-{name}"))
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone())
        .help(format!("{} (in the remote cluster)", arg.get_help().cloned().unwrap_or_default()))
        .help_heading(HEADING)
        .hide(arg.is_hide_set());
    if let Some(names) = arg.get_value_names() {
        other = other.value_names(names.iter().cloned());
    }
    match name {
        "context" => other.add(clap_complete::ArgValueCompleter::new(completion::remote_contexts)),
        "user" => other.add(clap_complete::ArgValueCompleter::new(completion::remote_users)),
        "cluster" => other.add(clap_complete::ArgValueCompleter::new(completion::remote_clusters)),
        _ => other,
    }
}

impl Args for RemoteConnectionArgs {
    fn augment_args(command: Command) -> Command {
        template().get_arguments().map(remote).fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RemoteConnectionArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words = Vec::new();
        for arg in template().get_arguments() {
            let id = remote_id(arg);
            if matches.value_source(&id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let flag = format!("--{}", arg.get_long().unwrap_or_default());
            if matches!(arg.get_action(), ArgAction::SetTrue) {
                words.push(flag.into());
                continue;
            }
            for value in matches.get_raw(&id).into_iter().flatten() {
                words.extend([flag.clone().into(), value.to_owned()]);
            }
        }
        let parsed = template().try_get_matches_from(words)?;
        ConnectionArgs::from_arg_matches(&parsed).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        local: ConnectionArgs,
        #[command(flatten)]
        remote: RemoteArgs,
    }

    #[test]
    fn each_flag_has_its_twin() {
        let line = "x --context rome --remote-kubeconfig /tmp/b --remote-context=milan --remote-as-group g --remote-as-group h \
            --remote-insecure-skip-tls-verify --remote-request-timeout 7s --remote-server https://milan:6443 --remote-namespace l";
        let Line { local, remote } = Line::try_parse_from(line.split_whitespace()).unwrap();
        let (local, other) = (format!("{local:?}"), format!("{remote:?}"));
        assert!(local.contains(r#"context: Some("rome")"#) && local.contains("kubeconfig: None"), "{local}");
        for part in [
            r#"kubeconfig: Some("/tmp/b")"#,
            r#"context: Some("milan")"#,
            r#"impersonate_groups: ["g", "h"]"#,
            "insecure_skip_tls_verify: true",
            "request_timeout: 7s",
            r#"server: Some("https://milan:6443")"#,
            r#"remote_namespace: "l""#,
        ] {
            assert!(other.contains(part), "{part}: {other}");
        }
    }

    #[test]
    fn wrong_values_are_refused_like_those_of_the_first() {
        let error = Line::try_parse_from(["x", "--remote-request-timeout", "soon"]).unwrap_err().to_string();
        assert!(error.contains("--remote-request-timeout") && error.contains("invalid duration"), "{error}");
    }
}
