//! `liqoctl install`: learns how the cluster is made, forges the values, lets Helm do it.
//!
//! Writes    the custom resource definitions (Helm does not upgrade them) and the Helm release `liqo`.
//! Keeps true: nothing is written before the parameters have been found to fit the cluster.

mod blockers;
mod chart;
mod name;
mod parameters;
mod provider;
mod release;
mod set;
mod source;
mod validate;
mod values;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use liqo_api::discovery::{ForeignCluster, ForeignClusterSpec};
use liqo_kube::Cluster;

use crate::{
    clusters::ConnectionArgs,
    flag::{self, Cidr},
    helm::{Helm, HelmArgs, RELEASE},
    install::{blockers::Blockers, provider::Provider, values::Layers},
    out::{Out, Told},
    wait::{Deadline, Watched},
};

/// Install or upgrade Liqo in a cluster
///
/// How the cluster is made is learnt from it when its kind is named; otherwise the ranges of its pods and
/// services must be given. Helm does the installing, with the chart that is part of this program, so that it
/// needs no network. What Helm is told can be changed with --set and looked at with --only-output-values.
///
/// Examples:
///   liqoctl install kubeadm --cluster-name rome
///   liqoctl install kind --cluster-name rome --set controllerManager.config.resourceSharingPercentage=50
///   liqoctl install --cluster-name rome --pod-cidr 10.200.0.0/16 --service-cidr 10.100.0.0/16
#[derive(Clone, Debug, clap::Args)]
#[command(
    visible_alias = "upgrade",
    verbatim_doc_comment,
    subcommand_negates_reqs = true,
    subcommand_value_name = "PROVIDER"
)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    generic: provider::GenericArgs,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    helm: HelmArgs,
    #[command(subcommand)]
    provider: Option<provider::Named>,
}

/// What can be said for every kind of cluster.
#[derive(Clone, Debug, clap::Args)]
struct CommonArgs {
    /// The version of Liqo to be installed: a release, or a commit of --repo-url. The one of this program by default
    #[arg(long, global = true, default_value = "", hide_default_value = true)]
    version: String,
    /// The repository from which to get versions that were never released
    #[arg(long, global = true, value_name = "URL")]
    repo_url: Option<String>,
    /// The directory of a chart to use instead of the one in this program
    #[arg(long, global = true, value_name = "DIRECTORY")]
    local_chart_path: Option<PathBuf>,
    /// Only write the values of a first installation to a file (see --dump-values-path), install nothing
    #[arg(long, global = true)]
    only_output_values: bool,
    /// Where to write the values with --only-output-values
    #[arg(long, global = true, default_value = "./values.yaml", value_name = "FILE")]
    dump_values_path: PathBuf,
    /// Simulate the installation
    #[arg(long, global = true)]
    dry_run: bool,
    /// The timeout for completion
    #[arg(long, global = true, default_value = "10m", value_parser = flag::duration, value_name = "DURATION")]
    timeout: Duration,
    /// The name of this cluster, a DNS label. Kept from the previous installation, or generated, when not given
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_name = "NAME")]
    cluster_name: String,
    /// Labels for the virtual nodes that stand for this cluster, key=value separated by commas
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_parser = flag::pairs, value_name = "LABELS")]
    cluster_labels: BTreeMap<String, String>,
    /// The maximum percentage of available resources to be shared with remote clusters; 90 in a first installation
    #[arg(long, global = true, value_parser = flag::percentage, value_name = "PERCENTAGE")]
    sharing_percentage: Option<u8>,
    /// Run two replicas of what would stop the others
    #[arg(long, global = true)]
    enable_ha: bool,
    /// Ranges of addresses that are in use elsewhere, separated by commas
    #[arg(long, global = true, value_delimiter = ',', value_parser = flag::cidr, value_name = "CIDRS")]
    reserved_subnets: Vec<Cidr>,
    /// Set a value of the chart as `helm --set` does (key1=val1,key2=val2); may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Forget the values of the release that is there, so that flags, --set and the defaults of the chart say all
    #[arg(long, global = true)]
    reset_values: bool,
    /// Do not compare the API server's address with the one of the kubeconfig
    #[arg(long, global = true)]
    disable_api_server_sanity_check: bool,
    /// Skip the checks of the cluster's name and of the ranges of pods and services
    #[arg(long, global = true)]
    skip_validation: bool,
    /// Enable metrics and the monitors that collect them
    #[arg(long, global = true)]
    enable_metrics: bool,
    /// Disable the anonymous report of usage; in this version there is none
    #[arg(long, global = true)]
    disable_telemetry: bool,
    /// The type of the Services that peers connect to: ClusterIP, NodePort or LoadBalancer
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_parser = service_type, value_name = "TYPE")]
    service_type: String,
    #[command(flatten)]
    liqo: GlobalNamespaceArgs,
}

