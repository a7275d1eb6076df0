//! The objects of a tenant in this cluster, listed before the tenant is evicted.

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Secret},
    rbac::v1::RoleBinding,
};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{
    discovery::ForeignCluster,
    meta::{annotation, label},
    names,
};
use liqo_core::{decision, naming};
use liqo_kube::{Cluster, certs};

use crate::peer::identity;

/// What a tenant has in this cluster at one time.
#[derive(Default)]
pub(super) struct Belongings {
    /// ID of the tenant.
    pub(super) id: String,
    /// The tenant namespace of the tenant, as the `ForeignCluster` names it.
    pub(super) tenant: Option<String>,
    /// Bindings of the tenant in its tenant namespace.
    roles: Vec<RoleBinding>,
    /// Namespaces made for the tenant.
    namespaces: Vec<Namespace>,
    /// Virtual nodes that stand for the tenant.
    nodes: Vec<Node>,
    /// Namespaces shared with the tenant.
    tenants: Vec<Namespace>,
    /// When the last certificate of the tenant ends, in Unix seconds.
    pub(super) certificate_ends: Option<i64>,
}

impl Belongings {
    /// Lists what there is.
    ///
    /// # Errors
    /// What the API server says.
    pub(super) async fn of(cluster: &Cluster, foreign: &ForeignCluster) -> anyhow::Result<Self> {
        let id = identity(foreign).cluster_id;
        let tenant = foreign.status.as_ref().and_then(|status| status.tenant_namespace.local.clone());
        let mut all = Self { id, tenant, ..Self::default() };
        let (mut namespace, mut secret) = (None, None);
        if let Some(tenant) = &all.tenant {
            all.roles = cluster.list(tenant, "").await?;
            secret = cluster.get::<Secret>(tenant, names::REMOTE_CERTIFICATE_SECRET).await?;
            namespace = cluster.get::<Namespace>("", tenant).await?;
        }
        let records = namespace.iter().map(|tenant| &tenant.metadata).chain([&foreign.metadata]);
        all.certificate_ends = last_end(records, secret.as_ref());
        all.namespaces = cluster.list("", &all.made()).await?;
        all.nodes = cluster.list("", &all.virtual_nodes()).await?;
        all.tenants = cluster.list("", &all.shared()).await?;
        let Self { id, tenant, roles, namespaces, tenants, .. } = &mut all;
        roles.retain(|one| is_bound(one, id));
        namespaces.retain(is_made_for_map);
        tenants.retain(|one| is_shared(one, tenant.as_deref(), id));
        Ok(all)
    }

    /// The selector of namespaces made for the tenant.
    pub(super) fn made(&self) -> String {
        format!("{}={}", label::REMOTE_CLUSTER_ID, self.id)
    }

    /// The selector of virtual nodes that stand for the tenant.
    pub(super) fn virtual_nodes(&self) -> String {
        format!("{},{}={}", self.made(), label::TYPE, label::VIRTUAL_NODE)
    }

    /// The selector of namespaces that say they are shared with the tenant.
    pub(super) fn shared(&self) -> String {
        format!("{},{}={}", label::TENANT_NAMESPACE, label::CLUSTER_ID, self.id)
    }

    /// One line for each object.
    pub(super) fn lines(&self) -> Vec<String> {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        let roles = self.roles.iter().map(|one| format!("role {} in the namespace {tenant}", one.role_ref.name));
        let namespaces = self.namespaces.iter().map(|one| format!("namespace {} with all its pods", one.name_any()));
        let nodes = self.nodes.iter().map(|one| format!("virtual node {}", one.name_any()));
        let tenants = self
            .tenants
            .iter()
            .map(|one| format!("tenant namespace {} with requests, offers and the tunnel", one.name_any()));
        roles.chain(namespaces).chain(nodes).chain(tenants).collect()
    }
}

