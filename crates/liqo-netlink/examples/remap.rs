//! What remapping costs: CPU time of a packet through a router namespace, with no table and with 1 and 1,000 peers.
//!
//! A packet on a veth is forwarded inside the sender's `send`, so the sending thread's own CPU time is the whole path:
//! it does not depend on what else runs on the machine. `flow`: all packets of one connection; `new`: each packet
//! opens a connection, so each is looked up in the maps. Needs root. Prints a table.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a measurement prints its figures or ends"
)]

#[path = "../tests/bed/bed.rs"]
mod bed;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bed::{Ns, cable};
use liqo_netlink::nft::{
    Base, Chain, ChainKind, DataType, Datum, Family, Hook, Item, Key, KeyType, Rule, Set, Statement, Table, Target, is,
    rule, within,
};
use liqo_netlink::{Realm, State};
use rustix::time::{ClockId, clock_gettime};

const PACKETS: u32 = 200_000;
const ROUNDS: usize = 5;

fn main() {
    let (pod, router, peer) = (Ns::new(), Ns::new(), Ns::new());
    cable(&pod, "eth0", "10.244.1.5/24", &router, "in", "10.244.1.1/24");
    cable(&router, "out", "192.0.2.1/24", &peer, "eth0", "192.0.2.2/24");
    pod.run("ip route add default via 10.244.1.1");
    peer.run("ip address add 100.0.0.7/32 dev lo && ip route add 60.0.0.0/8 via 192.0.2.1");
    router.run("ip route add 100.0.0.0/8 via 192.0.2.2 && sysctl -qw net.ipv4.ip_forward=1");
    router.run("sysctl -qw net.netfilter.nf_conntrack_max=4000000");
    let realm = Realm { table: Some((Family::Ip, "liqo".into())), ..Realm::default() };
    let sink = peer.netns.enter(|| UdpSocket::bind("100.0.0.7:9")).unwrap().unwrap();
    let socket = pod.netns.enter(|| UdpSocket::bind("10.244.1.5:7777")).unwrap().unwrap();
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS} ...");
        rounds.push([None, Some(1), Some(1000)].map(|peers| {
            let wanted = State { table: peers.map(table), ..State::default() };
            let start = Instant::now();
            router.kernel.settle(&realm, &wanted).unwrap();
            let settle = start.elapsed();
            let flow = per_packet(&socket, |_| 9);
            // Ports above the sink's are refused by nobody: the peer drops what is for no socket.
            let new = per_packet(&socket, |at| 1000 + (at % 60_000) as u16);
            let _ = router.attempt("conntrack -F");
            Costs { flow, new, settle }
        }));
    }
    println!(
        "| packets through a router, per processor second | plain routing | 1 peer | 1,000 peers | 1 peer ÷ plain, median [range] | 1,000 peers ÷ plain | goal |"
    );
    println!("|---|---|---|---|---|---|---|");
    row("of one connection", ">= 0.75, flat", &rounds, |costs| costs.flow);
    row("each opens a connection", "", &rounds, |costs| costs.new);
    let settle = [1, 2].map(|at| median(rounds.iter().map(|round| round[at].settle.as_secs_f64() * 1e3).collect()));
    println!(
        "\nThe whole table is made or replaced in {:.1} ms for 1 peer, in {:.1} ms for 1,000.",
        settle[0], settle[1]
    );
    one_more(&router, &realm);
    drop(sink);
}

/// What one round costs with one table.
struct Costs {
    flow: Duration,
    new: Duration,
    settle: Duration,
}

/// Prints packets per second of all rounds, and how the tables compare with none in each.
fn row(name: &str, goal: &str, rounds: &[[Costs; 3]], of: fn(&Costs) -> Duration) {
    let rates = [0, 1, 2].map(|at| -> Vec<f64> {
        rounds.iter().map(|round| f64::from(PACKETS) / of(&round[at]).as_secs_f64()).collect()
    });
    let ratios = [1, 2].map(|at| {
        let mut ratios: Vec<_> = rates[at].iter().zip(&rates[0]).map(|(ours, plain)| ours / plain).collect();
        ratios.sort_by(f64::total_cmp);
        let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
        format!("{:.2} [{low:.2}–{high:.2}]", median(ratios))
    });
    let [plain, one, thousand] = rates.map(|rates| format!("{:.0}k", median(rates) / 1e3));
    println!("| {name} | {plain} | {one} | {thousand} | {} | {} | {goal} |", ratios[0], ratios[1]);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What this thread has used of a processor.
fn used() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
}

