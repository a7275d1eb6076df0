//! Join tokens: a peer shows a token to get an identity in this cluster.
//!
//! - `auth-token`: the token of the cluster; created when missing, replaced when it is empty. It admits clusters whose ID is
//!   unknown. No component gives this token to a peer.
//! - `auth-token-once-<digits>`: for the first cluster that uses the token, until the token expires.
//!   With the label `discovery.liqo.io/cluster-id` the token is for that cluster only, and admits the cluster with a new key: an
//!   administrator made the token with `liqoctl generate peer-command --for-cluster-id`. No other token is replaced.
//! - `auth-token-<cluster ID>`: for one peer. A token marked `first-contact` was made to be sent to the peer. A token with an
//!   expiry was made by `liqoctl` of an earlier version for a peer that may come with a new key. A token with neither was written
//!   by hand; besides tokens made with `--for-cluster-id` it is then the only one accepted from that peer.
//! - `remote-token-<cluster ID>`: the token that this cluster shows to the peer.
//!
//! Tokens are compared in constant time and never written to a log, an event, a condition or an answer.
//!
//! Writes    `Secret`.

mod stored;

use std::time::Duration;

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, label},
    names,
};
use liqo_core::join_token;
use liqo_kube::{Cluster, KubeError};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use self::stored::own_name;
pub(crate) use self::stored::{bind, ensure, for_peer, store_remote};

/// Time after its end during which the Secret of a one-time token is kept, so that the log can say why the token is refused.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

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

/// The tokens that might let a peer in.
#[derive(Default)]
pub(crate) struct Known {
    /// The token of the cluster, if the service accepts that token.
    cluster: Option<String>,
    /// The token made for this peer.
    own: Option<Secret>,
    /// The one-time token that the caller showed.
    once: Option<Secret>,
}

/// The rights that a valid token gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TokenRights {
    /// The caller may come with a new key: an administrator of this cluster made the token for the caller, and not long ago.
    pub(crate) new_key: bool,
    /// A one-time token that no cluster has used yet.
    pub(crate) unused: Option<Secret>,
}

/// Why a token is refused. The caller does not learn the reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wrong {
    /// No Secret holds the token.
    Unknown,
    /// The token was valid until this time.
    Expired(Box<Secret>, String),
    /// Another cluster has used it, or the token was made for another cluster.
    Used(Box<Secret>, String),
}

impl Known {
    /// Reads the tokens that might let `peer` in with `given`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn read(
        cluster: &Cluster,
        namespace: &str,
        peer: &str,
        given: &str,
        accept_cluster_token: bool,
    ) -> Result<Self, KubeError> {
        let (secret, _) = join_token::split(given);
        let once = cluster.get::<Secret>(namespace, &join_token::secret_name(secret)).await?;
        Ok(Self {
            cluster: if accept_cluster_token { Some(ensure(cluster, namespace).await?) } else { None },
            own: cluster.get(namespace, &own_name(peer)).await?,
            once: once.filter(|secret| secret.labels().contains_key(label::ONE_TIME_TOKEN)),
        })
    }

    /// Whether `given` lets `peer` in.
    pub(crate) fn judge(&self, given: &str, peer: &str, now: Timestamp) -> Result<TokenRights, Wrong> {
        let holds = |secret: &&Secret| read(secret).is_some_and(|token| is(&token, given));
        if let Some(own) = self.own.as_ref().filter(holds) {
            alive(own, now)?;
            return Ok(TokenRights {
                new_key: own.annotations().contains_key(annotation::TOKEN_EXPIRES),
                unused: None,
            });
        }
        // An empty token that the administrator wrote for one peer by hand locks the peer out.
        let permanent = self.own.as_ref().filter(|own| is_permanent(own));
        if permanent.is_some_and(|own| read(own).is_none()) {
            return Err(Wrong::Unknown);
        }
        let once = self.once.as_ref().filter(holds);
        if let Some((once, guest)) = once.and_then(|once| Some((once, guest(once)?))) {
            if guest != peer {
                return Err(Wrong::Used(Box::new(once.clone()), guest.to_owned()));
            }
            alive(once, now)?;
            return Ok(TokenRights { new_key: true, unused: None });
        }
        // A token written by hand is the only token accepted from that peer, besides tokens that the administrator made since.
        if permanent.is_some() {
            return Err(Wrong::Unknown);
        }
        if let Some(once) = once {
            alive(once, now)?;
            return match once.annotations().get(annotation::TOKEN_USED_BY) {
                None => Ok(TokenRights { new_key: false, unused: Some(once.clone()) }),
                Some(user) if user == peer => Ok(TokenRights::default()),
                Some(user) => Err(Wrong::Used(Box::new(once.clone()), user.clone())),
            };
        }
        match &self.cluster {
            Some(token) if is(token, given) => Ok(TokenRights::default()),
            _ => Err(Wrong::Unknown),
        }
    }
}

/// Whether the caller's token, with or without a pin, equals the stored token.
fn is(token: &str, given: &str) -> bool {
    same(token, given) || same(token, join_token::split(given).0)
}

/// The only cluster that may use a token, if the token was made for one.
fn guest(once: &Secret) -> Option<&str> {
    once.labels().get(label::CLUSTER_ID).map(String::as_str)
}

fn is_permanent(own: &Secret) -> bool {
    let annotations = own.annotations();
    !annotations.contains_key(annotation::TOKEN_EXPIRES) && !annotations.contains_key(annotation::TOKEN_MADE_FOR)
}

fn alive(secret: &Secret, now: Timestamp) -> Result<(), Wrong> {
    let Some(end) = secret.annotations().get(annotation::TOKEN_EXPIRES) else { return Ok(()) };
    // An expiry that cannot be parsed counts as passed.
    match end.parse::<Timestamp>() {
        Ok(time) if now < time => Ok(()),
        _ => Err(Wrong::Expired(Box::new(secret.clone()), end.clone())),
    }
}

