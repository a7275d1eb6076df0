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
use liqo_front::{FrontArgs, Opening, patience};
use liqo_kube::{Cluster, KubeError, args::RuntimeArgs, drain::Patience, life::Life, role::Role};

use api::App;
use observe::Watches;

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
    /// Where and with which certificate the page is served.
    #[command(flatten)]
    pub front: FrontArgs,
}

impl Role for StatusArgs {
    const NAME: &'static str = "liqo-status";
    const PATIENCE: Patience = patience(10);

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let opening = Opening::begin(&life, &self.runtime, self.front, Self::NAME).await?;
        let watches = Watches::start(&opening.home);
        watches.ready().await;
        let cluster = identity(&opening.home, &self.namespace).await;
        let cluster = cluster.map_err(|error| format!("reading who this cluster is: {error}"))?;
        let front = opening.front(cluster);
        let routes = api::routes(App::new(Arc::clone(&front), watches));
        opening.serve(front, routes);
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
