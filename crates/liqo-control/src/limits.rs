//! `ResourceQuota`s in the namespaces of peers: how many objects of each kind there may be. Kubernetes counts, so a quota holds
//! also while the webhook is unreachable.
//!
//! Watches   the `ResourceQuota`s of one name.
//! Writes    the same.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{ResourceQuota, ResourceQuotaSpec},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::ResourceExt;
use liqo_core::quantity::Amount;
use liqo_kube::{Cluster, KubeError, Store, now, twin};

/// The quotas in namespaces made for peers: what a peer may offload.
pub(crate) const OBJECTS: &str = "liqo-objects";
/// The quotas in tenant namespaces: what two clusters exchange about their peering.
pub(crate) const EXCHANGE: &str = "liqo-exchange";
/// Kinds that a peer may create in its tenant namespace. A peering needs two objects of each kind, the original and the copy of
/// each cluster; the quota leaves room for the originals of this cluster when a peer creates more.
const EXCHANGED: [&str; 4] = [
    "count/namespacemaps.virtualkubelet.liqo.io",
    "count/networkconfigs.net.liqo.io",
    "count/resourceoffers.sharing.liqo.io",
    "count/resourcerequests.discovery.liqo.io",
];
/// Objects of each kind in a tenant namespace.
const EXCHANGED_MOST: &str = "16";
/// The quota controller of Kubernetes looks for new kinds every 30 seconds. A quota of a kind that the controller does not know
/// yet stays without a count for minutes, and the API server refuses every object of the kind until there is a count. The
/// kinds of Liqo are installed before this process starts.
const UNTIL_KINDS_ARE_KNOWN: Duration = Duration::from_secs(60);

/// The limits of objects in each namespace that has quotas of one name.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The name of the quotas.
    name: &'static str,
    /// Resource, as a quota names it, and amount.
    counts: Vec<(String, String)>,
    /// From when on (Unix seconds) Kubernetes counts objects of the kinds of custom resources.
    known_from: i64,
}

impl Limits {
    /// The limits in quotas of a name, for a process that started at `started` (Unix seconds).
    pub(crate) fn new(name: &'static str, counts: Vec<(String, String)>, started: i64) -> Self {
        let pause = i64::try_from(UNTIL_KINDS_ARE_KNOWN.as_secs()).unwrap_or_default();
        Self { name, counts, known_from: started.saturating_add(pause) }
    }

    /// The limits of tenant namespaces.
    pub(crate) fn of_exchange(started: i64) -> Self {
        let counts = EXCHANGED.map(|kind| (kind.to_owned(), EXCHANGED_MOST.to_owned()));
        Self::new(EXCHANGE, counts.into(), started)
    }

    /// The quota to write, given the one that is there; `None`: nothing is to be written.
    fn missing(&self, namespace: &str, there: Option<&ResourceQuota>, now: i64) -> Option<ResourceQuota> {
        let hard = there.and_then(|there| there.spec.as_ref()?.hard.as_ref());
        let is_counted =
            |name: &str| now >= self.known_from || !is_custom(name) || hard.is_some_and(|hard| hard.contains_key(name));
        let counted = self.counts.iter().filter(|(name, _)| is_counted(name));
        let hard: BTreeMap<_, _> = counted.map(|(name, count)| (name.clone(), Quantity(count.clone()))).collect();
        let there = there.map(|there| spelled_as(there, &hard));
        let metadata = ObjectMeta {
            name: Some(self.name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        };
        let limits_nothing = hard.is_empty();
        let spec = Some(ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() });
        let wanted = ResourceQuota { metadata, spec, status: None };
        let is_right = there.map_or(limits_nothing, |there| !twin::differs(&wanted, &there));
        (!is_right).then_some(wanted)
    }

    /// Whether a quota has to be written after this change. Every object that comes or goes changes the status of a quota, which
    /// concerns nobody here.
    fn is_breached(&self, before: Option<&ResourceQuota>, after: Option<&ResourceQuota>, now: i64) -> bool {
        let namespace = before.or(after).and_then(ResourceExt::namespace).unwrap_or_default();
        self.missing(&namespace, after, now).is_some()
    }

