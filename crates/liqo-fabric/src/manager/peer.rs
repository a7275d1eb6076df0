//! The networks of one peer: our announcement to the peer, the announcement of the peer, and the tunnel between both
//! clusters.
//!
//! Keeps true: our announcement is current; a tunnel exists exactly while both sides have agreed; an announcement that
//! cannot be followed is reported on the `ForeignCluster` (annotation [`NETWORK_PROBLEM`], and an Event when the problem
//! changes) and changes nothing.
//!
//! The tenant namespace and the `ForeignCluster` determine the identity of a peer, not the objects that the peer writes.
//! The announcement of a peer is read while a direction of the peering needs a tunnel.
//!
//! Watches   tenant `Namespace`s, `ForeignCluster`, `NetworkConfig`, `TunnelEndpoint`; the Service and the key of our gateway;
//!           the address plan.
//! Writes    `NetworkConfig`: our own ones, and of the peer's copies the owner and `status`; on both the finalizer
//!           [`FINALIZER`]. `TunnelEndpoint`. Of the `ForeignCluster` the annotation [`NETWORK_PROBLEM`]. The address plan.
//! Removes   our own `NetworkConfig`s when the peering has ended, `TunnelEndpoint`s, the networks of peers that are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt;
use liqo_api::{
    discovery::ForeignCluster,
    meta::{annotation::NETWORK_PROBLEM, label},
    net::{NetworkConfig, TunnelEndpoint},
};
use liqo_ipam::{Around, Plan};
use liqo_kube::{Cluster, KubeError, Object, Queue, Store, drive, ledger::Away};
use serde_json::{Value, json};

use super::{
    ManagerArgs, announce,
    around::Surroundings,
    connect::{self, Refused, Told},
    endpoint::{endpoint, public_key},
    ledger::{Ledger, is_configured},
    tenants::Tenants,
};
use crate::layout::{GATEWAY_LABEL, KEY_SECRET};

/// Held on `NetworkConfig`s while they have consequences here.
pub(crate) const FINALIZER: &str = liqo_api::meta::finalizer::NETWORK;
/// Who tells Events.
const COMPONENT: &str = "liqo-network-manager";
/// How soon to try again what cannot be: room in the pools may come back.
const LATER: Duration = Duration::from_secs(30);
/// How soon to try again what failed.
const SOON: Duration = Duration::from_secs(1);
/// Peers settled at the same time.
const WORKERS: usize = 4;

/// Everything the decisions look at. Keys are tenant namespaces.
pub(crate) struct Peers {
    cluster: Cluster,
    ledger: Ledger,
    tenants: Tenants,
    configs: Store<NetworkConfig>,
    tunnels: Store<TunnelEndpoint>,
    services: Store<Service>,
    keys: Store<Secret>,
    surroundings: Arc<Surroundings>,
}

/// What is seen of one peer.
struct Sight {
    tenant: String,
    peer: String,
    foreign: Option<Arc<ForeignCluster>>,
    locals: Vec<Arc<NetworkConfig>>,
    remotes: Vec<Arc<NetworkConfig>>,
    tunnels: Vec<Arc<TunnelEndpoint>>,
}

/// What the user must know: one word for programs, one sentence for people.
struct Problem {
    reason: &'static str,
    text: String,
    /// The other peer named in the message.
    other: Option<String>,
}

impl Problem {
    fn new(reason: &'static str, text: String) -> Self {
        Self { reason, text, other: None }
    }
}

impl Peers {
    /// Starts watching. Of the plan, changes are heard by [`Peers::differ`], and of `surroundings` by [`Peers::look_again`].
    pub(crate) fn watch(
        cluster: &Cluster,
        ledger: Ledger,
        args: &ManagerArgs,
        (tenants, surroundings): (Tenants, Arc<Surroundings>),
    ) -> Self {
        let namespace = &args.namespace;
        let gateway = format!("{GATEWAY_LABEL}=true");
        let key = format!("metadata.name={KEY_SECRET}");
        Self {
            surroundings,
            services: cluster.watch::<Service>(namespace).labels(&gateway).start(everybody(&tenants)),
            keys: cluster.watch::<Secret>(namespace).fields(&key).start(everybody(&tenants)),
            configs: cluster.watch("").start(namespace_of(tenants.queue())),
            tunnels: cluster.watch("").start(namespace_of(tenants.queue())),
            cluster: cluster.clone(),
            ledger,
            tenants,
        }
    }

