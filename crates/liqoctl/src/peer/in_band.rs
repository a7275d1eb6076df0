//! `liqoctl peer in-band`: makes the tunnel first, then the peering through it.
//!
//! Writes    on both clusters: the tenant `Namespace`; the `NetworkConfig` for the other side and its copy there;
//!           the status of a `NetworkConfig`, as its receiver has it; Secret `remote-token-<cluster ID>`;
//!           `ForeignCluster`.
//! Keeps true: nothing is written before everything was found that is needed; nothing is wished from a cluster
//!           before both know each other and packets pass in both directions; a wish of the other side that was
//!           there before stays. Every step can be done again.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type},
    meta::label,
    net::NetworkConfig,
};
use liqo_core::peering::{
    self, Plan,
    in_band::{self, Address, Tenant, Urls},
};
use liqo_kube::Object;
use serde_json::json;

use super::{progress::Progress, settled, settled_or_gone};
use crate::{
    clusters::ConnectionArgs,
    condition,
    in_band::{
        Pair, PairArgs,
        gateway::Reachability,
        ipam::Ipam,
        side::{Facts, Side},
    },
    out::Out,
    wait::{Deadline, Watched},
};

/// How long the other side may take to look at a network configuration.
const PROCESSING: Duration = Duration::from_secs(60);

/// Arguments of `peer in-band`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InBandArgs {
    /// Let the remote cluster take resources from the local one, too
    ///
    /// Without it, a peering in that direction is left as it is.
    #[arg(long)]
    bidirectional: bool,
    #[command(flatten)]
    pair: PairArgs,
}

/// Peers two clusters; gives the remote one as the local one knows it.
pub(crate) async fn run(
    args: InBandArgs,
    connection: &ConnectionArgs,
    deadline: Deadline,
    out: Out,
) -> anyhow::Result<ForeignCluster> {
    let InBandArgs { bidirectional, pair } = args;
    let pair = Pair::meet(pair, connection, out).await.context(super::FAILED)?;
    let facts = prepare(&pair).await.context(super::FAILED)?;
    let known = connect(&pair, &facts, deadline).await.context(super::FAILED)?;
    let [local, remote] = &known;
    let follow = |side: &Side, one: &Known| Progress::start(&side.cluster, &one.foreign, deadline, side.out);
    let (here, there) = (follow(&pair.local, local), follow(&pair.remote, remote));
    for progress in [&here, &there] {
        progress.network().await.map_err(|error| unreachable(&facts, &error))?;
    }
    wish(&pair.local, &local.foreign, deadline).await.context(super::FAILED)?;
    if bidirectional {
        wish(&pair.remote, &remote.foreign, deadline).await.context(super::FAILED)?;
    }
    here.authentication(condition::patience(local.created)).await?;
    there.authentication(condition::patience(remote.created)).await?;
    here.outgoing().await?;
    here.node().await?;
    if bidirectional {
        there.outgoing().await?;
        there.node().await?;
    }
    Ok(here.foreign().as_ref().clone())
}

/// Reads everything that is needed, on both clusters; nothing has been written when something is missing.
async fn prepare(pair: &Pair) -> anyhow::Result<[Facts; 2]> {
    let local = pair.local.facts().await.with_context(|| pair.local.called())?;
    let remote = pair.remote.facts().await.with_context(|| pair.remote.called())?;
    let facts = [local, remote];
    one_can_be_reached(&facts).map_err(|why| anyhow!(why))?;
    for (side, peer) in pair.ways() {
        let name = &peer.identity.cluster_name;
        let step = side.out.step("Retrieving foreign cluster");
        let known: Vec<ForeignCluster> = side.cluster.list("", "").await.with_context(|| side.called())?;
        let found = in_band::check(&known, &peer.identity).map_err(|why| anyhow!(why));
        let found = found.with_context(|| side.called())?;
        step.done(match found {
            Some(_) => format!("foreign cluster for remote cluster {name:?} correctly retrieved"),
            None => format!("foreign cluster for remote cluster {name:?} not found: marked for creation"),
        });
    }
    Ok(facts)
}

/// Pure: a tunnel needs one end that the other one can find.
fn one_can_be_reached(facts: &[Facts; 2]) -> Result<(), String> {
    match facts.each_ref().map(|one| &one.reach) {
        [Reachability::Closed(here), Reachability::Closed(there)] => Err(format!(
            "neither gateway can be reached from outside its cluster (local: {here}; remote: {there}): give one of \
             both a Service of type NodePort or LoadBalancer, or the annotations liqo.io/override-address and \
             liqo.io/override-port"
        )),
        _ => Ok(()),
    }
}

/// What failed, and what the tunnel needs.
fn unreachable([local, remote]: &[Facts; 2], error: &anyhow::Error) -> anyhow::Error {
    let end = |one: &Facts| format!("{}:{}", one.gateway.address, one.gateway.port);
    anyhow!(
        "{error:#}; one gateway must reach the other one by UDP: the local one is announced as {}, the remote one as {}",
        end(local),
        end(remote)
    )
}

