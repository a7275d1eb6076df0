//! Our identity on a peer: a key of ours, a certificate signed there.
//!
//! Keeps true: a key is stored before it is sent, and the same request is sent until it is answered, so
//! a lost answer locks nobody out. A certificate is renewed after two thirds of its life, and the old key speaks for the
//! new one; the old one stays until the new one is known to work. A peer is given no token but one of its own; where the
//! token it wants to hear holds a pin, the token goes to the holder of that key only. A peer that does not renew (Liqo 0.8.3 never does) leaves
//! us with the old one, which is told.
//!
//! A key that waits for its certificate lies in a Secret `liqo-identity-…` with the label
//! `liqo.io/pending-identity`; readers of identities do not see it. On success that Secret becomes the
//! identity: keys, labels and annotation of Liqo 0.8.3.
//!
//! Watches   `Secret` with the label of a peer.
//! Writes    `Secret` `liqo-identity-*` in tenant namespaces.
//! Removes   superseded `Secret`s of the same names.

mod attempts;
mod plan;
mod rights;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{
    ClusterIdentity,
    discovery::ForeignCluster,
    meta::{annotation, label},
    names,
};
use liqo_core::{endpoint, peering::token_name};
use liqo_kube::{
    Cluster, KubeError,
    certs::{self, KeyKind, Pair, Shown, Subject},
    now,
    peer::{API_SERVER_CA, API_SERVER_URL, CERTIFICATE, NAMESPACE, PRIVATE_KEY, PROXY_URL, PeerIdentity},
};
use serde_json::{Value, json};

use super::{
    auth_client::{self, Issued, Refusal},
    token, wire,
    world::World,
};
use attempts::Attempt;
pub(crate) use attempts::{Attempts, Failure};
use plan::{Need, need, pause_after};
use rights::Rights;

/// `true` on a Secret whose key has no certificate yet.
const PENDING: &str = "liqo.io/pending-identity";
/// The signing request sent with a pending key.
const CSR: &str = "csr";

/// What became of the identity on a peer.
pub(crate) struct Outcome {
    /// The identity to use, if there is one.
    pub(crate) identity: Option<PeerIdentity>,
    /// Why the peer gave us none, the last time it was asked.
    pub(crate) refusal: Option<Failure>,
    /// When to look again.
    pub(crate) again: Duration,
}

/// Everything an attempt is about.
struct Asking<'a> {
    world: &'a World,
    attempts: &'a Attempts,
    foreign_cluster: &'a ForeignCluster,
    peer: &'a ClusterIdentity,
    tenant: &'a str,
}

