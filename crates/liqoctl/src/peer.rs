//! `liqoctl peer`: says that resources are wanted from another cluster, then waits for its node.
//!
//! Writes    Secret `remote-token-<cluster ID>`, `ForeignCluster` (out-of-band), `spec.outgoingPeeringEnabled`;
//!           in-band, see there.
//! Keeps true: nothing is written before all that was typed has been found valid; a token that the other cluster refuses does
//! not stay in the place of an earlier token.

mod in_band;
pub(crate) mod progress;

use std::{io::Read, time::Duration};

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringConditionType},
};
use liqo_core::peering::{
    self, Plan,
    out_of_band::{Ask, plan},
};
use liqo_kube::Cluster;
use serde_json::json;

use crate::{
    clusters::{ConnectionArgs, NamespaceArgs},
    completion, condition, flag, here,
    out::{Format, Out},
    peer::progress::Progress,
    view::PeerView,
    wait::{Deadline, Watched},
};

/// No token is longer, in bytes.
const LONGEST_TOKEN: u64 = 64 * 1024;
/// What all failures of peering begin with.
const FAILED: &str = "Failed peering clusters";

/// Arguments of `peer` and its children.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, subcommand_value_name = "COMMAND")]
pub(crate) struct PeerArgs {
    /// Name of the ForeignCluster to take resources from
    #[arg(required = true, value_name = "FOREIGN CLUSTER", add = clap_complete::ArgValueCompleter::new(completion::foreign_clusters))]
    name: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(subcommand)]
    how: Option<How>,
}

/// How long to wait, and how to tell the result.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// The timeout for completion
    #[arg(long, global = true, default_value = "120s", value_parser = flag::duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Print the final state of the peering for programs (progress moves to stderr)
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum How {
    /// Establish an out-of-band peering towards a remote cluster
    ///
    /// The control plane traffic of an out-of-band peering flows outside of any tunnel: both clusters must reach
    /// the authentication service and the Kubernetes API server of the other one. The command with its arguments
    /// is printed by `liqoctl generate peer-command`, run on the remote cluster.
    ///
    /// Examples:
    ///   liqoctl peer out-of-band milan --auth-url https://172.30.0.12:32137 \
    ///       --cluster-id 16fbeaec-e4e4-41dc-9eea-170ce95d7dd9 --auth-token 3f2a...
    ///   liqoctl peer out-of-band milan --auth-url https://172.30.0.12:32137 \
    ///       --cluster-id 16fbeaec-e4e4-41dc-9eea-170ce95d7dd9 --auth-token-file - < token
    #[command(visible_alias = "oob", verbatim_doc_comment)]
    OutOfBand(OutOfBandArgs),
    /// Establish an in-band peering with a remote cluster
    ///
    /// The control plane traffic of an in-band peering flows through the tunnel between both gateways: it is
    /// enough when one gateway reaches the other one by UDP, and neither API server is exposed. The command is
    /// run once, by somebody who may administer both clusters. Later changes of a gateway's address, port or key
    /// are followed.
    ///
    /// Examples:
    ///   liqoctl peer in-band --remote-kubeconfig ~/.kube/milan
    ///   liqoctl peer in-band --context rome --remote-context milan --bidirectional
    #[command(visible_alias = "ib", verbatim_doc_comment)]
    InBand(Box<in_band::InBandArgs>),
}

/// What the other cluster said of itself.
#[derive(Clone, Debug, clap::Args)]
struct OutOfBandArgs {
    /// Name for the remote cluster, a DNS label
    name: String,
    /// The authentication URL of the target remote cluster
    #[arg(long, value_name = "URL")]
    auth_url: String,
    /// The Cluster ID identifying the target remote cluster
    #[arg(long, value_name = "ID")]
    cluster_id: String,
    /// The authentication token of the target remote cluster
    #[arg(long, value_name = "TOKEN", required_unless_present = "auth_token_file", conflicts_with = "auth_token_file")]
    auth_token: Option<String>,
    /// File with the authentication token, which then is in no list of processes; - is the standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    auth_token_file: Option<String>,
    #[command(flatten)]
    liqo: NamespaceArgs,
}

