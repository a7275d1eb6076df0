//! What a virtual kubelet may do: in its own cluster, and in the namespaces a provider made for it.

use super::{CHANGE, RO, RW, Rule, rule};

/// In its own cluster.
pub(super) const LOCAL: &[Rule] = &[
    rule("", &["configmaps", "namespaces", "services", "services/status"], RO),
    rule("", &["secrets"], &["get", "list", "watch", "create", "update", "patch"]),
    rule("", &["events"], &["create", "patch"]),
    rule("events.k8s.io", &["events"], &["create", "patch"]),
    rule("", &["nodes", "nodes/status"], RW),
    rule("", &["persistentvolumes", "persistentvolumeclaims"], RW),
    rule("", &["pods"], &["get", "list", "watch", "update", "patch", "delete"]),
    rule("", &["pods/eviction", "serviceaccounts/token"], &["create"]),
    rule("", &["pods/status"], RW),
    // Who asks for logs or a shell?
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    rule("certificates.k8s.io", &["certificatesigningrequests"], &["get", "list", "watch", "create"]),
    rule("coordination.k8s.io", &["leases"], &["get", "create", "update", "patch", "delete"]),
    rule("discovery.k8s.io", &["endpointslices"], RO),
    rule("discovery.liqo.io", &["foreignclusters", "foreignclusters/status"], RO),
    rule("net.liqo.io", &["natmappings", "tunnelendpoints"], RO),
    rule("networking.k8s.io", &["ingresses"], RO),
    rule("sharing.liqo.io", &["resourceoffers"], &["get", "list", "watch", "update", "patch", "delete"]),
    rule("sharing.liqo.io", &["resourceoffers/status"], CHANGE),
    rule("storage.k8s.io", &["storageclasses"], RO),
    rule("virtualkubelet.liqo.io", &["namespacemaps"], RO),
];

/// In the namespaces a provider made for its cluster. Exactly as in Liqo 0.8.3: it is bound by the provider.
pub(super) const REMOTE: &[Rule] = &[
    rule("", &["configmaps", "secrets", "services"], RW),
    rule("", &["persistentvolumeclaims"], RW),
    rule("", &["pods"], RO),
    rule("", &["pods/attach", "pods/exec"], &["create"]),
    rule("", &["pods/log"], &["get", "list"]),
    rule("", &["pods/portforward"], &["create", "get"]),
    rule("metrics.k8s.io", &["pods"], RO),
    rule("networking.k8s.io", &["ingresses"], RW),
    rule("virtualkubelet.liqo.io", &["shadowpods", "shadowendpointslices"], RW),
];
