//! Signing for a peer, by the cluster's own signer.
//!
//! Keeps true: a certificate is stored before it is handed out. A peer that asks again with
//! the same key is given the same certificate, so a lost answer does no harm. A new key needs a proof by the old key,
//! or of the administrator. What is signed is what was read, byte for byte, and the answer of the signer is read again.
//!
//! Writes    `CertificateSigningRequest`, its approval; `Secret` `liqo-remote-certificate`; the end of the last certificate
//!           in an annotation of the tenant `Namespace`.
//! Removes   the `CertificateSigningRequest`s it made.

use std::{borrow::Borrow, collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
        core::v1::{Namespace, Secret},
    },
    jiff::Timestamp,
};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{
    ClusterIdentity,
    discovery::ForeignCluster,
    meta::{annotation, label},
    names,
};
use liqo_core::decision;
use liqo_kube::{
    Cluster, KubeError, Store,
    certs::{self, Facts, SigningRequest},
};
use serde_json::json;

use super::{
    super::{limits, wire},
    No,
};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const CSR: &str = "csr";
const CERTIFICATE: &str = "certificate";
/// Certificates of peers that the authentication service is told, at most.
const MOST: usize = 512;
/// Pause between two looks whether the signer has signed.
const PAUSE: Duration = Duration::from_millis(50);

/// What to do about a signing request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Hand out what is stored.
    Again,
    /// Sign.
    Sign,
    /// Refuse the request.
    Refuse,
}

/// What was signed last for a peer.
pub(super) struct Stored {
    /// The Secret in which the certificate is stored; `None` when a ban has ended the tenant namespace.
    secret: Option<Secret>,
    csr: Option<SigningRequest>,
    pub(super) certificate: String,
    facts: Facts,
}

impl Stored {
    /// Reads what was signed last, in the tenant namespace of a peer.
    pub(super) async fn read(cluster: &Cluster, namespace: &str) -> Result<Option<Self>, KubeError> {
        let found = cluster.get::<Secret>(namespace, names::REMOTE_CERTIFICATE_SECRET).await?;
        Ok(found.and_then(|secret| {
            let certificate = text(&secret, CERTIFICATE)?;
            let facts = certs::facts(certificate.as_bytes()).ok()?;
            let csr = text(&secret, CSR).and_then(|pem| SigningRequest::read(&pem).ok());
            Some(Self { secret: Some(secret), csr, certificate, facts })
        }))
    }

    /// Reads what the `ForeignCluster`s of a peer record of the time before a ban.
    pub(super) fn recorded<'a>(mut peers: impl Iterator<Item = &'a ForeignCluster>) -> Option<Self> {
        peers.find_map(|one| {
            let certificate = one.annotations().get(annotation::LAST_CERTIFICATE)?.clone();
            let facts = certs::facts(certificate.as_bytes()).ok()?;
            Some(Self { secret: None, csr: None, certificate, facts })
        })
    }

    /// Whether a proof says that the holder of the key signed last wants this request signed.
    pub(super) fn proves(&self, csr: &SigningRequest, proof: &str) -> bool {
        STANDARD.decode(proof).is_ok_and(|signature| {
            certs::check_signature(self.certificate.as_bytes(), &wire::renewal(csr.der()), &signature).is_ok()
        })
    }

    /// Compares what was signed with a request of the same peer.
    pub(super) fn held(&self, csr: &SigningRequest, now: Timestamp) -> Held {
        let is_same = self.csr.as_ref().is_some_and(|old| old.der() == csr.der());
        Held { is_same, is_due: certs::due(&self.facts, now) }
    }

    /// The Secret in which the certificate is stored, if there is one.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }
}

/// The sentence for the administrator when a caller used the ID of a peer with another key.
pub(super) fn key_refused(peer: &ClusterIdentity) -> String {
    format!(
        "Somebody who calls itself cluster {id} asked for an identity with another key than this one's, and was refused. \
         If that cluster was installed anew, or has evicted this one, run `liqoctl generate peer-command --for-cluster-id \
         {id}` here, then the printed command on that cluster",
        id = peer.cluster_id
    )
}

