//! `bench/network/path`: from pod to pod through everything, beside the tunnel alone on the same wire; and how long faults last.

mod load;
mod share;
mod tunnel;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use liqo_test::{
    Cluster, ClusterSpec, Stage,
    echo::{self, Conversation, PORT},
    netns::Netns,
    out, run, usage, wait_for,
};
use load::Load;
use serde_json::Value;
use share::Share;
use tunnel::Tunnel;

/// Measures the way between pods of two fresh clusters of this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each stream.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

/// Time allowed for anything that is waited for.
const LIMIT: Duration = Duration::from_secs(60);
const PODS: &str = "10.244.0.0/16";
const SERVICES: &str = "10.96.0.0/16";

fn main() -> Result<()> {
    let Args { rounds, seconds } = Args::parse();
    ensure!(rounds > 0 && seconds > 0, "--rounds and --seconds must be at least 1");
    out::note("two clusters of two nodes with equal ranges, the product installed ...");
    let spec = |name| ClusterSpec::new(name, 1).cidrs(PODS, SERVICES).nodes(2).strict_paths();
    let mut stage = Stage::apart("network-path", vec![spec("rome"), spec("milan")])?;
    stage.install_all(&["--set", "gateway.replicas=2"])?;
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
    stage.peer(rome, milan)?;
    milan.wait_peering("rome", "NetworkStatus", "Established")?;
    // The worst case: both pods on nodes without the gateway, so that both overlays are on the way.
    let (here, there) = (End::beside_gateway(rome)?, End::beside_gateway(milan)?);
    let target = translated(rome, &there.ip)?;
    // The tunnel alone runs in this process, so this process has to be worth as much as a gateway.
    let home = Share::of(std::process::id())?;
    let gateway = rome.container_process("liqo", &active(rome)?.0, "gateway")?;
    Share::of(gateway.pid)?.take(std::process::id())?;
    let alone = Tunnel::between(&rome.node(&rome.first())?, &milan.node(&milan.first())?)?;

    let shares = [&here.share, &there.share];
    wait_for("the tunnel alone", LIMIT, || stream(&alone.ends(shares), tunnel::TARGET, 1, 1).map(Some))?;

    let mut table = String::from(
        "| figure | the tunnel alone | pod to pod | ratio, median [range] | goal | foreign CPU, most |\n|---|---|---|---|---|---|\n",
    );
    for streams in [1, 4] {
        let (mut baseline, mut ours, mut foreign) = (Vec::new(), Vec::new(), 0.0_f64);
        for round in 1..=rounds {
            out::note(&format!("{streams} streams, round {round} of {rounds} ..."));
            let load = Load::now()?;
            baseline.push(stream(&alone.ends(shares), tunnel::TARGET, streams, seconds)?);
            ours.push(stream(&[(&here.file, &here.share), (&there.file, &there.share)], &target, streams, seconds)?);
            foreign = foreign.max(load.foreign()?);
        }
        let mut ratios: Vec<_> = ours.iter().zip(&baseline).map(|(ours, baseline)| ours / baseline).collect();
        ratios.sort_by(f64::total_cmp);
        let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
        table += &format!(
            "| TCP, {streams} streams, Gbit/s | {:.2} | {:.2} | {:.2} [{low:.2}–{high:.2}] | ≥ 0.7 | {foreign:.2} |\n",
            median(baseline),
            median(ours),
            median(ratios),
        );
    }
    let memory = usage::memory(gateway.pid)?;
    let (all, anonymous) = (memory.all as f64 / 1024.0, memory.anonymous as f64 / 1024.0);
    table += &format!(
        "| memory of a gateway after that, MiB, shared pages in parts (of it, its own data) | – | {all:.1} ({anonymous:.1}) | – | ≤ 15 | |\n"
    );
    drop(alone);
    home.take(std::process::id())?;
    out::note("a gateway is killed ...");
    let (mut failover, mut dead) = (Vec::new(), Vec::new());
    let load = Load::now()?;
    for _ in 0..rounds {
        failover.push(failed_over(rome, &here, &target)?);
        dead.push(noticed(&stage, rome, milan)?);
    }
    let (foreign, seconds) = (load.foreign()?, |times: Vec<f64>| format!("{:.2} s", median(times)));
    table += &format!(
        "| a gateway killed: longest pause of a TCP connection | – | {} | – | < 2 s | {foreign:.2} |\n",
        seconds(failover)
    );
    table +=
        &format!("| a path cut: TunnelEndpoint says so after | – | {} | – | < 1 s | {foreign:.2} |\n", seconds(dead));
    out::say(&table);
    stage.is_well();
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A pod, and its network.
struct End {
    file: PathBuf,
    share: Share,
    netns: Netns,
    ip: String,
}

impl End {
    /// On a node that does not have the active gateway.
    fn beside_gateway(cluster: &Cluster) -> Result<Self> {
        let gateway = active(cluster)?.1;
        let node = cluster.nodes().into_iter().find(|node| node.name != gateway).context("there is one node only")?;
        cluster.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: end, namespace: default}}
spec: {{nodeName: {}, terminationGracePeriodSeconds: 0, tolerations: [{{operator: Exists}}],
  containers: [{{name: web, image: 'localhost/busybox:1', imagePullPolicy: IfNotPresent}}]}}
",
            node.name
        ))?;
        cluster.wait(&["pod/end", "-n", "default", "--for=condition=Ready"], LIMIT)?;
        let pod = cluster.json(&["pod", "end", "-n", "default"])?;
        let process = cluster.container_process("default", "end", "web")?;
        let file = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
        let share = Share::of(process.pid)?;
        let netns = Netns::of(process)?;
        echo::serve(&netns, "end", Ipv4Addr::UNSPECIFIED)?;
        Ok(Self {
            file,
            share,
            netns,
            ip: pod["status"]["podIP"].as_str().context("the pod has no address")?.to_owned(),
        })
    }
}