    /// How long until more kinds are counted.
    pub(crate) fn more_in(&self, now: i64) -> Option<Duration> {
        let has_custom = self.counts.iter().any(|(name, _)| is_custom(name));
        let pause = u64::try_from(self.known_from.saturating_sub(now)).ok()?;
        (has_custom && pause > 0).then(|| Duration::from_secs(pause))
    }
}

/// A quota with its amounts written as in `wanted` where they are the same: the API server writes `1000` as `1k`.
fn spelled_as(quota: &ResourceQuota, wanted: &BTreeMap<String, Quantity>) -> ResourceQuota {
    let mut quota = quota.clone();
    for (name, amount) in quota.spec.iter_mut().flat_map(|spec| spec.hard.iter_mut().flatten()) {
        if let Some(wanted) = wanted.get(name).filter(|wanted| Amount::of(wanted) == Amount::of(amount)) {
            amount.clone_from(wanted);
        }
    }
    quota
}

/// Whether a resource of a quota is the count of a kind that is no part of Kubernetes: `count/shadowpods.virtualkubelet.liqo.io`.
fn is_custom(resource: &str) -> bool {
    let group = resource.strip_prefix("count/").and_then(|kind| kind.split_once('.')).map(|(_, group)| group);
    group.is_some_and(|group| group.contains('.') && !group.ends_with(".k8s.io"))
}

/// The quotas that there are, and the limits.
pub(crate) struct Quotas {
    pub(crate) limits: Limits,
    there: Store<ResourceQuota>,
}

impl Quotas {
    /// Starts watching. `wake` is called with the namespace of a quota that somebody changed or deleted.
    pub(crate) fn watch(cluster: &Cluster, limits: Limits, wake: impl Fn(String) + Send + Sync + 'static) -> Self {
        let trim = |quota: &mut ResourceQuota| quota.status = None;
        let only = format!("metadata.name={}", limits.name);
        let wanted = limits.clone();
        let watch = cluster.watch::<ResourceQuota>("").fields(&only).trim(trim);
        let there = watch.start_with_changes(move |before, after| {
            if wanted.is_breached(before, after, now().0.as_second()) {
                wake(before.or(after).and_then(ResourceExt::namespace).unwrap_or_default());
            }
        });
        Self { limits, there }
    }

    /// Returns when all quotas are known.
    pub(crate) async fn ready(&self) {
        self.there.ready().await;
    }

