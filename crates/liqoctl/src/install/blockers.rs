//! What keeps pods from running while Helm waits for them, remembered before Helm takes them away.

use std::{cell::RefCell, collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use liqo_api::meta::label;
use liqo_kube::Cluster;

use crate::{
    status::components::lacks,
    wait::{Deadline, Watched},
};

/// Longer than any installation.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// The pods of an installation.
pub(crate) struct Blockers {
    pods: Watched<Pod>,
    /// What each pod lacked when it was last seen alive, by its name.
    last: RefCell<BTreeMap<String, String>>,
}

impl Blockers {
    /// Watches the pods of Liqo in a namespace that need not exist yet.
    pub(crate) fn watch(cluster: &Cluster, namespace: &str) -> Self {
        let pods = Watched::labelled(cluster, namespace, &format!("{}=liqo", label::APP_PART_OF));
        Self { pods, last: RefCell::default() }
    }

    /// Runs `work` and remembers how the pods stood before they were deleted.
    pub(crate) async fn remember_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let look = self.pods.until(Deadline::after(FOREVER), |pods| {
            remember(&mut self.last.borrow_mut(), pods);
            None::<()>
        });
        tokio::select! {
            done = &mut work => done,
            _ = look => work.await,
        }
    }

    /// A line for each pod that lacked something.
    pub(crate) fn told(&self) -> Vec<String> {
        self.last.borrow().iter().map(|(name, what)| format!("Pod {name}: {what}")).collect()
    }
}

/// Pure: what the pods lack now; of pods that went, or are going, what is known stays.
fn remember(last: &mut BTreeMap<String, String>, pods: &[Arc<Pod>]) {
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        match lacks(pod).into_iter().next() {
            Some(what) => _ = last.insert(pod.name_any(), what),
            None => _ = last.remove(&pod.name_any()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: Value, ready: &str) -> Arc<Pod> {
        let conditions = ["PodScheduled", "Initialized"].map(|kind| json!({"type": kind, "status": "True"}));
        let [scheduled, initialized] = conditions;
        let ready = json!({"type": "Ready", "status": ready, "message": "containers with unready status: [auth]"});
        let status = json!({"conditions": [scheduled, initialized, ready]});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())
    }

    #[test]
    fn pods_that_go_are_remembered_as_they_were() {
        let mut last = BTreeMap::new();
        remember(&mut last, &[pod(json!({"name": "a"}), "False"), pod(json!({"name": "b"}), "False")]);
        let leaving = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        remember(&mut last, &[pod(leaving, "True"), pod(json!({"name": "b"}), "True")]);
        remember(&mut last, &[]);
        let lacking = "not ready (containers with unready status: [auth])".to_owned();
        assert_eq!(last, BTreeMap::from([("a".to_owned(), lacking)]));
    }
}
