//! What the cluster we talk to says of itself: who it is, its token, where its peers find it.

use anyhow::{Context, anyhow, bail};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace, Node, Secret, Service},
};
use liqo_api::{ClusterIdentity, names};
use liqo_core::endpoint;
use liqo_kube::Cluster;

/// Who this cluster is.
pub(crate) async fn identity(cluster: &Cluster, namespace: &str) -> anyhow::Result<ClusterIdentity> {
    let map: Option<ConfigMap> = cluster.get(namespace, names::CLUSTER_ID_CONFIG_MAP).await?;
    let Some(map) = map else { bail!(not_installed(cluster, namespace).await) };
    let get = |key: &str| map.data.as_ref().and_then(|data| data.get(key)).cloned().unwrap_or_default();
    let identity = ClusterIdentity::new(get("CLUSTER_ID"), get("CLUSTER_NAME"));
    if identity.cluster_id.is_empty() {
        bail!("this cluster has no ID yet: Liqo is still starting, see `liqoctl status`");
    }
    Ok(identity)
}

async fn not_installed(cluster: &Cluster, namespace: &str) -> String {
    let hint = "install it with `liqoctl install`, or name its namespace with --namespace";
    match cluster.get::<Namespace>("", namespace).await {
        Ok(None) => format!("Liqo is not installed: there is no namespace {namespace:?}; {hint}"),
        _ => format!("Liqo is not installed in namespace {namespace:?}; {hint}"),
    }
}

/// The token that lets any cluster peer with this one.
pub(crate) async fn token(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let secret: Option<Secret> = cluster.get(namespace, names::AUTH_TOKEN_SECRET).await?;
    let token = secret.as_ref().and_then(token_of);
    token.with_context(|| {
        format!("there is no token in secret {namespace}/{} yet: is liqo-auth running?", names::AUTH_TOKEN_SECRET)
    })
}

/// The token in a secret.
pub(crate) fn token_of(secret: &Secret) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(names::TOKEN_KEY)?;
    String::from_utf8(bytes.clone()).ok().filter(|token| !token.is_empty())
}

/// Where peers find the authentication service of this cluster.
pub(crate) async fn auth_url(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let service: Option<Service> = cluster.get(namespace, names::AUTH_SERVICE).await?;
    let service = service.ok_or_else(|| anyhow!("service {namespace}/{} does not exist", names::AUTH_SERVICE))?;
    let nodes: Vec<Node> = cluster.list("", "").await?;
    endpoint::auth_url(&service, &nodes).map_err(|why| anyhow!(why))
}
