//! What a caller sees, and what not.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::*;
use crate::model::Need;

fn read<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn foreign(conditions: &[(&str, &str, &str)]) -> Arc<liqo_api::discovery::ForeignCluster> {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(kind, status, message)| {
            json!({"type": kind, "status": status, "message": message, "lastTransitionTime": "2026-01-02T03:04:05Z"})
        })
        .collect();
    read(json!({"apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "milan"},
        "spec": {"foreignAuthUrl": "https://a.b", "clusterIdentity": {"clusterID": "id", "clusterName": "milan"}},
        "status": {"peeringConditions": conditions}}))
}

fn shadow(namespace: &str, node: &str, phase: &str) -> Arc<KubePod> {
    read(json!({"metadata": {"name": "web", "namespace": namespace}, "status": {"phase": phase, "message": "why"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}}]}}))
}

fn objects() -> Objects {
    Objects {
        peers: vec![foreign(&[("OutgoingPeering", "Established", ""), ("NetworkStatus", "Established", "")])],
        nodes: vec![read(json!({"metadata": {"name": "liqo-milan", "labels": {"liqo.io/remote-cluster-id": "id"}},
            "status": {"allocatable": {"cpu": "8", "memory": "32Gi"}}}))],
        tunnels: vec![read(json!({"apiVersion": "net.liqo.io/v1alpha1", "kind": "TunnelEndpoint",
            "metadata": {"name": "milan", "namespace": "liqo-tenant-milan"},
            "spec": {"clusterIdentity": {"clusterID": "id", "clusterName": "milan"}, "localPodCIDR": "", "localExternalCIDR": "",
                "remotePodCIDR": "", "remoteExternalCIDR": "", "endpointIP": "", "backendType": "", "backend_config": {}},
            "status": {"connection": {"latency": {"value": "627µs"}}}}))],
        offloadings: ["a", "b"]
            .map(|namespace| {
                read(json!({"apiVersion": "offloading.liqo.io/v1alpha1", "kind": "NamespaceOffloading",
                    "metadata": {"name": "offloading", "namespace": namespace}, "spec": {},
                    "status": {"offloadingPhase": "Ready", "remoteNamespaceName": format!("{namespace}-rome")}}))
            })
            .to_vec(),
        elsewhere: vec![
            shadow("a", "liqo-milan", "Running"),
            shadow("b", "liqo-milan", "Failed"),
            shadow("a", "an-ordinary-node", "Running"),
        ],
        guests: vec![shadow("c", "node", "Running")],
    }
}

fn all() -> Rights {
    let all = || Scope::All;
    Rights { peers: all(), nodes: all(), tunnels: all(), offloadings: all(), pods: all() }
}

fn nothing() -> Rights {
    let none = || Scope::Only(BTreeSet::new());
    Rights { peers: none(), nodes: none(), tunnels: none(), offloadings: none(), pods: none() }
}

fn seen(rights: &Rights) -> View {
    view(&("rome".to_owned(), "rome-id".to_owned()), &objects(), rights)
}

#[test]
fn who_may_list_everything_sees_everything() {
    let View { overview, peers, namespaces, pods } = seen(&all());
    let capacity = |cpu_milli, gib: u64| Some(Capacity { cpu_milli, memory_bytes: gib << 30 });
    let peer = &peers[0];
    assert_eq!(
        (peer.state.as_str(), peer.level, peer.gives, peer.used),
        ("Established", Level::Good, capacity(8000, 32), capacity(1500, 1))
    );
    assert_eq!((peer.round_trip.as_deref(), peer.since.as_deref()), (Some("627µs"), Some("2026-01-02T03:04:05Z")));
    assert_eq!(namespaces.iter().map(|one| one.remote_name.as_str()).collect::<Vec<_>>(), ["a-rome", "b-rome"]);
    assert_eq!(pods.iter().map(Pod::key).collect::<Vec<_>>(), ["a/web", "b/web"], "a pod counts by its node");
    assert_eq!((overview.peers_established, overview.peers, overview.pods_of_guests), (Some(1), Some(1), 1));
    assert_eq!((overview.acquired, overview.used), (capacity(8000, 32), capacity(1500, 1)));
    assert_eq!(
        overview.needs,
        [Need {
            level: Level::Bad,
            subject: "b/web".into(),
            text: "Failed: why.".into(),
            command: "kubectl describe pod web --namespace b".into()
        }]
    );
    assert!(overview.hidden.is_empty());
}

