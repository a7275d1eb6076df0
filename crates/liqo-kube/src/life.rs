//! Life and death of a process; [`crate::role`] leads each role through it.
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

use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Config, client::ClientBuilder, config::Kubeconfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    Cluster,
    answers::{self, Counting, Host},
    args::RuntimeArgs,
    drain::{Drain, Patience},
    guard,
    kubeconfig::{self, Author},
    lease,
    metrics::{self, Samples},
    refusals,
    server::{self, Listen, Reply, text},
};

type Contribution = Box<dyn Fn(&mut Samples) + Send + Sync>;

/// The life of this process. Copies share it.
#[derive(Clone, Default)]
pub struct Life(Arc<Inner>);

#[derive(Default)]
struct Inner {
    busy: AtomicUsize,
    stopping: CancellationToken,
    drain: Drain,
    metrics: Mutex<Vec<Contribution>>,
    leads: Mutex<Vec<Lead>>,
}

/// A lease that this process holds until its end.
struct Lead {
    cluster: Cluster,
    namespace: String,
    name: &'static str,
    holder: String,
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
            // The targets of all our crates begin like this.
            1..=3 => "info,boringtun=error,liqo=debug",
            4..=6 => "debug",
            _ => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
        let _ = log.try_init();
        let life = Self::default();
        let started = Timestamp::now();
        life.metrics(move |samples| {
            samples.gauge(&metrics::BUILD, &[role, env!("CARGO_PKG_VERSION")], 1.0);
            metrics::process_samples(started, samples);
        });
        let stopping = life.0.stopping.clone();
        tokio::spawn(async move {
            signalled().await;
            tracing::info!("stopping");
            stopping.cancel();
        });
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

    /// Adds samples to `/metrics`, at each scrape.
    pub fn metrics(&self, contribution: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(contribution));
    }

    /// Adds the calls made to a cluster to `/metrics`, under the name `cluster`.
    pub fn count_calls(&self, cluster: &'static str, calls: &Cluster) {
        let calls = Arc::clone(calls.calls());
        self.metrics(move |samples| calls.samples(cluster, samples));
    }

    /// The own cluster, in which this process writes under the name `writer`. Calls are counted.
    ///
    /// # Errors
    /// As [`home_client`].
    pub async fn home(&self, args: &RuntimeArgs, writer: &'static str) -> Result<Cluster, String> {
        let (client, _) = home_client(args).await?;
        let cluster = Cluster::new(client, writer);
        self.count_calls("home", &cluster);
        Ok(cluster)
    }

    /// Waits until this process leads, see [`lease::lead`]. The lease is given back at the end of the process, after its servers
    /// have ended.
    pub async fn lead(&self, cluster: &Cluster, namespace: &str, name: &'static str, holder: &str) {
        let lead = Lead { cluster: cluster.clone(), namespace: namespace.to_owned(), name, holder: holder.to_owned() };
        // Remembered first: a process that is stopped while it takes the lease may hold the lease.
        self.0.leads.lock().unwrap_or_else(PoisonError::into_inner).push(lead);
        lease::lead(cluster, self, namespace, name, holder).await;
    }

    /// Gives back all leases.
    pub(crate) async fn step_down(&self) {
        let leads = std::mem::take(&mut *self.0.leads.lock().unwrap_or_else(PoisonError::into_inner));
        for Lead { cluster, namespace, name, holder } in leads {
            lease::release(&cluster, &namespace, name, &holder).await;
        }
    }

    /// The answer to a scrape.
    pub fn metrics_text(&self) -> String {
        let mut samples = Samples::default();
        crate::count::describe(&mut samples);
        for common in [answers::samples, guard::samples, metrics::work_samples, refusals::samples] {
            common(&mut samples);
        }
        for part in self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            part(&mut samples);
        }
        samples.text()
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
        self.0.stopping.cancelled().await;
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
            (&Method::GET, "/metrics") => {
                let mut answer = text(StatusCode::OK, &self.metrics_text());
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
                answer
            }
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
            let kubeconfig = kubeconfig::allowed(kubeconfig, Author::Administrator).map_err(|why| failed(&why))?;
            let config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await;
            config.map_err(|error| failed(&error))?
        }
        None => Config::incluster().map_err(|error| format!("reading the pod's service account: {error}"))?,
    };
    // Whoever asks decides when to ask again: a refused eviction is an answer.
    config.default_retry = false;
    let client = ClientBuilder::try_from(config.clone()).map_err(|error| format!("preparing the client: {error}"))?;
    Ok((client.with_layer(&Counting(Host::Home)).build(), config))
}