/// `liqoctl peer …`
pub(crate) async fn run(args: PeerArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let PeerArgs { name, wait: WaitArgs { timeout, output }, how } = args;
    let out = Out::new(output.is_some());
    let deadline = Deadline::after(timeout);
    let foreign = match (how, name) {
        (Some(How::InBand(args)), _) => in_band::run(*args, connection, deadline, out).await?,
        (Some(How::OutOfBand(args)), _) => towards(Wish::New(args), connection, deadline, out).await?,
        (None, Some(name)) => towards(Wish::Known(name), connection, deadline, out).await?,
        (None, None) => return Err(anyhow!("{FAILED}: name the foreign cluster")),
    };
    out.done("Peering successfully established");
    match output {
        Some(format) => out.value(&PeerView::of(&foreign), format),
        None => Ok(()),
    }
}

/// Whose resources are wanted.
enum Wish {
    New(OutOfBandArgs),
    Known(String),
}

/// Takes resources from a cluster of which only this side is ours.
async fn towards(
    wish: Wish,
    connection: &ConnectionArgs,
    deadline: Deadline,
    out: Out,
) -> anyhow::Result<ForeignCluster> {
    let cluster = connection.open().await.context(FAILED)?.cluster;
    let written = match wish {
        Wish::New(args) => out_of_band(&cluster, args, deadline, out).await.context(FAILED)?,
        Wish::Known(name) => {
            let foreign = enable(&cluster, &name, deadline, out).await.context(FAILED)?;
            Written { foreign, is_new: false, earlier_token: None }
        }
    };
    let progress = Progress::start(&cluster, &written.foreign, deadline, out);
    if let Err(error) = progress.authentication(condition::patience(written.is_new)).await {
        if let Some(earlier) = written.earlier_token.filter(|_| condition::is_token_refused(&progress.foreign())) {
            match cluster.apply(&earlier).await {
                Ok(_) => out.info("The token that was stored for the cluster before is stored again"),
                Err(no) => out
                    .warn(format!("The token that was stored for the cluster before could not be stored again: {no}")),
            }
        }
        return Err(error);
    }
    progress.outgoing().await?;
    progress.network().await?;
    progress.node().await?;
    Ok(progress.foreign().as_ref().clone())
}

/// Sets the wish on a known peer.
async fn enable(cluster: &Cluster, name: &str, deadline: Deadline, out: Out) -> anyhow::Result<ForeignCluster> {
    let step = out.step("Processing cluster peering");
    let foreign = get(cluster, name).await?;
    let ended = PeeringConditionStatus::Disconnecting;
    if condition::status(&foreign, PeeringConditionType::OutgoingPeering) == ended
        && foreign.metadata.deletion_timestamp.is_none()
    {
        step.say("Waiting for the earlier peering to end");
        settled(cluster, name, deadline).await?;
    }
    let foreign = cluster.merge(&foreign, json!({"spec": {"outgoingPeeringEnabled": "Yes"}})).await?;
    step.done("Peering enabled");
    Ok(foreign)
}

/// A peer by the name of its object.
pub(crate) async fn get(cluster: &Cluster, name: &str) -> anyhow::Result<ForeignCluster> {
    let found: Option<ForeignCluster> = cluster.get("", name).await?;
    found.ok_or_else(|| anyhow!("foreignclusters.discovery.liqo.io {name:?} not found"))
}

/// Waits until an earlier peering is no longer being taken down.
async fn settled(cluster: &Cluster, name: &str, deadline: Deadline) -> anyhow::Result<()> {
    let watched = Watched::<ForeignCluster>::one(cluster, "", name);
    let down = |foreign: &ForeignCluster| {
        condition::status(foreign, PeeringConditionType::OutgoingPeering) == PeeringConditionStatus::Disconnecting
    };
    let end = watched.until(deadline, |all| (!all.iter().any(|one| down(one))).then_some(())).await;
    end.context("an earlier peering is still being taken down")
}