#[test]
fn who_may_list_nothing_sees_that_only() {
    let View { overview, peers, namespaces, pods } = seen(&nothing());
    assert!(peers.is_empty() && namespaces.is_empty() && pods.is_empty());
    let hidden: Vec<_> = overview.hidden.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(hidden, ["peers", "capacity", "round trip times", "offloaded namespaces", "pods"]);
    let named = Overview {
        cluster_name: "rome".into(),
        cluster_id: "rome-id".into(),
        hidden: overview.hidden.clone(),
        ..Overview::default()
    };
    assert_eq!(overview, named);
    // The same is said of a cluster in which there is nothing.
    assert_eq!(view(&("rome".into(), "rome-id".into()), &Objects::default(), &nothing()).overview, named);
}

#[test]
fn who_may_list_in_one_namespace_sees_that_one() {
    let one = || Scope::Only(BTreeSet::from(["a".to_owned()]));
    let View { overview, namespaces, pods, .. } = seen(&Rights { offloadings: one(), pods: one(), ..nothing() });
    assert_eq!(
        (namespaces.len(), pods.len(), namespaces[0].name.as_str(), pods[0].namespace.as_str()),
        (1, 1, "a", "a")
    );
    assert_eq!((overview.used, overview.pods_of_guests, overview.needs.len()), (None, 0, 0), "no sum tells of others");
    assert_eq!(overview.hidden[4].shown, "shown of 1 namespace");
    // Capacity in use needs both rights.
    let View { peers, .. } = seen(&Rights { pods: one(), ..all() });
    assert_eq!((peers[0].gives.is_some(), peers[0].used), (true, None));
    let View { peers, overview, .. } = seen(&Rights { nodes: Scope::Only(BTreeSet::new()), ..all() });
    assert_eq!((peers[0].gives, peers[0].used, overview.acquired), (None, None, None));
}

#[test]
fn a_peer_is_as_good_as_its_worst_condition() {
    let standing = |conditions: &[(&str, &str, &str)]| {
        let (level, word, reason) = peer::standing(&foreign(conditions).status.as_ref().unwrap().peering_conditions);
        (level, word, reason)
    };
    let (good, outgoing) = (("NetworkStatus", "Established", "fine"), ("OutgoingPeering", "Established", "fine"));
    for (conditions, wanted) in [
        (vec![good, outgoing], (Level::Good, "Established", "")),
        (
            vec![("NetworkStatus", "External", ""), ("IncomingPeering", "Established", "")],
            (Level::Good, "Established", ""),
        ),
        (vec![good], (Level::Good, "Not peered", "")),
        (vec![], (Level::Good, "Not peered", "")),
        (vec![good, ("OutgoingPeering", "Pending", "waits")], (Level::Waiting, "Pending", "waits")),
        (vec![good, ("OutgoingPeering", "Disconnecting", "goes")], (Level::Waiting, "Leaving", "goes")),
        (vec![outgoing, ("NetworkStatus", "Error", "silent")], (Level::Bad, "No path", "silent")),
        (
            vec![("NetworkStatus", "Error", "x"), ("APIServerStatus", "Error", "away")],
            (Level::Bad, "Unreachable", "away"),
        ),
        (vec![("AuthenticationStatus", "EmptyDenied", "no token")], (Level::Bad, "Refused", "no token")),
    ] {
        assert_eq!(standing(&conditions), (wanted.0, wanted.1, wanted.2.to_owned()), "{conditions:?}");
    }
}
