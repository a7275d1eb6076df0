//! Signing for a peer, by the cluster's own signer.
//!
//! Keeps true: what was signed last for a peer is stored before it is handed out. Who asks again with
//! the same key is given the same certificate, so a lost answer costs nothing. A new key needs the token.
//!
//! Writes    `CertificateSigningRequest`, its approval; `Secret` `liqo-remote-certificate`.
//! Removes   the `CertificateSigningRequest`s it made.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
        core::v1::Secret,
    },
    jiff::Timestamp,
};
use kube::{ResourceExt, api::ObjectMeta};
use liqo_api::{ClusterIdentity, meta::label, names};
use liqo_kube::{
    Cluster,
    certs::{self, Facts},
    now,
};

use super::No;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const CSR: &str = "csr";
const CERTIFICATE: &str = "certificate";
/// How long the signer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often we look whether it has signed.
const PAUSE: Duration = Duration::from_millis(50);

/// What to do about a signing request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// Hand out what is stored.
    Again,
    /// Sign.
    Sign,
    /// Neither.
    Refuse,
}

/// A certificate for a peer, in PEM.
pub(super) async fn certificate(
    cluster: &Cluster,
    namespace: &str,
    peer: &ClusterIdentity,
    csr: &str,
    new_keys: bool,
) -> Result<String, No> {
    let stored = cluster.get::<Secret>(namespace, names::REMOTE_CERTIFICATE_SECRET).await?;
    let old_csr = stored.as_ref().and_then(|secret| text(secret, CSR));
    let old = stored.as_ref().and_then(|secret| text(secret, CERTIFICATE));
    let facts = old.as_ref().and_then(|pem| certs::facts(pem.as_bytes()).ok());
    match (choose(old_csr.as_deref() == Some(csr), facts.as_ref(), new_keys, now().0), old) {
        (Choice::Again, Some(pem)) => Ok(pem),
        (Choice::Refuse, _) => Err(No(
            StatusCode::FORBIDDEN,
            format!(
                "the stored and the provided CSR for cluster {} does not match: this cluster asks for no token, so it \
                 does not replace a valid certificate; its administrator can delete the Secret {namespace}/{}",
                peer.cluster_id,
                names::REMOTE_CERTIFICATE_SECRET
            ),
        )),
        _ => {
            let pem = sign(cluster, csr).await?;
            cluster.apply(&secret(namespace, peer, csr, &pem)).await?;
            Ok(pem)
        }
    }
}

fn choose(same_csr: bool, stored: Option<&Facts>, new_keys: bool, now: Timestamp) -> Choice {
    match stored {
        Some(facts) if same_csr && !certs::due(facts, now) => Choice::Again,
        Some(facts) if !same_csr && !new_keys && facts.not_after > now => Choice::Refuse,
        _ => Choice::Sign,
    }
}

async fn sign(cluster: &Cluster, csr: &str) -> Result<String, No> {
    let request = cluster.create(&signing_request(csr)).await?;
    let outcome = approved(cluster, &request).await;
    if let Err(error) = cluster.remove(&request).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "signing request left behind");
    }
    outcome
}

async fn approved(cluster: &Cluster, request: &CertificateSigningRequest) -> Result<String, No> {
    let message = "This CSR was approved by Liqo Identity Manager";
    cluster.approve(request, "IdentityManagerApproval", message).await?;
    let signed = tokio::time::timeout(PATIENCE, signed(cluster, &request.name_any())).await;
    match signed {
        Ok(outcome) => outcome,
        Err(_) => Err(No(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the signer {SIGNER} of this cluster has not signed within {} s; try again", PATIENCE.as_secs()),
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

fn signing_request(csr: &str) -> CertificateSigningRequest {
    let labels = BTreeMap::from([(label::REMOTE_TENANT_CSR.to_owned(), "true".to_owned())]);
    CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some(names::IDENTITY_SECRET_PREFIX.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(csr.as_bytes().to_vec()),
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
    use liqo_kube::certs::Subject;

    use super::*;

    #[test]
    fn a_certificate_is_given_again_while_it_is_good_for_a_third_of_its_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let facts = Facts { subject: Subject::default(), not_before: at(0), not_after: at(900) };
        for (same, stored, new_keys, now, choice) in [
            (true, true, true, 100, Choice::Again),
            (true, true, false, 100, Choice::Again),
            (true, true, true, 600, Choice::Sign),
            (true, true, true, 1000, Choice::Sign),
            (false, true, true, 100, Choice::Sign),
            (false, true, false, 100, Choice::Refuse),
            (false, true, false, 1000, Choice::Sign),
            (false, false, false, 100, Choice::Sign),
            (true, false, true, 100, Choice::Sign),
        ] {
            let stored = stored.then_some(&facts);
            assert_eq!(choose(same, stored, new_keys, at(now)), choice, "{same} {stored:?} {new_keys} {now}");
        }
    }
}