    /// Limits how many objects there may be in a namespace.
    ///
    /// # Errors
    /// What the API server says.
    pub(crate) async fn limit(&self, cluster: &Cluster, namespace: &str) -> Result<(), KubeError> {
        let there = self.there.get(namespace, self.limits.name);
        match self.limits.missing(namespace, there.as_deref(), now().0.as_second()) {
            Some(wanted) => cluster.apply(&wanted).await.map(drop),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SHADOWS: &str = "count/shadowpods.virtualkubelet.liqo.io";

    fn limits(counts: &[(&str, &str)]) -> Limits {
        Limits::new(
            OBJECTS,
            counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).to_owned())).collect(),
            1000,
        )
    }

    fn hard(quota: Option<ResourceQuota>) -> Option<Value> {
        quota.map(|quota| json!(quota)["spec"]["hard"].take())
    }

    fn there(hard: Value) -> ResourceQuota {
        let managed = hard.as_object().unwrap().keys().map(|key| (format!("f:{key}"), json!({}))).collect::<Value>();
        serde_json::from_value(json!({"metadata": {"name": OBJECTS, "namespace": "demo-x", "managedFields": [
            {"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {"f:hard": managed}}},
        ]}, "spec": {"hard": hard}}))
        .unwrap()
    }

    #[test]
    fn a_quota_has_every_limit_as_soon_as_kubernetes_counts() {
        let all = limits(&[("pods", "1000"), ("requests.storage", "10Ti"), (SHADOWS, "2000")]);
        let few = json!({"pods": "1000", "requests.storage": "10Ti"});
        let stored = json!({"pods": "1k", "requests.storage": "10Ti"});
        let full = json!({"pods": "1000", "requests.storage": "10Ti", (SHADOWS): "2000"});
        for (is, now, wanted) in [
            (None, 1001, Some(&few)),
            (Some(&few), 1001, None),
            // As the API server writes amounts.
            (Some(&stored), 1001, None),
            (Some(&few), 1060, Some(&full)),
            (None, 1060, Some(&full)),
            (Some(&full), 1060, None),
            // After a restart of this process.
            (Some(&full), 1001, None),
            // The quota of an earlier version, one that somebody changed, and one with a limit that was given up.
            (Some(&json!({"pods": "1000"})), 1060, Some(&full)),
            (Some(&json!({"pods": "1", "requests.storage": "10Ti"})), 1001, Some(&few)),
            (
                Some(&json!({"pods": "1000", "requests.storage": "10Ti", (SHADOWS): "2000", "services": "1"})),
                1060,
                Some(&full),
            ),
        ] {
            let is = is.cloned().map(there);
            assert_eq!(hard(all.missing("demo-x", is.as_ref(), now)).as_ref(), wanted, "{is:?} at {now}");
        }
        assert_eq!((all.more_in(1001), all.more_in(1060)), (Some(Duration::from_secs(59)), None));
        assert_eq!(limits(&[("pods", "1")]).more_in(1001), None);
        assert_eq!(hard(limits(&[]).missing("demo-x", None, 1001)), None);
        assert_eq!(hard(limits(&[(SHADOWS, "1")]).missing("demo-x", None, 1001)), None, "a quota without limits");
        let given_up = hard(limits(&[]).missing("demo-x", Some(&there(few)), 1001));
        assert_eq!(given_up, Some(json!({})), "the limits of an earlier setting go");
    }

    #[test]
    fn a_quota_that_is_deleted_or_changed_is_written_again_at_once() {
        let all = limits(&[("pods", "1000"), (SHADOWS, "2000")]);
        let full = there(json!({"pods": "1k", (SHADOWS): "2k"}));
        let emptied = there(json!({}));
        let loosened = there(json!({"pods": "9k", (SHADOWS): "2k"}));
        for (what, before, after, wanted) in [
            ("it comes", None, Some(&full), false),
            ("its status changes", Some(&full), Some(&full), false),
            ("it is deleted", Some(&full), None, true),
            ("it is emptied", Some(&full), Some(&emptied), true),
            ("it is loosened", Some(&full), Some(&loosened), true),
            ("it is repaired", Some(&loosened), Some(&full), false),
        ] {
            assert_eq!(all.is_breached(before, after, 1060), wanted, "{what}");
        }
        assert!(!limits(&[]).is_breached(Some(&full), None, 1060), "nothing is limited");
    }

    #[test]
    fn kinds_of_kubernetes_are_counted_at_once() {
        for (resource, custom) in [
            ("pods", false),
            ("requests.storage", false),
            ("count/deployments.apps", false),
            ("count/ingresses.networking.k8s.io", false),
            ("count/configmaps", false),
            (SHADOWS, true),
            ("count/certificates.cert-manager.io", true),
        ] {
            assert_eq!(is_custom(resource), custom, "{resource}");
        }
    }

    #[test]
    fn what_is_exchanged_leaves_room_for_both_clusters() {
        let all = Limits::of_exchange(1000);
        let limits = hard(all.missing("liqo-tenant-x", None, 1060)).unwrap();
        let kinds: Vec<_> = limits.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(kinds, EXCHANGED);
        assert!(limits.as_object().unwrap().values().all(|most| most == "16"), "{limits}");
        assert_eq!(hard(all.missing("liqo-tenant-x", None, 1001)), None, "kinds that Kubernetes may not count yet");
    }
}
