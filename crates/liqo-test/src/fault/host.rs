//! What happens to nodes and from strangers: rules flushed by others, a reboot under another address, garbage.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::setpriority_process,
};

use crate::{
    Cluster,
    cluster::Node,
    netns::Netns,
    process::{Process, Signal},
    run::{inside, ip, nft, output},
    wire,
};

impl Cluster {
    /// Somebody flushes all nftables rules of a node. Those of the test bed and of kube-proxy are put back, as a distribution's
    /// firewall service does when it reloads; the product's are its own to repair.
    pub fn flush_nftables(&self, node: &str) -> Result<()> {
        let node = self.node(node)?;
        nft(&node.netns, "flush ruleset\n")?;
        wire::sync(self.record())?;
        let proxy = node.daemon("kube-proxy");
        proxy.stop()?;
        proxy.start()
    }

    /// A node is switched off and on, and has another address then: nothing of its network's state outlives that. Never the
    /// first node, whose address is in certificates and kubeconfigs.
    pub fn reboot_with_another_address(&self, name: &str) -> Result<Node> {
        ensure!(name != self.first(), "the control plane is on {name}");
        let mut node = self.node(name)?;
        for daemon in ["kubelet", "kube-proxy"] {
            node.daemon(daemon).kill()?;
        }
        end_containers(&node)?;
        forget_network(&node)?;
        node.readdress(self.record())?;
        wire::address(self.record(), &node)?;
        wire::sync(self.record())?;
        node.start_kubelet(self, &node.dir.join("kubelet.conf"))?;
        node.daemon("kube-proxy").start()?;
        Ok(node)
    }
}

fn end_containers(node: &Node) -> Result<()> {
    let tasks = output(node.ctr().args(["tasks", "ls"]))?;
    let running = tasks.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    running.filter_map(Process::find).for_each(|process| process.signal(Signal::KILL));
    Ok(())
}

/// Links but the leg, the loopback and CNI's; rules of routing and of nftables; namespaces that were kept.
fn forget_network(node: &Node) -> Result<()> {
    let links = output(inside(&node.netns, "ip").args(["-o", "link", "show"]))?;
    let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
    for link in links.lines().filter_map(name).filter(|link| link.starts_with("liqo.")) {
        // The other end of a pair goes with it.
        let _ = ip(&node.netns, &format!("link del {link}"));
    }
    let rules = output(inside(&node.netns, "ip").args(["rule", "show"]))?;
    for priority in rules.lines().filter_map(|line| line.split(':').next()) {
        if !["0", "32766", "32767"].contains(&priority) {
            ip(&node.netns, &format!("rule del priority {priority}"))?;
        }
    }
    nft(&node.netns, "flush ruleset\n")?;
    for kept in fs::read_dir(node.kept_netns("")).into_iter().flatten().flatten() {
        let _ = unmount(kept.path(), UnmountFlags::DETACH);
        fs::remove_file(kept.path()).with_context(|| format!("cannot remove {}", kept.path().display()))?;
    }
    Ok(())
}

/// Datagrams that mean nothing, as many as go out; until dropped. Who throws them would do so on machines of their own: here
/// they get the processor time that nobody else wants.
#[derive(Debug)]
pub struct Garbage {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Garbage {
    /// From a namespace to somebody who did not ask for it. Some of it begins like a WireGuard message.
    pub fn throw(from: &Netns, to: SocketAddr) -> Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = from.spawn(move || throw(to, &told, &count))?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// How many datagrams went out so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The niceness of who gets what is left.
const LEAST: i32 = 19;

fn throw(to: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).context("cannot open a socket")?;
    // Of this thread alone.
    setpriority_process(None, LEAST).context("cannot step back behind others")?;
    // Numbers of xorshift64: no two runs need differ.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut datagram = vec![0_u8; 1400];
    while !stop.load(Ordering::Relaxed) {
        for chunk in datagram.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        let lengths = [148, 92, 64, 32, 1400, 1, 0, 80];
        let pick = usize::try_from(state % 8).expect("less than eight");
        if pick < 4 {
            datagram[..4].copy_from_slice(&[u8::try_from(pick + 1).expect("at most four"), 0, 0, 0]);
        }
        // What does not go out was too much; a closed port says so with an error of the next call.
        if socket.send_to(&datagram[..lengths[pick]], to).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