/// Watches what was signed last for each peer; of the Secrets, only the certificate is kept.
pub(super) fn watch(cluster: &Cluster) -> Store<Secret> {
    let only = format!("metadata.name={}", names::REMOTE_CERTIFICATE_SECRET);
    let trim = |secret: &mut Secret| {
        liqo_kube::strip(secret);
        secret.data.iter_mut().for_each(|data| data.retain(|key, _| key == CERTIFICATE));
    };
    cluster.watch::<Secret>("").fields(&only).trim(trim).start(|_| {})
}

/// The certificates in PEM, of tenant namespaces only: a user who may write Secrets elsewhere makes no peer.
pub(super) fn certificates(secrets: &[impl Borrow<Secret>]) -> Vec<String> {
    let secrets = secrets.iter().map(Borrow::borrow);
    let tenants = secrets.filter(|secret: &&Secret| {
        secret.namespace().is_some_and(|namespace| namespace.starts_with(names::TENANT_NAMESPACE_PREFIX))
    });
    tenants.filter_map(|secret| text(secret, CERTIFICATE)).take(MOST).collect()
}

/// What is stored for a peer, compared with a signing request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The same request was signed.
    pub(super) is_same: bool,
    /// The stored certificate is due for renewal, or has expired.
    pub(super) is_due: bool,
}

/// An ID belongs to the first key that was certified for the ID, also after the certificate has expired. `vouched`: the old
/// key, or the administrator, speaks for a new key.
pub(super) fn choose(held: Option<Held>, vouched: bool) -> Choice {
    match held {
        Some(Held { is_same: true, is_due: false }) => Choice::Again,
        Some(Held { is_same: false, .. }) if !vouched => Choice::Refuse,
        _ => Choice::Sign,
    }
}

/// The answer to a peer whose key differs from the key certified before. The peer shows the answer in a condition of its
/// `ForeignCluster`, so that the answer names both clusters.
pub(super) fn another_key(namespace: &str, peer: &ClusterIdentity, here: &ClusterIdentity) -> No {
    let why = format!(
        "the stored and the provided CSR for cluster {id} does not match: in the cluster {provider:?} this ID belongs to \
         another key. Run `liqoctl generate peer-command --for-cluster-id {id}` on the cluster {provider:?}, then the \
         command that is printed on the cluster {consumer:?}; or delete the Secret {namespace}/{secret} of the cluster \
         {provider:?}, then run the printed command of `liqoctl generate peer-command` on the cluster {consumer:?}",
        id = peer.cluster_id,
        provider = here.cluster_name,
        consumer = peer.cluster_name,
        secret = names::REMOTE_CERTIFICATE_SECRET,
    );
    No(StatusCode::FORBIDDEN, why)
}

/// A new certificate for a peer, in PEM; the certificate is stored in place of the certificate `before`, or not handed out.
pub(super) async fn certificate(
    cluster: &Cluster,
    (namespace, peer): (&str, &ClusterIdentity),
    before: Option<&Stored>,
    csr: &SigningRequest,
    lifetime: Option<Duration>,
) -> Result<String, No> {
    let pem = sign(cluster, csr, lifetime).await?;
    let mut secret = secret(namespace, peer, &csr.pem(), &pem);
    let checked = csr.check_answer(pem.as_bytes());
    // A certificate that is not handed out counts, too: others may have read it from the signing request.
    let ends = [certs::facts(pem.as_bytes()).ok(), before.map(|before| before.facts.clone())];
    record_end(cluster, namespace, ends.into_iter().flatten().map(|facts| facts.not_after.as_second()).max()).await?;
    if let Err(error) = checked {
        let why = format!("the signer {SIGNER} signed something else than what was asked for: {error}");
        tracing::error!(peer = peer.cluster_id, namespace, reason = why, "a certificate is not handed out");
        cluster.event(&secret, super::WRITER, "Warning", "CertificateDiffers", &why).await;
        return Err(No(StatusCode::INTERNAL_SERVER_ERROR, why));
    }
    match before.and_then(Stored::secret) {
        // Of two simultaneous requests with different keys, one fails with a conflict.
        None => match cluster.get::<Secret>(namespace, names::REMOTE_CERTIFICATE_SECRET).await? {
            None => drop(cluster.create(&secret).await?),
            Some(unreadable) => drop(replace(cluster, &mut secret, &unreadable).await?),
        },
        Some(before) => drop(replace(cluster, &mut secret, before).await?),
    }
    Ok(pem)
}

