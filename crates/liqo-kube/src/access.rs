//! Who asks, and may they? As kubelets do: a client certificate of the cluster or a bearer token says who asks; the API
//! server says whether that user may do something. Answers are good for a few seconds.
//!
//! Keeps true: no answer is invented while the API server does not answer; unknown tokens cost a source its own rate and
//! bounded memory, never the rate of others who are known.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::AUTHORIZATION};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
        SubjectAccessReviewSpec,
    },
};
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;

use crate::{
    Cluster, KubeError, certs,
    rate::{Limiter, Rate, source},
    server::Peer,
};

/// How long an answer of the API server is good.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// How many answers are remembered.
const MOST: usize = 4096;
/// How often one source may show tokens that are not known yet, and all together. The API server shows a certificate.
const NEW_TOKENS: Rate = Rate::new(20, Duration::from_secs(1));
const ALL_NEW_TOKENS: Rate = Rate::new(100, Duration::from_millis(100));
/// Questions to the API server at the same time.
const AT_ONCE: usize = 8;
/// Longest token, bytes.
const LONGEST_TOKEN: usize = 16_384;

/// Whether this process may list the Secrets of a namespace, where another process binds the right. An API server that does not
/// answer is no reason to wait: watches try again by themselves.
pub async fn may_list_secrets(home: &Cluster, namespace: &str) -> bool {
    let attributes = ResourceAttributes {
        verb: Some("list".to_owned()),
        resource: Some("secrets".to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    match home.create(&review).await {
        Ok(answer) => answer.status.is_none_or(|status| status.allowed),
        Err(error) => {
            tracing::debug!(namespace, error = &error as &dyn std::error::Error, "rights not reviewed");
            true
        }
    }
}

/// A user of the cluster, as the API server knows users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// The name that roles are bound to.
    pub name: String,
    /// The groups that roles are bound to.
    pub groups: Vec<String>,
    /// The UID, where the authenticator gives one.
    pub uid: Option<String>,
    /// What else the authenticator says; authorizers may look at it.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why it is not known who asks.
#[derive(Debug, thiserror::Error)]
pub enum Unidentified {
    /// The source has shown too many unknown tokens; it may try again after this time.
    #[error("too many unknown tokens, try again in {} s", .0.as_secs().saturating_add(1))]
    TooOften(Duration),
    /// The API server did not say.
    #[error(transparent)]
    Unanswered(#[from] KubeError),
}

/// Finds out who asks.
pub struct Callers {
    home: Cluster,
    tokens: Recent<[u8; 32], Option<User>>,
    /// Limits the unknown tokens of each source.
    strangers: Limiter<IpAddr>,
    asking: Semaphore,
}

impl Callers {
    /// Users as the API server of `home` knows them.
    pub fn new(home: Cluster) -> Self {
        let strangers = Limiter::new(NEW_TOKENS, ALL_NEW_TOKENS, MOST);
        Self { home, tokens: Recent::default(), strangers, asking: Semaphore::new(AT_ONCE) }
    }

    /// The user who sends with this client certificate or, without one, with this token; `None` when neither counts.
    ///
    /// # Errors
    /// When the source asks too often or the API server does not say.
    pub async fn identify(&self, peer: &Peer, token: Option<&str>) -> Result<Option<User>, Unidentified> {
        if let Some(user) = of_certificate(peer) {
            return Ok(Some(user));
        }
        match token.filter(|token| token.len() <= LONGEST_TOKEN) {
            Some(token) => self.review(peer, token).await,
            None => Ok(None),
        }
    }

    async fn review(&self, peer: &Peer, token: &str) -> Result<Option<User>, Unidentified> {
        let Ok(key) = digest(&SHA256, token.as_bytes()).as_ref().try_into() else { return Ok(None) };
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        self.strangers.take(source(peer.address.ip())).map_err(Unidentified::TooOften)?;
        let _asking = self.asking.acquire().await;
        // A concurrent call may have asked in the meantime.
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let user = read(self.home.create(&TokenReview { spec, ..TokenReview::default() }).await?);
        self.tokens.put(key, user.clone());
        Ok(user)
    }
}

fn read(review: TokenReview) -> Option<User> {
    let status = review.status?;
    let info = status.user.filter(|_| status.authenticated == Some(true))?;
    let name = info.username.filter(|name| !name.is_empty())?;
    let (groups, extra) = (info.groups.unwrap_or_default(), info.extra.unwrap_or_default());
    Some(User { name, groups, uid: info.uid.filter(|uid| !uid.is_empty()), extra })
}

fn of_certificate(peer: &Peer) -> Option<User> {
    let subject = certs::facts_der(peer.certificate.as_ref()?).ok()?.subject;
    let mut groups = subject.organizations;
    groups.push("system:authenticated".to_owned());
    (!subject.common_name.is_empty()).then_some(User { name: subject.common_name, groups, ..User::default() })
}

/// The token in the header `Authorization`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then_some(token.trim())
}

/// Something a user may or may not do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Act {
    /// `get`, `list`, `create` and so on.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Plural name of the kind.
    pub resource: &'static str,
    /// Part of the object; empty for the object itself.
    pub subresource: &'static str,
    /// Namespace; empty for all namespaces, and for kinds without namespaces.
    pub namespace: String,
    /// Name of one object; empty for all.
    pub name: String,
}

/// Asks the API server who may do what.
pub struct Reviews {
    home: Cluster,
    allowed: Recent<(User, Act), bool>,
    asking: Semaphore,
    audited: bool,
}

impl Reviews {
    /// Rights as the API server of `home` knows them.
    pub fn new(home: Cluster) -> Self {
        Self { home, allowed: Recent::default(), asking: Semaphore::new(AT_ONCE), audited: false }
    }

    /// The same, where each answer of the API server is one line in the log, target `audit`.
    #[must_use]
    pub fn audited(self) -> Self {
        Self { audited: true, ..self }
    }

    /// Whether the user may do it.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn allows(&self, user: &User, act: &Act) -> Result<bool, KubeError> {
        let key = (user.clone(), act.clone());
        if let Some(known) = self.allowed.get(&key) {
            return Ok(known);
        }
        let _asking = self.asking.acquire().await;
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let attributes = ResourceAttributes {
            verb: given(act.verb),
            group: given(act.group),
            resource: given(act.resource),
            subresource: given(act.subresource),
            namespace: given(&act.namespace),
            name: given(&act.name),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            groups: Some(user.groups.clone()),
            uid: user.uid.clone(),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let allowed = self.home.create(&review).await?.status.is_some_and(|status| status.allowed);
        if self.audited {
            tracing::info!(
                target: "audit", user = user.name, verb = act.verb, group = act.group, resource = act.resource,
                subresource = act.subresource, namespace = act.namespace, name = act.name, allowed, "access reviewed"
            );
        }
        self.allowed.put(key, allowed);
        Ok(allowed)
    }
}

/// Answers that are still good.
struct Recent<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(since, _)| since.elapsed() < GOOD_FOR).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= MOST {
            answers.retain(|_, (since, _)| now.duration_since(*since) < GOOD_FOR);
        }
        if answers.len() < MOST {
            answers.insert(key, (now, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bearer_token_is_found_in_its_header() {
        let token = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer abc").as_deref(), Some("abc"));
        assert_eq!((token("Bearer "), token("Basic abc"), token("abc")), (None, None, None));
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn a_user_is_who_the_api_server_has_authenticated() {
        let user = json!({"username": "ada", "uid": "7", "groups": ["ops"], "extra": {"scopes": ["read"]}});
        let answer = |status| read(serde_json::from_value(json!({"spec": {"token": "x"}, "status": status})).unwrap());
        let extra = BTreeMap::from([("scopes".to_owned(), vec!["read".to_owned()])]);
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
    fn answers_are_remembered() {
        let recent = Recent::default();
        recent.put(1, true);
        assert_eq!((recent.get(&1), recent.get(&2)), (Some(true), None));
        (0..MOST + 9).for_each(|key| recent.put(key, false));
        assert_eq!(recent.get(&1), Some(false));
        assert_eq!(recent.0.lock().unwrap().len(), MOST, "no more than so many");
    }
}
