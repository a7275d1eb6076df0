//! What a role cannot say of a virtual kubelet: the Node and the lease it makes are its own, and so is the node of a pod that the
//! virtual kubelet changes or removes.
//!
//! Its own is the node that the virtual kubelet has the right to change: the controller manager makes a role with the name of that
//! node. Roles bound in namespaces say in which namespaces a virtual kubelet writes pods. An eviction names a pod and no node, so
//! no rule is about evictions.

use super::{Place, Rule, Validation};

/// The Node and the lease have the name of the node.
const NAMED: (&str, &str) = (super::NODE, "request.name");

const OWN: Validation = Validation {
    expression: "variables.own",
    message: "a virtual kubelet writes its own node, the lease of that node and the pods on that node only",
};

/// Kubernetes keeps the leases of nodes in one namespace.
const LEASES: Validation = Validation {
    expression: "request.namespace == 'kube-node-lease'",
    message: "a virtual kubelet writes the lease of its node in the namespace kube-node-lease only",
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "nodes",
        place: Place::Node,
        resources: &[("", &["nodes"])],
        operations: &["CREATE"],
        settings: false,
        variables: &[NAMED],
        validations: &[OWN],
    },
    Rule {
        name: "leases",
        place: Place::Node,
        resources: &[("coordination.k8s.io", &["leases"])],
        operations: &["CREATE"],
        settings: false,
        variables: &[NAMED],
        validations: &[OWN, LEASES],
    },
    // The webhook that replaces this rule before Kubernetes 1.30 fails open (`webhooks.yaml` of the chart).
    Rule {
        name: "renewals",
        place: Place::Node,
        resources: &[("coordination.k8s.io", &["leases"])],
        operations: &["UPDATE", "DELETE"],
        settings: false,
        variables: &[NAMED],
        validations: &[OWN, LEASES],
    },
    Rule {
        name: "pods",
        place: Place::Node,
        resources: &[("", &["pods", "pods/status"])],
        operations: &["UPDATE", "DELETE"],
        settings: false,
        variables: &[(super::NODE, "has(oldObject.spec.nodeName) ? oldObject.spec.nodeName : ''")],
        validations: &[OWN],
    },
];
