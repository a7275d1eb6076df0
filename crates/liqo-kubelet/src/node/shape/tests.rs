use std::path::Path;

use super::*;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn profile() -> Profile {
    Profile {
        name: "liqo-provider".into(),
        remote_cluster_id: "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9".into(),
        ip: "10.244.0.42".into(),
        port: 10250,
        kubelet_version: "v1.34.4".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        check_network: true,
    }
}

fn recorded<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = Path::new("tests/recorded").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn offer(labels: &[(&str, &str)]) -> ResourceOffer {
    let mut offer: ResourceOffer = recorded("resource_offer.json");
    offer.spec.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    offer
}

/// What an API server makes of a merge patch.
fn patched(node: &Node, patch: &Value) -> Node {
    let mut value = serde_json::to_value(node).unwrap();
    json_patch::merge(&mut value, patch);
    serde_json::from_value(value).unwrap()
}

const UP: Health = Health { resources: true, network: Some(true), reachable: true };

#[test]
fn the_node_becomes_the_recorded_one() {
    let recorded: Node = recorded("virtual_node.json");
    let mut node = profile().new_node(&offer(&[]), &at(1));
    assert!(profile().owns(&node));
    node = patched(&node, &profile().patch(&offer(&[]), &node).unwrap());
    node.status = profile().status(&offer(&[]), UP, &node, &at(2));

    let mut labels = recorded.labels().clone();
    labels.retain(|key, _| !key.starts_with("beta.kubernetes.io/"));
    assert_eq!(*node.labels(), labels);
    assert_eq!(node.spec.as_ref().unwrap().taints, recorded.spec.as_ref().unwrap().taints);
    let (is, want) = (node.status.clone().unwrap(), recorded.status.clone().unwrap());
    assert!(same_amounts(is.capacity.as_ref(), &want.capacity.unwrap()));
    assert!(same_amounts(is.allocatable.as_ref(), &want.allocatable.unwrap()));
    assert_eq!(
        (is.addresses, is.daemon_endpoints, is.node_info),
        (want.addresses, want.daemon_endpoints, want.node_info)
    );
    let words = |conditions: Option<Vec<k8s_openapi::api::core::v1::NodeCondition>>| {
        let one = |c: k8s_openapi::api::core::v1::NodeCondition| (c.type_, c.status, c.reason, c.message);
        conditions.unwrap().into_iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(words(is.conditions), words(want.conditions));
}

#[test]
fn nothing_is_written_when_nothing_has_changed() {
    let node: Node = recorded("virtual_node.json");
    let now = Time("2026-11-20T23:28:00Z".parse().unwrap());
    let mut node = patched(&node, &profile().patch(&offer(&[]), &node).unwrap());
    assert_eq!(profile().patch(&offer(&[]), &node), None);
    assert_eq!(profile().status(&offer(&[]), UP, &node, &now), None, "7551M is 7551000000");
    let later = Time("2026-11-20T23:33:00Z".parse().unwrap());
    let beat = profile().status(&offer(&[]), UP, &node, &later).unwrap();
    node.status = Some(beat);
    assert_eq!(profile().status(&offer(&[]), UP, &node, &later), None);
}

#[test]
fn what_vanishes_from_the_offer_vanishes_from_the_node() {
    let mut node = profile().new_node(&offer(&[]), &at(1));
    let rich = offer(&[("gpu", "yes"), ("zone", "b")]);
    node = patched(&node, &profile().patch(&rich, &node).unwrap());
    node.status = profile().status(&rich, UP, &node, &at(2));
    node.labels_mut().insert("mine".into(), "kept".into());

    let mut poor = offer(&[("zone", "c")]);
    poor.spec.resource_quota.as_mut().unwrap().hard.as_mut().unwrap().remove("pods");
    node = patched(&node, &profile().patch(&poor, &node).unwrap());
    assert_eq!(node.labels().get("gpu"), None);
    assert_eq!(node.labels().get("zone").map(String::as_str), Some("c"));
    assert_eq!(node.labels().get("mine").map(String::as_str), Some("kept"));
    let status = profile().status(&poor, UP, &node, &at(3)).unwrap();
    assert!(!status.capacity.unwrap().contains_key("pods"));
    assert!(!status.allocatable.unwrap().contains_key("pods"));
}

#[test]
fn an_offer_says_the_architecture_but_not_who_the_node_is() {
    let strange = offer(&[("kubernetes.io/arch", "arm64"), ("liqo.io/type", "x"), ("kubernetes.io/hostname", "y")]);
    let mut node = profile().new_node(&strange, &at(1));
    node = patched(&node, &profile().patch(&strange, &node).unwrap());
    assert_eq!(node.labels()["kubernetes.io/arch"], "arm64");
    assert_eq!(node.labels()["liqo.io/type"], "virtual-node");
    assert_eq!(node.labels()["kubernetes.io/hostname"], "liqo-provider");
    assert_eq!(profile().status(&strange, UP, &node, &at(2)).unwrap().node_info.unwrap().architecture, "arm64");
    node = patched(&node, &profile().patch(&offer(&[]), &node).unwrap());
    assert_eq!(node.labels()["kubernetes.io/arch"], "amd64", "back to what it was without the offer");
}

#[test]
fn a_missing_taint_comes_back_beside_the_others() {
    let mut node = profile().new_node(&offer(&[]), &at(1));
    node.metadata.resource_version = Some("7".into());
    let other = Taint { key: "other".into(), effect: "NoSchedule".into(), ..Taint::default() };
    node.spec.as_mut().unwrap().taints = Some(vec![other.clone()]);
    let patch = profile().patch(&offer(&[]), &node).unwrap();
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    assert_eq!(patched(&node, &patch).spec.unwrap().taints, Some(vec![other, Profile::taint()]));
}

#[test]
fn a_leaving_node_offers_nothing_and_comes_back_when_the_offer_does() {
    let mut node: Node = recorded("virtual_node.json");
    node.status = leaving_status(&node, &at(5));
    assert_eq!(node.status.as_ref().unwrap().capacity, None);
    assert_eq!(leaving_status(&node, &at(6)), None);
    node.annotations_mut().insert(DRAIN_STARTED.into(), "2026-11-20T23:28:00Z".into());
    node.spec.as_mut().unwrap().unschedulable = Some(true);
    assert!(drain_started(&node).is_some());
    let node = patched(&node, &profile().patch(&offer(&[]), &node).unwrap());
    assert_eq!(node.spec.as_ref().unwrap().unschedulable, None);
    assert_eq!(drain_started(&node), None);
}

#[test]
fn resources_means_cpu_and_memory() {
    assert!(has_resources(&offer(&[])));
    for key in ["cpu", "memory"] {
        let mut empty = offer(&[]);
        empty.spec.resource_quota.as_mut().unwrap().hard.as_mut().unwrap().insert(key.into(), Quantity("0".into()));
        assert!(!has_resources(&empty), "{key}");
    }
    assert!(!has_resources(&ResourceOffer::default()));
}

#[test]
fn less_than_nothing_is_not_offered() {
    let mut odd = offer(&[]);
    let hard = odd.spec.resource_quota.as_mut().unwrap().hard.as_mut().unwrap();
    for (key, amount) in [("cpu", "-1000"), ("pods", "-5"), ("example.org/gpu", "many"), ("example.org/disk", "0")] {
        hard.insert(key.into(), Quantity(amount.into()));
    }
    let status = profile().status(&odd, UP, &recorded("virtual_node.json"), &at(9)).unwrap();
    for amounts in [status.capacity.unwrap(), status.allocatable.unwrap()] {
        assert!(amounts.contains_key("memory") && amounts.contains_key("example.org/disk"), "{amounts:?}");
        assert!(!["cpu", "pods", "example.org/gpu"].iter().any(|key| amounts.contains_key(*key)), "{amounts:?}");
    }
    assert!(!has_resources(&odd));
}

#[test]
fn an_offer_describes_a_node_and_gives_it_no_role() {
    for (key, passes) in [
        ("gpu", true),
        ("liqo.io/provider", true),
        ("vendor.com/zone", true),
        ("kubernetes.io/arch", true),
        ("topology.kubernetes.io/zone", true),
        ("node.kubernetes.io/instance-type", true),
        ("node-role.kubernetes.io/control-plane", false),
        ("node-restriction.kubernetes.io/secure", false),
        ("node.kubernetes.io/exclude-from-external-load-balancers", false),
        ("x.k8s.io/y", false),
        ("notkubernetes.io/x", true),
    ] {
        assert_eq!(describes(key), passes, "{key}");
    }
    let node = profile().new_node(&offer(&[]), &at(1));
    let bold = offer(&[("node-role.kubernetes.io/control-plane", ""), ("gpu", "yes")]);
    let node = patched(&node, &profile().patch(&bold, &node).unwrap());
    assert!(node.labels().contains_key("gpu") && !node.labels().contains_key("node-role.kubernetes.io/control-plane"));
    assert!(!node.annotations()[OFFERED_LABELS].contains("node-role"));
}

/// Whatever a provider offers: the node keeps its identity, and gets no role and no label of Kubernetes but descriptions.
#[test]
fn fuzz_offers() {
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "offer", |bytes| {
        let Ok(spec) = serde_json::from_slice::<ResourceOfferSpec>(bytes) else { return };
        let offer = ResourceOffer::new("provider", spec);
        let mut node = profile().new_node(&offer, &at(1));
        if let Some(patch) = profile().patch(&offer, &node) {
            node = patched(&node, &patch);
        }
        assert!(profile().owns(&node), "{:?}", node.labels());
        assert!(profile().identity().iter().all(|(key, value)| node.labels().get(key) == Some(value)));
        let (base, ours) = (profile().base_labels(), [label::STORAGE_AVAILABLE]);
        for key in node.labels().keys().filter(|key| !base.contains_key(*key) && !ours.contains(&key.as_str())) {
            assert!(describes(key) && !key.contains("node-role.kubernetes.io"), "{key:?}");
        }
        let _ = (profile().status(&offer, UP, &node, &at(2)), has_resources(&offer));
    });
}
