//! Arithmetic of resource lists: what pods ask for, what is left, what has changed.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::quantity::Amount;

/// Amounts by resource name.
pub type Resources = BTreeMap<String, Amount>;

/// Which half of a resource requirement is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// What is reserved.
    Requests,
    /// What is never exceeded.
    Limits,
}

/// Reads a resource list; an amount that cannot be read counts as nothing.
pub fn read(list: &BTreeMap<String, Quantity>) -> Resources {
    list.iter().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).collect()
}

/// Writes a resource list.
pub fn write(resources: &Resources) -> BTreeMap<String, Quantity> {
    resources.iter().map(|(name, amount)| (name.clone(), amount.quantity())).collect()
}

/// What a pod asks for: what the scheduler counts. Containers and sidecars (init containers that keep
/// running) add up, each other init container runs alone beside the sidecars before it; overhead is
/// added. What the pod as a whole asks for counts where it is more: who does not know the field runs the containers
/// with theirs.
pub fn of_pod(spec: &PodSpec, half: Half) -> Resources {
    let mut total = Resources::new();
    let mut peak = Resources::new();
    let mut sidecars = Resources::new();
    for container in &spec.containers {
        add(&mut total, &of_container(container, half));
    }
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container, half);
        let mut beside = sidecars.clone();
        add(&mut beside, &own);
        raise(&mut peak, &beside);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &own);
            sidecars = beside;
        }
    }
    raise(&mut total, &peak);
    raise(&mut total, &half_of(spec.resources.as_ref(), half).map(read).unwrap_or_default());
    add(&mut total, &read(spec.overhead.as_ref().unwrap_or(&BTreeMap::new())));
    total
}

fn of_container(container: &Container, half: Half) -> Resources {
    half_of(container.resources.as_ref(), half).map(read).unwrap_or_default()
}

fn half_of(resources: Option<&ResourceRequirements>, half: Half) -> Option<&BTreeMap<String, Quantity>> {
    let resources = resources?;
    match half {
        Half::Requests => resources.requests.as_ref(),
        Half::Limits => resources.limits.as_ref(),
    }
}

/// Adds `more`, also what was not there before.
pub fn add(resources: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        *resources.entry(name.clone()).or_default() += *amount;
    }
}

/// Each resource becomes the larger of the two.
pub fn raise(resources: &mut Resources, floor: &Resources) {
    for (name, amount) in floor {
        let entry = resources.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// Takes `less` away, only from what is there.
pub fn take(resources: &mut Resources, less: &Resources) {
    for (name, amount) in less {
        if let Some(entry) = resources.get_mut(name) {
            *entry = *entry - *amount;
        }
    }
}

/// Whether the change from `old` to `new` is worth telling: a resource came or went, or some amount
/// moved by more than `percent` of what it was. 0 means every change.
pub fn changed(old: &Resources, new: &Resources, percent: u8) -> bool {
    let moved = |(name, was): (&String, &Amount)| {
        new.get(name).is_none_or(|is| was.distance(*is) > was.share(percent, Amount::default()))
    };
    old.len() != new.len() || old.iter().any(moved)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Resources {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Amount::parse(text).unwrap())).collect()
    }

    fn pod(spec: serde_json::Value) -> Resources {
        of_pod(&serde_json::from_value(spec).unwrap(), Half::Requests)
    }

    #[test]
    fn a_pod_asks_for_its_peak() {
        let container = |cpu: &str| json!({"name": "a", "resources": {"requests": {"cpu": cpu}}});
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}});
        let sum = pod(json!({"containers": [container("100m"), container("200m")]}));
        assert_eq!(sum, list(&[("cpu", "300m")]));
        let init = pod(json!({"containers": [container("100m")], "initContainers": [container("1"), container("2")]}));
        assert_eq!(init, list(&[("cpu", "2")]));
        let beside = pod(json!({"containers": [container("100m")], "initContainers": [sidecar, container("1")]}));
        assert_eq!(beside, list(&[("cpu", "1050m")]));
        let whole = pod(json!({
            "containers": [container("100m")], "resources": {"requests": {"cpu": "1"}}, "overhead": {"memory": "1Mi"}
        }));
        assert_eq!(whole, list(&[("cpu", "1"), ("memory", "1Mi")]));
        let less = pod(json!({"containers": [container("2")], "resources": {"requests": {"cpu": "1"}}}));
        assert_eq!(less, list(&[("cpu", "2")]), "a pod cannot ask for less than its containers");
        assert_eq!(pod(json!({"containers": [{"name": "a"}]})), Resources::new());
    }

    #[test]
    fn only_what_is_there_is_taken_from() {
        let mut left = list(&[("cpu", "2"), ("pods", "110")]);
        take(&mut left, &list(&[("cpu", "3"), ("memory", "1Gi")]));
        assert_eq!(left, list(&[("cpu", "-1"), ("pods", "110")]));
    }

    #[test]
    fn small_changes_are_not_told() {
        let old = list(&[("cpu", "1"), ("memory", "1000")]);
        for (new, percent, told) in [
            (list(&[("cpu", "1"), ("memory", "1000")]), 0, false),
            (list(&[("cpu", "999m"), ("memory", "1000")]), 0, true),
            (list(&[("cpu", "950m"), ("memory", "1050")]), 5, false),
            (list(&[("cpu", "949m"), ("memory", "1000")]), 5, true),
            (list(&[("cpu", "1")]), 5, true),
            (list(&[("cpu", "1"), ("gpu", "1")]), 5, true),
        ] {
            assert_eq!(changed(&old, &new, percent), told, "{new:?} at {percent} %");
        }
    }
}
