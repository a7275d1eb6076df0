//! The Helm release that is there before an installation: whether Helm can go on with the release, and the values it was given.

use std::ffi::OsString;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use crate::helm::{Helm, RELEASE};

/// One revision, as `helm history` prints it.
#[derive(Clone, Debug, Deserialize)]
struct Revision {
    revision: u64,
    updated: String,
    status: String,
    /// Name and version of the chart.
    chart: String,
}

/// The release, if Helm can go on with it.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    /// Name and version of the chart that was installed last.
    pub(crate) chart: String,
    /// The values that Helm was given; those of the chart are not among them.
    pub(crate) values: Value,
}

/// Reads the release of a namespace; `None` when nothing is installed there.
///
/// # Errors
/// When Helm fails, or when an earlier Helm has left the release in the middle of an operation: the error says what to do.
pub(crate) async fn read(helm: &Helm, namespace: &str) -> anyhow::Result<Option<Release>> {
    let ask = |words: &[&str]| {
        let words = [words, &[RELEASE, "--namespace", namespace, "--output", "json"]].concat();
        let words: Vec<_> = words.into_iter().map(OsString::from).collect();
        async move { helm.ask(&words, || {}).await }
    };
    let history = match ask(&["history"]).await {
        Err(error) if error.to_string().contains("release: not found") => return Ok(None),
        history => history.context("reading the history of the release")?,
    };
    let history: Vec<Revision> = serde_json::from_slice(&history).context("reading the history of the release")?;
    if let Some(why) = stuck(&history, namespace) {
        anyhow::bail!(why);
    }
    let Some(last) = last(&history) else { return Ok(None) };
    let values = ask(&["get", "values"]).await.context("reading the values of the release")?;
    let values = serde_json::from_slice(&values).context("reading the values of the release")?;
    Ok(Some(Release { chart: last.chart.clone(), values }))
}

fn last(history: &[Revision]) -> Option<&Revision> {
    history.iter().max_by_key(|one| one.revision)
}

/// Why Helm would refuse to go on, and the command that helps. A Helm that still runs cannot be told from one that was killed,
/// so the user decides.
fn stuck(history: &[Revision], namespace: &str) -> Option<String> {
    let last = last(history).filter(|last| last.status.starts_with("pending-") || last.status == "uninstalling")?;
    let of = |status: &str| history.iter().filter(|one| one.status == status).map(|one| one.revision).max();
    let good = of("deployed").or_else(|| of("superseded")).filter(|_| last.status != "uninstalling");
    let command = match good {
        Some(good) => format!("helm rollback {RELEASE} {good} --namespace {namespace} --wait"),
        None => format!("helm uninstall {RELEASE} --namespace {namespace} --wait"),
    };
    Some(format!(
        "revision {} of the Helm release {RELEASE} is {} since {}: another helm or liqoctl is at work, or was killed. When \
         none is running any more, run `{command}`, then this command again",
        last.revision, last.status, last.updated
    ))
}

/// The values of the release that a new installation keeps. The tag of the image belongs to a version of the chart, and is not
/// kept for another one.
pub(crate) fn kept(mut release: Release, chart: &str) -> Value {
    if release.chart != chart
        && let Some(values) = release.values.as_object_mut()
    {
        values.remove("tag");
    }
    release.values
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn history(statuses: &[&str]) -> Vec<Revision> {
        let one = |(number, status)| {
            json!({"revision": number + 1, "updated": "2026-01-01T00:00:00Z", "status": status, "chart": "liqo-0.1.0",
                   "app_version": "v0.1.0", "description": "x"})
        };
        serde_json::from_value(statuses.iter().enumerate().map(one).collect()).unwrap()
    }

    #[test]
    fn a_killed_helm_is_told_with_the_command_that_helps() {
        for (statuses, command) in [
            (&[][..], None),
            (&["deployed"], None),
            (&["superseded", "failed"], None),
            (&["pending-install"], Some("helm uninstall liqo --namespace there --wait")),
            (&["failed", "pending-upgrade"], Some("helm uninstall liqo --namespace there --wait")),
            (&["superseded", "deployed", "pending-upgrade"], Some("helm rollback liqo 2 --namespace there --wait")),
            (&["deployed", "failed", "pending-rollback"], Some("helm rollback liqo 1 --namespace there --wait")),
            (&["superseded", "superseded", "pending-rollback"], Some("helm rollback liqo 2 --namespace there --wait")),
            (&["superseded", "uninstalling"], Some("helm uninstall liqo --namespace there --wait")),
        ] {
            let told = stuck(&history(statuses), "there");
            assert_eq!(told.is_some(), command.is_some(), "{statuses:?}");
            assert!(told.iter().all(|told| told.contains(command.unwrap_or_default())), "{told:?}");
        }
    }

    #[test]
    fn a_tag_is_kept_for_its_chart_only() {
        let release = |values| Release { chart: "liqo-0.1.0".to_owned(), values };
        let values = json!({"tag": "dev", "image": "localhost/liqo"});
        assert_eq!(kept(release(values.clone()), "liqo-0.1.0"), values);
        assert_eq!(kept(release(values), "liqo-0.2.0"), json!({"image": "localhost/liqo"}));
        assert_eq!(kept(release(Value::Null), "liqo-0.2.0"), Value::Null);
    }
}
