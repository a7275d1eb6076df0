//! What a peer reaches, as tables: objects on the left, addresses on the right.

use serde_json::{Value, json};

use super::*;

/// The peer of the tests is both: `milan` provides and consumes.
fn milan() -> ClusterIdentity {
    ClusterIdentity { cluster_id: "id-of-milan".to_owned(), cluster_name: "milan".to_owned() }
}

fn networks() -> Networks {
    let net = |text: &str| text.parse().unwrap();
    Networks {
        local_pods: net("10.244.0.0/16"),
        local_pods_there: net("10.245.0.0/16"),
        local_external_there: net("10.98.0.0/16"),
        remote_pods: net("10.246.0.0/16"),
        remote_external: net("10.99.0.0/16"),
    }
}

/// An offloading as its controller tells it.
fn offloading(namespace: &str, peer: &ClusterIdentity, required: &str) -> Arc<NamespaceOffloading> {
    let conditions = json!({naming::unique_name(peer): [
        {"type": "OffloadingRequired", "status": required}, {"type": "Ready", "status": "False"}]});
    object(json!({"metadata": {"name": "offloading", "namespace": namespace}, "spec": {},
        "status": {"remoteNamespacesConditions": conditions}}))
}

fn made_for(peer: &str, name: &str) -> Arc<Namespace> {
    object(json!({"metadata": {"name": name, "labels": {"liqo.io/remote-cluster-id": peer}}}))
}