/// The namespace flag, valid after the provider's name, too.
#[derive(Clone, Debug, clap::Args)]
struct GlobalNamespaceArgs {
    /// The namespace where Liqo is installed in
    #[arg(short, long, global = true, default_value = liqo_api::names::LIQO_NAMESPACE, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(crate::completion::namespaces))]
    namespace: String,
}

fn service_type(text: &str) -> Result<String, String> {
    match text {
        "" | "ClusterIP" | "NodePort" | "LoadBalancer" => Ok(text.to_owned()),
        _ => Err(format!("{text} is not included in ClusterIP,NodePort,LoadBalancer")),
    }
}

/// `liqoctl install …`
pub(crate) async fn run(args: InstallArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let InstallArgs { generic, common, helm, provider } = args;
    let provider = Provider::new(provider, generic)?;
    let out = Out::new(false);

    let step = out.step("Initializing installer");
    check_flags(&common).context("Error initializing installer")?;
    let connection = connection.open().await.context("Error initializing installer")?;
    let helm = match common.only_output_values {
        true => None,
        false => Some(Helm::find(&helm, connection.kubeconfig.as_ref()).await.context("Error initializing installer")?),
    };
    step.done("Installer initialized");

    let step = out.step("Retrieving cluster configuration");
    let facts =
        provider.observe(&connection.cluster).await.context("Error retrieving provider specific configuration")?;
    let parameters = parameters::gather(&common, &provider, facts, &connection, out);
    let parameters = parameters.await.context("Error retrieving configuration")?;
    step.done("Cluster configuration correctly retrieved");

    let step = out.step("Generating installation parameters");
    let earlier = match &helm {
        Some(helm) => earlier(helm, &common).await.context("Error generating installation parameters")?,
        None => None,
    };
    let given = values::given(&common, provider.ranges_are_typed(), &parameters);
    let forged = values::forge(&parameters, Layers { earlier, given, sets: &common.set })
        .map_err(|why| anyhow!("Error generating installation parameters: {why}"))?;
    step.done("Installation parameters correctly generated");
    if !forged.kept.is_empty() {
        out.info(format!("Kept from the existing release (--reset-values forgets them): {}", forged.kept.join(", ")));
    }

    let text = serde_saphyr::to_string(&forged.values).context("Error generating installation parameters")?;
    match helm {
        None => {
            let path = &common.dump_values_path;
            tokio::fs::write(path, &text).await.with_context(|| format!("writing {}", path.display()))?;
            out.done(format!("All Set! Chart values written to \"{}\"", path.display()));
            Ok(())
        }
        Some(helm) => install(&common, &helm, &connection.cluster, &text, out).await,
    }
}

/// The values of the release that is there, as far as they are kept.
async fn earlier(helm: &Helm, args: &CommonArgs) -> anyhow::Result<Option<serde_json::Value>> {
    let found = release::read(helm, &args.liqo.namespace).await?;
    Ok(found.filter(|_| !args.reset_values).map(|found| release::kept(found, &chart::version())))
}

/// What the webhooks are asked about, to see that they answer; it is never created.
const PROBE: &str = "liqoctl-install-probe";

fn check_flags(args: &CommonArgs) -> anyhow::Result<()> {
    let (repository, chart) = (args.repo_url.is_some(), args.local_chart_path.is_some());
    if repository && chart {
        bail!("Cannot specify both --repo-url and --local-chart-path at the same time");
    }
    for (given, flag) in [(chart, "--local-chart-path"), (repository, "--repo-url")] {
        if given && args.version.is_empty() {
            bail!("A version must be explicitly specified if the {flag} flag is set");
        }
    }
    Ok(())
}

