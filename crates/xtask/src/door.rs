//! The rules for peers, virtual kubelets and components in the form the chart reads: each rule with its policy, and with the webhook that
//! replaces the policy on older clusters.

use liqo_core::door::{self, Place};
use serde_json::{Value, json};

/// One entry for each rule.
pub fn entries(rules: impl Iterator<Item = &'static door::Rule>) -> Value {
    let entry = |rule: &door::Rule| {
        let place = match rule.place {
            Place::Tenant => "tenant",
            Place::Offloaded => "offloaded",
            Place::Node => "node",
            Place::Component => "component",
        };
        json!({"name": rule.name, "place": place, "settings": rule.settings, "policy": rule.policy()})
    };
    rules.map(entry).collect()
}

/// The requests of peers that are judged at all.
pub fn condition() -> Value {
    let (name, expression) = Place::Tenant.condition();
    json!([{"name": name, "expression": expression}])
}

#[cfg(test)]
mod tests {
    use liqo_core::door;

    use crate::rbac;

    /// Rights of the roles of virtual kubelets over nodes, leases and pods that no rule is about: an eviction names no node.
    const UNJUDGED: &[&str] = &["pods/eviction"];

    /// Rights that no rule is about: a stream to a container has no object that could be looked at. The role is bound in
    /// the peer's own namespaces only.
    const STREAMS: &[&str] = &["pods/attach", "pods/exec", "pods/portforward"];

    #[test]
    fn whatever_a_peer_has_the_right_to_write_is_judged() {
        let roles = rbac::all().into_iter().filter(|(name, _)| name.contains("remote"));
        let rights = roles.flat_map(|(name, rules)| rules.iter().map(move |rule| (name, rule)));
        let mut count = 0;
        for (role, rule) in rights {
            for resource in rule.resources.iter().filter(|resource| !STREAMS.contains(resource)) {
                let may = |verb| rule.verbs.contains(&verb);
                let operations = [
                    ("CREATE", may("create")),
                    ("UPDATE", may("update") || may("patch")),
                    ("DELETE", may("delete") || may("deletecollection")),
                ];
                // A status cannot be deleted.
                let possible = operations
                    .into_iter()
                    .filter(|(operation, _)| !resource.ends_with("/status") || *operation != "DELETE");
                for (operation, _) in possible.filter(|(_, may)| *may) {
                    let judged = door::rules().any(|one| one.is_about(rule.group, resource, operation));
                    assert!(judged, "{role}: {operation} {resource} of {:?}", rule.group);
                    count += 1;
                }
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn whatever_components_that_answer_strangers_change_of_others_is_judged() {
        for rule in door::component_rules() {
            let (group, resources) = rule.resources[0];
            let roles = rbac::all()
                .into_iter()
                .filter(|(name, _)| name.starts_with("gateway") || name.starts_with("network-manager"));
            let rights = roles.flat_map(|(_, rules)| rules.iter());
            let changes = |one: &&rbac::Rule| {
                one.group == group && one.resources.contains(&resources[0]) && one.verbs.contains(&"patch")
            };
            assert_eq!(rights.filter(changes).count(), 1, "{}", rule.name);
        }
    }

    #[test]
    fn whatever_a_virtual_kubelet_has_the_right_to_write_of_nodes_and_pods_is_judged() {
        let ours = ["virtual-kubelet-cluster", "virtual-kubelet-namespace", "virtual-kubelet-tenant"];
        let roles = rbac::all().into_iter().filter(|(name, _)| ours.contains(name));
        let rights = roles.flat_map(|(name, rules)| rules.iter().map(move |rule| (name, rule)));
        let mut judged = Vec::new();
        for (role, rule) in rights {
            let is_about =
                |one: &&&str| ["nodes", "leases", "pods"].contains(&one.split('/').next().unwrap_or_default());
            for resource in rule.resources.iter().filter(is_about).filter(|one| !UNJUDGED.contains(one)) {
                let may = |verbs: &[&str]| verbs.iter().any(|verb| rule.verbs.contains(verb));
                let operations = [
                    ("CREATE", may(&["create"])),
                    ("UPDATE", may(&["update", "patch"])),
                    ("DELETE", may(&["delete", "deletecollection"])),
                ];
                for (operation, _) in operations.into_iter().filter(|(_, may)| *may) {
                    let by = door::kubelet_rules().filter(|one| one.is_about(rule.group, resource, operation)).count();
                    assert_eq!(by, 1, "{role}: {operation} {resource} of {:?}", rule.group);
                    judged.push(format!("{operation} {resource}"));
                }
            }
        }
        let wanted = ["CREATE nodes", "CREATE leases", "DELETE pods", "UPDATE pods/status"];
        assert!(wanted.iter().all(|one| judged.iter().any(|is| is == one)), "{judged:?}");
    }
}
