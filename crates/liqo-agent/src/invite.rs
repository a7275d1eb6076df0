//! Invitations for consumers that have reserved resources here.
//!
//! Writes    Secret `auth-token-once-<digits>`, which ends with the reservation, after an hour at the latest.
//! Keeps true: a token lets in no cluster that was let in before under another key. For a cluster that is not known here the token is
//! bound to its ID; for one that is known, the token is good for whoever comes first, and an ID stays with its key.

use k8s_openapi::{
    api::core::v1::{Node, Secret, Service},
    jiff::{SignedDuration, Timestamp},
};
use liqo_api::{ClusterIdentity, discovery::ForeignCluster, names};
use liqo_core::{
    endpoint,
    join_token::{self, For},
    naming::cluster_id_error,
    peering::id_of,
};
use liqo_kube::{Cluster, Store, certs, now};
use liqo_market::wire::{Invitation, Promise, Refusal};
use ring::rand::{SecureRandom, SystemRandom};

/// The longest life of a token.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// Makes invitations.
pub(crate) struct Inviter {
    pub(crate) home: Cluster,
    pub(crate) namespace: String,
    pub(crate) local: ClusterIdentity,
}

/// What a promise is answered.
pub(crate) enum Answer {
    Invited(Invitation),
    Refused(Refusal),
}

impl Inviter {
    /// Invites the consumer of a promise, or says why not.
    ///
    /// # Errors
    /// A text that says why neither can be said now.
    pub(crate) async fn answer(&self, promise: &Promise, nodes: &Store<Node>) -> Result<Answer, String> {
        let known: Vec<ForeignCluster> = self.home.list("", "").await.map_err(|error| told(&error))?;
        let reservation = promise.reservation.clone();
        if let Some(reason) = refusal(promise, &self.local, &known) {
            return Ok(Answer::Refused(Refusal { reservation, reason }));
        }
        let whom = whom(&promise.consumer, &known);
        let (pin, auth_url) = (self.pin().await?, self.auth_url(nodes).await?);
        let secret = new_token()?;
        let end = end(&promise.until, now().0)?;
        let made = join_token::one_time(&self.namespace, whom, &secret, &end);
        self.home.create(&made).await.map_err(|error| told(&error))?;
        tracing::info!(consumer = promise.consumer, reservation, "a consumer is invited");
        let (cluster_name, token) = (self.local.cluster_name.clone(), join_token::with_pin(&secret, &pin));
        Ok(Answer::Invited(Invitation { reservation, cluster_name, auth_url, token }))
    }

    /// The pin of the authentication service's key.
    async fn pin(&self) -> Result<String, String> {
        let name = names::AUTH_CERTIFICATE_SECRET;
        let secret: Option<Secret> = self.home.get(&self.namespace, name).await.map_err(|error| told(&error))?;
        let pem = secret.and_then(|secret| secret.data?.remove(names::TLS_CERTIFICATE));
        let pem = pem.ok_or_else(|| format!("the authentication service has no certificate in secret {name} yet"))?;
        certs::pin(&pem.0).map_err(|error| format!("secret {name}: {error}"))
    }

    async fn auth_url(&self, nodes: &Store<Node>) -> Result<String, String> {
        let name = names::AUTH_SERVICE;
        let service: Option<Service> = self.home.get(&self.namespace, name).await.map_err(|error| told(&error))?;
        endpoint::auth_url(&service.ok_or_else(|| format!("there is no service {name}"))?, &nodes.all())
    }
}

fn told(error: &liqo_kube::KubeError) -> String {
    liqo_kube::chain(error)
}

/// Why a consumer is not wanted.
fn refusal(promise: &Promise, local: &ClusterIdentity, known: &[ForeignCluster]) -> Option<String> {
    if let Some(why) = cluster_id_error(&promise.consumer) {
        return Some(format!("the cluster ID {:?} {why}", promise.consumer));
    }
    if promise.consumer == local.cluster_id {
        return Some("a cluster does not peer with itself".to_owned());
    }
    let one = known.iter().find(|one| id_of(one) == promise.consumer)?;
    liqo_core::decision::refusal(one, true).map(|why| format!("the provider refuses the consumer: {why}"))
}

/// For whom the token for a consumer is.
fn whom<'a>(consumer: &'a str, known: &[ForeignCluster]) -> For<'a> {
    if known.iter().any(|one| id_of(one) == consumer) { For::First } else { For::Guest(consumer) }
}

/// When the token ends, whose reservation ends at `until` (RFC 3339).
fn end(until: &str, now: Timestamp) -> Result<String, String> {
    let until: Timestamp = until.parse().map_err(|error| format!("{until:?} is no time: {error}"))?;
    let longest = now.checked_add(LONGEST).map_err(|error| error.to_string())?;
    Timestamp::from_second(until.min(longest).as_second()).map(|end| end.to_string()).map_err(|error| error.to_string())
}

/// 64 random bytes, as 128 hex digits.
fn new_token() -> Result<String, String> {
    let mut bytes = [0_u8; 64];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "this machine gives no random numbers".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

    fn foreign(incoming: &str) -> ForeignCluster {
        serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster",
            "metadata": {"name": "rome", "labels": {"discovery.liqo.io/cluster-id": ID}},
            "spec": {"clusterIdentity": {"clusterID": ID, "clusterName": "rome"}, "foreignAuthUrl": "https://a.b",
                "incomingPeeringEnabled": incoming}
        }))
        .unwrap()
    }

    #[test]
    fn who_is_not_wanted_is_told_why() {
        let local = ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "milan");
        let refusal = |consumer: &str, known: &[ForeignCluster]| {
            refusal(&Promise { consumer: consumer.into(), ..Promise::default() }, &local, known)
        };
        assert_eq!(refusal(ID, &[]), None);
        assert_eq!(refusal(ID, &[foreign("Auto")]), None);
        assert!(refusal(ID, &[foreign("No")]).is_some());
        assert!(refusal("../x", &[]).is_some() && refusal(&local.cluster_id, &[]).is_some());
    }

    #[test]
    fn a_token_replaces_no_key_of_a_known_cluster() {
        assert!(matches!(whom(ID, &[]), For::Guest(ID)));
        assert!(matches!(whom(ID, &[foreign("Auto")]), For::First));
    }

    #[test]
    fn a_token_ends_with_its_reservation_or_after_an_hour() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(end("2026-01-01T00:10:00Z", now).unwrap(), "2026-01-01T00:10:00Z");
        assert_eq!(end("2026-01-02T00:00:00Z", now).unwrap(), "2026-01-01T01:00:00Z");
        assert!(end("soon", now).is_err());
    }
}
