//! `liqoctl cordon|uncordon|drain|evict tenant`: the grants to a cluster that consumes resources of this cluster.
//!
//! Writes    `ForeignCluster`: the annotation `liqo.io/tenant-condition`; `evict` also both directions of the peering, and
//!           when the last certificate of the tenant ends, which is recorded beyond the end of the ban.
//! Removes   what [`stranger`] removes.

mod belongings;
mod drain;
pub(crate) mod stranger;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node},
        rbac::v1::RoleBinding,
    },
    jiff::Timestamp,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type, PeeringEnabled},
    meta::annotation,
};
use liqo_core::peering::id_of;
use liqo_kube::Cluster;
use serde_json::{Value, json};

use self::{
    belongings::{Belongings, is_bound, is_made_for_map, is_shared},
    stranger::Stranger,
};
use crate::{
    clusters::ConnectionArgs,
    completion, condition, flag,
    out::Out,
    wait::{Deadline, Watched},
};

/// Arguments of `cordon`, `uncordon`, `drain` and `evict`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct TenantArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// A cluster that consumes resources of this cluster
    ///
    /// Examples:
    ///   liqoctl cordon tenant rome
    ///   liqoctl drain tenant rome
    ///   liqoctl evict tenant rome
    ///   liqoctl uncordon tenant rome
    #[command(verbatim_doc_comment)]
    Tenant(NameArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct NameArgs {
    /// Name of the ForeignCluster, or the ID of its cluster. `evict` also takes the tenant namespace, the name or the ID of a
    /// cluster that was let in and has no ForeignCluster: `liqoctl status peer` lists them
    #[arg(value_name = "FOREIGN CLUSTER", value_parser = clap::builder::NonEmptyStringValueParser::new(), add = clap_complete::ArgValueCompleter::new(completion::foreign_clusters))]
    name: String,
}

/// Arguments of `evict`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EvictArgs {
    #[command(flatten)]
    waiting: WaitingArgs,
    /// Print what would be ended, and change nothing
    #[arg(long, global = true)]
    dry_run: bool,
}

/// Arguments of `drain` and `evict`, which wait.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WaitingArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The timeout for completion. A drain takes as long as the withdrawal deadline of this cluster at most, 5m by default
    #[arg(long, global = true, default_value = "6m", value_parser = flag::duration, value_name = "DURATION")]
    timeout: Duration,
}

/// The decision about a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is given nothing new.
    Cordon,
    /// The tenant gets what its ForeignCluster allows.
    Uncordon,
    /// The resources of the tenant are taken back.
    Drain,
    /// The tenant gets nothing, and its requests are refused.
    Evict,
}

impl Verdict {
    /// What is written.
    fn patch(self) -> Value {
        let value = match self {
            Self::Cordon => json!("Cordoned"),
            Self::Uncordon => Value::Null,
            Self::Drain => json!("Drained"),
            Self::Evict => json!("Banned"),
        };
        let mut patch = json!({"metadata": {"annotations": {annotation::TENANT_CONDITION: value}}});
        if self == Self::Evict {
            patch["spec"] = json!({"incomingPeeringEnabled": "No", "outgoingPeeringEnabled": "No"});
        }
        patch
    }

    /// Whether the `ForeignCluster` says so already.
    fn is_in_force(self, foreign: &ForeignCluster) -> bool {
        let patch = self.patch();
        let wanted = patch["metadata"]["annotations"][annotation::TENANT_CONDITION].as_str();
        let spec = &foreign.spec;
        let is_closed = [spec.incoming_peering_enabled, spec.outgoing_peering_enabled] == [PeeringEnabled::No; 2];
        foreign.annotations().get(annotation::TENANT_CONDITION).map(String::as_str) == wanted
            && (self != Self::Evict || is_closed)
    }

    /// Reason and message of the Event.
    fn event(self) -> (&'static str, &'static str) {
        match self {
            Self::Cordon => ("TenantCordoned", "The cluster keeps what it has here and is granted nothing new"),
            Self::Uncordon => ("TenantUncordoned", "The cluster is granted again what this ForeignCluster says"),
            Self::Drain => ("TenantDrained", "What the cluster has here is taken back"),
            Self::Evict => ("TenantEvicted", "Everything the cluster has here is ended, and it is not heard any more"),
        }
    }
}

/// `liqoctl drain tenant …`, which waits for the pods of the tenant to end.
pub(crate) async fn drain(args: WaitingArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    decide(Verdict::Drain, args.tenant, args.timeout, connection).await
}

/// `liqoctl evict tenant …`, which waits for everything of the tenant to end.
pub(crate) async fn evict(args: EvictArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let EvictArgs { waiting: WaitingArgs { tenant, timeout }, dry_run } = args;
    if dry_run { show(tenant, connection).await } else { decide(Verdict::Evict, tenant, timeout, connection).await }
}

