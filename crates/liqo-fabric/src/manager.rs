//! Role `liqo-network-manager`: who uses which addresses, what peers are told of our networks, which tunnels exist.
//!
//! Every replica answers the IPAM service; one of them decides, the others wait. Each part says in its own file what it
//! watches, writes and removes: [`ledger`] the addresses, [`peer`] the exchange with one peer, [`mapping`] what gateways
//! translate, [`absence`] what tunnels say when no gateway is there to say it.

mod absence;
mod announce;
mod around;
mod connect;
mod endpoint;
mod exports;
mod ledger;
mod mapping;
mod peer;
mod service;
mod tenants;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use liqo_api::names;
use liqo_front::grpc::Grpc;
use liqo_ipam::{MAPPINGS, Plan};
use liqo_ipam_rpc::Answers;
use liqo_kube::{
    Cluster, Queue,
    args::RuntimeArgs,
    life::Life,
    metrics::{Metric, Samples},
    role::Role,
    server::Listen,
};

pub(crate) use self::around::{addresses_of, endpoints_of};
use self::{
    around::Surroundings,
    ledger::{Ledger, is_configured},
    peer::Peers,
    service::{Counts, Service},
    tenants::Tenants,
};

/// Under this name this role writes.
const WRITER: &str = "liqo-network-manager";
/// Pause before the API server is asked again at the start.
const RETRY: Duration = Duration::from_secs(1);

/// Flags of the network manager; those with `manager.` are those of Liqo 0.8.3.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "liqo-network-manager",
    version,
    about = "Gives addresses to peers, tells them our networks, keeps tunnels as agreed"
)]
pub struct ManagerArgs {
    /// How the own cluster is reached.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Namespace Liqo is installed in.
    #[arg(long = "liqo-namespace", alias = "namespace", env = "POD_NAMESPACE", default_value = names::LIQO_NAMESPACE)]
    pub namespace: String,
    /// Network of this cluster's pods, like 10.244.0.0/16; cannot be changed later.
    #[arg(long = "manager.pod-cidr", value_name = "CIDR")]
    pub pod_cidr: String,
    /// Network of this cluster's Services, like 10.96.0.0/12; cannot be changed later.
    #[arg(long = "manager.service-cidr", value_name = "CIDR")]
    pub service_cidr: String,
    /// Networks never used for peers, like those of the nodes, separated by commas.
    #[arg(long = "manager.reserved-pools", value_name = "CIDR,...", value_delimiter = ',')]
    pub reserved_pools: Vec<String>,
    /// Networks peers are put into, besides those of RFC 1918, separated by commas.
    #[arg(long = "manager.additional-pools", value_name = "CIDR,...", value_delimiter = ',')]
    pub additional_pools: Vec<String>,
    /// Networks of peers that are neither private nor in a pool are used as announced, not remapped.
    #[arg(long = "manager.accept-public-ranges", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub accept_public_ranges: bool,
    /// Address of this cluster's API server that peers get; no network of a peer may cover that address.
    #[arg(long = "api-server-address", default_value = "")]
    pub api_server_address: String,
    /// Address under which pods of this cluster reach its API server; virtual kubelets may export it.
    #[arg(long, hide = true, env = "KUBERNETES_SERVICE_HOST", default_value = "")]
    pub kubernetes_service_host: String,
    /// Address of the IPAM service.
    #[arg(long = "manager.ipam-address", value_name = "HOST:PORT", default_value = ":6000")]
    pub ipam_address: String,
    /// With several replicas: only one decides, all answer.
    #[arg(long = "manager.leader-elect", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Name of this replica, for leader election.
    #[arg(long, env = "POD_NAME", default_value = "liqo-network-manager")]
    pub pod_name: String,
}

impl ManagerArgs {
    /// What the flags make of a plan, or one line that says which of them cannot be.
    fn configure(&self, plan: &Plan) -> Result<Plan, String> {
        let given = |texts: &[String]| texts.iter().filter(|text| !text.trim().is_empty()).cloned().collect::<Vec<_>>();
        let (reserved, pools) = (given(&self.reserved_pools), given(&self.additional_pools));
        let configured = plan.configure(&self.pod_cidr, &self.service_cidr, &reserved, &pools);
        configured.map_err(|why| format!("the flags --manager.* cannot be followed: {why}"))
    }
}

impl Role for ManagerArgs {
    const NAME: &'static str = "network-manager";

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    /// Flags that can never be followed are refused before anything is asked or answered.
    fn once(&self) -> Option<Result<(), String>> {
        self.configure(&Plan::default()).err().map(Err)
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let address = self.ipam_address.parse::<Listen>()?;
        let cluster = life.home(&self.runtime, WRITER).await?;
        let news = News::default();
        let heard = news.clone();
        let differ = move |before: &Plan, after: &Plan| heard.differ(&before.peers_that_differ(after));
        let ledger = Ledger::start(&cluster, &life, differ);
        let busy = life.busy();
        configured(&self, &ledger).await?;
        let noticed = news.clone();
        let (told, public) = (&self.api_server_address, self.accept_public_ranges);
        let surroundings = Arc::new(Surroundings::watch(&cluster, told, public, move || noticed.surroundings_differ()));
        let seen = (Tenants::watch(&cluster), surroundings);
        serve(&self, &cluster, &ledger, &life, (address, seen.clone())).await?;
        life.spawn("configure", keep_configured(self.clone(), ledger.clone()));
        drop(busy);
        decide(&self, &cluster, &life, &ledger, (&news, seen)).await;
        Ok(())
    }
}

