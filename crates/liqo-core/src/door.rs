//! What a peer, a virtual kubelet and a component that answers strangers may write in this cluster: one table of rules in CEL, the language of Kubernetes' own
//! admission policies.
//!
//! A peer is whoever is in the group [`GROUP`]; its user name is its cluster ID. A virtual kubelet is the account of that name
//! in a tenant namespace. The chart renders the table as `ValidatingAdmissionPolicy` objects; where the cluster has none, our
//! webhook evaluates the same text. Hence an expression uses only what both know: `has`, `all`, `exists`, `in`, `matches`,
//! `startsWith`, `endsWith`, `split`, `map`, `sum` of whole numbers, `size`, `int`, lists and maps.
//!
//! Keeps true: every call that the components of Liqo 0.8.3 make with a peer's identity passes with the default
//! [`SETTINGS`], except those the settings are about (types of Services, hosts of Ingresses, copied annotations).
//! `object` is null for `DELETE` and `oldObject` for `CREATE`; an expression that cannot be evaluated is a refusal.

mod components;
mod copies;
mod nodes;
mod reflected;

use serde_json::{Value, json};

/// The group of all peers' identities.
pub const GROUP: &str = "liqo.io";
/// The `ConfigMap` in the Liqo namespace that loosens or tightens the rules.
pub const POLICY: &str = "liqo-peer-policy";
/// Condition under which a request is judged as a peer's.
pub const CONDITION: &str = "has(request.userInfo.groups) && 'liqo.io' in request.userInfo.groups";
/// Condition under which a request is judged as a virtual kubelet's.
pub const KUBELET_CONDITION: &str =
    "request.userInfo.username.matches('^system:serviceaccount:liqo-tenant-[^:]+:virtual-kubelet$')";

/// Condition under which a request is judged as a component's.
const COMPONENT_CONDITION: &str =
    "request.userInfo.username.matches('^system:serviceaccount:[^:]+:liqo-(gateway|network-manager)$')";

/// Key of the [`POLICY`]: the types of Services for peers.
pub const SERVICE_TYPES: &str = "allowedServiceTypes";
/// Keys of the [`POLICY`] with their defaults. A list is one text with single spaces between its items; `*` stands for every
/// item.
pub const SETTINGS: &[(&str, &str)] = &[
    ("namespacesPerPeer", "64"),
    ("largestObject", "262144"),
    (SERVICE_TYPES, "ClusterIP"),
    ("allowedExternalIPs", ""),
    ("ingressHostSuffixes", ""),
    ("ingressClasses", "*"),
    ("ingressAnnotations", "kubectl.kubernetes.io/ meta.helm.sh/"),
    ("storageClasses", "*"),
    ("deniedMetadata", "reflector.v1.k8s.emberstack.com/ replicator.v1.mittwald.de/ kubed.appscode.com/"),
];

/// Variables that every rule for peers may use, by name. A variable may use those listed before it.
pub const VARIABLES: &[(&str, &str)] = &[
    ("labels", "object != null && has(object.metadata.labels) ? object.metadata.labels : {}"),
    ("oldLabels", "oldObject != null && has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}"),
    ("annotations", "object != null && has(object.metadata.annotations) ? object.metadata.annotations : {}"),
    ("finalizers", "object != null && has(object.metadata.finalizers) ? object.metadata.finalizers : []"),
    ("oldFinalizers", "oldObject != null && has(oldObject.metadata.finalizers) ? oldObject.metadata.finalizers : []"),
    ("owners", "object != null && has(object.metadata.ownerReferences) ? object.metadata.ownerReferences : []"),
    (
        "oldOwners",
        "oldObject != null && has(oldObject.metadata.ownerReferences) ? oldObject.metadata.ownerReferences : []",
    ),
];

/// The variable of a rule for virtual kubelets that names a node.
pub const NODE: &str = "node";
/// The variable of a rule for virtual kubelets that is true where the requester has the right to change the [`NODE`].
pub const OWN: &str = "own";
/// [`OWN`] in an admission policy. Our webhook asks the API server for the same right.
const IS_OWN: &str = "variables.node != '' && \
                      authorizer.group('').resource('nodes').name(variables.node).check('update').allowed()";

