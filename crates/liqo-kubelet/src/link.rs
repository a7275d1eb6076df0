//! The link between two clusters that this process keeps: who is here, who is there, and the node between.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use liqo_api::{
    ClusterIdentity,
    meta::{REFLECTION_MANAGER, label},
};
use liqo_kube::peer::PeerIdentity;
use liqo_kube::{Cluster, Store};
use tokio::sync::Notify;

/// Objects of the other cluster, and their bytes, that are kept in memory: far more than a node runs pods.
const OBJECTS: usize = 100_000;
const OBJECTS_BYTES: usize = 1 << 30;

/// Who is linked.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// The own cluster.
    pub(crate) here: ClusterIdentity,
    /// The cluster the node stands for.
    pub(crate) there: ClusterIdentity,
    /// The node.
    pub(crate) node: String,
    /// Its address.
    pub(crate) node_ip: String,
    /// Namespace of what the two clusters exchange, in the own one.
    pub(crate) tenant_namespace: String,
}

impl Link {
    /// The labels of everything reflected over this link.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (label::REFLECTION_ORIGIN.to_owned(), self.here.cluster_id.clone()),
            (label::REFLECTION_DESTINATION.to_owned(), self.there.cluster_id.clone()),
        ])
    }

    /// Whether an object there was reflected over this link.
    pub(crate) fn made<K: Resource>(&self, there: &K) -> bool {
        let is = |key: &str, value: &str| there.labels().get(key).is_some_and(|is| is == value);
        is(label::REFLECTION_ORIGIN, &self.here.cluster_id) && is(label::REFLECTION_DESTINATION, &self.there.cluster_id)
    }

    /// The label selector of everything reflected over this link.
    pub(crate) fn selector(&self) -> String {
        let pairs: Vec<_> = self.labels().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            here: ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "consumer"),
            there: ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "provider"),
            node: "liqo-provider".into(),
            node_ip: "10.244.0.42".into(),
            tenant_namespace: "liqo-tenant-provider-ca6261".into(),
        }
    }
}

/// Our identity there, watched: when it is replaced, this process starts over with the new one.
pub(crate) struct Identity {
    secrets: Store<Secret>,
    news: Arc<Notify>,
    used: PeerIdentity,
}

impl Identity {
    /// Waits until there is an identity for the other cluster, and connects with it.
    pub(crate) async fn connect(home: &Cluster, link: &Link) -> Result<(Cluster, Self), String> {
        let news = Arc::new(Notify::new());
        let selector = format!("{}=true,{}={}", label::LOCAL_IDENTITY, label::CLUSTER_ID, link.there.cluster_id);
        let secrets = home.watch::<Secret>(&link.tenant_namespace).labels(&selector).start({
            let news = Arc::clone(&news);
            move |_| news.notify_one()
        });
        secrets.ready().await;
        let used = loop {
            if let Some(identity) = best(&secrets) {
                break identity;
            }
            let (namespace, peer) = (&link.tenant_namespace, &link.there.cluster_name);
            tracing::info!(namespace, peer, "waiting for our identity on the other cluster");
            news.notified().await;
        };
        let client = used.client().await?;
        Ok((Cluster::new(client, REFLECTION_MANAGER).bounded(OBJECTS, OBJECTS_BYTES), Self { secrets, news, used }))
    }

    /// Returns when another identity should be used.
    pub(crate) async fn until_replaced(self) {
        loop {
            self.news.notified().await;
            if best(&self.secrets).is_some_and(|identity| differs(&identity, &self.used)) {
                tracing::info!("our identity on the other cluster was replaced, starting over with the new one");
                return;
            }
        }
    }
}

fn best(secrets: &Store<Secret>) -> Option<PeerIdentity> {
    let mut all = secrets.all();
    // Always the same one of two that are equally good.
    all.sort_by_key(|secret| secret.name_any());
    PeerIdentity::best(all.iter().map(AsRef::as_ref))
}

/// Whether two identities differ in more than the version of their secret.
fn differs(one: &PeerIdentity, other: &PeerIdentity) -> bool {
    PeerIdentity { version: String::new(), ..one.clone() } != PeerIdentity { version: String::new(), ..other.clone() }
}
