//! The cluster's WireGuard key pair, in a Secret that all its gateways share.
//!
//! Watches: the Secret `wireguard-pubkey` only. Writes: creates that Secret if it does not exist.

use std::sync::Arc;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::core::ObjectMeta;
use liqo_kube::{Cluster, KubeError, Store};
use liqo_tunnel::PrivateKey;
use tokio::sync::Notify;

use crate::layout::{KEY_LABEL, KEY_SECRET, PRIVATE_KEY, PUBLIC_KEY};

/// The Secret, as it is now and as it will be.
pub(crate) struct Keys {
    cluster: Cluster,
    namespace: String,
    /// Name of this pod.
    pod: String,
    secrets: Store<Secret>,
}

impl Keys {
    /// Watches the Secret for the gateway `pod`; `bell` is rung when the Secret changes.
    pub(crate) fn watch(cluster: &Cluster, namespace: &str, pod: &str, bell: &Arc<Notify>) -> Self {
        let bell = Arc::clone(bell);
        let secrets = cluster.watch::<Secret>(namespace).fields(&format!("metadata.name={KEY_SECRET}"));
        let secrets = secrets.start(move |_| bell.notify_one());
        Self { cluster: cluster.clone(), namespace: namespace.to_owned(), pod: pod.to_owned(), secrets }
    }

    /// The key. A Secret that holds none is left alone: whoever wrote it shall mend it.
    pub(crate) async fn current(&self) -> Result<Option<PrivateKey>, KubeError> {
        self.secrets.ready().await;
        let Some(secret) = self.secrets.get(&self.namespace, KEY_SECRET) else {
            return self.create().await.map(|()| None);
        };
        let key = read(&secret);
        if key.is_none() {
            tracing::error!(
                "Secret {KEY_SECRET}: {PRIVATE_KEY} is no WireGuard key; mend it, or delete it for a new one"
            );
        }
        Ok(key)
    }

    async fn create(&self) -> Result<(), KubeError> {
        let key = match PrivateKey::generate() {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(error = %error, "no key can be made");
                return Ok(());
            }
        };
        let maker = format!("liqo-gateway/{}", self.pod);
        match self.cluster.create_by_name(&secret(&self.namespace, &key), &maker).await {
            Err(error) if !error.is_conflict() => Err(error),
            // Of two gateways that come first, the first one's key stays; the watch tells both.
            _ => Ok(()),
        }
    }
}

fn read(secret: &Secret) -> Option<PrivateKey> {
    let bytes = secret.data.as_ref()?.get(PRIVATE_KEY)?;
    std::str::from_utf8(&bytes.0).ok()?.trim().parse().ok()
}

fn secret(namespace: &str, key: &PrivateKey) -> Secret {
    let text = |text: String| ByteString(text.into_bytes());
    Secret {
        metadata: ObjectMeta {
            name: Some(KEY_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(KEY_LABEL.to_owned(), "wireguard".to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(
            [(PUBLIC_KEY.to_owned(), text(key.public().to_string())), (PRIVATE_KEY.to_owned(), text(key.to_base64()))]
                .into(),
        ),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_again_in_its_secret() {
        let key = PrivateKey::generate().unwrap();
        let made = secret("liqo", &key);
        assert_eq!(read(&made).unwrap().public(), key.public());
        let mut broken = made;
        broken.data.as_mut().unwrap().insert(PRIVATE_KEY.into(), ByteString(b"short".to_vec()));
        assert!(read(&broken).is_none());
    }
}
