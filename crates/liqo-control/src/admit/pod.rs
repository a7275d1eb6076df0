//! Pods of offloaded namespaces: where they may run.
//!
//! The user's own wishes stay: what is required of the node is required together with what the
//! offloading requires, pins of `DaemonSet` pods included.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use kube::ResourceExt;
use liqo_api::{
    meta::{TAINT_NOT_ALLOWED, label},
    offloading::{NamespaceOffloading, PodOffloadingStrategy},
};
use liqo_core::selector;
use serde_json::{Value, json};

use super::review::{Verdict, text};

/// Where the required node affinity of a pod is.
const TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// What becomes of a pod in an offloaded namespace.
pub(super) fn mutate(pod: &Value, offloading: &NamespaceOffloading) -> Verdict {
    let strategy = offloading.spec.pod_offloading_strategy;
    let ending = offloading.metadata.deletion_timestamp.is_some();
    // Pods of files on a node are only shown here.
    let shown = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    if strategy == PodOffloadingStrategy::Local || ending || shown {
        return Verdict::allow();
    }
    let mut patch: Vec<Value> = tolerate(pod).into_iter().collect();
    // Whoever names the node has decided; the kubelet there would refuse a pod that requires another.
    if text(pod, "/spec/nodeName").is_empty() {
        match require(pod, &imposed(offloading)) {
            Ok(operation) => patch.extend(operation),
            Err(error) => {
                return Verdict::error(400, format!("the required node affinity of the pod cannot be read: {error}"));
            }
        }
    }
    tracing::debug!(namespace = offloading.namespace(), changes = patch.len(), "pod of an offloaded namespace");
    Verdict::Allow { patch, warnings: vec![] }
}

/// Adds the toleration of virtual nodes, unless the pod tolerates them for ever already.
fn tolerate(pod: &Value) -> Option<Value> {
    let mut all = pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    if all.iter().any(tolerates) {
        return None;
    }
    all.push(json!({"key": TAINT_NOT_ALLOWED, "operator": "Exists", "effect": "NoExecute"}));
    Some(json!({"op": "add", "path": "/spec/tolerations", "value": all}))
}

fn tolerates(toleration: &Value) -> bool {
    let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
    let value = match operator {
        "Exists" => key.is_empty() || key == TAINT_NOT_ALLOWED,
        _ => key == TAINT_NOT_ALLOWED && text(toleration, "/value") == "true",
    };
    let for_ever = toleration.get("tolerationSeconds").is_none_or(Value::is_null);
    value && for_ever && matches!(text(toleration, "/effect"), "" | "NoExecute")
}

/// What the offloading requires of nodes; empty: nothing.
fn imposed(offloading: &NamespaceOffloading) -> Vec<NodeSelectorTerm> {
    let selector = offloading.spec.cluster_selector.as_ref();
    let terms = selector.map(|selector| selector.node_selector_terms.clone()).unwrap_or_default();
    match offloading.spec.pod_offloading_strategy {
        PodOffloadingStrategy::Local => vec![],
        PodOffloadingStrategy::LocalAndRemote if terms.is_empty() => vec![],
        PodOffloadingStrategy::LocalAndRemote => terms.into_iter().chain([node_type("NotIn")]).collect(),
        PodOffloadingStrategy::Remote if terms.is_empty() => vec![node_type("In")],
        PodOffloadingStrategy::Remote => selector::both(&terms, &[node_type("In")]),
    }
}

fn node_type(operator: &str) -> NodeSelectorTerm {
    let requirement = NodeSelectorRequirement {
        key: label::TYPE.to_owned(),
        operator: operator.to_owned(),
        values: Some(vec![label::VIRTUAL_NODE.to_owned()]),
    };
    NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None }
}

