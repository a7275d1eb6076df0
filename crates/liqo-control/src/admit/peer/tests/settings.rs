//! Every setting decides: there is a request that another value of the setting admits and the default refuses, or the reverse.

use std::collections::BTreeSet;

use super::*;

/// A setting and another value than the default; resource and fields of an object that is created; whether the default admits it.
type Case = (&'static str, &'static str, &'static str, Value, bool);

fn cases() -> Vec<Case> {
    let ingress = |class: &str| json!({"spec": {"ingressClassName": class, "rules": [{"host": "shop.peer.example"}]}});
    let annotated = with(&ingress("internal"), &[("metadata", json!({"annotations": {"nginx.example/snippet": "x"}}))]);
    let copied = json!({"metadata": {"annotations": {"copier.example/to": "*"}}});
    let claim = json!({"spec": {"storageClassName": "slow", "resources": {"requests": {"storage": "1Mi"}}}});
    let external = json!({"spec": {"externalIPs": ["192.0.2.1"]}});
    vec![
        (
            "namespacesPerPeer",
            "1",
            "namespacemaps",
            json!({"spec": {"desiredMapping": {"a": "a-x", "b": "b-x"}}}),
            true,
        ),
        ("largestObject", "1024", "configmaps", json!({"data": {"a": "x".repeat(2000)}}), true),
        ("allowedServiceTypes", "ClusterIP NodePort", "services", json!({"spec": {"type": "NodePort"}}), false),
        ("allowedExternalIPs", "192.0.2.1", "services", external, false),
        ("ingressHostSuffixes", "peer.example", "ingresses", ingress("internal"), false),
        ("ingressClasses", "public", "ingresses", ingress("internal"), true),
        ("ingressAnnotations", "nginx.example/", "ingresses", annotated, false),
        ("storageClasses", "fast", "persistentvolumeclaims", claim, true),
        ("deniedMetadata", "copier.example/", "configmaps", copied, true),
    ]
}

#[test]
fn every_setting_decides() {
    let judge = Judge::new();
    for (key, other, resource, fields, admitted) in cases() {
        // Hosts are of no interest where another setting is.
        let host: &[_] = if key == "ingressHostSuffixes" { &[] } else { &[("ingressHostSuffixes", "peer.example")] };
        let labels = json!({
            "virtualkubelet.liqo.io/origin": PEER, "liqo.io/originID": PEER, "liqo.io/remoteID": HOME, "liqo.io/replicated": "true",
        });
        let labels = labels
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| key.starts_with("liqo.io/") == (resource == "namespacemaps"));
        let mut object = fields;
        object["metadata"]["labels"] = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
        let asked = asked(resource, Value::Null, object);
        let changed = [host, &[(key, other)]].concat();
        let (admits, refuses) = if admitted { (host, &*changed) } else { (&*changed, host) };
        judge.passes(key, &asked, admits);
        let words =
            if key == "namespacesPerPeer" { "offloading.namespacesPerPeer" } else { &*format!("peerPolicy.{key}") };
        judge.refuses(key, &asked, words, refuses);
    }
    let known: BTreeSet<_> = door::SETTINGS.iter().map(|(key, _)| *key).collect();
    assert_eq!(cases().iter().map(|(key, ..)| *key).collect::<BTreeSet<_>>(), known);
}
