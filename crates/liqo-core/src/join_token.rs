//! The text of a join token: `<secret>` or `<secret>.<pin>`.
//!
//! The pin is the SHA-256 of the key (`SubjectPublicKeyInfo`) that the authentication service shows, in base64url. The pin is a
//! part of the token, so a cluster that does not know pins passes the pin on with the token, and no further field is needed.

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use liqo_api::{
    meta::{annotation, label},
    names,
};
use sha2::{Digest, Sha256};

/// Length of a pin: 32 bytes in base64url without padding.
const PIN: usize = 43;

/// A token for a service whose key has this pin.
pub fn with_pin(secret: &str, pin: &str) -> String {
    format!("{secret}.{pin}")
}

/// Secret and pin of a token.
pub fn split(token: &str) -> (&str, Option<&str>) {
    let is_pin = |text: &str| text.len() == PIN && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    match token.rsplit_once('.') {
        Some((secret, pin)) if !secret.is_empty() && is_pin(pin) => (secret, Some(pin)),
        _ => (token, None),
    }
}

/// Name of the `Secret` that holds a one-time token; the name reveals nothing of the token.
pub fn secret_name(secret: &str) -> String {
    let digest = Sha256::digest(format!("name of {secret}"));
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}{hex}", names::ONE_TIME_TOKEN_PREFIX)
}

/// For whom a one-time token is.
#[derive(Clone, Copy, Debug)]
pub enum For<'a> {
    /// The cluster with this ID; the cluster may come with a new key.
    Guest(&'a str),
    /// The first cluster that uses the token.
    First,
}

/// The `Secret` that holds the secret part of a one-time token, which is good until `end` (RFC 3339).
pub fn one_time(namespace: &str, whom: For<'_>, secret: &str, end: &str) -> Secret {
    let labels = match whom {
        For::Guest(guest) => vec![(label::ONE_TIME_TOKEN, "guest"), (label::CLUSTER_ID, guest)],
        For::First => vec![(label::ONE_TIME_TOKEN, "true")],
    };
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(secret)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some([(annotation::TOKEN_EXPIRES.to_owned(), end.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([(names::TOKEN_KEY.to_owned(), ByteString(secret.as_bytes().to_vec()))].into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_says_whose_it_is_and_when_it_ends() {
        let end = "2026-01-02T00:00:00Z";
        for (whom, labels) in [
            (For::Guest("g"), json!({"liqo.io/one-time-token": "guest", "discovery.liqo.io/cluster-id": "g"})),
            (For::First, json!({"liqo.io/one-time-token": "true"})),
        ] {
            let made = serde_json::to_value(one_time("liqo", whom, "t", end)).unwrap();
            assert_eq!(made["metadata"]["labels"], labels);
            assert_eq!(made["metadata"]["annotations"], json!({"liqo.io/token-expires": end}));
            assert_eq!(made["data"], json!({"token": "dA=="}));
        }
    }

    #[test]
    fn a_pin_is_found_where_there_is_one() {
        let pin = "a-_4567890123456789012345678901234567890123";
        assert_eq!(pin.len(), PIN);
        for (token, secret, found) in [
            (with_pin("abc", pin), "abc", Some(pin)),
            ("abc".to_owned(), "abc", None),
            ("a.b".to_owned(), "a.b", None),
            (format!("a.b.{pin}"), "a.b", Some(pin)),
            (format!(".{pin}"), &*format!(".{pin}"), None),
            (String::new(), "", None),
        ] {
            assert_eq!(split(&token), (secret, found), "{token}");
        }
    }

    #[test]
    fn a_name_follows_from_the_secret() {
        let name = secret_name("abc");
        assert!(name.starts_with("auth-token-once-") && !name.contains("abc"));
        assert_eq!(name, secret_name("abc"));
        assert_ne!(name, secret_name("abd"));
    }
}