/// In which namespaces a rule has work, and so whose requests the rule judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Tenant namespaces: objects that two clusters exchange about their peering.
    Tenant,
    /// Namespaces made for a peer: the objects that the peer offloads.
    Offloaded,
    /// Everywhere: what a virtual kubelet writes about the node that the variable [`NODE`] names.
    Node,
    /// Everywhere: what a gateway or the network manager changes.
    Component,
}

impl Place {
    /// Name and text of the condition under which a request is judged; all other requests skip the rules.
    #[must_use]
    pub fn condition(self) -> (&'static str, &'static str) {
        match self {
            Self::Tenant | Self::Offloaded => ("is-a-peer", CONDITION),
            Self::Node => ("is-a-virtual-kubelet", KUBELET_CONDITION),
            Self::Component => ("is-a-component", COMPONENT_CONDITION),
        }
    }

    /// The message to a refused user: who was refused, and the reason.
    #[must_use]
    pub fn refusal(self, user: &str, message: &str) -> String {
        format!("{}{user}: {message}", self.title())
    }

    /// What a user is called in front of the user name.
    fn title(self) -> &'static str {
        match self {
            Self::Tenant | Self::Offloaded => "cluster ",
            Self::Node | Self::Component => "",
        }
    }
}

/// What is asked of requests for some kinds.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name, a DNS label.
    pub name: &'static str,
    /// Where.
    pub place: Place,
    /// API groups, each with its resources and subresources.
    pub resources: &'static [(&'static str, &'static [&'static str])],
    /// `CREATE`, `UPDATE`, `DELETE`.
    pub operations: &'static [&'static str],
    /// Whether an expression uses `variables.settings`, the [`POLICY`].
    pub settings: bool,
    /// More variables, for peers beside [`VARIABLES`].
    pub variables: &'static [(&'static str, &'static str)],
    /// The conditions that a request must meet, each with the reason of its refusal.
    pub validations: &'static [Validation],
}

/// A condition that a request must meet, and the reason of its refusal.
#[derive(Clone, Copy, Debug)]
pub struct Validation {
    /// CEL: a boolean.
    pub expression: &'static str,
    /// The reason and the remedy. Without quotes and backslashes, because the text becomes a CEL literal.
    pub message: &'static str,
}

/// All rules for peers.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    copies::RULES.iter().chain(reflected::RULES)
}

/// All rules for virtual kubelets.
pub fn kubelet_rules() -> impl Iterator<Item = &'static Rule> {
    nodes::RULES.iter()
}

/// All rules for components. Only policies judge by them.
pub fn component_rules() -> impl Iterator<Item = &'static Rule> {
    components::RULES.iter()
}