/// Makes sure that we have an identity on a peer, asking the peer when it is time to. While the peer leaves our request
/// `unanswered`, a valid identity may have no rights any more: then the peer is asked, too, and its answer is the reason.
///
/// # Errors
/// When our own API server refuses.
pub(crate) async fn ensure(
    (world, attempts): (&World, &Attempts),
    foreign_cluster: &ForeignCluster,
    peer: &ClusterIdentity,
    tenant: &str,
    unanswered: bool,
) -> Result<Outcome, KubeError> {
    let asking = Asking { world, attempts, foreign_cluster, peer, tenant };
    let secrets = asking.secrets();
    let held: Vec<_> = secrets.iter().filter(|one| has(one, label::LOCAL_IDENTITY)).cloned().collect();
    let attempt = attempts.of(&peer.cluster_id);
    let stored = PeerIdentity::best(held.iter().map(AsRef::as_ref));
    if let Some(stored) = &stored {
        asking.follow_proxy(&held, stored).await?;
    }
    // Of two that are equally good the stored one counts.
    let best = attempt.granted.clone().into_iter().chain(stored.clone()).max_by_key(PeerIdentity::issued);
    let facts = best.as_ref().and_then(|identity| certs::facts(identity.certificate.as_bytes()).ok());
    let need = need(facts.as_ref(), now().0);
    let is_stored = stored.is_some() && stored == best;
    let is_settled = is_stored && matches!(need, Need::Nothing(_));
    let in_doubt = best.as_ref().filter(|_| unanswered && need != Need::Identity);
    let rights = asking.rights(&attempt, in_doubt, is_settled).await;
    if is_stored {
        // Of an identity without rights the next key is needed, however long its certificate lasts.
        asking.tidy(&secrets, best.as_ref(), is_settled && rights != Rights::Ended).await?;
    }
    let (need, look) = match (rights, need) {
        (Rights::Ended, _) => (Need::Rights, plan::DAY),
        (Rights::Given(look), Need::Nothing(rest)) => {
            return Ok(Outcome { identity: best, refusal: None, again: rest.min(look) });
        }
        (Rights::Given(look), need) => (need, look),
    };
    let token = asking.token();
    let token_version = token.as_ref().and_then(|secret| secret.resource_version());
    let wait = attempt.next.map(|next| next.saturating_duration_since(Instant::now())).unwrap_or_default();
    // Rights that have just ended do not wait for the next time to renew.
    let is_known = need != Need::Rights || attempt.ended;
    if !wait.is_zero() && attempt.token == token_version && is_known {
        return Ok(outcome(best, need, attempt.failure, wait.min(look)));
    }
    let pending = asking.pending(&secrets, attempt.pending.clone()).await?;
    let token = token.as_deref().and_then(token::read).unwrap_or_default();
    let answer = asking.ask(&pending, &token, best.as_ref()).await;
    // A pending Secret that is gone is made anew.
    match answer.inspect_err(|_| attempts.forget(&peer.cluster_id))? {
        Ok(identity) => {
            let facts = certs::facts(identity.certificate.as_bytes()).ok();
            let next = facts.map(|facts| Instant::now() + certs::renewal_after(&facts, now().0));
            let token = token_version;
            let attempt = Attempt { next, token, granted: Some(identity.clone()), ..Attempt::default() };
            attempts.lock().insert(peer.cluster_id.clone(), attempt);
            Ok(Outcome { identity: Some(identity), refusal: None, again: Duration::from_secs(1) })
        }
        Err(failure) => {
            let failures = attempt.failures.saturating_add(1);
            let pause = pause_after(failures, &failure, need);
            // A reason that stays the same is told once: the first one may be that the peer is just being restarted.
            if attempt.failure.as_ref() != Some(&failure) {
                asking.tell(need, &failure).await;
            }
            let failure = Some(failure);
            let next = Some(Instant::now() + pause);
            let token = token_version;
            let attempt = Attempt {
                failures,
                next,
                token,
                failure: failure.clone(),
                pending: Some(pending),
                look: attempts.of(&peer.cluster_id).look,
                ended: need == Need::Rights,
                granted: None,
            };
            attempts.lock().insert(peer.cluster_id.clone(), attempt);
            Ok(outcome(best, need, failure, pause.min(look)))
        }
    }
}

/// The best identity there is on a peer, however old; nobody is asked.
pub(crate) fn held(world: &World, peer: &str) -> Option<PeerIdentity> {
    let secrets = world.secrets.filter(|secret| {
        has(secret, label::LOCAL_IDENTITY)
            && secret.labels().get(label::CLUSTER_ID).is_some_and(|id| id == peer)
            && secret.namespace().and_then(|namespace| world.peer_in(&namespace)).as_deref() == Some(peer)
    });
    PeerIdentity::best(secrets.iter().map(AsRef::as_ref))
}

/// While a renewal fails the old identity is good enough; an expired one is none.
fn outcome(best: Option<PeerIdentity>, need: Need, failure: Option<Failure>, again: Duration) -> Outcome {
    match need {
        Need::Renewal(_) => Outcome { identity: best, refusal: None, again },
        _ => Outcome { identity: None, refusal: failure, again },
    }
}

fn has(secret: &Secret, key: &str) -> bool {
    secret.labels().get(key).is_some_and(|value| value == "true")
}

