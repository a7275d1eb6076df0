//! The network under the clusters: one bridge, a leg per node, routes between pods.
//!
//! Kept true: traffic from pods to anything but pods they can reach directly is masqueraded to the node's address, on
//! whatever interface it leaves, as common CNIs do; between the pods of one cluster, and of clusters that were joined,
//! addresses stay as they are.

use std::fs;

use anyhow::{Result, ensure};

use crate::{
    cidr,
    cluster::{Cluster, Node},
    nat,
    record::Record,
    run::{batch, forward, inside, ip, nft, output, write},
};

/// Makes the bridge and the host's leg.
pub(crate) fn lay(record: &Record) -> Result<()> {
    let (wan, link, net) = (record.wan(), record.host_link(), record.net());
    ip("", &format!("netns add {wan}"))?;
    batch(&wan, "link set lo up\nlink add br0 type bridge\nlink set dev br0 up\n")?;
    ip("", &format!("link add {link} type veth peer name host netns {wan}"))?;
    ip(&wan, "link set dev host master br0 up")?;
    ip("", &format!("addr add {net}.1/24 dev {link}"))?;
    ip("", &format!("link set dev {link} up"))
}

/// Makes a node's network namespace and its leg; of the first node behind a router, the router too.
pub(crate) fn attach(record: &Record, node: &Node, strict_paths: bool) -> Result<()> {
    let (wan, netns, leg, bridge) = (record.wan(), &node.netns, node.leg(), node.bridge());
    if node.behind == Some(node.number) {
        nat::lay(record, node.number)?;
    }
    ip("", &format!("netns add {netns}"))?;
    ip("", &format!("link add eth0 netns {netns} type veth peer name {leg} netns {wan}"))?;
    ip(&wan, &format!("link set dev {leg} master {bridge} up"))?;
    ip(netns, "link set lo up")?;
    forward(netns)?;
    let filter = if strict_paths { "1" } else { "0" };
    let set = format!("for one in all default eth0; do echo {filter} >/proc/sys/net/ipv4/conf/$one/rp_filter; done");
    output(inside(netns, "sh").args(["-c", &set]))?;
    address(record, node)
}

/// Gives a node its address and its way out, in place of those it had.
pub(crate) fn address(record: &Record, node: &Node) -> Result<()> {
    let (address, net) = (&node.ip, node.net(record));
    batch(
        &node.netns,
        &format!(
            "addr flush dev eth0\naddr add {address}/24 dev eth0\nlink set dev eth0 up\nroute replace default via {net}.1\n"
        ),
    )?;
    node.behind.map_or(Ok(()), |number| nat::admit(record, node, number))
}

/// Remembers that the pods of these clusters reach each other, and makes it so.
pub(crate) fn join(record: &Record, clusters: &[&Cluster]) -> Result<()> {
    for (index, one) in clusters.iter().enumerate() {
        for other in &clusters[index + 1..] {
            let (a, b) = (&one.spec().pod_cidr, &other.spec().pod_cidr);
            ensure!(!cidr::overlap(a, b)?, "{} and {} share addresses: {a}, {b}", one.name(), other.name());
        }
    }
    let names: Vec<_> = clusters.iter().map(|cluster| cluster.name()).collect();
    write(&record.dir.join("joined.json"), serde_json::to_vec(&names)?)?;
    sync(record)
}

/// Brings routes and rules of all nodes in line with the clusters and nodes that exist now.
pub(crate) fn sync(record: &Record) -> Result<()> {
    let lock = fs::File::create(record.dir.join("wire.lock"))?;
    lock.lock()?;
    let joined: Vec<String> = fs::read(record.dir.join("joined.json"))
        .ok()
        .and_then(|names| serde_json::from_slice(&names).ok())
        .unwrap_or_default();
    let clusters = Cluster::all(record)?;
    for cluster in &clusters {
        let reaches = |other: &&Cluster| {
            other.name() == cluster.name()
                || [cluster, other].iter().all(|one| joined.iter().any(|it| it == one.name()))
        };
        let reached: Vec<_> = clusters.iter().filter(reaches).collect();
        let direct: Vec<_> = reached.iter().map(|other| other.spec().pod_cidr.as_str()).collect();
        let peers: Vec<Node> = reached.iter().flat_map(|other| other.nodes()).collect();
        let own_nodes = cluster.nodes().into_iter().filter(|_| cluster.spec().own_ranges).map(|node| node.ip);
        let direct: Vec<_> = direct.into_iter().map(str::to_owned).chain(own_nodes).collect();
        for node in cluster.nodes() {
            masquerade(&node, &cluster.spec().pod_cidr, &direct)?;
            route(&node, &peers)?;
        }
    }
    Ok(())
}

fn masquerade(node: &Node, own: &str, direct: &[String]) -> Result<()> {
    let direct = direct.join(", ");
    nft(
        &node.netns,
        &format!(
            "table ip testbed\ndelete table ip testbed\ntable ip testbed {{
               chain leave {{
                 type nat hook postrouting priority 99;
                 ip saddr {own} ip daddr != {{ {direct} }} masquerade
               }}
             }}\n"
        ),
    )
}

fn route(node: &Node, peers: &[Node]) -> Result<()> {
    let mut lines = String::new();
    for peer in peers.iter().filter(|peer| peer.netns != node.netns) {
        if let Some(pods) = &peer.pod_cidr {
            lines += &format!("route replace {pods} via {}\n", peer.ip);
        }
    }
    if lines.is_empty() { Ok(()) } else { batch(&node.netns, &lines) }
}
