//! Two clusters at once: what `peer in-band` and `unpeer in-band` have in common.
//!
//! In-band, the control plane of a peering flows through the tunnel between both gateways. So the tunnel comes
//! first and goes last, and somebody who may write in both clusters has to make both ends of it: liqoctl.

pub(crate) mod gateway;
pub(crate) mod ipam;
pub(crate) mod side;

use anyhow::{Context, bail};
use liqo_api::{ClusterIdentity, discovery::ForeignCluster};
use liqo_core::peering::id_of;

use crate::{
    clusters::{ConnectionArgs, NamespaceArgs, RemoteArgs},
    out::Out,
};
use side::Side;

/// Which two clusters.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PairArgs {
    #[command(flatten)]
    liqo: NamespaceArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Both clusters, once they have said who they are.
pub(crate) struct Pair {
    pub(crate) local: Side,
    pub(crate) remote: Side,
}

impl Pair {
    /// Connects to both; two that are the same are refused.
    pub(crate) async fn meet(args: PairArgs, connection: &ConnectionArgs, out: Out) -> anyhow::Result<Self> {
        let PairArgs { liqo, remote } = args;
        let (here, there) = remote.open(connection).await?;
        let local = Side::meet(here.cluster, liqo.namespace, out.scoped("local")).await;
        let local = local.context("the local cluster")?;
        let remote = Side::meet(there.cluster, remote.remote_namespace, out.scoped("remote")).await;
        let remote = remote.context("the remote cluster")?;
        let ClusterIdentity { cluster_id, cluster_name } = &remote.identity;
        if local.identity.cluster_id == *cluster_id {
            bail!(
                "the clusterID {cluster_id:?} of remote cluster {cluster_name:?} is equal to the ID of the local cluster"
            );
        }
        Ok(Self { local, remote })
    }

    /// Each side, with the other one.
    pub(crate) fn ways(&self) -> [(&Side, &Side); 2] {
        [(&self.local, &self.remote), (&self.remote, &self.local)]
    }
}

impl Side {
    /// How errors name it.
    pub(crate) fn called(&self) -> String {
        format!("cluster {:?}", self.identity.cluster_name)
    }

    /// The ForeignCluster of the other side, if it is known here.
    pub(crate) async fn knows(&self, other: &Self) -> anyhow::Result<Option<ForeignCluster>> {
        let known: Vec<ForeignCluster> = self.cluster.list("", "").await.with_context(|| self.called())?;
        Ok(known.into_iter().find(|one| id_of(one) == other.identity.cluster_id))
    }
}
