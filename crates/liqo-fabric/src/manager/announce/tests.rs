use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use liqo_api::discovery::{ForeignClusterSpec, ForeignClusterStatus, PeeringCondition};
use serde_json::json;

use super::*;

const TENANT: &str = "liqo-tenant-provider-ca6261";
const PEER: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

fn own() -> [IpNet; 3] {
    ["10.244.0.0/16", "10.96.0.0/16", "10.97.0.0/16"].map(|text| text.parse().unwrap())
}

fn gateway() -> Result<Gateway, Unreachable> {
    Ok(Gateway {
        address: "172.30.0.11".to_owned(),
        port: 32205,
        public_key: "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0=".to_owned(),
    })
}

/// The peer of the recordings, with these two conditions.
fn foreign(kind: PeeringType, outgoing: PeeringConditionStatus, incoming: PeeringConditionStatus) -> ForeignCluster {
    let condition = |type_, status| PeeringCondition {
        type_,
        status,
        last_transition_time: None,
        reason: String::new(),
        message: String::new(),
    };
    let spec = ForeignClusterSpec {
        peering_type: kind,
        cluster_identity: Some(ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "provider")),
        ..ForeignClusterSpec::default()
    };
    let mut foreign = ForeignCluster::new("provider", spec);
    foreign.metadata.uid = Some("751094e2".to_owned());
    foreign.status = Some(ForeignClusterStatus {
        peering_conditions: vec![
            condition(PeeringConditionType::OutgoingPeering, outgoing),
            condition(PeeringConditionType::IncomingPeering, incoming),
        ],
        ..ForeignClusterStatus::default()
    });
    foreign
}

fn established() -> ForeignCluster {
    foreign(PeeringType::OutOfBand, PeeringConditionStatus::Established, PeeringConditionStatus::None)
}

fn planned(foreign: Option<&ForeignCluster>, locals: &[Arc<NetworkConfig>]) -> Announcement {
    plan((TENANT, PEER), foreign, locals, Some(own()), &gateway())
}

