//! `liqoctl unpeer in-band`: takes back, on both clusters, what `peer in-band` has made; the tunnel goes last.
//!
//! Writes    `ForeignCluster.spec.outgoingPeeringEnabled`.
//! Removes   on both clusters: the addresses given to the other side, its `ForeignCluster`, its token, its tenant
//!           `Namespace` and with it the tunnel.
//! Keeps true: what is gone already is told, and no failure; so it can be run again, also after a `peer in-band`
//!           that did not come to its end.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type, PeeringType},
    meta::label,
    net::{NetworkConfig, TunnelEndpoint},
};
use liqo_core::naming;
use serde_json::json;
use tokio::time::Instant;

use super::FAILED;
use crate::{
    clusters::ConnectionArgs,
    condition,
    in_band::{Pair, PairArgs, ipam::Ipam, side::Side},
    out::Out,
    view::PeerView,
    wait::{Deadline, Watched},
};

/// How long a tunnel must be dead before nobody waits for the other side to agree any more.
const DEAD: Duration = Duration::from_secs(20);
/// How long a tunnel may take to go down before the rest begins to go, too.
const TUNNEL: Duration = Duration::from_secs(10);

/// Ends the peering of two clusters; gives the remote one as the local one knew it last.
pub(crate) async fn run(
    args: PairArgs,
    connection: &ConnectionArgs,
    deadline: Deadline,
    out: Out,
) -> anyhow::Result<Option<PeerView>> {
    let pair = Pair::meet(args, connection, out).await.context(FAILED)?;
    let known = disable(&pair).await.context(FAILED)?;
    // Both at once: a dead tunnel is seen from both sides, and need not be waited for twice.
    let [here, there] = pair.ways();
    tokio::try_join!(ended(here, known[0].as_ref(), deadline), ended(there, known[1].as_ref(), deadline))?;
    let last = pair.local.knows(&pair.remote).await.context(FAILED)?;
    clear(&pair, &known, deadline).await.context(FAILED)?;
    Ok(last.as_ref().map(PeerView::of))
}

/// Says on both sides that nothing is wanted any more; peerings of another type are refused before anything is said.
async fn disable(pair: &Pair) -> anyhow::Result<[Option<ForeignCluster>; 2]> {
    let mut known = [pair.local.knows(&pair.remote).await?, pair.remote.knows(&pair.local).await?];
    for ((side, peer), foreign) in pair.ways().into_iter().zip(&known) {
        if let Some(kind) =
            foreign.as_ref().map(|one| one.spec.peering_type).filter(|kind| *kind != PeeringType::InBand)
        {
            let (name, wanted) = (&peer.identity.cluster_name, PeeringType::InBand);
            bail!(
                "{}: the peering type towards remote cluster {name:?} is {kind:?}, expected {wanted:?}",
                side.called()
            );
        }
    }
    for ((side, peer), foreign) in pair.ways().into_iter().zip(&mut known) {
        let name = &peer.identity.cluster_name;
        let Some(one) = foreign else {
            side.out.warn(already(name));
            continue;
        };
        let step = side.out.step(format!("Disabling peering for remote cluster {name:?}"));
        let patch = json!({"spec": {"outgoingPeeringEnabled": "No"}});
        match side.cluster.merge(one, patch).await {
            Ok(_) => step.done(format!("peering correctly disabled for remote cluster {name:?}")),
            Err(error) if error.is_not_found() => {
                step.warn(already(name));
                *foreign = None;
            }
            Err(error) => return Err(anyhow::Error::from(error).context(side.called())),
        }
    }
    Ok(known)
}

fn already(name: &str) -> String {
    format!("it seems that the foreign cluster for remote cluster {name:?} has been already removed")
}

/// Waits until neither takes anything from the other. A tunnel that stays dead is not waited for: we can reach both
/// sides without it.
async fn ended(
    (side, peer): (&Side, &Side),
    foreign: Option<&ForeignCluster>,
    deadline: Deadline,
) -> anyhow::Result<()> {
    let Some(foreign) = foreign else { return Ok(()) };
    let name = &peer.identity.cluster_name;
    let step = side.out.step(format!("Unpeering from the remote cluster {name:?}"));
    let watched = Watched::<ForeignCluster>::one(&side.cluster, "", &foreign.name_any());
    let mut dead_since = None;
    let end = watched.until(deadline, |all| {
        let Some(one) = all.first() else { return Some(true) };
        if is_over(one) {
            return Some(true);
        }
        if !is_cut_off(one) {
            dead_since = None;
            return None;
        }
        let since = *dead_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= DEAD).then_some(false)
    });
    match end.await {
        Ok(true) => step.done(format!("Successfully unpeered from remote cluster {name:?}")),
        Ok(false) => step.warn(format!(
            "the remote cluster {name:?} cannot be reached through the tunnel: what is left of the peering is removed on both clusters"
        )),
        Err(error) => {
            let last = watched.now().first().map_or_else(|| foreign.clone(), |one| one.as_ref().clone());
            let aspects = [Type::OutgoingPeering, Type::IncomingPeering];
            let open = aspects.into_iter().find(|aspect| condition::status(&last, *aspect) != Status::None);
            let stand = condition::explain(&last, open.unwrap_or(Type::OutgoingPeering));
            return Err(anyhow!("Failed unpeering from remote cluster {name:?}: {error}: {stand}"));
        }
    }
    Ok(())
}

