//! Removal of leftovers: signing requests of a process that ended between two writes, and one-time tokens that expired
//! long ago.
//!
//! Removes   `CertificateSigningRequest` with the label `remote-tenant-csr`; `Secret` `auth-token-once-*`.

use std::time::Duration;

use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, core::v1::Secret},
    jiff::Timestamp,
};
use liqo_api::meta::label;
use liqo_kube::{KubeError, Queue, drive, life::Life, now};

use super::super::token;
use crate::home::Home;

/// Pause between two sweeps, and the age from which a signing request counts as left behind: no request is signed so late.
const PAUSE: Duration = Duration::from_secs(600);

/// Sweeps at the start and after each pause.
pub(super) fn start(home: &Home, life: &Life) {
    let queue = Queue::new();
    queue.push(());
    let home = home.clone();
    life.spawn("auth-sweep", async move {
        drive("auth-sweep", queue, 1, |()| async { sweep(&home).await.map(|()| Some(PAUSE)) }).await;
    });
}

async fn sweep(home: &Home) -> Result<(), KubeError> {
    let marked = format!("{}=true", label::REMOTE_TENANT_CSR);
    for request in home.cluster.list::<CertificateSigningRequest>("", &marked).await? {
        if is_left_behind(&request, now().0) {
            home.cluster.remove(&request).await?;
        }
    }
    for secret in home.cluster.list::<Secret>(&home.namespace, label::ONE_TIME_TOKEN).await? {
        if token::is_forgotten(&secret, now().0) {
            home.cluster.remove(&secret).await?;
        }
    }
    Ok(())
}

fn is_left_behind(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let made = request.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| now.duration_since(made.0).as_secs() > PAUSE.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_signing_request_is_left_behind_after_ten_minutes() {
        let request: CertificateSigningRequest = serde_json::from_value(json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"request": "", "signerName": "x"},
        }))
        .unwrap();
        let at = |text: &str| text.parse().unwrap();
        assert!(!is_left_behind(&request, at("2026-01-01T00:09:59Z")));
        assert!(is_left_behind(&request, at("2026-01-01T00:10:01Z")));
    }
}