/// A peer as one side knows it.
struct Known {
    foreign: ForeignCluster,
    created: bool,
}

/// Makes the tunnel, and both sides known to each other through it.
async fn connect(pair: &Pair, facts: &[Facts; 2], deadline: Deadline) -> anyhow::Result<[Known; 2]> {
    let Pair { local, remote } = pair;
    let here = tenant(local, &remote.identity, deadline).await.with_context(|| local.called())?;
    let there = tenant(remote, &local.identity, deadline).await.with_context(|| remote.called())?;
    tell(&facts[0], (local, &here), (remote, &there), deadline).await?;
    tell(&facts[1], (remote, &there), (local, &here), deadline).await?;

    let mut here = Ipam::open(local).await.with_context(|| local.called())?;
    let mut there = Ipam::open(remote).await.with_context(|| remote.called())?;
    let of_local = show(local, &remote.identity, &facts[0], &mut here, deadline).await;
    let of_local = of_local.with_context(|| local.called())?;
    let of_remote = show(remote, &local.identity, &facts[1], &mut there, deadline).await;
    let of_remote = of_remote.with_context(|| remote.called())?;

    let token = remote.token(&local.identity).await.with_context(|| remote.called())?;
    let of = know(local, &remote.identity, &of_remote, &token, deadline).await;
    let known_here = of.with_context(|| local.called())?;
    let token = local.token(&remote.identity).await.with_context(|| local.called())?;
    let of = know(remote, &local.identity, &of_local, &token, deadline).await;
    let known_there = of.with_context(|| remote.called())?;
    here.close();
    there.close();
    Ok([known_here, known_there])
}

