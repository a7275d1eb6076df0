//! This cluster: its API server, its identity, where Liqo lives in it, where peers are not.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use liqo_api::{ClusterIdentity, names};
use liqo_core::naming::dns_label_error;
use liqo_kube::{
    Cluster, KubeError,
    args::{ReachArgs, RuntimeArgs},
    life,
    reach::{Own, Reach},
};
use serde_json::json;

/// What every role is told about its own cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct HomeArgs {
    /// ID of this cluster; when left out it is read from the ConfigMap liqo-clusterid-configmap, and made
    /// there if nobody has made it yet.
    #[arg(long, default_value = "")]
    pub cluster_id: String,
    /// Name of this cluster, a DNS label.
    #[arg(long)]
    pub cluster_name: String,
    /// Namespace Liqo is installed in.
    #[arg(long, alias = "namespace", env = "POD_NAMESPACE", default_value = names::LIQO_NAMESPACE)]
    pub liqo_namespace: String,
    /// Where the own cluster is.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// This cluster.
#[derive(Clone)]
pub struct Home {
    /// Its API server.
    pub cluster: Cluster,
    /// Who it is.
    pub identity: ClusterIdentity,
    /// Where Liqo is installed.
    pub namespace: String,
    /// Its certificate authority, PEM, as this process was told.
    pub api_server_ca: Option<String>,
    /// Where other clusters may be.
    pub reach: Reach,
    /// The networks of this cluster, as this process was told.
    pub networks: ReachArgs,
}

impl Home {
    /// Connects to the own cluster and learns who and where it is. `reads_slices`: the process may read `EndpointSlice`s.
    ///
    /// # Errors
    /// A text for the log that says what is wrong and what is allowed.
    pub async fn open(
        runtime: &RuntimeArgs,
        args: &HomeArgs,
        writer: &'static str,
        reads_slices: bool,
    ) -> Result<Self, String> {
        let HomeArgs { cluster_id, cluster_name, liqo_namespace, reach } = args;
        if let Some(why) = dns_label_error(cluster_name) {
            return Err(format!("--cluster-name {cluster_name:?} {why}"));
        }
        let (client, config) = life::home_client(runtime).await?;
        let cluster = Cluster::new(client, writer);
        let cluster_id = if cluster_id.is_empty() {
            let settled = cluster_id_of(&cluster, liqo_namespace).await;
            settled.map_err(|error| format!("learning the cluster ID: {error}: {}", source(&error)))?
        } else {
            cluster_id.clone()
        };
        if let Some(why) = dns_label_error(&cluster_id) {
            return Err(format!("the cluster ID {cluster_id:?} {why}"));
        }
        let api_server_ca = config.root_cert.map(|ders| ders.iter().map(|der| pem(der)).collect());
        let identity = ClusterIdentity::new(cluster_id, cluster_name.clone());
        let own = Own::watch(&cluster, reach, reads_slices);
        own.ready().await;
        let (networks, reach) = (reach.clone(), Reach::outside(Arc::new(own)));
        Ok(Self { cluster, identity, namespace: liqo_namespace.clone(), api_server_ca, reach, networks })
    }
}

fn source(error: &KubeError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Reads the cluster ID; the first process makes the ID. The ID is never changed afterwards, whichever tool
/// applies the chart again: no tool renders that key unless the user sets it.
async fn cluster_id_of(cluster: &Cluster, namespace: &str) -> Result<String, KubeError> {
    loop {
        let found = cluster.get::<ConfigMap>(namespace, names::CLUSTER_ID_CONFIG_MAP).await?;
        let map = match found {
            Some(map) => map,
            None => {
                let body = json!({"metadata": {"labels": {"app.kubernetes.io/name": "clusterid-configmap"}}});
                cluster.apply_value::<ConfigMap>(namespace, names::CLUSTER_ID_CONFIG_MAP, body).await?
            }
        };
        if let Some(id) = map.data.as_ref().and_then(|data| data.get("CLUSTER_ID")).filter(|id| !id.is_empty()) {
            return Ok(id.clone());
        }
        let version = &map.metadata.resource_version;
        // The annotation tells the chart that the key is not Helm's, so that no rollback takes it away.
        let annotations = json!({"discovery.liqo.io/cluster-id-generated": "true"});
        let metadata = json!({"resourceVersion": version, "annotations": annotations});
        let patch = json!({"metadata": metadata, "data": {"CLUSTER_ID": new_uuid()}});
        match cluster.merge(&map, patch).await {
            Err(error) if !error.is_conflict() => return Err(error),
            // Read again, also after our own write: what is stored counts.
            _ => tokio::task::yield_now().await,
        }
    }
}

/// A random UUID (RFC 9562, version 4).
fn new_uuid() -> String {
    use ring::rand::SecureRandom;
    let mut bytes = [0_u8; 16];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        // Without randomness no key could be made either; the time at least differs between clusters.
        bytes = u128::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default().to_be_bytes();
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&bytes[part])).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_is_a_uuid_and_a_label() {
        let id = new_uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(id.chars().nth(14), Some('4'));
        assert_eq!(dns_label_error(&id), None);
        assert_ne!(id, new_uuid());
    }
}
