//! Whom the API server trusts when it calls the webhooks: `caBundle` in the webhook configurations.
//!
//! Only that field is written, as our own by server-side apply, so an upgrade of the chart keeps it and
//! one that wipes it all the same is repaired.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
};
use kube::ResourceExt;
use liqo_api::names;
use liqo_kube::{Cluster, KubeError, Object, Store};
use serde_json::json;

/// A webhook configuration.
pub(super) trait Configuration: Object {
    /// Its webhooks: name, and how they are called.
    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

/// Whether a configuration is there and all its webhooks have the bundle.
pub(super) fn has<K: Configuration>(all: &Store<K>, bundle: &[u8]) -> bool {
    all.get("", names::WEBHOOK_CONFIGURATION).is_some_and(|one| missing(&*one, bundle).is_empty())
}

/// Gives all webhooks of a configuration the bundle, if it is there.
pub(super) async fn ensure<K: Configuration>(
    cluster: &Cluster,
    all: &Store<K>,
    bundle: &[u8],
) -> Result<(), KubeError> {
    let Some(configuration) = all.get("", names::WEBHOOK_CONFIGURATION) else {
        tracing::warn!(kind = %K::kind(&()), name = names::WEBHOOK_CONFIGURATION, "webhook configuration not found");
        return Ok(());
    };
    if missing(&*configuration, bundle).is_empty() {
        return Ok(());
    }
    // All of them: what is left out would no longer be ours, and vanish.
    let bundle = ByteString(bundle.to_vec());
    let hook = |(name, _): (&str, _)| json!({"name": name, "clientConfig": {"caBundle": bundle}});
    let hooks: Vec<_> = configuration.hooks().into_iter().map(hook).collect();
    let body = json!({"metadata": {"uid": configuration.uid()}, "webhooks": hooks});
    cluster.apply_value::<K>("", names::WEBHOOK_CONFIGURATION, body).await?;
    tracing::info!(kind = %K::kind(&()), "webhook configuration trusts our certificates");
    Ok(())
}

/// Names of the webhooks without the bundle.
fn missing<'a>(configuration: &'a impl Configuration, bundle: &[u8]) -> Vec<&'a str> {
    let has = |config: &WebhookClientConfig| config.ca_bundle.as_ref().is_some_and(|is| is.0 == bundle);
    configuration.hooks().into_iter().filter(|(_, config)| !has(config)).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_without_the_bundle_is_found() {
        let configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "liqo-webhook"},
            "webhooks": [
                {"name": "a", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"caBundle": "Y2E="}},
                {"name": "b", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {}},
            ],
        }))
        .unwrap();
        assert_eq!(missing(&configuration, b"ca"), ["b"]);
        assert_eq!(missing(&configuration, b"another"), ["a", "b"]);
    }
}
