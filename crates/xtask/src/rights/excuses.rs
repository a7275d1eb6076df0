//! Rights that no story is seen to use, each with the reason why a component has it all the same.

use super::{Power, Right};

/// One excuse.
#[derive(Debug)]
pub(super) struct Excuse {
    /// Whose right; empty: anybody's.
    account: &'static str,
    group: Option<&'static str>,
    /// A resource, or what its name ends with after a `*`.
    resource: &'static str,
    powers: &'static [Power],
    /// For the reader.
    #[expect(dead_code, reason = "a reason is read in this file, and where an excuse is printed")]
    why: &'static str,
}

impl Excuse {
    pub(super) fn covers(&self, (account, group, resource, power): &Right) -> bool {
        let is_about = match self.resource.strip_prefix('*') {
            Some(end) => resource.ends_with(end),
            None => resource == self.resource,
        };
        (self.account.is_empty() || self.account == account)
            && self.group.is_none_or(|one| one == group)
            && is_about
            && self.powers.contains(power)
    }
}

const fn excuse(
    account: &'static str,
    group: Option<&'static str>,
    resource: &'static str,
    powers: &'static [Power],
    why: &'static str,
) -> Excuse {
    Excuse { account, group, resource, powers, why }
}

/// All excuses.
pub(super) const EXCUSES: &[Excuse] = &[
    excuse(
        "network-manager",
        Some("net.liqo.io"),
        "tunnelendpoints/status",
        &[Power::Change],
        "written when no gateway of the cluster is active for 25 s: gateways of stories come back sooner",
    ),
    excuse(
        "metric-agent",
        Some(""),
        "nodes/metrics",
        &[Power::Read],
        "kubelets ask the API server whether the metric agent may read their metrics: the audit log names the kubelet as the user of that review",
    ),
    excuse(
        "gateway",
        Some(""),
        "secrets",
        &[Power::Create],
        "asked for beside the right to change, when the key is made by server-side apply, which the record has as a change",
    ),
    excuse(
        "",
        None,
        "*/finalizers",
        &[Power::Change],
        "asked for by the admission of owner references that block a deletion, where a cluster has it switched on (OpenShift)",
    ),
    excuse(
        "",
        Some("certificates.k8s.io"),
        "signers",
        &[Power::Special],
        "asked for by the admission of an approval, which is in the record",
    ),
    excuse(
        "",
        Some("metrics.liqo.io"),
        "*",
        &[Power::Read],
        "granted to peers, by whom it is used: a component grants only what it has",
    ),
    excuse(
        "",
        Some(""),
        "events",
        &[Power::Create],
        "told when something is wrong: a story in which all is well has none",
    ),
    excuse(
        "",
        Some(""),
        "configmaps",
        &[Power::Create, Power::Change],
        "whoever starts first makes the cluster ID; the others only read it",
    ),
    excuse(
        "",
        Some("coordination.k8s.io"),
        "leases",
        &[Power::Read, Power::Create, Power::Change, Power::Delete],
        "several replicas choose one that decides; stories run one of each but gateways",
    ),
    excuse(
        "controller-manager",
        Some("storage.k8s.io"),
        "storageclasses",
        &[Power::Read],
        "storage classes are offered to peers where a flag says so",
    ),
    excuse(
        "controller-manager",
        Some(""),
        "pods",
        &[Power::Create, Power::Change, Power::Delete],
        "pods of peers: made, changed with their shadow, and freed when a node has failed or a peer holds them",
    ),
    excuse(
        "controller-manager",
        Some(""),
        "secrets",
        &[Power::Delete],
        "tokens that have ended, and keys that are not to be pinned, are removed; a story does not last as long",
    ),
    excuse(
        "controller-manager",
        Some("discovery.k8s.io"),
        "endpointslices",
        &[Power::Delete],
        "endpoints of a peer that are gone while their namespace stays; mostly the namespace takes them along",
    ),
    excuse(
        "controller-manager",
        Some("virtualkubelet.liqo.io"),
        "*",
        &[Power::Create, Power::Change, Power::Delete],
        "what a peer holds with finalizers in a namespace that goes is freed; granted to virtual kubelets of peers",
    ),
    excuse(
        "controller-manager",
        Some("discovery.liqo.io"),
        "foreignclusters",
        &[Power::Delete],
        "one that this cluster made for a peer that introduced itself goes with the peer, if no user has touched it",
    ),
    excuse(
        "virtual-kubelet",
        Some("authentication.k8s.io"),
        "tokenreviews",
        &[Power::Create],
        "a caller of logs or exec may show a token; the API server shows a certificate",
    ),
    excuse(
        "virtual-kubelet",
        Some(""),
        "pods/eviction",
        &[Power::Create],
        "pods that are left on the node of an offer that is withdrawn: a story that unoffloads first has none",
    ),
    excuse(
        "network-manager",
        Some("discovery.liqo.io"),
        "foreignclusters",
        &[Power::Change],
        "written when addresses run out or a peer's networks cannot be used",
    ),
];
