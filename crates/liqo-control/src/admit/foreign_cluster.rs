//! `ForeignCluster`s: labelled with the peer's ID, and what identifies the peer never changes. A ban is written on its
//! `ForeignCluster`, which is therefore not deleted while it bans.

use liqo_api::meta::{annotation, label};
use liqo_core::decision;
use serde_json::{Value, json};

use super::review::{Request, Verdict, label_of, one_of, text};

const ID: &str = "/spec/clusterIdentity/clusterID";
const NAME: &str = "/spec/clusterIdentity/clusterName";
const TYPE: &str = "/spec/peeringType";
const ENABLED: &[&str] = &["Auto", "No", "Yes"];

/// Adds the label by which everything finds the peer, as soon as its ID is known.
pub(super) fn mutate(object: &Value) -> Verdict {
    let id = text(object, ID);
    if id.is_empty() || label_of(object, label::CLUSTER_ID) == id {
        return Verdict::allow();
    }
    let operation = if object.pointer("/metadata/labels").is_some_and(Value::is_object) {
        let path = format!("/metadata/labels/{}", label::CLUSTER_ID.replace('/', "~1"));
        json!({"op": "add", "path": path, "value": id})
    } else {
        json!({"op": "add", "path": "/metadata/labels", "value": {label::CLUSTER_ID: id}})
    };
    Verdict::Allow { patch: vec![operation], warnings: vec![] }
}

/// Whether a change is one that can be made.
pub(super) fn validate(asked: &Request) -> Verdict {
    let (old, new) = (&asked.old_object, &asked.object);
    if asked.operation == "DELETE" {
        return deletion(old);
    }
    let choices = [
        (TYPE, &["OutOfBand", "InBand"][..]),
        ("/spec/outgoingPeeringEnabled", ENABLED),
        ("/spec/incomingPeeringEnabled", ENABLED),
    ];
    for (pointer, allowed) in choices {
        if let Err(why) = one_of(new, pointer, allowed) {
            return Verdict::deny(why);
        }
    }
    if let Some(why) = condition_error(old, new) {
        return Verdict::deny(why);
    }
    let changed = |pointer| !text(old, pointer).is_empty() && text(old, pointer) != text(new, pointer);
    for (pointer, what) in [(TYPE, "PeeringType"), (ID, "ClusterID"), (NAME, "ClusterName")] {
        if asked.operation == "UPDATE" && changed(pointer) {
            return Verdict::deny(format!("The {what} value cannot be modified after creation"));
        }
    }
    Verdict::allow()
}

/// Why the condition of the tenant cannot be written, if it cannot. A condition that stays as it was is no reason to refuse a
/// change of something else.
fn condition_error(old: &Value, new: &Value) -> Option<String> {
    let found = condition(new).filter(|found| !found.is_empty() && condition(old) != Some(found))?;
    (!decision::CONDITIONS.contains(&found)).then(|| {
        let known = decision::CONDITIONS.map(|one| format!("{one:?}")).join(", ");
        let key = annotation::TENANT_CONDITION;
        format!("metadata.annotations[{key}]: Unsupported value: {found:?}: supported values: {known}")
    })
}

fn condition(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(annotation::TENANT_CONDITION)?.as_str()
}

