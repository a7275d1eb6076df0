//! Role `virtual-kubelet`: wires the parts together.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use liqo_api::ClusterIdentity;
use liqo_kube::{Cluster, args::RuntimeArgs, drain::Patience, life::Life, reach::Own, role::Role};
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    api,
    args::{ApiServerArgs, KubeletArgs, PeeringArgs},
    link::{Identity, Link},
    metrics::Counters,
    node::{self, Connectivity, Surroundings},
    reflect::{self, API_SERVER_NAMES, ApiServer, ApiSupport, Cx, Pairs},
    translate::{Addresses, Elsewhere},
};

/// Name under which we write in the own cluster.
const WRITER: &str = "virtual-kubelet";
/// Version of the node when the own API server does not tell its own.
const UNKNOWN_VERSION: &str = "v1.25.0";
/// How long the own API server may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long streams like `exec` go on after the signal: less than the grace period of the pod, 30 s. Nobody looks for the
/// virtual kubelet through a Service.
const STREAMS: Patience = Patience { accept: Duration::ZERO, finish: Duration::from_secs(25) };

impl Role for KubeletArgs {
    const NAME: &'static str = "virtual-kubelet";
    const PATIENCE: Patience = STREAMS;
    const TIDIES_UP: bool = true;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let node = tokio::select! {
            started = start(self, &life) => started?,
            () = life.until_signal() => return Ok(()),
        };
        life.until_signal().await;
        // The next virtual kubelet says where the node is. Who is in the middle of an `exec` has the time to end it.
        node.iter().for_each(AbortHandle::abort);
        Ok(())
    }
}

/// Starts all tasks; returns those that write the node.
async fn start(args: KubeletArgs, life: &Life) -> Result<[AbortHandle; 2], String> {
    let KubeletArgs {
        runtime,
        peering,
        node: node_args,
        workers,
        api_server,
        downward_api,
        ipam_server,
        reach: reach_args,
        peer_networks,
        disable_ip_reflection,
        enable_storage,
        virtual_storage_class_name: _,
        remote_real_storage_class_name: _,
        metrics_enabled,
        metrics_address,
        resync_period: _,
        enable_profiling: _,
    } = args;
    if enable_storage {
        tracing::warn!("volume claims are not reflected in this release: --enable-storage has no effect");
    }
    let busy = life.busy();
    let support = api_support(api_server)?;
    let link = Arc::new(link(peering, &node_args)?);
    let home = life.home(&runtime, WRITER).await?;
    let own = Own::watch(&home, &reach_args, false);
    own.ready().await;
    let outside = liqo_kube::reach::Reach::outside(Arc::new(own));
    let addresses = match (disable_ip_reflection, ipam_server.as_str()) {
        (true, _) => Addresses::Hidden,
        (false, "") => Addresses::Same(Arc::new(Elsewhere { networks: peer_networks, outside: outside.clone() })),
        (false, server) => Addresses::translated(server, &link.there.cluster_id)?,
    };
    let (there, identity) = Identity::connect(&home, &link, &outside).await?;
    life.spawn("identity", identity.follow());

    let counters = Arc::new(Counters::default());
    contribute(life, &link, &counters, &there);
    if metrics_enabled {
        life.serve_metrics(&metrics_address).await?;
    }
    let pairs = Arc::new(Pairs::default());
    let our_pods = format!("spec.nodeName={}", link.node);
    let pods = home.watch::<Pod>("").fields(&our_pods).start({
        let pairs = Arc::clone(&pairs);
        move |pod| pairs.saw(pod)
    });
    let reach = watch::Sender::new(Connectivity::Unknown);
    let cx = Cx {
        home: home.clone(),
        there: there.clone(),
        link: Arc::clone(&link),
        workers,
        support,
        downward_api,
        addresses: addresses.clone(),
        counters,
    };
    addresses.start(life, &home, &link, &pairs);
    let maps = reflect::start(life, cx, pods.clone(), Arc::clone(&pairs), reach.subscribe());
    let version = version(&home).await;
    let around = Surroundings {
        home: home.clone(),
        there: there.clone(),
        link: Arc::clone(&link),
        pods: pods.clone(),
        maps,
        version,
        reach,
    };
    let node = node::start(life, &node_args, around);
    api::start(life, &node_args, api::Surroundings { home, there, link, pods, pairs });
    drop(busy);
    Ok(node)
}

