//! Which namespaces this cluster asks a provider for, and which namespaces of the provider belong to this cluster: the provider's
//! report, compared with the `NamespaceMap`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use liqo_api::{
    names,
    offloading::NamespaceOffloading,
    virtualkubelet::{MappingPhase, NamespaceMap, NamespaceMapStatus, RemoteNamespaceStatus},
};

use crate::selector::{self, InvalidSelector};

/// Whether a `NamespaceOffloading` selects the provider for which the virtual node stands.
///
/// # Errors
/// When the selector matches nothing and cannot be read as a whole.
pub fn selects(offloading: &NamespaceOffloading, node: &Node) -> Result<bool, InvalidSelector> {
    let none = BTreeMap::new();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    selector::matches(offloading.spec.cluster_selector.as_ref(), name, node.metadata.labels.as_ref().unwrap_or(&none))
}

/// Whether a `NamespaceOffloading` offloads the namespace it is in to the provider for which the virtual node stands: the
/// `NamespaceOffloading` is the one that counts in its namespace, is not being deleted, and selects the node.
pub fn offloads(offloading: &NamespaceOffloading, node: &Node) -> bool {
    let meta = &offloading.metadata;
    meta.name.as_deref() == Some(names::NAMESPACE_OFFLOADING)
        && meta.deletion_timestamp.is_none()
        && meta.namespace.as_deref().is_some_and(|namespace| !stays_here(namespace))
        && selects(offloading, node).unwrap_or_default()
}

/// Whether a namespace is never offloaded whatever this cluster is called: it belongs to Kubernetes, is shared with a peer, or
/// holds the volumes of Liqo. Components that know in which namespace Liqo is installed refuse that namespace, too.
pub fn stays_here(namespace: &str) -> bool {
    namespace.starts_with("kube-")
        || namespace.starts_with(names::TENANT_NAMESPACE_PREFIX)
        || namespace == names::STORAGE_NAMESPACE
}

/// The offloaded namespaces that are ready at the provider, each with its remote name; the provider must report the remote name
/// that the map asks for.
pub fn accepted(map: &NamespaceMap) -> BTreeMap<String, String> {
    let entries = map.status.iter().flat_map(|status| &status.current_mapping);
    entries
        .filter(|(here, there)| there.phase == Some(MappingPhase::Accepted) && is_wished(map, here, there))
        .map(|(here, there)| (here.clone(), there.remote_namespace.clone()))
        .collect()
}

/// The namespaces that the virtual kubelet of the provider looks after: [`accepted`], without those that stay here whatever the map
/// asks for.
pub fn reflected(map: &NamespaceMap) -> BTreeMap<String, String> {
    let mut all = accepted(map);
    all.retain(|here, _| !stays_here(here));
    all
}

/// What is kept of a report: entries for what `map` asks for, and the end of entries that were kept before.
pub fn believed(map: &NamespaceMap, report: &NamespaceMapStatus) -> NamespaceMapStatus {
    let kept = report.current_mapping.iter().filter(|(here, there)| is_believed(map, here, there));
    NamespaceMapStatus { current_mapping: kept.map(|(here, there)| (here.clone(), there.clone())).collect() }
}

/// The namespaces in a report that `map` never asked for.
pub fn unasked<'a>(map: &'a NamespaceMap, report: &'a NamespaceMapStatus) -> impl Iterator<Item = &'a str> {
    let entries = report.current_mapping.iter();
    entries.filter(|(here, there)| !is_believed(map, here, there)).map(|(here, _)| here.as_str())
}

fn is_wished(map: &NamespaceMap, here: &str, there: &RemoteNamespaceStatus) -> bool {
    !there.remote_namespace.is_empty() && map.spec.desired_mapping.get(here) == Some(&there.remote_namespace)
}

