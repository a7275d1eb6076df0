//! What an attack costs: memory of the processes that all peers share, and how long a change for the honest peer takes
//! meanwhile.
//!
//! The change is an annotation on the request that rome replicates to milan: it goes through rome's replicator, which serves
//! the hostile peer, too. One change follows the other with a short pause, so that a stall of a second is met by a change.
//!
//! Before the first attack the same is measured on the quiet stage: the limits of the latencies follow from that figure, within
//! fixed bounds, and at last the memory is compared with that of the quiet stage.

use std::{
    fs,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liqo_test::{Cluster, out, process::Process, usage::Peak, wait_for};
use serde_json::json;

use super::{
    raid::{Raid, tenant, text},
    served,
};

/// Memory that a process may gain under an attack, in KiB.
const GROWTH: u64 = 30 << 10;
/// Memory that a process may keep after all attacks, in KiB: freed memory that the allocator holds was seen to be 8 MiB.
const LEAK: u64 = 14 << 10;
/// 19 of 20 changes for the honest peer take less on a machine that has nothing else to do, and less than [`SLOWEST`] on any, see
/// [`prompt`].
const PROMPT: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(2);
/// The slowest of all changes takes less than this many times as long.
const LATEST: u32 = 5;
/// How many times as slow as on the quiet stage changes may be during an attack.
const SLOWDOWN: u32 = 3;
/// Changes on the quiet stage.
const QUIET: usize = 20;
/// Pause between two changes.
const PAUSE: Duration = Duration::from_millis(100);
/// The processes whose memory is looked at: their label, and whether their growth is bounded here.
const PROCESSES: [(&str, bool); 2] = [("controller-manager", true), ("crd-replicator", false)];
/// Annotation that goes to the honest peer.
const MARK: &str = "rome.example/probe";

/// The rows of all stories that were told.
static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());
/// The quiet stage: memory of each of [`PROCESSES`], in KiB, and the time within which 19 of 20 changes arrived.
static QUIETLY: OnceLock<([u64; 2], Duration)> = OnceLock::new();

/// What one attack has cost.
#[derive(Clone)]
struct Row {
    story: String,
    /// Own memory before and at its peak, in KiB, of each of [`PROCESSES`].
    memory: [(u64, u64); 2],
    /// How long each change took, the shortest first.
    latencies: Vec<Duration>,
}

impl Row {
    fn line(&self) -> String {
        let mib = |kib: u64| format!("{:.1}", f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0);
        let [manager, replicator] = self.memory.map(|(before, most)| format!("{} -> {}", mib(before), mib(most)));
        let ms =
            |place: usize| self.latencies.get(place).map_or_else(|| "-".to_owned(), |it| it.as_millis().to_string());
        let count = self.latencies.len();
        let (median, most, last) = (ms(count / 2), ms(self.most()), ms(count.saturating_sub(1)));
        let slow = self.latencies.iter().filter(|took| **took >= PROMPT).count();
        format!(
            "{:<22} {manager:>16} {replicator:>16} {count:>7} {median:>8} {most:>8} {last:>8} {slow:>6}",
            self.story
        )
    }

    /// The place of the change that 19 of 20 changes were as fast as.
    fn most(&self) -> usize {
        nineteen_of_twenty(self.latencies.len())
    }
}

/// The place, among `count` sorted changes, of the one that 19 of 20 are as fast as.
fn nineteen_of_twenty(count: usize) -> usize {
    (count * 19).div_ceil(20).saturating_sub(1)
}

/// Carries out an attack and measures meanwhile.
pub(crate) fn during(raid: &Raid, attack: impl FnOnce(&Raid) -> Result<()>) -> Result<()> {
    let quiet = quietly(raid)?;
    let peaks = peaks(raid)?;
    let over = AtomicBool::new(false);
    let (told, probed, served) = thread::scope(|scope| {
        let probe = scope.spawn(|| probe(raid, |_| over.load(Ordering::Relaxed)));
        let served = scope.spawn(|| served::throughout(raid, &over));
        let told = {
            let _ends = Ends(&over);
            attack(raid)
        };
        let served = served.join().expect("asking does not panic");
        (told, probe.join().expect("probing does not panic"), served)
    });
    let (told, mut latencies) = match (told, probed) {
        (told, Ok(latencies)) => (told, latencies),
        (told, Err(error)) => return told.and(Err(error)),
    };
    latencies.sort();
    let thread = thread::current();
    let story = thread.name().unwrap_or_default().split_inclusive('_').skip(1).take(5).collect::<String>();
    let [manager, replicator] = peaks.map(|peak| peak.most().map(|most| (peak.before(), most)));
    let memory = [manager?, replicator?];
    let row = Row { story: story.trim_end_matches('_').chars().take(22).collect(), memory, latencies };
    out::note(&format!("figures: {}", row.line()));
    ROWS.lock().unwrap_or_else(PoisonError::into_inner).push(row.clone());
    told.and(served)?;
    judge(&row, prompt(quiet, load()))
}

