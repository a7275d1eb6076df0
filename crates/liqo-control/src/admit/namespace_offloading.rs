//! `NamespaceOffloading`s: one for each namespace, whose remote names never change.

use k8s_openapi::api::core::v1::NodeSelector;
use liqo_api::{ClusterIdentity, names, offloading::NamespaceMappingStrategy};
use liqo_core::{mapping, naming, selector};
use serde_json::Value;

use super::review::{Request, Verdict, one_of, text};

const MAPPING: &str = "/spec/namespaceMappingStrategy";
const STRATEGY: &str = "/spec/podOffloadingStrategy";
const RESTRICTED: &str = "The PodOffloadingStrategy was mutated to a more restrictive setting: existing pods \
                          violating this policy might still be running";

/// Whether an offloading is one we can follow, and what the user should know. `liqo` is the Liqo namespace.
pub(super) fn validate(asked: &Request, own: &ClusterIdentity, liqo: &str) -> Verdict {
    let (old, new) = (&asked.old_object, &asked.object);
    // What is ending must be able to end, whatever it looks like.
    if new.pointer("/metadata/deletionTimestamp").is_some() {
        return Verdict::allow();
    }
    if text(new, "/metadata/name") != names::NAMESPACE_OFFLOADING {
        return Verdict::deny("NamespaceOffloading name must match offloading");
    }
    // An offloading from before this rule may go on until it is deleted: only CREATE is judged.
    if asked.operation == "CREATE" && (mapping::stays_here(&asked.namespace) || asked.namespace == liqo) {
        return Verdict::deny(format!(
            "The namespace {:?} belongs to Kubernetes or to Liqo: its pods, Secrets and Services stay in this cluster",
            asked.namespace
        ));
    }
    let choices =
        [(MAPPING, &["EnforceSameName", "DefaultName"][..]), (STRATEGY, &["Local", "Remote", "LocalAndRemote"][..])];
    for (pointer, allowed) in choices {
        if let Err(why) = one_of(new, pointer, allowed) {
            return Verdict::deny(why);
        }
    }
    let update = asked.operation == "UPDATE";
    if update && or(text(old, MAPPING), "DefaultName") != or(text(new, MAPPING), "DefaultName") {
        return Verdict::deny("The NamespaceMappingStrategy value cannot be modified after creation");
    }
    let mut warnings = vec![];
    let strategy = or(text(new, STRATEGY), "LocalAndRemote");
    if update && strategy != "LocalAndRemote" && strategy != or(text(old, STRATEGY), "LocalAndRemote") {
        warnings.push(RESTRICTED.to_owned());
    }
    warnings.extend(name_warning(asked, own));
    warnings.extend(selector_warning(new));
    Verdict::Allow { patch: vec![], warnings }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// Providers cannot make a namespace with such a name.
fn name_warning(asked: &Request, own: &ClusterIdentity) -> Option<String> {
    let same = text(&asked.object, MAPPING) == "EnforceSameName";
    let strategy = if same { NamespaceMappingStrategy::EnforceSameName } else { NamespaceMappingStrategy::DefaultName };
    let remote = naming::remote_namespace(&asked.namespace, own, strategy);
    let why = naming::dns_label_error(&remote)?;
    Some(format!("The name of the remote namespaces, {remote:?}, {why}: no remote namespace can be created"))
}

/// Clusters cannot be selected with it.
fn selector_warning(object: &Value) -> Option<String> {
    let selector = object.pointer("/spec/clusterSelector").filter(|selector| !selector.is_null())?;
    let why = match serde_json::from_value::<NodeSelector>(selector.clone()) {
        Ok(selector) => selector::error(&selector)?.to_string(),
        Err(error) => error.to_string(),
    };
    Some(format!("Invalid ClusterSelector: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(operation: &str, old: Value, new: Value) -> Request {
        Request {
            operation: operation.to_owned(),
            namespace: "demo".to_owned(),
            object: json!({"metadata": {"name": "offloading"}, "spec": new}),
            old_object: json!({"metadata": {"name": "offloading"}, "spec": old}),
            ..Request::default()
        }
    }

    fn own() -> ClusterIdentity {
        ClusterIdentity::new("09897b82", "consumer")
    }

    fn warnings(request: &Request) -> Vec<String> {
        match validate(request, &own(), "liqo") {
            Verdict::Allow { warnings, .. } => warnings,
            Verdict::Deny { message, .. } => panic!("{message}"),
        }
    }

    #[test]
    fn there_is_one_name() {
        let mut request = asked("CREATE", Value::Null, json!({}));
        assert_eq!(validate(&request, &own(), "liqo"), Verdict::allow());
        request.object["metadata"]["name"] = json!("another");
        assert_eq!(validate(&request, &own(), "liqo"), Verdict::deny("NamespaceOffloading name must match offloading"));
        request.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(validate(&request, &own(), "liqo"), Verdict::allow());
    }

    #[test]
    fn namespaces_of_the_system_stay_here() {
        let mut request = asked("CREATE", Value::Null, json!({}));
        for (namespace, refused) in [
            ("kube-system", true),
            ("kube-x", true),
            ("liqo", true),
            ("liqo-storage", true),
            ("liqo-tenant-milan-ca6261", true),
            ("liqo-demo", false),
            ("kubernetes", false),
        ] {
            namespace.clone_into(&mut request.namespace);
            let verdict = validate(&request, &own(), "liqo");
            assert_eq!(matches!(verdict, Verdict::Deny { code: 403, .. }), refused, "{namespace}: {verdict:?}");
        }
        let mut request = asked("UPDATE", json!({}), json!({}));
        "kube-system".clone_into(&mut request.namespace);
        assert_eq!(validate(&request, &own(), "liqo"), Verdict::allow(), "one of before");
    }

    #[test]
    fn remote_names_do_not_change() {
        let (same, default) = (
            json!({"namespaceMappingStrategy": "EnforceSameName"}),
            json!({"namespaceMappingStrategy": "DefaultName"}),
        );
        let no = Verdict::deny("The NamespaceMappingStrategy value cannot be modified after creation");
        assert_eq!(validate(&asked("UPDATE", same.clone(), default.clone()), &own(), "liqo"), no);
        assert_eq!(validate(&asked("UPDATE", json!({}), default), &own(), "liqo"), Verdict::allow());
        assert_eq!(validate(&asked("CREATE", Value::Null, same), &own(), "liqo"), Verdict::allow());
    }

    #[test]
    fn a_stricter_strategy_is_warned_about() {
        let strategy = |name: &str| json!({"podOffloadingStrategy": name});
        for (old, new, warned) in [
            ("LocalAndRemote", "Local", true),
            ("LocalAndRemote", "Remote", true),
            ("Local", "Remote", true),
            ("Remote", "Local", true),
            ("Remote", "LocalAndRemote", false),
            ("Remote", "Remote", false),
        ] {
            let said = warnings(&asked("UPDATE", strategy(old), strategy(new)));
            assert_eq!(said, if warned { vec![RESTRICTED] } else { vec![] }, "{old} {new}");
        }
    }

    #[test]
    fn what_will_not_work_is_said_at_once() {
        let mut request = asked("CREATE", Value::Null, json!({}));
        request.namespace = "n".repeat(60);
        assert!(warnings(&request)[0].contains("is longer than 63 characters"));
        let selector = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Like"}]}]});
        let request = asked("CREATE", Value::Null, json!({ "clusterSelector": selector }));
        assert!(warnings(&request)[0].starts_with("Invalid ClusterSelector: "));
        let request = asked("CREATE", Value::Null, json!({"podOffloadingStrategy": "Everywhere"}));
        let Verdict::Deny { message, .. } = validate(&request, &own(), "liqo") else { panic!("allowed") };
        assert!(message.contains("podOffloadingStrategy") && message.contains("\"LocalAndRemote\""), "{message}");
    }
}