    /// Something has changed in the plan for these peers.
    pub(crate) fn differ(&self, peers: &BTreeSet<String>) {
        self.tenants.look_again_at(peers);
    }

    /// Runs for ever.
    pub(crate) async fn run(&self) {
        self.ledger.until(is_configured).await;
        self.tenants.ready().await;
        self.configs.ready().await;
        self.tunnels.ready().await;
        self.services.ready().await;
        self.keys.ready().await;
        self.surroundings.ready().await;
        // The name of no namespace: looks after peers that have none.
        self.tenants.queue().push(String::new());
        drive("peer-network", self.tenants.queue().clone(), WORKERS, |tenant| self.settle(tenant)).await;
    }

    async fn settle(&self, tenant: String) -> Result<Option<Duration>, KubeError> {
        let Some(peer) = self.tenants.peer_of(&tenant) else {
            let here = |one: &NetworkConfig| one.namespace().as_deref() == Some(&tenant);
            self.release(&self.configs.filter(here)).await?;
            return self.sweep().await;
        };
        if self.ledger.latest().is_none_or(|plan| !is_configured(&plan)) {
            // Somebody deleted the storage; it is being made again.
            return Ok(Some(SOON));
        }
        let sight = self.sight(tenant, peer);
        let untold = self.announce(&sight).await?;
        let refused = match self.connect(&sight).await? {
            Ok(refused) => refused,
            Err(away) => {
                tracing::warn!(peer = sight.peer, error = %away, "networks not settled, will be tried again");
                return Ok(Some(SOON));
            }
        };
        let again = refused.as_ref().map(|_| LATER);
        self.tell(&sight, untold.or(refused)).await?;
        Ok(again)
    }

    fn sight(&self, tenant: String, peer: String) -> Sight {
        let here = |one: &NetworkConfig| one.namespace().as_deref() == Some(&tenant);
        let has = |one: &NetworkConfig, key: &str, value: &str| one.labels().get(key).is_some_and(|it| it == value);
        Sight {
            foreign: self.tenants.foreigns_of(&peer).into_iter().next(),
            locals: self
                .configs
                .filter(|one| here(one) && has(one, label::REPLICATION, "true") && has(one, label::REMOTE_ID, &peer)),
            // Only what this peer may say: its namespace holds nobody else's words, whatever their labels say.
            remotes: self
                .configs
                .filter(|one| here(one) && has(one, label::REPLICATED, "true") && has(one, label::ORIGIN_ID, &peer)),
            tunnels: self.tunnels.filter(|one| one.namespace().as_deref() == Some(&tenant)),
            tenant,
            peer,
        }
    }

    /// Tells the peer our networks.
    async fn announce(&self, sight: &Sight) -> Result<Option<Problem>, KubeError> {
        let own = self.ledger.latest().and_then(|plan| plan.own().ok());
        let gateway = endpoint(&self.services.all(), &self.keys.all());
        let plan = announce::plan((&sight.tenant, &sight.peer), sight.foreign.as_deref(), &sight.locals, own, &gateway);
        for excess in plan.remove {
            self.cluster.remove(&*excess).await?;
        }
        match plan.write {
            Some(announce::Write::Create(new)) => drop(self.cluster.create(&*new).await?),
            Some(announce::Write::Replace(old, spec)) => {
                self.cluster.put(&*old, false, &[("/spec", json!(spec))]).await?;
            }
            None => {}
        }
        Ok(plan.problem.map(|text| Problem::new("GatewayNotReachable", text)))
    }