/// What was written for a peering.
struct Written {
    foreign: ForeignCluster,
    /// The ForeignCluster did not exist before.
    is_new: bool,
    /// The Secret with another token that was replaced.
    earlier_token: Option<Secret>,
}

/// Writes what was typed: the token, then the peer.
async fn out_of_band(cluster: &Cluster, args: OutOfBandArgs, deadline: Deadline, out: Out) -> anyhow::Result<Written> {
    let OutOfBandArgs { name, auth_url, cluster_id, auth_token, auth_token_file, liqo } = args;
    let step = out.step("Processing cluster peering");
    let token = match auth_token_file {
        Some(file) => read_token(&file)?,
        None => auth_token.unwrap_or_default(),
    };
    let ask = Ask { name, auth_url, cluster_id, token };
    ask.check().map_err(|why| anyhow!(why))?;
    let local = here::identity(cluster, &liqo.namespace).await?;
    let stored: Option<Secret> = cluster.get(&liqo.namespace, &peering::token_name(&ask.cluster_id)).await?;
    let earlier_token = stored.as_ref().and_then(here::token_of).filter(|stored| *stored != ask.token);
    let earlier_token = earlier_token.map(|token| peering::token_secret(&token, &ask.cluster_id, &liqo.namespace));
    let mut token_is_written = false;
    loop {
        let known: Vec<ForeignCluster> = cluster.list("", "").await?;
        let plan = plan(&ask, &local, &known).map_err(|why| anyhow!(why))?;
        if !token_is_written {
            cluster.apply(&peering::token_secret(&ask.token, &ask.cluster_id, &liqo.namespace)).await?;
            token_is_written = true;
        }
        match plan {
            Plan::Wait(name) => {
                step.say("Waiting for the earlier peering to end");
                settled_or_gone(cluster, &name, deadline).await?;
            }
            Plan::Create(foreign) => match cluster.create(&*foreign).await {
                Err(error) if error.is_conflict() => {}
                created => {
                    let created = created?;
                    step.done("Peering enabled");
                    return Ok(Written { foreign: created, is_new: true, earlier_token });
                }
            },
            Plan::Update(foreign, patch) => match cluster.merge(&*foreign, patch).await {
                Err(error) if error.is_conflict() => {}
                updated => {
                    let updated = updated?;
                    step.done("Peering enabled");
                    if updated.name_any() != ask.name {
                        let (typed, known) = (&ask.name, updated.name_any());
                        out.warn(format!("The cluster is already known as {known:?}: the name {typed:?} is ignored"));
                    }
                    return Ok(Written { foreign: updated, is_new: false, earlier_token });
                }
            },
        }
    }
}

/// The token in a file, or in what is piped in.
fn read_token(file: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().take(LONGEST_TOKEN).read_to_string(&mut text),
        file => std::fs::File::open(file).and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut text)),
    };
    read.with_context(|| format!("reading the authentication token from {file:?}"))?;
    Ok(text.trim().to_owned())
}

/// Waits until the object is gone, or, if it stays, until its earlier peering has ended.
async fn settled_or_gone(cluster: &Cluster, name: &str, deadline: Deadline) -> anyhow::Result<()> {
    let watched = Watched::<ForeignCluster>::one(cluster, "", name);
    let end = watched.until(deadline, |all| all.iter().all(|one| !peering::is_leaving(one)).then_some(())).await;
    end.with_context(|| match watched.now().first().map(|one| one.finalizers().join(", ")) {
        Some(holding) if !holding.is_empty() => {
            format!("foreign cluster {name:?} is still being removed, held by {holding}")
        }
        _ => format!("the earlier peering with {name:?} is still being taken down"),
    })
}

/// The identity of a peer; its parts may not be known yet.
pub(crate) fn identity(foreign: &ForeignCluster) -> ClusterIdentity {
    foreign.spec.cluster_identity.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "3f2a.pin\n").unwrap();
        assert_eq!(read_token(file.path().to_str().unwrap()).unwrap(), "3f2a.pin");
        assert!(read_token("/no/such/file").unwrap_err().to_string().contains("/no/such/file"));
    }
}
