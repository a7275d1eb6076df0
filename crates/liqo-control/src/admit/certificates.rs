//! The certificates of the webhooks: made, renewed, shown and trusted.
//!
//! Keeps true: the certificate shown is valid and the API server trusts its issuer, at every
//! moment of a renewal and whichever replica is asked. Whoever comes first makes them; all others read.
//!
//! Watches   the `Secret` `liqo-webhook-certs`, both webhook configurations `liqo-webhook`.
//! Writes    that `Secret`; `caBundle` in those configurations.
//! Removes   nothing.

mod plan;
mod trust;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::names;
use liqo_kube::{
    KubeError, Queue, Store,
    certs::{CertError, Pair, Shown},
    drive,
    life::Busy,
    now,
};
use serde_json::json;

use self::plan::Held;
use crate::home::Home;

/// How often validity is looked at when nothing happens.
const INTERVAL: Duration = Duration::from_secs(600);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("keeping the certificates of the webhooks")]
    Kube(#[from] KubeError),
    #[error("making certificates for the webhooks")]
    Cert(#[from] CertError),
}

struct Keeper {
    home: Home,
    secrets: Store<Secret>,
    mutating: Store<MutatingWebhookConfiguration>,
    validating: Store<ValidatingWebhookConfiguration>,
    shown: Arc<Shown>,
    /// What is shown now.
    pair: Mutex<Option<Pair>>,
    /// Held until the API server trusts what is shown.
    busy: Mutex<Option<Busy>>,
}

/// Runs for ever.
pub(super) async fn run(home: Home, shown: Arc<Shown>, busy: Busy) {
    let queue = Queue::new();
    queue.push(());
    let (a, b, c) = (queue.clone(), queue.clone(), queue.clone());
    let only = |name: &str| format!("metadata.name={name}");
    let cluster = &home.cluster;
    let secrets = cluster.watch::<Secret>(&home.namespace).fields(&only(names::WEBHOOK_CERTS_SECRET));
    let secrets = secrets.start(move |_| a.push(()));
    let mutating = cluster.watch::<MutatingWebhookConfiguration>("").fields(&only(names::WEBHOOK_CONFIGURATION));
    let mutating = mutating.start(move |_| b.push(()));
    let validating = cluster.watch::<ValidatingWebhookConfiguration>("").fields(&only(names::WEBHOOK_CONFIGURATION));
    let validating = validating.start(move |_| c.push(()));
    secrets.ready().await;
    mutating.ready().await;
    validating.ready().await;
    let (pair, busy) = (Mutex::new(None), Mutex::new(Some(busy)));
    let keeper = Keeper { home, secrets, mutating, validating, shown, pair, busy };
    drive("webhook-certificates", queue, 1, |()| keeper.settle()).await;
}

impl Keeper {
    async fn settle(&self) -> Result<Option<Duration>, Trouble> {
        let secret = self.secrets.get(&self.home.namespace, names::WEBHOOK_CERTS_SECRET);
        let held = secret.as_deref().and_then(Held::read);
        let trusted = held.as_ref().is_some_and(|held| self.trusted(&held.bundle));
        let names = server_names(&self.home.namespace);
        let step = plan::plan(held.as_ref(), trusted, now().0);
        if let Some(new) = plan::act(step, held.as_ref(), &names)? {
            tracing::info!(step = ?step, "certificates of the webhooks");
            // The watch shows what is stored, whichever replica was first.
            self.store(secret.as_deref(), &new).await?;
            return Ok(Some(INTERVAL));
        }
        if let Some(held) = held {
            self.show(&held.leaf)?;
            let bundle = held.bundle.as_bytes();
            trust::ensure(&self.home.cluster, &self.mutating, bundle).await?;
            trust::ensure(&self.home.cluster, &self.validating, bundle).await?;
            if trusted {
                drop(self.busy.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        }
        Ok(Some(INTERVAL))
    }

    /// Whether both configurations have exactly this bundle.
    fn trusted(&self, bundle: &str) -> bool {
        trust::has(&self.mutating, bundle.as_bytes()) && trust::has(&self.validating, bundle.as_bytes())
    }

    fn show(&self, leaf: &Pair) -> Result<(), CertError> {
        let mut pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
        if pair.as_ref() != Some(leaf) {
            self.shown.show(leaf)?;
            *pair = Some(leaf.clone());
        }
        Ok(())
    }

    /// Writes the secret as we know it; if another replica was faster, its word counts.
    async fn store(&self, secret: Option<&Secret>, new: &Held) -> Result<(), KubeError> {
        let cluster = &self.home.cluster;
        let written = match secret {
            None => {
                let metadata = ObjectMeta {
                    name: Some(names::WEBHOOK_CERTS_SECRET.to_owned()),
                    namespace: Some(self.home.namespace.clone()),
                    ..ObjectMeta::default()
                };
                let data = new.data().into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
                let type_ = Some("Opaque".to_owned());
                let secret = Secret { metadata, data: Some(data.collect()), type_, ..Secret::default() };
                cluster.create(&secret).await
            }
            Some(secret) => {
                let data = new.data().into_iter().map(|(key, value)| (key, ByteString(value.into_bytes())));
                let data: std::collections::BTreeMap<_, _> = data.collect();
                let meta = json!({"resourceVersion": secret.resource_version(), "uid": secret.uid()});
                cluster.merge(secret, json!({"metadata": meta, "data": data})).await
            }
        };
        match written {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

/// How the API server calls the webhooks.
fn server_names(namespace: &str) -> Vec<String> {
    let service = format!("{}.{namespace}", names::CONTROLLER_MANAGER_SERVICE);
    vec![service.clone(), format!("{service}.svc"), format!("{service}.svc.cluster.local")]
}
