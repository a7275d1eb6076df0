//! `liqoctl status`: is Liqo healthy here, and what are peers told about this cluster?
//!
//! Writes    nothing.

pub(crate) mod components;
mod frame;
mod local;
pub(crate) mod network;
mod peers;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_kube::Cluster;
use serde::Serialize;

use crate::{
    clusters::ConnectionArgs,
    completion,
    out::{Format, Mark, Out, Told},
    status::{components::Components, frame::boxed, local::Local},
};

/// Arguments of `status`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct StatusArgs {
    /// The namespace where Liqo is installed in
    #[arg(short, long, global = true, default_value = liqo_api::names::LIQO_NAMESPACE, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(completion::namespaces))]
    namespace: String,
    /// Print for programs
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(subcommand)]
    of: Option<Of>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Of {
    /// Show the status of peered clusters
    ///
    /// All of them, or those whose ForeignCluster is named.
    ///
    /// Examples:
    ///   liqoctl status peer
    ///   liqoctl status peer milan --verbose
    #[command(visible_alias = "peers", verbatim_doc_comment)]
    Peer {
        /// Names of ForeignClusters
        #[arg(value_name = "FOREIGN CLUSTER", add = clap_complete::ArgValueCompleter::new(completion::foreign_clusters))]
        names: Vec<String>,
    },
}

/// What is known after the checks; a check that was not made has no result.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    healthy: bool,
    namespace: NamespaceReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Components>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<Local>,
}

#[derive(Serialize)]
struct NamespaceReport {
    name: String,
    exists: bool,
}

/// `liqoctl status …`
pub(crate) async fn run(args: StatusArgs, connection: &ConnectionArgs, verbose: bool) -> anyhow::Result<()> {
    let StatusArgs { namespace, output, of } = args;
    let out = Out::new(output.is_some());
    let connection = connection.open().await?;
    let cluster = &connection.cluster;
    if let Some(Of::Peer { names }) = of {
        return peers::run(cluster, &namespace, &names, verbose, output, out).await;
    }
    let missing = missing(cluster, &namespace).await?;
    let report = NamespaceReport { name: namespace.clone(), exists: missing.is_none() };
    let mut report = Report { healthy: missing.is_none(), namespace: report, components: None, local: None };
    show(output, out, "Namespace existence check", &namespace_text(&namespace, missing.as_deref()));
    if report.healthy {
        let components = components::observe(cluster, &namespace).await?;
        report.healthy = components.is_healthy();
        show(output, out, "Control plane check", &components.text(verbose));
        report.components = Some(components);
    }
    if report.healthy {
        let local = local::observe(cluster, &namespace, &connection.api_server).await?;
        show(output, out, "Local cluster information", &local.text());
        report.local = Some(local);
    }
    if let Some(format) = output {
        out.value(&report, format)?;
    }
    if report.healthy { Ok(()) } else { Err(Told.into()) }
}

fn show(output: Option<Format>, out: Out, title: &str, content: &str) {
    if output.is_none() {
        out.plain(boxed(title, content));
    }
}

/// Why the namespace of Liqo cannot be used.
async fn missing(cluster: &Cluster, name: &str) -> anyhow::Result<Option<String>> {
    let found: Option<Namespace> = cluster.get("", name).await.context("looking for Liqo")?;
    Ok(match found {
        None => Some(format!("namespaces {name:?} not found")),
        Some(found) if found.metadata.deletion_timestamp.is_some() => {
            Some(format!("namespace {:?} is being deleted", found.name_any()))
        }
        Some(_) => None,
    })
}

fn namespace_text(name: &str, missing: Option<&str>) -> String {
    match missing {
        None => format!("{} ✔ liqo control plane namespace {name} exists", Mark::Done.prefix()),
        Some(why) => format!("{} ✖ liqo control plane namespace {name} is not OK\nReason: {why}", Mark::Error.prefix()),
    }
}