/// Measures the quiet stage, before the first attack.
///
/// # Returns
/// The time within which 19 of 20 changes arrive.
fn quietly(raid: &Raid) -> Result<Duration> {
    if let Some((_, prompt)) = QUIETLY.get() {
        return Ok(*prompt);
    }
    let mut latencies = probe(raid, |count| count >= QUIET)?;
    latencies.sort();
    let prompt = latencies[nineteen_of_twenty(latencies.len())];
    out::note(&format!("figures: 19 of 20 changes arrive within {prompt:?} on the quiet stage"));
    ensure!(prompt < PROMPT, "before any attack 19 of 20 changes arrive within {prompt:?}");
    let memory = peaks(raid)?.map(|peak| peak.before());
    Ok(QUIETLY.get_or_init(|| (memory, prompt)).1)
}

/// The limit for 19 of 20 changes during an attack, from the figure of the quiet stage and the load of the machine, neither of
/// which allows more than [`SLOWEST`].
fn prompt(quiet: Duration, load: f64) -> Duration {
    (quiet * SLOWDOWN).max(PROMPT.mul_f64(load.max(1.0))).min(SLOWEST)
}

/// Processes that want a processor, for each that there is.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split_whitespace().next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(1.0);
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    load / f64::from(u32::try_from(processors).unwrap_or(1))
}

/// The memory of the processes from now on.
fn peaks(raid: &Raid) -> Result<[Peak; 2]> {
    let [manager, replicator] = PROCESSES.map(|(name, _)| Peak::begin(process(raid.rome(), "liqo", name)?.pid));
    Ok([manager?, replicator?])
}

/// What all attacks together have left in memory is bounded.
pub(crate) fn nothing_leaks(raid: &Raid) -> Result<()> {
    let (before, _) = *QUIETLY.get().context("the quiet stage was not measured")?;
    for (((name, bounded), before), peak) in PROCESSES.into_iter().zip(before).zip(peaks(raid)?) {
        let kept = peak.before().saturating_sub(before);
        out::note(&format!("figures: after all attacks the {name} of rome has {kept} KiB more than before"));
        ensure!(!bounded || kept < LEAK, "the {name} of rome keeps {kept} KiB of the attacks");
    }
    Ok(())
}

/// Prints the rows of all stories.
pub(crate) fn table() {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let head = format!(
        "{:<22} {:>16} {:>16} {:>7} {:>8} {:>8} {:>8} {:>6}",
        "attack", "manager, MiB", "replicator, MiB", "changes", "median", "95 %", "last, ms", "> 1 s"
    );
    let lines: Vec<_> = rows.iter().map(Row::line).collect();
    out::note(&format!("{head}\n{}", lines.join("\n")));
}

/// Ends the probing, however the attack ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The process of a component.
pub(crate) fn process(rome: &Cluster, namespace: &str, name: &str) -> Result<Process> {
    let pods = rome.pods(namespace, &format!("app.kubernetes.io/name={name}"))?;
    let (pod, _) = pods.first().with_context(|| format!("rome has no {name}"))?;
    let spec = rome.json(&["pod", "-n", namespace, pod])?;
    rome.container_process(namespace, pod, text(&spec, "/spec/containers/0/name"))
}

/// How long changes took, one or more, until `over` says so of their number.
fn probe(raid: &Raid, over: impl Fn(usize) -> bool) -> Result<Vec<Duration>> {
    let (rome, milan) = (raid.rome(), raid.stage.cluster("milan"));
    let path = |tenant: &str| format!("/apis/discovery.liqo.io/v1alpha1/namespaces/{tenant}/resourcerequests/rome");
    let (here, there) = (path(&tenant(rome, &raid.milan.id)?), path(&tenant(milan, &raid.home)?));
    let (source, copy) = (rome.api(), milan.api());
    let mut latencies = Vec::new();
    loop {
        let number = latencies.len().to_string();
        let began = Instant::now();
        source.merge(&here, &json!({"metadata": {"annotations": {MARK: number}}}))?;
        wait_for("a change for the honest peer", Duration::from_secs(60), || {
            let arrived = copy.get(&there)?["metadata"]["annotations"][MARK] == number.as_str();
            Ok(arrived.then_some(()))
        })?;
        latencies.push(began.elapsed());
        if over(latencies.len()) {
            return Ok(latencies);
        }
        thread::sleep(PAUSE);
    }
}

fn judge(row: &Row, prompt: Duration) -> Result<()> {
    for ((name, bounded), (before, most)) in PROCESSES.into_iter().zip(row.memory) {
        let grown = most.saturating_sub(before);
        ensure!(!bounded || grown < GROWTH, "the {name} of rome has grown by {grown} KiB");
    }
    let count = row.latencies.len();
    for (place, limit) in [(row.most(), prompt), (count.saturating_sub(1), prompt * LATEST)] {
        let took = row.latencies.get(place).copied().unwrap_or_default();
        ensure!(took < limit, "change {place} of {count} for the honest peer took {took:?}, not less than {limit:?}");
    }
    Ok(())
}

#[test]
fn limits_follow_from_the_quiet_stage_within_bounds() {
    for (quiet, load, limit) in
        [(30, 0.1, 1000), (30, 1.5, 1500), (30, 25.0, 2000), (500, 0.1, 1500), (500, 1.8, 1800), (60_000, 0.1, 2000)]
    {
        let found = prompt(Duration::from_millis(quiet), load);
        assert_eq!(found, Duration::from_millis(limit), "{quiet} ms, load {load}");
    }
}
