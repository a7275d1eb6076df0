//! A consumer that takes leave and does not move its pods: this cluster evicts them, within its disruption budgets.
//!
//! Keeps true: evictions begin when the consumer's own part of the time is over ([`Policy::evicts_in`]), a pod that a
//! budget protects stays until the deadline, and no evicted pod is made again. Evictions have a queue of their own, whose keys
//! are peers: slow evictions delay no namespaces, and those of one peer delay no other peer.
//!
//! Watches   nothing: the loop of the namespace maps pushes peers that take leave.
//! Removes   pods of the peer, by the eviction API.
//!
//! [`Policy::evicts_in`]: liqo_core::grants::Policy::evicts_in

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use liqo_kube::{KubeError, Queue, Store, drive, now};

use super::{Shared, guest, is_leaving};

/// How soon pods that could not be evicted are asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// Peers whose pods are evicted at the same time.
const PEERS: usize = 32;

/// Runs for ever; keys are IDs of peers.
pub(super) async fn run(shared: Arc<Shared>, pods: Store<Pod>, queue: Queue<String>) {
    pods.ready().await;
    drive("take-back", queue, PEERS, |peer| settle(&shared, &pods, peer)).await;
}

/// Evicts the pods of a peer, if it is time; tells when to look again.
///
/// # Errors
/// When the API server refuses, for another reason than a budget.
async fn settle(shared: &Shared, pods: &Store<Pod>, peer: String) -> Result<Option<Duration>, KubeError> {
    let wait = shared.ledger.policy.evicts_in(shared.ledger.grants(&peer).consumer, now().0.as_second());
    if wait != Some(Duration::ZERO) {
        return Ok(wait);
    }
    let staying = pods.filter(|pod| guest::origin(&pod.metadata) == peer && !is_leaving(pod));
    let again = (!staying.is_empty()).then_some(AGAIN);
    let mut trouble = None;
    for (pod, outcome) in shared.home.cluster.evict_all(staying).await {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        match outcome {
            Ok(true) => tracing::info!(namespace, pod = name, "pod evicted: its peer is granted nothing any more"),
            Ok(false) => tracing::debug!(namespace, pod = name, "a disruption budget forbids the eviction for now"),
            Err(error) => trouble = Some(error),
        }
    }
    trouble.map_or(Ok(again), Err)
}