/// Prints what an eviction would end.
async fn show(args: TenantArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let What::Tenant(NameArgs { name }) = args.what;
    let (out, cluster) = (Out::new(false), connection.open().await?.cluster);
    let failed = || format!("Failed to list what the tenant {name:?} has here");
    let lines = match find(&cluster, &name).await.with_context(failed)? {
        Found::Peer(foreign) => Belongings::of(&cluster, &foreign).await.with_context(failed)?.lines(),
        Found::Stranger(one) => stranger::lines(&cluster, &one).await.with_context(failed)?,
    };
    lines.iter().for_each(|line| out.info(format!("Would end: {line}")));
    out.done(format!("{name}: nothing was changed (dry run)"));
    Ok(())
}

/// `liqoctl cordon|uncordon tenant …`, which wait for nothing.
pub(crate) async fn run(verdict: Verdict, args: TenantArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    decide(verdict, args, Duration::ZERO, connection).await
}

async fn decide(
    verdict: Verdict,
    args: TenantArgs,
    timeout: Duration,
    connection: &ConnectionArgs,
) -> anyhow::Result<()> {
    let What::Tenant(NameArgs { name }) = args.what;
    let (out, deadline) = (Out::new(false), Deadline::after(timeout));
    let cluster = connection.open().await?.cluster;
    let failed = || format!("Failed to {} the tenant {name:?}", format!("{verdict:?}").to_lowercase());
    let foreign = match find(&cluster, &name).await.with_context(failed)? {
        Found::Peer(foreign) => *foreign,
        Found::Stranger(one) if verdict == Verdict::Evict => {
            return stranger::end(&cluster, &one, deadline, out).await.with_context(failed);
        }
        Found::Stranger(_) => {
            return Err(anyhow!(
                "it has an identity here and no ForeignCluster, so it is granted nothing: `liqoctl evict tenant {name}` \
                 ends the identity"
            ))
            .with_context(failed);
        }
    };
    let name = foreign.name_any();
    // Listed first: some of it is gone a moment after the decision is written.
    let before = match verdict {
        Verdict::Evict => Some(Belongings::of(&cluster, &foreign).await.with_context(failed)?),
        Verdict::Cordon | Verdict::Uncordon | Verdict::Drain => None,
    };
    let (reason, message) = verdict.event();
    if verdict.is_in_force(&foreign) {
        out.done(format!("{name}: already so: {message}"));
    } else {
        let mut patch = verdict.patch();
        // Kept when the ban is lifted: the certificate counts on.
        if let Some(ends) = before.as_ref().and_then(|before| before.certificate_ends) {
            patch["metadata"]["annotations"][annotation::CERTIFICATE_EXPIRE_TIME] = json!(ends.to_string());
        }
        cluster.merge(&foreign, patch).await.with_context(failed)?;
        cluster.event(&foreign, "liqoctl", "Normal", reason, message).await;
        out.done(format!("{name}: {message}"));
    }
    match verdict {
        Verdict::Cordon => {
            if condition::status(&foreign, Type::IncomingPeering) == Status::None {
                out.info(format!(
                    "{name} takes no resources of this cluster at this time: the decision counts once it asks. To keep new \
                     pods of this cluster off the node of a provider, use `kubectl cordon`"
                ));
            }
            Ok(())
        }
        Verdict::Uncordon => {
            let tenant = Belongings::of(&cluster, &foreign).await.with_context(failed)?;
            if let Some(warning) = still_valid(&name, tenant.certificate_ends, liqo_kube::now().0) {
                out.warn(warning);
            }
            if foreign.spec.incoming_peering_enabled == PeeringEnabled::No {
                out.info("spec.incomingPeeringEnabled says No: set it to Yes or Auto to give the cluster resources");
            }
            Ok(())
        }
        Verdict::Drain => drain::finished(&cluster, &foreign, deadline, out).await.with_context(failed),
        Verdict::Evict => match before {
            Some(before) => ended(&cluster, &before, deadline, out).await.with_context(failed),
            None => Ok(()),
        },
    }
}

/// A tenant, as it was named.
enum Found {
    Peer(Box<ForeignCluster>),
    Stranger(Stranger),
}

/// The tenant of this name: the name of a `ForeignCluster` comes before the ID of a cluster, and both before a cluster that
/// has no `ForeignCluster`.
async fn find(cluster: &Cluster, name: &str) -> anyhow::Result<Found> {
    let known: Vec<ForeignCluster> = cluster.list("", "").await?;
    let named = known.iter().find(|one| one.name_any() == name).or_else(|| known.iter().find(|one| id_of(one) == name));
    if let Some(foreign) = named {
        return Ok(Found::Peer(Box::new(foreign.clone())));
    }
    let mut called = stranger::list(cluster, &known).await?;
    called.retain(|one| one.is_called(name));
    match (called.pop(), called.is_empty()) {
        (Some(one), true) => Ok(Found::Stranger(one)),
        (Some(_), false) => {
            Err(anyhow!("several clusters are called {name:?}: use the cluster ID that `liqoctl status peer` shows"))
        }
        (None, _) => Err(anyhow!(
            "foreignclusters.discovery.liqo.io {name:?} not found, and no cluster of this name or ID has an identity here"
        )),
    }
}

