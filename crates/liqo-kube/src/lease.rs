//! Being the only one: a leader elected by a `Lease`, as Kubernetes components do it.
//!
//! Guarantee: two holders of the same lease act at the same time only if clocks run at rates that
//! differ by more than the ratio of lease duration to renewal deadline. A holder that cannot renew
//! ends its process; it does not go on in the hope of the best.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{ResourceExt, core::ObjectMeta};
use serde_json::json;
use tokio::time::Instant;

use crate::{Cluster, KubeError, life::Life};

const DURATION: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Waits until the lease `namespace/name` is held by `holder`, then keeps it for as long as the process lives.
pub async fn lead(cluster: &Cluster, life: &Life, namespace: &str, name: &str, holder: &str) {
    let mut rival = Rival::default();
    loop {
        match attempt(cluster, namespace, name, holder, &mut rival).await {
            Ok(true) => break,
            Ok(false) => tracing::debug!(lease = name, "held by another replica"),
            Err(error) => tracing::warn!(lease = name, error = %error, "lease not taken"),
        }
        tokio::time::sleep(RETRY).await;
    }
    tracing::info!(lease = name, holder, "leading");
    let (cluster, namespace, name, holder) =
        (cluster.clone(), namespace.to_owned(), name.to_owned(), holder.to_owned());
    life.spawn("lease", async move {
        let mut renewed = Instant::now();
        let mut rival = Rival::default();
        while renewed.elapsed() < DEADLINE {
            tokio::time::sleep(RETRY).await;
            let attempt = attempt(&cluster, &namespace, &name, &holder, &mut rival);
            match tokio::time::timeout(DEADLINE.saturating_sub(renewed.elapsed()), attempt).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!(lease = name, error = %error, "lease not renewed"),
                Err(_) => {}
            }
        }
        tracing::error!(lease = name, "no longer leading");
    });
}

/// Gives the lease back at the end of a process, so that another replica need not wait until it has run out.
pub async fn release(cluster: &Cluster, namespace: &str, name: &str, holder: &str) {
    let outcome = async {
        let Some(lease) = cluster.get::<Lease>(namespace, name).await? else { return Ok(()) };
        if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(holder) {
            return Ok(());
        }
        let meta = json!({"resourceVersion": lease.resource_version()});
        cluster.merge(&lease, json!({"metadata": meta, "spec": {"holderIdentity": ""}})).await.map(drop)
    };
    if let Err(error) = outcome.await {
        let error: &KubeError = &error;
        tracing::debug!(lease = name, error = %error, "lease not given back");
    }
}

/// What was last seen of another holder, by our own clock.
#[derive(Debug, Default)]
struct Rival {
    version: String,
    since: Option<Instant>,
}

impl Rival {
    /// Whether the lease has not moved for its whole duration.
    fn expired(&mut self, version: Option<String>, duration: Duration) -> bool {
        let version = version.unwrap_or_default();
        match self.since {
            Some(since) if self.version == version => since.elapsed() > duration,
            _ => {
                *self = Self { version, since: Some(Instant::now()) };
                false
            }
        }
    }
}

async fn attempt(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    holder: &str,
    rival: &mut Rival,
) -> Result<bool, KubeError> {
    let now = MicroTime(Timestamp::now());
    let seconds = i32::try_from(DURATION.as_secs()).expect("a few seconds");
    let Some(lease) = cluster.get::<Lease>(namespace, name).await? else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(seconds),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        };
        return match cluster.create(&lease).await {
            Err(error) if error.is_conflict() => Ok(false),
            other => other.map(|_| true),
        };
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let mine = spec.holder_identity.as_deref() == Some(holder);
    let free = spec.holder_identity.as_deref().unwrap_or_default().is_empty();
    let theirs = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(seconds)).unwrap_or(15));
    if !mine && !free && !rival.expired(lease.resource_version(), theirs) {
        return Ok(false);
    }
    let mut new = json!({"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": now});
    if !mine {
        new["acquireTime"] = json!(now);
        new["leaseTransitions"] = json!(spec.lease_transitions.unwrap_or_default() + 1);
    }
    let patch = json!({"metadata": {"resourceVersion": lease.resource_version()}, "spec": new});
    match cluster.merge(&lease, patch).await {
        Err(error) if error.is_conflict() => Ok(false),
        other => other.map(|_| true),
    }
}
