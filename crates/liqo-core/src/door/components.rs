//! What a role cannot say of the components that answer strangers: a gateway, which takes packets from anybody, and the network
//! manager, which answers pods, change one label or annotation of an object each. Their right to patch would let them change the
//! image of another component, or the decision of a user about a peer.
//!
//! Webhooks do not replace these rules on clusters without policies: a process that was taken over is not what a peer can write.

use super::{Place, Rule, Validation};

/// Nothing of an object changes but this annotation.
macro_rules! only_annotation {
    ($key:literal) => {
        concat!(
            "object.spec == oldObject.spec && variables.labels == variables.oldLabels && ",
            "variables.annotations.all(k, k == '",
            $key,
            "' || k in variables.oldAnnotations && variables.oldAnnotations[k] == variables.annotations[k]) && ",
            "variables.oldAnnotations.all(k, k == '",
            $key,
            "' || k in variables.annotations)"
        )
    };
}

const OLD_ANNOTATIONS: (&str, &str) =
    ("oldAnnotations", "has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}");

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "pods-of-gateways",
        place: Place::Component,
        resources: &[("", &["pods"])],
        operations: &["UPDATE"],
        settings: false,
        variables: &[OLD_ANNOTATIONS],
        validations: &[Validation {
            expression: "object.spec == oldObject.spec && variables.annotations == variables.oldAnnotations && \
                         variables.labels.all(k, k == 'net.liqo.io/gateway' || k in variables.oldLabels && \
                         variables.oldLabels[k] == variables.labels[k]) && variables.oldLabels.all(k, k == \
                         'net.liqo.io/gateway' || k in variables.labels)",
            message: "of a pod, a component of the networks changes the label net.liqo.io/gateway only",
        }],
    },
    Rule {
        name: "gateway-service",
        place: Place::Component,
        resources: &[("", &["services"])],
        operations: &["UPDATE"],
        settings: false,
        variables: &[OLD_ANNOTATIONS],
        validations: &[Validation {
            expression: only_annotation!("net.liqo.io/gatewayNodeIP"),
            message: "of a Service, a component of the networks changes the annotation net.liqo.io/gatewayNodeIP only",
        }],
    },
    Rule {
        name: "network-problems",
        place: Place::Component,
        resources: &[("discovery.liqo.io", &["foreignclusters"])],
        operations: &["UPDATE"],
        settings: false,
        variables: &[OLD_ANNOTATIONS],
        validations: &[Validation {
            expression: only_annotation!("net.liqo.io/problem"),
            message: "of a ForeignCluster, a component of the networks changes the annotation net.liqo.io/problem only",
        }],
    },
];