/// Puts the flags into the plan; every replica does so, with the same result.
async fn configured(args: &ManagerArgs, ledger: &Ledger) -> Result<(), String> {
    loop {
        let flags = args.clone();
        let change = move |plan: &Plan| match flags.configure(plan) {
            Ok(new) => (new, Ok(())),
            Err(why) => (plan.clone(), Err(why)),
        };
        match ledger.change(change).await {
            Ok(outcome) => return outcome,
            Err(away) => tracing::warn!(error = %away, "not configured, will be tried again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A storage that somebody deletes is made again; peers then get networks anew.
async fn keep_configured(args: ManagerArgs, ledger: Ledger) {
    loop {
        ledger.until(is_configured).await;
        ledger.until(|plan| !is_configured(plan)).await;
        tracing::warn!("the address storage is gone, it is made again");
        if let Err(why) = configured(&args, &ledger).await {
            tracing::error!("{why}");
            return;
        }
    }
}

/// Answers the IPAM service from now on.
async fn serve(
    args: &ManagerArgs,
    cluster: &Cluster,
    ledger: &Ledger,
    life: &Life,
    (address, seen): (Listen, (Tenants, Arc<Surroundings>)),
) -> Result<(), String> {
    ledger.until(is_configured).await;
    let listener = address.bind().await.map_err(|error| format!("--manager.ipam-address: {error}"))?;
    let counts = Arc::new(Counts::default());
    let (counted, stored) = (Arc::clone(&counts), ledger.clone());
    life.metrics(move |samples| {
        counted.samples(samples);
        figures(stored.latest().as_deref(), samples);
    });
    let service = Service::start(cluster, ledger.clone(), counts, &args.kubernetes_service_host, seen).await;
    let service = Arc::new(service);
    let front = Grpc::new(Answers::new(Arc::clone(&service)), liqo_ipam_rpc::files(), service)?;
    // In the clear, as virtual kubelets and address managements of Liqo 0.8.3 speak.
    life.spawn("ipam", front.serve(listener, None, life.drain().clone()));
    Ok(())
}

const PEERS: Metric = Metric::gauge("liqo_ipam_peers", "Peers with networks in the plan.", &[]);
const USED: Metric =
    Metric::gauge("liqo_ipam_external_addresses_used", "Addresses given to endpoints that peers reach.", &[]);
const ROOM: Metric =
    Metric::gauge("liqo_ipam_external_addresses_room", "Addresses that can still be given to endpoints.", &[]);
const MAPPED: Metric = Metric::gauge("liqo_ipam_mappings_used", "Mappings of endpoints, of all peers.", &[]);
const MAPPABLE: Metric = Metric::gauge("liqo_ipam_mappings_room", "Mappings that can still be made.", &[]);
const WRITES: Metric = Metric::counter("liqo_natmapping_writes_total", "NatMappings written.", &[]);

/// How full the plan is, as soon as the plan is known.
#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
fn figures(plan: Option<&Plan>, samples: &mut Samples) {
    [&PEERS, &USED, &ROOM, &MAPPED, &MAPPABLE].into_iter().for_each(|metric| samples.describe(metric));
    let Some(plan) = plan else { return };
    let (used, room) = plan.endpoint_count();
    samples.gauge(&PEERS, &[], plan.peers().count() as f64);
    samples.gauge(&USED, &[], used as f64);
    samples.gauge(&ROOM, &[], room as f64);
    samples.gauge(&MAPPED, &[], plan.mapping_count() as f64);
    samples.gauge(&MAPPABLE, &[], MAPPINGS.saturating_sub(plan.mapping_count()) as f64);
}

/// Decides, as soon as this replica may, for ever.
async fn decide(
    args: &ManagerArgs,
    cluster: &Cluster,
    life: &Life,
    ledger: &Ledger,
    (news, seen): (&News, (Tenants, Arc<Surroundings>)),
) {
    if args.leader_elect {
        life.lead(cluster, &args.namespace, names::NETWORK_MANAGER_LEASE, &args.pod_name).await;
    }
    let peers = Arc::new(Peers::watch(cluster, ledger.clone(), args, seen));
    // Only now is there anybody to tell; what was before is looked at as a whole.
    let _ = news.peers.set(Arc::clone(&peers));
    let writes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&writes);
    life.metrics(move |samples| samples.count(&WRITES, &[], counted.load(Ordering::Relaxed)));
    life.spawn("absence", absence::run(cluster.clone(), args.namespace.clone()));
    life.spawn("nat-mapping", mapping::run(cluster.clone(), ledger.clone(), news.mappings.clone(), writes));
    peers.run().await;
}

/// Who is told when something has changed in the plan.
#[derive(Clone)]
struct News {
    mappings: Queue<String>,
    peers: Arc<OnceLock<Arc<Peers>>>,
}

impl Default for News {
    fn default() -> Self {
        Self { mappings: Queue::new(), peers: Arc::default() }
    }
}

impl News {
    fn differ(&self, peers: &std::collections::BTreeSet<String>) {
        peers.iter().for_each(|peer| self.mappings.push(peer.clone()));
        if let Some(listening) = self.peers.get() {
            listening.differ(peers);
        }
    }
    /// An address that no peer's network may cover has come or gone.
    fn surroundings_differ(&self) {
        if let Some(listening) = self.peers.get() {
            listening.look_again();
        }
    }
}
