//! Clusters that were let in and have no `ForeignCluster`: they hold an identity, and have not asked for resources, or have none
//! any more.
//!
//! Removes   the tenant `Namespace` of such a cluster, in which all its rights are, and the token `Secret`s made for it.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    jiff::Timestamp,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::ForeignCluster,
    meta::{annotation, label},
    names,
};
use liqo_core::{naming, peering::id_of};
use liqo_kube::Cluster;
use serde::Serialize;

use super::belongings::last_end;
use crate::{
    out::Out,
    wait::{Deadline, Watched},
};

/// One such cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stranger {
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    pub(crate) cluster_name: String,
    pub(crate) tenant_namespace: String,
    /// RFC 3339; absent where the certificate cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_ends: Option<String>,
}

impl Stranger {
    /// Whether `name` is the name, the ID or the tenant namespace of this cluster: a user may give any of the three.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        [&self.cluster_name, &self.cluster_id, &self.tenant_namespace].into_iter().any(|known| known == name)
    }
}

/// All such clusters, by tenant namespace.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn list(cluster: &Cluster, known: &[ForeignCluster]) -> anyhow::Result<Vec<Stranger>> {
    let tenants: Vec<Namespace> = cluster.list("", &format!("{}=true", label::TENANT_NAMESPACE)).await?;
    let mut certificates = BTreeMap::new();
    for one in tenants.iter().filter(|one| id(one, known).is_some()) {
        let name = one.name_any();
        if let Some(secret) = cluster.get::<Secret>(&name, names::REMOTE_CERTIFICATE_SECRET).await? {
            certificates.insert(name, secret);
        }
    }
    Ok(strangers(&tenants, &certificates, known))
}

/// The cluster of a tenant namespace, if no `ForeignCluster` stands for it.
fn id<'a>(tenant: &'a Namespace, known: &[ForeignCluster]) -> Option<&'a str> {
    naming::tenant_of(tenant, None).filter(|id| known.iter().all(|one| id_of(one) != *id))
}

