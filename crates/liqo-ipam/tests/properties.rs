//! What holds whatever happens, in any order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use liqo_api::net::IpamStorageSpec;
use liqo_ipam::{Around, Loaded, Plan, prefix_uses, remap};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

/// What may be asked of a plan.
#[derive(Clone, Debug)]
enum Step {
    Assign(u8, String, String),
    Learn(u8, Option<String>, Option<String>),
    Map(u8, IpAddr),
    Unmap(u8, IpAddr),
    Unlearn(u8),
    Forget(u8),
    Configure(Vec<String>, Vec<String>),
}

const POD: &str = "10.244.0.0/28";
const SERVICE: &str = "10.96.0.0/16";

fn start() -> Plan {
    // A small external network, so that it is full now and then.
    Plan::default().configure(POD, SERVICE, &[], &[]).expect("a good configuration")
}

/// A node and a gateway where peers' networks come from.
fn around() -> Around {
    let host = |text: &str| text.parse().expect("a network");
    Around {
        vital: vec![(host("10.8.3.3/32"), "a node".to_owned()), (host("192.168.0.7/32"), "a node".to_owned())],
        gateways: vec![host("10.9.3.3/32")],
        public: false,
    }
}

fn id(cluster: u8) -> String {
    format!("cluster-{cluster}")
}

/// Mostly networks that get in each other's way, some outside all pools, some that cannot be.
fn network() -> impl Strategy<Value = String> {
    let near = (any::<u8>(), 0_u8..8, 9_u8..=28).prop_map(|(b, c, length)| {
        let address = u32::from(Ipv4Addr::new(10, b, c, 0)) & (u32::MAX << (32 - length));
        format!("{}/{length}", Ipv4Addr::from(address))
    });
    let usual =
        prop::sample::select(vec![POD, SERVICE, "10.97.0.0/16", "192.168.0.0/16", "44.0.0.0/16", "45.0.0.0/28"]);
    let odd = prop::sample::select(vec!["0.0.0.0/0", "224.0.0.0/8", "fd00::/64", "", "10.0.0.1/8", "10.0.0.0/31"]);
    prop_oneof![4 => near, 4 => usual.prop_map(str::to_owned), 1 => odd.prop_map(str::to_owned)]
}

/// Whatever text.
fn announcement() -> impl Strategy<Value = String> {
    let any_network = (any::<u32>(), 0_u8..=32).prop_map(|(address, length)| {
        let address = if length == 0 { 0 } else { address & (u32::MAX << (32 - length)) };
        format!("{}/{length}", Ipv4Addr::from(address))
    });
    prop_oneof![4 => any_network, 4 => network(), 1 => ".{0,24}", 1 => "[0-9a-f:./]{0,24}"]
}

fn same_size() -> impl Strategy<Value = Option<String>> {
    let network = (0_u8..16).prop_map(|d| format!("30.0.0.{}/28", d * 16));
    prop_oneof![Just(None), network.prop_map(Some)]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let inside = (0_u8..16).prop_map(|d| IpAddr::from([10, 244, 0, d]));
    let outside = (0_u8..24).prop_map(|d| IpAddr::from([1, 2, 3, d]));
    let odd = prop::sample::select(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0_u8; 16])]);
    prop_oneof![3 => inside, 6 => outside, 1 => odd]
}

fn step() -> impl Strategy<Value = Step> {
    let cluster = 0_u8..5;
    prop_oneof![
        (cluster.clone(), network(), network()).prop_map(|(c, pod, external)| Step::Assign(c, pod, external)),
        (cluster.clone(), same_size(), same_size()).prop_map(|(c, pod, external)| Step::Learn(c, pod, external)),
        (cluster.clone(), address()).prop_map(|(c, ip)| Step::Map(c, ip)),
        (cluster.clone(), address()).prop_map(|(c, ip)| Step::Map(c, ip)),
        (cluster.clone(), address()).prop_map(|(c, ip)| Step::Unmap(c, ip)),
        cluster.clone().prop_map(Step::Unlearn),
        cluster.prop_map(Step::Forget),
        (prop::collection::vec(network(), 0..2), prop::collection::vec(network(), 0..2))
            .prop_map(|(reserved, pools)| Step::Configure(reserved, pools)),
    ]
}

