//! `liqoctl unoffload namespace`: takes a namespace back from the other clusters.
//!
//! Removes   `NamespaceOffloading` `offloading` in that namespace, and waits until it is gone.

use std::time::Duration;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{names, offloading::NamespaceOffloading};

use crate::{
    clusters::ConnectionArgs,
    completion, flag,
    out::Out,
    wait::{Deadline, Watched},
};

/// Arguments of `unoffload`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct UnoffloadArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Take a namespace back from remote clusters
    ///
    /// The remote twins of the namespace are deleted with everything in them, also their volumes. Pods that ran
    /// there are created again where they may run.
    ///
    /// Example:
    ///   liqoctl unoffload namespace demo
    #[command(visible_alias = "ns", verbatim_doc_comment)]
    Namespace(NamespaceArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct NamespaceArgs {
    /// Name of the namespace
    #[arg(add = clap_complete::ArgValueCompleter::new(completion::offloaded_namespaces))]
    name: String,
    /// The timeout for completion
    #[arg(long, default_value = "120s", value_parser = flag::duration, value_name = "DURATION")]
    timeout: Duration,
}

/// `liqoctl unoffload …`
pub(crate) async fn run(args: UnoffloadArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let What::Namespace(NamespaceArgs { name, timeout }) = args.what;
    let (out, deadline) = (Out::new(false), Deadline::after(timeout));
    let step = out.step(format!("Disabling namespace offloading for {name:?}"));
    let cluster = connection.open().await?.cluster;
    let found: Option<NamespaceOffloading> =
        cluster.get(&name, names::NAMESPACE_OFFLOADING).await.context("Failed disabling namespace offloading")?;
    let Some(found) = found else {
        let namespace = cluster.get::<Namespace>("", &name).await.context("Failed disabling namespace offloading")?;
        namespace.ok_or_else(|| anyhow!("Failed disabling namespace offloading: there is no namespace {name:?}"))?;
        step.done(format!("Namespace {name:?} is not offloaded"));
        return Ok(());
    };
    cluster.remove(&found).await.context("Failed disabling namespace offloading")?;
    step.done(format!("Offloading of namespace {name:?} correctly disabled"));
    let step = out.step("Waiting for unoffloading to complete");
    let watched = Watched::<NamespaceOffloading>::one(&cluster, &name, names::NAMESPACE_OFFLOADING);
    if let Err(error) = watched.gone(deadline).await {
        let stand = watched.now().first().map(|one| stand(one)).unwrap_or_default();
        return Err(anyhow!("Failed waiting for unoffloading to complete: {error}{stand}"));
    }
    step.done("Unoffloading completed successfully");
    Ok(())
}

/// Which remote namespaces are still there.
fn stand(offloading: &NamespaceOffloading) -> String {
    let left = offloading.status.as_ref().map(|status| &status.remote_namespaces_conditions);
    let left: Vec<_> = left.into_iter().flatten().map(|(peer, _)| peer.as_str()).collect();
    match (left.is_empty(), offloading.finalizers()) {
        (false, _) => format!(": the remote namespace still exists in {}", left.join(", ")),
        (true, []) => String::new(),
        (true, held) => format!(": held by {}", held.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let one = |status: serde_json::Value| -> NamespaceOffloading {
            serde_json::from_value(json!({"apiVersion": "offloading.liqo.io/v1alpha1", "kind": "NamespaceOffloading",
                "metadata": {"finalizers": ["x/y"]}, "spec": {}, "status": status}))
            .unwrap()
        };
        assert_eq!(stand(&one(json!({}))), ": held by x/y");
        let conditions = json!({"remoteNamespacesConditions": {"milan-ca6261": []}});
        assert_eq!(stand(&one(conditions)), ": the remote namespace still exists in milan-ca6261");
    }
}