fn is_over(foreign: &ForeignCluster) -> bool {
    let none = |aspect| condition::status(foreign, aspect) == Status::None;
    none(Type::OutgoingPeering) && none(Type::IncomingPeering)
}

/// Neither the tunnel nor the API server behind it answers.
fn is_cut_off(foreign: &ForeignCluster) -> bool {
    let established = |aspect| condition::status(foreign, aspect) == Status::Established;
    !established(Type::NetworkStatus) && !established(Type::APIServerStatus)
}

/// Removes everything that was made for the other side, on both sides.
async fn clear(pair: &Pair, known: &[Option<ForeignCluster>; 2], deadline: Deadline) -> anyhow::Result<()> {
    for (side, peer) in pair.ways() {
        if let Err(error) = hide(side, peer).await {
            // The addresses are freed with the network of the peer, too.
            side.out
                .warn(format!("addresses for remote cluster {:?} not unmapped: {error:#}", peer.identity.cluster_name));
        }
    }
    let [here, there] = pair.ways();
    tokio::try_join!(forget(here, known[0].as_ref(), deadline), forget(there, known[1].as_ref(), deadline))?;
    let mut rooms = Vec::new();
    for (side, peer) in pair.ways() {
        rooms.push((side, peer, tenants(side, peer).await.with_context(|| side.called())?));
    }
    // Both sides begin before either is waited for: what holds one may be held by the other.
    for (side, _, namespaces) in &rooms {
        disconnect(side, namespaces).await.with_context(|| side.called())?;
    }
    for (side, _, namespaces) in &rooms {
        disconnected(side, namespaces, deadline).await;
        for one in namespaces.iter().filter(|one| one.metadata.deletion_timestamp.is_none()) {
            side.cluster.remove(one).await.with_context(|| side.called())?;
        }
    }
    for (side, peer, namespaces) in &rooms {
        gone(side, peer, namespaces, deadline).await.with_context(|| side.called())?;
    }
    Ok(())
}

/// Takes back the addresses under which the other side reached proxy and authentication service.
async fn hide(side: &Side, peer: &Side) -> anyhow::Result<()> {
    let shown = side.shown().await?;
    let mut ipam = Ipam::open(side).await?;
    for (what, address) in shown {
        let (ip, name) = (address.ip, &peer.identity.cluster_name);
        match ipam.unmap(&peer.identity.cluster_id, ip).await {
            Ok(()) => side.out.done(format!("{what} address \"{ip}\" unmapped for remote cluster {name:?}")),
            Err(error) => {
                side.out.warn(format!("{what} address \"{ip}\" not unmapped for remote cluster {name:?}: {error}"));
            }
        }
    }
    ipam.close();
    Ok(())
}

/// Removes what one side knows of the other: its `ForeignCluster` and its token.
async fn forget(
    (side, peer): (&Side, &Side),
    foreign: Option<&ForeignCluster>,
    deadline: Deadline,
) -> anyhow::Result<()> {
    if let Some(foreign) = foreign {
        unknown((side, peer), foreign, deadline).await.with_context(|| side.called())?;
    }
    let tokens = format!("{},{}={}", label::AUTH_TOKEN, label::CLUSTER_ID, peer.identity.cluster_id);
    for secret in side.cluster.list::<Secret>(&side.namespace, &tokens).await? {
        side.cluster.remove(&secret).await?;
    }
    Ok(())
}

async fn unknown((side, peer): (&Side, &Side), foreign: &ForeignCluster, deadline: Deadline) -> anyhow::Result<()> {
    let name = &peer.identity.cluster_name;
    let step = side.out.step(format!("Deleting foreigncluster for remote cluster {name:?}"));
    side.cluster.remove(foreign).await?;
    let watched = Watched::<ForeignCluster>::one(&side.cluster, "", &foreign.name_any());
    let gone = watched.until(deadline, |all| all.iter().all(|one| one.uid() != foreign.uid()).then_some(())).await;
    if let Err(error) = gone {
        let held = watched.now().first().map(|one| one.finalizers().join(", ")).unwrap_or_default();
        bail!("{error}: the foreign cluster {:?} is still held by {held}", foreign.name_any());
    }
    step.done(format!("foreigncluster deleted for remote cluster {name:?}"));
    Ok(())
}

