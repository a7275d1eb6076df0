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

/// The most memory that a process has had since [`Peak::begin`], KiB: the kernel notes the peak, so that a short one counts, too.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    pid: u32,
    /// Own data, and pages of files, at the beginning.
    before: (u64, u64),
}

impl Peak {
    /// Forgets the earlier peak (proc(5), `clear_refs`).
    ///
    /// # Errors
    /// When the process is gone or somebody else's.
    pub fn begin(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/clear_refs");
        fs::write(&path, "5").with_context(|| format!("cannot write {path}"))?;
        Ok(Self { pid, before: (status(pid, "RssAnon:")?, status(pid, "RssFile:")?) })
    }

    /// Own data at the beginning.
    pub fn before(&self) -> u64 {
        self.before.0
    }

    /// Own data at its highest since the beginning. The kernel notes a peak of all pages; pages of files that came since the
    /// beginning, like code that was used for the first time, count as own data.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn most(&self) -> Result<u64> {
        Ok(status(self.pid, "VmHWM:")?.saturating_sub(self.before.1).max(self.before.0))
    }
}

/// A field of the status of a process, KiB.
fn status(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("{path} has no {field}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_that_is_over_is_seen() {
        let peak = Peak::begin(std::process::id()).unwrap();
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        let most = peak.most().unwrap();
        assert!(most - peak.before() >= 60 << 10, "{} KiB, then {most} KiB", peak.before());
    }
}
