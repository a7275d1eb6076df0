//! The user behind a token, as the API server reviews the token; a review counts for a while.
//!
//! Keeps true: whoever shows invented tokens causes a bounded number of reviews, by source and in total, and takes none from
//! callers whose token was found good before. The memory is bounded.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;

use crate::{
    Cluster, KubeError,
    access::User,
    rate::{Limiter, Rate, source},
};

/// How long a review counts that found the token of a ServiceAccount valid: as long as a review of a caller counts for kubelets
/// (`authentication.webhook.cacheTTL`).
const GOOD_FOR: Duration = Duration::from_secs(120);
/// How long a review counts that found the token of a user valid: a user whose token is revoked loses open pages after this time.
const GOOD_FOR_USERS: Duration = Duration::from_secs(10);
/// How long a review counts that found a token invalid.
const BAD_FOR: Duration = Duration::from_secs(10);
/// Reviews of good tokens kept at most, and of bad ones, so that invented tokens do not fill the memory.
const KNOWN: usize = 4096;
/// Reviews in progress at the same time.
const ASKING: usize = 8;
/// Sources that are counted at most.
const SOURCES: usize = 4096;
/// Reviews of tokens that are not known to be good: of one source 10 at once and then one a second, of all together 100 at
/// once and then 10 a second.
const NEW: (Rate, Rate) = (Rate::new(10, Duration::from_secs(1)), Rate::new(100, Duration::from_millis(100)));
/// Longest token, bytes: tokens of an OIDC issuer name the groups of their user.
const LONGEST: usize = 16_384;

/// The user, if the token was one.
type Answer = Option<User>;
/// The SHA-256 of a token.
type Key = [u8; 32];

/// Why nothing is known about a token.
#[derive(Debug, thiserror::Error)]
pub enum Unreviewed {
    /// The source has shown too many tokens that were not known.
    #[error("too many unknown tokens were shown, try again in {} s", .0.as_secs().saturating_add(1))]
    TooMany(Duration),
    /// The API server does not say.
    #[error(transparent)]
    Kube(#[from] KubeError),
}

/// Reviews tokens: those of users of the cluster, or those of ServiceAccounts made for one audience.
pub struct Tokens {
    home: Cluster,
    audience: Option<&'static str>,
    known: Mutex<Known>,
    new: Limiter<IpAddr>,
    asking: Semaphore,
}

/// Reviews, by token: bad tokens take no room from good ones.
struct Known {
    /// How long a review with the result "valid" counts.
    good_for: Duration,
    good: HashMap<Key, (Instant, User)>,
    bad: HashMap<Key, Instant>,
}

impl Known {
    fn new(good_for: Duration) -> Self {
        Self { good_for, good: HashMap::new(), bad: HashMap::new() }
    }

    fn recall(&self, key: &Key, now: Instant) -> Option<Answer> {
        match (self.good.get(key), self.bad.get(key)) {
            (Some((since, user)), _) if now.duration_since(*since) < self.good_for => Some(Some(user.clone())),
            (_, Some(since)) if now.duration_since(*since) < BAD_FOR => Some(None),
            _ => None,
        }
    }

    /// Whether the last review, however old, found the token good.
    fn was_good(&self, key: &Key) -> bool {
        self.good.contains_key(key)
    }

    fn remember(&mut self, key: Key, answer: Answer, now: Instant) {
        if self.good.len() >= KNOWN {
            self.good.retain(|_, (since, _)| now.duration_since(*since) < self.good_for);
        }
        if self.bad.len() >= KNOWN {
            self.bad.retain(|_, since| now.duration_since(*since) < BAD_FOR);
        }
        self.good.remove(&key);
        self.bad.remove(&key);
        match answer {
            Some(user) if self.good.len() < KNOWN => _ = self.good.insert(key, (now, user)),
            None if self.bad.len() < KNOWN => _ = self.bad.insert(key, now),
            _ => {}
        }
    }
}

impl Tokens {
    /// Tokens of users, as the API server of `home` knows users.
    pub fn of_users(home: Cluster) -> Self {
        Self::new(home, None)
    }

    /// Tokens of ServiceAccounts that are meant for `audience`, as the API server of `home` knows them.
    pub fn for_audience(home: Cluster, audience: &'static str) -> Self {
        Self::new(home, Some(audience))
    }

    fn new(home: Cluster, audience: Option<&'static str>) -> Self {
        let known = Known::new(good_for(audience));
        let new = Limiter::new(NEW.0, NEW.1, SOURCES);
        Self { home, audience, known: Mutex::new(known), new, asking: Semaphore::new(ASKING) }
    }

