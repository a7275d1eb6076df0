//! The role `liqo-status`: a read-only page, and its JSON, of what this cluster gives to and takes from its peers.
//!
//! Watches: ForeignClusters, virtual Nodes, TunnelEndpoints, NamespaceOffloadings, Pods that run elsewhere or for peers.
//! Writes: nothing but reviews of tokens and rights.
//! Keeps true: an object is shown only to callers who may list it, as the API server says.

mod api;
mod model;
mod observe;
mod pages;
mod view;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use liqo_api::names;
use liqo_front::{Front, certificate::Certificate};
use liqo_kube::{Cluster, KubeError, args::RuntimeArgs, drain::Patience, life::Life, role::Role, server::Listen};

use api::App;
use observe::Watches;

/// People reach the page through a Service, whose endpoints change a moment after the signal.
const PEOPLE: Patience = Patience { accept: Duration::from_secs(3), finish: Duration::from_secs(10) };
/// Pause between two looks for the ID of this cluster.
const PAUSE: Duration = Duration::from_millis(500);

/// Flags of the status page.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-status", version, about = "Shows peers, capacity, and offloaded namespaces and pods")]
pub struct StatusArgs {
    /// The own cluster, the log and health.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Namespace Liqo is installed in.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::LIQO_NAMESPACE)]
    pub namespace: String,
    /// Address of the page, HTTPS.
    #[arg(long, default_value = ":8443", value_name = "HOST:PORT")]
    pub address: Listen,
    /// Directory with the `tls.crt` and `tls.key` to show; without it the page makes its own certificate.
    #[arg(long, value_name = "DIRECTORY")]
    pub tls_directory: Option<std::path::PathBuf>,
}

impl Role for StatusArgs {
    const NAME: &'static str = "liqo-status";
    const PATIENCE: Patience = PEOPLE;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let busy = life.busy();
        let home = life.home(&self.runtime, Self::NAME).await?;
        let certificate = Certificate::open(self.tls_directory, Self::NAME)?;
        let watches = Watches::start(&home);
        watches.ready().await;
        let cluster = identity(&home, &self.namespace).await;
        let cluster = cluster.map_err(|error| format!("reading who this cluster is: {error}"))?;
        let front = Front::new(home, life.drain().clone(), cluster);
        let routes = api::routes(App::new(Arc::clone(&front), watches));
        life.spawn("front", front.serve(self.address, certificate.shown(), busy, routes));
        life.spawn("certificate", certificate.follow());
        Ok(())
    }
}

/// Name and ID of this cluster, which is chosen by the controller manager when it starts for the first time.
async fn identity(home: &Cluster, namespace: &str) -> Result<(String, String), KubeError> {
    loop {
        let map = home.get::<ConfigMap>(namespace, names::CLUSTER_ID_CONFIG_MAP).await?;
        let data = map.and_then(|map| map.data).unwrap_or_default();
        let value = |key: &str| data.get(key).cloned().unwrap_or_default();
        let (name, id) = (value("CLUSTER_NAME"), value("CLUSTER_ID"));
        if !id.is_empty() {
            return Ok((name, id));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