/// Whether a one-time token ended long enough ago for its Secret to be removed.
pub(crate) fn is_forgotten(secret: &Secret, now: Timestamp) -> bool {
    let end = secret.annotations().get(annotation::TOKEN_EXPIRES).and_then(|end| end.parse::<Timestamp>().ok());
    end.is_some_and(|end| now.duration_since(end).as_secs() > REMEMBERED.as_secs().cast_signed())
}

/// `text` with every token, and the secret part of every token, blanked out.
pub(crate) fn redact(text: &str, tokens: &[&str]) -> String {
    let known =
        tokens.iter().flat_map(|token| [*token, join_token::split(token).0]).filter(|secret| !secret.is_empty());
    known.fold(text.to_owned(), |text, secret| text.replace(secret, "(token)"))
}

#[cfg(test)]
mod tests {
    use super::{stored::secret, *};

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
    fn what_is_passed_on_holds_no_token() {
        assert_eq!(redact("invalid token \"abc\"", &["abc", ""]), "invalid token \"(token)\"");
    }

    fn held(token: &str, annotations: &[(&str, &str)]) -> Secret {
        let mut secret = secret("liqo", "x", token);
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        secret.metadata.annotations = Some(annotations.collect());
        secret
    }

    #[test]
    fn a_token_lets_in_whom_it_was_made_for() {
        const PIN: &str = ".a-_4567890123456789012345678901234567890123";
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let (ended, open) = ("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z");
        let expires = |end| held("own", &[(annotation::TOKEN_EXPIRES, end)]);
        let once = |end, used: &[(&'static str, &'static str)]| {
            held("once", &[&[(annotation::TOKEN_EXPIRES, end)][..], used].concat())
        };
        let given = held("own", &[(annotation::TOKEN_MADE_FOR, "first-contact")]);
        let first = given.clone();
        let by_v = [(annotation::TOKEN_USED_BY, "v")];
        let for_v = |end| {
            let mut token = once(end, &[]);
            token.labels_mut().insert(label::CLUSTER_ID.to_owned(), "v".to_owned());
            token
        };
        let all = |own: Option<&Secret>, once: Option<&Secret>| Known {
            cluster: Some("cluster".to_owned()),
            own: own.cloned(),
            once: once.cloned(),
        };
        let name = |outcome: Result<TokenRights, Wrong>| match outcome {
            Ok(TokenRights { new_key: true, .. }) => "new key",
            Ok(TokenRights { unused: Some(_), .. }) => "first use",
            Ok(_) => "in",
            Err(Wrong::Unknown) => "unknown",
            Err(Wrong::Expired(..)) => "expired",
            Err(Wrong::Used(..)) => "used",
        };
        for (own, one_time, token, peer, expected) in [
            (None, None, "cluster", "v", "in"),
            (None, None, "", "v", "unknown"),
            (None, None, "other", "v", "unknown"),
            (Some(held("own", &[])), None, "own", "v", "in"),
            (Some(held("own", &[])), None, "cluster", "v", "unknown"),
            (Some(held("", &[])), None, "", "v", "unknown"),
            (Some(held("", &[])), None, "cluster", "v", "unknown"),
            (Some(given.clone()), None, "own", "v", "in"),
            (Some(given.clone()), None, "cluster", "v", "in"),
            (Some(expires(open)), None, "own", "v", "new key"),
            (Some(expires(ended)), None, "own", "v", "expired"),
            (Some(expires("soon")), None, "own", "v", "expired"),
            (Some(expires(ended)), None, "cluster", "v", "in"),
            (None, Some(once(open, &[])), "once", "v", "first use"),
            (None, Some(once(ended, &[])), "once", "v", "expired"),
            (None, Some(once(open, &by_v)), "once", "v", "in"),
            (None, Some(once(open, &by_v)), "once", "p", "used"),
            (None, Some(once(ended, &by_v)), "once", "p", "expired"),
            (Some(given), Some(once(open, &[])), "once", "v", "first use"),
            (Some(held("own", &[])), Some(once(open, &[])), "once", "v", "unknown"),
            (None, Some(for_v(open)), "once", "v", "new key"),
            (None, Some(for_v(open)), "once", "p", "used"),
            (None, Some(for_v(ended)), "once", "v", "expired"),
            (Some(first.clone()), Some(for_v(open)), "once", "v", "new key"),
            (Some(first), Some(for_v(open)), "own", "v", "in"),
            (Some(held("own", &[])), Some(for_v(open)), "once", "v", "new key"),
            (Some(held("", &[])), Some(for_v(open)), "once", "v", "unknown"),
        ] {
            let known = all(own.as_ref(), one_time.as_ref());
            assert_eq!(name(known.judge(token, peer, now)), expected, "{token} {peer} {own:?} {one_time:?}");
            if !token.is_empty() {
                assert_eq!(name(known.judge(&format!("{token}{PIN}"), peer, now)), expected, "{token} with a pin");
            }
        }
        let closed = Known { cluster: None, ..all(None, None) };
        assert_eq!(name(closed.judge("cluster", "v", now)), "unknown", "the cluster's token is not accepted");
    }

    #[test]
    fn a_token_is_forgotten_a_week_after_its_end() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let token = held("once", &[(annotation::TOKEN_EXPIRES, "2026-01-01T00:00:00Z")]);
        assert!(!is_forgotten(&token, at("2026-01-07T23:00:00Z")));
        assert!(is_forgotten(&token, at("2026-01-08T00:00:01Z")));
        assert!(!is_forgotten(&held("once", &[]), at("2030-01-01T00:00:00Z")));
    }
}
