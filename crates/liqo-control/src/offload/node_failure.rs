//! Nodes that fail: pods of peers that hang on them are let go, so that they are made again elsewhere.
//!
//! Keeps true: no pod made from a shadow stays terminating on a node that is not ready, once its own
//! grace period is over. Only with `--enable-node-failure-controller`.
//!
//! Watches   `Node`s, `Pod`s made from shadow pods.
//! Writes    nothing.
//! Removes   those pods, without grace.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use liqo_kube::{KubeError, Store, drive, now};

use super::{Shared, shadow_pod::Pods};
use crate::home::Home;

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, pods: Pods) {
    let queue = pods.nodes.clone();
    let seen = queue.clone();
    let nodes = shared.memory.nodes.listen(move |node| seen.push(node.name_any()));
    nodes.ready().await;
    pods.store.ready().await;
    let (home, nodes, pods) = (&shared.home, &nodes, &pods.store);
    drive("node-failure", queue, 1, |name| settle(home, nodes, pods, name)).await;
}

async fn settle(
    home: &Home,
    nodes: &Store<Node>,
    pods: &Store<Pod>,
    name: String,
) -> Result<Option<Duration>, KubeError> {
    let failed = nodes.get("", &name).is_some_and(|node| !is_ready(&node));
    let leaving = |pod: &Pod| node_of(pod) == Some(&*name) && super::is_leaving(pod);
    if !failed {
        return Ok(None);
    }
    let mut again: Option<Duration> = None;
    for pod in pods.filter(leaving) {
        match grace_left(&pod, &now()) {
            Some(left) => again = Some(again.map_or(left, |other| other.min(left))),
            None => {
                home.cluster.remove_now(&*pod).await?;
                tracing::info!(pod = pod.name_any(), namespace = pod.namespace(), node = name, "pod let go");
            }
        }
    }
    Ok(again)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// How long a terminating pod still has; the deletion time already includes its grace period.
fn grace_left(pod: &Pod, now: &Time) -> Option<Duration> {
    let end = pod.metadata.deletion_timestamp.as_ref()?;
    let left = u64::try_from(end.0.as_second() - now.0.as_second()).ok()?;
    (left > 0).then(|| Duration::from_secs(left))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::{NodeCondition, NodeStatus},
        jiff::Timestamp,
    };

    use super::*;

    fn node(status: &str) -> Node {
        let condition =
            NodeCondition { type_: "Ready".to_owned(), status: status.to_owned(), ..NodeCondition::default() };
        let status = NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() };
        Node { status: Some(status), ..Node::default() }
    }

    #[test]
    fn a_node_is_ready_only_when_it_says_so() {
        assert!(is_ready(&node("True")));
        assert!(!is_ready(&node("False")));
        assert!(!is_ready(&node("Unknown")));
        assert!(!is_ready(&Node::default()));
    }

    #[test]
    fn a_pod_keeps_its_grace() {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let mut pod = Pod::default();
        assert_eq!(grace_left(&pod, &at(0)), None);
        pod.metadata.deletion_timestamp = Some(at(30));
        assert_eq!(grace_left(&pod, &at(10)), Some(Duration::from_secs(20)));
        assert_eq!(grace_left(&pod, &at(30)), None);
        assert_eq!(grace_left(&pod, &at(31)), None);
    }
}
