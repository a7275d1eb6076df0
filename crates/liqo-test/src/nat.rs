//! A router that hides a cluster, as the one of a home or an office does: its nodes reach everybody, nobody reaches them.
//!
//! Kept true: what leaves bears the router's address, and only answers come back in. The host, where the tests are, is let
//! in without translation, so that kubeconfigs work.

use anyhow::Result;

use crate::{
    cluster::Node,
    record::Record,
    run::{batch, forward, ip, nft},
};

/// The first three numbers of the addresses behind every router of the test bed.
pub(crate) fn net(record: &Record) -> String {
    format!("172.31.{}", record.slot)
}

/// The bridge, in the namespace of the wire, of the nodes behind router `number`.
pub(crate) fn bridge(number: u32) -> String {
    format!("nat{number}")
}

/// The router's address outside.
fn outside(record: &Record, number: u32) -> String {
    format!("{}.{}", record.net(), 200 + number)
}

/// Makes router `number`: its bridge, its two legs and its rules.
pub(crate) fn lay(record: &Record, number: u32) -> Result<()> {
    let (wan, router, bridge) = (record.wan(), format!("{}nat{number}", record.prefix()), bridge(number));
    batch(&wan, &format!("link add {bridge} type bridge\nlink set dev {bridge} up\n"))?;
    ip("", &format!("netns add {router}"))?;
    for (leg, master) in [("out", "br0"), ("in", bridge.as_str())] {
        let plug = format!("{leg}{number}");
        ip("", &format!("link add {leg} netns {router} type veth peer name {plug} netns {wan}"))?;
        ip(&wan, &format!("link set dev {plug} master {master} up"))?;
    }
    let (outside, inside, host) = (outside(record, number), net(record), format!("{}.1", record.net()));
    let lines = format!(
        "link set lo up\naddr add {outside}/24 dev out\naddr add {inside}.1/24 dev in\nlink set dev out up\n\
         link set dev in up\nroute add default via {host}\n"
    );
    batch(&router, &lines)?;
    forward(&router)?;
    nft(
        &router,
        &format!(
            "table ip router {{
               chain hide {{
                 type nat hook postrouting priority srcnat;
                 iifname in oifname out ip daddr != {host} masquerade
               }}
               chain admit {{
                 type filter hook forward priority filter; policy drop;
                 iifname in accept
                 ct state established,related accept
                 ip saddr {host} accept
               }}
             }}\n"
        ),
    )
}

/// Lets the host reach a node behind router `number`.
pub(crate) fn admit(record: &Record, node: &Node, number: u32) -> Result<()> {
    ip("", &format!("route replace {}/32 via {} dev {}", node.ip, outside(record, number), record.host_link()))
}
