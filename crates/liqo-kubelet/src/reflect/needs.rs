//! `Secret`s and `ConfigMap`s a pod needs and does not find in the other cluster, because they are not reflected.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, Secret};
use liqo_kube::{
    Store,
    twin::{Forged, Reflect},
};

use super::{config_map::ConfigMaps, secret};
use crate::link::Link;

/// What pods of one namespace may need.
pub(super) struct Needs {
    pub(super) link: Arc<Link>,
    /// The namespace here.
    pub(super) namespace: String,
    /// Secrets here; none while they are not reflected at all.
    pub(super) secrets: Option<Store<Secret>>,
    /// Config maps here; none while they are not reflected at all.
    pub(super) config_maps: Option<Store<ConfigMap>>,
}

impl Needs {
    /// Why a pod cannot start there, each refused object in a sentence.
    pub(super) fn refused(&self, pod: &Pod) -> Vec<String> {
        let Some(spec) = &pod.spec else { return Vec::new() };
        let secret = |name: &str| {
            let secret = self.secrets.as_ref()?.get(&self.namespace, name)?;
            secret::refusal(&secret).map(str::to_owned)
        };
        let config_map = |name: &str| {
            let map = self.config_maps.as_ref()?.get(&self.namespace, name)?;
            refusal(ConfigMaps(Arc::clone(&self.link)).forge(&map, None))
        };
        let references = references(spec);
        let why = references.into_iter().filter_map(|(kind, name)| {
            let reason = if kind == "Secret" { secret(&name) } else { config_map(&name) }?;
            Some(format!("{kind} {name:?} that the pod needs is not there: reflection is disabled {reason}"))
        });
        why.collect()
    }
}

fn refusal<T>(forged: Forged<T>) -> Option<String> {
    match forged {
        Forged::Nothing(reason) => reason,
        Forged::Make(_) | Forged::NotYet => None,
    }
}

/// Kind and name of what a pod cannot start without.
fn references(spec: &PodSpec) -> BTreeSet<(&'static str, String)> {
    let mut all = BTreeSet::new();
    each(spec, &mut |kind, name, is_optional| {
        if !is_optional {
            all.insert((kind, name.to_owned()));
        }
    });
    all
}

/// Names of the secrets that a pod uses if they are there.
pub(super) fn secrets(spec: &PodSpec) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    each(spec, &mut |kind, name, _| {
        if kind == "Secret" {
            all.insert(name.to_owned());
        }
    });
    all
}

/// Whether a pod uses the secret of this name if it is there.
pub(super) fn uses_secret(spec: &PodSpec, secret: &str) -> bool {
    let mut found = false;
    each(spec, &mut |kind, name, _| found |= kind == "Secret" && name == secret);
    found
}

/// Calls `add` with kind, name and whether the pod starts without it, for each reference to a secret or a config map.
fn each(spec: &PodSpec, add: &mut dyn FnMut(&'static str, &str, bool)) {
    let mut add = |kind, name: &str, optional: Option<bool>| {
        if !name.is_empty() {
            add(kind, name, optional == Some(true));
        }
    };
    for volume in spec.volumes.iter().flatten() {
        if let Some(secret) = &volume.secret {
            add("Secret", secret.secret_name.as_deref().unwrap_or_default(), secret.optional);
        }
        if let Some(map) = &volume.config_map {
            add("ConfigMap", &map.name, map.optional);
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(secret) = &source.secret {
                add("Secret", &secret.name, secret.optional);
            }
            if let Some(map) = &source.config_map {
                add("ConfigMap", &map.name, map.optional);
            }
        }
    }
    spec.init_containers.iter().flatten().chain(&spec.containers).for_each(|one| environment(one, &mut add));
    // Without such a secret a pod may start all the same: the image may be there, or be public.
    spec.image_pull_secrets.iter().flatten().for_each(|secret| add("Secret", &secret.name, Some(true)));
}

fn environment(container: &Container, add: &mut impl FnMut(&'static str, &str, Option<bool>)) {
    for from in container.env_from.iter().flatten() {
        if let Some(secret) = &from.secret_ref {
            add("Secret", &secret.name, secret.optional);
        }
        if let Some(map) = &from.config_map_ref {
            add("ConfigMap", &map.name, map.optional);
        }
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(secret) = &from.secret_key_ref {
            add("Secret", &secret.name, secret.optional);
        }
        if let Some(map) = &from.config_map_key_ref {
            add("ConfigMap", &map.name, map.optional);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_need_something_is_found() {
        let spec: PodSpec = serde_json::from_value(json!({
            "volumes": [
                {"name": "a", "secret": {"secretName": "volume"}},
                {"name": "b", "secret": {"secretName": "optional", "optional": true}},
                {"name": "c", "configMap": {"name": "volume"}},
                {"name": "d", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "projected"}}]}},
            ],
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "all"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "key", "key": "k"}}},
                {"name": "C", "valueFrom": {"secretKeyRef": {"name": "optional", "key": "k", "optional": true}}},
            ]}],
        }))
        .unwrap();
        let names = |wanted: &str| -> Vec<String> {
            references(&spec).into_iter().filter(|(kind, _)| *kind == wanted).map(|(_, name)| name).collect()
        };
        assert_eq!(names("Secret"), ["all", "key", "projected", "volume"]);
        assert_eq!(names("ConfigMap"), ["all", "key", "projected", "volume"]);
        let used: Vec<_> = secrets(&spec).into_iter().collect();
        assert_eq!(used, ["all", "key", "optional", "projected", "pull", "volume"]);
        assert!(used.iter().all(|name| uses_secret(&spec, name)) && !uses_secret(&spec, "other"));
    }
}
