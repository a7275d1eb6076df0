//! `bench/main-job`: the figures of the main job beside a plain baseline of the same run.

mod probe;
mod shares;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use liqo_test::{
    Cluster, Stage, out,
    stage::{on, web},
    usage::Memory,
    wait_for,
};
use probe::{Requests, answered, cpu_seconds, memory, processes, requests, settled};
use shares::{Look, Spent};

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
    let args = Args::parse();
    ensure!(args.rounds > 0 && args.pods > 0 && args.rest > 0, "--rounds, --pods and --rest must be at least 1");
    out::note("two clusters, the product installed ...");
    let mut stage = Stage::ready("bench", &["rome", "milan"])?;
    let seen = Seen::measure(&stage, &args)?;
    let names = ["rome", "milan"];
    out::say(&seen.table(&args, names));
    let [plain, remote] = &seen.laps[args.rounds - 1];
    out::say(&shares::table(&names, &plain.spent, &remote.spent, args.pods));
    stage.is_well();
    Ok(())
}

/// What was measured.
struct Seen {
    /// The first peering of the clusters.
    first: Duration,
    /// The later peerings.
    again: Vec<Duration>,
    /// Memory of our processes on the consumer, before any pod and with all pods.
    empty: Vec<(String, Memory)>,
    full: Vec<(String, Memory)>,
    /// Of each round the plain and the remote pods.
    laps: Vec<[Lap; 2]>,
    /// Cores that our processes use at rest.
    spent: f64,
    at_rest: Requests,
}

impl Seen {
    fn measure(stage: &Stage, &Args { rounds, pods, rest }: &Args) -> Result<Self> {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        out::note("peering ...");
        let first = stage.peer(rome, milan)?;
        let mut again = Vec::new();
        for _ in 0..rounds {
            stage.unpeer(rome, "milan")?;
            again.push(stage.peer(rome, milan)?);
        }
        [rome, milan].into_iter().try_for_each(settled)?;
        stage.offload(rome, "demo", &[])?;
        // The baseline knows nothing of us: its namespace is not offloaded.
        rome.kubectl(&["create", "namespace", "plain"])?;
        let empty = memory(&processes(rome)?)?;
        let mut laps = Vec::new();
        for round in 1..=rounds {
            out::note(&format!("{pods} pods, round {round} of {rounds} ..."));
            let selector = format!("nodeSelector: {{kubernetes.io/hostname: {}}},", rome.first());
            let plain = Lap::run((rome, milan), "plain", pods, &selector)?;
            rome.kubectl(&["delete", "deployment,service", "-n", "plain", "web"])?;
            gone(rome, milan)?;
            let remote = Lap::run((rome, milan), "demo", pods, &on("milan"))?;
            laps.push([plain, remote]);
            if round < rounds {
                rome.kubectl(&["delete", "deployment,service", "-n", "demo", "web"])?;
                gone(rome, milan)?;
            }
        }
        let full = memory(&processes(rome)?)?;
        out::note(&format!("{rest} s of rest with {pods} pods ..."));
        std::thread::sleep(Duration::from_secs(20));
        let all = [processes(rome)?, processes(milan)?].concat();
        let (cpu, quiet, began) = (cpu_seconds(&all)?, requests(&[rome, milan])?, Instant::now());
        std::thread::sleep(Duration::from_secs(rest));
        let spent = (cpu_seconds(&all)? - cpu) / began.elapsed().as_secs_f64();
        let at_rest = requests(&[rome, milan])?.since(&quiet);
        Ok(Self { first, again, empty, full, laps, spent, at_rest })
    }

