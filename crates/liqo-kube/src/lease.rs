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
/// The longest duration that is believed: no process of the product writes a longer one.
const LONGEST: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);

/// Waits until the lease `namespace/name` is held by `holder`, then keeps it for as long as the process lives.
pub async fn lead(cluster: &Cluster, life: &Life, namespace: &str, name: &str, holder: &str) {
    let mut rival = Stillness::default();
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
        let mut rival = Stillness::default();
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
pub async fn release(cluster: &Cluster, namespace: &str, name: &str, me: &str) {
    let outcome = async {
        let Some(lease) = cluster.get::<Lease>(namespace, name).await? else { return Ok(()) };
        if holder(Some(&lease)) != me {
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

/// For how long a lease has not moved, by our own clock: those of others may be wrong.
#[derive(Debug, Default)]
pub struct Stillness {
    version: Option<String>,
    since: Option<Instant>,
}

impl Stillness {
    /// Looks at the lease (none: there is none); zero when it has moved since the last look.
    pub fn of(&mut self, lease: Option<&Lease>) -> Duration {
        let version = lease.and_then(ResourceExt::resource_version);
        match self.since {
            Some(since) if self.version == version => since.elapsed(),
            _ => {
                *self = Self { version, since: Some(Instant::now()) };
                Duration::ZERO
            }
        }
    }
}

/// Who holds a lease; nobody: an empty text.
pub fn holder(lease: Option<&Lease>) -> &str {
    lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref()).unwrap_or_default()
}

/// Makes the lease, takes it or renews it for `me`: whatever leads there from `seen`.
///
/// # Errors
/// A conflict when it is no longer as it was seen; what the API server says.
pub async fn hold(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    seen: Option<&Lease>,
    me: &str,
    duration: Duration,
) -> Result<(), KubeError> {
    let now = MicroTime(Timestamp::now());
    let seconds = i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let Some(seen) = seen else {
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
        let spec = LeaseSpec {
            holder_identity: Some(me.to_owned()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        return cluster.create(&Lease { metadata, spec: Some(spec) }).await.map(drop);
    };
    let mut spec = json!({"holderIdentity": me, "leaseDurationSeconds": seconds, "renewTime": now});
    if holder(Some(seen)) != me {
        let transitions = seen.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
        spec["acquireTime"] = json!(now);
        spec["leaseTransitions"] = json!(transitions.saturating_add(1));
    }
    let patch = json!({"metadata": {"resourceVersion": seen.resource_version()}, "spec": spec});
    cluster.merge(seen, patch).await.map(drop)
}

async fn attempt(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    me: &str,
    rival: &mut Stillness,
) -> Result<bool, KubeError> {
    let lease = cluster.get::<Lease>(namespace, name).await?;
    let theirs = lease.as_ref().and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds);
    let theirs =
        theirs.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs).min(LONGEST);
    let still = rival.of(lease.as_ref());
    let is_others = !["", me].contains(&holder(lease.as_ref()));
    if is_others && still <= theirs {
        return Ok(false);
    }
    match hold(cluster, (namespace, name), lease.as_ref(), me, DURATION).await {
        Err(error) if error.is_conflict() => Ok(false),
        other => other.map(|()| true),
    }
}
