//! The rules for peers in the form the chart reads: each rule with its policy, and with the webhook that replaces the policy on
//! older clusters.

use liqo_core::door::{self, Place};
use serde_json::{Value, json};

/// One entry for each rule.
pub fn rules() -> Value {
    let entry = |rule: &door::Rule| {
        let place = match rule.place {
            Place::Tenant => "tenant",
            Place::Offloaded => "offloaded",
        };
        json!({"name": rule.name, "place": place, "settings": rule.settings, "policy": rule.policy()})
    };
    door::rules().map(entry).collect()
}

/// The requests that are judged at all.
pub fn condition() -> Value {
    json!([{"name": "is-a-peer", "expression": door::CONDITION}])
}

#[cfg(test)]
mod tests {
    use liqo_core::door;

    use crate::rbac;

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
}
