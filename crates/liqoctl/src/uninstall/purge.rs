//! Everything of Liqo that a Helm release does not hold.
//!
//! Keeps true: no controller runs any more, so finalizers of Liqo have nobody to wait for and are taken off.

use anyhow::{Context, anyhow};
use k8s_openapi::{
    api::{
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1::{Namespace, Node},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Resource, ResourceExt, core::PartialObjectMeta};
use liqo_api::{
    discovery::{ForeignCluster, ResourceRequest},
    jobs::{Job, JobTemplate, ResultStore},
    market::{PeeringRequest, ProviderProfile, Reservation, SelectionPolicy},
    meta::label,
    names,
    net::{IpamStorage, NatMapping, NetworkConfig, TunnelEndpoint},
    offloading::NamespaceOffloading,
    sharing::ResourceOffer,
    virtualkubelet::{NamespaceMap, ShadowEndpointSlice, ShadowPod},
};
use liqo_kube::{Cluster, Object};
use serde_json::json;

use crate::{
    uninstall::absent,
    wait::{Deadline, Watched},
};

/// The groups of Liqo's kinds.
const GROUPS: [&str; 7] = [
    "discovery.liqo.io",
    "jobs.liqo.io",
    "market.liqo.io",
    "net.liqo.io",
    "offloading.liqo.io",
    "sharing.liqo.io",
    "virtualkubelet.liqo.io",
];
/// Where nodes keep their leases.
const NODE_LEASES: &str = "kube-node-lease";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// What the controllers made outside of namespaces: nodes, rights of peers, signing requests.
pub(crate) async fn leftovers(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes: Vec<Node> = cluster.list("", &format!("{}={}", label::TYPE, label::VIRTUAL_NODE)).await?;
    for node in &nodes {
        free_and_remove(cluster, node).await?;
        if let Some(lease) = cluster.get::<Lease>(NODE_LEASES, &node.name_any()).await? {
            cluster.remove(&lease).await?;
        }
    }
    let is_role = |name: &str| {
        [names::TENANT_REMOTE_PREFIX, names::VIRTUAL_NODE_ROLE_PREFIX].iter().any(|one| name.starts_with(one))
    };
    let is_ours = |name: &str| name.starts_with(names::VIRTUAL_KUBELET_BINDING_PREFIX) || is_role(name);
    remove_where::<ClusterRoleBinding>(cluster, |one| is_ours(&one.name_any())).await?;
    remove_where::<ClusterRole>(cluster, |one| is_role(&one.name_any())).await?;
    let real: Vec<Node> = cluster.list("", "").await?;
    let real: Vec<_> = real.iter().map(ResourceExt::name_any).collect();
    remove_where::<CertificateSigningRequest>(cluster, |one| is_of_peer(one) || is_of_virtual_kubelet(one, &real)).await
}

fn is_of_peer(request: &CertificateSigningRequest) -> bool {
    request.labels().contains_key(label::REMOTE_TENANT_CSR)
}

/// A serving certificate asked for by a virtual kubelet, which is a service account and not a node.
fn is_of_virtual_kubelet(request: &CertificateSigningRequest, nodes: &[String]) -> bool {
    let asked_by = request.spec.username.as_deref().unwrap_or_default();
    let account = asked_by.strip_prefix("system:serviceaccount:").unwrap_or_default();
    let of_tenant = account.starts_with(names::TENANT_NAMESPACE_PREFIX) && account.ends_with(names::VIRTUAL_KUBELET);
    let of_gone_node = asked_by
        .strip_prefix("system:node:")
        .is_some_and(|node| node.starts_with(names::VIRTUAL_NODE_PREFIX) && !nodes.iter().any(|known| known == node));
    request.spec.signer_name == KUBELET_SERVING && (of_tenant || of_gone_node)
}

async fn remove_where<K: Object>(cluster: &Cluster, wanted: impl Fn(&K) -> bool) -> anyhow::Result<()> {
    for object in cluster.list::<K>("", "").await?.iter().filter(|one| wanted(one)) {
        cluster.remove(object).await?;
    }
    Ok(())
}

async fn free_and_remove<K: Object>(cluster: &Cluster, object: &K) -> anyhow::Result<()> {
    if !object.finalizers().is_empty() {
        match cluster.merge(object, json!({"metadata": {"finalizers": null}})).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(cluster.remove(object).await?)
}

/// All objects of Liqo's kinds, then the kinds themselves.
pub(crate) async fn kinds(cluster: &Cluster, deadline: Deadline) -> anyhow::Result<()> {
    empty::<NamespaceOffloading>(cluster).await?;
    empty::<ShadowPod>(cluster).await?;
    empty::<ShadowEndpointSlice>(cluster).await?;
    empty::<NamespaceMap>(cluster).await?;
    empty::<ResourceOffer>(cluster).await?;
    empty::<ResourceRequest>(cluster).await?;
    empty::<NetworkConfig>(cluster).await?;
    empty::<TunnelEndpoint>(cluster).await?;
    empty::<NatMapping>(cluster).await?;
    empty::<IpamStorage>(cluster).await?;
    empty::<ForeignCluster>(cluster).await?;
    empty::<Job>(cluster).await?;
    empty::<JobTemplate>(cluster).await?;
    empty::<ResultStore>(cluster).await?;
    empty::<PeeringRequest>(cluster).await?;
    empty::<SelectionPolicy>(cluster).await?;
    empty::<Reservation>(cluster).await?;
    empty::<ProviderProfile>(cluster).await?;
    let is_ours = |crd: &CustomResourceDefinition| GROUPS.contains(&crd.spec.group.as_str());
    remove_where::<CustomResourceDefinition>(cluster, is_ours).await?;
    let watched = Watched::<CustomResourceDefinition>::labelled(cluster, "", "");
    let gone = watched.until(deadline, |all| (!all.iter().any(|crd| is_ours(crd))).then_some(())).await;
    gone.with_context(|| {
        let now = watched.now();
        let left: Vec<_> = now.iter().filter(|crd| is_ours(crd)).map(|crd| crd.name_any()).collect();
        format!("still there: {}", left.join(", "))
    })
}

/// Removes all objects of a kind; only their metadata is read, so malformed ones go, too.
async fn empty<K>(cluster: &Cluster) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()>,
    PartialObjectMeta<K>: Object,
{
    let all: Vec<PartialObjectMeta<K>> = cluster.list("", "").await.or_else(absent)?;
    for object in &all {
        free_and_remove(cluster, object).await?;
    }
    Ok(())
}

/// The namespaces of peers, of volumes, of jobs and of Liqo itself.
pub(crate) async fn namespaces(cluster: &Cluster, liqo: &str, deadline: Deadline) -> anyhow::Result<()> {
    let is_ours = |one: &Namespace| {
        let labels = one.labels();
        one.name_any() == liqo
            || labels.contains_key(label::TENANT_NAMESPACE)
            || labels.contains_key(label::STORAGE_PROVISIONER)
            || labels.get(label::APP_PART_OF).is_some_and(|of| of == "liqo")
    };
    remove_where::<Namespace>(cluster, is_ours).await?;
    let watched = Watched::<Namespace>::labelled(cluster, "", "");
    let gone = watched.until(deadline, |all| (!all.iter().any(|one| is_ours(one))).then_some(())).await;
    gone.map_err(|error| {
        let now = watched.now();
        let left: Vec<_> = now.iter().filter(|one| is_ours(one)).map(|one| stand(one)).collect();
        anyhow!("{error}: still there: {}", left.join("; "))
    })
}

/// Why a namespace does not go, in the words of Kubernetes.
fn stand(namespace: &Namespace) -> String {
    let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
    let why = conditions.into_iter().flatten().filter(|one| one.status == "True").filter_map(|one| one.message.clone());
    let why: Vec<_> = why.filter(|message| !message.is_empty()).collect();
    format!("{} ({})", namespace.name_any(), why.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_of_peers_and_virtual_kubelets_are_ours() {
        let request = |user: &str, labels: serde_json::Value| -> CertificateSigningRequest {
            serde_json::from_value(json!({"metadata": {"labels": labels},
                "spec": {"request": "", "signerName": KUBELET_SERVING, "username": user}}))
            .unwrap()
        };
        let nodes = ["liqo-worker".to_owned()];
        assert!(is_of_peer(&request("x", json!({"discovery.liqo.io/remote-tenant-csr": "true"}))));
        for (user, ours) in [
            ("system:serviceaccount:liqo-tenant-milan-ca6261:virtual-kubelet", true),
            ("system:node:liqo-milan", true),
            ("system:node:liqo-worker", false),
            ("system:node:control-plane", false),
            ("system:serviceaccount:demo:virtual-kubelet", false),
        ] {
            assert_eq!(is_of_virtual_kubelet(&request(user, json!({})), &nodes), ours, "{user}");
        }
    }
}
