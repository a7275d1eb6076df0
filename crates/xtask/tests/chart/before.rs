//! What an upgrade finds: every object that the chart of the version before the rules for peers rendered (`before/421c5f7.yaml`) is
//! rendered still, and what must not change in it has not.

use serde_json::{Value, json};

use super::helm::{Objects, read};
use crate::with;

/// Objects that an upgrade takes away.
const GONE: [(&str, &str); 2] = [
    ("Role/liqo-auth", "the authentication service reads and writes no Secret any more"),
    ("RoleBinding/liqo-auth", "the authentication service reads and writes no Secret any more"),
];

/// Fields that an upgrade keeps, by kind: Kubernetes refuses to change them, or peers and users rely on them.
const KEPT: [(&str, &[&str]); 9] = [
    ("ConfigMap", &["/data"]),
    ("DaemonSet", &["/spec/selector", "/spec/template/metadata/labels", "/spec/template/spec/serviceAccountName"]),
    (
        "Deployment",
        &[
            "/spec/selector",
            "/spec/replicas",
            "/spec/template/metadata/labels",
            "/spec/template/spec/serviceAccountName",
        ],
    ),
    ("Service", &["/spec/type", "/spec/selector", "/spec/ports"]),
    ("ServiceAccount", &["/metadata/labels"]),
    ("ClusterRoleBinding", &["/roleRef"]),
    ("RoleBinding", &["/roleRef"]),
    ("MutatingWebhookConfiguration", &["/metadata/annotations"]),
    ("ValidatingWebhookConfiguration", &["/metadata/annotations"]),
];

fn before() -> Objects {
    read(include_str!("before/421c5f7.yaml"))
}

#[test]
fn an_upgrade_takes_away_what_the_table_says() {
    let (before, now) = (before(), with(&[]));
    let gone: Vec<_> = before.keys().filter(|name| !now.contains_key(*name)).map(String::as_str).collect();
    assert_eq!(gone, GONE.map(|(name, _)| name));
    assert!(before.len() > 50, "{} objects before", before.len());
}

#[test]
fn an_upgrade_keeps_what_cannot_change() {
    let (before, now) = (before(), with(&[]));
    for (name, old) in before {
        let Some(new) = now.get(&name) else { continue };
        let kind = name.split('/').next().unwrap_or_default();
        for field in KEPT.iter().filter(|(of, _)| *of == kind).flat_map(|(_, fields)| *fields) {
            assert_eq!(new.pointer(field), old.pointer(field), "{name}: {field}");
        }
        for meta in ["apiVersion", "kind"] {
            assert_eq!(new[meta], old[meta], "{name}");
        }
        assert_eq!(new["metadata"]["namespace"], old["metadata"]["namespace"], "{name}");
    }
}

#[test]
fn an_upgrade_keeps_ports_and_their_names() {
    let (before, now) = (before(), with(&[]));
    // The metrics of the controller manager moved to the port of its health.
    let moved = ("Deployment/liqo-controller-manager", json!(8080));
    for (name, old) in before.iter().filter(|(name, _)| name.starts_with("D")) {
        let ports = |object: &Value| {
            object["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().cloned().unwrap_or_default()
        };
        let new = ports(&now[name]);
        for port in ports(old).into_iter().filter(|port| (name.as_str(), &port["containerPort"]) != (moved.0, &moved.1))
        {
            assert!(new.contains(&port), "{name}: {port} is not among {new:?}");
        }
    }
}
