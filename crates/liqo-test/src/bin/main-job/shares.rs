//! Who used the processors: each component of each cluster, the bench itself, and everybody else on the machine.
//!
//! A process counts with its children that have ended, so short programs (runc, network plugins) count where they were waited for.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
};

use anyhow::Result;
use liqo_test::{
    Cluster,
    usage::{TICKS, busy},
};

/// Where processes are that belong to no cluster.
const BENCH: &str = "bench";
const KERNEL: &str = "kernel";
const FOREIGN: &str = "foreign";

/// Components that are shown under their own name; everything else in a cluster is a container of the load.
const COMPONENTS: [&str; 13] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "liqo-controller-manager",
    "crd-replicator",
    "auth-service",
    "metric-agent",
    "virtual-kubelet",
];

/// A cluster (or what is none) and a component.
type Place = (String, String);

#[derive(Clone, Debug)]
struct Process {
    parent: u32,
    born: u64,
    /// Of the process itself and of its children that have ended, seconds.
    spent: f64,
    place: Place,
}

/// A look at all processes.
pub(crate) struct Look {
    processes: HashMap<u32, Process>,
    busy: f64,
    denied: f64,
}

impl Look {
    pub(crate) fn now(clusters: &[&Cluster]) -> Result<Self> {
        let mut networks = HashMap::new();
        for cluster in clusters {
            for node in cluster.nodes() {
                networks.insert(fs::metadata(node.netns_file())?.ino(), cluster.name().to_owned());
            }
        }
        let pids = fs::read_dir("/proc")?.flatten().filter_map(|one| one.file_name().to_str()?.parse().ok());
        let mut processes: HashMap<u32, Process> = pids.filter_map(|pid| Some((pid, read(pid)?))).collect();
        let at_home: HashMap<u32, String> = processes
            .keys()
            .filter_map(|pid| {
                let network = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
                Some((*pid, networks.get(&network)?.clone()))
            })
            .collect();
        let owners: HashMap<u32, String> =
            processes.keys().map(|pid| (*pid, owner(*pid, &processes, &at_home))).collect();
        for (pid, process) in &mut processes {
            process.place = (owners[pid].clone(), component(*pid));
        }
        Ok(Self { processes, busy: busy()?, denied: denied()? })
    }

    /// What was used between an earlier look and this one.
    pub(crate) fn since(&self, before: &Self) -> Spent {
        let mut parts: BTreeMap<Place, f64> = BTreeMap::new();
        for (pid, now) in &self.processes {
            let earlier = before.processes.get(pid).filter(|earlier| earlier.born == now.born);
            *parts.entry(now.place.clone()).or_default() += now.spent - earlier.map_or(0.0, |earlier| earlier.spent);
        }
        // The parent of a process that has ended was given all its time, also that from before the first look.
        for (pid, gone) in &before.processes {
            let lives = self.processes.get(pid).is_some_and(|now| now.born == gone.born);
            if let Some(parent) = self.processes.get(&gone.parent).filter(|_| !lives) {
                *parts.entry(parent.place.clone()).or_default() -= gone.spent;
            }
        }
        parts.retain(|_, spent| *spent > 0.0);
        Spent { parts, busy: self.busy - before.busy, denied: self.denied - before.denied }
    }
}

/// Parent, birth and time of a process, by proc(5).
fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // utime, stime, cutime, cstime
    let spent = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS;
    let (parent, born) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    Some(Process { parent, born, spent, place: Place::default() })
}

/// The cluster of the process or of its nearest ancestor that is in the network of a node; what belongs to no cluster is the
/// bench with its children, the kernel, or foreign.
fn owner(pid: u32, processes: &HashMap<u32, Process>, at_home: &HashMap<u32, String>) -> String {
    let mut next = Some(pid);
    while let Some(pid) = next {
        match pid {
            _ if pid == std::process::id() => return BENCH.to_owned(),
            2 => return KERNEL.to_owned(),
            _ => {}
        }
        if let Some(cluster) = at_home.get(&pid) {
            return cluster.clone();
        }
        next = processes.get(&pid).map(|process| process.parent).filter(|parent| *parent != 0);
    }
    FOREIGN.to_owned()
}

fn component(pid: u32) -> String {
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = words.split('\0').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let known = COMPONENTS.into_iter().find(|known| *known == program);
    known.unwrap_or("other containers").to_owned()
}

/// Processor time this virtual machine was denied by its host so far, seconds.
fn denied() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let steal = stat.lines().next().and_then(|line| line.split_whitespace().nth(8));
    Ok(steal.and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default() / TICKS)
}

/// Processor seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    parts: BTreeMap<Place, f64>,
    /// Of the whole machine, with interrupts, which belong to no process.
    busy: f64,
    /// What the host of this virtual machine gave to others.
    pub(crate) denied: f64,
}

impl Spent {
    /// Of processes that belong neither to these clusters nor to the bench: of other test beds, of compilers.
    pub(crate) fn foreign(&self) -> f64 {
        self.of(FOREIGN)
    }

    /// Of both clusters, without the bench, the kernel's own threads and foreign processes.
    pub(crate) fn clusters(&self) -> f64 {
        let is_cluster = |place: &Place| ![BENCH, KERNEL, FOREIGN].contains(&place.0.as_str());
        self.parts.iter().filter(|(place, _)| is_cluster(place)).map(|(_, spent)| spent).sum()
    }

    fn of(&self, owner: &str) -> f64 {
        self.parts.iter().filter(|((of, _), _)| of == owner).map(|(_, spent)| spent).sum()
    }
}

/// One row for each component: milliseconds of processor time for each pod, on each cluster, of plain pods and of remote ones.
pub(crate) fn table(clusters: &[&str], plain: &Spent, remote: &Spent, pods: u32) -> String {
    let per_pod = |spent: f64| format!("{:.1}", spent * 1000.0 / f64::from(pods));
    let both = [("plain", plain), ("remote", remote)];
    let columns: Vec<_> =
        both.iter().flat_map(|(what, spent)| clusters.iter().map(move |at| (what, *spent, *at))).collect();
    let heads: String = columns.iter().map(|(what, _, at)| format!(" {at}, {what} |")).collect();
    let mut table = format!("| processor ms a pod |{heads}\n|---|{}\n", "---|".repeat(columns.len()));
    let mut row = |name: &str, cells: Vec<String>| table += &format!("| {name} | {} |\n", cells.join(" | "));
    for name in COMPONENTS.into_iter().chain(["other containers"]) {
        let used =
            |spent: &Spent, at: &str| spent.parts.get(&(at.to_owned(), name.to_owned())).copied().unwrap_or_default();
        if columns.iter().any(|(_, spent, at)| used(spent, at) > 0.0) {
            row(name, columns.iter().map(|(_, spent, at)| per_pod(used(spent, at))).collect());
        }
    }
    row("**all of the cluster**", columns.iter().map(|(_, spent, at)| per_pod(spent.of(at))).collect());
    for other in [BENCH, KERNEL, FOREIGN] {
        let once = columns
            .iter()
            .map(|(_, spent, at)| if *at == clusters[0] { per_pod(spent.of(other)) } else { String::new() });
        row(other, once.collect());
    }
    let once =
        columns.iter().map(|(_, spent, at)| if *at == clusters[0] { per_pod(spent.busy) } else { String::new() });
    row("**the machine**", once.collect());
    table
}