/// CPU time of this thread for sending all packets.
fn per_packet(socket: &UdpSocket, port: impl Fn(u32) -> u16) -> Duration {
    let start = used();
    for at in 0..PACKETS {
        let _ = socket.send_to(&[0; 64], SocketAddr::from(([100, 0, 0, 7], port(at))));
    }
    used().saturating_sub(start)
}

/// What it costs to look, and to add a peer, beside 10 and 1,000.
fn one_more(router: &Ns, realm: &Realm) {
    println!("\n| beside so many peers, processor time | add a peer | look after a change | look |\n|---|---|---|---|");
    for peers in [10, 1000] {
        router.kernel.settle(realm, &State { table: Some(table(peers)), ..State::default() }).unwrap();
        let wanted = State { table: Some(table(peers + 1)), ..State::default() };
        let timed = || {
            let start = used();
            router.kernel.settle(realm, &wanted).unwrap();
            used().saturating_sub(start)
        };
        let (add, read, same) = (timed(), timed(), timed());
        println!("| {peers} | {add:.1?} | {read:.1?} | {same:.1?} |");
    }
}

/// A gateway's table. Each peer has two prefixes, an image, an inbound pair and five exported addresses.
fn table(peers: u32) -> Table {
    let two = vec![KeyType::Ipv4, KeyType::Ipv4];
    let set = |keys, data| Set { keys, interval: true, data, elements: BTreeMap::new() };
    let mut remote = set(vec![KeyType::Ipv4], None);
    let mut images = set(vec![KeyType::Ipv4], Some(DataType::Prefix4));
    let mut inbound = set(two.clone(), None);
    let mut exports = set(two, Some(DataType::Ipv4));
    for peer in 0..peers {
        let net = |first: u32| -> Item {
            let text = format!("{}.{}.{}.0/24", first + peer / 65536, (peer / 256) % 256, peer % 256);
            Item::Net(text.parse().unwrap())
        };
        for first in [100, 110] {
            remote.elements.insert(vec![net(first)], None);
            images.elements.insert(vec![net(first)], Some(Datum::Prefix("60.1.0.0/16".parse().unwrap())));
        }
        inbound.elements.insert(vec![net(100), Item::Net("60.1.0.0/16".parse().unwrap())], None);
        for export in 0..5 {
            let address = std::net::IpAddr::from([10, 97, 0, export]);
            let target = Datum::Address("10.244.1.9".parse().unwrap());
            exports.elements.insert(vec![net(100), address.into()], Some(target));
        }
    }
    let own = "10.244.0.0/16".parse::<ipnet::IpNet>().unwrap();
    let pre = vec![
        rule("", [within(&[Key::Saddr, Key::Daddr], "inbound"), Statement::Dnat(Target::Prefix(own))]),
        rule("", [Statement::Dnat(Target::Map(vec![Key::Saddr, Key::Daddr], "exports".into()))]),
    ];
    let image = Target::Map(vec![Key::Daddr], "images".into());
    let post = vec![rule("", [is(Key::Saddr, own), within(&[Key::Daddr], "remote"), Statement::Snat(image)])];
    let nat = |hook, priority, rules: Vec<Rule>| Chain {
        base: Some(Base { kind: ChainKind::Nat, hook, priority, drop: false }),
        rules,
    };
    Table {
        family: Family::Ip,
        name: "liqo".into(),
        sets: [("remote", remote), ("images", images), ("inbound", inbound), ("exports", exports)]
            .map(|(name, set)| (name.to_owned(), set))
            .into(),
        chains: [("pre", nat(Hook::Prerouting, -101, pre)), ("post", nat(Hook::Postrouting, 99, post))]
            .map(|(name, chain)| (name.to_owned(), chain))
            .into(),
    }
}