/// The plan after a step; a refusal changes nothing, by construction.
fn after(plan: &Plan, step: &Step) -> Plan {
    let next = match step {
        Step::Assign(cluster, pod, external) => plan.assign(&id(*cluster), pod, external, &around()),
        Step::Learn(cluster, pod, external) => plan.learn(&id(*cluster), pod.as_deref(), external.as_deref()),
        Step::Map(cluster, ip) => plan.map_endpoint(&id(*cluster), *ip).map(|(plan, _)| plan),
        Step::Unmap(cluster, ip) => Ok(plan.unmap_endpoint(&id(*cluster), *ip)),
        Step::Unlearn(cluster) => Ok(plan.unlearn(&id(*cluster))),
        Step::Forget(cluster) => Ok(plan.forget(&id(*cluster))),
        Step::Configure(reserved, pools) => plan.configure(POD, SERVICE, reserved, pools),
    };
    next.unwrap_or_else(|_| plan.clone())
}

fn after_all(steps: &[Step]) -> Plan {
    steps.iter().fold(start(), |plan, step| after(&plan, step))
}

fn networks(spec: &IpamStorageSpec) -> Vec<IpNet> {
    let own = [&spec.pod_cidr, &spec.service_cidr, &spec.external_cidr];
    let peers = spec.cluster_subnets.values().flat_map(|one| [&one.remote_pod_cidr, &one.remote_external_cidr]);
    let texts = own.into_iter().chain(peers).chain(&spec.reserved_subnets);
    texts.map(|text| text.parse().expect("a network")).collect()
}

