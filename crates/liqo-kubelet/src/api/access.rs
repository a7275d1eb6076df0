//! Who asks, and may they? As kubelets do: a client certificate of the cluster or a bearer token says who;
//! the own API server says whether that one may do it with the node. Answers are good for a few seconds.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use liqo_kube::{
    Cluster, KubeError, certs,
    rate::{Limiter, Rate, source},
    server::Peer,
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::Refusal;

/// How long an answer of the API server is good.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// How many answers are remembered.
const MOST: usize = 4096;
/// How often one source may show tokens that are not known yet, and all together. The API server shows a certificate.
const NEW_TOKENS: Rate = Rate::new(20, Duration::from_secs(1));
const ALL_NEW_TOKENS: Rate = Rate::new(100, Duration::from_millis(100));
/// Tokens asked about at the same time.
const AT_ONCE: usize = 8;

/// Somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
}

/// Asks the own API server, and remembers for a while.
pub(super) struct Access {
    home: Cluster,
    node: String,
    tokens: Recent<[u8; 32], Option<User>>,
    /// Limits the unknown tokens of each source.
    strangers: Limiter<IpAddr>,
    asking: Semaphore,
    allowed: Recent<(User, &'static str, &'static str), bool>,
}

impl Access {
    pub(super) fn new(home: Cluster, node: String) -> Self {
        let strangers = Limiter::new(NEW_TOKENS, ALL_NEW_TOKENS, MOST);
        let (tokens, allowed, asking) = (Recent::default(), Recent::default(), Semaphore::new(AT_ONCE));
        Self { home, node, tokens, strangers, asking, allowed }
    }

    /// Whether the sender of a request may do `verb` with a subresource of the node.
    pub(super) async fn check(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        (verb, subresource): (&'static str, &'static str),
    ) -> Result<(), Refusal> {
        let user = match from_certificate(peer) {
            Some(user) => Some(user),
            None => match bearer(headers) {
                Some(token) => self.review(peer, token).await?,
                None => None,
            },
        };
        let Some(user) = user else {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "Unauthorized: show a client certificate of the cluster or a bearer token",
            ));
        };
        let name = user.name.clone();
        if self.ask(user, verb, subresource).await? {
            return Ok(());
        }
        let text = format!(
            "Forbidden (user={name}, verb={verb}, resource=nodes, subresource={subresource}, name={})",
            self.node
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, text))
    }

    async fn review(&self, peer: &Peer, token: &str) -> Result<Option<User>, Refusal> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        self.strangers.take(source(peer.address.ip())).map_err(|wait| {
            let text = format!("too many unknown tokens, try again in {} s", wait.as_secs().saturating_add(1));
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, text)
        })?;
        let _asking = self.asking.acquire().await;
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = self.home.create(&TokenReview { spec, ..TokenReview::default() }).await.map_err(unanswered)?;
        let status = review.status.unwrap_or_default();
        let user = status.authenticated.unwrap_or_default().then(|| status.user.unwrap_or_default());
        let user =
            user.map(|user| User { name: user.username.unwrap_or_default(), groups: user.groups.unwrap_or_default() });
        self.tokens.put(key, user.clone());
        Ok(user)
    }

    async fn ask(&self, user: User, verb: &'static str, subresource: &'static str) -> Result<bool, Refusal> {
        let key = (user, verb, subresource);
        if let Some(known) = self.allowed.get(&key) {
            return Ok(known);
        }
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(self.node.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(key.0.name.clone()),
            groups: Some(key.0.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = self.home.create(&review).await.map_err(unanswered)?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.allowed.put(key, allowed);
        Ok(allowed)
    }
}

fn unanswered(error: KubeError) -> Refusal {
    tracing::warn!(error = &error as &dyn std::error::Error, "nobody can say who may use the kubelet API");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the API server did not say whether this is allowed, try again")
}

fn from_certificate(peer: &Peer) -> Option<User> {
    let subject = certs::facts_der(peer.certificate.as_ref()?).ok()?.subject;
    let mut groups = subject.organizations;
    groups.push("system:authenticated".to_owned());
    (!subject.common_name.is_empty()).then_some(User { name: subject.common_name, groups })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then_some(token.trim())
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