/// A namespace that is no longer asked for may be told until it is gone, under the name it had.
fn is_believed(map: &NamespaceMap, here: &str, there: &RemoteNamespaceStatus) -> bool {
    let before = map.status.as_ref().and_then(|status| status.current_mapping.get(here));
    is_wished(map, here, there)
        || map.spec.desired_mapping.get(here).is_some_and(|_| there.remote_namespace.is_empty())
        || before.is_some_and(|before| before.remote_namespace == there.remote_namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn map(desired: serde_json::Value, current: serde_json::Value) -> NamespaceMap {
        serde_json::from_value(json!({
            "metadata": {"name": "map"}, "spec": {"desiredMapping": desired}, "status": {"currentMapping": current},
        }))
        .unwrap()
    }

    #[test]
    fn a_namespace_is_offloaded_to_the_providers_that_its_offloading_selects() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "liqo-v", "labels": {"provider": "v"}}})).unwrap();
        let offloading = |metadata: Value, operator: &str| -> NamespaceOffloading {
            let term = json!({"matchExpressions": [{"key": "provider", "operator": operator, "values": ["v"]}]});
            serde_json::from_value(
                json!({"metadata": metadata, "spec": {"clusterSelector": {"nodeSelectorTerms": [term]}}}),
            )
            .unwrap()
        };
        let live = json!({"name": "offloading", "namespace": "shop"});
        let gone = json!({"name": "offloading", "namespace": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        for (metadata, operator, wanted) in [
            (&live, "In", true),
            (&live, "NotIn", false),
            (&live, "Like", false),
            (&gone, "In", false),
            (&json!({"name": "another", "namespace": "shop"}), "In", false),
            (&json!({"name": "offloading", "namespace": "kube-system"}), "In", false),
        ] {
            assert_eq!(offloads(&offloading(metadata.clone(), operator), &node), wanted, "{metadata} {operator}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_accepted() {
        let reported = json!({
            "a": {"remoteNamespace": "a-there", "phase": "Accepted"},
            "b": {"remoteNamespace": "b-there", "phase": "CreationLoopBackOff"},
            "c": {"remoteNamespace": "c-there", "phase": "Terminating"},
            "d": {"phase": "Accepted"},
            "e": {"remoteNamespace": "somewhere-else", "phase": "Accepted"},
            "kube-system": {"remoteNamespace": "loot", "phase": "Accepted"},
        });
        let wished = json!({"a": "a-there", "b": "b-there", "c": "c-there", "d": "d-there", "e": "e-there"});
        let all = accepted(&map(wished, reported.clone()));
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "a-there".to_owned())]);
        assert!(accepted(&map(json!({}), reported)).is_empty());
    }

    #[test]
    fn only_namespaces_that_were_asked_for_and_may_leave_are_reflected() {
        let wished = json!({"a": "a-there", "kube-system": "loot", "liqo-tenant-x": "loot", "b": "b-there"});
        let reported = json!({
            "a": {"remoteNamespace": "a-there", "phase": "Accepted"},
            "b": {"remoteNamespace": "loot", "phase": "Accepted"},
            "c": {"remoteNamespace": "loot", "phase": "Accepted"},
            "kube-system": {"remoteNamespace": "loot", "phase": "Accepted"},
            "liqo-tenant-x": {"remoteNamespace": "loot", "phase": "Accepted"},
        });
        let all = reflected(&map(wished, reported));
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "a-there".to_owned())]);
    }

    #[test]
    fn a_report_is_believed_as_far_as_it_answers_a_wish() {
        let report = map(
            json!({}),
            json!({
                "a": {"remoteNamespace": "a-there", "phase": "Accepted"},
                "gone": {"remoteNamespace": "gone-there", "phase": "Terminating"},
                "renamed": {"remoteNamespace": "other", "phase": "Accepted"},
                "liqo": {"remoteNamespace": "loot", "phase": "Accepted"},
            }),
        );
        let report = report.status.unwrap();
        let before = json!({"gone": {"remoteNamespace": "gone-there", "phase": "Accepted"}});
        let ours = map(json!({"a": "a-there", "renamed": "new-name"}), before);
        let kept = believed(&ours, &report);
        assert_eq!(kept.current_mapping.keys().collect::<Vec<_>>(), ["a", "gone"]);
        assert_eq!(unasked(&ours, &report).collect::<Vec<_>>(), ["liqo", "renamed"]);
    }

    #[test]
    fn namespaces_of_the_cluster_stay_here() {
        for name in ["kube-system", "kube-node-lease", "liqo-tenant-milan-ca6261", "liqo-storage"] {
            assert!(stays_here(name), "{name}");
        }
        assert!(!stays_here("demo") && !stays_here("liqo-demo"));
    }

    /// Of a report only what was asked for is believed, under the name it was asked for.
    #[test]
    fn fuzz_reported_maps() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "reported_map", |bytes| {
            let Ok((map, report)) = serde_json::from_slice::<(NamespaceMap, NamespaceMapStatus)>(bytes) else { return };
            let believed = believed(&map, &report);
            let unasked = unasked(&map, &report).count();
            assert_eq!(believed.current_mapping.len() + unasked, report.current_mapping.len());
            let wished = &map.spec.desired_mapping;
            let map = NamespaceMap { status: Some(believed), ..map.clone() };
            assert!(accepted(&map).iter().all(|(here, there)| wished.get(here) == Some(there)));
        });
    }
}