fn link(args: PeeringArgs, node: &crate::args::NodeArgs) -> Result<Link, String> {
    let PeeringArgs { home_cluster_id, home_cluster_name, foreign_cluster_id, foreign_cluster_name, tenant_namespace } =
        args;
    let identity = |flag: &str, id: String, name: String| {
        if id.is_empty() || name.is_empty() {
            return Err(format!("--{flag}-cluster-id and --{flag}-cluster-name must not be empty"));
        }
        Ok(ClusterIdentity::new(id, name))
    };
    Ok(Link {
        here: identity("home", home_cluster_id, home_cluster_name)?,
        there: identity("foreign", foreign_cluster_id, foreign_cluster_name)?,
        node: node.name.clone(),
        node_ip: node.ip.clone(),
        tenant_namespace,
    })
}

/// How pods there reach their own API server. Without a host of its own it gets a name of the own cluster,
/// since no certificate names the address under which it is seen there.
fn api_support(args: ApiServerArgs) -> Result<ApiSupport, String> {
    let ApiServerArgs {
        enable_apiserver_support,
        home_api_server_host,
        home_api_server_port,
        kubernetes_service_host,
        kubernetes_service_port,
    } = args;
    if !enable_apiserver_support {
        return Ok(ApiSupport::Disabled);
    }
    match (home_api_server_host.is_empty(), home_api_server_port.is_empty()) {
        (false, false) => Ok(ApiSupport::Tokens(ApiServer {
            host: home_api_server_host,
            port: home_api_server_port,
            alias: None,
        })),
        (true, true) if kubernetes_service_host.is_empty() => Err(
            "--enable-apiserver-support needs to know the own API server: set KUBERNETES_SERVICE_HOST, or --home-api-server-host and --home-api-server-port".to_owned(),
        ),
        (true, true) => Ok(ApiSupport::Tokens(ApiServer {
            host: API_SERVER_NAMES[0].to_owned(),
            port: kubernetes_service_port,
            alias: Some(kubernetes_service_host),
        })),
        _ => Err("--home-api-server-host and --home-api-server-port must be set together".to_owned()),
    }
}

async fn version(home: &Cluster) -> String {
    let asked = tokio::time::timeout(PATIENCE, home.client().apiserver_version()).await;
    match asked.map_err(|elapsed| elapsed.to_string()).and_then(|answer| answer.map_err(|error| error.to_string())) {
        Ok(info) => info.git_version,
        Err(error) => {
            tracing::warn!(error = %error, "the version of the own API server is not known");
            UNKNOWN_VERSION.to_owned()
        }
    }
}

/// Reflections, and calls to the provider, for `/metrics`.
fn contribute(life: &Life, link: &Arc<Link>, counters: &Arc<Counters>, there: &Cluster) {
    let (link, counters) = (Arc::clone(link), Arc::clone(counters));
    life.metrics(move |samples| counters.samples(&link, samples));
    life.count_calls("remote", there);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(host: &str, port: &str, own: &str) -> ApiServerArgs {
        ApiServerArgs {
            enable_apiserver_support: true,
            home_api_server_host: host.into(),
            home_api_server_port: port.into(),
            kubernetes_service_host: own.into(),
            kubernetes_service_port: "443".into(),
        }
    }

    #[test]
    fn the_api_server_is_known_or_starting_fails() {
        let server = |host: &str, port: &str, alias: Option<&str>| {
            Ok(ApiSupport::Tokens(ApiServer { host: host.into(), port: port.into(), alias: alias.map(str::to_owned) }))
        };
        assert_eq!(api_support(args("", "", "10.96.0.1")), server("kubernetes.default", "443", Some("10.96.0.1")));
        assert_eq!(api_support(args("api", "6443", "10.96.0.1")), server("api", "6443", None));
        assert!(api_support(args("api", "", "10.96.0.1")).is_err(), "half a setting is none");
        assert!(api_support(args("", "", "")).is_err());
        let off = ApiServerArgs { enable_apiserver_support: false, ..args("", "", "") };
        assert_eq!(api_support(off), Ok(ApiSupport::Disabled));
    }
}
