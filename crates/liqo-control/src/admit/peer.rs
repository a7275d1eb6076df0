//! What peers may write, where the cluster has no `ValidatingAdmissionPolicy`: the same rules, see [`door`].
//!
//! One thing is done here in every cluster: Services are kept inside, see [`service`].
//!
//! The rules are read when the first such request comes: where there are policies, none does.
//!
//! Keeps true: a request that no rule is about, or that no peer made, passes; a rule that cannot be evaluated refuses,
//! as does a rule that needs the settings while there are none.

mod service;

use std::sync::OnceLock;

use k8s_openapi::api::core::v1::ConfigMap;
use liqo_core::door::{self, Place};
use liqo_kube::Store;
use serde_json::{Value, json};

use super::{
    review::{Request, Verdict},
    rules::{Given, Rules},
};
use crate::home::Home;

/// Name of the variable that holds the settings.
const SETTINGS: &str = "settings";
const NO_SETTINGS: &str =
    "the ConfigMap liqo-peer-policy is not there: the administrators of this cluster must install the chart again";

/// The rules of the door and the settings that loosen them.
pub(super) struct Door {
    rules: OnceLock<Result<Rules, String>>,
    settings: Store<ConfigMap>,
    namespace: String,
}

impl Door {
    /// Watches what loosens the rules.
    pub(super) fn watch(home: &Home) -> Self {
        let only = format!("metadata.name={}", door::POLICY);
        let settings = home.cluster.watch::<ConfigMap>(&home.namespace).fields(&only).start(|_| {});
        Self { rules: OnceLock::new(), settings, namespace: home.namespace.clone() }
    }

    pub(super) async fn ready(&self) {
        self.settings.ready().await;
    }

    /// Whether the rules of the door let a peer do what it asks.
    pub(super) fn judge(&self, asked: &Request) -> Verdict {
        let settings = self.settings.get(&self.namespace, door::POLICY);
        let data = settings.as_ref().map(|map| json!(map.data));
        let rules = match self.rules.get_or_init(|| Rules::read(Place::Tenant, door::rules())) {
            Ok(rules) => rules,
            Err(why) => return Verdict::error(500, why.clone()),
        };
        match judge(rules, asked, data.as_ref()) {
            Ok(()) => Verdict::allow(),
            Err(why) => Verdict::deny(Place::Tenant.refusal(&asked.user_info.username, &why)),
        }
    }

    /// The patch to a Service that a peer writes.
    pub(super) fn keep_inside(&self, asked: &Request) -> Verdict {
        let settings = self.settings.get(&self.namespace, door::POLICY);
        let types = settings.as_ref().and_then(|map| map.data.as_ref()?.get(door::SERVICE_TYPES));
        service::keep_inside(asked, types.map_or("", String::as_str))
    }
}

/// The first reason to refuse.
fn judge(rules: &Rules, asked: &Request, settings: Option<&Value>) -> Result<(), String> {
    if settings.is_none() && rules.use_settings(asked) {
        return Err(NO_SETTINGS.to_owned());
    }
    rules.judge(asked, settings.map(|value| Given { name: SETTINGS, value }))
}

#[cfg(test)]
mod tests;
