//! The provider's gateway gets another node port, in the worst order: the consumers' first packets to the new port come before
//! kube-proxy translates that port. Connection tracking then remembers the packets as not translated, and each further packet
//! keeps that memory alive.

use anyhow::{Context, Result};
use liqo_test::{
    Cluster,
    run::{inside, nft, output},
    stage::LONG,
    wait_for,
};
use serde_json::Value;

use crate::connected_to;

/// The port milan's gateway moves to.
const ANOTHER_PORT: &str = "31871";
/// Senders whose packets came to the new port untranslated.
const EARLY: &str = "early";
/// Peers whose handshake, sent to the new port, was answered.
const ANSWERED: &str = "answered";

/// Nobody runs anything in the consumers' clusters: their gateways follow to the new port, with a handshake.
pub(crate) fn followed(consumers: &[&Cluster], milan: &Cluster) -> Result<()> {
    let node = milan.node(&milan.first())?;
    note_arrivals(&node.netns)?;
    let proxy = milan.component("kube-proxy");
    proxy.freeze()?;
    let early = move_port(milan).and_then(|()| wait_for_all(&node.netns, EARLY, consumers.len()));
    proxy.thaw()?;
    early?;
    wait_for_all(&node.netns, ANSWERED, consumers.len())?;
    consumers.iter().try_for_each(|consumer| connected_to(consumer, &node.ip, ANOTHER_PORT))
}

fn move_port(milan: &Cluster) -> Result<()> {
    let ports = format!(r#"[{{"op":"replace","path":"/spec/ports/0/nodePort","value":{ANOTHER_PORT}}}]"#);
    milan.kubectl(&["patch", "service", "-n", "liqo", "liqo-gateway", "--type=json", "-p", &ports]).map(drop)
}

/// The first octet of a WireGuard message is its type: 2 answers a handshake.
fn note_arrivals(netns: &str) -> Result<()> {
    nft(
        netns,
        &format!(
            "table ip arrivals {{
               set {EARLY} {{ type ipv4_addr; flags dynamic; }}
               set {ANSWERED} {{ type ipv4_addr; flags dynamic; }}
               chain come {{
                 type filter hook input priority filter;
                 udp dport {ANOTHER_PORT} add @{EARLY} {{ ip saddr }}
               }}
               chain go {{
                 type filter hook output priority filter;
                 udp sport 5871 ct original proto-dst {ANOTHER_PORT} @th,64,8 2 add @{ANSWERED} {{ ip daddr }}
               }}
             }}\n"
        ),
    )
}

/// Waits until a set of [`note_arrivals`] holds `count` routers, one per consumer.
fn wait_for_all(netns: &str, set: &str, count: usize) -> Result<()> {
    wait_for(&format!("{count} consumers are in the set {set}"), LONG, || {
        let told = output(inside(netns, "nft").args(["-j", "list", "set", "ip", "arrivals", set]))?;
        let told: Value = serde_json::from_str(&told).context("nft tells no JSON")?;
        let known = told["nftables"].as_array().into_iter().flatten().find_map(|part| part["set"]["elem"].as_array());
        Ok((known.map_or(0, Vec::len) == count).then_some(()))
    })
}
