//! `liqoctl uninstall`: removes Liqo, once nothing depends on it.
//!
//! Removes   the Helm release and what the controllers made outside of namespaces; with --purge also all
//!           objects of Liqo's kinds, their definitions and the namespaces.

mod check;
mod purge;

use std::{ffi::OsString, time::Duration};

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::ResourceExt;
use liqo_api::{discovery::ForeignCluster, meta::label, offloading::NamespaceOffloading};
use liqo_kube::Cluster;

use crate::{
    clusters::{ConnectionArgs, NamespaceArgs},
    flag,
    helm::{Helm, HelmArgs, RELEASE},
    out::Out,
    wait::{Deadline, interruptible},
};

/// Uninstall Liqo from a cluster
///
/// Refused while clusters are peered or namespaces offloaded. With --purge nothing remains: also the custom
/// resource definitions, the namespaces of peers and the namespace of Liqo are deleted, and with them the
/// identity of this cluster.
///
/// Example:
///   liqoctl uninstall --purge
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct UninstallArgs {
    /// Whether to delete also the definitions and namespaces of Liqo
    #[arg(long)]
    purge: bool,
    /// The timeout for completion
    #[arg(long, default_value = "10m", value_parser = flag::duration, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    helm: HelmArgs,
    #[command(flatten)]
    liqo: NamespaceArgs,
}

/// `liqoctl uninstall`
pub(crate) async fn run(args: UninstallArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let UninstallArgs { purge, timeout, helm, liqo } = args;
    let (out, deadline) = (Out::new(false), Deadline::after(timeout));
    let connection = connection.open().await?;
    let cluster = &connection.cluster;

    let step = out.step("Running pre-uninstall checks");
    let helm = Helm::find(&helm, connection.kubeconfig.as_ref()).await?;
    let peers: Vec<ForeignCluster> = cluster.list("", "").await.or_else(absent)?;
    let offloadings: Vec<NamespaceOffloading> = cluster.list("", "").await.or_else(absent)?;
    check::check(&peers, &offloadings).map_err(|why| anyhow!("Error running pre-uninstall checks: {why}"))?;
    step.done("Pre-uninstall checks passed");

    let step = out.step("Uninstalling Liqo");
    uninstall(&helm, cluster, &liqo.namespace, timeout).await.context("Error uninstalling Liqo")?;
    purge::leftovers(cluster).await.context("Error uninstalling Liqo")?;
    step.done("Liqo uninstalled");
    if purge { interruptible(everything(cluster, &liqo.namespace, deadline, out)).await } else { Ok(()) }
}

/// Removes what a later installation could have used again.
async fn everything(cluster: &Cluster, namespace: &str, deadline: Deadline, out: Out) -> anyhow::Result<()> {
    let step = out.step("Purging Liqo CRDs");
    purge::kinds(cluster, deadline).await.context("Error purging CRDs")?;
    step.done("Liqo CRDs purged");

    let step = out.step("Deleting Liqo namespaces");
    purge::namespaces(cluster, namespace, deadline).await.context("Error deleting Liqo namespaces")?;
    step.done("Liqo namespaces deleted");
    Ok(())
}

/// A kind that is not defined has no objects.
pub(crate) fn absent<T>(error: liqo_kube::KubeError) -> Result<Vec<T>, liqo_kube::KubeError> {
    if error.is_not_found() { Ok(Vec::new()) } else { Err(error) }
}

async fn uninstall(helm: &Helm, cluster: &Cluster, namespace: &str, timeout: Duration) -> anyhow::Result<()> {
    let timeout = flag::duration_text(timeout);
    let words = ["uninstall", RELEASE, "--namespace", namespace, "--wait", "--timeout", &timeout];
    match helm.run(&words.map(OsString::from), || {}).await {
        Err(error) if error.to_string().contains("release: not found") => {}
        result => result?,
    }
    let roles: Vec<ClusterRole> = cluster.list("", &format!("{}=liqo", label::APP_PART_OF)).await?;
    let left: Vec<_> = roles.iter().map(ResourceExt::name_any).collect();
    if !left.is_empty() {
        bail!("cluster-wide resources are still present - did you specify the right namespace? ({})", left.join(", "));
    }
    Ok(())
}
