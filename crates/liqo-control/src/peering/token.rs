//! Join tokens: what a peer must know to be given an identity here.
//!
//! - `auth-token`: one for the cluster; made when missing, replaced when it holds no token.
//! - `auth-token-<cluster ID>`: one for a single peer; where it exists only it is accepted from that
//!   peer, and only it is handed to that peer.
//! - `remote-token-<cluster ID>`: what a peer wants to hear from us.
//!
//! Tokens are compared in constant time and never written to a log, an event, a condition or an answer.
//!
//! Writes    `Secret`.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{meta::label, names};
use liqo_kube::{Cluster, KubeError};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Bytes of randomness in a token.
const STRENGTH: usize = 64;

/// The token a secret holds, if it holds one.
pub(crate) fn read(secret: &Secret) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(names::TOKEN_KEY)?.0;
    std::str::from_utf8(bytes).ok().map(str::trim).filter(|token| !token.is_empty()).map(str::to_owned)
}

/// Whether two tokens are equal, in a time that does not depend on where they differ. No token equals
/// nothing.
pub(crate) fn same(expected: &str, given: &str) -> bool {
    let mut secret = [0_u8; 32];
    // Without randomness the comparison is still correct, only its timing says a little more.
    let _ = SystemRandom::new().fill(&mut secret);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let tag = hmac::sign(&key, expected.as_bytes());
    !expected.is_empty() && hmac::verify(&key, given.as_bytes(), tag.as_ref()).is_ok()
}

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
            None => match cluster.create(&secret(namespace, names::AUTH_TOKEN_SECRET, &random(), None)).await {
                // Somebody else was quicker: what is stored counts.
                Err(error) if !error.is_conflict() => return Err(error),
                _ => {}
            },
        }
    }
}

/// The token `peer` must show, and the one it is given to come back with.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn expected_of(cluster: &Cluster, namespace: &str, peer: &str) -> Result<String, KubeError> {
    let own = format!("{}-{peer}", names::AUTH_TOKEN_SECRET);
    match cluster.get::<Secret>(namespace, &own).await?.as_ref() {
        // An empty one is matched by nothing: the peer is shut out, which is what whoever wrote it meant.
        Some(secret) => Ok(read(secret).unwrap_or_default()),
        None => ensure(cluster, namespace).await,
    }
}

/// Name of the secret with the token of `peer`.
pub(crate) fn remote_name(peer: &str) -> String {
    format!("{}{peer}", names::REMOTE_TOKEN_PREFIX)
}

/// Stores the token a peer wants to hear from us, if it is new.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn store_remote(cluster: &Cluster, namespace: &str, peer: &str, token: &str) -> Result<(), KubeError> {
    let name = remote_name(peer);
    let found = cluster.get::<Secret>(namespace, &name).await?;
    let known = found.as_ref().is_some_and(|secret| {
        read(secret).is_some_and(|old| same(&old, token)) && secret.labels().contains_key(label::AUTH_TOKEN)
    });
    if !known {
        cluster.apply(&secret(namespace, &name, token, Some(peer))).await?;
    }
    Ok(())
}

fn secret(namespace: &str, name: &str, token: &str, peer: Option<&str>) -> Secret {
    let labels = peer.map(|peer| {
        BTreeMap::from([(label::CLUSTER_ID.to_owned(), peer.to_owned()), (label::AUTH_TOKEN.to_owned(), String::new())])
    });
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels,
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

/// `text` without any of the secrets.
pub(crate) fn redact(text: &str, secrets: &[&str]) -> String {
    let known = secrets.iter().filter(|secret| !secret.is_empty());
    known.fold(text.to_owned(), |text, secret| text.replace(secret, "(token)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_the_same() {
        for (expected, given, equal) in [
            ("abc", "abc", true),
            ("abc", "abd", false),
            ("abc", "abcd", false),
            ("abc", "", false),
            ("", "", false),
            ("", "abc", false),
        ] {
            assert_eq!(same(expected, given), equal, "{expected:?} {given:?}");
        }
    }

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
        assert_eq!(read(&secret("liqo", "x", " ", None)), None);
        assert_eq!(read(&secret("liqo", "x", "abc\n", None)), Some("abc".to_owned()));
    }

    #[test]
    fn what_is_passed_on_holds_no_token() {
        assert_eq!(redact("invalid token \"abc\"", &["abc", ""]), "invalid token \"(token)\"");
    }
}
