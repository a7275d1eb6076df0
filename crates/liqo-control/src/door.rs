//! The settings that loosen what peers may write, see [`liqo_core::door`].
//!
//! Watches   the `ConfigMap` `liqo-peer-policy`.

use k8s_openapi::api::core::v1::ConfigMap;
use liqo_core::door;
use liqo_kube::Store;
use serde_json::json;

use crate::home::Home;

/// The settings of the provider that loosen the rules, as this cluster has them at the moment.
#[derive(Clone)]
pub(crate) struct Policy {
    settings: Store<ConfigMap>,
    namespace: String,
}

impl Policy {
    /// Starts watching the settings.
    pub(crate) fn watch(home: &Home) -> Self {
        let only = format!("metadata.name={}", door::POLICY);
        let settings = home.cluster.watch::<ConfigMap>(&home.namespace).fields(&only).start(|_| {});
        Self { settings, namespace: home.namespace.clone() }
    }

    /// Returns when the settings are known.
    pub(crate) async fn ready(&self) {
        self.settings.ready().await;
    }

    /// All settings; `None`: the `ConfigMap` is not there.
    pub(crate) fn settings(&self) -> Option<serde_json::Value> {
        self.settings.get(&self.namespace, door::POLICY).map(|map| json!(map.data))
    }

    /// One setting; empty without the `ConfigMap`.
    pub(crate) fn setting(&self, key: &str) -> String {
        let settings = self.settings.get(&self.namespace, door::POLICY);
        settings.and_then(|map| map.data.as_ref()?.get(key).cloned()).unwrap_or_default()
    }
}
