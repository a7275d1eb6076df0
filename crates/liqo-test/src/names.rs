//! Names outside of the clusters, like those of load balancers: a name server on a node.
//!
//! Kept true: what was told last is answered a second later, and nobody may remember it for longer than another one.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::{Cluster, process::Daemon, run::write};

/// A name server. It ends with its cluster.
#[derive(Debug)]
pub struct Names {
    hosts: PathBuf,
    /// Where it answers.
    pub address: String,
}

impl Cluster {
    /// Starts a name server on the first node; it knows nothing yet.
    pub fn name_server(&self) -> Result<Names> {
        let node = self.node(&self.first())?;
        let (file, hosts) = (node.dir.join("Corefile"), node.dir.join("hosts"));
        let config = format!(". {{\n bind {}\n hosts {} {{\n  ttl 1\n  reload 1s\n }}\n}}\n", node.ip, hosts.display());
        write(&file, config)?;
        write(&hosts, "")?;
        let words = ["coredns", "-conf", &file.display().to_string()].map(str::to_owned).into();
        Daemon::spawn(&node.dir, &node.netns, "names", words)?;
        Ok(Names { hosts, address: node.ip })
    }
}

impl Names {
    /// Says which address a name has; it has no other one.
    pub fn tell(&self, name: &str, address: &str) -> Result<()> {
        let others: String = fs::read_to_string(&self.hosts)?
            .lines()
            .filter(|line| !line.ends_with(&format!(" {name}")))
            .map(|line| format!("{line}\n"))
            .collect();
        write(&self.hosts, format!("{others}{address} {name}\n"))
    }
}