/// Pure: only whoever was given a certificate was let in.
fn strangers(
    tenants: &[Namespace],
    certificates: &BTreeMap<String, Secret>,
    known: &[ForeignCluster],
) -> Vec<Stranger> {
    let all = tenants.iter().filter_map(|tenant| {
        let (id, name) = (id(tenant, known)?, tenant.name_any());
        let ends = last_end([&tenant.metadata].into_iter(), Some(certificates.get(&name)?));
        let ends = ends.and_then(|ends| Timestamp::from_second(ends).ok()).map(|ends| ends.to_string());
        let unique = name.strip_prefix(names::TENANT_NAMESPACE_PREFIX).unwrap_or(&name);
        Some(Stranger {
            cluster_id: id.to_owned(),
            cluster_name: unique.rsplit_once('-').map_or(unique, |(name, _)| name).to_owned(),
            tenant_namespace: name.clone(),
            certificate_ends: ends,
        })
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| a.tenant_namespace.cmp(&b.tenant_namespace));
    all
}

/// The tokens made for such a cluster, or used by it.
async fn tokens(cluster: &Cluster, id: &str) -> anyhow::Result<Vec<Secret>> {
    let mut all = cluster.list::<Secret>("", label::ONE_TIME_TOKEN).await?;
    all.retain(|one| is_for(one, id));
    let own = cluster.list::<Secret>("", &format!("{}={id}", label::CLUSTER_ID)).await?;
    all.extend(own.into_iter().filter(|one| one.annotations().contains_key(annotation::TOKEN_MADE_FOR)));
    Ok(all)
}

/// One line for each object that [`end`] removes.
pub(super) async fn lines(cluster: &Cluster, stranger: &Stranger) -> anyhow::Result<Vec<String>> {
    let tokens = tokens(cluster, &stranger.cluster_id).await?;
    let tokens = tokens.iter().map(|one| format!("token {}", one.name_any()));
    Ok(tokens.chain([tenant_line(&stranger.tenant_namespace)]).collect())
}

fn tenant_line(tenant: &str) -> String {
    format!("tenant namespace {tenant} with the roles of the cluster")
}

/// Ends the identity of such a cluster and the tokens made for it.
pub(super) async fn end(cluster: &Cluster, stranger: &Stranger, deadline: Deadline, out: Out) -> anyhow::Result<()> {
    let Stranger { cluster_id: id, tenant_namespace: tenant, .. } = stranger;
    let step = out.step("Ending the identity of the tenant");
    for secret in tokens(cluster, id).await? {
        cluster.remove(&secret).await?;
        out.info(format!("Ended: token {}", secret.name_any()));
    }
    if let Some(found) = cluster.get::<Namespace>("", tenant).await? {
        cluster.remove(&found).await?;
    }
    let gone = Watched::<Namespace>::one(cluster, "", tenant).gone(deadline).await;
    gone.with_context(|| format!("the tenant namespace {tenant} is still being deleted"))?;
    out.info(format!("Ended: {}", tenant_line(tenant)));
    step.done("Nothing of the tenant is left; its certificate has no rights");
    out.info("The cluster is not banned: it has no ForeignCluster that could keep a ban, and may come back with a valid token");
    Ok(())
}

/// Whether a one-time token was made for a cluster, or used by it.
fn is_for(token: &Secret, id: &str) -> bool {
    let made_for = token.labels().get(label::CLUSTER_ID);
    let used_by = token.annotations().get(annotation::TOKEN_USED_BY);
    [made_for, used_by].into_iter().flatten().any(|known| known == id)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "09897b82-7830-483b-b786-9cf90899f809";

    fn tenant(name: &str, id: &str) -> Namespace {
        let labels = json!({"discovery.liqo.io/tenant-namespace": "true", "discovery.liqo.io/cluster-id": id});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
    }

    #[test]
    fn only_clusters_that_were_let_in_and_have_no_foreign_cluster_are_strangers() {
        let name = naming::tenant_namespace(&liqo_api::ClusterIdentity::new(ID, "far-rome"));
        let known: ForeignCluster = serde_json::from_value(json!({
            "metadata": {"name": "rome"},
            "spec": {"foreignAuthUrl": "https://a.b", "clusterIdentity": {"clusterID": ID, "clusterName": "rome"}},
        }))
        .unwrap();
        let certificates = BTreeMap::from([(name.clone(), Secret::default()), ("other".to_owned(), Secret::default())]);
        let all = [tenant(&name, ID), tenant("other", ID)];
        let found = strangers(&all, &certificates, &[]);
        let [one] = found.as_slice() else { panic!("{found:?}") };
        for called in ["far-rome", ID, &name] {
            assert!(one.is_called(called), "{called}");
        }
        assert!(!one.is_called("rome"));
        assert_eq!(one.certificate_ends, None);
        assert_eq!(strangers(&all, &certificates, &[known]), []);
        assert_eq!(strangers(&all, &BTreeMap::new(), &[]), [], "nobody was given a certificate");
    }

    #[test]
    fn tokens_made_for_a_cluster_or_used_by_it_are_its_tokens() {
        let token = |metadata: Value| serde_json::from_value::<Secret>(json!({"metadata": metadata})).unwrap();
        for (metadata, is_its) in [
            (json!({"labels": {"liqo.io/one-time-token": "guest", "discovery.liqo.io/cluster-id": ID}}), true),
            (json!({"annotations": {"liqo.io/token-used-by": ID}}), true),
            (json!({"annotations": {"liqo.io/token-used-by": "other"}}), false),
            (json!({"labels": {"liqo.io/one-time-token": "true"}}), false),
        ] {
            assert_eq!(is_for(&token(metadata.clone()), ID), is_its, "{metadata}");
        }
    }
}