proptest! {
    #[test]
    fn fuzz_networks_never_overlap_and_addresses_are_never_given_twice(steps in prop::collection::vec(step(), 0..40)) {
        let mut plan = start();
        for step in &steps {
            plan = after(&plan, step);
            let spec = plan.store();
            let networks = networks(&spec);
            for (index, one) in networks.iter().enumerate() {
                let others = &networks[..index];
                prop_assert!(others.iter().all(|other| !one.contains(other) && !other.contains(one)), "{networks:?}");
            }
            prop_assert_eq!(prefix_uses(&spec).len(), networks.len());
            let external: IpNet = spec.external_cidr.parse().expect("a network");
            let mut given = BTreeSet::new();
            for mapping in spec.endpoint_mappings.values() {
                let ip: IpAddr = mapping.external_cidr_original_ip.parse().expect("an address");
                prop_assert!(external.contains(&ip) && ip != external.network() && ip != external.broadcast());
                prop_assert!(given.insert(ip), "{ip} given twice");
                prop_assert!(!mapping.cluster_mappings.is_empty(), "nobody uses {ip}");
            }
        }
    }

    #[test]
    fn fuzz_whatever_a_peer_announces_is_private_and_covers_nothing_vital(pod in announcement(), external in announcement(), steps in prop::collection::vec(step(), 0..20)) {
        let around = around();
        let Ok(plan) = after_all(&steps).assign("stranger", &pod, &external, &around) else { return Ok(()) };
        prop_assert_eq!(plan.covered("stranger", &around), None);
        let peer = plan.peer("stranger").expect("it was assigned");
        for used in [peer.pod.used, peer.external.used] {
            prop_assert!(around.gateways.iter().all(|gateway| !used.contains(gateway)), "{used}");
            let pools = plan.store().pools;
            let within = |text: &String| text.parse::<IpNet>().is_ok_and(|pool| pool.contains(&used));
            let shared: IpNet = "100.64.0.0/10".parse().expect("a network");
            prop_assert!(pools.iter().any(within) || shared.contains(&used), "{used}");
        }
    }

    #[test]
    fn fuzz_a_peer_sees_each_endpoint_at_an_address_of_its_own(steps in prop::collection::vec(step(), 0..40)) {
        let plan = after_all(&steps);
        for (cluster, mapping) in plan.peers().filter_map(|cluster| Some((cluster, plan.nat_mapping(cluster)?))) {
            let external: IpNet = mapping.external_cidr.parse().expect("a network");
            let seen: BTreeSet<_> = mapping.cluster_mappings.values().collect();
            prop_assert_eq!(seen.len(), mapping.cluster_mappings.len(), "for {}", cluster);
            for ip in seen {
                prop_assert!(external.contains(&ip.parse::<IpAddr>().expect("an address")));
            }
        }
    }

    #[test]
    fn fuzz_what_is_stored_is_what_is_read(steps in prop::collection::vec(step(), 0..40)) {
        let plan = after_all(&steps);
        let json = serde_json::to_string(&plan.store()).expect("a spec is JSON");
        let spec: IpamStorageSpec = serde_json::from_str(&json).expect("a spec");
        prop_assert_eq!(Plan::load(&spec), Loaded { plan, left_out: vec![] });
    }

    #[test]
    fn fuzz_anything_in_the_store_can_be_read(texts in prop::collection::vec(".{0,20}|[0-9./]{1,18}", 12)) {
        let mut spec = start().assign("cluster-0", "10.1.0.0/16", "10.2.0.0/16", &around()).expect("free networks").store();
        let value = |index: usize| texts[index].clone();
        (spec.pod_cidr, spec.external_cidr) = (value(0), value(1));
        spec.pools.push(value(2));
        spec.reserved_subnets.push(value(3));
        let subnets = spec.cluster_subnets.get_mut("cluster-0").expect("stored");
        (subnets.remote_pod_cidr, subnets.remote_external_cidr) = (value(4), value(5));
        (subnets.local_nat_pod_cidr, subnets.local_nat_external_cidr) = (value(6), value(7));
        spec.endpoint_mappings.insert(value(8), liqo_api::net::EndpointMapping {
            external_cidr_original_ip: value(9),
            cluster_mappings: BTreeMap::from([(value(10), Default::default())]),
        });
        for bytes in spec.prefixes.values_mut() {
            bytes.0 = value(11).into_bytes();
        }
        let Loaded { plan, .. } = Plan::load(&spec);
        prop_assert_eq!(Plan::load(&plan.store()).plan, plan);
    }

    #[test]
    fn fuzz_what_a_peer_was_given_comes_back_when_it_goes(steps in prop::collection::vec(step(), 0..30), more in prop::collection::vec(step(), 0..15)) {
        let before = after_all(&steps);
        let newcomer = 77;
        let of_newcomer = |step: Step| match step {
            Step::Assign(_, pod, external) => Step::Assign(newcomer, pod, external),
            Step::Learn(_, pod, external) => Step::Learn(newcomer, pod, external),
            Step::Map(_, ip) => Step::Map(newcomer, ip),
            Step::Unmap(_, ip) => Step::Unmap(newcomer, ip),
            Step::Unlearn(_) => Step::Unlearn(newcomer),
            Step::Forget(_) | Step::Configure(..) => Step::Forget(newcomer),
        };
        let with = more.into_iter().map(of_newcomer).fold(before.clone(), |plan, step| after(&plan, &step));
        prop_assert_eq!(with.forget(&id(newcomer)), before);
    }

    #[test]
    fn fuzz_whoever_differs_is_told(steps in prop::collection::vec(step(), 0..30), step in step()) {
        let before = after_all(&steps);
        let after = after(&before, &step);
        let differ = before.peers_that_differ(&after);
        for cluster in (0..5).map(id) {
            let view = |plan: &Plan| (plan.peer(&cluster).copied(), plan.nat_mapping(&cluster));
            prop_assert!(view(&before) == view(&after) || differ.contains(&cluster), "{cluster} was not told");
        }
        prop_assert!(before.peers_that_differ(&before).is_empty());
    }

    #[test]
    fn fuzz_mapping_then_unmapping_is_nothing(steps in prop::collection::vec(step(), 0..30), ip in address()) {
        let plan = after_all(&steps);
        let is_mapped = |cluster: &str| plan.translations(cluster).contains_key(&ip);
        for cluster in (0..5).map(id).filter(|cluster| !is_mapped(cluster)) {
            if let Ok((mapped, address)) = plan.map_endpoint(&cluster, ip) {
                prop_assert_eq!(mapped.map_endpoint(&cluster, ip), Ok((mapped.clone(), address)));
                prop_assert_eq!(mapped.unmap_endpoint(&cluster, ip), plan.clone());
            }
        }
    }

    #[test]
    fn fuzz_remapping_there_and_back_is_nothing(host in any::<u32>(), a in any::<u32>(), b in any::<u32>(), length in 1_u8..=32) {
        let net = |base: u32| IpNet::from(ipnet::Ipv4Net::new(base.into(), length).expect("a length")).trunc();
        let (from, to) = (net(a), net(b));
        let address = liqo_ipam::host_in(Ipv4Addr::from(host).into(), &from).expect("one IP version");
        let there = remap(address, &from, &to).expect("one size");
        prop_assert!(to.contains(&there));
        prop_assert_eq!(remap(there, &to, &from), Some(address));
    }
}
