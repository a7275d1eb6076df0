//! Waiting until a tenant has taken its pods back.

use std::sync::Arc;

use anyhow::anyhow;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type},
    meta::label,
};
use liqo_kube::Cluster;

use super::namespaces_ended;
use crate::{
    condition,
    out::Out,
    peer::identity,
    wait::{Deadline, Watched},
};

/// Waits until the tenant uses no resource of this cluster.
pub(super) async fn finished(
    cluster: &Cluster,
    foreign: &ForeignCluster,
    deadline: Deadline,
    out: Out,
) -> anyhow::Result<()> {
    let (name, id) = (&foreign.name_any(), identity(foreign).cluster_id);
    let step = out.step("Waiting until the tenant has taken its pods back");
    let watched = Watched::<ForeignCluster>::one(cluster, "", name);
    let uses = |one: &ForeignCluster| {
        matches!(condition::status(one, Type::IncomingPeering), Status::Established | Status::Disconnecting)
    };
    let pods = Watched::<Pod>::labelled(cluster, "", &format!("{}={id}", label::REFLECTION_ORIGIN));
    let idle = |all: &[Arc<ForeignCluster>]| {
        step.say(format!("Waiting until the tenant has taken its pods back: {}", left(&pods.now())));
        (!all.iter().any(|one| uses(one))).then_some(())
    };
    watched.until(deadline, idle).await.map_err(|error| {
        let left = left(&pods.now());
        anyhow!(
            "{error}: {left}. It goes on: the tenant evicts its pods within its PodDisruptionBudgets, and what is left when the \
             withdrawal deadline of this cluster is over is ended"
        )
    })?;
    let namespaces = Watched::<Namespace>::labelled(cluster, "", &format!("{}={id}", label::REMOTE_CLUSTER_ID));
    namespaces_ended(&namespaces, deadline).await?;
    step.done("The tenant uses nothing of this cluster any more");
    Ok(())
}

/// What is left of the pods of a tenant: their number and the names of the first three.
fn left(pods: &[Arc<Pod>]) -> String {
    let mut names: Vec<_> =
        pods.iter().map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())).collect();
    names.sort();
    let more = if names.len() > 3 { ", …" } else { "" };
    let count = names.len();
    names.truncate(3);
    if count == 0 { "no pods left".to_owned() } else { format!("pods left: {count} ({}{more})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_that_are_left_are_counted_and_three_are_named() {
        let pods = |count: usize| -> Vec<Arc<Pod>> {
            let pod = |n| serde_json::from_value(json!({"metadata": {"namespace": "demo", "name": format!("p{n}")}}));
            (0..count).map(|n| Arc::new(pod(n).unwrap())).collect()
        };
        for (count, wanted) in
            [(0, "no pods left"), (1, "pods left: 1 (demo/p0)"), (4, "pods left: 4 (demo/p0, demo/p1, demo/p2, …)")]
        {
            assert_eq!(left(&pods(count)), wanted);
        }
    }
}