impl Asking<'_> {
    /// Every Secret about the peer in its tenant namespace.
    fn secrets(&self) -> Vec<Arc<Secret>> {
        self.world.secrets.filter(|secret| {
            secret.namespace().as_deref() == Some(self.tenant)
                && secret.labels().get(label::CLUSTER_ID) == Some(&self.peer.cluster_id)
        })
    }

    fn token(&self) -> Option<Arc<Secret>> {
        self.world.secrets.get(&self.world.home.namespace, &token_name(&self.peer.cluster_id))
    }

    fn cluster(&self) -> &Cluster {
        &self.world.home.cluster
    }

    /// Keeps the proxy of the identity in use as the `ForeignCluster` says, however old the identity is: the users of the
    /// identity follow.
    async fn follow_proxy(&self, held: &[Arc<Secret>], used: &PeerIdentity) -> Result<(), KubeError> {
        let wanted = self.proxy();
        let secret = held.iter().find(|secret| secret.resource_version().as_ref() == Some(&used.version));
        let Some(secret) = secret.filter(|_| used.proxy_url != wanted) else { return Ok(()) };
        tracing::info!(peer = self.peer.cluster_id, proxy = wanted, "the way to the peer's API server has changed");
        let proxy = wanted.map(|url| STANDARD.encode(url));
        self.cluster().merge(secret.as_ref(), json!({"data": {PROXY_URL: proxy}})).await.map(drop)
    }

    /// Removes identities that a newer one, known to work, has superseded; and keys that wait for a certificate, when no certificate is
    /// needed.
    async fn tidy(
        &self,
        secrets: &[Arc<Secret>],
        best: Option<&PeerIdentity>,
        is_content: bool,
    ) -> Result<(), KubeError> {
        let Some(best) = best else { return Ok(()) };
        for secret in secrets {
            let is_best = secret.resource_version().as_ref() == Some(&best.version);
            if !is_best && (is_content && has(secret, PENDING) || has(secret, label::LOCAL_IDENTITY)) {
                self.cluster().remove(secret.as_ref()).await?;
            }
        }
        Ok(())
    }

    fn proxy(&self) -> Option<String> {
        self.foreign_cluster.spec.foreign_proxy_url.clone().filter(|url| !url.is_empty())
    }

    /// The key that waits for a certificate; made and stored if there is none.
    async fn pending(&self, secrets: &[Arc<Secret>], last: Option<Arc<Secret>>) -> Result<Arc<Secret>, KubeError> {
        let usable = |secret: &Arc<Secret>| text(secret, PRIVATE_KEY).is_some() && text(secret, CSR).is_some();
        let stored = secrets.iter().filter(|secret| has(secret, PENDING)).find(|secret| usable(secret));
        if let Some(secret) = stored.cloned().or(last) {
            return Ok(secret);
        }
        let subject = Subject::new(self.world.home.identity.cluster_id.as_str(), "liqo.io");
        let key = certs::new_key(KeyKind::Ed25519).expect("the system has randomness");
        let csr = certs::signing_request(&key, &subject, &[]).expect("a key just made can sign");
        let data = [(PRIVATE_KEY, key), (CSR, csr)];
        let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
        self.cluster().create(&self.waiting(data.into())).await.map(Arc::new)
    }

    /// A Secret of a key that waits for its certificate.
    fn waiting(&self, data: BTreeMap<String, ByteString>) -> Secret {
        let labels = [(label::CLUSTER_ID, self.peer.cluster_id.as_str()), (PENDING, "true")];
        Secret {
            metadata: ObjectMeta {
                generate_name: Some(names::IDENTITY_SECRET_PREFIX.to_owned()),
                namespace: Some(self.tenant.to_owned()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }

    /// The URL of a peer that introduced itself is the peer's own claim.
    fn introduced(&self) -> Result<(), String> {
        let how = self.foreign_cluster.labels().get(label::DISCOVERY_TYPE).map(String::as_str);
        match how {
            Some(label::DISCOVERY_INCOMING) => endpoint::introduced_url(&self.foreign_cluster.spec.foreign_auth_url),
            _ => Ok(()),
        }
    }

    /// Sends the request; what is granted becomes the identity.
    async fn ask(
        &self,
        pending: &Secret,
        token: &str,
        old: Option<&PeerIdentity>,
    ) -> Result<Result<PeerIdentity, Failure>, KubeError> {
        let spec = &self.foreign_cluster.spec;
        if let Err(why) = self.introduced() {
            return Ok(Err(Failure::Failed(why)));
        }
        let home = &self.world.home;
        let own = token::for_peer(self.cluster(), &home.namespace, &self.peer.cluster_id).await?;
        let csr = text(pending, CSR).unwrap_or_default();
        let request = wire::Request {
            cluster: home.identity.clone(),
            origin_cluster_token: own.clone(),
            destination_cluster_token: token.to_owned(),
            proof: old.and_then(|old| wire::proof(&old.key, &csr)).unwrap_or_default(),
            certificate_signing_request: STANDARD.encode(csr),
            renews: true,
        };
        let is_renewal = old.is_some();
        let trust = auth_client::trust(token, spec.insecure_skip_tls_verify.unwrap_or(true));
        let name = &self.peer.cluster_name;
        let grant = match auth_client::ask(&home.reach, name, &spec.foreign_auth_url, &trust, &request).await {
            Ok(grant) => grant,
            Err(refusal) => return Ok(Err(failure(refusal, token, &own))),
        };
        let data = match self.usable(pending, &grant) {
            Ok(data) => data,
            Err(why) => return Ok(Err(Failure::Failed(format!("failed to store identity: {why}")))),
        };
        if is_renewal && let Err(why) = self.works(&data).await {
            let why = format!("the new certificate does not work yet: {why}");
            return Ok(Err(Failure::Failed(why)));
        }
        let stored = self.store(pending, &data).await?;
        tracing::info!(peer = self.peer.cluster_id, renewed = is_renewal, "identity granted by the peer");
        Ok(PeerIdentity::from_secret(&stored)
            .ok_or_else(|| Failure::Failed("failed to store identity: the answer is not complete".to_owned())))
    }

    /// The identity that a grant and our key make, if they fit together.
    fn usable(&self, pending: &Secret, issued: &Issued) -> Result<BTreeMap<&'static str, String>, String> {
        let key = text(pending, PRIVATE_KEY).unwrap_or_default();
        let pair = Pair { certificate: issued.certificate.clone(), key };
        Shown::default().show(&pair).map_err(|error| error.to_string())?;
        let facts = certs::facts(issued.certificate.as_bytes()).map_err(|error| error.to_string())?;
        if facts.not_after <= now().0 {
            return Err(format!("the certificate has expired at {}", facts.not_after));
        }
        let required = [
            (PRIVATE_KEY, pair.key),
            (CERTIFICATE, pair.certificate),
            (API_SERVER_URL, issued.api_server_url.clone()),
            (NAMESPACE, issued.namespace.clone()),
        ];
        if let Some((missing, _)) = required.iter().find(|(_, value)| value.is_empty()) {
            return Err(format!("the answer has no {missing}"));
        }
        let optional = [(API_SERVER_CA, issued.api_server_ca.clone()), (PROXY_URL, self.proxy())];
        Ok(required.into_iter().chain(optional.into_iter().filter_map(|(key, value)| Some((key, value?)))).collect())
    }

    /// Makes the pending Secret the identity. A pending Secret that somebody deleted is made anew: the peer accepts no other key now.
    async fn store(&self, pending: &Secret, data: &BTreeMap<&'static str, String>) -> Result<Secret, KubeError> {
        let patch = granted(data);
        match self.cluster().merge(pending, patch.clone()).await {
            Err(error) if error.is_not_found() => {
                let made = self.cluster().create(&self.waiting(BTreeMap::new())).await?;
                self.cluster().merge(&made, patch).await
            }
            outcome => outcome,
        }
    }

    /// Tells why a certificate that was given is not renewed, or not accepted any more.
    async fn tell(&self, need: Need, failure: &Failure) {
        let (Failure::Denied(why) | Failure::DeniedWithoutToken(why) | Failure::Failed(why)) = failure;
        let Some((reason, message)) = need.event(why) else { return };
        tracing::warn!(peer = self.peer.cluster_id, reason = why, "{reason}");
        let about = self.foreign_cluster;
        self.cluster().event(about, "liqo-controller-manager", "Warning", reason, &message).await;
    }
}

/// What makes a pending Secret the identity.
fn granted(data: &BTreeMap<&'static str, String>) -> Value {
    let mut encoded: BTreeMap<&str, Value> =
        data.iter().map(|(key, text)| (*key, STANDARD.encode(text).into())).collect();
    encoded.insert(CSR, Value::Null);
    let expires = data.get(CERTIFICATE).and_then(|pem| certs::facts(pem.as_bytes()).ok());
    let expires = expires.map_or(0, |facts| Timestamp::as_second(facts.not_after));
    json!({
        "metadata": {
            "labels": {PENDING: null, label::LOCAL_IDENTITY: "true", label::CERTIFICATE_AVAILABLE: "true"},
            "annotations": {annotation::CERTIFICATE_EXPIRE_TIME: expires.to_string()},
        },
        "data": encoded,
    })
}

fn failure(refusal: Refusal, sent: &str, own: &str) -> Failure {
    let clean = |why: String| token::redact(&why, &[sent, own]);
    match refusal {
        Refusal::Denied(why) if sent.is_empty() => Failure::DeniedWithoutToken(clean(why)),
        Refusal::Denied(why) => Failure::Denied(clean(why)),
        Refusal::Failed(why) => Failure::Failed(clean(why)),
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}
