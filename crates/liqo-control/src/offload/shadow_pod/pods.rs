//! The pods made from `ShadowPod`s, and who is told of their changes.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use kube::ResourceExt;
use liqo_kube::{Queue, Store};

use super::{
    super::{allowance::Place, drift},
    WRITER,
};
use crate::memory::Kept;

/// The pods made from shadow pods, and who wants to know when they change.
#[derive(Clone)]
pub(crate) struct Pods {
    /// The pods; of their specification only what may change is kept.
    pub store: Store<Pod>,
    /// Nodes whose pods have changed.
    pub nodes: Queue<String>,
    /// Pods that have changed.
    pub(super) queue: Queue<Place>,
}

impl Pods {
    /// Pushes pods that change into `queue`.
    pub(crate) fn new(pods: &Kept<Pod>, queue: Queue<Place>) -> Self {
        let nodes = Queue::<String>::new();
        let (seen, node) = (queue.clone(), nodes.clone());
        let store = pods.listen(move |pod| {
            seen.push((pod.namespace().unwrap_or_default(), pod.name_any()));
            if let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
                node.push(name);
            }
        });
        Self { store, nodes, queue }
    }
}

/// Keeps what decisions need: a provider may run thousands of these pods.
pub(crate) fn trim(pod: &mut Pod) {
    drift::keep_fields_of(&mut pod.metadata, WRITER);
    let kept = |all: Vec<Container>| {
        let one = |one: Container| Container {
            name: one.name,
            image: one.image,
            resources: one.resources,
            restart_policy: one.restart_policy,
            ..Container::default()
        };
        all.into_iter().map(one).collect()
    };
    let gates: Vec<_> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .map(|gate| gate.condition_type.clone())
        .collect();
    if let Some(spec) = pod.spec.take() {
        pod.spec = Some(PodSpec {
            containers: kept(spec.containers),
            init_containers: spec.init_containers.map(kept),
            overhead: spec.overhead,
            resources: spec.resources,
            active_deadline_seconds: spec.active_deadline_seconds,
            node_name: spec.node_name,
            termination_grace_period_seconds: spec.termination_grace_period_seconds,
            restart_policy: spec.restart_policy,
            tolerations: spec.tolerations,
            ..PodSpec::default()
        });
    }
    if let Some(status) = pod.status.take() {
        let conditions =
            status.conditions.map(|all| all.into_iter().filter(|one| gates.contains(&one.type_)).collect());
        pod.status = Some(PodStatus { phase: status.phase, conditions, ..Default::default() });
    }
}
