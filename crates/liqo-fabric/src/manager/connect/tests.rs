use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use liqo_api::{discovery::ForeignClusterSpec, net::NetworkConfigSpec};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::json;

use super::*;

const PEER: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

fn peer() -> ClusterIdentity {
    ClusterIdentity::new(PEER, "provider")
}

fn plan() -> Plan {
    Plan::default().configure("10.244.0.0/16", "10.96.0.0/16", &[], &[]).unwrap()
}

fn foreign() -> ForeignCluster {
    let mut foreign = ForeignCluster::new("provider", ForeignClusterSpec::default());
    foreign.metadata.uid = Some("751094e2".to_owned());
    foreign
}

/// What the peer told, as recorded.
fn remote() -> NetworkConfig {
    let spec = json!({
        "backendType": "wireguard",
        "backend_config": {"port": "32481", "publicKey": "fAtXqFbclsLrEwLCMmP18WQmRtocQDjKtHV8rRnTSW0="},
        "cluster": {"clusterID": "09897b82-7830-483b-b786-9cf90899f809", "clusterName": "consumer"},
        "endpointIP": "172.30.0.12",
        "externalCIDR": "10.97.0.0/16",
        "podCIDR": "10.244.0.0/16",
    });
    let spec: NetworkConfigSpec = serde_json::from_value(spec).unwrap();
    NetworkConfig::new("consumer-ed03b8", spec)
}

/// What we told, and how the peer answered.
fn local(status: Option<(&str, &str)>) -> NetworkConfig {
    let mut local = NetworkConfig::new("provider-ca6261", remote().spec);
    local.spec.cluster = liqo_api::ClusterIdentity::new(PEER, "provider");
    local.metadata.namespace = Some("liqo-tenant-provider-ca6261".to_owned());
    local.metadata.uid = Some("505de0e8".to_owned());
    local.metadata.owner_references = Some(vec![owner_reference(&foreign(), true)]);
    local.status = status.map(|(pod, external)| NetworkConfigStatus {
        processed: true,
        pod_cidr_nat: Some(pod.to_owned()),
        external_cidr_nat: Some(external.to_owned()),
    });
    local
}

fn going<K: Resource>(mut object: K) -> K {
    object.meta_mut().deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    object
}

fn both() -> Plan {
    let local = local(Some(("10.245.0.0/16", "10.98.0.0/16")));
    let (plan, refused) = agreed(&plan(), PEER, Some(&remote()), Some(&local), &Around::default());
    assert_eq!(refused, None);
    plan
}