/// How often a record is tried that meets other writes of the tenant namespace: the controllers label a new one at this moment.
const TRIES: usize = 3;

/// Records in the tenant namespace when a certificate of the peer ends, if none ends later.
async fn record_end(cluster: &Cluster, namespace: &str, ends: Option<i64>) -> Result<(), KubeError> {
    let mut tries = 0;
    loop {
        let Some(tenant) = cluster.get::<Namespace>("", namespace).await? else { return Ok(()) };
        let Some(ends) = decision::later_end(&tenant.metadata, ends) else { return Ok(()) };
        let annotations = json!({annotation::CERTIFICATE_EXPIRE_TIME: ends.to_string()});
        let meta = json!({"resourceVersion": tenant.resource_version(), "annotations": annotations});
        tries += 1;
        match cluster.merge(&tenant, json!({ "metadata": meta })).await {
            Err(error) if error.is_conflict() && tries < TRIES => {}
            other => return other.map(drop),
        }
    }
}

async fn replace(cluster: &Cluster, new: &mut Secret, old: &Secret) -> Result<Secret, KubeError> {
    new.metadata.resource_version = old.resource_version();
    cluster.apply(new).await
}

async fn sign(cluster: &Cluster, csr: &SigningRequest, lifetime: Option<Duration>) -> Result<String, No> {
    let request = cluster.create(&signing_request(csr, lifetime)).await?;
    let outcome = approved(cluster, &request).await;
    if let Err(error) = cluster.remove(&request).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "signing request left behind");
    }
    outcome
}

async fn approved(cluster: &Cluster, request: &CertificateSigningRequest) -> Result<String, No> {
    let message = "This CSR was approved by Liqo Identity Manager";
    cluster.approve(request, "IdentityManagerApproval", message).await?;
    let signed = tokio::time::timeout(limits::SIGNER, signed(cluster, &request.name_any())).await;
    match signed {
        Ok(outcome) => outcome,
        Err(_) => Err(No(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "the signer {SIGNER} of this cluster has not signed within {} s; try again",
                limits::SIGNER.as_secs()
            ),
        )),
    }
}

