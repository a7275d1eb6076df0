//! The text of a join token: `<secret>` or `<secret>.<pin>`.
//!
//! The pin is the SHA-256 of the key (`SubjectPublicKeyInfo`) that the authentication service shows, in base64url. The pin is a
//! part of the token, so a cluster that does not know pins passes the pin on with the token, and no further field is needed.

use sha2::{Digest, Sha256};

use liqo_api::names;

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

#[cfg(test)]
mod tests {
    use super::*;

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
