//! Tokens of service accounts: what a pod there shows to its own API server, kept valid in a secret there.
//!
//! Watches   `Pod` here (all of the node), `Secret` there.
//! Writes    one `Secret` there for each pod that mounts tokens.
//! Removes   that `Secret` when the pod is gone or is another pod of the same name.
//!
//! Keeps true: a token is renewed when a fifth of the life asked for is left. Nothing is remembered: the
//! tokens themselves say when they were issued and when they end.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::Engine;
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{Pod, Secret, ServiceAccount},
    },
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt, core::ObjectMeta};
use liqo_api::meta::{annotation, label};
use liqo_core::naming::{LONGEST_LABEL, LONGEST_NAME, short_hash, within};
use liqo_kube::{KubeError, Queue, Store, now, told::Told};
use serde_json::Value;

use super::{Cx, pod::service_account};
use crate::link::Link;

/// Kind in metrics and Events.
pub(super) const KIND: &str = "ServiceAccount";
/// Life of a token if the pod does not say.
const LIFE: i64 = 3600;
/// Renewals are spread over this many seconds.
const SPREAD: i64 = 30;
/// So long a watch may take to show what we wrote.
const LAG: Duration = Duration::from_secs(2);
/// How often the age of all tokens is looked at.
pub(super) const SWEEP: Duration = Duration::from_secs(60);

/// Name of the secret with a pod's tokens.
pub(super) fn secret_name(pod: &str) -> String {
    within(&format!("{pod}-token"), LONGEST_NAME)
}

/// The pod a secret holds tokens for; `None`: it is no secret of that kind.
pub(super) fn pod_of(secret: &Secret) -> Option<&str> {
    let label = secret.labels().get(label::SERVICE_ACCOUNT_FOR_POD_NAME)?;
    Some(secret.annotations().get(annotation::SERVICE_ACCOUNT_FOR_POD_NAME).unwrap_or(label))
}

/// Key of a token in that secret.
pub(super) fn key(volume: &str, path: &str) -> String {
    format!("{volume}-{}", short_hash(path))
}

/// One token a pod mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    key: String,
    audience: Option<String>,
    seconds: i64,
}

fn wanted(pod: &Pod) -> Vec<Wanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.filter_map(|source| source.service_account_token.as_ref()).map(|token| (&volume.name, token))
    });
    let one = |(volume, token): (&String, &k8s_openapi::api::core::v1::ServiceAccountTokenProjection)| Wanted {
        key: key(volume, &token.path),
        audience: token.audience.clone().filter(|audience| !audience.is_empty()),
        seconds: token.expiration_seconds.unwrap_or(LIFE),
    };
    sources.map(one).collect()
}

/// When a token ends that was asked for `seconds`: it may live longer for clients that do not read it again.
fn expires(token: &[u8], seconds: i64) -> Option<i64> {
    let payload = std::str::from_utf8(token).ok()?.split('.').nth(1)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("exp")?.as_i64()?.min(claims.get("iat")?.as_i64()?.saturating_add(seconds)))
}

/// What to do about the tokens of a pod.
#[derive(Clone, Debug, PartialEq)]
enum Plan {
    Keep,
    /// Somebody else's secret has that name.
    Taken,
    Remove,
    /// Ask for these tokens.
    Request(Vec<Wanted>),
}

fn plan(link: &Link, pod: Option<&Pod>, secret: Option<&Secret>, now: Timestamp) -> Plan {
    let ours = secret.filter(|secret| is_ours(link, secret));
    let Some(pod) = pod else { return if ours.is_some() { Plan::Remove } else { Plan::Keep } };
    let wanted = wanted(pod);
    if wanted.is_empty() {
        return if ours.is_some() { Plan::Remove } else { Plan::Keep };
    }
    if secret.is_some() && ours.is_none() {
        return Plan::Taken;
    }
    if ours.is_some_and(|secret| !is_for(secret, pod)) {
        return Plan::Remove;
    }
    let finished = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
    if finished || pod.metadata.deletion_timestamp.is_some() {
        return Plan::Keep;
    }
    let spread = pod.metadata.uid.iter().flat_map(|uid| uid.bytes()).map(i64::from).sum::<i64>() % SPREAD;
    let due = |wanted: &Wanted| {
        let token = ours.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(&wanted.key));
        let end = token.and_then(|token| expires(&token.0, wanted.seconds));
        end.is_none_or(|end| now.as_second() >= end - wanted.seconds / 5 - spread)
    };
    let due: Vec<_> = wanted.into_iter().filter(due).collect();
    if due.is_empty() { Plan::Keep } else { Plan::Request(due) }
}

fn is_ours(link: &Link, secret: &Secret) -> bool {
    link.made(secret) && secret.labels().contains_key(label::SERVICE_ACCOUNT_FOR_POD_NAME)
}

fn is_for(secret: &Secret, pod: &Pod) -> bool {
    secret.annotations().get(annotation::SERVICE_ACCOUNT_FOR_POD_UID) == pod.metadata.uid.as_ref()
}

/// Whether all tokens a pod mounts are there.
pub(super) fn are_there(pod: &Pod, secret: Option<&Secret>) -> bool {
    let wanted = wanted(pod);
    let has = |secret: &Secret| {
        let data = secret.data.as_ref();
        is_for(secret, pod) && wanted.iter().all(|one| data.is_some_and(|data| data.contains_key(&one.key)))
    };
    wanted.is_empty() || secret.is_some_and(has)
}