fn made(plan: &Plan) -> TunnelEndpoint {
    let local = local(Some(("10.245.0.0/16", "10.98.0.0/16")));
    match tunnels(plan, &peer(), Some(&remote()), Some(&local), &[]).write {
        Some(Write::Create(tunnel)) => *tunnel,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_tunnel_of_two_equal_clusters_is_the_recorded_one() {
    let expected = json!({
        "apiVersion": "net.liqo.io/v1alpha1",
        "kind": "TunnelEndpoint",
        "metadata": {
            "labels": {"clusterID": PEER},
            "name": "provider-ca6261",
            "namespace": "liqo-tenant-provider-ca6261",
            "ownerReferences": [
                {"apiVersion": "net.liqo.io/v1alpha1", "kind": "NetworkConfig", "name": "provider-ca6261", "uid": "505de0e8"},
                {
                    "apiVersion": "discovery.liqo.io/v1alpha1", "blockOwnerDeletion": true, "controller": true,
                    "kind": "ForeignCluster", "name": "provider", "uid": "751094e2",
                },
            ],
        },
        "spec": {
            "backendType": "wireguard",
            "backend_config": {"port": "32481", "publicKey": "fAtXqFbclsLrEwLCMmP18WQmRtocQDjKtHV8rRnTSW0="},
            "clusterIdentity": {"clusterID": PEER, "clusterName": "provider"},
            "endpointIP": "172.30.0.12",
            "localExternalCIDR": "10.97.0.0/16",
            "localNATExternalCIDR": "10.98.0.0/16",
            "localNATPodCIDR": "10.245.0.0/16",
            "localPodCIDR": "10.244.0.0/16",
            "remoteExternalCIDR": "10.97.0.0/16",
            "remoteNATExternalCIDR": "10.98.0.0/16",
            "remoteNATPodCIDR": "10.245.0.0/16",
            "remotePodCIDR": "10.244.0.0/16",
        },
    });
    assert_eq!(serde_json::to_value(made(&both())).unwrap(), expected);
}

#[test]
fn the_peer_is_answered_under_which_networks_we_see_its_own() {
    let (assigned, _) = agreed(&plan(), PEER, Some(&remote()), None, &Around::default());
    let answered = answer(&assigned, PEER, &remote()).unwrap();
    let expected = json!({"processed": true, "podCIDRNAT": "10.245.0.0/16", "externalCIDRNAT": "10.98.0.0/16"});
    assert_eq!(serde_json::to_value(answered).unwrap(), expected, "as recorded");
    let mut elsewhere = remote();
    (elsewhere.spec.pod_cidr, elsewhere.spec.external_cidr) = ("10.1.0.0/16".to_owned(), "10.2.0.0/16".to_owned());
    let (assigned, _) = agreed(&plan(), PEER, Some(&elsewhere), None, &Around::default());
    let answered = answer(&assigned, PEER, &elsewhere).unwrap();
    let expected = json!({"processed": true, "podCIDRNAT": "None", "externalCIDRNAT": "None"});
    assert_eq!(serde_json::to_value(answered).unwrap(), expected);
    assert_eq!(answer(&plan(), PEER, &remote()), None);
}

#[test]
fn what_a_peer_cannot_mean_changes_nothing() {
    let before = both();
    for (pod, external) in
        [("0.0.0.0/0", "10.97.0.0/16"), ("garbage", "10.97.0.0/16"), ("10.244.0.0/16", "224.0.0.0/8"), ("", "")]
    {
        let mut bad = remote();
        (bad.spec.pod_cidr, bad.spec.external_cidr) = (pod.to_owned(), external.to_owned());
        let (plan, refused) =
            agreed(&before, PEER, Some(&bad), Some(&local(Some(("None", "None")))), &Around::default());
        assert!(matches!(refused, Some(Refused::Networks(_))), "{pod} {external}");
        assert_eq!(plan, before, "{pod} {external}");
    }
    for (pod, external) in [("10.1.0.0/17", "None"), ("None", "rubbish"), ("0.0.0.0/0", "None")] {
        let (plan, refused) =
            agreed(&before, PEER, Some(&remote()), Some(&local(Some((pod, external)))), &Around::default());
        assert!(matches!(refused, Some(Refused::View(_))), "{pod} {external}");
        assert_eq!(plan, before, "{pod} {external}");
    }
}

#[test]
fn what_was_agreed_ends_with_either_side() {
    let all = both();
    let done = local(Some(("10.245.0.0/16", "10.98.0.0/16")));
    assert_eq!(
        agreed(&all, PEER, Some(&remote()), Some(&done), &Around::default()),
        (all.clone(), None),
        "the same again is nothing"
    );
    let existing = [Arc::new(made(&all))];
    // Ours is gone: the peer keeps its networks here, but no longer sees us.
    let (half, _) = agreed(&all, PEER, Some(&remote()), None, &Around::default());
    assert!(half.peer(PEER).is_some_and(|peer| peer.seen.is_none()));
    assert_eq!(tunnels(&half, &peer(), Some(&remote()), None, &existing).remove, existing);
    // The peer's is gone: everything is free again.
    let (none, _) = agreed(&all, PEER, None, Some(&done), &Around::default());
    assert_eq!(none, plan());
    assert_eq!(tunnels(&none, &peer(), None, Some(&done), &existing).remove, existing);
    // The peer has not processed ours yet.
    let (waiting, _) = agreed(&plan(), PEER, Some(&remote()), Some(&local(None)), &Around::default());
    assert_eq!(tunnels(&waiting, &peer(), Some(&remote()), Some(&local(None)), &[]), Tunnels::default());
}

#[test]
fn a_tunnel_follows_each_change_of_the_peer_and_nothing_else() {
    let plan = both();
    let done = local(Some(("10.245.0.0/16", "10.98.0.0/16")));
    let existing = [Arc::new(made(&plan))];
    assert_eq!(tunnels(&plan, &peer(), Some(&remote()), Some(&done), &existing), Tunnels::default());
    let change = |change: &dyn Fn(&mut NetworkConfigSpec)| {
        let mut remote = remote();
        change(&mut remote.spec);
        match tunnels(&plan, &peer(), Some(&remote), Some(&done), &existing).write {
            Some(Write::Replace(_, wanted)) => wanted.spec,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(change(&|spec| spec.endpoint_ip = "rome.it".into()).endpoint_ip, "rome.it");
    let key = change(&|spec| drop(spec.backend_config.insert("publicKey".into(), "other".into())));
    assert_eq!(key.backend_config["publicKey"], "other");
    let (moved, _) =
        agreed(&plan, PEER, Some(&remote()), Some(&local(Some(("None", "10.3.0.0/16")))), &Around::default());
    let Some(Write::Replace(_, wanted)) = tunnels(&moved, &peer(), Some(&remote()), Some(&done), &existing).write
    else {
        panic!("not followed")
    };
    let spec = wanted.spec;
    assert_eq!((spec.local_nat_pod_cidr.as_str(), spec.local_nat_external_cidr.as_str()), ("None", "10.3.0.0/16"));
    let mut again = done.clone();
    again.metadata.uid = Some("another".to_owned());
    let Some(Write::Replace(_, wanted)) = tunnels(&plan, &peer(), Some(&remote()), Some(&again), &existing).write
    else {
        panic!("not owned")
    };
    assert_eq!(wanted.owner_references()[0].uid, "another");
    let mut mislabelled = made(&plan);
    mislabelled.metadata.labels = Some([(label::TUNNEL_CLUSTER_ID.to_owned(), "victim".to_owned())].into());
    let planned = tunnels(&plan, &peer(), Some(&remote()), Some(&done), &[Arc::new(mislabelled)]);
    let Some(Write::Replace(_, wanted)) = planned.write else { panic!("{planned:?}") };
    assert_eq!(wanted.labels()[label::TUNNEL_CLUSTER_ID], PEER);
}

#[test]
fn of_several_tunnels_the_oldest_stays_and_one_that_is_going_keeps_its_name() {
    let plan = both();
    let done = local(Some(("10.245.0.0/16", "10.98.0.0/16")));
    let aged = |age: i64| {
        let mut one = made(&plan);
        one.metadata.creation_timestamp = Some(Time(Timestamp::from_second(age).unwrap()));
        Arc::new(one)
    };
    let planned = tunnels(&plan, &peer(), Some(&remote()), Some(&done), &[aged(2), aged(1)]);
    assert_eq!(planned, Tunnels { remove: vec![aged(2)], write: None });
    let leaving = [Arc::new(going(made(&plan)))];
    assert_eq!(tunnels(&plan, &peer(), Some(&remote()), Some(&done), &leaving), Tunnels::default());
}

#[test]
fn only_one_thing_told_counts() {
    let (one, leaving) = (Arc::new(remote()), Arc::new(going(remote())));
    assert_eq!(told(&[]), Told::Nothing);
    assert_eq!(told(&[Arc::clone(&leaving)]), Told::Nothing);
    assert_eq!(told(&[leaving, Arc::clone(&one)]), Told::This(Arc::clone(&one)));
    assert_eq!(told(&[Arc::clone(&one), one]), Told::Several);
}

#[test]
fn a_copy_belongs_to_the_foreign_cluster_plainly() {
    let owners = owners_of_copy(&remote(), Some(&foreign())).unwrap();
    let expected = json!([{
        "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "name": "provider", "uid": "751094e2",
    }]);
    assert_eq!(serde_json::to_value(&owners).unwrap(), expected, "as recorded");
    let mut owned = remote();
    owned.metadata.owner_references = Some(owners);
    assert_eq!(owners_of_copy(&owned, Some(&foreign())), None);
    let mut new = foreign();
    new.metadata.uid = Some("new".to_owned());
    assert_eq!(owners_of_copy(&owned, Some(&new)).unwrap().len(), 1, "the one of an earlier ForeignCluster is dropped");
    assert_eq!(owners_of_copy(&remote(), None), None);
    assert_eq!(owners_of_copy(&remote(), Some(&going(foreign()))), None);
}

#[test]
fn a_peer_is_who_its_namespace_says() {
    let mut named = foreign();
    named.spec.cluster_identity = Some(ClusterIdentity::new(PEER, "milan"));
    let mut lying = local(None);
    lying.spec.cluster = ClusterIdentity::new("victim", "victim");
    assert_eq!(identity(PEER, Some(&named), Some(&local(None))), ClusterIdentity::new(PEER, "milan"));
    assert_eq!(identity(PEER, None, Some(&local(None))), peer());
    assert_eq!(identity(PEER, None, Some(&lying)).cluster_id, PEER);
    let locals = [Arc::new(lying), Arc::new(local(None))];
    assert_eq!(ours(&locals, PEER), Some(&locals[1]));
    assert_eq!(ours(&locals[..1], PEER), None);
}

#[test]
fn a_tunnel_over_what_this_cluster_lives_on_is_closed_and_comes_back() {
    let (before, done) = (both(), local(Some(("10.245.0.0/16", "10.98.0.0/16"))));
    let node = ("10.245.7.0/32".parse().unwrap(), "an address of node n1".to_owned());
    let around = Around { vital: vec![node], ..Around::default() };
    let (after, refused) = super::agreed(&before, PEER, Some(&remote()), Some(&done), &around);
    assert_eq!(after, before, "nobody is moved");
    assert!(matches!(&refused, Some(Refused::Covers(why)) if why.to_string().contains("node n1")), "{refused:?}");
    let (after, refused) = super::agreed(&after, PEER, Some(&remote()), Some(&done), &Around::default());
    assert_eq!((after, refused), (before, None));
}

#[test]
fn a_gateway_is_a_machine_somewhere_else() {
    let plan = both();
    let plan = plan.assign("other", "10.1.0.0/16", "10.2.0.0/16", &Around::default()).unwrap();
    let at = |address: &str| {
        let mut remote = remote();
        remote.spec.endpoint_ip = address.to_owned();
        gateway(&plan, PEER, &remote)
    };
    for good in ["172.30.0.12", "203.0.113.9", "rome.it", "2001:db8::1", "[2001:db8::1]", "10.245.0.7"] {
        assert_eq!(at(good), None, "{good}");
    }
    for (bad, expected) in [
        ("127.0.0.1", "single machine"),
        ("169.254.169.254", "single machine"),
        ("224.0.0.1", "single machine"),
        ("[::1]", "single machine"),
        ("10.96.0.1", "10.96.0.0/16 is a network of this cluster"),
        ("10.244.3.3", "10.244.0.0/16 is a network of this cluster"),
        ("10.1.3.3", "a network used for cluster other"),
    ] {
        let refused = at(bad);
        assert!(matches!(&refused, Some(Refused::Gateway(why)) if why.contains(expected)), "{bad}: {refused:?}");
    }
}

#[test]
fn a_key_is_one_clusters() {
    let key_of = |remote: &NetworkConfig| remote.spec.backend_config["publicKey"].clone();
    let aged = |age: i64, uid: &str| {
        let mut one = made(&both());
        one.metadata.creation_timestamp = Some(Time(Timestamp::from_second(age).unwrap()));
        one.metadata.uid = Some(uid.to_owned());
        Arc::new(one)
    };
    let (first, second) = (aged(1, "first"), aged(2, "second"));
    let all = [Arc::clone(&second), Arc::clone(&first)];
    let refused = |mine: &[Arc<TunnelEndpoint>], own: Option<&str>| key(&remote(), own, mine, &all);
    assert_eq!(refused(std::slice::from_ref(&first), None), None, "the first keeps it");
    assert!(matches!(refused(std::slice::from_ref(&second), None), Some(Refused::Key(_, Some(id))) if id == PEER));
    assert!(matches!(refused(&[], None), Some(Refused::Key(_, Some(_)))));
    assert!(matches!(refused(&[first], Some(&key_of(&remote()))), Some(Refused::Key(_, None))), "ours");
    let mut other = remote();
    other.spec.backend_config.insert("publicKey".into(), "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0=".into());
    assert_eq!(key(&other, Some(&key_of(&remote())), &[], &all), None);
    other.spec.backend_config.insert("publicKey".into(), "rubbish".into());
    assert_eq!(key(&other, None, &[], &all), None, "the gateway says what is wrong with it");
}

/// Texts as a peer may write them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "(10|172|192|8|127|224)\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}/(8|16|24|29)",
        "(10|172|192|8)\\.[0-9]{1,2}\\.0\\.0/(16|24)",
        "[0-9a-f:./]{0,40}",
        ".{0,40}",
    ]
}

proptest! {
    #[test]
    fn whatever_a_peer_writes_its_tunnel_is_its_own_and_covers_nothing_vital(
        (pod, external, endpoint, public) in (text(), text(), text(), text()),
        (nat_pod, nat_external, id, name) in (text(), text(), text(), text()),
    ) {
        let mut announced = remote();
        (announced.spec.pod_cidr, announced.spec.external_cidr, announced.spec.endpoint_ip) = (pod, external, endpoint);
        announced.spec.cluster = ClusterIdentity::new(&id, &name);
        announced.spec.backend_config.insert("publicKey".to_owned(), public);
        let answered = local(Some((&nat_pod, &nat_external)));
        let vital = ["172.30.0.11/32", "10.1.0.8/32"].map(|text| (text.parse().unwrap(), "a node".to_owned()));
        let around = Around { vital: vital.to_vec(), ..Around::default() };
        let (plan, refused) = super::agreed(&plan(), PEER, Some(&announced), Some(&answered), &around);
        let _ = (gateway(&plan, PEER, &announced), key(&announced, None, &[], &[]), answer(&plan, PEER, &announced));
        prop_assert!(!matches!(refused, Some(Refused::Covers(_))));
        prop_assert!(plan.peers().all(|peer| peer == PEER));
        if let Some(Write::Create(tunnel)) = tunnels(&plan, &peer(), Some(&announced), Some(&answered), &[]).write {
            prop_assert_eq!(&tunnel.spec.cluster_identity, &peer());
            let networks = crate::network::Networks::of(&tunnel.spec).unwrap();
            prop_assert!(!networks.hides_ours());
            prop_assert!(networks.remote().iter().all(|one| around.vital.iter().all(|(vital, _)| !one.contains(vital))));
        }
    }
}

/// Whatever a peer announces: what is agreed leaves our networks and those of other peers alone.
#[test]
fn fuzz_announcements() {
    const OTHER: &str = "5a1e0f3c-7b6d-4c2e-9f10-8d7c6b5a4e3f";
    liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "network_config", |bytes| {
        let Ok(spec) = serde_json::from_slice::<NetworkConfigSpec>(bytes) else { return };
        let local = local(Some((spec.pod_cidr.as_str(), spec.external_cidr.as_str())));
        let remote = NetworkConfig::new("consumer-ed03b8", spec);
        let others = plan().assign(OTHER, "10.20.0.0/16", "10.21.0.0/16", &Around::default()).expect("they are free");
        let (agreed, _) = agreed(&others, PEER, Some(&remote), Some(&local), &Around::default());
        assert_eq!(agreed.own().ok(), others.own().ok());
        assert_eq!(agreed.peer(OTHER), others.peer(OTHER));
        if let Some(Refused::Gateway(why)) = gateway(&agreed, PEER, &remote) {
            assert!(!why.is_empty());
        }
        let _ = key(&remote, None, &[], &[]);
    });
}
