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
use liqo_front::Front;
use liqo_kube::{
    Cluster,
    args::RuntimeArgs,
    certs::{self, Pair, Shown, Subject},
    life::{self, Life},
    server,
};

use api::App;
use observe::Watches;

/// How long the certificate lasts that the page shows when it is given none.
const OWN_CERTIFICATE: Duration = Duration::from_secs(365 * 24 * 3600);

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
    #[arg(long, default_value = ":8443", value_parser = server::address, value_name = "HOST:PORT")]
    pub address: std::net::SocketAddr,
    /// Directory with the `tls.crt` and `tls.key` to show, read at start; without it the page makes its own certificate.
    #[arg(long, value_name = "DIRECTORY")]
    pub tls_directory: Option<std::path::PathBuf>,
}

/// Serves until SIGTERM.
///
/// # Errors
/// A text that says why it could not start.
pub async fn run(args: StatusArgs) -> Result<(), String> {
    let life = Life::start("liqo-status", &args.runtime)?;
    let busy = life.busy();
    let (client, _) = life::home_client(&args.runtime).await?;
    let home = Cluster::new(client, "liqo-status");
    life.metrics({
        let calls = Arc::clone(home.calls());
        move || calls.text("home")
    });
    let shown = Arc::new(Shown::default());
    shown.show(&certificate(&args)?).map_err(|error| error.to_string())?;
    let front = Front::new(&home, identity(&home, &args.namespace).await?);
    let watches = Watches::start(&home);
    let ready = watches.clone();
    let routes = api::routes(App::new(Arc::clone(&front), watches));
    life.spawn("front", front.serve(home, args.address, shown, routes));
    tokio::select! {
        () = ready.ready() => drop(busy),
        () = life.until_signal() => return Ok(()),
    }
    life.until_signal().await;
    Ok(())
}

fn certificate(args: &StatusArgs) -> Result<Pair, String> {
    let Some(directory) = &args.tls_directory else {
        let names = ["liqo-status", "localhost"].map(str::to_owned);
        let subject = Subject { common_name: "liqo-status".to_owned(), ..Subject::default() };
        return certs::self_signed(&subject, &names, OWN_CERTIFICATE).map_err(|error| error.to_string());
    };
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("reading {}: {error}", path.display()))
    };
    Ok(Pair { certificate: read(names::TLS_CERTIFICATE)?, key: read(names::TLS_KEY)? })
}

/// Name and ID of this cluster, as far as they are known.
async fn identity(home: &Cluster, namespace: &str) -> Result<(String, String), String> {
    let map = home.get::<ConfigMap>(namespace, names::CLUSTER_ID_CONFIG_MAP).await;
    let map = map.map_err(|error| format!("reading who this cluster is: {error}"))?;
    let data = map.and_then(|map| map.data).unwrap_or_default();
    let value = |key: &str| data.get(key).cloned().unwrap_or_default();
    Ok((value("CLUSTER_NAME"), value("CLUSTER_ID")))
}
