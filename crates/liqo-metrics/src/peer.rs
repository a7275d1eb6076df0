//! What runs here for a peer.
//!
//! Keeps true: a label alone makes no pod a peer's: the pod lies in a namespace that was made for the same peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use liqo_api::meta::{annotation, label};
use liqo_core::exposition::{Space, Spaces};

/// The namespaces and pods of a peer, and the nodes on which the pods run.
pub(crate) fn held(peer: &str, namespaces: &[Arc<Namespace>], pods: &[Arc<Pod>]) -> (Spaces, BTreeSet<String>) {
    let is_of_peer = |labels: &BTreeMap<String, String>, key: &str| labels.get(key).is_some_and(|id| id == peer);
    let mut spaces = Spaces::new();
    for namespace in namespaces.iter().filter(|one| is_of_peer(one.labels(), label::REMOTE_CLUSTER_ID)) {
        if let Some(name) = namespace.annotations().get(annotation::ORIGINAL_NAME) {
            spaces.insert(namespace.name_any(), Space { name: name.clone(), ..Space::default() });
        }
    }
    let mut nodes = BTreeSet::new();
    for pod in pods.iter().filter(|one| is_of_peer(one.labels(), label::REFLECTION_ORIGIN)) {
        let Some(space) = spaces.get_mut(&pod.namespace().unwrap_or_default()) else { continue };
        space.pods.insert(pod.name_any());
        nodes.extend(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
    }
    (spaces, nodes)
}

/// Of namespaces of peers, the peer and the name there matter.
pub(crate) fn trim_namespace(namespace: &mut Namespace) {
    liqo_kube::strip(namespace);
    (namespace.spec, namespace.status) = (None, None);
}

/// Of pods, their name, their peer and their node matter.
pub(crate) fn trim_pod(pod: &mut Pod) {
    liqo_kube::strip(pod);
    pod.metadata.annotations = None;
    pod.labels_mut().retain(|key, _| key == label::REFLECTION_ORIGIN);
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        *spec = k8s_openapi::api::core::v1::PodSpec { node_name: spec.node_name.take(), ..Default::default() };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_peer_has_the_pods_in_the_namespaces_that_were_made_for_it() {
        let namespace = |name: &str, peer: &str, original: Option<&str>| -> Arc<Namespace> {
            let annotations = original.map(|name| json!({"liqo.io/original-name": name}));
            let meta = json!({"name": name, "labels": {"liqo.io/remote-cluster-id": peer}, "annotations": annotations});
            Arc::new(serde_json::from_value(json!({"metadata": meta})).unwrap())
        };
        let pod = |name: &str, namespace: &str, origin: &str| -> Arc<Pod> {
            let labels = json!({"virtualkubelet.liqo.io/origin": origin, "app": "web"});
            let meta = json!({"name": name, "namespace": namespace, "labels": labels});
            let mut pod: Pod = serde_json::from_value(
                json!({"metadata": meta, "spec": {"nodeName": format!("of-{name}"), "containers": []}}),
            )
            .unwrap();
            trim_pod(&mut pod);
            Arc::new(pod)
        };
        let namespaces = [
            namespace("a-rome", "rome", Some("a")),
            namespace("b-turin", "turin", Some("b")),
            namespace("c", "rome", None),
        ];
        let pods = [
            pod("mine", "a-rome", "rome"),
            pod("forged", "a-rome", "turin"),
            pod("elsewhere", "kube-system", "rome"),
            pod("theirs", "b-turin", "turin"),
            pod("claimed", "b-turin", "rome"),
        ];
        let (spaces, nodes) = held("rome", &namespaces, &pods);
        let space = Space { name: "a".to_owned(), pods: BTreeSet::from(["mine".to_owned()]) };
        assert_eq!(spaces, BTreeMap::from([("a-rome".to_owned(), space)]));
        assert_eq!(nodes, BTreeSet::from(["of-mine".to_owned()]));
        assert_eq!(held("nobody", &namespaces, &pods), (Spaces::new(), BTreeSet::new()));
    }
}