/// The tenant namespaces of the other side.
async fn tenants(side: &Side, peer: &Side) -> anyhow::Result<Vec<Namespace>> {
    let selector = format!("{}=true,{}={}", label::TENANT_NAMESPACE, label::CLUSTER_ID, peer.identity.cluster_id);
    Ok(side.cluster.list("", &selector).await?)
}

/// Takes back what makes the tunnel. A namespace in which objects are still held when it is deleted goes seconds later
/// than an empty one.
async fn disconnect(side: &Side, namespaces: &[Namespace]) -> anyhow::Result<()> {
    for one in namespaces {
        for config in side.cluster.list::<NetworkConfig>(&one.name_any(), "").await? {
            side.cluster.remove(&config).await?;
        }
    }
    Ok(())
}

/// Waits until the tunnel is down. Should that take long, the namespace will tell what holds it.
async fn disconnected(side: &Side, namespaces: &[Namespace], deadline: Deadline) {
    let _step = side.out.step("Removing the tunnel");
    let deadline = deadline.within(TUNNEL);
    for one in namespaces {
        let _ = Watched::<NetworkConfig>::labelled(&side.cluster, &one.name_any(), "").gone(deadline).await;
        let _ = Watched::<TunnelEndpoint>::labelled(&side.cluster, &one.name_any(), "").gone(deadline).await;
    }
}

async fn gone(side: &Side, peer: &Side, namespaces: &[Namespace], deadline: Deadline) -> anyhow::Result<()> {
    let who = &peer.identity.cluster_name;
    if namespaces.is_empty() {
        let name = naming::tenant_namespace(&peer.identity);
        side.out.warn(format!("tenant namespace {name:?} for remote cluster {who:?} not found"));
    }
    for one in namespaces {
        let name = one.name_any();
        let step = side.out.step(format!("Deleting tenant namespace {name:?}"));
        let watched = Watched::<Namespace>::one(&side.cluster, "", &name);
        let left = watched.until(deadline, |all| all.iter().all(|left| left.uid() != one.uid()).then_some(())).await;
        if left.is_err() {
            let holds = watched.now().first().map(|left| held_by(left)).unwrap_or_default();
            bail!("timeout expired while waiting for the tenant namespace {name:?} to be deleted{holds}");
        }
        step.done(format!("tenant namespace {name:?} correctly removed for remote cluster {who:?}"));
    }
    Ok(())
}

/// What Kubernetes says of a namespace that does not go.
fn held_by(namespace: &Namespace) -> String {
    let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let open = conditions.iter().filter(|one| one.status == "True").filter_map(|one| one.message.clone());
    let open: Vec<_> = open.filter(|message| !message.is_empty()).collect();
    if open.is_empty() { String::new() } else { format!(": {}", open.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn foreign(conditions: Value) -> ForeignCluster {
        serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "rome"},
            "spec": {"foreignAuthUrl": "https://a.b"}, "status": {"peeringConditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn a_peering_is_over_when_neither_direction_is_left() {
        for (outgoing, incoming, over) in [
            ("None", "None", true),
            ("Disconnecting", "None", false),
            ("None", "Established", false),
            ("Pending", "Pending", false),
        ] {
            let one = foreign(
                json!([{"type": "OutgoingPeering", "status": outgoing}, {"type": "IncomingPeering", "status": incoming}]),
            );
            assert_eq!(is_over(&one), over, "{outgoing} {incoming}");
        }
        assert!(is_over(&foreign(json!([]))), "what was never reported is not there");
    }

    #[test]
    fn only_a_peer_that_nothing_leads_to_is_cut_off() {
        for (network, api, cut) in [
            ("Established", "Established", false),
            ("Error", "Established", false),
            ("Established", "Error", false),
            ("Error", "Error", true),
            ("None", "Error", true),
        ] {
            let one = foreign(
                json!([{"type": "NetworkStatus", "status": network}, {"type": "APIServerStatus", "status": api}]),
            );
            assert_eq!(is_cut_off(&one), cut, "{network} {api}");
        }
    }

    #[test]
    fn a_namespace_that_stays_says_why() {
        let one = |conditions: Value| -> Namespace {
            serde_json::from_value(json!({"metadata": {"name": "x"}, "status": {"conditions": conditions}})).unwrap()
        };
        let held = one(json!([
            {"type": "NamespaceContentRemaining", "status": "True", "message": "tunnelendpoints.net.liqo.io has 1 resource instances", "reason": "SomeResourcesRemain"},
            {"type": "NamespaceDeletionContentFailure", "status": "False", "message": "fine", "reason": "ContentDeleted"}]));
        assert_eq!(held_by(&held), ": tunnelendpoints.net.liqo.io has 1 resource instances");
        assert_eq!(held_by(&one(json!([]))), "");
    }
}
