//! How many jobs and templates there may be: a `ResourceQuota` in their namespace.
//!
//! Kubernetes refuses every job where a quota is as new as the kind that it counts, until it has begun to count, up to a minute after
//! an installation. So the first quota is made in the own namespace, where nobody makes jobs; when Kubernetes counts there, the quota
//! of the jobs is made, and the first one goes. Kubernetes looks at a quota when it is new, and then every five minutes: one that it has
//! looked at without counting is replaced.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{ResourceQuota, ResourceQuotaSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::core::ObjectMeta;
use liqo_kube::{Cluster, KubeError};

use crate::JobsArgs;

/// Name of the quotas.
const NAME: &str = "liqo-jobs";
const JOBS: &str = "count/jobs.jobs.liqo.io";
const TEMPLATES: &str = "count/jobtemplates.jobs.liqo.io";
/// How often Kubernetes is asked whether it counts.
const PAUSE: Duration = Duration::from_secs(3);

/// Makes the quota what the flags say. `Some`: look again then.
pub(crate) async fn keep(cluster: &Cluster, args: &JobsArgs) -> Result<Option<Duration>, KubeError> {
    let (jobs, own) = (&args.namespace, &args.store.own_namespace);
    let hard = hard(args);
    let present = cluster.get::<ResourceQuota>(jobs, NAME).await?;
    let trial = cluster.get::<ResourceQuota>(own, NAME).await?;
    if hard.is_empty() || [&present, &trial].into_iter().flatten().any(|quota| counts(quota, &hard)) {
        match (hard.is_empty(), present) {
            (true, Some(present)) => cluster.remove(&present).await?,
            (true, None) => {}
            (false, _) => drop(cluster.apply(&quota(jobs, hard)).await?),
        }
        if let Some(trial) = trial {
            cluster.remove(&trial).await?;
        }
        return Ok(None);
    }
    if let Some(trial) = trial.filter(is_judged) {
        cluster.remove(&trial).await?;
    }
    cluster.apply(&quota(own, hard)).await?;
    Ok(Some(PAUSE))
}

/// What is limited; 0 is no limit.
fn hard(args: &JobsArgs) -> BTreeMap<String, Quantity> {
    let all = [(JOBS, args.most), (TEMPLATES, args.most_templates)];
    let limited = all.into_iter().filter(|(_, most)| *most > 0);
    limited.map(|(what, most)| (what.to_owned(), Quantity(most.to_string()))).collect()
}

/// Whether Kubernetes counts everything that shall be limited.
fn counts(quota: &ResourceQuota, hard: &BTreeMap<String, Quantity>) -> bool {
    let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
    used.is_some_and(|used| hard.keys().all(|what| used.contains_key(what)))
}

/// Whether Kubernetes has looked at the quota.
fn is_judged(quota: &ResourceQuota) -> bool {
    quota.status.as_ref().is_some_and(|status| status.hard.is_some())
}

fn quota(namespace: &str, hard: BTreeMap<String, Quantity>) -> ResourceQuota {
    ResourceQuota {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ResourceQuotaStatus;

    use super::*;

    fn args(flags: &[&str]) -> JobsArgs {
        clap::Parser::parse_from([&["liqo-jobs"], flags].concat())
    }

    #[test]
    fn jobs_are_limited_unless_somebody_says_otherwise() {
        let limits = |flags: &[&str]| hard(&args(flags)).into_values().map(|most| most.0).collect::<Vec<_>>();
        assert_eq!(limits(&[]), ["2000", "200"]);
        assert_eq!(limits(&["--most=0", "--most-templates=7"]), ["7"]);
        assert!(limits(&["--most=0", "--most-templates=0"]).is_empty());
    }

    #[test]
    fn a_quota_counts_when_kubernetes_says_how_many_there_are() {
        let hard = hard(&args(&[]));
        let mut seen = quota("n", hard.clone());
        assert!(!counts(&seen, &hard) && !is_judged(&seen));
        // What Kubernetes says of a quota of kinds that it does not count yet.
        seen.status = Some(ResourceQuotaStatus { hard: Some(hard.clone()), used: None });
        assert!(!counts(&seen, &hard) && is_judged(&seen));
        let used = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Quantity("0".to_owned()))).collect();
        for (names, counted) in [(&[JOBS][..], false), (&[JOBS, TEMPLATES], true)] {
            seen.status = Some(ResourceQuotaStatus { hard: None, used: Some(used(names)) });
            assert_eq!(counts(&seen, &hard), counted, "{names:?}");
        }
    }
}
