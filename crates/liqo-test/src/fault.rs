//! Faults on demand: on the wire here, on nodes and from strangers in `host`, on processes in [`crate::process::Daemon`].
//!
//! All faults of the wire are rules of one nftables table in the bridge's namespace, written anew from the list in
//! `faults.json` at each change. They act on frames as they cross the bridge, in both directions of a leg: between nodes
//! of all clusters and between a node and the host.
//!
//! This kernel may lack `sch_netem`. Loss is nftables' random numbers, a rate is `tbf`, and delay is a small program that
//! carries the frames of a leg itself ([`delay`]).

mod host;

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, Testbed,
    cluster::Node,
    delay,
    record::Record,
    run::{ip, nft, write},
};

pub use host::Garbage;

/// What is wrong with the wire now.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Faults {
    legs: BTreeMap<String, Leg>,
    /// Pairs of legs that do not see each other.
    apart: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Leg {
    loss: u8,
    mtu: u32,
    /// The legs on this side of the black hole.
    home: Vec<String>,
    rate: u32,
    delay: u32,
}

/// The legs of some nodes.
#[derive(Debug)]
pub struct Link {
    record: Record,
    nodes: Vec<Node>,
}

impl Cluster {
    /// The legs of all real nodes.
    pub fn link(&self) -> Link {
        Link { record: self.record().clone(), nodes: self.nodes() }
    }

    /// The leg of one node.
    pub fn node_link(&self, node: &str) -> Result<Link> {
        Ok(Link { record: self.record().clone(), nodes: vec![self.node(node)?] })
    }
}

impl Link {
    /// Pulls the cable: the nodes reach nobody and nobody reaches them.
    pub fn cut(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| ip(&self.record.wan(), &format!("link set dev {} down", node.leg())))
    }

    /// Plugs it in again.
    pub fn restore(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| ip(&self.record.wan(), &format!("link set dev {} up", node.leg())))
    }

    /// Loses this share of the frames, in each direction; 0 ends it.
    pub fn loss(&self, percent: u8) -> Result<()> {
        ensure!(percent <= 100, "a loss of {percent} % is not possible");
        self.change(|leg| leg.loss = percent)
    }

    /// Swallows IP packets to and from other clusters that are longer than this, without a word to the sender: an MTU black
    /// hole on the way between them; 0 ends it. Between the nodes themselves, and with the host, nothing changes.
    pub fn black_hole(&self, mtu: u32) -> Result<()> {
        let home: Vec<_> = self.nodes.iter().map(Node::leg).collect();
        self.change(|leg| (leg.mtu, leg.home) = (mtu, home.clone()))
    }

    /// Lets no more than this many Mbit/s into the nodes; 0 ends it.
    pub fn rate(&self, mbit: u32) -> Result<()> {
        self.change(|leg| leg.rate = mbit)
    }

    /// Delays every frame by this, in each direction; 0 ends it.
    pub fn delay(&self, milliseconds: u32) -> Result<()> {
        self.change(|leg| leg.delay = milliseconds)
    }

    fn change(&self, change: impl Fn(&mut Leg)) -> Result<()> {
        alter(&self.record, |faults| {
            for node in &self.nodes {
                let leg = faults.legs.entry(node.leg()).or_default();
                let before = leg.clone();
                change(leg);
                // One frame, one packet: what offloading glued together would be lost or swallowed as a whole. It stays so: what comes
                // from elsewhere must be so, too, and a healed bed is most often hurt again.
                ip(&node.netns, "link set dev eth0 gso_max_segs 1")?;
                if before.rate != leg.rate {
                    shape(&self.record, node, leg.rate)?;
                }
                if before.delay != leg.delay {
                    delay::set(&self.record, node, leg.delay)?;
                }
            }
            Ok(())
        })
    }
}

impl Testbed {
    /// Cuts two clusters from each other; the host still reaches both.
    pub fn part(&self, one: &Cluster, other: &Cluster) -> Result<()> {
        alter(self.record(), |faults| {
            for a in one.nodes() {
                faults.apart.extend(other.nodes().iter().map(|b| (a.leg(), b.leg())));
            }
            Ok(())
        })
    }

    /// Ends every fault of the wire.
    pub fn heal(&self) -> Result<()> {
        for cluster in self.existing()? {
            let link = cluster.link();
            link.restore()?;
            link.change(|leg| *leg = Leg::default())?;
        }
        alter(self.record(), |faults| {
            faults.apart.clear();
            Ok(())
        })
    }
}

fn alter(record: &Record, change: impl FnOnce(&mut Faults) -> Result<()>) -> Result<()> {
    let lock = fs::File::create(record.dir.join("faults.lock"))?;
    lock.lock()?;
    let file: PathBuf = record.dir.join("faults.json");
    let mut faults: Faults =
        fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    change(&mut faults)?;
    nft(&record.wan(), &rules(&faults)).context("cannot set the faults of the wire")?;
    write(&file, serde_json::to_vec_pretty(&faults)?)
}

fn rules(faults: &Faults) -> String {
    let mut rules = String::new();
    for (leg, fault) in &faults.legs {
        let home = format!("{{ host, {} }}", fault.home.join(", "));
        for (direction, other) in [("iifname", "oifname"), ("oifname", "iifname")] {
            match fault.loss {
                0 => {}
                100 => rules += &format!("  {direction} {leg} drop\n"),
                loss => rules += &format!("  {direction} {leg} numgen random mod 100 < {loss} drop\n"),
            }
            if fault.mtu > 0 {
                rules +=
                    &format!("  {direction} {leg} {other} != {home} ether type ip meta length > {} drop\n", fault.mtu);
            }
        }
    }
    for (a, b) in &faults.apart {
        // A leg that is delayed has a stand-in in the bridge.
        let [a, b] = [a, b].map(|leg| format!("{{ {leg}, {} }}", delay::stand_in(leg)));
        rules += &format!("  iifname {a} oifname {b} drop\n  iifname {b} oifname {a} drop\n");
    }
    format!(
        "table bridge faults\ndelete table bridge faults\ntable bridge faults {{\n chain cross {{\n  \
         type filter hook forward priority 0;\n{rules} }}\n}}\n"
    )
}

fn shape(record: &Record, node: &Node, mbit: u32) -> Result<()> {
    let (wan, leg) = (record.wan(), node.leg());
    let tc = |words: &str| {
        let mut tc = crate::run::command("tc");
        crate::run::output(tc.args(["-n", &wan]).args(words.split_whitespace())).map(drop)
    };
    if mbit == 0 {
        // There may be nothing to delete.
        let _ = tc(&format!("qdisc del dev {leg} root"));
        return Ok(());
    }
    tc(&format!("qdisc replace dev {leg} root tbf rate {mbit}mbit burst 64kb latency 100ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_acts_in_both_directions() {
        let mut faults = Faults::default();
        let home = vec!["leg1".to_owned(), "leg3".to_owned()];
        faults.legs.insert("leg1".into(), Leg { loss: 10, mtu: 1400, home, ..Leg::default() });
        faults.apart.push(("leg1".into(), "leg2".into()));
        let rules = rules(&faults);
        for rule in [
            "iifname leg1 numgen",
            "oifname leg1 numgen",
            "oifname leg1 iifname != { host, leg1, leg3 } ether type ip meta length > 1400 drop",
        ] {
            assert!(rules.contains(rule), "{rule} is not in {rules}");
        }
        assert!(rules.contains("iifname { leg2, far2 } oifname { leg1, far1 } drop"));
    }
}
