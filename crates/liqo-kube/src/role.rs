//! The frame of every role: how a process starts, works and ends.
//!
//! Keeps true: each role logs, answers probes and scrapes, ends on a panic that nobody guards, says why it ended, lets its servers
//! end in order, and gives its leases back last. A role says what is particular to it: its flags, its patience, its work.

use std::{ffi::OsString, future::Future};

use crate::{args::RuntimeArgs, certs, drain::Patience, guard, life::Life};

/// A role of a server binary; the type holds its flags.
///
/// # Example
/// ```ignore
/// impl Role for StatusArgs {
///     const NAME: &'static str = "liqo-status";
///     const PATIENCE: Patience = Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(10) };
///
///     fn runtime(&self) -> &RuntimeArgs {
///         &self.runtime
///     }
///
///     async fn run(self, life: Life) -> Result<(), String> {
///         let busy = life.busy();
///         let home = life.home(&self.runtime, Self::NAME).await?;
///         life.spawn("page", page::serve(home, life.drain().clone(), busy));
///         Ok(())
///     }
/// }
/// ```
pub trait Role: clap::Parser {
    /// The name in the log and in the metric `liqo_build_info`.
    const NAME: &'static str;
    /// How long the servers of the role answer after the signal.
    const PATIENCE: Patience = Patience::NONE;
    /// Whether [`Role::run`] ends by itself after the signal, because it has to tidy up. Otherwise its future is dropped.
    const TIDIES_UP: bool = false;

    /// The flags that every role has.
    fn runtime(&self) -> &RuntimeArgs;

    /// Work, or a refusal of flags, that needs neither probes nor signals; the process ends with it. `None`: the role runs.
    fn once(&self) -> Option<Result<(), String>> {
        None
    }

    /// Starts the tasks of the role, see [`Life::spawn`]; may return, or work on until the signal.
    ///
    /// # Errors
    /// A text that says why the role cannot start, or cannot go on.
    fn run(self, life: Life) -> impl Future<Output = Result<(), String>>;
}

/// Runs a role to its end. One thread is enough for each role, and keeps it small.
///
/// # Errors
/// A text that says why the role could not start, or ended.
pub fn live<R: Role>(args: Vec<OsString>) -> Result<(), String> {
    end_on_panic();
    certs::install_crypto();
    let role = R::parse_from(args);
    if let Some(outcome) = role.once() {
        return outcome;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(run(role))
}

/// Runs a role to its end, on the runtime that is there.
///
/// # Errors
/// As [`live`].
pub async fn run<R: Role>(role: R) -> Result<(), String> {
    let life = Life::start(R::NAME, role.runtime()).await?;
    let mut work = Box::pin(role.run(life.clone()));
    let ended = tokio::select! {
        outcome = &mut work => Some(outcome),
        () = life.until_signal() => None,
    };
    match ended {
        Some(outcome) => outcome?,
        None if R::TIDIES_UP => work.as_mut().await?,
        None => {}
    }
    drop(work);
    life.until_signal().await;
    // Controllers go on until the servers have ended: the next leader takes over from one that is gone.
    life.drained(R::PATIENCE).await;
    life.step_down().await;
    Ok(())
}

/// A task that panicked must not leave the rest half alive: the process ends and is started again. Work for one key, peer
/// or request is guarded instead, because what one peer sends must not end the work for all.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if !guard::is_guarded() {
            std::process::abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Failing {
        #[command(flatten)]
        runtime: RuntimeArgs,
    }

    impl Role for Failing {
        const NAME: &'static str = "failing";

        fn runtime(&self) -> &RuntimeArgs {
            &self.runtime
        }

        async fn run(self, life: Life) -> Result<(), String> {
            let text = life.metrics_text();
            let build = format!("liqo_build_info{{role=\"failing\",version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
            assert!(text.lines().any(|line| line == build), "{text}");
            Err("no room".to_owned())
        }
    }

    #[tokio::test]
    async fn a_role_that_cannot_start_says_why() {
        let role = Failing::parse_from(["failing", "--health-probe-address="]);
        let ended = tokio::time::timeout(Duration::from_secs(5), run(role)).await;
        assert_eq!(ended, Ok(Err("no room".to_owned())));
    }
}