    /// Takes in what the peer tells, answers it, makes or removes the tunnel, and lets go what is going.
    async fn connect(&self, sight: &Sight) -> Result<Result<Option<Problem>, Away>, KubeError> {
        let remote = match connect::told(&sight.remotes) {
            Told::Nothing => None,
            Told::This(_) if !self.is_heard(sight) => None,
            Told::This(remote) => Some(self.take(&remote, sight.foreign.as_deref()).await?),
            Told::Several => {
                let text = format!("cluster {} has announced its networks more than once", sight.peer);
                return Ok(Ok(Some(Problem::new("AnnouncementAmbiguous", text))));
            }
        };
        let local = match connect::ours(&sight.locals, &sight.peer) {
            Some(local) => Some(self.hold(local).await?),
            None => None,
        };
        let (plan, refused) = match self.agree(sight, remote.as_deref(), local.as_deref()).await {
            Ok((plan, refused)) => {
                let gateway = remote.as_deref().and_then(|remote| self.gateway(sight, &plan, remote));
                (plan, refused.or(gateway))
            }
            Err(away) => return Ok(Err(away)),
        };
        if let Some(remote) = remote.as_deref().filter(|_| matches!(refused, None | Some(Refused::View(_)))) {
            let answer = connect::answer(&plan, &sight.peer, remote);
            if let Some(answer) = answer.filter(|answer| remote.status.as_ref() != Some(answer)) {
                self.cluster.put_status(remote, &answer).await?;
            }
        }
        match refused {
            None => self.tunnel(sight, &plan, remote.as_deref(), local.as_deref()).await?,
            Some(Refused::Covers(_)) => self.tunnel(sight, &plan, None, None).await?,
            Some(_) => {}
        }
        self.release(&sight.remotes).await?;
        self.release(&sight.locals).await?;
        Ok(Ok(refused.map(|refused| match refused {
            Refused::Networks(why) | Refused::View(why) => Problem::new("AnnouncementRefused", why.to_string()),
            Refused::Covers(why) => Problem::new("NetworkConflict", why.to_string()),
            Refused::Gateway(text) => Problem::new("AnnouncementRefused", text),
            Refused::Key(text, other) => Problem { reason: "GatewayKeyShared", text, other },
        })))
    }

    /// Whether what the peer announces is looked at: networks are given to those a peering lets in, and kept until they go.
    fn is_heard(&self, sight: &Sight) -> bool {
        let is_known = self.ledger.latest().is_some_and(|plan| plan.peer(&sight.peer).is_some());
        is_known || announce::lets_in(sight.foreign.as_deref(), !sight.tunnels.is_empty())
    }

    /// Every peer is looked at again.
    pub(crate) fn look_again(&self) {
        self.tenants.look_again();
    }

    /// What is wrong with the gateway a peer announces.
    fn gateway(&self, sight: &Sight, plan: &Plan, remote: &NetworkConfig) -> Option<Refused> {
        let own = public_key(&self.keys.all()).ok();
        let key = || connect::key(remote, own.as_deref(), &sight.tunnels, &self.tunnels.all());
        connect::gateway(plan, &sight.peer, remote).or_else(key)
    }

    fn around(&self, remote: Option<&NetworkConfig>) -> Around {
        let tunnels = self.tunnels.all();
        let others = tunnels.iter().map(|tunnel| tunnel.spec.endpoint_ip.as_str());
        self.surroundings.around(others.chain(remote.map(|remote| remote.spec.endpoint_ip.as_str())))
    }

    /// The peer's `NetworkConfig`, held and owned.
    async fn take(
        &self,
        remote: &Arc<NetworkConfig>,
        foreign: Option<&ForeignCluster>,
    ) -> Result<Arc<NetworkConfig>, KubeError> {
        let held = self.hold(remote).await?;
        let Some(owners) = connect::owners_of_copy(&held, foreign) else { return Ok(held) };
        let fields = [("/metadata/ownerReferences", json!(owners))];
        self.cluster.put(&*held, true, &fields).await.map(Arc::new)
    }

    /// Removes the finalizer of announcements that are being deleted.
    async fn release(&self, configs: &[Arc<NetworkConfig>]) -> Result<(), KubeError> {
        for config in configs.iter().filter(|one| !connect::is_live(&***one)) {
            if config.finalizers().iter().any(|one| one == FINALIZER) {
                self.cluster.release(&**config, FINALIZER).await?;
            }
        }
        Ok(())
    }

    async fn hold(&self, config: &Arc<NetworkConfig>) -> Result<Arc<NetworkConfig>, KubeError> {
        if config.finalizers().iter().any(|one| one == FINALIZER) {
            return Ok(Arc::clone(config));
        }
        self.cluster.hold(&**config, FINALIZER).await.map(Arc::new)
    }

