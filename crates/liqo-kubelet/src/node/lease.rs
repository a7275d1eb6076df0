//! The node's lease: how Kubernetes sees that this process lives. It is renewed as long as the node is there,
//! whatever the other cluster does; that one shows in the node's conditions.

use std::time::Duration;

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::core::ObjectMeta;
use liqo_kube::{Cluster, KubeError, Store, owner_reference};
use serde_json::json;

use super::shape::Profile;

/// Where node leases are.
const NAMESPACE: &str = "kube-node-lease";
/// Pause before the next try when the node is not there or a write failed.
const RETRY: Duration = Duration::from_secs(1);

/// Renews the lease for ever.
pub(super) async fn run(home: Cluster, profile: Profile, nodes: Store<Node>, duration: Duration) {
    loop {
        let node = nodes.get("", &profile.name).filter(|node| profile.owns(node));
        let pause = match node {
            None => RETRY,
            Some(node) => match renew(&home, &node, &profile.name, duration).await {
                Ok(()) => duration / 4,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "lease not renewed");
                    RETRY
                }
            },
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(home: &Cluster, node: &Node, name: &str, duration: Duration) -> Result<(), KubeError> {
    let now = MicroTime(Timestamp::now());
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            // The lease goes with the node.
            owner_references: Some(vec![owner_reference(node, false)]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    let patch = json!({"metadata": {"ownerReferences": lease.metadata.owner_references}, "spec": lease.spec});
    match home.merge(&lease, patch).await {
        Err(error) if error.is_not_found() => home.create(&lease).await.map(drop),
        other => other.map(drop),
    }
}
