//! Anti-affinity there: the pod's own rules are about nodes here, but users can ask for a preset.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, Pod, PodAffinityTerm, PodAntiAffinity, WeightedPodAffinityTerm},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::ResourceExt;
use liqo_api::meta::annotation;

/// Labels that differ between pods that belong together.
const INDIVIDUAL: [&str; 3] = ["controller-revision-hash", "pod-template-hash", "statefulset.kubernetes.io/pod-name"];

/// The affinity of the pod there.
pub(super) fn forge(pod: &Pod) -> Option<Affinity> {
    let rules = match pod.annotations().get(annotation::ANTI_AFFINITY_PRESET)?.as_str() {
        "propagate" => pod.spec.as_ref()?.affinity.as_ref()?.pod_anti_affinity.clone()?,
        "soft" => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 1,
                pod_affinity_term: term(pod),
            }]),
            ..PodAntiAffinity::default()
        },
        "hard" => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term(pod)]),
            ..PodAntiAffinity::default()
        },
        _ => return None,
    };
    Some(Affinity { pod_anti_affinity: Some(rules), ..Affinity::default() })
}

fn term(pod: &Pod) -> PodAffinityTerm {
    PodAffinityTerm {
        topology_key: "kubernetes.io/hostname".to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(labels(pod)), ..LabelSelector::default() }),
        ..PodAffinityTerm::default()
    }
}

/// The labels by which pods that belong together are known.
fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let keys = pod.annotations().get(annotation::ANTI_AFFINITY_LABELS).filter(|keys| !keys.is_empty());
    let counts = |key: &str| match keys {
        Some(keys) => keys.split(',').any(|one| one == key),
        None => !INDIVIDUAL.contains(&key),
    };
    pod.labels().iter().filter(|(key, _)| counts(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn forged(preset: &str, keys: &str, affinity: Value) -> Value {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "labels": {"app": "web", "tier": "x", "pod-template-hash": "y"},
                "annotations": {"liqo.io/anti-affinity-preset": preset, "liqo.io/anti-affinity-labels": keys},
            },
            "spec": {"containers": [], "affinity": affinity},
        }))
        .unwrap();
        if preset.is_empty() {
            pod.annotations_mut().clear();
        }
        serde_json::to_value(forge(&pod)).unwrap()
    }

    #[test]
    fn presets() {
        let own =
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}, "nodeAffinity": {}});
        let term =
            |labels: Value| json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}});
        let all = json!({"app": "web", "tier": "x"});
        assert_eq!(forged("", "", own.clone()), Value::Null);
        assert_eq!(forged("other", "", own.clone()), Value::Null);
        assert_eq!(forged("propagate", "", json!({"nodeAffinity": {}})), Value::Null);
        assert_eq!(forged("propagate", "", own.clone()), json!({"podAntiAffinity": own["podAntiAffinity"]}));
        assert_eq!(
            forged("soft", "", Value::Null),
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term(all)}]}})
        );
        assert_eq!(
            forged("hard", "app, tier,none", Value::Null),
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(json!({"app": "web"}))]}}),
            "keys are not trimmed"
        );
    }
}