    /// The plan with this peer in it; written only if that changes it.
    async fn agree(
        &self,
        sight: &Sight,
        remote: Option<&NetworkConfig>,
        local: Option<&NetworkConfig>,
    ) -> Result<(Plan, Option<Refused>), Away> {
        let latest = self.ledger.latest().unwrap_or_default();
        let around = self.around(remote);
        let agreed = connect::agreed(&latest, &sight.peer, remote, local, &around);
        if agreed.0 == *latest {
            return Ok(agreed);
        }
        let (peer, remote, local) = (sight.peer.clone(), remote.cloned(), local.cloned());
        let change = move |plan: &Plan| {
            let agreed = connect::agreed(plan, &peer, remote.as_ref(), local.as_ref(), &around);
            (agreed.0.clone(), agreed)
        };
        self.ledger.change(change).await
    }

    async fn tunnel(
        &self,
        sight: &Sight,
        plan: &Plan,
        remote: Option<&NetworkConfig>,
        local: Option<&NetworkConfig>,
    ) -> Result<(), KubeError> {
        let foreign = sight.foreign.as_deref();
        let peer = connect::identity(&sight.peer, foreign, local);
        let remote = remote.filter(|_| announce::lets_in(foreign, !sight.tunnels.is_empty()));
        let plan = connect::tunnels(plan, &peer, remote, local, &sight.tunnels);
        for excess in plan.remove {
            self.cluster.remove(&*excess).await?;
        }
        match plan.write {
            Some(connect::Write::Create(new)) => drop(self.cluster.create(&*new).await?),
            Some(connect::Write::Replace(old, wanted)) => {
                let labels: BTreeMap<_, _> = old.labels().iter().chain(wanted.labels()).collect();
                let fields = [
                    ("/spec", json!(wanted.spec)),
                    ("/metadata/ownerReferences", json!(wanted.owner_references())),
                    ("/metadata/labels", json!(labels)),
                ];
                self.cluster.put(&*old, false, &fields).await?;
            }
            None => {}
        }
        Ok(())
    }

    /// Says what the user must know, when it changes.
    async fn tell(&self, sight: &Sight, problem: Option<Problem>) -> Result<(), KubeError> {
        let Some(foreign) = &sight.foreign else {
            if let Some(problem) = problem {
                tracing::warn!(peer = sight.peer, reason = problem.reason, "{}", problem.text);
            }
            return Ok(());
        };
        let text = problem.as_ref().map(|problem| problem.text.as_str());
        if foreign.annotations().get(NETWORK_PROBLEM).map(String::as_str) == text || !connect::is_live(&**foreign) {
            return Ok(());
        }
        let annotation = text.map_or(Value::Null, Value::from);
        let patch = json!({"metadata": {"uid": foreign.uid(), "annotations": {NETWORK_PROBLEM: annotation}}});
        self.cluster.merge(&**foreign, patch).await?;
        if let Some(Problem { reason, text, other }) = problem {
            tracing::warn!(peer = sight.peer, reason, "{text}");
            self.cluster.event(&**foreign, COMPONENT, "Warning", reason, &text).await;
            for foreign in other.map(|other| self.tenants.foreigns_of(&other)).unwrap_or_default() {
                let text = format!("of cluster {}: {text}", sight.peer);
                self.cluster.event(&*foreign, COMPONENT, "Warning", reason, &text).await;
            }
        }
        Ok(())
    }

    /// Frees the networks of peers that have no namespace here and say nothing any longer: they went while nobody looked.
    async fn sweep(&self) -> Result<Option<Duration>, KubeError> {
        let present = self.tenants.peers();
        let gone = move |plan: &Plan| {
            let gone: Vec<String> = plan.peers().filter(|peer| !present.contains(*peer)).map(str::to_owned).collect();
            (gone.iter().fold(plan.clone(), |plan, peer| plan.forget(peer)), gone)
        };
        if self.ledger.latest().is_none_or(|plan| gone(&plan).1.is_empty()) {
            return Ok(None);
        }
        match self.ledger.change(gone).await {
            Ok(gone) => {
                tracing::info!(peers = gone.join(", "), "networks of peers without a tenant namespace freed");
                Ok(None)
            }
            Err(away) => {
                tracing::warn!(error = %away, "networks of gone peers not freed, will be tried again");
                Ok(Some(SOON))
            }
        }
    }
}

fn namespace_of<K: Object>(queue: &Queue<String>) -> impl Fn(&K) + Send + Sync + 'static {
    let queue = queue.clone();
    move |one| queue.push(one.namespace().unwrap_or_default())
}

fn everybody<K: Object>(tenants: &Tenants) -> impl Fn(&K) + Send + Sync + 'static {
    let tenants = tenants.clone();
    move |_| tenants.look_again()
}
