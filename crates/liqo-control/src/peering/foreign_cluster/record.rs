//! What a `ForeignCluster` records of the certificates that its peer was given: a ban ends the tenant namespace, and with the namespace the
//! Secret that says to which key the ID of the peer belongs.

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use liqo_api::meta::annotation;
use liqo_core::decision;
use liqo_kube::certs;
use serde_json::{Map, Value, json};

/// The certificate in a Secret `liqo-remote-certificate`, in PEM, if it can be read.
pub(super) fn certificate(secret: &Secret) -> Option<String> {
    let ByteString(pem) = secret.data.as_ref()?.get("certificate")?;
    let pem = String::from_utf8(pem.clone()).ok()?;
    certs::facts(pem.as_bytes()).is_ok().then_some(pem)
}

/// The annotations to write to the `ForeignCluster` before a tenant namespace ends: its certificate, and the time when the last
/// certificate of the peer ends; `None` when both are recorded.
pub(super) fn before_the_end(
    foreign_cluster: &ObjectMeta,
    tenant: &ObjectMeta,
    certificate: Option<&str>,
) -> Option<Value> {
    let facts = certificate.and_then(|pem| certs::facts(pem.as_bytes()).ok());
    let ends = decision::certificates_end(tenant).into_iter().chain(facts.map(|facts| facts.not_after.as_second()));
    let recorded = foreign_cluster.annotations.as_ref().and_then(|all| all.get(annotation::LAST_CERTIFICATE));
    let mut annotations = Map::new();
    if let Some(ends) = decision::later_end(foreign_cluster, ends.max()) {
        annotations.insert(annotation::CERTIFICATE_EXPIRE_TIME.to_owned(), json!(ends.to_string()));
    }
    if let Some(certificate) = certificate.filter(|one| recorded.is_none_or(|recorded| recorded != one)) {
        annotations.insert(annotation::LAST_CERTIFICATE.to_owned(), json!(certificate));
    }
    (!annotations.is_empty()).then(|| annotations.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liqo_kube::certs::{Subject, self_signed};

    use super::*;

    #[test]
    fn a_record_has_the_last_certificate_and_the_latest_end() {
        let subject = Subject::new("rome", "liqo.io");
        let pem = self_signed(&subject, &[], Duration::from_secs(3600)).unwrap().certificate;
        let ends = certs::facts(pem.as_bytes()).unwrap().not_after.as_second();
        let meta = |recorded: Option<i64>, certificate: Option<&str>| ObjectMeta {
            annotations: Some(
                [
                    recorded.map(|at| (annotation::CERTIFICATE_EXPIRE_TIME.to_owned(), at.to_string())),
                    certificate.map(|pem| (annotation::LAST_CERTIFICATE.to_owned(), pem.to_owned())),
                ]
                .into_iter()
                .flatten()
                .collect(),
            ),
            ..ObjectMeta::default()
        };
        let written = |end: Option<i64>, certificate: Option<&str>| {
            let mut all = Map::new();
            end.map(|end| all.insert(annotation::CERTIFICATE_EXPIRE_TIME.to_owned(), json!(end.to_string())));
            certificate.map(|pem| all.insert(annotation::LAST_CERTIFICATE.to_owned(), json!(pem)));
            (!all.is_empty()).then(|| Value::from(all))
        };
        let (none, later) = (meta(None, None), ends + 100);
        for (what, one, tenant, certificate, wanted) in [
            ("nothing is known", none.clone(), none.clone(), None, None),
            ("a certificate", none.clone(), none.clone(), Some(&*pem), written(Some(ends), Some(&pem))),
            (
                "an earlier one ends later",
                none.clone(),
                meta(Some(later), None),
                Some(&pem),
                written(Some(later), Some(&pem)),
            ),
            ("its Secret is gone", none.clone(), meta(Some(later), None), None, written(Some(later), None)),
            (
                "a ban before recorded less",
                meta(Some(1), Some("old")),
                meta(Some(later), None),
                Some(&pem),
                written(Some(later), Some(&pem)),
            ),
            (
                "a ban before recorded more",
                meta(Some(later), None),
                none.clone(),
                Some(&pem),
                written(None, Some(&pem)),
            ),
            ("all is recorded", meta(Some(later), Some(&pem)), meta(Some(later), None), Some(&pem), None),
        ] {
            assert_eq!(before_the_end(&one, &tenant, certificate), wanted, "{what}");
        }
    }

    #[test]
    fn only_a_certificate_that_can_be_read_is_recorded() {
        let secret = |pem: &str| Secret {
            data: Some([("certificate".to_owned(), ByteString(pem.as_bytes().to_vec()))].into()),
            ..Secret::default()
        };
        let pem = self_signed(&Subject::new("rome", "liqo.io"), &[], Duration::from_secs(9)).unwrap().certificate;
        assert_eq!(certificate(&secret(&pem)), Some(pem));
        assert_eq!(certificate(&secret("something else")), None);
        assert_eq!(certificate(&Secret::default()), None);
    }
}
