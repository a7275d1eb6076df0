//! Who asks, and may they? As kubelets do: a client certificate of the cluster or a bearer token says who asks; the API
//! server says whether that user may do something. Answers are good for a few seconds.
//!
//! Keeps true: no answer is invented while the API server does not answer; unknown tokens cost a source its own rate and
//! bounded memory, never the rate of others who are known.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::AUTHORIZATION};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use tokio::sync::Semaphore;

use crate::{
    Cluster, KubeError, certs,
    server::Peer,
    tokens::{Tokens, Unreviewed},
};

/// How long an answer of the API server is good.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// How many answers are remembered.
const MOST: usize = 4096;
/// Questions to the API server at the same time.
const AT_ONCE: usize = 8;

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

/// Finds out who asks.
pub struct Callers(Tokens);

impl Callers {
    /// Users as the API server of `home` knows them.
    pub fn new(home: Cluster) -> Self {
        Self(Tokens::of_users(home))
    }

    /// ServiceAccounts with a token made for `audience`, as the API server of `home` knows them.
    pub fn for_audience(home: Cluster, audience: &'static str) -> Self {
        Self(Tokens::for_audience(home, audience))
    }

    /// The user who sends with this client certificate or, without one, with this token; `None` when neither counts.
    ///
    /// # Errors
    /// When the source shows too many unknown tokens or the API server does not say.
    pub async fn identify(&self, peer: &Peer, token: Option<&str>) -> Result<Option<User>, Unreviewed> {
        match (of_certificate(peer), token) {
            (Some(user), _) => Ok(Some(user)),
            (None, Some(token)) => self.0.user(token, peer.address.ip()).await,
            (None, None) => Ok(None),
        }
    }
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
    fn answers_are_remembered() {
        let recent = Recent::default();
        recent.put(1, true);
        assert_eq!((recent.get(&1), recent.get(&2)), (Some(true), None));
        (0..MOST + 9).for_each(|key| recent.put(key, false));
        assert_eq!(recent.get(&1), Some(false));
        assert_eq!(recent.0.lock().unwrap().len(), MOST, "no more than so many");
    }
}
