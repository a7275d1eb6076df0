//! What processes and the machine have used.

use std::fs;

use anyhow::{Context, Result};

/// Ticks of `/proc` in a second: USER_HZ, 100 on every Linux.
pub const TICKS: f64 = 100.0;

/// Memory of a process, KiB, pages that several processes map counted in parts (proc(5), `smaps_rollup`).
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub all: u64,
    /// Of it, what is no file's: its own data.
    pub anonymous: u64,
}

/// # Errors
/// When the process is gone or somebody else's.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = |field: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        value.with_context(|| format!("{path} has no {field}"))
    };
    Ok(Memory { all: kib("Pss:")?, anonymous: kib("Pss_Anon:")? })
}

/// Seconds all processors together were not idle: processes, the kernel, interrupts; neither idleness nor what was denied.
///
/// # Errors
/// When /proc is not there.
pub fn busy() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    Ok([0, 1, 2, 5, 6].iter().filter_map(|field| ticks.get(*field)).sum::<f64>() / TICKS)
}
