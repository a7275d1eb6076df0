//! `liqoctl version`: of this program, and of what is installed.

use anyhow::{Context, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use liqo_kube::Cluster;
use serde::Serialize;

use crate::{
    clusters::{ConnectionArgs, NamespaceArgs},
    out::{Format, Out},
};

/// Version of this program.
pub(crate) const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));
/// Label the chart puts on all it makes.
const APP_VERSION: &str = "app.kubernetes.io/version";

/// Arguments of `version`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Print only the version of this program
    #[arg(long)]
    client: bool,
    /// Print for programs
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    liqo: NamespaceArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: Option<String>,
}

/// `liqoctl version`
pub(crate) async fn run(args: VersionArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let VersionArgs { client, output, liqo } = args;
    let out = Out::new(true);
    if output.is_none() {
        out.data(&format!("Client version: {CLIENT}"))?;
    }
    let server_version = match client {
        true => None,
        false => {
            let failed = || format!("Failed to retrieve release information from namespace {:?}", liqo.namespace);
            Some(server(connection, &liqo.namespace).await.with_context(failed)?)
        }
    };
    match (output, server_version) {
        (Some(format), server_version) => out.value(&Versions { client_version: CLIENT, server_version }, format),
        (None, Some(version)) => out.data(&format!("Server version: {version}")),
        (None, None) => Ok(()),
    }
}

async fn server(connection: &ConnectionArgs, namespace: &str) -> anyhow::Result<String> {
    let cluster: Cluster = connection.open().await?.cluster;
    let manager: Option<Deployment> = cluster.get(namespace, "liqo-controller-manager").await?;
    let manager = manager.ok_or_else(|| anyhow!("Liqo is not installed there"))?;
    Ok(version_of(&manager).unwrap_or_else(|| "unknown".to_owned()))
}

/// The tag of the image that runs; the version of the chart when it has none.
fn version_of(manager: &Deployment) -> Option<String> {
    let image = manager.spec.template.spec.as_ref()?.containers.first()?.image.as_deref()?;
    let name = image.rsplit('/').next().unwrap_or_default();
    let tag = name.split('@').next()?.split_once(':').map(|(_, tag)| tag.to_owned());
    tag.or_else(|| manager.metadata.labels.as_ref()?.get(APP_VERSION).cloned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_version_is_that_of_the_image() {
        let manager = |image: &str| -> Deployment {
            serde_json::from_value(json!({"metadata": {"labels": {APP_VERSION: "v0.1.0"}}, "spec": {"selector": {},
                "template": {"spec": {"containers": [{"name": "x", "image": image}]}}}}))
            .unwrap()
        };
        assert_eq!(version_of(&manager("localhost:5000/liqo:v2")).as_deref(), Some("v2"));
        assert_eq!(version_of(&manager("localhost:5000/liqo@sha256:00")).as_deref(), Some("v0.1.0"));
    }
}
