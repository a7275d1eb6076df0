//! The role `metric-agent`: what the pods of a peer use in this cluster, as the kubelets of this cluster tell it and under the names
//! that the peer has for its namespaces. The peer's virtual kubelet passes it on as its own metrics, for metrics-server and
//! Prometheus there.
//!
//! Watches   `Namespace`s made for peers, `Pod`s of peers, `Node`s; the `ConfigMap` that says how the API server shows itself.
//! Writes    nothing.
//! Keeps true: a peer learns of its own pods only.

mod api;
mod caller;
mod kubelets;
mod peer;

use std::{path::PathBuf, sync::Arc, time::Duration};

use liqo_api::meta::label;
use liqo_kube::{
    args::RuntimeArgs,
    certs::{self, Shown, Subject},
    drain::Patience,
    life::Life,
    reach::Trust,
    role::Role,
    server::{self, AUTHENTICATION, Authorities, Limits, Listen},
    told::Told,
};

use crate::{
    api::{Api, Turns},
    kubelets::Kubelets,
};

/// The API server finds the agent through a Service, whose endpoints change a moment after the signal.
const CALLERS: Patience = Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(10) };
/// Life of the certificate that is shown. It is made at each start; the API server does not verify it.
const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Flags of the metric agent.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "metric-agent", version, about = "Tells peers what their pods use in this cluster")]
pub struct MetricArgs {
    /// The own cluster, the log and health.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Port of the API, HTTPS.
    #[arg(long, default_value_t = 8443)]
    pub port: u16,
    /// File with the token that kubelets authenticate.
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Authorities (PEM) of the certificates of kubelets; without it every certificate is accepted, as API servers accept it.
    #[arg(long, value_name = "FILE")]
    pub kubelet_authority: Option<PathBuf>,
    /// Accepted for compatibility; the agent makes its own certificate.
    #[arg(long, hide = true, default_value = "")]
    pub key_path: String,
    /// Accepted for compatibility, like --key-path.
    #[arg(long, hide = true, default_value = "")]
    pub cert_path: String,
}

impl Role for MetricArgs {
    const NAME: &'static str = "metric-agent";
    const PATIENCE: Patience = CALLERS;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let busy = life.busy();
        let home = life.home(&self.runtime, Self::NAME).await?;
        let trust = match &self.kubelet_authority {
            None => Trust::Anybody,
            Some(file) => {
                let read = tokio::fs::read(file).await;
                Trust::Authorities(read.map_err(|error| format!("reading {}: {error}", file.display()))?)
            }
        };
        let (namespace, name) = AUTHENTICATION;
        let no_virtual = format!("{}!={}", label::TYPE, label::VIRTUAL_NODE);
        let api = Api {
            kubelets: Kubelets { trust, token_file: self.token_file },
            namespaces: home.watch("").labels(label::REMOTE_CLUSTER_ID).trim(peer::trim_namespace).start(|_| {}),
            pods: home.watch("").labels(label::REFLECTION_ORIGIN).trim(peer::trim_pod).start(|_| {}),
            nodes: home.watch("").labels(&no_virtual).trim(kubelets::trim).start(|_| {}),
            authentication: home.watch(namespace).fields(&format!("metadata.name={name}")).start(|_| {}),
            turns: Turns::default(),
            told: Told::default(),
        };
        api.namespaces.ready().await;
        api.pods.ready().await;
        api.nodes.ready().await;
        let shown = Arc::new(Shown::default());
        let pair = certs::self_signed(&Subject::new(Self::NAME, "liqo.io"), &[Self::NAME.to_owned()], YEARS);
        pair.and_then(|pair| shown.show(&pair)).map_err(|error| error.to_string())?;
        let (api, port, drain) = (Arc::new(api), Listen::All(self.port), life.drain().clone());
        life.spawn("metrics-api", async move {
            let answer = move |request, peer| Arc::clone(&api).answer(request, peer);
            server::serve_known(&home, (port, Limits::DEFAULT), (drain, busy), (shown, Authorities::FrontProxy), answer)
                .await
        });
        Ok(())
    }
}
