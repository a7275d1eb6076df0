//! `liqoctl completion`: the script a shell sources, and the values it is then offered.
//!
//! Keeps true: completion never complains; what cannot be learnt quickly is not offered.

use std::{ffi::OsStr, future::Future, time::Duration};

use anyhow::anyhow;
use clap::{CommandFactory, FromArgMatches};
use clap_complete::{
    CompletionCandidate,
    env::{Bash, EnvCompleter, Fish, Powershell, Zsh},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt, config::Kubeconfig};
use liqo_api::{discovery::ForeignCluster, offloading::NamespaceOffloading};
use liqo_kube::{Cluster, Object};

use crate::{clusters::ConnectionArgs, out::Out};

/// The environment variable by which a shell asks us for candidates.
pub(crate) const VARIABLE: &str = "LIQOCTL_COMPLETE";
/// How the flags of the cluster begin, and those of the other one in commands for two.
const LOCAL: &str = "--";
const REMOTE: &str = "--remote-";
/// A person waits between two key strokes.
const LIMIT: Duration = Duration::from_secs(2);

/// Arguments of `completion`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell the script is for
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// `liqoctl completion`
pub(crate) fn run(args: &CompletionArgs, program: &str) -> anyhow::Result<()> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "liqoctl", "liqoctl", program, &mut script)?;
    Out::new(true).data(&String::from_utf8(script).map_err(|_| anyhow!("the path of this program is not UTF-8"))?)
}

pub(crate) fn namespaces(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(LOCAL, typed, |cluster| async move { all::<Namespace>(cluster, |one| Some(one.name_any())).await })
}

pub(crate) fn offloaded_namespaces(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(LOCAL, typed, |cluster| async move { all::<NamespaceOffloading>(cluster, ResourceExt::namespace).await })
}

pub(crate) fn foreign_clusters(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(LOCAL, typed, |cluster| async move { all::<ForeignCluster>(cluster, |one| Some(one.name_any())).await })
}

pub(crate) fn remote_namespaces(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(REMOTE, typed, |cluster| async move { all::<Namespace>(cluster, |one| Some(one.name_any())).await })
}

pub(crate) fn contexts(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_files(LOCAL, typed, |files| files.contexts.into_iter().map(|one| one.name).collect())
}

pub(crate) fn clusters(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_files(LOCAL, typed, |files| files.clusters.into_iter().map(|one| one.name).collect())
}

pub(crate) fn users(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_files(LOCAL, typed, |files| files.auth_infos.into_iter().map(|one| one.name).collect())
}

pub(crate) fn remote_contexts(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_files(REMOTE, typed, |files| files.contexts.into_iter().map(|one| one.name).collect())
}

pub(crate) fn remote_clusters(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_files(REMOTE, typed, |files| files.clusters.into_iter().map(|one| one.name).collect())
}

pub(crate) fn remote_users(typed: &OsStr) -> Vec<CompletionCandidate> {
    in_files(REMOTE, typed, |files| files.auth_infos.into_iter().map(|one| one.name).collect())
}

async fn all<K: Object>(cluster: Cluster, name: impl Fn(&K) -> Option<String>) -> Vec<String> {
    let all = cluster.list::<K>("", "").await.unwrap_or_default();
    all.iter().filter_map(name).collect()
}

/// Asks the cluster that the flags typed so far mean.
fn names<F: Future<Output = Vec<String>>>(
    flags: &str,
    typed: &OsStr,
    ask: impl FnOnce(Cluster) -> F,
) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let asked = async {
        let connection = typed_connection(flags).open().await.ok()?;
        Some(ask(connection.cluster).await)
    };
    let found = runtime.block_on(async { tokio::time::timeout(LIMIT, asked).await }).ok().flatten();
    candidates(typed, found.unwrap_or_default())
}

fn in_files(flags: &str, typed: &OsStr, pick: impl FnOnce(Kubeconfig) -> Vec<String>) -> Vec<CompletionCandidate> {
    let files = typed_connection(flags).read().ok().flatten();
    candidates(typed, files.map(pick).unwrap_or_default())
}

fn candidates(typed: &OsStr, mut names: Vec<String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// The connection flags on the line that is being completed; the rest of that line is not valid yet.
fn typed_connection(flags: &str) -> ConnectionArgs {
    let words: Vec<_> = std::env::args_os().collect();
    connection_in(flags, words.iter().map(|word| word.to_string_lossy().into_owned()))
}

/// `flags` is what the names of the flags begin with.
fn connection_in(flags: &str, words: impl IntoIterator<Item = String>) -> ConnectionArgs {
    let words: Vec<_> = words.into_iter().collect();
    let mut kept = vec!["liqoctl".to_owned(), "version".to_owned()];
    for (at, word) in words.iter().enumerate() {
        let Some(typed) = word.strip_prefix(flags) else { continue };
        let Some(flag) = ["kubeconfig", "context", "user", "cluster"].into_iter().find(|flag| typed.starts_with(flag))
        else {
            continue;
        };
        match (typed.strip_prefix(flag), words.get(at + 1)) {
            (Some(rest), _) if rest.starts_with('=') => kept.push(format!("--{typed}")),
            (Some(""), Some(value)) if !value.is_empty() && !value.starts_with('-') => {
                kept.extend([format!("--{typed}"), value.clone()]);
            }
            _ => {}
        }
    }
    let matches = crate::Cli::command().try_get_matches_from(kept);
    matches.ok().and_then(|matches| ConnectionArgs::from_arg_matches(&matches).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_typed_so_far_choose_the_cluster() {
        let line = "liqoctl -- liqoctl peer --kubeconfig /tmp/a --context=rome mi";
        let told = format!("{:?}", connection_in(LOCAL, line.split(' ').map(str::to_owned)));
        assert!(told.contains(r#"kubeconfig: Some("/tmp/a")"#) && told.contains(r#"context: Some("rome")"#), "{told}");
        let unfinished = format!("{:?}", connection_in(LOCAL, ["--context".to_owned(), String::new()]));
        assert!(unfinished.contains("context: None"), "{unfinished}");
        let line = "liqoctl -- liqoctl peer in-band --context rome --remote-kubeconfig /tmp/b --remote-context mi";
        let told = format!("{:?}", connection_in(REMOTE, line.split(' ').map(str::to_owned)));
        assert!(told.contains(r#"kubeconfig: Some("/tmp/b")"#) && !told.contains("rome"), "{told}");
    }
}
