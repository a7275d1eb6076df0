//! `bench/main-job`: the figures of the main job beside a plain baseline of the same run.

mod probe;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use liqo_test::usage::busy;
use liqo_test::{
    Cluster, Stage, out,
    stage::{on, web},
    wait_for,
};
use probe::{Requests, cpu_seconds, foreign, memory, processes, requests};

/// Measures the main job on two fresh clusters of this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds of pods; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods of a round.
    #[arg(long, default_value_t = 60)]
    pods: u32,
    /// Seconds of rest over which processor time and requests are counted.
    #[arg(long, default_value_t = 120)]
    rest: u64,
}

/// Time allowed for anything that is measured.
const LIMIT: Duration = Duration::from_secs(180);

fn main() -> Result<()> {
    let Args { rounds, pods, rest } = Args::parse();
    ensure!(rounds > 0 && pods > 0 && rest > 0, "--rounds, --pods and --rest must be at least 1");
    out::note("two clusters, the product installed ...");
    let mut stage = Stage::ready("bench", &["rome", "milan"])?;
    let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));

    out::note("peering ...");
    let first = stage.peer(rome, milan)?;
    let mut again = Vec::new();
    for _ in 0..rounds {
        stage.unpeer(rome, "milan")?;
        again.push(stage.peer(rome, milan)?);
    }
    stage.offload(rome, "demo", &[])?;
    // The baseline knows nothing of us: its namespace is not offloaded.
    rome.kubectl(&["create", "namespace", "plain"])?;

    let (mut plain, mut virtual_) = (Vec::new(), Vec::new());
    let mut per_pod = Requests::default();
    let mut shares = Vec::new();
    let (mut work, mut more_work) = (0.0, 0.0);
    for round in 1..=rounds {
        out::note(&format!("{pods} pods, round {round} of {rounds} ..."));
        let idle = foreign()?;
        let used = busy()?;
        plain.push(ready(
            rome,
            "plain",
            pods,
            &format!("nodeSelector: {{kubernetes.io/hostname: {}}},", rome.first()),
        )?);
        work = busy()? - used;
        rome.kubectl(&["delete", "deployment,service", "-n", "plain", "web"])?;
        gone(rome, milan)?;
        let before = requests(&[rome, milan])?;
        let used = busy()?;
        virtual_.push(ready(rome, "demo", pods, &on("milan"))?);
        more_work = busy()? - used;
        per_pod = requests(&[rome, milan])?.since(&before);
        shares.push(foreign()? - idle);
        if round < rounds {
            rome.kubectl(&["delete", "deployment,service", "-n", "demo", "web"])?;
            gone(rome, milan)?;
        }
    }
    let pss = memory(&processes(rome)?)?;

    out::note(&format!("{rest} s of rest with {pods} pods ..."));
    std::thread::sleep(Duration::from_secs(20));
    let all = [processes(rome)?, processes(milan)?].concat();
    let (cpu, quiet, began) = (cpu_seconds(&all)?, requests(&[rome, milan])?, Instant::now());
    std::thread::sleep(Duration::from_secs(rest));
    let spent = (cpu_seconds(&all)? - cpu) / began.elapsed().as_secs_f64();
    let at_rest = requests(&[rome, milan])?.since(&quiet);

    let (plain, virtual_) = (median(plain), median(virtual_));
    let mut table = String::from("| figure | baseline | ours | goal |\n|---|---|---|---|\n");
    let mut row = |figure: &str, baseline: &str, ours: String, goal: &str| {
        table += &format!("| {figure} | {baseline} | {ours} | {goal} |\n");
    };
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    row("`liqoctl peer`, first time (images present)", "Go Liqo 1.2.0: 14 s", seconds(first), "< 3 s");
    row("`liqoctl peer`, again, median", "Go Liqo 0.8.3 / 1.2.0: 5.1 / 11 s", seconds(median(again)), "< 1 s");
    let ratio = virtual_.as_secs_f64() / plain.as_secs_f64();
    let both = format!("{} = {ratio:.2}×", seconds(virtual_));
    row(&format!("{pods} pods ready on the virtual node ÷ plain node"), &seconds(plain), both, "≤ 1.15×");
    let cores = std::thread::available_parallelism()?;
    let figure = format!("processor time of the machine ({cores} cores) meanwhile, last round");
    let both = format!("{more_work:.1} s = {:.2}×", more_work / work);
    row(&figure, &format!("{work:.1} s"), both, "explains the row above");
    let total: u64 = pss.iter().map(|(_, kib)| kib).sum();
    let parts: Vec<_> = pss.iter().map(|(name, kib)| format!("{name} {:.1}", mib(*kib))).collect();
    let memory = format!("{:.1} MB PSS ({})", mib(total), parts.join(", "));
    row(&format!("memory of our processes on the consumer, {pods} pods"), "Go: 370 / 520 MB RSS", memory, "≤ 45 MB");
    row("CPU at rest, both clusters", "Go: 0.012 / 0.013 cores", format!("{spent:.4} cores"), "≤ 0.003");
    row("API requests per offloaded pod, both clusters", "–", per_pod.divided(f64::from(pods)), "print");
    #[expect(clippy::cast_precision_loss, reason = "a number of seconds")]
    let minutes = rest as f64 / 60.0;
    row("API requests at rest per minute, both clusters", "–", at_rest.divided(minutes), "only leases");
    let busiest = shares.into_iter().fold(0.0_f64, f64::max);
    row("foreign CPU during the pods, worst round", "–", format!("{busiest:.1} s"), "low");
    out::say(&table);
    stage.is_well();
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "some megabytes")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// From the creation of a Deployment, with its Service, until all its pods are ready.
fn ready(rome: &Cluster, namespace: &str, pods: u32, spec: &str) -> Result<Duration> {
    let manifest = web(namespace, "web", pods, spec);
    let began = Instant::now();
    rome.apply(&manifest)?;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
    wait_for(&format!("{pods} pods of {namespace} are ready"), LIMIT, || {
        let deployment = rome.api().get(&path)?;
        Ok((deployment["status"]["readyReplicas"] == pods).then_some(()))
    })?;
    Ok(began.elapsed())
}

/// Until no pod of the namespace is left on either side, so that the next round starts clean.
fn gone(rome: &Cluster, milan: &Cluster) -> Result<()> {
    wait_for("the pods are gone", LIMIT, || {
        let left = [rome, milan].iter().try_fold(0, |sum, cluster| {
            Ok::<_, anyhow::Error>(sum + cluster.items(&["pods", "-A", "-l", "app=web"])?.len())
        })?;
        Ok((left == 0).then_some(()))
    })
}
