//! What a virtual kubelet may do: in its own cluster, and in the namespaces a provider made for it.

use super::{CHANGE, RO, RW, Rule, STATUS, named, rule};

/// In its own cluster: it reads pods, wherever they are, and asks who wants logs or a shell. Whatever else it does with pods,
/// and what it reads besides pods, it does only where [`NAMESPACE`] is bound; pods of its node in other namespaces are looked
/// after by the controller manager (`offload/stray.rs`). What it may do with its node and the node's lease
/// the controller manager grants by name (`offload/virtual_kubelet/node.rs`); that a node or lease it makes is its own,
/// and the pods it writes are on its node, is checked at admission (`door/nodes.rs` of `liqo-core`).
pub(super) const CLUSTER: &[Rule] = &[
    rule("", &["events"], &["create"]),
    // Which authorities sign the certificates of who asks for logs or a shell?
    named("", &["configmaps"], &["extension-apiserver-authentication"], RO),
    rule("", &["nodes"], &["get", "list", "watch", "create"]),
    rule("", &["pods"], RO),
    // Whose addresses are still translated for the peer, when the process starts?
    rule("", &["services"], &["list"]),
    rule("net.liqo.io", &["natmappings"], RO),
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    rule("certificates.k8s.io", &["certificatesigningrequests"], &["get", "list", "watch", "create"]),
    rule("coordination.k8s.io", &["leases"], &["create"]),
];

/// The same as the version before bound it, with every node. It is there for virtual kubelets that the controller manager
/// has not seen yet since an upgrade, and for a rollback; the controller manager takes its bindings away. It holds the role
/// itself, so it may grant single nodes.
pub(super) const LOCAL: &[Rule] = &[
    rule("", &["events"], &["create", "patch"]),
    rule("events.k8s.io", &["events"], &["create", "patch"]),
    // To read the authorities that sign client certificates for the kubelet API.
    named("", &["configmaps"], &["extension-apiserver-authentication"], RO),
    rule("", &["nodes", "nodes/status"], RW),
    rule("", &["pods"], &["get", "list", "watch", "delete"]),
    rule("", &["pods/eviction"], &["create"]),
    rule("", &["pods/status"], &["get", "update", "patch"]),
    // Whose addresses are still translated for the peer, when the process starts?
    rule("", &["services"], &["list"]),
    rule("net.liqo.io", &["natmappings"], RO),
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    rule("certificates.k8s.io", &["certificatesigningrequests"], &["get", "list", "watch", "create"]),
    rule("coordination.k8s.io", &["leases"], &["get", "create", "update", "patch", "delete"]),
];

/// In the tenant namespace of its provider.
pub(super) const TENANT: &[Rule] = &[
    rule("", &["secrets"], RO),
    rule("net.liqo.io", &["tunnelendpoints"], RO),
    rule("sharing.liqo.io", &["resourceoffers"], CHANGE),
    rule("virtualkubelet.liqo.io", &["namespacemaps"], RO),
];

/// Rights in each namespace that is offloaded to the provider.
pub(super) const NAMESPACE: &[Rule] = &[
    rule("", &["configmaps", "secrets", "services"], RO),
    // It changes no pod: the mark of a pod is written with the status.
    rule("", &["pods"], &["delete"]),
    rule("", &["pods/eviction"], &["create"]),
    rule("", &["pods/status"], STATUS),
    rule("", &["serviceaccounts/token"], &["create"]),
    rule("discovery.k8s.io", &["endpointslices"], RO),
    rule("networking.k8s.io", &["ingresses"], RO),
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