async fn install(args: &CommonArgs, helm: &Helm, cluster: &Cluster, values: &str, out: Out) -> anyhow::Result<()> {
    let step = out.step("Installing or upgrading Liqo... (this may take few minutes)");
    let deadline = Deadline::after(args.timeout);
    let result = async {
        let chart = source::chart(args, helm, out).await?;
        let values = helm.keep("values.yaml", values.as_bytes()).await?;
        if !args.dry_run {
            apply_crds(cluster, deadline).await?;
        }
        helm.run(&words(args, chart, values), || step.say("Operation canceled: rolling back...")).await
    };
    let blockers = Blockers::watch(cluster, &args.liqo.namespace);
    if let Err(error) = blockers.remember_during(result).await {
        drop(step);
        let hints = error.to_string().contains("timed out");
        Out::error(&error.context("Error installing or upgrading Liqo"));
        if hints {
            hint(out);
            blockers.told().iter().for_each(|line| out.info(line));
        }
        return Err(Told.into());
    }
    if args.dry_run {
        step.done("Installation completed (dry-run)");
        return Ok(());
    }
    if let Err(error) = cluster.try_create(&ForeignCluster::new(PROBE, ForeignClusterSpec::default())).await
        && error.is_webhook_away()
    {
        out.warn(format!(
            "Installed, but the API server does not reach the webhooks of Liqo yet: {:#}",
            anyhow!(error)
        ));
    }
    step.done("All Set! You can now proceed establishing a peering (liqoctl peer --help for more information)");
    out.info("Make sure to use the same version of Liqo on all remote clusters");
    Ok(())
}

fn words(args: &CommonArgs, chart: PathBuf, values: PathBuf) -> Vec<OsString> {
    let timeout = flag::duration_text(args.timeout);
    let mut words: Vec<OsString> = ["upgrade", "--install", RELEASE].map(Into::into).into();
    words.push(chart.into());
    words.extend(
        ["--namespace", &args.liqo.namespace, "--create-namespace", "--wait", "--atomic", "--cleanup-on-fail"]
            .map(Into::into),
    );
    words.extend(["--skip-crds", "--timeout", &timeout, "--values"].map(Into::into));
    words.push(values.into());
    if args.dry_run {
        words.push("--dry-run=server".into());
    }
    words
}

/// Helm installs definitions once and never again, so they are ours.
async fn apply_crds(cluster: &Cluster, deadline: Deadline) -> anyhow::Result<()> {
    let wanted = liqo_api::crds::all();
    for crd in &wanted {
        cluster.apply(crd).await?;
    }
    let names: Vec<_> = wanted.iter().map(ResourceExt::name_any).collect();
    let watched = Watched::<CustomResourceDefinition>::labelled(cluster, "", "");
    let established = watched.until(deadline, |all| {
        names.iter().all(|name| all.iter().any(|crd| crd.name_any() == *name && is_established(crd))).then_some(())
    });
    established.await.context("waiting for the custom resource definitions to be established")
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Established" && one.status == "True")
}

fn hint(out: Out) {
    for line in [
        "Likely causes for the installation/upgrade timeout could include:",
        "* One or more pods failed to start (e.g., they are in the ImagePullBackOff status)",
        "* A service of type LoadBalancer has been configured, but no provider is available (see --service-type)",
        "You can add the --verbose flag for debug information concerning the failing resources",
        "Additionally, if necessary, you can increase the timeout value with the --timeout flag",
    ] {
        out.info(line);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: InstallArgs,
    }

    pub(super) fn common(line: &str) -> CommonArgs {
        Line::try_parse_from(format!("x kubeadm {line}").split_whitespace()).unwrap().args.common
    }

    #[test]
    fn flags_that_contradict_are_refused() {
        for (line, told) in [
            (
                "--repo-url a --local-chart-path b",
                "Cannot specify both --repo-url and --local-chart-path at the same time",
            ),
            ("--local-chart-path b", "A version must be explicitly specified if the --local-chart-path flag is set"),
            ("--repo-url b", "A version must be explicitly specified if the --repo-url flag is set"),
        ] {
            assert_eq!(check_flags(&common(line)).unwrap_err().to_string(), told);
        }
        assert!(check_flags(&common("--local-chart-path b --version v1.0.0")).is_ok());
    }

    #[test]
    fn helm_is_told_to_wait_and_to_clean_up() {
        let words = words(&common("-n there --timeout 90s"), "chart".into(), "values".into());
        let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let wanted = "upgrade --install liqo chart --namespace there --create-namespace --wait --atomic --cleanup-on-fail --skip-crds --timeout 90s --values values";
        assert_eq!(line.join(" "), wanted);
    }

    #[test]
    fn a_generic_cluster_needs_its_ranges() {
        assert!(Line::try_parse_from(["x"]).is_err());
        assert!(Line::try_parse_from(["x", "--pod-cidr", "10.0.0.0/16", "--service-cidr", "10.1.0.0/16"]).is_ok());
        assert!(Line::try_parse_from(["x", "kind"]).is_ok());
    }
}