/// The warning when a ban is lifted before the certificates that the tenant had have ended: no API server can be told that a
/// certificate counts no more.
fn still_valid(name: &str, ends: Option<i64>, now: Timestamp) -> Option<String> {
    let ends = Timestamp::from_second(ends?).ok().filter(|ends| *ends > now)?;
    Some(format!(
        "a certificate that this cluster gave to {name} is valid until {ends}: whoever has its key has the rights of the cluster \
         again once it is peered again. If the key may be stolen, evict the tenant again and lift the ban after that time"
    ))
}

/// Waits until every object of the tenant is gone, and prints the ended objects: those that were there before the tenant was
/// evicted.
async fn ended(cluster: &Cluster, before: &Belongings, deadline: Deadline, out: Out) -> anyhow::Result<()> {
    let step = out.step("Ending what the tenant has here");
    let (tenant, id) = (before.tenant.as_deref(), before.id.as_str());
    if let Some(tenant) = tenant {
        let roles = Watched::<RoleBinding>::labelled(cluster, tenant, "");
        roles.until(deadline, |all| (!all.iter().any(|one| is_bound(one, id))).then_some(())).await?;
        step.say("The tenant has no rights any more: ending what it made");
    }
    namespaces_ended(&Watched::labelled(cluster, "", &before.made()), deadline).await?;
    Watched::<Node>::labelled(cluster, "", &before.virtual_nodes()).gone(deadline).await?;
    let tenants = Watched::<Namespace>::labelled(cluster, "", &before.shared());
    tenants.until(deadline, |all| (!all.iter().any(|one| is_shared(one, tenant, id))).then_some(())).await?;
    before.lines().iter().for_each(|line| out.info(format!("Ended: {line}")));
    step.done("Nothing of the tenant is left; its certificate has no rights");
    Ok(())
}

/// Waits until no namespace that was made for the tenant is left.
async fn namespaces_ended(namespaces: &Watched<Namespace>, deadline: Deadline) -> anyhow::Result<()> {
    let left = |all: &[Arc<Namespace>]| -> Vec<_> {
        all.iter().filter(|one| is_made_for_map(one)).map(|one| one.name_any()).collect()
    };
    let gone = namespaces.until(deadline, |all| left(all).is_empty().then_some(())).await;
    gone.map_err(|error| {
        anyhow!("{error}: the namespaces {} are still being deleted", left(&namespaces.now()).join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_annotation_and_an_eviction_ends_the_peering() {
        let condition =
            |verdict: Verdict| verdict.patch()["metadata"]["annotations"]["liqo.io/tenant-condition"].clone();
        assert_eq!(condition(Verdict::Cordon), "Cordoned");
        assert_eq!(condition(Verdict::Drain), "Drained");
        assert_eq!(condition(Verdict::Evict), "Banned");
        assert_eq!(condition(Verdict::Uncordon), Value::Null);
        assert!(Verdict::Drain.patch().get("spec").is_none());
        assert_eq!(Verdict::Evict.patch()["spec"]["incomingPeeringEnabled"], "No");
    }

    #[test]
    fn a_ban_that_is_lifted_before_the_certificate_ends_is_warned_of() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let warning = still_valid("rome", Some(2000), at(1999)).unwrap();
        assert!(warning.contains("rome is valid until 1970-01-01T00:33:20Z"), "{warning}");
        for ends in [Some(2000), Some(i64::MAX), None] {
            assert_eq!(still_valid("rome", ends, at(2000)), None, "{ends:?}");
        }
    }

    #[test]
    fn a_verdict_that_is_in_force_is_not_written_again() {
        let peer = |condition: Option<&str>, enabled: &str| -> ForeignCluster {
            serde_json::from_value(json!({
                "metadata": {"name": "rome", "annotations": {"liqo.io/tenant-condition": condition.unwrap_or_default()}},
                "spec": {"foreignAuthUrl": "https://a.b", "outgoingPeeringEnabled": enabled, "incomingPeeringEnabled": enabled},
            }))
            .map(|mut one: ForeignCluster| {
                one.metadata.annotations = one.metadata.annotations.filter(|_| condition.is_some());
                one
            })
            .unwrap()
        };
        for (verdict, condition, enabled, in_force) in [
            (Verdict::Cordon, None, "Auto", false),
            (Verdict::Cordon, Some("Cordoned"), "Auto", true),
            (Verdict::Cordon, Some("Drained"), "Auto", false),
            (Verdict::Uncordon, None, "No", true),
            (Verdict::Uncordon, Some("Baned"), "Auto", false),
            (Verdict::Evict, Some("Banned"), "Auto", false),
            (Verdict::Evict, Some("Banned"), "No", true),
        ] {
            let found = verdict.is_in_force(&peer(condition, enabled));
            assert_eq!(found, in_force, "{verdict:?} {condition:?} {enabled}");
        }
    }
}