fn made() -> NetworkConfig {
    match planned(Some(&established()), &[]).write {
        Some(Write::Create(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn aged(mut config: NetworkConfig, name: &str, age: i64) -> Arc<NetworkConfig> {
    config.metadata.name = Some(name.to_owned());
    config.metadata.creation_timestamp = Some(Time(Timestamp::from_second(age).unwrap()));
    Arc::new(config)
}

#[test]
fn what_is_told_is_what_was_recorded() {
    let expected = json!({
        "apiVersion": "net.liqo.io/v1alpha1",
        "kind": "NetworkConfig",
        "metadata": {
            "labels": {
                "liqo.io/ownership": "netcfgCreator",
                "liqo.io/remoteID": "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9",
                "liqo.io/replication": "true",
            },
            "name": "provider-ca6261",
            "namespace": "liqo-tenant-provider-ca6261",
            "ownerReferences": [{
                "apiVersion": "discovery.liqo.io/v1alpha1", "blockOwnerDeletion": true, "controller": true,
                "kind": "ForeignCluster", "name": "provider", "uid": "751094e2",
            }],
        },
        "spec": {
            "backendType": "wireguard",
            "backend_config": {"port": "32205", "publicKey": "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0="},
            "cluster": {"clusterID": "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "clusterName": "provider"},
            "endpointIP": "172.30.0.11",
            "externalCIDR": "10.97.0.0/16",
            "podCIDR": "10.244.0.0/16",
        },
    });
    assert_eq!(serde_json::to_value(made()).unwrap(), expected);
}

#[test]
fn a_peering_is_told_when_it_is_established_and_taken_back_when_it_has_ended() {
    use PeeringConditionStatus::{Denied, Disconnecting, Error, Established, None, Pending};
    let (out_of_band, in_band) = (PeeringType::OutOfBand, PeeringType::InBand);
    let there = [aged(made(), "a", 1)];
    // Kind, both directions, is one made, is the one there removed.
    let cases = [
        (out_of_band, None, None, false, true),
        (out_of_band, Pending, None, false, false),
        (out_of_band, Established, None, true, false),
        (out_of_band, None, Established, true, false),
        (out_of_band, Disconnecting, Established, true, false),
        (out_of_band, Disconnecting, None, false, false),
        (out_of_band, None, Disconnecting, false, false),
        (out_of_band, Disconnecting, Disconnecting, false, false),
        (out_of_band, None, None, false, true),
        (out_of_band, None, Pending, false, true),
        (out_of_band, Denied, None, false, true),
        (out_of_band, Error, None, false, false),
        (out_of_band, Error, Error, false, false),
        (in_band, Established, Established, false, false),
        (in_band, None, None, false, false),
        (in_band, Disconnecting, None, false, false),
    ];
    for (kind, outgoing, incoming, is_made, is_removed) in cases {
        let peer = foreign(kind, outgoing, incoming);
        let case = format!("{kind:?} {outgoing:?} {incoming:?}");
        assert_eq!(matches!(planned(Some(&peer), &[]).write, Some(Write::Create(_))), is_made, "{case}");
        let kept = planned(Some(&peer), &there);
        assert_eq!((kept.remove == there, kept.write), (is_removed, Option::None), "{case}");
    }
    let mut starting = foreign(out_of_band, None, Pending);
    starting.status.as_mut().unwrap().peering_conditions[1].reason = "KubeletPending".to_owned();
    assert!(planned(Some(&starting), &there).remove.is_empty(), "an offer is there");
    let mut going = established();
    going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(planned(Some(&going), &there).remove, there);
    let mut banned = foreign(out_of_band, Disconnecting, Disconnecting);
    banned.annotations_mut().insert("liqo.io/tenant-condition".to_owned(), "Banned".to_owned());
    assert_eq!(planned(Some(&banned), &there).remove, there, "a banned peer is not waited for");
    assert_eq!(planned(Option::None, &there).remove, there);
}

#[test]
fn what_others_wrote_by_hand_is_followed_but_not_removed() {
    let mut by_hand = made();
    by_hand.metadata.labels.as_mut().unwrap().remove(label::OWNERSHIP);
    by_hand.spec.endpoint_ip = "1.2.3.4".to_owned();
    by_hand.spec.cluster.cluster_name = "as-liqoctl-wrote-it".to_owned();
    let there = [aged(by_hand, "hand", 1)];
    let peer = foreign(PeeringType::InBand, PeeringConditionStatus::None, PeeringConditionStatus::None);
    let Some(Write::Replace(config, spec)) = planned(Some(&peer), &there).write else { panic!("not followed") };
    assert_eq!((config, spec.endpoint_ip.as_str()), (Arc::clone(&there[0]), "172.30.0.11"));
    assert_eq!(spec.cluster.cluster_name, "as-liqoctl-wrote-it");
    // Before liqoctl has made the ForeignCluster, and after it has removed it.
    assert_eq!(planned(None, &there), Announcement::default());
}

#[test]
fn each_change_is_told_and_nothing_else() {
    let there = [aged(made(), "a", 1)];
    let foreign = established();
    let told =
        |own: [IpNet; 3], gateway: Gateway| plan((TENANT, PEER), Some(&foreign), &there, Some(own), &Ok(gateway)).write;
    let good = gateway().unwrap();
    assert_eq!(told(own(), good.clone()), None);
    let changes = [
        Gateway { address: "rome.it".to_owned(), ..good.clone() },
        Gateway { port: 32206, ..good.clone() },
        Gateway { public_key: "fAtXqFbclsLrEwLCMmP18WQmRtocQDjKtHV8rRnTSW0=".to_owned(), ..good.clone() },
    ];
    for change in changes {
        assert!(matches!(told(own(), change.clone()), Some(Write::Replace(..))), "{change:?}");
    }
    let mut other = own();
    other[2] = "10.99.0.0/16".parse().unwrap();
    let Some(Write::Replace(_, spec)) = told(other, good) else { panic!("not told") };
    assert_eq!(spec.external_cidr, "10.99.0.0/16");
}

#[test]
fn a_gateway_nobody_can_reach_is_told_to_the_user_and_leaves_what_is_there() {
    let there = [aged(made(), "a", 1)];
    let why = "peers cannot reach a Service of type ClusterIP".to_owned();
    let broken = Err(Unreachable { why: why.clone(), public_key: Some(gateway().unwrap().public_key) });
    for locals in [&there[..], &[]] {
        let plan = plan((TENANT, PEER), Some(&established()), locals, Some(own()), &broken);
        let expected = Announcement { problem: Some(why.clone()), ..Announcement::default() };
        assert_eq!(plan, expected);
    }
    let nobody_asks = foreign(PeeringType::OutOfBand, PeeringConditionStatus::Pending, PeeringConditionStatus::None);
    assert_eq!(plan((TENANT, PEER), Some(&nobody_asks), &[], Some(own()), &broken), Announcement::default());
    assert_eq!(plan((TENANT, PEER), Some(&established()), &[], None, &gateway()), Announcement::default());
}

#[test]
fn an_in_band_peer_follows_the_key_of_a_gateway_that_it_cannot_reach() {
    let there = [aged(made(), "a", 1)];
    let peer = foreign(PeeringType::InBand, PeeringConditionStatus::Established, PeeringConditionStatus::None);
    let closed = |public_key: Option<&str>| {
        let public_key = public_key.map(str::to_owned);
        let closed = Err(Unreachable { why: "of type ClusterIP".to_owned(), public_key });
        plan((TENANT, PEER), Some(&peer), &there, Some(own()), &closed)
    };
    let (old, new) = (gateway().unwrap().public_key, "fAtXqFbclsLrEwLCMmP18WQmRtocQDjKtHV8rRnTSW0=");
    assert_eq!(closed(Some(&old)), Announcement::default(), "nothing has changed, and nothing is wrong");
    let Announcement { write: Some(Write::Replace(_, spec)), problem: None, .. } = closed(Some(new)) else {
        panic!("the new key is not followed")
    };
    assert_eq!(spec.backend_config["publicKey"], new);
    assert_eq!((&spec.endpoint_ip, &spec.backend_config["port"]), (&"172.30.0.11".to_owned(), &"32205".to_owned()));
    assert_eq!(closed(None).problem.as_deref(), Some("of type ClusterIP"), "without a key there is no tunnel");
}

#[test]
fn of_several_the_oldest_stays_and_one_that_is_going_keeps_its_name() {
    let [old, young] = [aged(made(), "old", 1), aged(made(), "young", 2)];
    let plan = planned(Some(&established()), &[Arc::clone(&young), Arc::clone(&old)]);
    assert_eq!(plan, Announcement { remove: vec![young], ..Announcement::default() });
    let mut going = (*old).clone();
    going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(planned(Some(&established()), &[Arc::new(going)]), Announcement::default());
}

#[test]
fn a_local_that_names_another_cluster_goes() {
    let mut lying = made();
    lying.spec.cluster = ClusterIdentity::new("victim", "victim");
    lying.metadata.labels.as_mut().unwrap().remove(label::OWNERSHIP);
    let lying = aged(lying, "lying", 1);
    let planned = planned(Some(&established()), &[Arc::clone(&lying), aged(made(), "good", 2)]);
    assert_eq!((planned.remove, planned.write), (vec![Arc::clone(&lying)], None));
    let gone = foreign(PeeringType::OutOfBand, PeeringConditionStatus::None, PeeringConditionStatus::None);
    assert_eq!(plan((TENANT, PEER), Some(&gone), &[Arc::clone(&lying)], Some(own()), &gateway()).remove, vec![lying]);
}

#[test]
fn a_tunnel_is_for_peerings_that_stand() {
    use PeeringConditionStatus::{Denied, Disconnecting, Error, Established, None as Nothing, Pending};
    let of = |kind, outgoing, incoming, has| lets_in(Some(&foreign(kind, outgoing, incoming)), has);
    let (out_of_band, in_band) = (PeeringType::OutOfBand, PeeringType::InBand);
    // Kind of peering, both directions, whether the tunnel exists, whether the peer may have a tunnel.
    for (kind, outgoing, incoming, has, expected) in [
        (out_of_band, Established, Nothing, false, true),
        (out_of_band, Nothing, Established, false, true),
        (out_of_band, Pending, Nothing, false, false),
        (out_of_band, Nothing, Nothing, true, false),
        (out_of_band, Nothing, Denied, true, false),
        (out_of_band, Disconnecting, Nothing, true, true),
        (out_of_band, Disconnecting, Nothing, false, false),
        (out_of_band, Nothing, Disconnecting, true, true),
        (out_of_band, Nothing, Pending, true, false),
        (out_of_band, Error, Nothing, true, true),
        (out_of_band, Error, Nothing, false, false),
        (in_band, Nothing, Nothing, false, true),
    ] {
        assert_eq!(of(kind, outgoing, incoming, has), expected, "{kind:?} {outgoing:?} {incoming:?} {has}");
    }
    assert!(lets_in(None, false), "liqoctl introduces in-band peers before there is a ForeignCluster");
}
