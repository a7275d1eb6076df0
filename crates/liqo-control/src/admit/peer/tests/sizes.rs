//! How large the objects of peers may be.

use super::*;

/// Metadata of a copy.
fn copy(more: Value) -> Value {
    let labels = json!({"liqo.io/originID": PEER, "liqo.io/remoteID": HOME, "liqo.io/replicated": "true"});
    with(&json!({"name": "x", "labels": labels}), &[("annotations", more)])
}

/// Metadata of an object that was reflected.
fn reflected(annotations: Value) -> Value {
    let labels = json!({
        "virtualkubelet.liqo.io/origin": PEER, "endpointslice.kubernetes.io/managed-by": "endpointslice.reflection.liqo.io",
    });
    json!({"name": "x", "labels": labels, "annotations": annotations})
}

fn annotations(count: usize, length: usize) -> Value {
    (0..count).map(|number| (format!("a{number:02}"), json!("x".repeat(length)))).collect()
}

#[test]
fn copies_have_few_labels_and_annotations() {
    let judge = Judge::new();
    let request = |metadata: Value| {
        let spec = json!({"clusterIdentity": {"clusterID": PEER, "clusterName": "consumer"}, "authUrl": "https://a.b"});
        json!({"metadata": metadata, "spec": spec})
    };
    let good = request(copy(annotations(16, 2048)));
    judge.passes_all("the most", "resourcerequests", &good);
    let labels = |count: usize| {
        let labels: Vec<_> = (0..count).map(|number| (format!("metadata|labels|l{number}"), json!("x"))).collect();
        with(&good, &labels.iter().map(|(path, value)| (path.as_str(), value.clone())).collect::<Vec<_>>())
    };
    judge.passes_all("32 labels", "resourcerequests", &labels(29));
    for (what, bad) in [
        ("33 labels", labels(30)),
        ("17 annotations", request(copy(annotations(17, 1)))),
        ("a long annotation", request(copy(annotations(1, 2049)))),
    ] {
        judge.refuses_all(what, "resourcerequests", &good, &bad, "32 labels and 16 annotations");
    }
    let long = with(&good, &[("spec|clusterIdentity|clusterName", json!("n".repeat(254)))]);
    judge.refuses_all("a long name", "resourcerequests", &good, &long, "at most 253");
}

#[test]
fn offers_have_names_as_kubernetes_has_them() {
    let judge = Judge::new();
    let offer = |spec: Value| {
        let mut offer = json!({"metadata": copy(json!({})), "spec": {"clusterId": PEER}});
        json_patch::merge(&mut offer["spec"], &spec);
        offer
    };
    let good =
        offer(json!({"labels": {"a": "x".repeat(63)}, "storageClasses": [{"storageClassName": "x".repeat(253)}]}));
    judge.passes_all("the longest", "resourceoffers", &good);
    for bad in [
        json!({"labels": {"a": "x".repeat(64)}}),
        json!({"labels": {"a".repeat(318): "x"}}),
        json!({"storageClasses": [{"storageClassName": "x".repeat(254)}]}),
    ] {
        judge.refuses_all("longer", "resourceoffers", &good, &offer(bad), "as Kubernetes has them");
    }
}

#[test]
fn shadows_have_short_annotations() {
    let judge = Judge::new();
    // Keys have three characters.
    let shadow = |length: usize| json!({"metadata": reflected(annotations(2, length)), "spec": {"pod": {}}});
    let good = shadow(8192 - 3);
    judge.passes_all("the longest", "shadowpods", &good);
    judge.refuses_all("longer", "shadowpods", &good, &shadow(8193 - 3), "16384 characters");
}

#[test]
fn slices_have_as_many_addresses_and_texts_as_kubernetes_gives_them() {
    let judge = Judge::new();
    let slice = |endpoints: Value, ports: usize| {
        let ports: Value = (0..ports).map(|port| json!({"port": port})).collect();
        let template = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        json!({"metadata": reflected(json!({})), "spec": {"template": template}})
    };
    let pod = json!({"kind": "RemotePod", "namespace": "demo", "name": "p".repeat(100), "uid": "u".repeat(36)});
    let endpoint = |addresses: usize| {
        json!({
            "addresses": vec!["10.0.0.1"; addresses], "conditions": {"ready": true}, "nodeName": "n".repeat(50),
            "zone": "z".repeat(20), "hints": {"forZones": [{"name": "z".repeat(20)}]}, "targetRef": pod,
        })
    };
    let good = slice(vec![endpoint(1); 1000].into(), 100);
    judge.passes_all("1000 endpoints", "shadowendpointslices", &good);
    judge.passes(
        "addresses",
        &asked("shadowendpointslices", Value::Null, slice(vec![endpoint(100); 10].into(), 1)),
        &[],
    );
    for (what, bad, words) in [
        ("addresses", slice(vec![endpoint(101); 10].into(), 1), "1000 addresses in all"),
        ("ports", slice(json!([endpoint(1)]), 101), "100 ports"),
    ] {
        judge.refuses_all(what, "shadowendpointslices", &good, &bad, words);
    }
    let long = "x".repeat(300_000);
    for (field, value) in [
        ("addresses", json!([long])),
        ("hostname", json!(long)),
        ("nodeName", json!(long)),
        ("zone", json!(long)),
        ("deprecatedTopology", json!({"a": long})),
        ("hints", json!({"forZones": [{"name": long}]})),
        ("hints", json!({"forNodes": [{"name": long}]})),
        ("targetRef", json!({ "name": long })),
        ("targetRef", json!({ "namespace": long })),
        ("targetRef", json!({ "uid": long })),
        ("targetRef", json!({ "kind": long })),
        ("targetRef", json!({ "apiVersion": long })),
        ("targetRef", json!({ "resourceVersion": long })),
        ("targetRef", json!({ "fieldPath": long })),
    ] {
        let bad = slice(json!([with(&endpoint(1), &[(field, value)])]), 1);
        judge.refuses_all(field, "shadowendpointslices", &good, &bad, "262144 characters");
    }
}

#[test]
fn contents_are_bounded_and_what_is_too_much_may_become_less() {
    let judge = Judge::new();
    for kind in ["secrets", "configmaps"] {
        let of = |field: &str, length: usize| json!({"metadata": reflected(json!({})), (field): {"k": "x".repeat(length - 1)}});
        for field in ["data", "binaryData"] {
            judge.passes_all("the largest", kind, &of(field, 262_144));
            judge.refuses_all("larger", kind, &of(field, 1), &of(field, 262_145), "peerPolicy.largestObject");
            judge.passes("before the upgrade", &asked(kind, of(field, 300_000), of(field, 299_999)), &[]);
        }
        judge.passes("allowed", &asked(kind, Value::Null, of("data", 300_000)), &[("largestObject", "1000000")]);
        let both = with(&of("data", 200_000), &[("binaryData", json!({"b": "x".repeat(100_000)}))]);
        judge.refuses("both", &asked(kind, Value::Null, both), "peerPolicy.largestObject", &[]);
        judge.passes("nothing", &asked(kind, Value::Null, json!({"metadata": reflected(json!({}))})), &[]);
    }
}
