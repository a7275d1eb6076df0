//! What a virtual kubelet may do with the node that it stands for, by name, and with the lease of that node.
//!
//! The right to change a node is also what admission asks for before it lets a virtual kubelet make a node or a lease, or
//! write a pod (`door/nodes.rs` of `liqo-core`): a pod is its own when its node is.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::core::ObjectMeta;
use liqo_api::{ClusterIdentity, meta::label, names};
use liqo_core::naming;
use liqo_kube::KubeError;

use super::{MANAGER, account, binding_name, drop_one, keep, meta, owned, role};
use crate::home::Home;

/// Gives the virtual kubelet in a tenant namespace its node, and takes away what the version before gave: every node.
pub(super) async fn grant(home: &Home, tenant: &str, peer: &ClusterIdentity, node: &str) -> Result<(), KubeError> {
    let [own, common] = bindings(tenant, peer);
    let own = async {
        // Kubernetes binds no role that is not there.
        keep(home, "", node_role(peer, node)).await?;
        keep(home, "", own).await
    };
    let before = binding_name(peer);
    // A failure of one write does not stop the others.
    let (own, common, gone) =
        tokio::join!(own, keep(home, "", common), drop_one::<ClusterRoleBinding>(home, "", &before));
    own.and(common).and(gone).map(drop)
}

/// Takes all of it back; `true` when it is gone.
pub(super) async fn withdraw(home: &Home, peer: &ClusterIdentity) -> Result<bool, KubeError> {
    let mut is_gone = drop_one::<ClusterRoleBinding>(home, "", &binding_name(peer)).await?;
    for name in [role_name(peer), common_name(peer)] {
        is_gone &= drop_one::<ClusterRoleBinding>(home, "", &name).await?;
    }
    Ok(drop_one::<ClusterRole>(home, "", &role_name(peer)).await? && is_gone)
}

/// Name of the role for the node, and of its binding.
fn role_name(peer: &ClusterIdentity) -> String {
    format!("{}{}", names::VIRTUAL_NODE_ROLE_PREFIX, naming::unique_name(peer))
}

/// Name of the binding of what all virtual kubelets may do. A unique name ends in digits, so it is no peer's.
fn common_name(peer: &ClusterIdentity) -> String {
    format!("{}-common", role_name(peer))
}

fn labelled(peer: &ClusterIdentity, name: &str) -> ObjectMeta {
    let labels = [(label::APP_MANAGED_BY, MANAGER), (label::CLUSTER_ID, &peer.cluster_id)];
    ObjectMeta { labels: Some(owned(&labels)), ..meta("", name) }
}

fn node_role(peer: &ClusterIdentity, node: &str) -> ClusterRole {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.iter().map(|&one| one.to_owned()).collect()),
        resource_names: Some(vec![node.to_owned()]),
        verbs: verbs.iter().map(|&one| one.to_owned()).collect(),
        ..PolicyRule::default()
    };
    let rules = vec![
        rule("", &["nodes"], &["update", "patch", "delete"]),
        rule("", &["nodes/status"], &["get", "update", "patch"]),
        rule("coordination.k8s.io", &["leases"], &["get", "update", "patch", "delete"]),
    ];
    ClusterRole { metadata: labelled(peer, &role_name(peer)), rules: Some(rules), ..ClusterRole::default() }
}

fn bindings(tenant: &str, peer: &ClusterIdentity) -> [ClusterRoleBinding; 2] {
    let roles =
        [(role_name(peer), role_name(peer)), (common_name(peer), names::VIRTUAL_KUBELET_CLUSTER_ROLE.to_owned())];
    roles.map(|(name, of)| ClusterRoleBinding {
        metadata: labelled(peer, &name),
        role_ref: role(&of),
        subjects: Some(vec![account(tenant)]),
    })
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    const TENANT: &str = "liqo-tenant-provider-ca6261";

    #[test]
    fn a_virtual_kubelet_may_change_its_own_node_and_no_other() {
        let peer = ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "provider");
        let role = node_role(&peer, "liqo-provider");
        assert_eq!(role.name_any(), "liqo-virtual-node-provider-ca6261");
        for rule in role.rules.iter().flatten() {
            assert_eq!(rule.resource_names, Some(vec!["liqo-provider".to_owned()]), "{rule:?}");
        }
        let [node, common] = bindings(TENANT, &peer);
        assert_eq!((node.name_any(), node.role_ref.name), (role.name_any(), role.name_any()));
        assert_eq!(common.role_ref.name, "liqo-virtual-kubelet-cluster");
        let account = json!([{"kind": "ServiceAccount", "name": "virtual-kubelet", "namespace": TENANT}]);
        for binding in [node.subjects, common.subjects] {
            assert_eq!(json!(binding), account);
        }
    }
}
