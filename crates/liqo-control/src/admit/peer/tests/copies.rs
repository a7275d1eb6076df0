use super::*;

fn meta(labels: Value) -> Value {
    let mut all = json!({
        "liqo.io/originID": PEER, "liqo.io/remoteID": HOME, "liqo.io/replicated": "true", "liqo.io/replication": "false",
    });
    for (key, value) in labels.as_object().unwrap() {
        all[key] = value.clone();
    }
    json!({"name": "x", "namespace": "liqo-tenant-consumer-ed03b8", "labels": all})
}

fn request() -> Value {
    json!({
        "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ResourceRequest", "metadata": meta(json!({})),
        "spec": {
            "authUrl": "https://172.30.0.11:32378", "clusterIdentity": {"clusterID": PEER, "clusterName": "consumer"},
        },
    })
}

fn offer() -> Value {
    json!({
        "apiVersion": "sharing.liqo.io/v1alpha1", "kind": "ResourceOffer",
        "metadata": meta(json!({"discovery.liqo.io/cluster-id": HOME})),
        "spec": {
            "clusterId": PEER, "labels": {"liqo.io/provider": "kubeadm"},
            "resourceQuota": {"hard": {"cpu": "600m", "memory": "7551000000", "pods": "75"}},
            "storageClasses": [{"storageClassName": "liqo"}],
        },
    })
}

fn map() -> Value {
    json!({
        "apiVersion": "virtualkubelet.liqo.io/v1alpha1", "kind": "NamespaceMap",
        "metadata": meta(json!({"liqo.io/remote-cluster-id": HOME})),
        "spec": {"desiredMapping": {"demo": "demo-consumer-ed03b8"}},
    })
}

fn network() -> Value {
    json!({
        "apiVersion": "net.liqo.io/v1alpha1", "kind": "NetworkConfig", "metadata": meta(json!({})),
        "spec": {
            "backendType": "wireguard",
            "backend_config": {"port": "32205", "publicKey": "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0="},
            "cluster": {"clusterID": HOME, "clusterName": "provider"}, "endpointIP": "172.30.0.11",
            "externalCIDR": "10.97.0.0/16", "podCIDR": "10.244.0.0/16",
        },
    })
}