    /// The user of a token that was shown from `address`; `None` for an invalid token or a token for another audience.
    ///
    /// # Errors
    /// When the API server does not say, or was asked too often about tokens from there.
    pub async fn user(&self, token: &str, address: IpAddr) -> Result<Option<User>, Unreviewed> {
        if token.len() > LONGEST || (self.audience.is_some() && !may_be_of_account(token)) {
            return Ok(None);
        }
        let Ok(key) = digest(&SHA256, token.as_bytes()).as_ref().try_into() else { return Ok(None) };
        if let Some(known) = self.recall(&key) {
            return Ok(known);
        }
        if !self.known.lock().unwrap_or_else(PoisonError::into_inner).was_good(&key) {
            self.new.take(source(address)).map_err(Unreviewed::TooMany)?;
        }
        let _turn = self.asking.acquire().await;
        // A concurrent call may have asked in the meantime.
        if let Some(known) = self.recall(&key) {
            return Ok(known);
        }
        let audiences = self.audience.map(|audience| vec![audience.to_owned()]);
        let spec = TokenReviewSpec { token: token.to_owned(), audiences };
        let review = self.home.create(&TokenReview { spec, ..TokenReview::default() }).await?;
        let user = read(review, self.audience);
        self.remember(key, user.clone());
        Ok(user)
    }

    fn recall(&self, key: &Key) -> Option<Answer> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).recall(key, Instant::now())
    }

    fn remember(&self, key: Key, answer: Answer) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remember(key, answer, Instant::now());
    }
}

/// Time for which a review counts that found a token for this audience, or that of a user, good.
fn good_for(audience: Option<&str>) -> Duration {
    if audience.is_some() { GOOD_FOR } else { GOOD_FOR_USERS }
}

/// Whether a text can be the token of a ServiceAccount: three parts of base64url letters. Other texts are not reviewed.
fn may_be_of_account(token: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
    token.split('.').count() == 3 && token.split('.').all(|part| !part.is_empty() && part.bytes().all(is_letter))
}

/// The user in a review. An API server without support for audiences names none: the token may be for any audience, and is
/// refused where one audience counts.
fn read(review: TokenReview, audience: Option<&str>) -> Answer {
    let status = review.status?;
    let audiences = status.audiences.unwrap_or_default();
    let is_meant = audience.is_none_or(|wanted| audiences.iter().any(|one| one == wanted));
    let info = status.user.filter(|_| is_meant && status.authenticated == Some(true))?;
    let name = info.username.filter(|name| !name.is_empty())?;
    let (groups, extra) = (info.groups.unwrap_or_default(), info.extra.unwrap_or_default());
    Some(User { name, groups, uid: info.uid.filter(|uid| !uid.is_empty()), extra })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_token_counts_for_its_audience_only() {
        let answer = |status: Value| {
            let review = serde_json::from_value(json!({"spec": {"token": "x"}, "status": status})).unwrap();
            read(review, Some("liqo-ipam")).map(|user| user.name)
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
    fn a_user_is_who_the_api_server_has_authenticated() {
        let user = json!({"username": "ada", "uid": "7", "groups": ["ops"], "extra": {"scopes": ["read"]}});
        let answer = |status: Value| {
            read(serde_json::from_value(json!({"spec": {"token": "x"}, "status": status})).unwrap(), None)
        };
        let extra = std::collections::BTreeMap::from([("scopes".to_owned(), vec!["read".to_owned()])]);
        let wanted = User { name: "ada".into(), groups: vec!["ops".into()], uid: Some("7".into()), extra };
        assert_eq!(answer(json!({"authenticated": true, "user": user})), Some(wanted));
        for bad in [
            json!({"user": user}),
            json!({"authenticated": false, "user": user}),
            json!({"authenticated": true}),
            json!({"authenticated": true, "user": {"username": "", "groups": ["system:masters"]}}),
        ] {
            assert_eq!(answer(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_not_asked_about() {
        assert!(may_be_of_account("aA0.b-_=.c"));
        for bad in ["", "a.b", "a..c", "a.b.c.d", "a.b.c ", "a.b.\u{e9}"] {
            assert!(!may_be_of_account(bad), "{bad}");
        }
    }

    #[test]
    fn a_review_counts_for_a_while_and_invented_tokens_do_not_fill_the_memory() {
        let (mut known, start) = (Known::new(GOOD_FOR), Instant::now());
        let key = |number: usize| -> Key { digest(&SHA256, &number.to_be_bytes()).as_ref().try_into().unwrap() };
        let auth = User { name: "auth".to_owned(), ..User::default() };
        known.remember(key(0), Some(auth.clone()), start);
        known.remember(key(1), None, start);
        let both = |now| (known.recall(&key(0), now), known.recall(&key(1), now));
        assert_eq!(both(start), (Some(Some(auth.clone())), Some(None)));
        assert_eq!(both(start + BAD_FOR), (Some(Some(auth)), None), "a token that was bad may be good soon");
        assert_eq!((good_for(Some("liqo-ipam")), good_for(None)), (GOOD_FOR, Duration::from_secs(10)));
        let later = start + GOOD_FOR;
        assert_eq!(
            (known.recall(&key(0), later), known.was_good(&key(0)), known.was_good(&key(1))),
            (None, true, false)
        );
        for number in 2..3 * KNOWN {
            known.remember(key(number), None, later);
        }
        assert_eq!(
            (known.bad.len(), known.was_good(&key(0))),
            (KNOWN, true),
            "a good token is not forgotten for bad ones"
        );
        known.remember(key(0), None, later);
        assert!(!known.was_good(&key(0)), "a token that was revoked is good no more");
    }
}
