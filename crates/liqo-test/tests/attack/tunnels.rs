//! Thousands of tunnels through the proxy for in-band peers, from one pod.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{netns::Netns, usage::Peak};

use super::{
    figures,
    pod::{address, named},
    raid::{Raid, text},
};

/// Tunnels that are tried, and how many of them stay open at a time.
const TRIED: usize = 5000;
const HELD: usize = 600;
/// The most tunnels of one network, and memory of the proxy for them, in KiB.
const OF_ONE: usize = 256;
const GROWTH: u64 = 30 << 10;
/// What a client sends.
const CONNECT: &[u8] = b"CONNECT kubernetes.default.svc:443 HTTP/1.1\r\nHost: kubernetes.default.svc:443\r\n\r\n";

/// A pod gets as many tunnels as one network may have, and another network gets one at once meanwhile.
pub(crate) fn story(raid: &Raid, here: &Path) -> Result<()> {
    let rome = raid.rome();
    let proxy: SocketAddr = format!("{}:8118", address(rome, "liqo", "liqo-proxy")?).parse()?;
    let peak = Peak::begin(figures::process(rome, "liqo", "proxy")?.pid)?;
    let (held, given) = Netns::open(here)?.run(move || flood(proxy))?;
    ensure!(given == OF_ONE, "{given} of the first {HELD} tunnels of one pod were opened");
    // A node has an address of another network than its pods; on the node of the proxy, pods see that of a bridge.
    let pod = rome.json(&["pod", "-n", "liqo", &named(rome, "liqo", "liqo-proxy")?])?;
    let elsewhere = rome.nodes().into_iter().find(|node| node.name != text(&pod, "/spec/nodeName"));
    let elsewhere = elsewhere.context("rome has one node")?;
    let began = Instant::now();
    let answer = Netns::open(&elsewhere.netns_file())?.run(move || open(proxy).map(|(_, answer)| answer))?;
    let answer = answer.context("the proxy does not answer another network")?;
    ensure!(answer.contains(" 200 "), "another network is answered {answer:?}");
    ensure!(began.elapsed() < Duration::from_secs(1), "another network got a tunnel after {:?}", began.elapsed());
    drop(held);
    let grown = peak.most()?.saturating_sub(peak.before());
    ensure!(grown < GROWTH, "{TRIED} tunnels made the proxy grow by {grown} KiB");
    Ok(())
}

/// Opens all tunnels; returns those that are left open, and how many of the first ones were granted.
fn flood(proxy: SocketAddr) -> (Vec<TcpStream>, usize) {
    let first: Vec<_> = (0..HELD).filter_map(|_| open(proxy)).collect();
    let given = first.iter().filter(|(_, answer)| answer.contains(" 200 ")).count();
    let held = first.into_iter().map(|(stream, _)| stream).collect();
    let hasty =
        || TcpStream::connect_timeout(&proxy, Duration::from_secs(2)).and_then(|mut one| one.write_all(CONNECT));
    // A proxy that accepts nothing more fails the question from the other network.
    let _accepted = (HELD..TRIED).take_while(|_| hasty().is_ok()).count();
    (held, given)
}

/// A tunnel that was asked for, and the first line of the answer.
fn open(proxy: SocketAddr) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect_timeout(&proxy, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(CONNECT).ok()?;
    let mut head = [0; 256];
    let length = stream.read(&mut head).ok()?;
    let line = String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned();
    Some((stream, line))
}
