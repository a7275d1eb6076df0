//! What else the machine was doing: CPU that neither the gateways nor the streams used.

use std::{fs, time::Instant};

use anyhow::Result;
use liqo_test::usage::{TICKS, busy};

/// What the kernel calls the process of a gateway.
const GATEWAY: &str = "liqo-gateway";

/// A look at the clocks of the machine.
pub(crate) struct Load {
    at: Instant,
    busy: f64,
    ours: f64,
}

impl Load {
    pub(crate) fn now() -> Result<Self> {
        Ok(Self { at: Instant::now(), busy: busy()?, ours: ours() })
    }

    /// Cores that were busy with other things since then, on average.
    pub(crate) fn foreign(&self) -> Result<f64> {
        let now = Self::now()?;
        let spent = (now.busy - self.busy) - (now.ours - self.ours);
        Ok((spent / (now.at - self.at).as_secs_f64()).max(0.0))
    }
}

/// Seconds this process, its children and all gateways have used.
fn ours() -> f64 {
    let used = |pid: &str, fields: std::ops::RangeInclusive<usize>| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<_> = stat
            .rsplit_once(") ")?
            .1
            .split(' ')
            .skip(*fields.start())
            .take(fields.count())
            .map(str::parse::<f64>)
            .collect();
        Some(fields.into_iter().flatten().sum::<f64>() / TICKS)
    };
    // utime and stime, then those of children that have ended: fields 14 to 17 of proc(5), counted after the name.
    let own = used("self", 11..=14).unwrap_or_default();
    let processes =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|one| one.file_name().into_string().ok());
    let gateways = processes
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == GATEWAY));
    own + gateways.filter_map(|pid| used(&pid, 11..=12)).sum::<f64>()
}
