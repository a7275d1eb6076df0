//! Life and death of a process.
//!
//! Ready when every component has dropped its [`Busy`] token. A named task that ends ends the process:
//! what is half dead is restarted, it does not hide. SIGTERM and SIGINT end it in order.

use std::{
    fmt::Display,
    future::Future,
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Method, Response, StatusCode};
use kube::{Client, Config, config::Kubeconfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    args::RuntimeArgs,
    drain::{Drain, Patience},
    guard, refusals,
    server::{self, Listen, Reply, text},
};

type Contribution = Box<dyn Fn() -> String + Send + Sync>;

/// The life of this process. Copies share it.
#[derive(Clone, Default)]
pub struct Life(Arc<Inner>);

#[derive(Default)]
struct Inner {
    busy: AtomicUsize,
    stopping: CancellationToken,
    drain: Drain,
    metrics: Mutex<Vec<Contribution>>,
}

/// Held by a component until it is ready.
#[must_use]
pub struct Busy(Arc<Inner>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Life {
    /// Starts logging and the health endpoint; call it once, first.
    ///
    /// # Errors
    /// When the health address cannot be used.
    pub async fn start(role: &'static str, args: &RuntimeArgs) -> Result<Self, String> {
        let level = match args.verbosity {
            // Failed calls are told by whoever made them.
            0 => "info,kube_client::client::builder=off,boringtun=error",
            1..=3 => {
                "info,boringtun=error,liqo=debug,liqo_control=debug,liqo_fabric=debug,liqo_front=debug,liqo_kubelet=debug,liqo_kube=debug,liqo_status=debug"
            }
            4..=6 => "debug",
            _ => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
        let _ = log.try_init();
        let life = Self::default();
        if !args.health_probe_address.is_empty() {
            life.serve("health", &args.health_probe_address).await?;
        }
        tracing::info!(role, version = env!("CARGO_PKG_VERSION"), "starting");
        Ok(life)
    }

    /// The process is not ready until the token is dropped.
    pub fn busy(&self) -> Busy {
        self.0.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(&self.0))
    }

    /// Adds text to `/metrics`, in the Prometheus text format.
    pub fn metrics(&self, contribution: impl Fn() -> String + Send + Sync + 'static) {
        self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(contribution));
    }

    /// Everything contributed to `/metrics`.
    pub fn metrics_text(&self) -> String {
        let parts = self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|part| part()).chain([guard::metrics(), refusals::metrics()]).collect()
    }

    /// Serves `/metrics` (and the health checks) on an address of its own.
    ///
    /// # Errors
    /// A text that names the address when it makes no sense or cannot be used.
    pub async fn serve_metrics(&self, address: &str) -> Result<(), String> {
        self.serve("metrics", address).await
    }

    /// Runs a task for as long as the process lives; its end is the end of the process, unless the process is stopping or
    /// the task was aborted.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Ended + Send,
    {
        let (handle, life) = (tokio::spawn(task), self.clone());
        let abort = handle.abort_handle();
        tokio::spawn(async move {
            let why = match handle.await {
                Ok(outcome) => outcome.why(),
                Err(error) if error.is_cancelled() => return,
                Err(error) => Some(error.to_string()),
            };
            if life.0.stopping.is_cancelled() {
                return;
            }
            let error = why.as_deref().unwrap_or("no reason given");
            tracing::error!(task = name, error, "task ended, so does the process");
            end(1);
        });
        abort
    }

    /// Returns at SIGTERM or SIGINT. From then on the process says that it is not ready.
    pub async fn until_signal(&self) {
        signalled().await;
        self.0.stopping.cancel();
        tracing::info!("stopping");
    }

    /// What the servers of this process hold on to until the process may end.
    pub fn drain(&self) -> &Drain {
        &self.0.drain
    }

    /// Lets the servers of this process end in order, see [`Drain::end`]; a second signal ends the wait.
    pub async fn drained(&self, patience: Patience) {
        tokio::select! {
            () = self.0.drain.end(patience) => {}
            () = signalled() => tracing::info!("stopping at once"),
        }
    }

    async fn serve(&self, task: &'static str, address: &str) -> Result<(), String> {
        let listener = address.parse::<Listen>()?.bind().await.map_err(|error| format!("{task}: {error}"))?;
        let life = self.clone();
        self.spawn(task, async move {
            server::serve(listener, None, move |request, _peer| {
                let life = life.clone();
                async move { life.answer(request.method(), request.uri().path()) }
            })
            .await;
        });
        Ok(())
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Reply> {
        match (method, path) {
            (&Method::GET, "/healthz" | "/livez") => text(StatusCode::OK, "ok"),
            (&Method::GET, "/readyz") if self.0.stopping.is_cancelled() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping")
            }
            (&Method::GET, "/readyz") if self.0.busy.load(Ordering::SeqCst) == 0 => text(StatusCode::OK, "ok"),
            (&Method::GET, "/readyz") => text(StatusCode::SERVICE_UNAVAILABLE, "not ready yet"),
            (&Method::GET, "/metrics") => text(StatusCode::OK, &self.metrics_text()),
            _ => text(StatusCode::NOT_FOUND, "there is /healthz, /readyz and /metrics"),
        }
    }
}

/// How a task ended.
pub trait Ended {
    /// The error, if there was one.
    fn why(self) -> Option<String>;
}

impl Ended for () {
    fn why(self) -> Option<String> {
        None
    }
}

impl<T, E: Display> Ended for Result<T, E> {
    fn why(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// Returns at the next SIGTERM or SIGINT.
async fn signalled() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be received");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Ends the process.
#[expect(clippy::exit, reason = "the one place that ends a server process")]
pub fn end(code: i32) -> ! {
    process::exit(code)
}

/// The own cluster: from a kubeconfig if one is given, else from the pod's service account.
///
/// # Errors
/// A text that says which configuration could not be used and why.
pub async fn home_client(args: &RuntimeArgs) -> Result<(Client, Config), String> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| format!("reading kubeconfig {}: {error}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
            let config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await;
            config.map_err(|error| failed(&error))?
        }
        None => Config::incluster().map_err(|error| format!("reading the pod's service account: {error}"))?,
    };
    // Whoever asks decides when to ask again: a refused eviction is an answer.
    config.default_retry = false;
    let client = Client::try_from(config.clone()).map_err(|error| format!("preparing the client: {error}"))?;
    Ok((client, config))
}