fn all() -> [(&'static str, Value); 4] {
    [
        ("resourcerequests", request()),
        ("resourceoffers", offer()),
        ("namespacemaps", map()),
        ("networkconfigs", network()),
    ]
}

#[test]
fn what_recorded_clusters_copied_passes() {
    let judge = Judge::new();
    for (kind, copy) in all() {
        judge.passes_all(kind, kind, &copy);
        // A field that this cluster added to the copy may be written back unchanged.
        let ours = [
            ("metadata|finalizers", json!(["tunnelendpointcreator.net.liqo.io", "liqo.io/node"])),
            ("metadata|ownerReferences", json!([{"kind": "ForeignCluster", "name": "consumer", "uid": "e327f337"}])),
            ("status", json!({"offerState": "Created"})),
        ];
        judge.passes_later(kind, kind, &with(&copy, &ours));
    }
    let withdrawn = [("spec|withdrawalTimestamp", json!("2026-11-20T23:22:50Z"))];
    judge.passes("withdrawal", &asked("resourcerequests", request(), with(&request(), &withdrawn)), &[]);
    judge.passes("withdrawal", &asked("resourceoffers", offer(), with(&offer(), &withdrawn)), &[]);
    let empty = with(&map(), &[("spec", json!({}))]);
    judge.passes("the map before and after the namespace", &asked("namespacemaps", map(), empty.clone()), &[]);
    judge.passes("the map before and after the namespace", &asked("namespacemaps", empty, map()), &[]);
    let shorter = [("metadata|labels|liqo.io/replication", Value::Null)];
    judge.passes("no replication", &asked("networkconfigs", Value::Null, with(&network(), &shorter)), &[]);
}

#[test]
fn originals_and_what_others_own_are_not_touched() {
    let judge = Judge::new();
    let (only, theirs) = ("a peer writes only copies", "this object is no copy of one of its own");
    for (kind, copy) in all() {
        let label = |key: &str, value: Value| with(&copy, &[(&format!("metadata|labels|{key}"), value)]);
        for (what, bad) in [
            ("an original", label("liqo.io/replication", json!("true"))),
            ("in the name of another", label("liqo.io/originID", json!(OTHER))),
            ("in our name", label("liqo.io/originID", json!(HOME))),
            ("not said to be a copy", label("liqo.io/replicated", json!("false"))),
            ("no origin", label("liqo.io/originID", Value::Null)),
            ("no copy", label("liqo.io/replicated", Value::Null)),
            ("no destination", label("liqo.io/remoteID", Value::Null)),
            ("no labels", with(&copy, &[("metadata|labels", Value::Null)])),
        ] {
            judge.refuses_all(what, kind, &copy, &bad, only);
            if what != "no destination" {
                judge.refuses(what, &asked(kind, bad.clone(), copy.clone()), theirs, &[]);
                judge.refuses(what, &asked(kind, bad, Value::Null), theirs, &[]);
            }
        }
        for (what, bad, words) in [
            ("for itself", label("liqo.io/remoteID", json!(PEER)), "liqo.io/remoteID of a copy"),
            ("ownership", label("liqo.io/ownership", json!("netcfgCreator")), "no labels of Liqo"),
            ("tenant", label("discovery.liqo.io/tenant-namespace", json!("true")), "no labels of Liqo"),
            ("of another", label("discovery.liqo.io/cluster-id", json!(OTHER)), "no labels of Liqo"),
            ("a finalizer", with(&copy, &[("metadata|finalizers", json!(["p.io/never"]))]), "metadata.finalizers"),
            ("an owner", with(&copy, &[("metadata|ownerReferences", json!([{"uid": "1"}]))]), "ownerReferences"),
        ] {
            judge.refuses_all(what, kind, &copy, &bad, words);
        }
        let held = with(&copy, &[("metadata|finalizers", json!(["liqo.io/node"]))]);
        judge.refuses("our finalizer removed", &asked(kind, held, copy.clone()), "metadata.finalizers", &[]);
        let owned = with(&copy, &[("metadata|ownerReferences", json!([{"uid": "1"}]))]);
        judge.refuses("our owner removed", &asked(kind, owned, copy.clone()), "ownerReferences", &[]);
        let ends =
            |value: &str| with(&copy, &[("metadata|annotations", json!({"liqo.io/end-at-once": value, "note": "a"}))]);
        let decides = "a decision of the cluster the object is in";
        judge.refuses_all("the end of the node", kind, &copy, &ends("true"), decides);
        judge.refuses("another end", &asked(kind, ends("true"), ends("false")), decides, &[]);
        judge.refuses("no end", &asked(kind, ends("true"), copy.clone()), decides, &[]);
        judge.passes_later("this cluster has decided, the peer writes the rest", kind, &ends("true"));
        let moved = label("liqo.io/remoteID", json!(OTHER));
        judge.refuses("moved", &asked(kind, copy.clone(), moved), "does not change", &[]);
        judge.refuses("status", &asked(&format!("{kind}/status"), copy.clone(), copy), "the status of an object", &[]);
    }
}

#[test]
fn identities_are_the_callers_own() {
    let judge = Judge::new();
    for id in [HOME, OTHER, ""] {
        let foreign = with(&request(), &[("spec|clusterIdentity|clusterID", json!(id))]);
        judge.refuses_all("request", "resourcerequests", &request(), &foreign, "spec.clusterIdentity.clusterID");
        let foreign = with(&offer(), &[("spec|clusterId", json!(id))]);
        judge.refuses_all("offer", "resourceoffers", &offer(), &foreign, "spec.clusterId");
    }
    for id in [PEER, OTHER] {
        let foreign = with(&network(), &[("spec|cluster|clusterID", json!(id))]);
        judge.refuses_all("network", "networkconfigs", &network(), &foreign, "spec.cluster of a NetworkConfig");
    }
    let nameless = with(&request(), &[("spec|clusterIdentity", Value::Null)]);
    judge.refuses_all("no identity", "resourcerequests", &request(), &nameless, "in the name of the cluster");
}

#[test]
fn sizes_are_bounded_and_what_is_too_much_may_become_less() {
    let judge = Judge::new();
    let of = |count: usize| -> Value {
        let entries = (0..count).map(|one| (format!("n{one}"), json!(format!("n{one}-consumer-ed03b8"))));
        with(&map(), &[("spec|desiredMapping", entries.collect::<serde_json::Map<_, _>>().into())])
    };
    judge.passes("64", &asked("namespacemaps", Value::Null, of(64)), &[]);
    judge.refuses("65", &asked("namespacemaps", Value::Null, of(65)), "offloading.namespacesPerPeer", &[]);
    judge.refuses("65 by a change", &asked("namespacemaps", of(64), of(65)), "offloading.namespacesPerPeer", &[]);
    judge.passes("fewer of too many", &asked("namespacemaps", of(90), of(89)), &[]);
    judge.passes("allowed", &asked("namespacemaps", Value::Null, of(65)), &[("namespacesPerPeer", "65")]);
    for name in ["", "a/b", "Demo", "-a", "a_b", "a.b", &"a".repeat(254), "a\nb"] {
        let bad = with(&map(), &[("spec|desiredMapping|x", json!(name))]);
        judge.refuses_all("a name", "namespacemaps", &map(), &bad, "the names of namespaces");
        judge.passes("it was there", &asked("namespacemaps", bad.clone(), bad), &[]);
    }
    // Longer than a label: 0.8.3 asks for it, and is told in the status.
    let long = with(&map(), &[("spec|desiredMapping|x", json!(format!("{}-consumer-ed03b8", "a".repeat(63))))]);
    judge.passes("long", &asked("namespacemaps", map(), long), &[]);
    let url = with(&request(), &[("spec|authUrl", json!("x".repeat(2049)))]);
    judge.refuses_all("URL", "resourcerequests", &request(), &url, "spec.authUrl");
    let key = with(&network(), &[("spec|backend_config|publicKey", json!("x".repeat(1025)))]);
    judge.refuses_all("key", "networkconfigs", &network(), &key, "is longer than");
    let labels: serde_json::Map<_, _> = (0..129).map(|one| (format!("l{one}"), json!("x"))).collect();
    let many = with(&offer(), &[("spec|labels", labels.into())]);
    judge.refuses_all("labels", "resourceoffers", &offer(), &many, "at most 128 labels");
}
