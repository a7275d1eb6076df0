//! A consumer that takes leave and does not move its pods: this cluster evicts them, within its disruption budgets.
//!
//! Keeps true: evictions begin when the consumer's own part of the time is over ([`Policy::evicts_in`]), a pod that a
//! budget protects stays until the deadline, and no evicted pod is made again.
//!
//! Removes   pods of the peer, by the eviction API.
//!
//! [`Policy::evicts_in`]: liqo_core::standing::Policy::evicts_in

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use liqo_core::standing::Grant;
use liqo_kube::{KubeError, Store, now};

use super::{Shared, guest, is_leaving};

/// How soon pods that could not be evicted are asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Evicts the pods of a peer, if it is time; tells when to look again.
///
/// # Errors
/// When the API server refuses, for another reason than a budget.
pub(super) async fn pods(
    shared: &Shared,
    pods: &Store<Pod>,
    peer: &str,
    grant: Grant,
) -> Result<Option<Duration>, KubeError> {
    let wait = shared.ledger.policy.evicts_in(grant, now().0.as_second());
    if wait != Some(Duration::ZERO) {
        return Ok(wait);
    }
    let staying = pods.filter(|pod| guest::origin(&pod.metadata) == peer && !is_leaving(pod));
    let mut trouble = None;
    for pod in &staying {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        match shared.home.cluster.evict(pod).await {
            Ok(true) => tracing::info!(namespace, pod = name, "pod evicted: its peer is granted nothing any more"),
            Ok(false) => tracing::debug!(namespace, pod = name, "a disruption budget forbids the eviction for now"),
            Err(error) => trouble = Some(error),
        }
    }
    trouble.map_or(Ok((!staying.is_empty()).then_some(AGAIN)), Err)
}
