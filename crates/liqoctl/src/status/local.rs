//! What peers are told about this cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use liqo_api::ClusterIdentity;
use liqo_kube::Cluster;
use serde::Serialize;

use crate::{here, status::frame::Section};

/// This cluster, as its peers see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Local {
    #[serde(rename = "clusterID")]
    cluster_id: String,
    cluster_name: String,
    cluster_labels: BTreeMap<String, String>,
    /// Networks are connected by other means than Liqo.
    network: &'static str,
    /// URL, or why there is none.
    authentication: String,
    api_server: String,
}

/// Reads what the components were started with.
pub(crate) async fn observe(cluster: &Cluster, namespace: &str, kubeconfig: &str) -> anyhow::Result<Local> {
    let ClusterIdentity { cluster_id, cluster_name } = here::identity(cluster, namespace).await?;
    let manager: Option<Deployment> = cluster.get(namespace, "liqo-controller-manager").await?;
    let auth: Option<Deployment> = cluster.get(namespace, "liqo-auth").await?;
    let labels = manager.as_ref().and_then(|one| argument(one, "--cluster-labels")).unwrap_or_default();
    let advertised = auth.as_ref().and_then(|one| argument(one, "--advertise-api-server-address"));
    let advertised = advertised.map(|url| if url.contains("://") { url } else { format!("https://{url}") });
    Ok(Local {
        cluster_id,
        cluster_name,
        cluster_labels: crate::flag::pairs(&labels).unwrap_or_default(),
        network: "External",
        authentication: here::auth_url(cluster, namespace)
            .await
            .unwrap_or_else(|why| format!("not available: {why:#}")),
        api_server: advertised.unwrap_or_else(|| kubeconfig.trim_end_matches('/').to_owned()),
    })
}

/// The value of an argument of the first container.
fn argument(deployment: &Deployment, flag: &str) -> Option<String> {
    let container = deployment.spec.template.spec.as_ref()?.containers.first()?;
    let prefix = format!("{flag}=");
    container.args.as_ref()?.iter().find_map(|word| word.strip_prefix(&prefix)).map(str::to_owned)
}

impl Local {
    /// The text of the box.
    pub(crate) fn text(&self) -> String {
        let mut identity = Section::new("Cluster identity");
        identity.entry("Cluster ID", &self.cluster_id).entry("Cluster name", &self.cluster_name);
        if !self.cluster_labels.is_empty() {
            let mut labels = Section::new("Cluster labels");
            for (key, value) in &self.cluster_labels {
                labels.entry(key, value);
            }
            identity.section(labels);
        }
        let mut network = Section::new("Network");
        network.entry("Status", self.network);
        let mut endpoints = Section::new("Endpoints");
        endpoints.entry("Authentication", &self.authentication).entry("Kubernetes API server", &self.api_server);
        let mut all = Section::new("");
        all.section(identity).section(network).section(endpoints);
        all.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_the_documented_one() {
        let local = Local {
            cluster_id: "id".into(),
            cluster_name: "rome".into(),
            cluster_labels: [("liqo.io/provider".to_owned(), "kind".to_owned())].into(),
            network: "External",
            authentication: "https://a.b:1".into(),
            api_server: "https://a.b:6443".into(),
        };
        let wanted = "Cluster identity\n    Cluster ID:   id\n    Cluster name: rome\n    Cluster labels\n        liqo.io/provider: kind\n\
            Network\n    Status: External\nEndpoints\n    Authentication:        https://a.b:1\n    Kubernetes API server: https://a.b:6443\n";
        assert_eq!(local.text(), wanted);
    }
}
