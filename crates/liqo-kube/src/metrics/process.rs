//! Metrics of the process itself, as every exporter of Prometheus names them.

use std::fs;

use k8s_openapi::jiff::Timestamp;

use super::{Metric, Samples};

/// The role and its version; the value is 1.
pub(crate) const BUILD: Metric =
    Metric::gauge("liqo_build_info", "Role and version of the process.", &["role", "version"]);
const START: Metric =
    Metric::gauge("process_start_time_seconds", "Start time of the process, seconds since the epoch.", &[]);
const MEMORY: Metric = Metric::gauge("process_resident_memory_bytes", "Resident memory of the process.", &[]);
const CPU: Metric = Metric::counter("process_cpu_seconds_total", "CPU time of the process, user and system.", &[]);
const FILES: Metric = Metric::gauge("process_open_fds", "Open file descriptors of the process.", &[]);

/// Clock ticks in a second, as `/proc/self/stat` counts: the same on every Linux.
const TICKS: f64 = 100.0;

/// The process as the kernel sees it, or less where there is no `/proc`.
#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
pub(crate) fn samples(started: Timestamp, samples: &mut Samples) {
    samples.gauge(&START, &[], started.as_second() as f64);
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    if let Some(bytes) = resident(&read("status")) {
        samples.gauge(&MEMORY, &[], bytes);
    }
    if let Some(seconds) = processor(&read("stat")) {
        samples.seconds(&CPU, &[], seconds);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        samples.gauge(&FILES, &[], files.count() as f64);
    }
}

/// Resident memory in bytes, of `/proc/self/status`.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Seconds of CPU time, of `/proc/self/stat`. The name of the program comes before, in parentheses, and may contain anything.
fn processor(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(resident("Name:\tliqo\nVmHWM:\t 900 kB\nVmRSS:\t     812 kB\n"), Some(831_488.0));
        assert_eq!(resident("Name:\tliqo\n"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(processor(stat), Some(2.0));
        assert_eq!((processor(""), processor("7 (a) S 1")), (None, None));
    }

    #[test]
    fn this_process_is_served() {
        let mut all = Samples::default();
        samples(Timestamp::from_second(1_700_000_000).unwrap(), &mut all);
        let text = all.text();
        for name in ["process_start_time_seconds 1700000000", "process_resident_memory_bytes ", "process_open_fds "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{text}");
        }
    }
}