async fn signed(cluster: &Cluster, name: &str) -> Result<String, No> {
    loop {
        let found: Option<CertificateSigningRequest> = cluster.get("", name).await?;
        let status = found.and_then(|request| request.status).unwrap_or_default();
        if let Some(ByteString(pem)) = status.certificate {
            return String::from_utf8(pem)
                .map_err(|_| No(StatusCode::INTERNAL_SERVER_ERROR, "the certificate signed is no PEM".to_owned()));
        }
        let refused = status.conditions.iter().flatten().find(|one| one.type_ == "Failed" || one.type_ == "Denied");
        if let Some(condition) = refused {
            let why = condition.message.clone().unwrap_or_default();
            return Err(No(StatusCode::FORBIDDEN, format!("the signer {SIGNER} of this cluster refused: {why}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn signing_request(csr: &SigningRequest, lifetime: Option<Duration>) -> CertificateSigningRequest {
    let labels = BTreeMap::from([(label::REMOTE_TENANT_CSR.to_owned(), "true".to_owned())]);
    CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some(names::IDENTITY_SECRET_PREFIX.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(csr.pem().into_bytes()),
            expiration_seconds: lifetime.map(|life| i32::try_from(life.as_secs()).unwrap_or(i32::MAX)),
            signer_name: SIGNER.to_owned(),
            usages: Some(["digital signature", "key encipherment", "client auth"].map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

fn secret(namespace: &str, peer: &ClusterIdentity, csr: &str, certificate: &str) -> Secret {
    let data = [(CSR, csr), (CERTIFICATE, certificate)];
    let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec())));
    Secret {
        metadata: ObjectMeta {
            name: Some(names::REMOTE_CERTIFICATE_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([(label::CLUSTER_ID.to_owned(), peer.cluster_id.clone())])),
            ..ObjectMeta::default()
        },
        data: Some(data.into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use liqo_kube::certs::{KeyKind, Subject};

    use super::*;

    #[test]
    fn a_certificate_is_given_again_while_it_is_good_for_a_third_of_its_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let facts = Facts { subject: Subject::default(), not_before: at(0), not_after: at(900) };
        for (same, stored, vouched, now, choice) in [
            (true, true, true, 100, Choice::Again),
            (true, true, false, 100, Choice::Again),
            (true, true, true, 600, Choice::Sign),
            (true, true, true, 1000, Choice::Sign),
            (false, true, true, 100, Choice::Sign),
            (false, true, true, 1000, Choice::Sign),
            (false, true, false, 100, Choice::Refuse),
            (false, true, false, 1000, Choice::Refuse),
            (false, false, false, 100, Choice::Sign),
            (true, false, true, 100, Choice::Sign),
        ] {
            let held = stored.then(|| Held { is_same: same, is_due: certs::due(&facts, at(now)) });
            assert_eq!(choose(held, vouched), choice, "{held:?} {vouched} {now}");
        }
    }

    #[test]
    fn a_refusal_says_what_helps_on_which_cluster() {
        let [peer, here] = [("a", "milan"), ("b", "rome")].map(|(id, name)| ClusterIdentity::new(id, name));
        let No(status, why) = another_key("liqo-tenant-milan", &peer, &here);
        assert_eq!(status, StatusCode::FORBIDDEN);
        for wanted in [
            "`liqoctl generate peer-command --for-cluster-id a` on the cluster \"rome\"",
            "then the command that is printed on the cluster \"milan\"",
            "the Secret liqo-tenant-milan/liqo-remote-certificate of the cluster \"rome\"",
        ] {
            assert!(why.contains(wanted), "{wanted}: {why}");
        }
    }

    #[test]
    fn the_old_key_speaks_for_the_new_one() {
        certs::install_crypto();
        let life = Duration::from_secs(600);
        let subject = Subject::new("09897b82-7830-483b-b786-9cf90899f809", "liqo.io");
        let old = certs::self_signed(&subject, &[], life).unwrap();
        let request = |key: &str| SigningRequest::read(&certs::signing_request(key, &subject, &[]).unwrap()).unwrap();
        let (new, another) =
            [KeyKind::Ed25519, KeyKind::P256].map(|kind| request(&certs::new_key(kind).unwrap())).into();
        let stored = Stored {
            secret: None,
            csr: None,
            facts: certs::facts(old.certificate.as_bytes()).unwrap(),
            certificate: old.certificate,
        };
        let proof = |key: &str, about: &SigningRequest| wire::proof(key, &about.pem()).unwrap();
        assert!(stored.proves(&new, &proof(&old.key, &new)));
        assert!(!stored.proves(&another, &proof(&old.key, &new)), "a proof is about one request");
        assert!(!stored.proves(&new, &proof(&certs::new_key(KeyKind::P256).unwrap(), &new)), "another key");
        assert!(!stored.proves(&new, &STANDARD.encode(certs::sign(&old.key, new.der()).unwrap())), "another purpose");
        for proof in ["", "%", "AAAA"] {
            assert!(!stored.proves(&new, proof), "{proof:?}");
        }
    }

    #[test]
    fn only_short_certificates_are_asked_for_by_their_life() {
        let key = certs::new_key(KeyKind::Ed25519).unwrap();
        let subject = Subject::new("09897b82-7830-483b-b786-9cf90899f809", "liqo.io");
        let csr = SigningRequest::read(&certs::signing_request(&key, &subject, &[]).unwrap()).unwrap();
        assert_eq!(signing_request(&csr, None).spec.expiration_seconds, None);
        let week = signing_request(&csr, Some(Duration::from_secs(604_800)));
        assert_eq!(week.spec.expiration_seconds, Some(604_800));
        assert_eq!(week.spec.request.0, csr.pem().into_bytes());
    }
}