fn pod(namespace: &str, last: u8) -> Value {
    json!({"metadata": {"name": "p", "namespace": namespace}, "spec": {"containers": [], "nodeName": "n"},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.0.{last}")}, {"ip": "fd00::1"}]}})
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// What milan reaches of a cluster with these objects and this export, whose last octets are given.
fn reached(seen: &Seen) -> Vec<u8> {
    let exports = [("10.98.0.9".parse().unwrap(), "10.96.0.1".parse().unwrap())].into();
    let mut reach = Shared::of(seen).reach(&milan(), &networks(), &exports);
    assert!(reach.remove(&Ipv4Addr::new(10, 96, 0, 1)), "an exported address is reached in any case");
    reach.iter().map(|address| address.octets()[3]).collect()
}

#[test]
fn pods_of_shared_namespaces_are_reached_and_no_others() {
    let turin = ClusterIdentity { cluster_id: "id-of-turin".to_owned(), cluster_name: "turin".to_owned() };
    let pods = || {
        let all = ["demo", "theirs", "kube-system", "liqo-tenant-milan", "of-turin", "default"];
        all.iter().zip(1..).map(|(namespace, last)| object(pod(namespace, last))).collect()
    };
    let leaving = |offloading: Arc<NamespaceOffloading>| {
        let mut leaving = (*offloading).clone();
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-29T21:00:00Z")).unwrap();
        vec![Arc::new(leaving)]
    };
    for (why, offloadings, namespaces, wanted) in [
        ("nothing is shared", vec![], vec![], vec![]),
        ("offloaded to the peer", vec![offloading("demo", &milan(), "True")], vec![], vec![1]),
        ("the peer is not selected", vec![offloading("demo", &milan(), "False")], vec![], vec![]),
        ("offloaded to another peer", vec![offloading("demo", &turin, "True")], vec![], vec![]),
        ("the offloading ends", leaving(offloading("demo", &milan(), "True")), vec![], vec![]),
        ("made for the peer", vec![], vec![made_for("id-of-milan", "theirs")], vec![2]),
        ("made for another peer", vec![], vec![made_for("id-of-turin", "of-turin")], vec![]),
        (
            "both directions",
            vec![offloading("demo", &milan(), "True")],
            vec![made_for("id-of-milan", "theirs"), made_for("id-of-turin", "of-turin")],
            vec![1, 2],
        ),
        (
            "never offloaded",
            vec![offloading("kube-system", &milan(), "True"), offloading("liqo-tenant-milan", &milan(), "True")],
            vec![],
            vec![],
        ),
        (
            "what was made for one peer is not offloaded to another",
            vec![offloading("of-turin", &milan(), "True")],
            vec![made_for("id-of-turin", "of-turin")],
            vec![],
        ),
    ] {
        let seen = Seen { offloadings, namespaces, pods: pods(), ..Seen::default() };
        assert_eq!(reached(&seen), wanted, "{why}");
    }
}

#[test]
fn a_pod_counts_while_the_address_is_its_own() {
    let with = |mut pod: Value, pointer: &str, key: &str, value: Value| {
        pod.pointer_mut(pointer).unwrap()[key] = value;
        pod
    };
    let leaving = |pod| with(pod, "/metadata", "deletionTimestamp", json!("2026-11-29T21:00:00Z"));
    let elsewhere = with(pod("demo", 1), "/status", "podIPs", json!([{"ip": "10.246.0.1"}]));
    for (why, pods, wanted) in [
        ("runs", vec![pod("demo", 1)], vec![1]),
        ("has no address yet", vec![with(pod("demo", 1), "/status", "podIPs", json!([]))], vec![]),
        ("has ended", vec![with(pod("demo", 1), "/status", "phase", json!("Succeeded"))], vec![]),
        ("has the address of its node", vec![with(pod("demo", 1), "/spec", "hostNetwork", json!(true))], vec![]),
        ("runs in another cluster", vec![elsewhere], vec![]),
        ("is being deleted", vec![leaving(pod("demo", 1))], vec![1]),
        ("its address is another pod's already", vec![leaving(pod("demo", 1)), pod("default", 1)], vec![]),
        ("its address was another pod's", vec![pod("demo", 1), leaving(pod("default", 1))], vec![1]),
        ("two pods claim one address", vec![pod("demo", 1), pod("default", 1)], vec![]),
        ("two pods of shared namespaces claim one address", vec![pod("demo", 1), pod("second", 1)], vec![1]),
    ] {
        for pods in [pods.clone(), pods.into_iter().rev().collect()] {
            let seen = Seen {
                offloadings: vec![offloading("demo", &milan(), "True"), offloading("second", &milan(), "True")],
                pods: pods.into_iter().map(object).collect(),
                ..Seen::default()
            };
            assert_eq!(reached(&seen), wanted, "{why}");
        }
    }
}

#[test]
fn pods_that_serve_a_shared_namespace_are_reached_with_it() {
    for (served, name, wanted) in
        [("demo", "desk", vec![1]), ("other", "desk", vec![]), ("demo", "kube-system", vec![])]
    {
        let serving = json!({"metadata": {"name": name, "labels": {"liqo.io/serves-namespace": served}}});
        let seen = Seen {
            offloadings: vec![offloading("demo", &milan(), "True")],
            serving: vec![object(serving)],
            pods: vec![object(pod(name, 1))],
            ..Seen::default()
        };
        assert_eq!(reached(&seen), wanted, "{name} serves {served}");
    }
}

/// Objects of three kinds, as their authors write them.
#[derive(serde::Deserialize)]
struct World {
    offloadings: Vec<NamespaceOffloading>,
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
}

/// Whatever the objects say: what is reached is the address of a pod in a namespace that is shared.
#[test]
fn fuzz_shared() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "shared", |bytes| {
        let Ok(world) = serde_json::from_slice::<World>(bytes) else { return };
        let seen = Seen {
            offloadings: world.offloadings.into_iter().map(Arc::new).collect(),
            namespaces: world.namespaces.into_iter().map(Arc::new).collect(),
            pods: world.pods.into_iter().map(Arc::new).collect(),
            ..Seen::default()
        };
        let spaces = seen.spaces();
        for address in Shared::of(&seen).0.values().flatten() {
            let holds = |pod: &&Arc<Pod>| pods::addresses(pod).into_iter().any(|one| one == IpAddr::V4(*address));
            let mut holders = seen.pods.iter().filter(holds).peekable();
            assert!(holders.peek().is_some(), "{address} belongs to no pod");
            assert!(holders.any(|pod| spaces.contains_key(&pod.namespace().unwrap_or_default())), "{address}");
        }
    });
}
