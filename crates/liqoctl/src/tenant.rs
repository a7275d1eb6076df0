//! `liqoctl cordon|uncordon|drain|evict tenant`: the grants to a cluster that consumes resources of this cluster.
//!
//! Writes    `ForeignCluster`: the annotation `liqo.io/tenant-condition`; `evict` also both directions of the peering.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use k8s_openapi::api::{
    core::v1::{Namespace, Node},
    rbac::v1::RoleBinding,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type},
    meta::{annotation, label},
};
use liqo_core::naming;
use liqo_kube::Cluster;
use serde_json::{Value, json};

use crate::{
    clusters::ConnectionArgs,
    completion, condition, flag,
    out::{Out, Step},
    peer::{get, identity},
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
    /// Name of the ForeignCluster
    #[arg(value_name = "FOREIGN CLUSTER", add = clap_complete::ArgValueCompleter::new(completion::foreign_clusters))]
    name: String,
    /// The timeout for completion
    #[arg(long, default_value = "120s", value_parser = flag::duration, value_name = "DURATION")]
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

/// `liqoctl cordon|uncordon|drain|evict tenant …`
pub(crate) async fn run(verdict: Verdict, args: TenantArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let What::Tenant(NameArgs { name, timeout }) = args.what;
    let (out, deadline) = (Out::new(false), Deadline::after(timeout));
    let cluster = connection.open().await?.cluster;
    let failed = || format!("Failed to {} the tenant {name:?}", format!("{verdict:?}").to_lowercase());
    let foreign = get(&cluster, &name).await.with_context(failed)?;
    cluster.merge(&foreign, verdict.patch()).await.with_context(failed)?;
    let (reason, message) = verdict.event();
    cluster.event(&foreign, "liqoctl", "Normal", reason, message).await;
    out.done(format!("{name}: {message}"));
    match verdict {
        Verdict::Cordon => Ok(()),
        Verdict::Uncordon => {
            if foreign.spec.incoming_peering_enabled == liqo_api::discovery::PeeringEnabled::No {
                out.info("spec.incomingPeeringEnabled says No: set it to Yes or Auto to give the cluster resources");
            }
            Ok(())
        }
        Verdict::Drain => drained(&cluster, &name, deadline, out).await.with_context(failed),
        Verdict::Evict => ended(&cluster, &foreign, deadline, out).await.with_context(failed),
    }
}

/// Waits until the tenant uses no resource of this cluster.
async fn drained(cluster: &Cluster, name: &str, deadline: Deadline, out: Out) -> anyhow::Result<()> {
    let step = out.step("Waiting until the tenant has taken its pods back");
    let watched = Watched::<ForeignCluster>::one(cluster, "", name);
    let uses = |one: &ForeignCluster| {
        matches!(condition::status(one, Type::IncomingPeering), Status::Established | Status::Disconnecting)
    };
    watched.until(deadline, |all| (!all.iter().any(|one| uses(one))).then_some(())).await.map_err(|error| {
        anyhow!("{error}: it goes on, and ends when the withdrawal deadline of this cluster is over")
    })?;
    step.done("The tenant uses nothing of this cluster any more");
    Ok(())
}

/// Waits until every object of the tenant is gone, and prints the ended objects.
async fn ended(cluster: &Cluster, foreign: &ForeignCluster, deadline: Deadline, out: Out) -> anyhow::Result<()> {
    let id = identity(foreign).cluster_id;
    let step = out.step("Ending what the tenant has here");
    let tenant = foreign.status.as_ref().and_then(|status| status.tenant_namespace.local.clone());
    if let Some(tenant) = &tenant {
        roles_ended(cluster, (tenant, &id), deadline, out, &step).await?;
    }
    let selector = format!("{}={id}", label::REMOTE_CLUSTER_ID);
    let before: Vec<Namespace> = cluster.list("", &selector).await?;
    let namespaces = Watched::<Namespace>::labelled(cluster, "", &selector);
    let left =
        |all: &[Arc<Namespace>]| all.iter().filter(|one| is_made_for_map(one)).map(|one| one.name_any()).collect();
    let gone = namespaces.until(deadline, |all| Vec::is_empty(&left(all)).then_some(())).await;
    gone.map_err(|error| {
        let left: Vec<String> = left(&namespaces.now());
        anyhow!("{error}: the namespaces {} are still being deleted", left.join(", "))
    })?;
    for one in before.iter().filter(|one| is_made_for_map(one)) {
        out.info(format!("Ended: namespace {} with all its pods", one.name_any()));
    }
    let selector = format!("{selector},{}={}", label::TYPE, label::VIRTUAL_NODE);
    let nodes: Vec<Node> = cluster.list("", &selector).await?;
    Watched::<Node>::labelled(cluster, "", &selector).gone(deadline).await?;
    for one in &nodes {
        out.info(format!("Ended: virtual node {}", one.name_any()));
    }
    let shared = format!("{},{}={id}", label::TENANT_NAMESPACE, label::CLUSTER_ID);
    let is_shared = |one: &Namespace| naming::tenant_of(one, tenant.as_deref()) == Some(&id);
    let tenants: Vec<Namespace> = cluster.list("", &shared).await?;
    let all = Watched::<Namespace>::labelled(cluster, "", &shared);
    all.until(deadline, |all| (!all.iter().any(|one| is_shared(one))).then_some(())).await?;
    for one in tenants.iter().filter(|one| is_shared(one)) {
        out.info(format!("Ended: tenant namespace {} with requests, offers and the tunnel", one.name_any()));
    }
    step.done("Nothing of the tenant is left; its certificate has no rights");
    Ok(())
}

/// Waits until the tenant has no role in its tenant namespace.
async fn roles_ended(
    cluster: &Cluster,
    (tenant, id): (&str, &str),
    deadline: Deadline,
    out: Out,
    step: &Step,
) -> anyhow::Result<()> {
    let is_theirs =
        |one: &RoleBinding| one.subjects.iter().flatten().any(|subject| subject.kind == "User" && subject.name == id);
    let before: Vec<_> = cluster.list::<RoleBinding>(tenant, "").await?;
    let bindings = Watched::<RoleBinding>::labelled(cluster, tenant, "");
    bindings.until(deadline, |all| (!all.iter().any(|one| is_theirs(one))).then_some(())).await?;
    for one in before.iter().filter(|one| is_theirs(one)) {
        step.say(format!("role binding {tenant}/{} ended", one.name_any()));
        out.info(format!("Ended: role {} in the namespace {tenant}", one.role_ref.name));
    }
    Ok(())
}

/// Whether a namespace was made for a `NamespaceMap`. A namespace that only has the label of a peer is somebody else's, and
/// stays.
fn is_made_for_map(namespace: &Namespace) -> bool {
    namespace.annotations().contains_key(annotation::MANAGED_BY_NAMESPACE_MAP)
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
}
