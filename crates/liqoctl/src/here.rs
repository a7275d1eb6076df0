//! The facts about the cluster that liqoctl talks to: its ID, its token and key, and the address of its authentication service.

use anyhow::{Context, anyhow, bail};
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Namespace, Node, Secret, Service},
    },
};
use liqo_api::{ClusterIdentity, names};
use liqo_core::endpoint;
use liqo_kube::{Cluster, certs};

/// The Deployment that is told which parts of Liqo there are.
const MANAGER: &str = "liqo-controller-manager";
/// Said by an installation that leaves the network to others.
const NO_NETWORK: &str = "--disable-internal-network";

/// Whether Liqo connects the networks of this cluster and its peers.
pub(crate) async fn connects_networks(cluster: &Cluster, namespace: &str) -> anyhow::Result<bool> {
    let manager: Option<Deployment> = cluster.get(namespace, MANAGER).await?;
    Ok(manager.is_some_and(|manager| !has_no_network(&manager)))
}

fn has_no_network(manager: &Deployment) -> bool {
    words(manager).any(|word| match word.strip_prefix(NO_NETWORK) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('=').is_some_and(|value| value != "false"),
        None => false,
    })
}

/// What the containers of a Deployment are started with.
pub(crate) fn words(deployment: &Deployment) -> impl Iterator<Item = &String> {
    let containers = deployment.spec.template.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    containers.iter().flat_map(|one| one.args.iter().flatten().chain(one.command.iter().flatten()))
}

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

/// The Deployments that decide who is given an identity: today's, and that of releases before it.
const DECIDERS: [&str; 2] = ["liqo-controller-manager", "liqo-auth"];
/// Said by every release that knows tokens of one cluster.
const TOKENS: &str = "--accept-cluster-token";

/// Whether the cluster knows tokens that are good for one cluster.
pub(crate) async fn knows_one_time_tokens(cluster: &Cluster, namespace: &str) -> anyhow::Result<bool> {
    for name in DECIDERS {
        let decider: Option<Deployment> = cluster.get(namespace, name).await?;
        if decider.is_some_and(|decider| words(&decider).any(|word| word.starts_with(TOKENS))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The pin of the authentication service's key, if the service keeps its key.
pub(crate) async fn pin(cluster: &Cluster, namespace: &str) -> anyhow::Result<Option<String>> {
    let secret: Option<Secret> = cluster.get(namespace, names::AUTH_CERTIFICATE_SECRET).await?;
    let Some(pem) = secret.and_then(|secret| secret.data?.remove(names::TLS_CERTIFICATE)) else { return Ok(None) };
    let pin = certs::pin(&pem.0);
    Ok(Some(pin.with_context(|| format!("reading secret {namespace}/{}", names::AUTH_CERTIFICATE_SECRET))?))
}

/// The token that lets any cluster peer with this one.
pub(crate) async fn token(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let secret: Option<Secret> = cluster.get(namespace, names::AUTH_TOKEN_SECRET).await?;
    let token = secret.as_ref().and_then(token_of);
    token.with_context(|| {
        format!(
            "there is no token in secret {namespace}/{} yet: is liqo-controller-manager running?",
            names::AUTH_TOKEN_SECRET
        )
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_installation_without_network_is_recognised() {
        let manager = |args: Value| -> Deployment {
            let spec = json!({"containers": [{"name": "a", "args": args}]});
            serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec": spec}}})).unwrap()
        };
        for (args, without) in [
            (json!(["--x"]), false),
            (json!(["--disable-internal-network"]), true),
            (json!(["--disable-internal-network=true"]), true),
            (json!(["--disable-internal-network=false"]), false),
            (json!(["--disable-internal-networking"]), false),
        ] {
            assert_eq!(has_no_network(&manager(args.clone())), without, "{args}");
        }
    }
}
