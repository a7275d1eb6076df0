//! Which secrets the pods of this node use: a secret with the annotation `liqo.io/reflection: needed` is in the other cluster only
//! while such a pod has not ended.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use liqo_api::meta::annotation;
use liqo_kube::{Queue, Store};

use super::needs;

/// The pods of one namespace on this node, as users of secrets.
pub(super) struct Users {
    namespace: String,
    /// The pods of the node, in all namespaces.
    pods: Store<Pod>,
    /// The secrets of the namespace here.
    secrets: Store<Secret>,
    /// Secrets that each pod used when the pod was last seen.
    seen: Mutex<HashMap<String, BTreeSet<String>>>,
    /// Names of secrets to look at.
    queue: Queue<String>,
}

/// Whether a secret shall be in the other cluster only while a pod that runs there uses it.
pub(super) fn is_on_demand(secret: &Secret) -> bool {
    secret.annotations().contains_key(annotation::REFLECTION)
}

impl Users {
    pub(super) fn new(namespace: &str, pods: Store<Pod>, secrets: Store<Secret>, queue: Queue<String>) -> Self {
        Self { namespace: namespace.to_owned(), pods, secrets, seen: Mutex::default(), queue }
    }

    /// A pod of the namespace came, changed or went: the secrets whose users changed are looked at.
    pub(super) fn saw(&self, pod: &str) {
        let now = self.pods.get(&self.namespace, pod).map(|pod| used(&pod)).unwrap_or_default();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if now.is_empty() { seen.remove(pod) } else { seen.insert(pod.to_owned(), now.clone()) };
        now.symmetric_difference(&before.unwrap_or_default()).for_each(|secret| self.queue.push(secret.clone()));
    }

    /// Whether a pod uses this secret; `None` while the pods are not known.
    pub(super) fn need(&self, secret: &str) -> Option<bool> {
        self.pods.is_ready().then(|| !self.of(secret).is_empty())
    }

    /// Names of the pods that use this secret.
    pub(super) fn of(&self, secret: &str) -> Vec<String> {
        let pods = self.pods.filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(&self.namespace)
                && !has_ended(pod)
                && pod.spec.as_ref().is_some_and(|spec| needs::uses_secret(spec, secret))
        });
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    /// Whether every on-demand secret that the pod uses is there, as `is_there` says.
    pub(super) fn are_served(&self, pod: &Pod, is_there: impl Fn(&str) -> bool) -> bool {
        let is_awaited = |name: &String| {
            let secret = self.secrets.get(&self.namespace, name);
            secret.is_some_and(|secret| is_on_demand(&secret)) && !is_there(name)
        };
        !used(pod).iter().any(is_awaited)
    }
}

fn used(pod: &Pod) -> BTreeSet<String> {
    pod.spec.as_ref().filter(|_| !has_ended(pod)).map(needs::secrets).unwrap_or_default()
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "demo"},
            "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "key"}}]},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_uses_its_secrets_until_it_has_ended() {
        for (phase, uses) in
            [("Pending", true), ("Running", true), ("Unknown", true), ("Succeeded", false), ("Failed", false)]
        {
            assert_eq!(used(&pod(phase)).contains("key"), uses, "{phase}");
        }
    }
}
