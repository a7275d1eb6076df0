//! The baseline: two ends of the product's tunnel between two nodes, and nothing else.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use liqo_test::{cluster::Node, netns::Netns, run};
use liqo_tunnel::{Device, Engine, Peer, PrivateKey};

use crate::{Place, share::Share};

/// No port of the product.
const PORT: u16 = 5999;
const NAMES: [&str; 2] = ["bench-a", "bench-b"];
const ADDRESSES: [&str; 2] = ["192.168.99.1", TARGET];
/// Where the far end listens.
pub(crate) const TARGET: &str = "192.168.99.2";

/// Both ends; gone with this value.
pub(crate) struct Tunnel {
    ends: Vec<Box<dyn Engine>>,
    files: [PathBuf; 2],
}

impl Tunnel {
    /// Over the wire between two nodes, with the MTU that the product finds there.
    pub(crate) fn between(one: &Node, other: &Node) -> Result<Self> {
        let keys = [PrivateKey::generate()?, PrivateKey::generate()?];
        let mut tunnel = Self { ends: Vec::new(), files: NAMES.map(|name| Path::new("/run/netns").join(name)) };
        for (index, (node, far)) in [(one, other), (other, one)].into_iter().enumerate() {
            let _ = run::output(run::command("ip").args(["netns", "del", NAMES[index]]));
            run::output(run::command("ip").args(["netns", "add", NAMES[index]]))?;
            let inside = File::open(&tunnel.files[index]).context("no namespace")?;
            let device = Device { interface: "bench".to_owned(), port: PORT, key: keys[index].clone(), mtu: 1440 };
            let opened = Netns::open(&node.netns_file())?.run(move || {
                use std::os::fd::AsFd;
                liqo_tunnel::open(&device, inside.as_fd(), Some(liqo_tunnel::Implementation::Userspace))
            })?;
            let end = opened?;
            end.set_peers(&[Peer {
                key: keys[1 - index].public(),
                endpoint: Some(SocketAddr::new(far.ip.parse()?, PORT)),
                allowed: vec![format!("{}/32", ADDRESSES[1 - index]).parse().context("an address")?],
                keepalive: None,
            }])?;
            let name = NAMES[index];
            run::ip(name, &format!("addr add {}/24 dev bench", ADDRESSES[index]))?;
            run::ip(name, "link set dev lo up")?;
            tunnel.ends.push(end);
        }
        Ok(tunnel)
    }

    /// What sends and what receives, for these shares of the processor.
    pub(crate) fn ends<'a>(&'a self, [from, to]: [&'a Share; 2]) -> [Place<'a>; 2] {
        [(&self.files[0], from), (&self.files[1], to)]
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.ends.clear();
        for name in NAMES {
            let _ = run::output(run::command("ip").args(["netns", "del", name]));
        }
    }
}
