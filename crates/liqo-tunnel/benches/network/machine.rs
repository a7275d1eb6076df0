//! The machine: what it is, and who uses its processors.

use std::fs::read_to_string;

/// Ticks per second of `/proc`.
const HERTZ: f64 = 100.0;

/// One line: processors, kernel, model.
pub(crate) fn describe() -> String {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let count = cpus.matches("processor\t").count();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown")
        .to_owned();
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{count} processors, {model}, Linux {}", kernel.trim())
}

/// Processor seconds used up to now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    at: std::time::Instant,
    /// By everybody.
    busy: f64,
    /// By this process, its children and the tunnels.
    own: f64,
    /// By the tunnels.
    tunnels: f64,
}

/// What was used between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) seconds: f64,
    pub(crate) own: f64,
    pub(crate) tunnels: f64,
    /// Processors that others used on average.
    pub(crate) foreign: f64,
}

impl Clock {
    pub(crate) fn now(tunnels: &[u32]) -> Self {
        let stat = read_to_string("/proc/stat").expect("/proc");
        let fields: Vec<f64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq
        let busy = [0, 1, 2, 5, 6].iter().map(|i| fields[*i]).sum::<f64>() / HERTZ;
        let tunnels: f64 = tunnels.iter().map(|pid| process(&pid.to_string(), 2)).sum();
        Self { at: std::time::Instant::now(), busy, own: process("self", 4) + tunnels, tunnels }
    }

    pub(crate) fn since(self, tunnels: &[u32]) -> Used {
        let now = Self::now(tunnels);
        let seconds = now.at.duration_since(self.at).as_secs_f64();
        let own = now.own - self.own;
        let foreign = ((now.busy - self.busy - own) / seconds).max(0.0);
        Used { seconds, own, tunnels: now.tunnels - self.tunnels, foreign }
    }
}

/// Waits until others use less than a tenth of a processor for half a second, or until `patience` is over.
pub(crate) fn calm(patience: std::time::Duration) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < patience {
        let clock = Clock::now(&[]);
        std::thread::sleep(std::time::Duration::from_millis(500));
        if clock.since(&[]).foreign < 0.1 {
            return;
        }
    }
}

/// User and system seconds of a process; with 4 fields those of its ended children too.
fn process(pid: &str, fields: usize) -> f64 {
    let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind = stat.rsplit(") ").next().unwrap_or_default();
    behind.split_whitespace().skip(11).take(fields).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / HERTZ
}

/// Resident memory of a process in KiB.
pub(crate) fn memory(pid: u32, field: &str) -> u64 {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim_start_matches(':').split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
