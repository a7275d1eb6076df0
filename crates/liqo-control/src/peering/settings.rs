//! The flags of the controller manager that concern peerings, read once and checked.

use std::time::Duration;

use liqo_core::grants::Policy;

use crate::args::PeeringArgs;

/// How peerings are handled here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How often a peer's API server is probed; never when `None`, then it counts as ready.
    pub(crate) probe_interval: Option<Duration>,
    /// How long a probe may take.
    pub(crate) probe_timeout: Duration,
    /// Change of an offer, in percent, that is too small to be told.
    pub(crate) threshold: u8,
    /// Settings of this cluster on which the grants to peers depend.
    pub(crate) policy: Policy,
}

impl Settings {
    /// Reads the flags.
    ///
    /// # Errors
    /// A text that names the flag, its value and what is allowed.
    pub(crate) fn read(args: &PeeringArgs) -> Result<Self, String> {
        if !args.resource_plugin_address.is_empty() {
            return Err(format!(
                "--resource-plugin-address {:?}: this release has no resource plugins; leave the flag (chart value \
                 controllerManager.config.resourcePluginAddress) empty to use the built-in resource monitor",
                args.resource_plugin_address
            ));
        }
        let interval = duration("--foreign-cluster-ping-interval", &args.foreign_cluster_ping_interval)?;
        let timeout = duration("--foreign-cluster-ping-timeout", &args.foreign_cluster_ping_timeout)?;
        if timeout.is_zero() {
            return Err("--foreign-cluster-ping-timeout must be longer than 0".to_owned());
        }
        let threshold = match args.offer_update_threshold_percentage.trim() {
            "" => 0,
            text => text.parse::<u8>().ok().filter(|percent| *percent <= 100).ok_or_else(|| {
                format!("--offer-update-threshold-percentage {text:?} must be a whole number from 0 to 100")
            })?,
        };
        let probe_interval = Some(interval).filter(|interval| !interval.is_zero());
        let policy = Policy {
            accept_by_default: args.enable_incoming_peering,
            auto_join: args.auto_join_discovered_clusters,
            deadline: duration("--withdrawal-deadline", &args.withdrawal_deadline)?,
        };
        if policy.deadline.is_zero() {
            return Err("--withdrawal-deadline must be longer than 0".to_owned());
        }
        Ok(Self { probe_interval, probe_timeout: timeout, threshold, policy })
    }
}

/// A duration as Go writes it: `15s`, `1m30s`, `500ms`, `0`.
///
/// # Errors
/// A text that names the flag, its value and what is allowed.
pub(crate) fn duration(flag: &str, text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| format!("{flag} {text:?} must look like 15s, 1m30s or 500ms"))
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * seconds).ok()?;
        rest = after;
    }
    (!text.trim().is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::ManagerArgs;

    fn read(flags: &[&str]) -> Result<Settings, String> {
        let flags = ["x", "--cluster-name=rome"].iter().chain(flags);
        Settings::read(&ManagerArgs::parse_from(flags).peering)
    }

    #[test]
    fn flags_are_those_of_liqo_0_8_3() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.probe_interval, Some(Duration::from_secs(15)));
        assert_eq!((settings.probe_timeout, settings.threshold), (Duration::from_secs(5), 0));
        assert_eq!(settings.policy.deadline, Duration::from_secs(300));
        let settings = read(&["--foreign-cluster-ping-interval=0", "--offer-update-threshold-percentage=5"]).unwrap();
        assert_eq!((settings.probe_interval, settings.threshold), (None, 5));
        for (flag, words) in [
            ("--resource-plugin-address=a:1", "no resource plugins"),
            ("--foreign-cluster-ping-interval=soon", "must look like 15s"),
            ("--foreign-cluster-ping-timeout=0s", "longer than 0"),
            ("--withdrawal-deadline=0s", "longer than 0"),
            ("--withdrawal-deadline=never", "must look like 15s"),
            ("--offer-update-threshold-percentage=500", "from 0 to 100"),
        ] {
            assert!(read(&[flag]).unwrap_err().contains(words), "{flag}");
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in
            [("15s", 15_000), ("1m30s", 90_000), ("500ms", 500), ("0", 0), ("0s", 0), ("1.5h", 5_400_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "15", "s", "15x", "-1s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