impl Rule {
    /// The variables of the rule, in the order of their making, without [`OWN`].
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let common = if self.place == Place::Node { &[] } else { VARIABLES };
        common.iter().chain(self.variables).copied()
    }

    /// Whether the rule judges such a request; `resource` has the subresource after a slash.
    #[must_use]
    pub fn is_about(&self, group: &str, resource: &str, operation: &str) -> bool {
        self.operations.contains(&operation)
            && self.resources.iter().any(|(of, all)| *of == group && all.contains(&resource))
    }

    /// The `spec` of the `ValidatingAdmissionPolicy`. Where the rule has settings, the chart puts them before the other
    /// variables. They are no `params`: while those are missing, or not read yet, everybody would be refused, since they
    /// are looked for before the condition.
    #[must_use]
    pub fn policy(&self) -> Value {
        let own = (self.place == Place::Node).then_some((OWN, IS_OWN));
        let variables = self.variables().chain(own);
        let variables = variables.map(|(name, expression)| json!({"name": name, "expression": expression}));
        let (name, condition) = self.place.condition();
        let user = match self.place.title() {
            "" => "request.userInfo.username".to_owned(),
            title => format!("'{title}' + request.userInfo.username"),
        };
        let validations = self.validations.iter().map(|validation| {
            let Validation { expression, message } = validation;
            json!({
                "expression": expression,
                "message": message,
                "messageExpression": format!("{user} + ': {message}'"),
                "reason": "Forbidden",
            })
        });
        json!({
            "failurePolicy": "Fail",
            "matchConditions": [{"name": name, "expression": condition}],
            "matchConstraints": {"resourceRules": self.resource_rules()},
            "variables": variables.collect::<Vec<_>>(),
            "validations": validations.collect::<Vec<_>>(),
        })
    }

    /// The rules of a webhook or a policy: which requests are judged.
    #[must_use]
    pub fn resource_rules(&self) -> Vec<Value> {
        let rule = |(group, resources): &(&str, &[&str])| {
            let operations = self.operations;
            json!({"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": resources})
        };
        self.resources.iter().map(rule).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_messages_are_plain() {
        let mut names = BTreeSet::new();
        for rule in rules().chain(kubelet_rules()).chain(component_rules()) {
            assert!(names.insert(rule.name), "{} twice", rule.name);
            assert!(!rule.validations.is_empty(), "{}", rule.name);
            for Validation { message, .. } in rule.validations {
                assert!(!message.contains(['\'', '\\', '"']) && message.len() > 20, "{}: {message}", rule.name);
            }
        }
    }

    #[test]
    fn a_rule_that_uses_settings_says_so_and_uses_known_ones() {
        for rule in rules() {
            let texts = rule.validations.iter().map(|one| one.expression).chain(rule.variables.iter().map(|one| one.1));
            let used: Vec<_> = texts.flat_map(|text| text.split("variables.settings.").skip(1)).collect();
            assert_eq!(rule.settings, !used.is_empty(), "{}", rule.name);
            for text in used {
                let key: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
                assert!(SETTINGS.iter().any(|(known, _)| *known == key), "{}: {key}", rule.name);
            }
        }
    }

    #[test]
    fn a_rule_is_found_by_group_resource_and_operation() {
        let about = |group, resource, operation| -> Vec<&str> {
            rules().filter(|rule| rule.is_about(group, resource, operation)).map(|rule| rule.name).collect()
        };
        assert_eq!(about("discovery.liqo.io", "resourcerequests", "DELETE"), ["copies"]);
        assert_eq!(about("discovery.liqo.io", "resourcerequests/status", "UPDATE"), ["status"]);
        assert_eq!(about("", "services", "UPDATE"), ["reflected", "services"]);
        assert!(about("apps", "deployments", "CREATE").is_empty());
    }

    /// The texts of the rules and the keys that components write are the same.
    #[test]
    fn rules_for_components_name_the_keys_of_the_components() {
        let keys = ["net.liqo.io/gateway", "net.liqo.io/gatewayNodeIP", liqo_api::meta::annotation::NETWORK_PROBLEM];
        for (rule, key) in component_rules().zip(keys) {
            let key = format!("k == '{key}'");
            assert_eq!(rule.validations[0].expression.matches(&key).count(), 2, "{}", rule.name);
            assert_eq!((rule.place, rule.operations), (Place::Component, &["UPDATE"][..]), "{}", rule.name);
        }
    }

    #[test]
    fn every_rule_for_virtual_kubelets_names_a_node_and_asks_whose_it_is() {
        for rule in kubelet_rules() {
            assert_eq!((rule.place, rule.settings, rule.variables[0].0), (Place::Node, false, NODE), "{}", rule.name);
            assert_eq!(rule.validations[0].expression, "variables.own", "{}", rule.name);
            let policy = rule.policy();
            let last = policy["variables"].as_array().and_then(|all| all.last()).expect("variables");
            assert_eq!((&last["name"], &last["expression"]), (&json!(OWN), &json!(IS_OWN)), "{}", rule.name);
        }
    }
}
