//! Where the chart comes from: this program, a directory, or a commit of a repository.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::{
    helm::Helm,
    install::{CommonArgs, chart},
    out::Out,
};

/// Where never released versions are, unless said otherwise.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
/// Where the chart is in the repository.
const CHART: &str = "deploy/chart";

/// The directory of the chart to install.
pub(crate) async fn chart(args: &CommonArgs, helm: &Helm, out: Out) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.local_chart_path {
        if !path.join("Chart.yaml").is_file() {
            bail!("{} is not the directory of a chart", path.display());
        }
        return Ok(path.clone());
    }
    if args.version.is_empty() || is_release(&args.version) {
        return chart::unpack(helm.directory()).await;
    }
    let repository = args.repo_url.as_deref().unwrap_or(REPOSITORY);
    out.info(format!("Non-released version selected. Downloading repository from {repository:?}..."));
    let copy = helm.directory().join("repository");
    git(&["clone", "--quiet", repository, &copy.display().to_string()]).await.context("cloning the repository")?;
    let there = copy.display().to_string();
    if git(&["-C", &there, "checkout", "--quiet", "--detach", &args.version]).await.is_err() {
        bail!("commit not found. Did you select the correct repository?");
    }
    Ok(copy.join(CHART))
}

async fn git(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("git")
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("running git")?;
    match output.status.success() {
        true => Ok(()),
        false => bail!("{}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// Whether this is a semantic version, with or without `v`.
pub(crate) fn is_release(version: &str) -> bool {
    let version = version.strip_prefix('v').unwrap_or(version);
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_a_semantic_version() {
        assert!(is_release("v0.8.3") && is_release("1.0.0-rc.1") && is_release("1.2.3+4"));
        assert!(!is_release("dev") && !is_release("0123abcd") && !is_release("v1.2") && !is_release(""));
    }
}
