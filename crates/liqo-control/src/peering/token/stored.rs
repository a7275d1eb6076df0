//! The Secrets that hold tokens: making, binding and replacing them.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{
    meta::{annotation, label},
    names,
};
use liqo_core::{join_token, peering};
use liqo_kube::{Cluster, KubeError, certs, now};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::{alive, read, same};

/// Bytes of randomness in a token.
const STRENGTH: usize = 64;

/// The cluster's own token; made, or made anew, when there is none.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn ensure(cluster: &Cluster, namespace: &str) -> Result<String, KubeError> {
    loop {
        let found = cluster.get::<Secret>(namespace, names::AUTH_TOKEN_SECRET).await?;
        match &found {
            Some(secret) => match read(secret) {
                Some(token) => return Ok(token),
                None => cluster.remove(secret).await?,
            },
            None => match cluster.create(&secret(namespace, names::AUTH_TOKEN_SECRET, &random())).await {
                // Somebody else was quicker: what is stored counts.
                Err(error) if !error.is_conflict() => return Err(error),
                _ => {}
            },
        }
    }
}

/// Name of the secret with the token made for `peer`.
pub(super) fn own_name(peer: &str) -> String {
    format!("{}-{peer}", names::AUTH_TOKEN_SECRET)
}

/// Binds a one-time token to `peer`; of two peers that use the token at the same time one fails with a conflict.
///
/// # Errors
/// When the API server refuses, or somebody has changed the secret.
pub(crate) async fn bind(cluster: &Cluster, token: &Secret, peer: &str) -> Result<(), KubeError> {
    let annotations = json!({annotation::TOKEN_USED_BY: peer});
    let metadata = json!({"resourceVersion": token.resource_version(), "annotations": annotations});
    cluster.merge(token, json!({"metadata": metadata})).await.map(drop)
}

/// The token `peer` is given to come back with: one that is good for that peer only, never the cluster's own. Empty when
/// the administrator has shut the peer out.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn for_peer(cluster: &Cluster, namespace: &str, peer: &str) -> Result<String, KubeError> {
    let name = own_name(peer);
    let token = loop {
        match cluster.get::<Secret>(namespace, &name).await? {
            Some(own) if alive(&own, now().0).is_ok() => break read(&own).unwrap_or_default(),
            Some(expired) => cluster.remove(&expired).await?,
            None => match cluster.create(&first_contact(namespace, &name, peer)).await {
                // Somebody else was quicker: what is stored counts.
                Err(error) if !error.is_conflict() => return Err(error),
                _ => {}
            },
        }
    };
    let shown = cluster.get::<Secret>(namespace, names::AUTH_CERTIFICATE_SECRET).await?;
    let certificate = shown.as_ref().and_then(|secret| secret.data.as_ref()?.get(names::TLS_CERTIFICATE));
    Ok(match certificate.and_then(|pem| certs::pin(&pem.0).ok()).filter(|_| !token.is_empty()) {
        Some(pin) => join_token::with_pin(&token, &pin),
        None => token,
    })
}

fn first_contact(namespace: &str, name: &str, peer: &str) -> Secret {
    let mut secret = secret(namespace, name, &random());
    secret.metadata.labels = Some([(label::CLUSTER_ID.to_owned(), peer.to_owned())].into());
    secret.metadata.annotations = Some([(annotation::TOKEN_MADE_FOR.to_owned(), "first-contact".to_owned())].into());
    secret
}

/// Stores the token a peer wants to hear from us, if there is none or the peer `may_replace` it: the administrator may
/// have typed the stored token, and the stored token may hold a pin.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn store_remote(
    cluster: &Cluster,
    namespace: &str,
    peer: &str,
    token: &str,
    may_replace: bool,
) -> Result<(), KubeError> {
    let name = peering::token_name(peer);
    let found = cluster.get::<Secret>(namespace, &name).await?;
    let held = found.as_ref().and_then(read);
    let is_right = found.as_ref().is_some_and(|secret| secret.labels().contains_key(label::AUTH_TOKEN))
        && held.as_ref().is_some_and(|old| same(old, token));
    if !is_right && (may_replace || held.is_none()) {
        cluster.apply(&peering::token_secret(token, peer, namespace)).await?;
    }
    Ok(())
}

pub(super) fn secret(namespace: &str, name: &str, token: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(names::TOKEN_KEY.to_owned(), ByteString(token.as_bytes().to_vec()))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// A new token: hexadecimal digits.
fn random() -> String {
    let mut bytes = [0_u8; STRENGTH];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_128_digits_and_never_the_same() {
        let token = random();
        assert_eq!(token.len(), 128);
        assert!(token.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(token, random());
    }

    #[test]
    fn a_secret_without_a_token_holds_none() {
        assert_eq!(read(&Secret::default()), None);
        assert_eq!(read(&secret("liqo", "x", " ")), None);
        assert_eq!(read(&secret("liqo", "x", "abc\n")), Some("abc".to_owned()));
    }
}
