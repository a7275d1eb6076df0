use serde_json::json;

use super::*;

const PEER: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

/// What a cluster of Liqo 0.8.3 had stored, with two of its opaque values.
fn recorded() -> IpamStorageSpec {
    serde_json::from_value(json!({
        "clusterSubnets": {PEER: {
            "localNATExternalCIDR": "10.98.0.0/16", "localNATPodCIDR": "10.245.0.0/16",
            "remoteExternalCIDR": "10.98.0.0/16", "remotePodCIDR": "10.245.0.0/16",
        }},
        "endpointMappings": {
            "10.96.0.1": {
                "ExternalCIDROriginalIP": "10.97.0.2",
                "clusterMappings": {PEER: {"ExternalCIDRNattedIP": "10.98.0.2"}},
            },
            "169.254.0.1": {
                "ExternalCIDROriginalIP": "10.97.0.1",
                "clusterMappings": {PEER: {"ExternalCIDRNattedIP": "10.98.0.1"}},
            },
        },
        "externalCIDR": "10.97.0.0/16",
        "natMappingsConfigured": {PEER: {}},
        "podCIDR": "10.244.0.0/16",
        "pools": ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"],
        "prefixes": {
            "10.245.0.0/16": "DX8EAQL/gAABDAECAAAE/4AAAAMEAAADAgAAIP+AAAIKMTAuMjQ1LjAuMAEOMTAuMjQ1LjI1NS4yNTUBAwQAABAMAA0xMC4yNDUuMC4wLzE2DQwACjEwLjAuMC4wLzg=",
            "172.16.0.0/12": "DX8EAQL/gAABDAECAAAE/4AAAAMEAAADAgAAIP+AAAIOMTcyLjMxLjI1NS4yNTUBCjE3Mi4xNi4wLjABAwQAABAMAA0xNzIuMTYuMC4wLzEyAwwAAA==",
        },
        "reservedSubnets": [],
        "serviceCIDR": "10.96.0.0/16",
    }))
    .unwrap()
}

#[test]
fn a_store_of_liqo_0_8_3_is_read_and_kept_but_for_its_opaque_part() {
    let Loaded { plan, left_out } = Plan::load(&recorded());
    assert!(left_out.is_empty(), "{left_out:?}");
    let stored = plan.store();
    assert_eq!(IpamStorageSpec { prefixes: recorded().prefixes, ..stored }, recorded());
    let plan = plan.configure("10.244.0.0/16", "10.96.0.0/16", &[], &[]).unwrap();
    let plan = plan.assign(PEER, "10.244.0.0/16", "10.97.0.0/16", &crate::Around::default()).unwrap();
    assert_eq!(plan.store().cluster_subnets, recorded().cluster_subnets, "the peer keeps its networks");
    assert_eq!(
        plan.peer(PEER).unwrap().pod.announced,
        "10.244.0.0/16".parse().ok(),
        "and now we know what it calls them"
    );
}

#[test]
fn nat_mappings_are_those_recorded() {
    let plan = Plan::load(&recorded()).plan;
    let expected: NatMappingSpec = serde_json::from_value(json!({
        "clusterID": PEER,
        "clusterMappings": {"10.96.0.1": "10.98.0.2", "169.254.0.1": "10.98.0.1"},
        "externalCIDR": "10.98.0.0/16",
        "podCIDR": "10.245.0.0/16",
    }))
    .unwrap();
    assert_eq!(plan.nat_mapping(PEER), Some(expected));
    assert_eq!(plan.unlearn(PEER).nat_mapping(PEER), None);
    assert_eq!(plan.nat_mapping("unknown"), None);
}

#[test]
fn the_opaque_part_says_for_what_a_network_is_used() {
    let plan = Plan::default().configure("10.244.0.0/16", "10.96.0.0/16", &["10.1.0.0/16".to_owned()], &[]).unwrap();
    let plan = plan.assign("x", "10.244.0.0/16", "10.97.0.0/16", &crate::Around::default()).unwrap();
    let stored = plan.store();
    let text = |network: &str| String::from_utf8(stored.prefixes[network].0.clone()).unwrap();
    assert_eq!(text("10.244.0.0/16"), r#"{"use":"pod"}"#);
    assert_eq!(text("10.1.0.0/16"), r#"{"use":"reserved"}"#);
    let used = plan.peer("x").unwrap().pod.used.to_string();
    assert_eq!(text(&used), r#"{"use":"peerPod","cluster":"x","announced":"10.244.0.0/16"}"#);
    assert_eq!(stored.prefixes.len(), 6);
    assert_eq!(stored.cluster_subnets["x"].local_nat_pod_cidr, "", "not told yet");
    assert!(stored.nat_mappings_configured.is_empty());
    let told = plan.learn("x", None, Some("10.3.0.0/16")).unwrap().store();
    assert_eq!(told.cluster_subnets["x"].local_nat_pod_cidr, "None");
    assert_eq!(told.cluster_subnets["x"].local_nat_external_cidr, "10.3.0.0/16");
    let gone = plan.forget("x").store();
    assert!(gone.nat_mappings_configured.is_empty() && gone.cluster_subnets.is_empty());
}

#[test]
fn what_cannot_be_understood_is_left_out_and_told() {
    let mut spec = recorded();
    spec.pools.push("nonsense".to_owned());
    spec.cluster_subnets.insert("no-network".to_owned(), Subnets::default());
    let subnets = |pod: &str| Subnets {
        remote_pod_cidr: pod.to_owned(),
        remote_external_cidr: "11.1.0.0/16".to_owned(),
        ..Subnets::default()
    };
    spec.cluster_subnets.insert("overlaps".to_owned(), subnets("10.96.3.0/24"));
    let endpoint = |ours: &str, cluster: &str| EndpointMapping {
        external_cidr_original_ip: ours.to_owned(),
        cluster_mappings: BTreeMap::from([(cluster.to_owned(), ClusterMapping::default())]),
    };
    for (ip, ours, cluster) in [
        ("10.96.0.9", "10.97.0.2", PEER),
        ("1.1.1.1", "10.97.0.0", PEER),
        ("1.1.1.2", "10.97.0.1", PEER),
        ("1.1.1.3", "10.97.255.255", PEER),
        ("1.1.1.4", "10.99.0.4", PEER),
        ("1.1.1.5", "10.97.0.5", "unknown"),
        ("x", "10.97.0.6", PEER),
    ] {
        spec.endpoint_mappings.insert(ip.to_owned(), endpoint(ours, cluster));
    }
    let Loaded { plan, left_out } = Plan::load(&spec);
    assert_eq!(plan, Plan::load(&recorded()).plan);
    // The two clusters, the reason for one of them, the pool and the seven endpoints.
    assert_eq!(left_out.len(), 11, "{left_out:#?}");
    assert_eq!(Plan::load(&IpamStorageSpec::default()).plan, Plan::default());
}
