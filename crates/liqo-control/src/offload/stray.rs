//! Pods on a virtual node whose namespaces are not offloaded to the provider of that node.
//!
//! Keeps true: a pod on a virtual node is looked after by exactly one: by the virtual kubelet where its namespace is offloaded to
//! the provider, else here. A virtual kubelet has no right to write or remove pods anywhere else.
//!
//! Watches   `Pod`s of virtual nodes, with one watch for each node; reads virtual `Node`s and `NamespaceMap`s.
//! Writes    `Pod` status: waiting (`OffloadingBackOff`) if nothing has run yet, else given up
//!           (`OffloadingAborted`), so that its controller makes another one elsewhere.
//! Removes   `Pod` that is to go, or whose node is to go: nothing runs that could confirm it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use liqo_api::meta::reason::{OFFLOADING_ABORTED, OFFLOADING_BACK_OFF};
use liqo_core::mapping;
use liqo_kube::{KubeError, Queue, Store, drive, now, strip};

use super::{Shared, is_leaving, is_original, provider_of};

/// Who tells the user about pods, as Liqo 0.8.3 is called there.
const COMPONENT: &str = "liqo-pod-reflection";
/// Pods looked after at the same time.
const WORKERS: usize = 4;

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A virtual node.
    Node(String),
    /// A provider, by ID: its map.
    Provider(String),
    /// A pod: its node, namespace and name.
    Pod(String, String, String),
}

/// The pods of each virtual node.
type Pods = Mutex<HashMap<String, Store<Pod>>>;

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, queue: Queue<Key>) {
    shared.ready().await;
    let pods = Pods::default();
    drive("strays", queue.clone(), WORKERS, |key| settle(&shared, &pods, &queue, key)).await;
}

async fn settle(shared: &Shared, pods: &Pods, queue: &Queue<Key>, key: Key) -> Result<Option<Duration>, KubeError> {
    match key {
        Key::Provider(id) => {
            let nodes = shared.virtual_nodes_of(&id);
            nodes.iter().for_each(|node| queue.push(Key::Node(node.name_any())));
        }
        Key::Node(node) => follow(shared, pods, queue, &node),
        Key::Pod(node, namespace, name) => {
            let known = lock(pods).get(&node).and_then(|store| store.get(&namespace, &name));
            if let (Some(pod), Some(node)) = (known, shared.virtual_node(&node)) {
                look_after(shared, &node, &pod).await?;
            }
        }
    }
    Ok(None)
}

fn lock(pods: &Pods) -> std::sync::MutexGuard<'_, HashMap<String, Store<Pod>>> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches the pods of a virtual node for as long as the node exists, and looks at those that are known.
fn follow(shared: &Shared, pods: &Pods, queue: &Queue<Key>, node: &str) {
    let mut pods = lock(pods);
    if shared.virtual_node(node).is_none() {
        pods.remove(node);
        return;
    }
    let key = |node: &str, pod: &Pod| Key::Pod(node.to_owned(), pod.namespace().unwrap_or_default(), pod.name_any());
    let store = pods.entry(node.to_owned()).or_insert_with(|| {
        let (queue, node) = (queue.clone(), node.to_owned());
        let watch = shared.home.cluster.watch::<Pod>("").fields(&format!("spec.nodeName={node}"));
        watch.trim(only_status).start(move |pod: &Pod| queue.push(key(&node, pod)))
    });
    store.all().iter().for_each(|pod| queue.push(key(node, pod)));
}

/// Of a pod only its name and its status are kept.
fn only_status(pod: &mut Pod) {
    strip(pod);
    (pod.metadata.labels, pod.metadata.annotations, pod.spec) = (None, None, None);
}

