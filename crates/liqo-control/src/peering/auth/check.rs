//! What is checked before anything is written: all pure, all told in words that help.
//!
//! Liqo 0.8.3 signed whatever it was sent; here a certificate speaks of whom it is given to.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use liqo_api::ClusterIdentity;
use liqo_core::naming::dns_label_error;
use liqo_kube::certs::{self, Subject};

use super::{
    super::{token, wire},
    No,
};

/// The organization of every identity.
const ORGANIZATION: &str = "liqo.io";

/// Whether somebody may claim to be `peer` at all.
pub(super) fn claim(peer: &ClusterIdentity, here: &ClusterIdentity) -> Result<(), No> {
    let forbidden = |why: String| Err(No(StatusCode::FORBIDDEN, why));
    if let Some(why) = dns_label_error(&peer.cluster_id) {
        return forbidden(format!("the cluster ID {why}"));
    }
    if let Some(why) = dns_label_error(&peer.cluster_name) {
        return forbidden(format!("the cluster name {why}"));
    }
    if peer.cluster_id == here.cluster_id {
        return forbidden("the cluster ID is that of this cluster: a cluster cannot peer with itself".to_owned());
    }
    Ok(())
}

/// Whether the token is the right one. The answer never repeats it.
pub(super) fn token(expected: &str, given: &str) -> Result<(), No> {
    if token::same(expected, given) {
        return Ok(());
    }
    let why = if given.is_empty() {
        "a token is needed: see `liqoctl generate peer-command` in this cluster"
    } else {
        "invalid token: see `liqoctl generate peer-command` in this cluster for the current one"
    };
    Err(No(StatusCode::UNAUTHORIZED, why.to_owned()))
}

/// The signing request in PEM, if it speaks of `peer` and of nobody else.
pub(super) fn signing_request(peer: &ClusterIdentity, encoded: &str) -> Result<String, No> {
    let bad = |why: String| No(StatusCode::BAD_REQUEST, why);
    let bytes = STANDARD.decode(encoded).map_err(|error| bad(format!("certificateSigningRequest: {error}")))?;
    let pem = String::from_utf8(bytes).map_err(|error| bad(format!("certificateSigningRequest: {error}")))?;
    let subject = certs::request_subject(&pem)
        .map_err(|error| No(StatusCode::FORBIDDEN, format!("the signing request cannot be used: {error}")))?;
    let wanted = Subject::new(peer.cluster_id.as_str(), ORGANIZATION);
    if subject != wanted {
        let why = format!(
            "the signing request speaks of CN={:?} O={:?}, but must speak of CN={:?} O={ORGANIZATION:?}",
            subject.common_name, subject.organizations, wanted.common_name
        );
        return Err(No(StatusCode::FORBIDDEN, why));
    }
    Ok(pem)
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
    use liqo_kube::certs::KeyKind;

    use super::*;

    const ID: &str = "09897b82-7830-483b-b786-9cf90899f809";

    #[test]
    fn only_a_possible_peer_is_heard() {
        let here = ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "milan");
        for (id, name, words) in [
            (ID, "rome", None),
            ("", "rome", Some("cluster ID is empty")),
            ("system:masters", "rome", Some("cluster ID may only")),
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
        assert_eq!(token("abc", "abc"), Ok(()));
        for given in ["", "secret-of-somebody"] {
            let No(status, why) = token("abc", given).unwrap_err();
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert!(given.is_empty() || !why.contains(given));
            assert!(!why.contains("abc"));
        }
    }

    #[test]
    fn a_request_must_speak_of_the_asker() {
        let peer = ClusterIdentity::new(ID, "rome");
        let key = certs::new_key(KeyKind::Ed25519).unwrap();
        let made = |subject: &Subject| STANDARD.encode(certs::signing_request(&key, subject, &[]).unwrap());
        assert!(signing_request(&peer, &made(&Subject::new(ID, "liqo.io"))).is_ok());
        let two =
            Subject { organizations: vec!["liqo.io".to_owned(), "system:masters".to_owned()], ..Subject::new(ID, "") };
        for (encoded, status) in [
            (made(&Subject::new("kubernetes-admin", "liqo.io")), StatusCode::FORBIDDEN),
            (made(&Subject::new(ID, "system:masters")), StatusCode::FORBIDDEN),
            (made(&two), StatusCode::FORBIDDEN),
            (STANDARD.encode("nonsense"), StatusCode::FORBIDDEN),
            ("%".to_owned(), StatusCode::BAD_REQUEST),
        ] {
            assert_eq!(signing_request(&peer, &encoded).unwrap_err().0, status, "{encoded}");
        }
    }
}
