//! The user behind a ServiceAccount token, as the API server reviews the token; a review counts for a few seconds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;

use crate::{Cluster, KubeError};

/// Time for which a review counts.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Reviews kept at most, so that invented tokens do not fill the memory.
const KNOWN: usize = 4096;
/// Reviews in progress at the same time.
const ASKING: usize = 8;
/// Longest token, bytes.
const LONGEST: usize = 8192;

/// A user's name, if the token was one.
type Answer = Option<String>;

/// Reviews tokens for one audience.
pub struct Tokens {
    home: Cluster,
    audience: &'static str,
    known: Mutex<HashMap<[u8; 32], (Instant, Answer)>>,
    asking: Semaphore,
}

impl Tokens {
    /// Tokens meant for `audience`, as the API server of `home` knows them.
    pub fn new(home: Cluster, audience: &'static str) -> Self {
        Self { home, audience, known: Mutex::default(), asking: Semaphore::new(ASKING) }
    }

    /// The name of the token's user; `None` for an invalid token or a token for another audience.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn user(&self, token: &str) -> Result<Option<String>, KubeError> {
        if !may_be_one(token) {
            return Ok(None);
        }
        let Ok(key) = digest(&SHA256, token.as_bytes()).as_ref().try_into() else { return Ok(None) };
        if let Some(known) = self.recall(&key) {
            return Ok(known);
        }
        let _turn = self.asking.acquire().await;
        // A concurrent call may have asked in the meantime.
        if let Some(known) = self.recall(&key) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.to_owned()]) };
        let review = self.home.create(&TokenReview { spec, ..TokenReview::default() }).await?;
        let user = read(review, self.audience);
        self.remember(key, user.clone());
        Ok(user)
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Answer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(since, _)| since.elapsed() < GOOD_FOR).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, key: [u8; 32], answer: Answer) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.retain(|_, (since, _)| since.elapsed() < GOOD_FOR);
        }
        if known.len() < KNOWN {
            known.insert(key, (Instant::now(), answer));
        }
    }
}

/// Whether a text can be a token: three parts of base64url letters. Other texts are not reviewed.
fn may_be_one(token: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
    token.len() <= LONGEST
        && token.split('.').count() == 3
        && token.split('.').all(|part| !part.is_empty() && part.bytes().all(is_letter))
}

/// The user in a review. An API server without support for audiences names none: the token may be for any audience, and is
/// refused.
fn read(review: TokenReview, audience: &str) -> Answer {
    let status = review.status?;
    let meant = status.audiences.unwrap_or_default().iter().any(|one| one == audience);
    let name = status.user.and_then(|user| user.username).filter(|name| !name.is_empty());
    name.filter(|_| meant && status.authenticated == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_token_counts_for_its_audience_only() {
        let answer = |status: Value| {
            read(serde_json::from_value(json!({"spec": {"token": "x"}, "status": status})).unwrap(), "liqo-ipam")
        };
        let user = json!({"username": "system:serviceaccount:a:b"});
        let good = json!({"authenticated": true, "audiences": ["liqo-ipam"], "user": user});
        assert_eq!(answer(good).as_deref(), Some("system:serviceaccount:a:b"));
        for bad in [
            json!({"authenticated": true, "user": user}),
            json!({"authenticated": true, "audiences": ["other"], "user": user}),
            json!({"authenticated": false, "audiences": ["liqo-ipam"], "user": user}),
            json!({"audiences": ["liqo-ipam"], "user": user}),
            json!({"authenticated": true, "audiences": ["liqo-ipam"], "user": {}}),
        ] {
            assert_eq!(answer(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_not_asked_about() {
        assert!(may_be_one("aA0.b-_=.c"));
        for bad in ["", "a.b", "a..c", "a.b.c.d", "a.b.c ", "a.b.\u{e9}", &format!("a.{}.c", "b".repeat(LONGEST))] {
            assert!(!may_be_one(bad), "{bad}");
        }
    }
}
