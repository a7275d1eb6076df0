//! The serving certificate of the kubelet API, kept in memory and renewed in time.
//!
//! Writes    `CertificateSigningRequest`, as any kubelet; the controller manager of Liqo approves it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    jiff::Timestamp,
};
use kube::core::ObjectMeta;
use liqo_kube::{
    Cluster,
    certs::{self, KeyKind, Pair, Shown, Subject},
    chain, now,
};

use crate::args::CertificateType;

/// Life of a certificate we sign ourselves.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Nobody sleeps longer before the clock is read again: clocks change.
const LOOK: Duration = Duration::from_secs(600);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// A request nobody has answered for so many looks is given up for a new one.
const LOOKS: u32 = 60;

/// For whom, by whom and where to.
pub(super) struct Serving {
    pub(super) home: Cluster,
    pub(super) node: String,
    pub(super) ip: String,
    pub(super) kind: CertificateType,
    pub(super) shown: Arc<Shown>,
}

impl Serving {
    /// Keeps a valid certificate shown, for ever.
    pub(super) async fn run(self) {
        loop {
            let pause = match self.renew().await {
                Ok(facts) => {
                    tracing::info!(until = %facts.not_after, "serving certificate issued");
                    let until = now().0 + certs::renewal_after(&facts, now().0);
                    while let Some(rest) = rest(until, now().0) {
                        tokio::time::sleep(rest.min(LOOK)).await;
                    }
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::warn!(error, "no serving certificate: logs and exec do not work yet");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn renew(&self) -> Result<certs::Facts, String> {
        let pair = match self.kind {
            CertificateType::SelfSigned => {
                let subject = Subject::new(format!("system:node:{}", self.node), "liqo.io");
                certs::self_signed(&subject, &self.names(), YEAR).map_err(|error| error.to_string())?
            }
            CertificateType::Kubelet => self.signed("kubernetes.io/kubelet-serving").await?,
            CertificateType::Aws => self.signed("beta.eks.amazonaws.com/app-serving").await?,
        };
        self.shown.show(&pair).map_err(|error| error.to_string())?;
        certs::facts(pair.certificate.as_bytes()).map_err(|error| error.to_string())
    }

    /// The address of the node; its name if it has none.
    fn names(&self) -> [String; 1] {
        [if self.ip.is_empty() { self.node.clone() } else { self.ip.clone() }]
    }

    async fn signed(&self, signer: &str) -> Result<Pair, String> {
        let key = certs::new_key(KeyKind::P256).map_err(|error| error.to_string())?;
        let subject = Subject::new(format!("system:node:{}", self.node), "system:nodes");
        let request = certs::signing_request(&key, &subject, &self.names()).map_err(|error| error.to_string())?;
        let asked = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: signer.to_owned(),
                usages: Some(["digital signature", "key encipherment", "server auth"].map(str::to_owned).to_vec()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let created = self.home.create(&asked).await.map_err(|error| chain(&error))?;
        let name = created.metadata.name.unwrap_or_default();
        let mut pause = Duration::from_millis(200);
        for _ in 0..LOOKS {
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_secs(5));
            let found = self.home.get::<CertificateSigningRequest>("", &name).await.map_err(|error| chain(&error))?;
            match found.map(|request| answer(&request)) {
                Some(Answer::Issued(certificate)) => return Ok(Pair { certificate, key }),
                Some(Answer::Waiting) => {}
                Some(Answer::Refused(why)) => return Err(format!("signing request {name} was refused: {why}")),
                None => return Err(format!("signing request {name} is gone")),
            }
        }
        Err(format!("signing request {name} was not answered: is it approved?"))
    }
}

/// What is left of the time before `until`; nothing when it has come.
fn rest(until: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(until.duration_since(now)).ok().filter(|rest| !rest.is_zero())
}

#[derive(Debug, PartialEq)]
enum Answer {
    Waiting,
    Issued(String),
    Refused(String),
}

fn answer(request: &CertificateSigningRequest) -> Answer {
    let Some(status) = &request.status else { return Answer::Waiting };
    if let Some(certificate) = &status.certificate {
        return Answer::Issued(String::from_utf8_lossy(&certificate.0).into_owned());
    }
    let refused = status.conditions.iter().flatten().find(|one| one.type_ == "Denied" || one.type_ == "Failed");
    refused.map_or(Answer::Waiting, |one| Answer::Refused(one.message.clone().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_waits_is_issued_or_refused() {
        let request = |status| {
            serde_json::from_value::<CertificateSigningRequest>(json!({
                "spec": {"request": "", "signerName": "x"}, "status": status,
            }))
        };
        assert_eq!(answer(&request(json!(null)).unwrap()), Answer::Waiting);
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        assert_eq!(answer(&request(approved).unwrap()), Answer::Waiting);
        assert_eq!(answer(&request(json!({"certificate": "UEVN"})).unwrap()), Answer::Issued("PEM".into()));
        let denied = json!({"conditions": [{"type": "Denied", "status": "True", "message": "no"}]});
        assert_eq!(answer(&request(denied).unwrap()), Answer::Refused("no".into()));
    }
}