    fn table(&self, &Args { rounds, pods, rest }: &Args, clusters: [&str; 2]) -> String {
        let mut table = String::from("| figure | baseline | ours | goal |\n|---|---|---|---|\n");
        let mut row = |figure: &str, baseline: &str, ours: String, goal: &str| {
            table += &format!("| {figure} | {baseline} | {ours} | {goal} |\n");
        };
        let first = format!("{:.2} s", self.first.as_secs_f64());
        row("`liqoctl peer`, first time (images present)", "Go Liqo 1.2.0: 14 s", first, "< 3 s");
        let again = median(self.again.iter().map(Duration::as_secs_f64));
        row("`liqoctl peer`, again, median", "Go Liqo 0.8.3 / 1.2.0: 5.1 / 11 s", format!("{again:.2} s"), "< 1 s");
        let (plain, remote) = self.compared(|lap| lap.time);
        row(&format!("{pods} pods ready on the virtual node ÷ plain node"), &plain, remote, "≤ 1.10×");
        let (plain, remote) = self.compared(|lap| lap.spent.clusters());
        row("processor time of both clusters meanwhile", &plain, remote, "explains the row above");
        let figure = format!("memory of our processes on the consumer, {pods} pods");
        row(&figure, "Go: 370 / 520 MB RSS", told(&self.full), "≤ 45 MB");
        row("the same before any pod", "–", told(&self.empty), "print");
        let spent = format!("{:.4} cores", self.spent);
        row("CPU at rest, both clusters", "Go: 0.012 / 0.013 cores", spent, "≤ 0.003");
        let [plain, remote] = &self.laps[rounds - 1];
        row("API requests of ours per pod, both clusters", "–", remote.ours.divided(f64::from(pods)), "≤ 8");
        for (which, cluster) in clusters.into_iter().enumerate() {
            let figure = format!("API requests of everybody per pod, {cluster}");
            let baseline = plain.answered[which].divided(f64::from(pods));
            row(&figure, &baseline, remote.answered[which].divided(f64::from(pods)), "print");
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of seconds")]
        let minutes = rest as f64 / 60.0;
        row("API requests at rest per minute, both clusters", "–", self.at_rest.divided(minutes), "only leases");
        let foreign = "foreign CPU during the pods (other test beds, compilers), worst";
        row(foreign, "–", self.worst(Spent::foreign), "≤ 0.05: else repeat");
        row("CPU denied by the host meanwhile, worst", "–", self.worst(|spent| spent.denied), "≤ 0.05: else repeat");
        table
    }

    /// The median of the plain laps; the median of the remote laps with their ratios to the plain ones.
    fn compared(&self, get: impl Fn(&Lap) -> f64) -> (String, String) {
        let [plain, remote] = [0, 1].map(|which| median(self.laps.iter().map(|lap| get(&lap[which]))));
        let ratios: Vec<_> = self.laps.iter().map(|[plain, remote]| get(remote) / get(plain)).collect();
        let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let ratio = median(ratios.iter().copied());
        (format!("{plain:.2} s"), format!("{remote:.2} s = {ratio:.2}× ({})", each.join(", ")))
    }

    /// The largest share of the processors, in cores, among all laps.
    fn worst(&self, get: impl Fn(&Spent) -> f64) -> String {
        let shares = self.laps.iter().flatten().map(|lap| get(&lap.spent) / lap.time);
        format!("{:.2} cores", shares.fold(0.0_f64, f64::max))
    }
}

/// What it took until all pods of a Deployment were ready.
struct Lap {
    /// Seconds.
    time: f64,
    spent: Spent,
    /// What our processes asked of both API servers.
    ours: Requests,
    /// What the API server of each cluster answered.
    answered: [Requests; 2],
}

impl Lap {
    fn run((rome, milan): (&Cluster, &Cluster), namespace: &str, pods: u32, spec: &str) -> Result<Self> {
        let both = [rome, milan];
        let (ours, answers) = (requests(&both)?, [answered(rome)?, answered(milan)?]);
        let look = Look::now(&both)?;
        let time = ready(rome, namespace, pods, spec)?.as_secs_f64();
        let spent = Look::now(&both)?.since(&look);
        let [at_home, there] = &answers;
        let answered = [answered(rome)?.since(at_home), answered(milan)?.since(there)];
        Ok(Self { time, spent, ours: requests(&both)?.since(&ours), answered })
    }
}

/// The sum, and each process with what of it is no file's.
fn told(processes: &[(String, Memory)]) -> String {
    let all: u64 = processes.iter().map(|(_, memory)| memory.all).sum();
    let own: u64 = processes.iter().map(|(_, memory)| memory.anonymous).sum();
    let part =
        |(name, memory): &(String, Memory)| format!("{name} {:.1} ({:.1})", mib(memory.all), mib(memory.anonymous));
    let parts: Vec<_> = processes.iter().map(part).collect();
    format!("{:.1} MB PSS, own data {:.1} ({})", mib(all), mib(own), parts.join(", "))
}

#[expect(clippy::cast_precision_loss, reason = "some megabytes")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The middle value, or the mean of the middle two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
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
