//! Which tenant namespace belongs to which peer: the tenant namespaces, and the `ForeignCluster`s that prove the labels of tenant
//! namespaces.
//!
//! Every replica watches both for the IPAM service; [`Tenants::queue`] wakes the replica that leads.
//!
//! Watches   tenant `Namespace`s, `ForeignCluster`.
//! Writes    nothing.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{discovery::ForeignCluster, meta::label};
use liqo_core::decision::{id_of, peer_of_tenant, precedence};
use liqo_kube::{Cluster, Queue, Store};

/// The tenant namespaces and the peers.
#[derive(Clone)]
pub(super) struct Tenants {
    queue: Queue<String>,
    namespaces: Store<Namespace>,
    foreigns: Store<ForeignCluster>,
}

impl Tenants {
    /// Starts watching.
    pub(super) fn watch(cluster: &Cluster) -> Self {
        let queue = Queue::new();
        let (tenant, foreign) = (queue.clone(), queue.clone());
        let selector = format!("{}=true", label::TENANT_NAMESPACE);
        let namespaces = cluster.watch::<Namespace>("").labels(&selector).start(move |one: &Namespace| {
            tenant.push(one.name_any());
        });
        let foreigns = cluster.watch::<ForeignCluster>("").start(move |one: &ForeignCluster| {
            let status = one.status.as_ref().and_then(|status| status.tenant_namespace.local.clone());
            status.into_iter().for_each(|tenant| foreign.push(tenant));
        });
        Self { queue, namespaces, foreigns }
    }

    /// Returns when all tenant namespaces and peers are known.
    pub(super) async fn ready(&self) {
        self.namespaces.ready().await;
        self.foreigns.ready().await;
    }

    /// Names of tenant namespaces that have changed, or whose peer has.
    pub(super) fn queue(&self) -> &Queue<String> {
        &self.queue
    }

    /// Queues all tenant namespaces.
    pub(super) fn look_again(&self) {
        self.namespaces.all().iter().for_each(|tenant| self.queue.push(tenant.name_any()));
    }

    /// Queues the tenant namespaces of `peers`.
    pub(super) fn look_again_at(&self, peers: &BTreeSet<String>) {
        for (tenant, _) in self.all().into_iter().filter(|(_, peer)| peers.contains(peer)) {
            self.queue.push(tenant);
        }
    }

    /// The peer of a tenant namespace.
    pub(super) fn peer_of(&self, tenant: &str) -> Option<String> {
        let namespace = self.namespaces.get("", tenant)?;
        peer_of_tenant(&namespace, self.foreigns.all().iter().map(AsRef::as_ref)).map(str::to_owned)
    }

    /// All peers that have a tenant namespace.
    pub(super) fn peers(&self) -> BTreeSet<String> {
        self.all().into_iter().map(|(_, peer)| peer).collect()
    }

    /// The `ForeignCluster`s of a peer, in order of precedence.
    pub(super) fn foreigns_of(&self, peer: &str) -> Vec<Arc<ForeignCluster>> {
        let mut foreigns = self.foreigns.filter(|one| id_of(one) == peer);
        foreigns.sort_by(|one, other| precedence(one).cmp(&precedence(other)));
        foreigns
    }

    /// Names of tenant namespaces, and their peers.
    fn all(&self) -> Vec<(String, String)> {
        let foreigns = self.foreigns.all();
        let peer = |one: &Namespace| peer_of_tenant(one, foreigns.iter().map(AsRef::as_ref)).map(str::to_owned);
        self.namespaces.all().iter().filter_map(|one| Some((one.name_any(), peer(one)?))).collect()
    }
}
