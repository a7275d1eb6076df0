use super::*;
use crate::network::{nth, remap};

const POD: &str = "10.244.0.0/16";
const SERVICE: &str = "10.96.0.0/16";
const PEER: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Nothing is in the way, and public networks are used as they are.
fn open() -> Around {
    Around { public: true, ..Around::default() }
}

fn plan() -> Plan {
    Plan::default().configure(POD, SERVICE, &[], &[]).unwrap()
}

fn used(plan: &Plan, cluster: &str) -> (String, String) {
    let peer = plan.peer(cluster).unwrap();
    (peer.pod.used.to_string(), peer.external.used.to_string())
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn choices_are_those_recorded_from_two_equal_clusters() {
    let plan = plan();
    assert_eq!(plan.own().unwrap(), [net(POD), net(SERVICE), net("10.97.0.0/16")]);
    let plan = plan.assign(PEER, POD, "10.97.0.0/16", &open()).unwrap();
    assert_eq!(used(&plan, PEER), ("10.245.0.0/16".to_owned(), "10.98.0.0/16".to_owned()));
    let again = plan.forget(PEER).assign(PEER, POD, "10.97.0.0/16", &open()).unwrap();
    assert_eq!(again, plan, "after peering again the same");
    let plan = plan.learn(PEER, Some("10.245.0.0/16"), Some("10.98.0.0/16")).unwrap();
    let (plan, api_server) = plan.map_endpoint(PEER, ip("10.96.0.1")).unwrap();
    assert_eq!(api_server, ip("10.98.0.2"));
    let expected = [(ip("10.96.0.1"), ip("10.98.0.2")), (TUNNEL_ADDRESS, ip("10.98.0.1"))];
    assert_eq!(plan.translations(PEER), BTreeMap::from(expected));
    assert_eq!(plan.map_endpoint(PEER, ip("10.244.0.43")).unwrap().1, ip("10.245.0.43"));
}

#[test]
fn ten_clusters_with_equal_networks_get_ten_pairs() {
    let mut plan = plan();
    for index in 0..10 {
        plan = plan.assign(&format!("c{index}"), POD, "10.97.0.0/16", &open()).unwrap();
    }
    let held: Vec<IpNet> = plan.held().map(|(_, network)| network).collect();
    assert_eq!(held.len(), 23);
    assert!(held.iter().enumerate().all(|(i, a)| held[..i].iter().all(|b| !overlap(a, b))));
}

/// Ten clusters, each a peer of each, some with equal pod networks and some with overlapping ones: whatever pod one calls, the address it
/// uses leads to that pod and to no other, and what the pod sees as the caller's address leads back.
#[test]
fn ten_clusters_all_peers_of_each_other_agree() {
    let pods = [
        POD,
        POD,
        POD,
        "10.244.128.0/17",
        "10.240.0.0/13",
        "10.245.0.0/16",
        "10.97.0.0/16",
        POD,
        "10.96.0.0/12",
        "172.20.0.0/16",
    ];
    let name = |index: usize| format!("c{index}");
    let mut plans: Vec<Plan> = pods
        .iter()
        .map(|pod| {
            let service = if *pod == POD { SERVICE } else { "10.112.0.0/16" };
            Plan::default().configure(pod, service, &[], &[]).unwrap()
        })
        .collect();
    let own: Vec<[IpNet; 3]> = plans.iter().map(|plan| plan.own().unwrap()).collect();
    let pairs =
        || (0..10).flat_map(|here| (0..10).map(move |there| (here, there))).filter(|(here, there)| here != there);
    for (here, there) in pairs() {
        let [pod, _, external] = own[there];
        plans[here] = plans[here].assign(&name(there), &pod.to_string(), &external.to_string(), &open()).unwrap();
    }
    let used = |here: usize, there: usize| *plans[here].peer(&name(there)).unwrap();
    let told: Vec<_> = pairs().map(|(here, there)| (here, there, used(there, here))).collect();
    for (here, there, seen) in told {
        let (pod, external) = (seen.pod.used.to_string(), seen.external.used.to_string());
        plans[here] = plans[here].learn(&name(there), Some(&pod), Some(&external)).unwrap();
    }
    for (here, plan) in plans.iter().enumerate() {
        let held: Vec<IpNet> = plan.held().map(|(_, network)| network).collect();
        assert!(held.iter().enumerate().all(|(i, a)| held[..i].iter().all(|b| !overlap(a, b))), "c{here}: {held:?}");
        assert_eq!(plan.peers().count(), 9);
    }
    for (here, there) in pairs() {
        let pod_there = nth(&own[there][0], 77);
        let called = plans[here].home_pod_ip(&name(there), pod_there).unwrap();
        let peer = plans[here].peer(&name(there)).unwrap();
        assert!(peer.pod.used.contains(&called));
        assert_eq!(remap(called, &peer.pod.used, &own[there][0]), Some(pod_there), "c{here} calls c{there}");
        // Our pods as the peer sees them are where the peer has put us.
        assert_eq!(peer.seen.unwrap().pod, plans[there].peer(&name(here)).unwrap().pod.used);
    }
}

#[test]
fn a_peers_network_is_remapped_only_when_it_must_be() {
    let other_pools = strings(&["100.64.0.0/10"]);
    let base = Plan::default().configure(POD, SERVICE, &strings(&["10.50.0.0/16"]), &other_pools).unwrap();
    let base = base.assign("first", "10.60.0.0/16", "10.61.0.0/16", &open()).unwrap();
    let cases = [
        ("outside all pools", "11.0.0.0/16", "11.0.0.0/16"),
        ("free in a pool", "10.1.0.0/16", "10.1.0.0/16"),
        ("our pods", POD, "10.97.0.0/16"),
        ("our Services", SERVICE, "10.97.0.0/16"),
        ("our external network", "10.51.0.0/16", "10.97.0.0/16"),
        ("part of ours", "10.244.3.0/24", "10.97.0.0/24"),
        ("reserved", "10.50.0.0/16", "10.97.0.0/16"),
        ("parent of a reserved one", "10.48.0.0/14", "10.52.0.0/14"),
        ("another peer's", "10.60.0.0/16", "10.97.0.0/16"),
        ("a pool", "192.168.0.0/16", "10.97.0.0/16"),
        ("a whole pool that is in use", "10.0.0.0/8", ""),
        ("larger than a pool", "172.0.0.0/8", ""),
    ];
    for (case, announced, expected) in cases {
        let outcome = base.assign("new", announced, "44.0.0.0/16", &open());
        match outcome {
            Ok(plan) => assert_eq!(used(&plan, "new").0, expected, "{case}"),
            Err(refusal) => {
                assert!(expected.is_empty() && refusal.to_string().contains("no pool has"), "{case}: {refusal}")
            }
        }
    }
}

#[test]
fn a_whole_free_pool_is_given_only_when_nothing_else_is_left() {
    let all_of_ten = strings(&["10.0.0.0/10", "10.64.0.0/11", "10.128.0.0/9", "172.16.0.0/12"]);
    let plan = Plan::default().configure("11.0.0.0/16", "11.1.0.0/16", &all_of_ten, &[]).unwrap();
    assert_eq!(plan.own().unwrap()[2], net("10.96.0.0/16"), "the rest of 10/8 is 10.96.0.0/11");
    let one = plan.assign("one", "192.168.0.0/16", "44.0.0.0/16", &open()).unwrap();
    assert_eq!(used(&one, "one").0, "10.97.0.0/16", "there is room elsewhere");
    let mut reserved = all_of_ten;
    reserved.extend(strings(&["10.97.0.0/16", "10.98.0.0/15", "10.100.0.0/14", "10.104.0.0/13", "10.112.0.0/12"]));
    let tight = plan.configure("11.0.0.0/16", "11.1.0.0/16", &reserved, &[]).unwrap();
    let two = tight.assign("two", "192.168.0.0/16", "44.0.0.0/16", &open()).unwrap();
    assert_eq!(used(&two, "two").0, "192.168.0.0/16");
    let refusal = two.assign("three", "192.168.7.0/24", "45.0.0.0/16", &open()).unwrap_err();
    assert!(matches!(refusal, Refusal::PoolsExhausted { length: 24, .. }), "{refusal}");
}

#[test]
fn what_a_peer_cannot_announce_is_refused_and_changes_nothing() {
    let plan = plan();
    let cases = [
        ("0.0.0.0/0", "10.1.0.0/16", "every address there is"),
        ("10.1.0.0/16", "0.0.0.0/0", "external network of cluster x"),
        ("127.0.0.0/8", "10.1.0.0/16", "loopback"),
        ("224.0.0.0/16", "10.1.0.0/16", "multicast"),
        ("169.254.0.0/16", "10.1.0.0/16", "link-local"),
        ("10.1.0.7/16", "10.2.0.0/16", "the network is 10.1.0.0/16"),
        ("garbage", "10.1.0.0/16", "is not a network"),
        ("", "", "is not a network"),
        ("fd00::/64", "10.1.0.0/16", "another IP version"),
        ("10.1.0.0/16", "10.1.128.0/17", "overlaps pod network of cluster x"),
        ("10.1.0.0/32", "10.2.0.0/16", "too small"),
    ];
    for (pod, external, expected) in cases {
        let refusal = plan.assign("x", pod, external, &open()).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{pod} {external}: {refusal}");
    }
}

#[test]
fn the_pod_network_is_not_kept_when_there_is_none_left_for_the_external_one() {
    let pools = strings(&[
        "192.168.0.0/17",
        "192.168.128.0/18",
        "172.16.0.0/12",
        "10.0.0.0/9",
        "10.128.0.0/10",
        "10.192.0.0/11",
        "10.224.0.0/12",
        "10.240.0.0/14",
        "10.248.0.0/13",
    ]);
    let plan = Plan::default().configure("10.246.0.0/17", "10.246.128.0/17", &pools, &[]).unwrap();
    // Free: 192.168.192.0/18, 10.244.0.0/15 less the external network, 10.247.0.0/16.
    let refusal = plan.assign("x", "10.246.0.0/16", "10.0.0.0/15", &open()).unwrap_err();
    assert!(matches!(refusal, Refusal::PoolsExhausted { length: 15, .. }), "{refusal}");
    assert!(plan.peer("x").is_none());
}

#[test]
fn a_changed_announcement_is_followed_and_what_fits_stays() {
    let first = plan().assign("x", POD, "10.97.0.0/16", &open()).unwrap();
    let first = first.learn("x", None, Some("10.98.0.0/16")).unwrap();
    assert_eq!(
        first.assign("x", POD, "10.97.0.0/16", &open()).unwrap(),
        first,
        "the same announcement changes nothing"
    );
    let second = first.assign("x", "10.1.0.0/16", "10.97.0.0/16", &open()).unwrap();
    assert_eq!(used(&second, "x"), ("10.1.0.0/16".to_owned(), "10.98.0.0/16".to_owned()));
    assert_eq!(second.peer("x").unwrap().seen, first.peer("x").unwrap().seen);
    let back = second.assign("x", POD, "10.97.0.0/16", &open()).unwrap();
    assert_eq!(used(&back, "x"), ("10.99.0.0/16".to_owned(), "10.98.0.0/16".to_owned()), "chosen anew");
    assert_eq!(back.held().count(), first.held().count(), "what was left is free again");
    let swapped = second.assign("x", "10.98.0.0/16", "10.1.0.0/16", &open()).unwrap();
    assert_eq!(used(&swapped, "x"), ("10.98.0.0/16".to_owned(), "10.1.0.0/16".to_owned()));
}

#[test]
fn own_configuration_is_checked() {
    let configure = |pod, service, reserved: &[&str], pools: &[&str]| {
        Plan::default().configure(pod, service, &strings(reserved), &strings(pools))
    };
    let cases = [
        (configure("10.244.0.0", SERVICE, &[], &[]), "pod network \"10.244.0.0\" is not a network"),
        (configure(POD, "10.96.0.1/16", &[], &[]), "the network is 10.96.0.0/16"),
        (configure(POD, "10.244.128.0/17", &[], &[]), "pod network 10.244.0.0/16 overlaps service network"),
        (configure(POD, SERVICE, &["10.244.7.0/24"], &[]), "overlaps our pod network 10.244.0.0/16"),
        (configure(POD, SERVICE, &["10.0.0.0/8"], &[]), "overlaps our pod network"),
        (configure(POD, SERVICE, &["10.1.0.0/16", "10.1.2.0/24"], &[]), "overlaps the reserved network 10.1.0.0/16"),
        (configure(POD, SERVICE, &["nonsense"], &[]), "reserved network \"nonsense\""),
        (configure(POD, SERVICE, &[], &["10.0.0.0/8"]), "additional pool 10.0.0.0/8 overlaps the pool 10.0.0.0/8"),
        (configure(POD, SERVICE, &[], &["11.0.0.0/8", "11.1.0.0/16"]), "overlaps the pool 11.0.0.0/8"),
        (configure("fd00::/48", "fd01::/112", &[], &[]), "add a pool with --manager.additional-pools"),
    ];
    for (outcome, expected) in cases {
        let refusal = outcome.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    let six = configure("fd00::/64", "fd01::/112", &[], &["fd10::/48"]).unwrap();
    assert_eq!(six.own().unwrap()[2], net("fd10::/64"));
    let plan = plan();
    assert_eq!(plan.configure(POD, SERVICE, &[], &[]).unwrap(), plan, "the same again changes nothing");
    let refusal = plan.configure("10.1.0.0/16", SERVICE, &[], &[]).unwrap_err().to_string();
    assert!(refusal.starts_with("trying to change pod network from 10.244.0.0/16 to 10.1.0.0/16"), "{refusal}");
    assert!(plan.configure(POD, "10.1.0.0/16", &[], &[]).is_err());
}

#[test]
fn reserved_networks_and_pools_may_change() {
    let with = |plan: &Plan, reserved: &[&str], pools: &[&str]| {
        plan.configure(POD, SERVICE, &strings(reserved), &strings(pools))
    };
    let plan = with(&plan(), &["10.1.0.0/16", "10.2.0.0/16"], &[]).unwrap();
    let plan = with(&plan, &["10.2.0.0/16", "10.3.0.0/16"], &["44.0.0.0/16"]).unwrap();
    let peer = plan.assign("x", "10.1.0.0/16", "10.2.0.0/16", &open()).unwrap();
    assert_eq!(used(&peer, "x").0, "10.1.0.0/16", "no longer reserved");
    assert_ne!(used(&peer, "x").1, "10.2.0.0/16", "still reserved");
    let refusal = with(&peer, &["10.1.2.0/24"], &[]).unwrap_err().to_string();
    assert!(refusal.contains("the pod network used for cluster x 10.1.0.0/16"), "{refusal}");
    let fewer = with(&peer, &[], &[]).unwrap();
    assert_eq!(fewer.peer("x"), peer.peer("x"));
}

#[test]
fn endpoints_are_mapped_once_for_all_peers_and_freed_with_the_last() {
    let plan = plan().assign("a", "11.0.0.0/16", "11.1.0.0/16", &open()).unwrap();
    let plan = plan.assign("b", "12.0.0.0/16", "12.1.0.0/16", &open()).unwrap();
    assert_eq!(plan.map_endpoint("a", ip("1.2.3.4")), Err(Refusal::NotYetSeen("a".to_owned())));
    assert_eq!(plan.map_endpoint("c", ip("1.2.3.4")), Err(Refusal::UnknownPeer("c".to_owned())));
    let plan = plan.learn("a", None, None).unwrap();
    let plan = plan.learn("b", Some("20.0.0.0/16"), Some("20.1.0.0/16")).unwrap();
    let (one, for_a) = plan.map_endpoint("a", ip("1.2.3.4")).unwrap();
    let (two, for_b) = one.map_endpoint("b", ip("1.2.3.4")).unwrap();
    assert_eq!((for_a, for_b), (ip("10.97.0.2"), ip("20.1.0.2")));
    assert_eq!(two.map_endpoint("b", ip("1.2.3.4")).unwrap(), (two.clone(), for_b), "asking twice is asking once");
    assert_eq!(two.map_endpoint("a", ip("1.2.3.5")).unwrap().1, ip("10.97.0.3"));
    assert_eq!(two.map_endpoint("a", ip("10.244.1.2")).unwrap().1, ip("10.244.1.2"));
    assert_eq!(two.map_endpoint("b", ip("10.244.1.2")).unwrap().1, ip("20.0.1.2"));
    let left = two.unmap_endpoint("a", ip("1.2.3.4"));
    assert_eq!(left.map_endpoint("a", ip("1.2.3.5")).unwrap().1, ip("10.97.0.3"), "b still uses the first");
    let none = left.unmap_endpoint("b", ip("1.2.3.4")).unmap_endpoint("b", ip("1.2.3.4"));
    assert_eq!(none, plan, "everything is given back");
    assert_eq!(two.forget("b").unmap_endpoint("a", ip("1.2.3.4")), plan.forget("b"));
}

#[test]
fn what_a_peer_sees_follows_what_it_says() {
    let plan = plan().assign("a", POD, "10.97.0.0/16", &open()).unwrap().learn("a", None, None).unwrap();
    let (plan, before) = plan.map_endpoint("a", ip("1.2.3.4")).unwrap();
    let plan = plan.learn("a", Some("10.30.0.0/16"), Some("10.31.0.0/16")).unwrap();
    let expected = [(TUNNEL_ADDRESS, ip("10.31.0.1")), (ip("1.2.3.4"), ip("10.31.0.2"))];
    assert_eq!((before, plan.translations("a")), (ip("10.97.0.2"), BTreeMap::from(expected)));
    for bad in ["10.30.0.0/17", "10.30.0.0/15", "fd00::/16", "10.30.0.1/16", "None", "127.0.0.0/16"] {
        assert!(plan.learn("a", Some(bad), None).is_err(), "{bad}");
    }
    assert_eq!(plan.learn("nobody", None, None), Err(Refusal::UnknownPeer("nobody".to_owned())));
}

#[test]
fn what_is_valid_on_one_machine_only_is_not_exported() {
    let plan = plan().assign("a", POD, "10.97.0.0/16", &open()).unwrap().learn("a", None, None).unwrap();
    for bad in
        ["127.0.0.1", "169.254.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "fd00::1"]
    {
        let refusal = plan.map_endpoint("a", ip(bad)).unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("address {bad} cannot be exported")), "{refusal}");
        assert_eq!(plan.unmap_endpoint("a", ip(bad)), plan);
    }
}

#[test]
fn a_full_external_network_says_so() {
    let plan = Plan::default().configure("10.244.0.0/29", SERVICE, &[], &[]).unwrap();
    let mut plan = plan.assign("a", "11.0.0.0/16", "11.1.0.0/16", &open()).unwrap().learn("a", None, None).unwrap();
    for last in 1..=5 {
        plan = plan.map_endpoint("a", ip(&format!("1.1.1.{last}"))).unwrap().0;
    }
    let external = plan.own().unwrap()[2];
    assert_eq!(plan.map_endpoint("a", ip("1.1.1.6")), Err(Refusal::ExternalExhausted(external)));
    let plan = plan.unmap_endpoint("a", ip("1.1.1.3"));
    assert!(plan.map_endpoint("a", ip("1.1.1.6")).is_ok());
}

#[test]
fn pods_of_a_peer_are_reached_where_its_network_is_here() {
    let plan = plan().assign("a", POD, "10.97.0.0/16", &open()).unwrap();
    assert_eq!(plan.home_pod_ip("a", ip("10.244.1.2")).unwrap(), ip("10.245.1.2"));
    let refusal = plan.home_pod_ip("a", ip("172.18.0.3")).unwrap_err().to_string();
    assert_eq!(refusal, "address 172.18.0.3 is not in the pod network of cluster a, 10.244.0.0/16");
    assert_eq!(plan.home_pod_ip("b", ip("10.244.1.2")), Err(Refusal::UnknownPeer("b".to_owned())));
    assert_eq!(plan.belongs_to_pod_network(ip("10.244.255.255")), Ok(true));
    assert_eq!(plan.belongs_to_pod_network(ip("10.245.0.1")), Ok(false));
    assert_eq!(Plan::default().belongs_to_pod_network(ip("10.245.0.1")), Err(Refusal::NotConfigured));
    assert_eq!(Plan::default().assign("a", POD, POD, &open()), Err(Refusal::NotConfigured));
}

#[test]
fn a_peers_network_covers_nothing_this_cluster_lives_on() {
    let around = Around {
        vital: vec![(net("172.30.0.11/32"), "the address of node n1".to_owned())],
        gateways: vec![net("203.0.113.9/32"), net("10.9.0.4/32")],
        public: false,
    };
    let cases = [
        ("private, nothing in the way", "10.1.0.0/16", "10.1.0.0/16"),
        ("shared address space", "100.64.0.0/16", "100.64.0.0/16"),
        ("a node", "172.30.0.8/29", "10.98.0.0/29"),
        ("the nodes' network", "172.30.0.0/16", "10.98.0.0/16"),
        ("a gateway of a peer", "10.9.0.0/16", "10.98.0.0/16"),
        ("public", "8.8.8.0/24", "10.98.0.0/24"),
        ("public, with a gateway", "203.0.113.0/24", "10.98.0.0/24"),
        ("partly public", "172.0.0.0/11", "10.128.0.0/11"),
    ];
    for (case, announced, expected) in cases {
        let plan = plan().assign("x", announced, "10.2.0.0/16", &around);
        let got = plan.map(|plan| used(&plan, "x").0);
        assert!(got.as_ref().is_ok_and(|got| net(got).prefix_len() == net(expected).prefix_len()), "{case}: {got:?}");
        let got = net(&got.unwrap());
        assert_eq!(got == net(announced), expected == announced, "{case}: {got}");
        assert!(around.networks().all(|one| !overlap(&one, &got)), "{case}: {got}");
        assert!(crate::network::is_private(&got), "{case}: {got}");
    }
    let pooled = Plan::default().configure(POD, SERVICE, &[], &strings(&["8.0.0.0/8"])).unwrap();
    assert_eq!(used(&pooled.assign("x", "8.8.8.0/24", "10.2.0.0/16", &around).unwrap(), "x").0, "8.8.8.0/24");
    let public = Around { public: true, ..around };
    assert_eq!(used(&plan().assign("x", "8.8.8.0/24", "10.2.0.0/16", &public).unwrap(), "x").0, "8.8.8.0/24");
}

#[test]
fn what_comes_later_into_a_peers_network_is_told_and_moves_nobody() {
    let before = plan().assign("x", "172.30.0.0/16", "10.2.0.0/16", &open()).unwrap();
    assert_eq!(before.covered("x", &open()), None);
    let node = Around { vital: vec![(net("172.30.0.11/32"), "the address of node n1".to_owned())], ..open() };
    assert_eq!(before.assign("x", "172.30.0.0/16", "10.2.0.0/16", &node).unwrap(), before);
    let why = before.covered("x", &node).unwrap().to_string();
    assert!(why.contains("172.30.0.0/16 covers 172.30.0.11/32, the address of node n1"), "{why}");
    let gateway = Around { gateways: vec![net("172.30.0.11/32")], ..open() };
    assert_eq!(before.covered("x", &gateway), None, "what another peer says closes nothing");
    assert_eq!(before.peer_at(ip("172.30.7.7"), "y"), Some("x"));
    assert_eq!((before.peer_at(ip("172.30.7.7"), "x"), before.peer_at(ip("1.1.1.1"), "y")), (None, None));
}

#[test]
fn no_cluster_is_the_internet_or_a_handful_of_addresses() {
    for (announced, fits) in [
        ("8.0.0.0/7", false),
        ("10.0.0.0/29", true),
        ("10.0.0.0/30", false),
        ("10.1.0.0/24", true),
        ("10.1.0.0/16", true),
    ] {
        let outcome = plan().assign("x", announced, "10.2.0.0/16", &open());
        assert_eq!(outcome.is_ok(), fits, "{announced}");
        assert!(outcome.err().is_none_or(|why| why.to_string().contains("from /8 to /29")), "{announced}");
    }
}

#[test]
fn a_peer_has_only_so_many_addresses() {
    let plan = plan().assign("a", "10.1.0.0/16", "10.2.0.0/16", &open()).unwrap().learn("a", None, None).unwrap();
    let mut plan = plan.assign("b", "10.3.0.0/16", "10.4.0.0/16", &open()).unwrap().learn("b", None, None).unwrap();
    let address = |index: usize| IpAddr::from(u32::try_from(0x0101_0000 + index).unwrap().to_be_bytes());
    let given = |clusters: &[&str], index: usize| {
        let clusters = clusters.iter().map(ToString::to_string).collect();
        (address(index), Endpoint { external: nth(&net("10.97.0.0/16"), u32::try_from(index + 2).unwrap()), clusters })
    };
    plan.endpoints = (0..crate::MAPPINGS_OF_PEER).map(|index| given(&["a"], index)).collect();
    let refusal = plan.map_endpoint("a", address(5000)).unwrap_err();
    assert_eq!(refusal, Refusal::TooManyOfPeer { cluster: "a".to_owned(), limit: crate::MAPPINGS_OF_PEER });
    assert!(plan.map_endpoint("a", address(7)).is_ok(), "what is in use is answered");
    assert!(plan.map_endpoint("b", address(5000)).is_ok(), "another peer has its own");
    let rest = crate::MAPPINGS - crate::MAPPINGS_OF_PEER;
    plan.endpoints.extend((0..rest).map(|index| given(&["a", "b"], index)));
    assert_eq!(plan.mapping_count(), crate::MAPPINGS);
    assert_eq!(plan.map_endpoint("b", address(5000)), Err(Refusal::TooMany { limit: crate::MAPPINGS }));
}

#[test]
fn gateways_are_single_machines_somewhere_else() {
    for good in ["172.30.0.12", "203.0.113.9", "fd00::1", "2001:db8::1"] {
        assert!(crate::is_unicast(ip(good)), "{good}");
    }
    for bad in [
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "ff02::1",
    ] {
        assert!(!crate::is_unicast(ip(bad)), "{bad}");
    }
}
