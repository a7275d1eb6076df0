//! Clusters as before Kubernetes 1.30: the chart, rendered for the last version without admission policies.

use anyhow::{Context, Error, Result, bail, ensure};
use liqo_test::{
    Cluster, Stage, assets,
    run::{self, command, feed},
    stage::LONG,
    wait_for,
};

/// The last version without admission policies.
const OLD: &str = "--kube-version=1.29.4";

/// Who evaluates the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The API server.
    Policy,
    /// The controller manager.
    Webhook,
}

impl By {
    /// Whether a refusal comes from there.
    pub(crate) fn refused(self, error: &Error) -> bool {
        let words = match self {
            Self::Policy => "ValidatingAdmissionPolicy",
            Self::Webhook => "denied the request: ",
        };
        format!("{error:#}").contains(words)
    }
}

/// Gives all clusters the webhooks of the older version, and takes the policies away.
pub(crate) fn without_policies(stage: &Stage) -> Result<()> {
    stage.everywhere(|cluster| {
        let hooks = webhooks(cluster)?;
        let mut apply = cluster.kubectl_command();
        feed(apply.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]), &hooks)?;
        let policies = "validatingadmissionpolicybindings,validatingadmissionpolicies";
        cluster.kubectl(&["delete", policies, "-l", "app.kubernetes.io/part-of=liqo"])?;
        wait_for("the webhooks are trusted", LONG, || {
            let all = cluster.json(&["validatingwebhookconfiguration", "liqo-webhook"])?;
            let hooks = all["webhooks"].as_array().context("webhooks")?;
            let named = |beginning: &str| {
                hooks.iter().filter(|one| one["name"].as_str().is_some_and(|name| name.starts_with(beginning))).count()
            };
            ensure!(named("peer-") > 0 && named("virtual-kubelet-") > 0, "the webhooks are not those of {OLD}");
            let strange = hooks.iter().filter(|one| one["clientConfig"]["caBundle"].is_null()).count();
            if strange == 0 { Ok(Some(())) } else { bail!("{strange} webhooks without authority") }
        })
    })
}

/// The configurations of the webhooks as this release has them where policies are missing.
fn webhooks(cluster: &Cluster) -> Result<String> {
    let helm = |args: &[&str]| {
        let mut helm = command("helm");
        helm.env("KUBECONFIG", cluster.kubeconfig()).args(args).args(["--namespace", "liqo"]);
        helm
    };
    let values = run::output(&mut helm(&["get", "values", "liqo"]))?;
    let values = values.lines().filter(|line| !line.starts_with("USER-SUPPLIED")).collect::<Vec<_>>().join("\n");
    let mut template = helm(&["template", "liqo", OLD, "--show-only=templates/webhooks.yaml", "--values=-"]);
    feed(template.arg(assets::source().join("deploy/chart")), &values)
}
