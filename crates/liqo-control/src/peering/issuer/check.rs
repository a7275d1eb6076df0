//! Checks of a request before anything is written: pure functions, whose refusals say what helps.
//!
//! Liqo 0.8.3 signed every request; here the subject of a certificate is the peer that is given the certificate.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use liqo_api::ClusterIdentity;
use liqo_core::naming::{self, cluster_id_error, dns_label_error};
use liqo_kube::certs::{SigningRequest, Subject};

use super::{super::wire, No};

/// The organization of every identity.
const ORGANIZATION: &str = "liqo.io";
/// The longest name of a namespace.
const LONGEST_NAME: usize = 63;

/// Whether the name and ID of `peer` can be those of another cluster.
pub(in crate::peering) fn claim(peer: &ClusterIdentity, here: &ClusterIdentity) -> Result<(), No> {
    let forbidden = |why: String| Err(No(StatusCode::FORBIDDEN, why));
    if let Some(why) = cluster_id_error(&peer.cluster_id) {
        return forbidden(format!("the cluster ID {why}"));
    }
    if let Some(why) = dns_label_error(&peer.cluster_name) {
        return forbidden(format!("the cluster name {why}"));
    }
    if peer.cluster_id == here.cluster_id {
        return forbidden("the cluster ID is that of this cluster: a cluster cannot peer with itself".to_owned());
    }
    let longer = naming::tenant_namespace(peer).len().saturating_sub(LONGEST_NAME);
    if longer > 0 {
        let most = peer.cluster_name.len().saturating_sub(longer);
        return forbidden(format!(
            "the cluster name is longer than {most} characters, so no namespace can be named after it: install the \
             cluster with a shorter name"
        ));
    }
    Ok(())
}

/// The answer to every refused token, whatever the reason. The answer never repeats the token.
pub(super) fn denied(given: &str) -> No {
    let why = if given.is_empty() {
        "a token is needed: see `liqoctl generate peer-command` in this cluster"
    } else {
        "invalid token: see `liqoctl generate peer-command` in this cluster for the current one"
    };
    No(StatusCode::UNAUTHORIZED, why.to_owned())
}

/// The signing request, if it speaks of `peer` and of nobody else and asks for nothing else.
pub(in crate::peering) fn signing_request(peer: &ClusterIdentity, encoded: &str) -> Result<SigningRequest, No> {
    let bad = |why: String| No(StatusCode::BAD_REQUEST, why);
    let forbidden = |why: String| No(StatusCode::FORBIDDEN, why);
    let bytes = STANDARD.decode(encoded).map_err(|error| bad(format!("certificateSigningRequest: {error}")))?;
    let pem = String::from_utf8(bytes).map_err(|error| bad(format!("certificateSigningRequest: {error}")))?;
    let request = SigningRequest::read(&pem)
        .map_err(|error| forbidden(format!("the signing request cannot be used: {error}")))?;
    let wanted = Subject::new(peer.cluster_id.as_str(), ORGANIZATION);
    let subject = request.subject();
    if *subject != wanted {
        return Err(forbidden(format!(
            "the signing request speaks of CN={:?} O={:?}, but must speak of CN={:?} O={ORGANIZATION:?}",
            subject.common_name, subject.organizations, wanted.common_name
        )));
    }
    if !request.is_bare() {
        let why =
            "the signing request asks for extensions or has other attributes: only a subject and a key are signed";
        return Err(forbidden(why.to_owned()));
    }
    Ok(request)
}

/// A signing request as requests for an identity carry it: base64 of PEM of the bytes that were read.
pub(in crate::peering) fn encode(request: &SigningRequest) -> String {
    STANDARD.encode(request.pem())
}

/// The answer to a granted request.
pub(super) fn answer(namespace: String, certificate: &str, url: String, authority: Option<&str>) -> wire::Answer {
    wire::Answer {
        namespace,
        certificate: STANDARD.encode(certificate),
        api_server_url: url,
        api_server_ca: authority.map(|pem| STANDARD.encode(pem)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use liqo_kube::certs::{self, KeyKind};

    use super::*;

    const ID: &str = "09897b82-7830-483b-b786-9cf90899f809";

    #[test]
    fn only_a_possible_peer_is_heard() {
        let here = ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "milan");
        let (longest, longer) = ("a".repeat(44), "a".repeat(45));
        for (id, name, words) in [
            (ID, "rome", None),
            (ID, longest.as_str(), None),
            (ID, longer.as_str(), Some("longer than 44 characters")),
            ("", "rome", Some("cluster ID is empty")),
            ("system:masters", "rome", Some("cluster ID must be a UUID")),
            ("kubernetes-admin", "rome", Some("cluster ID must be a UUID")),
            ("09897B82-7830-483b-b786-9cf90899f809", "rome", Some("cluster ID must be a UUID")),
            (ID, "Rome", Some("cluster name may only")),
            (ID, "", Some("cluster name is empty")),
            (here.cluster_id.as_str(), "rome", Some("peer with itself")),
        ] {
            let outcome = claim(&ClusterIdentity::new(id, name), &here).err().map(|No(status, why)| (status, why));
            match (outcome, words) {
                (None, None) => {}
                (Some((StatusCode::FORBIDDEN, why)), Some(words)) => assert!(why.contains(words), "{why}"),
                (outcome, _) => panic!("{id} {name}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_wrong_token_is_unauthorized_and_not_repeated() {
        for given in ["", "secret-of-somebody"] {
            let No(status, why) = denied(given);
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert!(given.is_empty() || !why.contains(given));
        }
    }

    #[test]
    fn a_request_must_speak_of_the_asker() {
        let peer = ClusterIdentity::new(ID, "rome");
        let key = certs::new_key(KeyKind::Ed25519).unwrap();
        let named = |subject: &Subject, names: &[String]| {
            STANDARD.encode(certs::signing_request(&key, subject, names).unwrap())
        };
        let made = |subject: &Subject| named(subject, &[]);
        assert!(signing_request(&peer, &made(&Subject::new(ID, "liqo.io"))).is_ok());
        let two =
            Subject { organizations: vec!["liqo.io".to_owned(), "system:masters".to_owned()], ..Subject::new(ID, "") };
        for (encoded, status) in [
            (made(&Subject::new("kubernetes-admin", "liqo.io")), StatusCode::FORBIDDEN),
            (made(&Subject::new(ID, "system:masters")), StatusCode::FORBIDDEN),
            (made(&two), StatusCode::FORBIDDEN),
            (named(&Subject::new(ID, "liqo.io"), &["kubernetes".to_owned()]), StatusCode::FORBIDDEN),
            (STANDARD.encode("nonsense"), StatusCode::FORBIDDEN),
            ("%".to_owned(), StatusCode::BAD_REQUEST),
        ] {
            assert_eq!(signing_request(&peer, &encoded).unwrap_err().0, status, "{encoded}");
        }
    }

    /// Whatever is sent, what is signed speaks of a possible peer, and that peer is the caller.
    #[test]
    fn fuzz_identity_requests() {
        let here = ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "milan");
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "identity_request", |bytes| {
            let Ok(asked) = serde_json::from_slice::<wire::Request>(bytes) else { return };
            let request = signing_request(&asked.cluster, &asked.certificate_signing_request);
            if claim(&asked.cluster, &here).is_err() {
                return;
            }
            let Ok(request) = request else { return };
            assert_eq!(*request.subject(), Subject::new(asked.cluster.cluster_id.as_str(), "liqo.io"));
            assert!(cluster_id_error(&request.subject().common_name).is_none());
        });
    }
}
