//! Volumes: what passes the profile holds no volume of another kind than those of the list.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Volume, VolumeProjection};
use liqo_core::door;

use super::*;

const PEER: &str = "09897b82-7830-483b-b786-9cf90899f809";

/// The refusals of a pod with these volumes, in a cluster whose settings were changed so.
fn with(args: &GuestArgs, volumes: Value, changed: &[(&str, &str)]) -> Vec<String> {
    let mut settings: Value = door::SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    changed.iter().for_each(|(key, value)| settings[*key] = json!(value));
    let meta = serde_json::from_value(json!({"labels": {"virtualkubelet.liqo.io/origin": PEER}})).unwrap();
    let pod = serde_json::from_value(json!({"containers": [{"name": "c"}], "volumes": volumes})).unwrap();
    violations(args, Some(&settings), &meta, &pod)
}

/// The fields of a type that this build knows, from its schema.
fn known<T: schemars::JsonSchema>() -> BTreeSet<String> {
    let schema = schemars::schema_for!(T);
    let all: BTreeSet<_> = schema.get("properties").and_then(Value::as_object).unwrap().keys().cloned().collect();
    assert!(all.len() > 5, "{all:?}");
    all
}

#[test]
fn what_passes_holds_no_volume_of_another_kind() {
    let given = ["configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"];
    let args = GuestArgs::default();
    let kinds: BTreeSet<_> = known::<Volume>().into_iter().filter(|one| one != "name").collect();
    assert!(given.iter().all(|one| kinds.contains(*one)), "{kinds:?}");
    for kind in &kinds {
        let alone = json!([{"name": "v", kind: {}}]);
        let passes = given.contains(&kind.as_str());
        assert_eq!(with(&args, alone.clone(), &[]).is_empty(), passes, "{kind}");
        for hiding in given {
            let beside = json!([{"name": "a", hiding: {}}, {"name": "v", kind: {}}]);
            let inside = json!([{"name": "v", hiding: {}, kind: {}}]);
            for volumes in [beside, inside] {
                assert_eq!(with(&args, volumes, &[]).is_empty(), passes, "{kind} with {hiding}");
            }
        }
        let privileged = GuestArgs { guest_privileged: true, ..GuestArgs::default() };
        let more = GuestArgs { guest_volumes: vec![kind.clone()], ..GuestArgs::default() };
        for args in [privileged, more] {
            assert_eq!(with(&args, alone.clone(), &[]).is_empty(), kind != "ephemeral", "{kind}, which was given");
        }
    }
    for unknown in [json!([{"name": "v"}]), json!([{"name": "v", "kindOfTomorrow": {"path": "/"}}])] {
        assert!(with(&args, unknown, &[])[0].contains("no kind that this version"));
    }
}

#[test]
fn projected_volumes_hold_objects_of_their_namespace() {
    let given = ["configMap", "downwardAPI", "secret"];
    for source in known::<VolumeProjection>() {
        let volumes = json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "x"}}, { &source: {} }]}}]);
        for privileged in [false, true] {
            let args = GuestArgs { guest_privileged: privileged, ..GuestArgs::default() };
            let all = with(&args, volumes.clone(), &[]);
            assert_eq!(all.is_empty(), given.contains(&source.as_str()), "{source}: {all:?}");
        }
    }
    let unknown = json!([{"name": "v", "projected": {"sources": [{"sourceOfTomorrow": {}}]}}]);
    assert_eq!(with(&GuestArgs::default(), unknown, &[]).len(), 1);
}

#[test]
fn a_pod_brings_along_what_its_peer_could_claim_itself() {
    let resources = json!({"requests": {"storage": "1Gi"}});
    let template = |metadata: Value, spec: Value| {
        let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": resources});
        json_patch::merge(&mut whole, &spec);
        json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": metadata, "spec": whole}}}])
    };
    let plain = || json!({"labels": {"type": "scratch"}});
    let fast = || json!({"storageClassName": "fast"});
    let args = GuestArgs::default();
    for (metadata, spec, changed, words) in [
        (plain(), fast(), None, None),
        (Value::Null, json!({}), None, None),
        (plain(), json!({"volumeName": "pv-of-another", "storageClassName": ""}), None, Some("names no volume")),
        (plain(), json!({"selector": {"matchLabels": {"a": "b"}}}), None, Some("names no volume")),
        (plain(), json!({"dataSource": {"kind": "VolumeSnapshot", "name": "x"}}), None, Some("names no volume")),
        (plain(), json!({"dataSourceRef": {"kind": "VolumeSnapshot", "name": "x"}}), None, Some("names no volume")),
        (plain(), json!({"storageClassName": ""}), None, Some("peerPolicy.storageClasses")),
        (plain(), fast(), Some("slow fast"), None),
        (plain(), fast(), Some("slow"), Some("peerPolicy.storageClasses")),
        (plain(), json!({}), Some("slow"), Some("names no storage class")),
        (json!({"labels": {"liqo.io/shadowPod": "true"}}), fast(), None, Some("steer the components")),
        (
            json!({"annotations": {"replicator.v1.mittwald.de/replicate-to": ".*"}}),
            fast(),
            None,
            Some("peerPolicy.deniedMetadata"),
        ),
    ] {
        let changed: Vec<_> = changed.map(|classes| ("storageClasses", classes)).into_iter().collect();
        let all = with(&args, template(metadata.clone(), spec.clone()), &changed);
        match words {
            None => assert_eq!(all, [""; 0], "{metadata} {spec}"),
            Some(words) => assert!(all.len() == 1 && all[0].contains(words), "{metadata} {spec}: {all:?}"),
        }
    }
    let pod = serde_json::from_value(json!({"containers": [], "volumes": template(plain(), fast())})).unwrap();
    let without_settings = violations(&args, None, &ObjectMeta::default(), &pod);
    assert!(without_settings[0].contains("liqo-peer-policy"), "{without_settings:?}");
}