async fn look_after(shared: &Shared, node: &Node, pod: &Pod) -> Result<(), KubeError> {
    let provider = provider_of(node);
    let namespace = pod.namespace().unwrap_or_default();
    let maps = shared.memory.maps.filter(|map| is_original(map) && provider_of(map) == provider);
    if maps.iter().any(|map| mapping::reflected(map).contains_key(&namespace)) {
        return Ok(());
    }
    let cluster = &shared.home.cluster;
    match judge(pod, is_leaving(node), &now()) {
        Verdict::Nothing => {}
        Verdict::Delete => cluster.remove_now(pod).await?,
        Verdict::Reject(status) => {
            if cluster.put_status_as_seen(pod, &*status).await?.is_some() {
                let peer = shared.peer(provider).and_then(|peer| peer.spec.cluster_identity.clone());
                let peer = peer.map_or_else(|| provider.to_owned(), |identity| identity.cluster_name);
                let text = format!("Reflection to cluster \"{peer}\" disabled for namespace \"{namespace}\"");
                cluster.event(pod, COMPONENT, "Warning", "ReflectionDisabled", &text).await;
            }
        }
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Nothing,
    Delete,
    Reject(Box<PodStatus>),
}

/// What becomes of a pod nobody runs.
fn judge(pod: &Pod, node_leaves: bool, now: &Time) -> Verdict {
    if node_leaves || is_leaving(pod) {
        return Verdict::Delete;
    }
    let status = pod.status.clone().unwrap_or_default();
    let started = status.container_statuses.as_ref().is_some_and(|statuses| !statuses.is_empty());
    let (phase, reason) = match status.phase.as_deref() {
        Some("Succeeded") => return Verdict::Nothing,
        Some("Pending") | None if !started => ("Pending", OFFLOADING_BACK_OFF),
        _ => ("Failed", OFFLOADING_ABORTED),
    };
    if status.phase.as_deref() == Some(phase) && status.reason.as_deref() == Some(reason) {
        return Verdict::Nothing;
    }
    Verdict::Reject(Box::new(reject(status, phase, reason, now)))
}

fn reject(mut status: PodStatus, phase: &str, reason: &str, now: &Time) -> PodStatus {
    status.phase = Some(phase.to_owned());
    status.reason = Some(reason.to_owned());
    for condition in status.conditions.iter_mut().flatten().filter(|condition| condition.status == "True") {
        "False".clone_into(&mut condition.status);
        condition.reason = Some(reason.to_owned());
        condition.last_transition_time = Some(now.clone());
    }
    for container in status.container_statuses.iter_mut().flatten() {
        container.ready = false;
    }
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: &Value, leaving: bool) -> Value {
        verdict(status, leaving, false)
    }

    fn verdict(status: &Value, leaving: bool, node_leaves: bool) -> Value {
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": status})).unwrap();
        pod.metadata.deletion_timestamp = leaving.then(super::now);
        let now = Time(k8s_openapi::jiff::Timestamp::from_second(7).unwrap());
        match judge(&pod, node_leaves, &now) {
            Verdict::Nothing => json!("nothing"),
            Verdict::Delete => json!("delete"),
            Verdict::Reject(status) => {
                assert_eq!(
                    judge(&Pod { status: Some(*status.clone()), ..pod }, node_leaves, &now),
                    Verdict::Nothing,
                    "once is enough"
                );
                serde_json::to_value(status).unwrap()
            }
        }
    }

    #[test]
    fn what_becomes_of_pods_nobody_runs() {
        let container = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2}]);
        let phase = |status: &Value| (judged(status, false)["phase"].clone(), judged(status, false)["reason"].clone());
        assert_eq!(judged(&json!({"phase": "Running"}), true), "delete");
        assert_eq!(verdict(&json!({"phase": "Pending"}), false, true), "delete", "its node goes");
        assert_eq!(judged(&json!({"phase": "Succeeded"}), false), "nothing");
        assert_eq!(phase(&json!({"phase": "Pending"})), (json!("Pending"), json!(OFFLOADING_BACK_OFF)));
        let aborted = (json!("Failed"), json!(OFFLOADING_ABORTED));
        assert_eq!(phase(&json!({"phase": "Pending", "containerStatuses": container})), aborted);
        assert_eq!(phase(&json!({"phase": "Running"})), aborted);
        assert_eq!(phase(&json!({"phase": "Failed", "reason": "Error"})), aborted);
    }

    #[test]
    fn a_rejected_pod_is_not_ready_and_keeps_the_rest() {
        let status = json!({
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Own", "status": "False", "reason": "x"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2}],
        });
        let rejected = judged(&status, false);
        assert_eq!(
            rejected["conditions"],
            json!([
                {"type": "Ready", "status": "False", "reason": OFFLOADING_ABORTED, "lastTransitionTime": "1970-01-01T00:00:07Z"},
                {"type": "Own", "status": "False", "reason": "x"},
            ])
        );
        assert_eq!(rejected["containerStatuses"][0]["ready"], json!(false));
        assert_eq!(
            (&rejected["podIP"], &rejected["containerStatuses"][0]["restartCount"]),
            (&json!("10.0.0.1"), &json!(2))
        );
    }
}
