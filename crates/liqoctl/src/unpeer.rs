//! `liqoctl unpeer`: says that nothing is wanted from a cluster any more, then waits until nothing is taken.
//!
//! Writes    `ForeignCluster.spec.outgoingPeeringEnabled`.
//! Removes   out-of-band, when the other direction is not peered either: the `ForeignCluster` and the token
//!           stored for it, which `liqoctl peer` had written. When neither cluster has let the other in, also the token
//!           made for the cluster, and the tenant namespace with the key of this cluster.

mod in_band;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type, PeeringType},
    meta::{annotation, label},
    names,
    net::TunnelEndpoint,
};
use liqo_core::naming;
use liqo_kube::Cluster;
use serde_json::json;

use crate::{
    clusters::ConnectionArgs,
    completion, condition,
    in_band::PairArgs,
    out::Out,
    peer::{WaitArgs, get, identity, progress::Progress},
    view::PeerView,
    wait::{Deadline, Watched},
};

const FAILED: &str = "Failed unpeering clusters";

/// Arguments of `unpeer` and its children.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, subcommand_value_name = "COMMAND")]
pub(crate) struct UnpeerArgs {
    /// Name of the ForeignCluster to take no resources from any more
    #[arg(required = true, value_name = "FOREIGN CLUSTER", add = clap_complete::ArgValueCompleter::new(completion::foreign_clusters))]
    name: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Does not exist; it is answered with the command that was looked for
    #[arg(long, global = true, hide = true)]
    force: bool,
    #[command(subcommand)]
    how: Option<How>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum How {
    /// Disable an out-of-band peering towards a remote cluster and forget that cluster
    ///
    /// The remote cluster stays known while it takes resources from this one: run the same command there.
    ///
    /// Example:
    ///   liqoctl unpeer out-of-band milan
    #[command(visible_alias = "oob", verbatim_doc_comment)]
    OutOfBand {
        /// Name of the ForeignCluster
        #[arg(value_name = "FOREIGN CLUSTER", add = clap_complete::ArgValueCompleter::new(completion::foreign_clusters))]
        name: String,
    },
    /// End an in-band peering, in both directions, and forget it on both clusters
    ///
    /// Pods that run on the other cluster are evicted, in both directions; then the tunnel is removed. May be run
    /// again, also to clear up after a `peer in-band` that failed.
    ///
    /// Example:
    ///   liqoctl unpeer in-band --remote-kubeconfig ~/.kube/milan
    #[command(visible_alias = "ib", verbatim_doc_comment)]
    InBand(Box<PairArgs>),
}

/// `liqoctl unpeer …`
pub(crate) async fn run(args: UnpeerArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let UnpeerArgs { name, wait: WaitArgs { timeout, output }, force, how } = args;
    let out = Out::new(output.is_some());
    let deadline = Deadline::after(timeout);
    if force {
        let named = match &how {
            Some(How::OutOfBand { name }) => Some(name),
            _ => name.as_ref(),
        };
        bail!("{FAILED}: {}", no_force(named.map_or("NAME", String::as_str)));
    }
    let (name, forget) = match (how, name) {
        (Some(How::InBand(pair)), _) => {
            let last = in_band::run(*pair, connection, deadline, out).await?;
            return output.map_or(Ok(()), |format| out.value(&last, format));
        }
        (Some(How::OutOfBand { name }), _) => (name, true),
        (None, Some(name)) => (name, false),
        (None, None) => bail!("{FAILED}: name the foreign cluster"),
    };
    let cluster = connection.open().await.context(FAILED)?.cluster;
    let foreign = disable(&cluster, &name, forget, out).await.context(FAILED)?;
    let progress = Progress::start(&cluster, &foreign, deadline, out);
    progress.no_outgoing().await?;
    let last = progress.foreign();
    if forget {
        forget_peer(&cluster, &name, deadline, out).await.context(FAILED)?;
    }
    match output {
        Some(format) => out.value(&PeerView::of(&last), format),
        None => Ok(()),
    }
}

/// Deletes what was prepared for a cluster when neither cluster has ever let the other in: the token made for that cluster, which
/// has no end of its own, and the tenant namespace with the key of this cluster. A cluster that was let in keeps its token, so
/// that it can come back. Returns the tenant namespace that stays.
async fn forget_stranger(
    cluster: &Cluster,
    foreign: &ForeignCluster,
    id: &str,
    deadline: Deadline,
) -> anyhow::Result<Option<String>> {
    let tenants = foreign.status.clone().unwrap_or_default().tenant_namespace;
    if tenants.remote.is_some() {
        return Ok(tenants.local);
    }
    if let Some(name) = &tenants.local {
        if cluster.get::<Secret>(name, names::REMOTE_CERTIFICATE_SECRET).await?.is_some() {
            return Ok(tenants.local);
        }
        let found = cluster.get::<Namespace>("", name).await?;
        if let Some(tenant) = found.filter(|one| naming::tenant_of(one, Some(name)) == Some(id)) {
            cluster.remove(&tenant).await?;
            Watched::<Namespace>::one(cluster, "", name).gone(deadline).await?;
        }
    }
    for secret in cluster.list::<Secret>("", &format!("{}={id}", label::CLUSTER_ID)).await? {
        if secret.annotations().contains_key(annotation::TOKEN_MADE_FOR) {
            cluster.remove(&secret).await?;
        }
    }
    Ok(None)
}

/// What `--force` is answered.
fn no_force(name: &str) -> String {
    format!(
        "there is no --force: the node of {name:?} is drained for a while, then removed, also when the other cluster does not \
         answer. To end everything between the clusters at once, and to hear the other cluster no more, use `liqoctl evict \
         tenant {name}`"
    )
}

async fn disable(cluster: &Cluster, name: &str, forget: bool, out: Out) -> anyhow::Result<ForeignCluster> {
    let step = out.step("Processing cluster unpeering");
    let foreign = get(cluster, name).await?;
    if forget && foreign.spec.peering_type != PeeringType::OutOfBand {
        let kind = foreign.spec.peering_type;
        bail!("the peering type towards remote cluster {name:?} is {kind:?}, expected {:?}", PeeringType::OutOfBand);
    }
    let foreign = cluster.merge(&foreign, json!({"spec": {"outgoingPeeringEnabled": "No"}})).await?;
    step.done("Outgoing peering marked as disabled");
    Ok(foreign)
}

/// Deletes the peer, unless it still takes resources from us.
async fn forget_peer(cluster: &Cluster, name: &str, deadline: Deadline, out: Out) -> anyhow::Result<()> {
    let Some(foreign) = cluster.get::<ForeignCluster>("", name).await? else {
        out.done("Foreign cluster resource successfully removed");
        return Ok(());
    };
    let who = identity(&foreign);
    if condition::status(&foreign, Type::IncomingPeering) != Status::None {
        out.warn("The foreign cluster resource was not removed, as an incoming peering is still active");
        out.warn(format!("Issue the unpeer command on the remote cluster {:?} to disable it", who.cluster_name));
        return Ok(());
    }
    let step = out.step("Removing the foreign cluster resource");
    cluster.remove(&foreign).await?;
    let watched = Watched::<ForeignCluster>::one(cluster, "", name);
    let gone = watched.until(deadline, |all| all.iter().all(|one| one.uid() != foreign.uid()).then_some(())).await;
    if let Err(error) = gone {
        let held = watched.now().first().map(|one| one.finalizers().join(", ")).unwrap_or_default();
        return Err(anyhow!("{error}: the foreign cluster {name:?} is still held by {held}"));
    }
    if !who.cluster_id.is_empty() {
        let selector = format!("{},{}={}", label::AUTH_TOKEN, label::CLUSTER_ID, who.cluster_id);
        for secret in cluster.list::<Secret>("", &selector).await? {
            cluster.remove(&secret).await?;
        }
        if let Some(tenant) = forget_stranger(cluster, &foreign, &who.cluster_id, deadline).await? {
            out.info(format!(
                "The namespace {tenant} stays, with the identities that the clusters gave each other: who peers again needs no new \
                 token. `kubectl delete namespace {tenant}` forgets the identities"
            ));
        }
    }
    // A tunnel that is just going down would be taken for a new one by whoever peers again at once.
    let tunnel =
        Watched::<TunnelEndpoint>::labelled(cluster, "", &format!("{}={}", label::TUNNEL_CLUSTER_ID, who.cluster_id));
    match tunnel.gone(deadline).await {
        Ok(()) => step.done("Foreign cluster resource successfully removed"),
        Err(error) => {
            let held = tunnel.now().first().map(|one| one.finalizers().join(", ")).unwrap_or_default();
            step.warn(format!(
                "Foreign cluster resource successfully removed, but its tunnel is still there ({error}): held by {held}"
            ));
        }
    }
    Ok(())
}
