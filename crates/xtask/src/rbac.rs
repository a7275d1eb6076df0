//! Who may do what: one table of rules for each role.
//!
//! Keeps true: what peers are granted is exactly what Liqo 0.8.3 grants them, since their components
//! rely on it; our own components get what they call and no more. Wherever a component may `update`
//! it may `patch`, because everything is written with server-side apply or patches.

mod components;
mod peers;
mod virtual_kubelet;

use serde_json::{Map, Value, json};

/// Reading.
const RO: &[&str] = &["get", "list", "watch"];
/// Reading and writing single objects.
const RW: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
/// Everything.
const ALL: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// Reading and changing, but neither making nor removing.
const CHANGE: &[&str] = &["get", "list", "watch", "update", "patch"];
/// Writing a status; it is read with its object.
const STATUS: &[&str] = &["update", "patch"];

/// One rule of a role.
pub struct Rule {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resources, with their subresources.
    pub resources: &'static [&'static str],
    /// Names the rule is limited to; none means every one.
    pub names: &'static [&'static str],
    /// What may be done.
    pub verbs: &'static [&'static str],
}

impl Rule {
    /// The rule as Kubernetes writes it.
    pub fn to_json(&self) -> Value {
        let mut rule = Map::from_iter([
            ("apiGroups".to_owned(), json!([self.group])),
            ("resources".to_owned(), json!(self.resources)),
            ("verbs".to_owned(), json!(self.verbs)),
        ]);
        if !self.names.is_empty() {
            rule.insert("resourceNames".to_owned(), json!(self.names));
        }
        Value::Object(rule)
    }
}

/// A rule for every object of the resources.
const fn rule(group: &'static str, resources: &'static [&'static str], verbs: &'static [&'static str]) -> Rule {
    Rule { group, resources, names: &[], verbs }
}

/// A rule for single objects.
const fn named(
    group: &'static str,
    resources: &'static [&'static str],
    names: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule { group, resources, names, verbs }
}

/// Name of the file to its rules; `.namespaced` ones hold in the Liqo namespace only, `.own` ones in that of the role,
/// `.tenant` ones in tenant namespaces.
pub fn all() -> Vec<(&'static str, &'static [Rule])> {
    vec![
        ("agent", components::AGENT),
        ("agent.namespaced", components::AGENT_NAMESPACED),
        ("auth", components::AUTH),
        ("broker", components::BROKER),
        ("controller-manager", components::CONTROLLER_MANAGER),
        ("controller-manager.namespaced", components::CONTROLLER_MANAGER_NAMESPACED),
        ("crd-replicator", components::CRD_REPLICATOR),
        ("crd-replicator.namespaced", components::CRD_REPLICATOR_NAMESPACED),
        ("crd-replicator.tenant", components::CRD_REPLICATOR_TENANT),
        ("gateway", components::GATEWAY),
        ("gateway.namespaced", components::GATEWAY_NAMESPACED),
        ("gateway.segregation", components::GATEWAY_SEGREGATION),
        ("jobs", components::JOBS),
        ("jobs-api", components::JOBS_API),
        ("jobs-api.legacy", components::JOBS_API_LEGACY),
        ("jobs-api.own", components::JOBS_API_OWN),
        ("jobs-api.reviews", components::JOBS_API_REVIEWS),
        ("jobs.own", components::JOBS_OWN),
        ("metric-agent", components::METRIC_AGENT),
        ("network-manager", components::NETWORK_MANAGER),
        ("network-manager.namespaced", components::NETWORK_MANAGER_NAMESPACED),
        ("remote-peering-basic", peers::BASIC),
        ("remote-peering-incoming", peers::INCOMING),
        ("remote-peering-leaving", peers::LEAVING),
        ("remote-peering-outgoing", peers::OUTGOING),
        ("route", components::ROUTE),
        ("route.namespaced", components::ROUTE_NAMESPACED),
        ("status", components::STATUS_PAGE),
        ("status.namespaced", components::STATUS_PAGE_NAMESPACED),
        ("virtual-kubelet-cluster", virtual_kubelet::CLUSTER),
        ("virtual-kubelet-local", virtual_kubelet::LOCAL),
        ("virtual-kubelet-namespace", virtual_kubelet::NAMESPACE),
        ("virtual-kubelet-remote", virtual_kubelet::REMOTE),
        ("virtual-kubelet-tenant", virtual_kubelet::TENANT),
    ]
}