/// Whether a `ForeignCluster` may be deleted: without it nobody would know that its cluster is banned.
fn deletion(old: &Value) -> Verdict {
    if condition(old) != Some(decision::BANNED) {
        return Verdict::allow();
    }
    let name = text(old, "/metadata/name");
    Verdict::deny(format!(
        "the cluster {name:?} is banned, and its ForeignCluster keeps the ban: `liqoctl uncordon tenant {name}` lifts the \
         ban, then the ForeignCluster can be deleted"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_outlives_the_wish_to_delete_it() {
        let delete = |condition: Value| {
            let annotations = json!({"liqo.io/tenant-condition": condition});
            let old = json!({"metadata": {"name": "turin", "annotations": annotations}});
            validate(&Request { operation: "DELETE".to_owned(), old_object: old, ..Request::default() })
        };
        let Verdict::Deny { message, .. } = delete(json!("Banned")) else { panic!("the ban is lost") };
        assert!(message.contains("liqoctl uncordon tenant turin"), "{message}");
        for condition in [json!("Drained"), json!("Cordoned"), Value::Null] {
            assert_eq!(delete(condition), Verdict::allow());
        }
        let none = Request { operation: "DELETE".to_owned(), ..Request::default() };
        assert_eq!(validate(&none), Verdict::allow());
    }

    fn object(kind: &str, id: &str, name: &str) -> Value {
        json!({"metadata": {"name": "x"}, "spec": {
            "peeringType": kind, "clusterIdentity": {"clusterID": id, "clusterName": name},
        }})
    }

    fn update(old: Value, new: Value) -> Verdict {
        validate(&Request { operation: "UPDATE".to_owned(), object: new, old_object: old, ..Request::default() })
    }

    #[test]
    fn what_identifies_a_peer_is_set_once() {
        let old = || object("OutOfBand", "id", "milan");
        assert_eq!(update(old(), old()), Verdict::allow());
        assert_eq!(update(object("OutOfBand", "", ""), old()), Verdict::allow());
        assert_eq!(update(json!({"spec": {}}), old()), Verdict::allow());
        for (new, what) in [
            (object("InBand", "id", "milan"), "PeeringType"),
            (object("OutOfBand", "other", "milan"), "ClusterID"),
            (object("OutOfBand", "id", "rome"), "ClusterName"),
            (object("OutOfBand", "", "milan"), "ClusterID"),
        ] {
            let wanted = Verdict::deny(format!("The {what} value cannot be modified after creation"));
            assert_eq!(update(old(), new), wanted);
        }
    }

    #[test]
    fn a_wrong_choice_is_explained() {
        let mut new = object("OutOfBand", "id", "milan");
        new["spec"]["outgoingPeeringEnabled"] = json!("Maybe");
        let Verdict::Deny { message, .. } = update(object("OutOfBand", "id", "milan"), new) else { panic!() };
        assert_eq!(
            message,
            "spec.outgoingPeeringEnabled: Unsupported value: \"Maybe\": supported values: \"Auto\", \"No\", \"Yes\""
        );
    }

    #[test]
    fn a_misspelt_condition_is_refused_when_it_is_written() {
        let with = |condition: &str| {
            let mut one = object("OutOfBand", "id", "milan");
            one["metadata"]["annotations"] = json!({"liqo.io/tenant-condition": condition});
            one
        };
        let plain = || object("OutOfBand", "id", "milan");
        for good in ["Cordoned", "Drained", "Banned", ""] {
            assert_eq!(update(plain(), with(good)), Verdict::allow(), "{good}");
        }
        for bad in ["cordoned", "Baned", " "] {
            let Verdict::Deny { message, .. } = update(plain(), with(bad)) else { panic!("{bad} is taken") };
            let wanted = "supported values: \"Cordoned\", \"Drained\", \"Banned\"";
            assert!(message.contains(&format!("{bad:?}")) && message.contains(wanted), "{message}");
            assert_eq!(update(with(bad), with(bad)), Verdict::allow(), "other changes go on");
            assert_eq!(update(with(bad), plain()), Verdict::allow(), "it can be taken away");
            let create = Request { operation: "CREATE".to_owned(), object: with(bad), ..Request::default() };
            assert!(matches!(validate(&create), Verdict::Deny { .. }), "{bad} is created");
        }
    }

    #[test]
    fn the_label_follows_the_identity() {
        let op = |object: &Value| match mutate(object) {
            Verdict::Allow { patch, .. } => patch.first().cloned(),
            Verdict::Deny { .. } => panic!("denied"),
        };
        let mut one = object("OutOfBand", "id", "milan");
        assert_eq!(
            op(&one),
            Some(json!({"op": "add", "path": "/metadata/labels", "value": {"discovery.liqo.io/cluster-id": "id"}}))
        );
        one["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(
            op(&one),
            Some(json!({"op": "add", "path": "/metadata/labels/discovery.liqo.io~1cluster-id", "value": "id"}))
        );
        one["metadata"]["labels"] = json!({"discovery.liqo.io/cluster-id": "id"});
        assert_eq!(op(&one), None);
        assert_eq!(op(&object("OutOfBand", "", "")), None);
    }
}