/// The secret with all tokens of a pod.
fn forge(link: &Link, pod: &Pod, namespace: &str, tokens: BTreeMap<String, ByteString>) -> Secret {
    let ends = wanted(pod).into_iter().filter_map(|wanted| expires(&tokens.get(&wanted.key)?.0, wanted.seconds));
    let end = ends.min().and_then(|end| Timestamp::from_second(end).ok());
    let account = pod.spec.as_ref().map_or("default", service_account);
    let mut labels = link.labels();
    let name = pod.name_any();
    labels.insert(label::SERVICE_ACCOUNT_FOR_POD_NAME.to_owned(), within(&name, LONGEST_LABEL));
    labels.insert(label::SERVICE_ACCOUNT_NAME.to_owned(), within(account, LONGEST_LABEL));
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let mut annotations = BTreeMap::from([(annotation::SERVICE_ACCOUNT_FOR_POD_UID.to_owned(), uid)]);
    if name.len() > LONGEST_LABEL {
        annotations.insert(annotation::SERVICE_ACCOUNT_FOR_POD_NAME.to_owned(), name);
    }
    annotations.extend(end.map(|end| (annotation::SERVICE_ACCOUNT_EXPIRATION.to_owned(), end.to_string())));
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&pod.name_any())),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        immutable: Some(false),
        data: Some(tokens),
        string_data: None,
    }
}

/// The tokens of one pair of namespaces.
pub(super) struct Tokens {
    pub(super) cx: Arc<Cx>,
    pub(super) namespace_here: String,
    pub(super) namespace_there: String,
    pub(super) pods: Store<Pod>,
    pub(super) secrets: Store<Secret>,
    /// What the user was last told about a pod.
    pub(super) told: Told,
    /// Pods whose tokens were written lately.
    pub(super) sent: Arc<Sent>,
    /// Pods that may be sent, now that their tokens are there.
    pub(super) pods_queue: Queue<String>,
}

/// When tokens were last written for a pod (its UID): the answer of the API server there is the proof that they are there, which
/// no watch has to bring.
#[derive(Default)]
pub(super) struct Sent(Mutex<HashMap<String, (Option<String>, Instant)>>);

impl Sent {
    /// Whether all tokens of a pod were written so lately that the watch may not show them yet.
    pub(super) fn lately(&self, pod: &Pod) -> bool {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(&pod.name_any()).is_some_and(|(uid, when)| *uid == pod.metadata.uid && when.elapsed() < LAG)
    }

    fn note(&self, pod: &Pod) {
        let now = (pod.metadata.uid.clone(), Instant::now());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.name_any(), now);
    }

    fn forget(&self, pod: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }
}

impl Tokens {
    pub(super) async fn settle(&self, name: String) -> Result<Option<Duration>, KubeError> {
        let outcome = self.try_settle(&name).await;
        self.cx.counters.add(KIND, &self.namespace_here, outcome.is_ok());
        outcome
    }

    async fn try_settle(&self, name: &str) -> Result<Option<Duration>, KubeError> {
        let pod = self.pods.get(&self.namespace_here, name);
        let secret = self.secrets.get(&self.namespace_there, &secret_name(name));
        if pod.is_none() {
            self.told.forget(name);
            self.sent.forget(name);
        }
        match (plan(&self.cx.link, pod.as_deref(), secret.as_deref(), now().0), pod, secret) {
            (Plan::Request(_), Some(pod), _) if self.sent.lately(&pod) => return Ok(Some(LAG)),
            (Plan::Request(wanted), Some(pod), secret) => {
                let outcome = self.renew(&pod, wanted, secret.as_deref()).await;
                if let Err(error) = &outcome {
                    self.tell(
                        &pod,
                        &format!("Error reflecting object to cluster \"{}\": {}", self.peer(), text(error)),
                    );
                }
                outcome?;
                self.sent.note(&pod);
                self.pods_queue.push(name.to_owned());
            }
            (Plan::Taken, Some(pod), _) => {
                self.tell(
                    &pod,
                    &format!("Error reflecting object to cluster \"{}\": remote object already exists", self.peer()),
                );
            }
            (Plan::Remove, _, Some(secret)) => self.cx.there.remove(&*secret).await?,
            _ => {}
        }
        Ok(None)
    }

    async fn renew(&self, pod: &Pod, wanted: Vec<Wanted>, secret: Option<&Secret>) -> Result<(), KubeError> {
        let mut tokens = secret.and_then(|secret| secret.data.clone()).unwrap_or_default();
        for one in wanted {
            let token = self.request(pod, &one).await?;
            tokens.insert(one.key, ByteString(token.into_bytes()));
        }
        let secret = forge(&self.cx.link, pod, &self.namespace_there, tokens);
        self.cx.there.apply(&secret).await.map(drop)
    }

    async fn request(&self, pod: &Pod, wanted: &Wanted) -> Result<String, KubeError> {
        let account = pod.spec.as_ref().map_or("default", service_account);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: wanted.audience.clone().map(|audience| vec![audience]),
                expiration_seconds: Some(wanted.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    kind: Some(Pod::kind(&()).into_owned()),
                    api_version: Some(Pod::api_version(&()).into_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let asked = self.cx.home.create_under::<ServiceAccount, _>(&self.namespace_here, account, "token", &request);
        Ok(asked.await?.status.and_then(|status| status.token).unwrap_or_default())
    }

    fn peer(&self) -> &str {
        &self.cx.link.there.cluster_name
    }

    /// Tells the user what is wrong, once.
    fn tell(&self, pod: &Arc<Pod>, text: &str) {
        if self.told.is_news(&pod.name_any(), "", text) {
            let (home, pod, text) = (self.cx.home.clone(), Arc::clone(pod), text.to_owned());
            let component = super::component(KIND);
            let (told, reason) = (self.told.clone(), "FailedSATokensReflection");
            tokio::spawn(async move {
                told.write((&home, &component), &*pod, (&pod.name_any(), ""), ("Warning", reason), &text).await
            });
        }
    }
}

fn text(error: &KubeError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests;