/// When the last certificate of a tenant ends (Unix seconds): as the tenant namespace or the `ForeignCluster` records the end, or,
/// for a certificate of a version that recorded none, as the Secret of the tenant shows the certificate.
pub(super) fn last_end<'a>(records: impl Iterator<Item = &'a ObjectMeta>, secret: Option<&Secret>) -> Option<i64> {
    let shown = secret.and_then(|secret| certs::facts(&secret.data.as_ref()?.get("certificate")?.0).ok());
    records.filter_map(decision::certificates_end).chain(shown.map(|facts| facts.not_after.as_second())).max()
}

/// Whether a binding gives rights to a tenant.
pub(super) fn is_bound(binding: &RoleBinding, id: &str) -> bool {
    binding.subjects.iter().flatten().any(|subject| subject.kind == "User" && subject.name == id)
}

/// Whether a namespace is the one that is shared with a tenant, and does not only claim so.
pub(super) fn is_shared(namespace: &Namespace, known: Option<&str>, id: &str) -> bool {
    naming::tenant_of(namespace, known) == Some(id)
}

/// Whether a namespace was made for a `NamespaceMap`. A namespace that only has the label of a peer is somebody else's, and
/// stays.
pub(super) fn is_made_for_map(namespace: &Namespace) -> bool {
    namespace.annotations().contains_key(annotation::MANAGED_BY_NAMESPACE_MAP)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_certificate_that_ends_last_counts() {
        certs::install_crypto();
        let life = std::time::Duration::from_secs(600);
        let pem = certs::self_signed(&certs::Subject::new("rome-id", "liqo.io"), &[], life).unwrap().certificate;
        let ends = certs::facts(pem.as_bytes()).unwrap().not_after.as_second();
        let data = [("certificate".to_owned(), ByteString(pem.into_bytes()))];
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        let meta = |ends: i64| ObjectMeta {
            annotations: Some([(annotation::CERTIFICATE_EXPIRE_TIME.to_owned(), ends.to_string())].into()),
            ..ObjectMeta::default()
        };
        let [earlier, later] = [meta(ends - 1), meta(ends + 1)];
        for (records, secret, wanted) in [
            (vec![], None, None),
            (vec![], Some(&secret), Some(ends)),
            (vec![&earlier], Some(&secret), Some(ends)),
            (vec![&earlier, &later], Some(&secret), Some(ends + 1)),
            (vec![&later, &earlier], None, Some(ends + 1)),
        ] {
            assert_eq!(last_end(records.into_iter(), secret), wanted);
        }
    }

    #[test]
    fn every_object_has_a_line_and_others_have_none() {
        let object = |name: &str, annotations: serde_json::Value| -> Namespace {
            serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap()
        };
        let role: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "b", "namespace": "liqo-tenant-rome"}, "roleRef": {"kind": "ClusterRole", "name": "liqo-remote"},
            "subjects": [{"kind": "User", "name": "rome-id"}],
        }))
        .unwrap();
        assert!(is_bound(&role, "rome-id") && !is_bound(&role, "milan-id"));
        let made = object("demo-rome", json!({"liqo.io/managed-by-namespace-map": "a/b"}));
        assert!(is_made_for_map(&made) && !is_made_for_map(&object("labelled-by-somebody", json!({}))));
        let all = Belongings {
            id: "rome-id".to_owned(),
            tenant: Some("liqo-tenant-rome".to_owned()),
            roles: vec![role],
            namespaces: vec![made],
            nodes: vec![serde_json::from_value(json!({"metadata": {"name": "liqo-rome"}})).unwrap()],
            tenants: vec![object("liqo-tenant-rome", json!({}))],
            certificate_ends: None,
        };
        assert_eq!(
            all.lines(),
            [
                "role liqo-remote in the namespace liqo-tenant-rome",
                "namespace demo-rome with all its pods",
                "virtual node liqo-rome",
                "tenant namespace liqo-tenant-rome with requests, offers and the tunnel",
            ]
        );
    }
}
