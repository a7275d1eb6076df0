//! The link between two clusters that this process keeps: who is here, who is there, and the node between.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use liqo_api::{
    ClusterIdentity,
    meta::{REFLECTION_MANAGER, label},
};
use liqo_kube::{
    Cluster, Store,
    peer::{PeerClient, PeerIdentity, Renewal},
    reach::Reach,
};
use tokio::sync::Notify;

/// Objects of the other cluster, and their bytes, that are kept in memory: far more than a node runs pods.
const OBJECTS: usize = 100_000;
const OBJECTS_BYTES: usize = 256 << 20;

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

/// Our identity there, watched: a renewed one is used at once.
pub(crate) struct Identity {
    secrets: Store<Secret>,
    news: Arc<Notify>,
    peer: PeerClient,
}

impl Identity {
    /// Waits until there is an identity for the other cluster, and connects with it; the other cluster is `outside` of this one.
    pub(crate) async fn connect(home: &Cluster, link: &Link, outside: &Reach) -> Result<(Cluster, Self), String> {
        let news = Arc::new(Notify::new());
        let selector = format!("{}=true,{}={}", label::LOCAL_IDENTITY, label::CLUSTER_ID, link.there.cluster_id);
        let secrets = home.watch::<Secret>(&link.tenant_namespace).labels(&selector).start({
            let news = Arc::clone(&news);
            move |_| news.notify_one()
        });
        secrets.ready().await;
        let identity = loop {
            if let Some(identity) = best(&secrets) {
                break identity;
            }
            let (namespace, peer) = (&link.tenant_namespace, &link.there.cluster_name);
            tracing::info!(namespace, peer, "waiting for our identity on the other cluster");
            news.notified().await;
        };
        let peer = PeerClient::open(identity, outside).await?;
        let there = Cluster::new(peer.client(), REFLECTION_MANAGER).bounded(OBJECTS, OBJECTS_BYTES);
        Ok((there, Self { secrets, news, peer }))
    }

    /// Takes each renewed identity. Returns, so that this process starts over, when an identity is for another API server.
    pub(crate) async fn follow(mut self) {
        loop {
            self.news.notified().await;
            let Some(identity) = best(&self.secrets) else { continue };
            match self.peer.renew(&identity).await {
                Ok(Renewal::Known) => {}
                Ok(Renewal::Taken) => tracing::info!("our identity on the other cluster was renewed"),
                Ok(Renewal::Elsewhere) => {
                    let url = identity.api_server_url;
                    tracing::info!(url, "our identity is for another API server or namespace, starting over");
                    return;
                }
                Err(why) => {
                    tracing::warn!(error = why, "the renewed identity cannot be used, the old one stays in use")
                }
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
