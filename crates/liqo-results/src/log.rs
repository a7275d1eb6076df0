//! The log of the roles that know no Kubernetes; as of the other roles: standard error, one line for each event.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts the log. `verbosity`: 0 what changed, 1 to 3 also what was looked at, 4 and more everything.
pub fn start(role: &'static str, verbosity: u8) {
    let level = match verbosity {
        // Refused requests are answered with the reason; a store does not log each of them.
        0 => "info,s3s=off",
        1..=3 => "info,liqo=debug,liqo_results=debug,liqo_store=debug",
        4..=6 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(colours);
    let _ = log.try_init();
    tracing::info!(role, version = env!("CARGO_PKG_VERSION"), "starting");
}