/// The room for what is exchanged with `peer`.
async fn tenant(side: &Side, peer: &ClusterIdentity, deadline: Deadline) -> anyhow::Result<String> {
    let step = side.out.step("Creating tenant namespace");
    loop {
        let labelled: Vec<Namespace> =
            side.cluster.list("", &format!("{}={}", label::CLUSTER_ID, peer.cluster_id)).await?;
        let name = match in_band::tenant(&labelled, peer).map_err(|why| anyhow!(why))? {
            Tenant::Use(name) => name,
            Tenant::Wait(name) => {
                step.say(format!("Waiting for the earlier tenant namespace {name:?} to be deleted"));
                let watched = Watched::<Namespace>::one(&side.cluster, "", &name);
                let gone = watched.gone(deadline).await;
                gone.with_context(|| format!("the earlier tenant namespace {name:?} is still being deleted"))?;
                continue;
            }
            Tenant::Create(name) => match side.cluster.create(&peering::tenant_namespace(&name, peer)).await {
                Ok(_) => name,
                // Either made by a controller at this moment, or it is somebody else's.
                Err(error) if error.is_conflict() => {
                    let found: Option<Namespace> = side.cluster.get("", &name).await?;
                    let id = found.as_ref().and_then(|one| one.labels().get(label::CLUSTER_ID));
                    if found.is_some() && id != Some(&peer.cluster_id) {
                        bail!("the namespace {name:?} exists but is not labelled for cluster {}", peer.cluster_id);
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            },
        };
        step.done(format!("tenant namespace {name:?} created for remote cluster {:?}", peer.cluster_name));
        return Ok(name);
    }
}

/// Tells `to` about the networks of `from`, and `from` how `to` sees them.
async fn tell(
    facts: &Facts,
    (from, room): (&Side, &str),
    (to, room_there): (&Side, &str),
    deadline: Deadline,
) -> anyhow::Result<()> {
    let (here, there) = (&from.identity.cluster_name, &to.identity.cluster_name);
    let step = from.out.step("Creating network configuration");
    let ranges = [facts.pod_cidr.clone(), facts.external_cidr.clone()];
    let original = in_band::original(peering::networks(&to.identity, ranges, &facts.gateway), room);
    let original = write(from, &original, deadline).await.with_context(|| from.called())?;
    step.done(format!("network configuration created in local cluster {here:?}"));

    let step = from.out.step("Creating network configuration in the remote cluster");
    let copy = in_band::copy(&original, &from.identity, room_there);
    write(to, &copy, deadline).await.with_context(|| to.called())?;
    step.done(format!("network configuration created in remote cluster {there:?}"));

    let step = from.out.step(format!("Waiting for cluster {there:?} to process the network configuration"));
    let watched = Watched::<NetworkConfig>::one(&to.cluster, room_there, &copy.name_any());
    let processed = watched.until(deadline.within(PROCESSING), |all| {
        all.first().and_then(|one| one.status.clone()).filter(|status| status.processed)
    });
    let status = processed.await.map_err(|_| {
        let limit = PROCESSING.as_secs();
        anyhow!("timeout ({limit}s) expired while waiting for cluster {there:?} to process the networkconfig")
    })?;
    if original.status.as_ref() != Some(&status) {
        from.cluster.put_status(&original, &status).await.with_context(|| from.called())?;
    }
    step.done(format!("network configuration status correctly reflected from cluster {there:?}"));
    Ok(())
}

/// Writes an object; one that is just going away under the same name is waited for.
async fn write<K: Object>(side: &Side, object: &K, deadline: Deadline) -> anyhow::Result<K> {
    loop {
        let written = side.cluster.apply(object).await?;
        if written.meta().deletion_timestamp.is_none() {
            return Ok(written);
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let gone = Watched::<K>::one(&side.cluster, &namespace, &name);
        let gone = gone.until(deadline, |all| all.iter().all(|one| one.uid() != written.uid()).then_some(())).await;
        gone.with_context(|| format!("{} {namespace}/{name} is still being deleted", K::kind(&())))?;
    }
}

/// Makes proxy and authentication service of `side` reachable for `peer`; gives their URLs there.
async fn show(
    side: &Side,
    peer: &ClusterIdentity,
    facts: &Facts,
    ipam: &mut Ipam<'_>,
    deadline: Deadline,
) -> anyhow::Result<Urls> {
    let mut mapped = Vec::new();
    for (what, address) in [("proxy", facts.proxy), ("auth", facts.auth)] {
        let step = side.out.step(format!("Remapping the {what} address"));
        let ip = ipam.map(&peer.cluster_id, address.ip, deadline).await?;
        step.done(format!(
            "{what} address \"{}\" remapped to \"{ip}\" for remote cluster {:?}",
            address.ip, peer.cluster_name
        ));
        mapped.push(Address { ip, ..address });
    }
    Ok(Urls::of(mapped[1], mapped[0]))
}

/// Makes `peer` known, with its token; nothing is wished from it yet.
async fn know(
    side: &Side,
    peer: &ClusterIdentity,
    urls: &Urls,
    token: &str,
    deadline: Deadline,
) -> anyhow::Result<Known> {
    let name = &peer.cluster_name;
    let step = side.out.step(format!("Configuring foreign cluster for remote cluster {name:?}"));
    side.cluster.apply(&peering::token_secret(token, &peer.cluster_id, &side.namespace)).await?;
    loop {
        let known: Vec<ForeignCluster> = side.cluster.list("", "").await?;
        let written = match in_band::foreign_cluster(&known, peer, urls).map_err(|why| anyhow!(why))? {
            Plan::Wait(name) => {
                step.say("Waiting for the earlier peering to end");
                settled_or_gone(&side.cluster, &name, deadline).await?;
                continue;
            }
            Plan::Create(foreign) => (side.cluster.create(&*foreign).await, true),
            Plan::Update(foreign, patch) => (side.cluster.merge(&*foreign, patch).await, false),
        };
        match written {
            (Err(error), _) if error.is_conflict() => {}
            (foreign, created) => {
                let foreign = foreign?;
                step.done(format!("foreign cluster for remote cluster {name:?} correctly configured"));
                return Ok(Known { foreign, created });
            }
        }
    }
}

/// Says that resources are wanted.
async fn wish(side: &Side, foreign: &ForeignCluster, deadline: Deadline) -> anyhow::Result<()> {
    let name = super::identity(foreign).cluster_name;
    let step = side.out.step(format!("Configuring outgoing peering flag for remote cluster {name:?}"));
    if condition::status(foreign, Type::OutgoingPeering) == Status::Disconnecting {
        settled(&side.cluster, &foreign.name_any(), deadline).await?;
    }
    let patch = json!({"spec": {"outgoingPeeringEnabled": "Yes"}});
    side.cluster.merge(foreign, patch).await.with_context(|| side.called())?;
    step.done(format!("outgoing peering flag for remote cluster {name:?} correctly configured"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(reach: Reachability) -> Facts {
        let address = Address { ip: "10.96.0.1".parse().unwrap(), port: 1 };
        Facts {
            pod_cidr: String::new(),
            external_cidr: String::new(),
            gateway: peering::Gateway { address: "10.0.0.1".into(), port: 5871, public_key: String::new() },
            reach,
            auth: address,
            proxy: address,
        }
    }

    #[test]
    fn one_end_that_can_be_reached_is_enough() {
        let closed = || Reachability::Closed("service liqo-gateway is of type ClusterIP".into());
        for (here, there, good) in [
            (Reachability::Open, Reachability::Open, true),
            (Reachability::Private, Reachability::Private, true),
            (closed(), Reachability::Private, true),
            (Reachability::Open, closed(), true),
            (closed(), closed(), false),
        ] {
            let found = one_can_be_reached(&[facts(here.clone()), facts(there.clone())]);
            assert_eq!(found.is_ok(), good, "{here:?} {there:?}");
            assert!(found.is_ok_and(|()| good) || !good);
        }
    }

    #[test]
    fn a_dead_tunnel_names_both_ends() {
        let told =
            unreachable(&[facts(Reachability::Open), facts(Reachability::Open)], &anyhow!("timed out")).to_string();
        assert!(told.starts_with("timed out; one gateway must reach") && told.contains("10.0.0.1:5871"), "{told}");
    }
}