/// Requires `imposed` of the node, together with what the pod requires; only that part is written.
fn require(pod: &Value, imposed: &[NodeSelectorTerm]) -> Result<Option<Value>, serde_json::Error> {
    if imposed.is_empty() {
        return Ok(None);
    }
    let terms = match pod.pointer(TERMS).filter(|terms| !terms.is_null()) {
        None => imposed.to_vec(),
        Some(own) => selector::both(&serde_json::from_value::<Vec<_>>(own.clone())?, imposed),
    };
    // The deepest part of the path that is there already stays, with everything in it.
    let parts = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let (mut path, mut rest) = ("/spec".to_owned(), &parts[..]);
    while let [part, more @ ..] = rest
        && !more.is_empty()
        && pod.pointer(&format!("{path}/{part}")).is_some_and(Value::is_object)
    {
        path = format!("{path}/{part}");
        rest = more;
    }
    let [first, more @ ..] = rest else { return Ok(None) };
    let value = more.iter().rev().fold(json!(terms), |value, part| json!({ *part: value }));
    Ok(Some(json!({"op": "add", "path": format!("{path}/{first}"), "value": value})))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSelector, Pod};
    use liqo_api::offloading::NamespaceOffloadingSpec;

    use super::{super::review, *};

    fn offloading(strategy: PodOffloadingStrategy, terms: &Value) -> NamespaceOffloading {
        let selector: NodeSelector = serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap();
        let spec = NamespaceOffloadingSpec {
            pod_offloading_strategy: strategy,
            cluster_selector: Some(selector),
            ..NamespaceOffloadingSpec::default()
        };
        NamespaceOffloading::new("offloading", spec)
    }

    /// The pod after what was decided about it.
    fn mutated(pod: &Value, strategy: PodOffloadingStrategy, terms: &Value) -> Value {
        let Verdict::Allow { patch, .. } = mutate(pod, &offloading(strategy, terms)) else { panic!("denied") };
        let patch: json_patch::Patch = serde_json::from_value(Value::from(patch)).unwrap();
        let mut pod = pod.clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod
    }

    fn expression(key: &str) -> Value {
        json!({"key": key, "operator": "Exists"})
    }

    fn kind(operator: &str) -> Value {
        json!({"key": "liqo.io/type", "operator": operator, "values": ["virtual-node"]})
    }

    fn toleration() -> Value {
        json!({"key": "virtual-node.liqo.io/not-allowed", "operator": "Exists", "effect": "NoExecute"})
    }

    #[test]
    fn each_strategy_imposes_what_is_documented() {
        use PodOffloadingStrategy::{Local, LocalAndRemote, Remote};
        let (none, one) = (json!([]), json!([{"matchExpressions": [expression("a")]}]));
        for (strategy, selector, wanted) in [
            (LocalAndRemote, &none, None),
            (
                LocalAndRemote,
                &one,
                Some(json!([{"matchExpressions": [expression("a")]}, {"matchExpressions": [kind("NotIn")]}])),
            ),
            (Remote, &none, Some(json!([{"matchExpressions": [kind("In")]}]))),
            (Remote, &one, Some(json!([{"matchExpressions": [expression("a"), kind("In")]}]))),
        ] {
            let pod = mutated(&json!({"spec": {"containers": []}}), strategy, selector);
            assert_eq!(pod["spec"]["tolerations"], json!([toleration()]));
            assert_eq!(pod.pointer(TERMS), wanted.as_ref(), "{strategy:?}");
        }
        assert_eq!(mutate(&json!({"spec": {}}), &offloading(Local, &one)), Verdict::allow());
    }

    #[test]
    fn the_pods_own_wishes_stay() {
        let pod = json!({"spec": {
            "tolerations": [{"key": "x"}],
            "affinity": {
                "podAffinity": {"keep": 1},
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": ["keep"],
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
                        {"matchExpressions": [expression("b")]},
                    ]},
                },
            },
        }});
        let after = mutated(&pod, PodOffloadingStrategy::Remote, &json!([]));
        assert_eq!(after["spec"]["tolerations"], json!([{"key": "x"}, toleration()]));
        assert_eq!(after["spec"]["affinity"]["podAffinity"], json!({"keep": 1}));
        let node = &after["spec"]["affinity"]["nodeAffinity"];
        assert_eq!(node["preferredDuringSchedulingIgnoredDuringExecution"], json!(["keep"]));
        let pin = json!([{"key": "metadata.name", "operator": "In", "values": ["n1"]}]);
        assert_eq!(
            after.pointer(TERMS),
            Some(&json!([
                {"matchExpressions": [kind("In")], "matchFields": pin},
                {"matchExpressions": [expression("b"), kind("In")]},
            ]))
        );
    }

    #[test]
    fn a_virtual_node_is_tolerated_once() {
        for (toleration, enough) in [
            (toleration(), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": TAINT_NOT_ALLOWED, "value": "true", "effect": "NoExecute"}), true),
            (json!({"key": TAINT_NOT_ALLOWED, "operator": "Exists", "tolerationSeconds": 60}), false),
            (json!({"key": TAINT_NOT_ALLOWED, "operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            let pod = json!({"spec": {"tolerations": [toleration]}});
            assert_eq!(tolerate(&pod).is_none(), enough, "{toleration}");
        }
    }

    #[test]
    fn a_pod_that_names_its_node_is_not_given_another() {
        let pod = json!({"spec": {"nodeName": "worker-1", "affinity": {}}});
        let after = mutated(&pod, PodOffloadingStrategy::Remote, &json!([]));
        assert_eq!(after.pointer(TERMS), None);
        assert_eq!(after["spec"]["tolerations"], json!([toleration()]));
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h"}}, "spec": {}});
        assert_eq!(mutated(&mirror, PodOffloadingStrategy::Remote, &json!([])), mirror);
    }

    #[test]
    fn a_selector_that_matches_nothing_lets_nothing_out() {
        let remote = mutated(&json!({"spec": {}}), PodOffloadingStrategy::Remote, &json!([{}]));
        assert_eq!(remote.pointer(TERMS), Some(&json!([{}])));
    }

    #[test]
    fn the_end_of_an_offloading_changes_no_pod() {
        let mut ending = offloading(PodOffloadingStrategy::Remote, &json!([]));
        ending.metadata.deletion_timestamp = Some(liqo_kube::now());
        assert_eq!(mutate(&json!({"spec": {}}), &ending), Verdict::allow());
    }

    /// The patch applies to every pod that is one, which then tolerates virtual nodes; the answer is one the API server reads.
    #[test]
    fn fuzz_reviewed_pods() {
        let offloading = offloading(PodOffloadingStrategy::Remote, &json!([]));
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "admission_review", |bytes| {
            let Ok((version, asked)) = review::read(bytes) else { return };
            let verdict = mutate(&asked.object, &offloading);
            let answer = review::write(&version, &asked.uid, verdict.clone());
            assert_eq!(answer["response"]["uid"], asked.uid);
            let mut pod = asked.object;
            let is_pod = serde_json::from_value::<Pod>(pod.clone()).is_ok_and(|pod| pod.spec.is_some());
            let Verdict::Allow { patch, .. } = verdict else { return };
            if !is_pod || patch.is_empty() {
                return;
            }
            let patch: json_patch::Patch = serde_json::from_value(Value::from(patch)).unwrap();
            json_patch::patch(&mut pod, &patch).unwrap();
            assert_eq!(tolerate(&pod), None, "{pod}");
        });
    }
}
