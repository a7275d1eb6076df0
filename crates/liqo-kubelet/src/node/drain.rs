//! The end of the node: what to do with it and its pods, until nothing is left.
//!
//! Keeps true: it ends. Pods are asked to leave; when the deadline is over, or the other cluster does not
//! answer and could not confirm anything, they are deleted without asking. All state is in objects, so a
//! restart goes on where it was.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::shape;

/// Marks pods that exist because of a file on a node.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The next step of the end.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub(super) enum Step {
    /// No new pods; remember when this began.
    Cordon,
    /// Ask these pods to leave, then look again.
    Evict(Vec<Arc<Pod>>),
    /// Wait for pods that are leaving.
    Wait,
    /// Delete these pods at once; then the node goes.
    Remove(Vec<Arc<Pod>>),
    /// The node is gone: let go of the offer.
    Release,
}

/// Decides the next step.
pub(super) fn plan(node: Option<&Node>, pods: Vec<Arc<Pod>>, reachable: bool, limit: Duration, now: Timestamp) -> Step {
    let Some(node) = node else { return Step::Release };
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
    let Some(started) = shape::drain_started(node).filter(|_| cordoned) else { return Step::Cordon };
    if node.metadata.deletion_timestamp.is_some() {
        // Whatever pods are left are no reason to hold the offer: the node goes already.
        return Step::Remove(if reachable { Vec::new() } else { pods });
    }
    let late = now.duration_since(started).unsigned_abs() >= limit;
    if pods.is_empty() || late || !reachable {
        return Step::Remove(pods);
    }
    let staying: Vec<_> = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    if staying.is_empty() { Step::Wait } else { Step::Evict(staying) }
}

/// Whether a pod has to leave before its node goes. Pods of a `DaemonSet` and mirror pods come with the
/// node and go with it.
pub(super) fn leaves(pod: &Pod) -> bool {
    let daemon = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    !daemon && !pod.annotations().contains_key(MIRROR)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::NodeSpec,
        apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cordoned(since: i64) -> Node {
        let mut node =
            Node { spec: Some(NodeSpec { unschedulable: Some(true), ..NodeSpec::default() }), ..Node::default() };
        node.annotations_mut().insert(shape::DRAIN_STARTED.into(), at(since).to_string());
        node
    }

    fn pod(name: &str, leaving: bool) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.deletion_timestamp = leaving.then(|| Time(at(0)));
        Arc::new(pod)
    }

    #[test]
    fn the_end_step_by_step() {
        let (stays, goes) = (pod("a", false), pod("b", true));
        let plan = |node: Option<&Node>, pods: &[&Arc<Pod>], reachable, now| {
            super::plan(node, pods.iter().copied().cloned().collect(), reachable, LIMIT, at(now))
        };
        let node = cordoned(100);
        assert_eq!(plan(Some(&Node::default()), &[&stays], true, 100), Step::Cordon);
        assert_eq!(plan(Some(&node), &[&stays, &goes], true, 110), Step::Evict(vec![stays.clone()]));
        assert_eq!(plan(Some(&node), &[&goes], true, 110), Step::Wait);
        assert_eq!(plan(Some(&node), &[&goes], true, 160), Step::Remove(vec![goes.clone()]), "the deadline is over");
        assert_eq!(plan(Some(&node), &[&stays], false, 101), Step::Remove(vec![stays.clone()]), "nobody would confirm");
        assert_eq!(plan(Some(&node), &[], true, 101), Step::Remove(vec![]));
        assert_eq!(plan(None, &[&stays], true, 101), Step::Release);
    }

    #[test]
    fn a_cordon_by_somebody_else_starts_no_clock() {
        let mut node = cordoned(0);
        node.annotations_mut().clear();
        assert_eq!(plan(Some(&node), vec![], true, LIMIT, at(1000)), Step::Cordon);
    }

    #[test]
    fn daemons_and_mirrors_stay() {
        let mut daemon = Pod::default();
        let owner =
            |kind: &str| OwnerReference { kind: kind.into(), controller: Some(true), ..OwnerReference::default() };
        daemon.metadata.owner_references = Some(vec![owner("DaemonSet")]);
        assert!(!leaves(&daemon));
        let mut mirror = Pod::default();
        mirror.annotations_mut().insert(MIRROR.into(), "x".into());
        assert!(!leaves(&mirror));
        let mut plain = Pod::default();
        plain.metadata.owner_references = Some(vec![owner("ReplicaSet")]);
        assert!(leaves(&plain));
    }
}