/// Name of the active gateway's pod and its node.
fn active(cluster: &Cluster) -> Result<(String, String)> {
    wait_for("an active gateway", LIMIT, || {
        let pods = cluster.pods("liqo", "net.liqo.io/gateway=active")?;
        Ok((pods.len() == 1).then(|| pods[0].clone()))
    })
}

/// The address under which `cluster` reaches a pod of its only peer.
fn translated(cluster: &Cluster, ip: &str) -> Result<String> {
    let tunnels = cluster.items(&["tunnelendpoints", "-A"])?;
    let network = tunnels[0]["spec"]["remoteNATPodCIDR"].as_str().context("no tunnel")?;
    let (prefix, host) = (network.split('.').take(2), ip.split('.').skip(2));
    Ok(prefix.chain(host).collect::<Vec<_>>().join("."))
}

/// Where a load runs: a network namespace, and a share of the processor.
pub(crate) type Place<'a> = (&'a Path, &'a Share);

/// Gbit/s of TCP from one place to another.
fn stream([from, to]: &[Place<'_>; 2], target: &str, streams: u32, seconds: u32) -> Result<f64> {
    let iperf = |place: &Place<'_>, arguments: &[&str]| {
        let mut command = run::command("nsenter");
        command.arg(format!("--net={}", place.0.display())).arg("iperf3").args(arguments).stdout(Stdio::piped());
        let child = command.spawn().context("cannot run iperf3")?;
        place.1.take(child.id())?;
        anyhow::Ok(child)
    };
    let mut server = iperf(to, &["-s", "-1"])?;
    let report = wait_for("iperf3 connects", Duration::from_secs(20 + u64::from(seconds)), || {
        let client = iperf(from, &["-J", "-c", target, "-P", &streams.to_string(), "-t", &seconds.to_string()])?;
        let report: Value =
            serde_json::from_slice(&client.wait_with_output()?.stdout).context("iperf3 gave no JSON")?;
        match report["end"]["sum_received"]["bits_per_second"].as_f64() {
            Some(bits) => Ok(Some(bits / 1e9)),
            None => bail!("iperf3 gave no rate: {}", report["error"]),
        }
    });
    let _ = server.kill();
    server.wait()?;
    report
}

/// The longest pause of a connection over a gateway that is killed, seconds.
fn failed_over(rome: &Cluster, here: &End, target: &str) -> Result<f64> {
    wait_for("two gateways", LIMIT, || {
        let pods = rome.items(&["pods", "-n", "liqo", "-l", "net.liqo.io/gateway"])?;
        let ready = pods.iter().filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true).count();
        Ok((ready == 2).then_some(()))
    })?;
    let address: SocketAddr = format!("{target}:{PORT}").parse()?;
    let talk = Conversation::open(&here.netns, address)?;
    std::thread::sleep(Duration::from_secs(2));
    rome.kill_pod_process("liqo", &active(rome)?.0, "gateway")?;
    std::thread::sleep(Duration::from_secs(5));
    Ok(talk.end()?.as_secs_f64())
}

/// How long a cut is not told, seconds.
fn noticed(stage: &Stage, rome: &Cluster, milan: &Cluster) -> Result<f64> {
    let path = rome.items(&["tunnelendpoints", "-A"])?[0]["metadata"].clone();
    let text = |key: &str| path[key].as_str().unwrap_or_default().to_owned();
    let path = format!("/apis/net.liqo.io/v1alpha1/namespaces/{}/tunnelendpoints/{}", text("namespace"), text("name"));
    let is = |wanted: bool| -> Result<()> {
        let began = Instant::now();
        while (rome.api().get(&path)?["status"]["connection"]["status"] == "Connected") != wanted {
            ensure!(began.elapsed() < LIMIT, "the TunnelEndpoint does not change");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    };
    is(true)?;
    std::thread::sleep(Duration::from_secs(2));
    stage.bed.part(rome, milan)?;
    let cut = Instant::now();
    is(false)?;
    let took = cut.elapsed().as_secs_f64();
    stage.bed.heal()?;
    is(true)?;
    Ok(took)
}
