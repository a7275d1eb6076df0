//! Role `crd-replicator`: the messenger between tenant namespaces.
//!
//! Watches   originals (label `liqo.io/replication=true`) of `ResourceRequest`, `ResourceOffer`, `NamespaceMap`
//!           and `NetworkConfig`; identity secrets of tenant namespaces; in the peer's tenant namespace the replicas of all.
//! Writes    replicas in the peer's tenant namespace (spec, labels, annotations), the status of originals,
//!           the finalizer `crdReplicator.liqo.io` on originals, the annotation `liqo.io/refusal` on original requests.
//! Removes   replicas whose original is going away.
//!
//! Spec flows out, status flows back, by the one mirror engine. What holds without exception: an original
//! with the finalizer may have a replica, one without has none. So an original whose peer is away stays,
//! terminating, as a tombstone, and the replica goes when the peer is back, even if by then the
//! `ForeignCluster` is long forgotten: replication needs an identity, not a `ForeignCluster`.
//!
//! A banned peer is not waited for: after ten seconds what was deleted is let go, whether or not the peer let go of the
//! replica.
//!
//! One exception: the `NetworkConfig`s of an in-band peering are made by `liqoctl`, original and replica, because
//! the tunnel they describe is the only way to the peer. Their replicas follow them like all others, so a changed
//! endpoint or key reaches the peer while the old tunnel still stands; but they are not held. Without the tunnel
//! nobody could remove the replica, and both would wait for each other for ever.

mod identities;
mod originals;
mod replica;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, ResourceRequest},
    meta::{annotation, label},
    net::NetworkConfig,
    sharing::ResourceOffer,
    virtualkubelet::NamespaceMap,
};
use liqo_core::decision::{self, peer_of_tenant};
use liqo_kube::{
    Cluster, KubeError, Queue, Store,
    args::RuntimeArgs,
    drive,
    latest::Latest,
    life::Life,
    peer::{PeerClient, PeerIdentity, Renewal},
    role::Role,
    told::Told,
    twin::Mirror,
};
use serde_json::json;

use self::{
    identities::{Identities, Known},
    originals::Originals,
    replica::{is_out_of_band, said_about},
};
use crate::{
    COMPONENT,
    home::{Home, HomeArgs},
};

/// Pause before an identity that cannot be used is looked at again.
const RETRY: Duration = Duration::from_secs(30);

/// How long a deleted original of a banned peer is held for its replica.
const FAREWELL_OF_BANNED: Duration = Duration::from_secs(10);

/// Bounds of the objects of a peer, and of their bytes, in memory: the replication to all peers shares this process.
const REPLICAS: usize = 5_000;
const REPLICAS_BYTES: usize = 64 << 20;

/// Flags of the replicator, those of Liqo 0.8.3.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "crd-replicator",
    version,
    about = "Carries requests, offers and namespace maps between this cluster and its peers"
)]
pub struct ReplicatorArgs {
    /// How the own cluster is reached.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Who the own cluster is.
    #[command(flatten)]
    pub home: HomeArgs,
    /// Accepted for compatibility; watches need no resync.
    #[arg(long, hide = true, default_value = "10h")]
    pub resync_period: String,
    /// Objects of one kind and peer handled at the same time.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

impl Role for ReplicatorArgs {
    const NAME: &'static str = "crd-replicator";

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let busy = life.busy();
        let home = Home::open(&self.runtime, &self.home, "liqo-crd-replicator", false).await?;
        life.count_calls("home", &home.cluster);
        let replicator = Arc::new(Replicator::start(home, self.workers, &life));
        let this = Arc::clone(&replicator);
        life.spawn("complaints", async move {
            this.complaints.drive("complaints", |original, why| this.complain(original, why)).await;
        });
        let this = Arc::clone(&replicator);
        life.spawn("answers", async move {
            this.answers.drive("answers", |original, words| this.note(original, words)).await;
        });
        life.spawn("replicate", async move {
            replicator.ready().await;
            drop(busy);
            let tenants = replicator.tenants.clone();
            drive("replicate", tenants, 4, |namespace| replicator.settle(namespace)).await;
        });
        Ok(())
    }
}

/// Whether a deleted original is held until its replica is gone.
type Held<K> = fn(&K) -> bool;

/// An object of this cluster that a peer has a replica of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Original {
    namespace: String,
    name: String,
}

/// Why the last refused report about an original was refused; peers by ID.
type Complaints = Latest<String, Original, String>;
/// The last words of a peer about an original request, `None` when the peer says nothing any more; peers by ID.
type Answers = Latest<String, Original, Option<String>>;

/// Pause between two writes of what a peer says about one original: the peer chooses how often it says something else.
const PACE: Duration = Duration::from_secs(2);

/// The connection to one peer, and the mirrors that use the connection.
struct Link {
    peer: PeerClient,
    remote: Cluster,
    remote_id: String,
    mirrors: HashMap<String, Mirror>,
}

struct Replicator {
    home: Home,
    workers: usize,
    identities: Identities,
    tenants: Queue<String>,
    /// Tenant namespaces.
    namespaces: Store<Namespace>,
    /// The ledger, which knows the tenant namespace of each peer.
    peers: Store<ForeignCluster>,
    /// Reports that were refused.
    complaints: Complaints,
    /// Words of peers that the originals do not show yet.
    answers: Answers,
    told: Told,
    /// The API server of each peer, by ID, for the counters of calls.
    remotes: Arc<Mutex<BTreeMap<String, Cluster>>>,
    requests: Originals<ResourceRequest>,
    offers: Originals<ResourceOffer>,
    maps: Originals<NamespaceMap>,
    networks: Originals<NetworkConfig>,
    links: tokio::sync::Mutex<HashMap<String, Link>>,
}

impl Replicator {
    fn start(home: Home, workers: usize, life: &Life) -> Self {
        let tenants = Queue::new();
        let identities = Identities::new(home.cluster.clone(), tenants.clone());
        let queue = tenants.clone();
        let namespaces = home.cluster.watch::<Namespace>("").labels(label::CLUSTER_ID).start(move |one: &Namespace| {
            queue.push(one.name_any());
        });
        let queue = tenants.clone();
        let peers = home.cluster.watch::<ForeignCluster>("").start(move |one: &ForeignCluster| {
            let tenant = one.status.as_ref().and_then(|status| status.tenant_namespace.local.clone());
            tenant.into_iter().for_each(|tenant| queue.push(tenant));
        });
        let remotes: Arc<Mutex<BTreeMap<String, Cluster>>> = Arc::default();
        let all = Arc::clone(&remotes);
        life.metrics(move |samples| {
            let all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().for_each(|(peer, remote)| remote.calls().samples(peer, samples));
        });
        let requests = Originals::watch(&home, &tenants, |_| true);
        let offers = Originals::watch(&home, &tenants, |_| true);
        let maps = Originals::watch(&home, &tenants, |_| true);
        let networks = Originals::watch(&home, &tenants, is_out_of_band);
        let links = tokio::sync::Mutex::default();
        Self {
            home,
            workers,
            identities,
            tenants,
            namespaces,
            peers,
            complaints: Latest::new(PACE),
            answers: Latest::new(PACE),
            told: Told::default(),
            remotes,
            requests,
            offers,
            maps,
            networks,
            links,
        }
    }

    async fn ready(&self) {
        self.namespaces.ready().await;
        self.peers.ready().await;
        self.requests.store.ready().await;
        self.offers.store.ready().await;
        self.maps.store.ready().await;
        self.networks.store.ready().await;
    }

    /// Makes what runs for one tenant namespace fit its identity and its originals.
    async fn settle(&self, namespace: String) -> Result<Option<Duration>, KubeError> {
        let found = match self.tenant(&namespace) {
            Some((tenant, peer)) => match self.identities.find(&tenant, &peer).await {
                Known::NotYet(pause) => return Ok(Some(pause)),
                Known::Identity(identity) => identity.map(|identity| (identity, peer)),
            },
            None => {
                self.identities.forget(&namespace);
                None
            }
        };
        let Some((identity, remote_id)) = found else {
            if let Some(link) = self.links.lock().await.remove(&namespace) {
                self.forget(&namespace, &link.remote_id);
            }
            // Without an identity no replica can be reached: no original is held any longer.
            return self.let_go(&namespace, Duration::ZERO).await;
        };
        let is_banned = decision::bans(self.peers.all().iter().map(AsRef::as_ref), &remote_id);
        let mut links = self.links.lock().await;
        if let Err(why) = self.follow(&mut links, &namespace, identity, remote_id).await {
            tracing::warn!(namespace, error = why, "identity cannot be used");
            let again = if is_banned { self.let_go(&namespace, FAREWELL_OF_BANNED).await? } else { None };
            return Ok(again.into_iter().chain([RETRY]).min());
        }
        if let Some(link) = links.get_mut(&namespace) {
            self.requests.settle(&namespace, link, self);
            self.offers.settle(&namespace, link, self);
            self.maps.settle(&namespace, link, self);
            self.networks.settle(&namespace, link, self);
        }
        drop(links);
        if is_banned { self.let_go(&namespace, FAREWELL_OF_BANNED).await } else { Ok(None) }
    }

    /// Forgets a peer whose link has ended.
    fn forget(&self, namespace: &str, remote_id: &str) {
        self.remotes.lock().unwrap_or_else(PoisonError::into_inner).remove(remote_id);
        self.requests.forget(namespace);
        self.offers.forget(namespace);
        self.maps.forget(namespace);
        self.networks.forget(namespace);
    }

    async fn let_go(&self, namespace: &str, patience: Duration) -> Result<Option<Duration>, KubeError> {
        let here = &self.home.cluster;
        let all = [
            self.requests.let_go(namespace, here, patience).await?,
            self.offers.let_go(namespace, here, patience).await?,
            self.maps.let_go(namespace, here, patience).await?,
            self.networks.let_go(namespace, here, patience).await?,
        ];
        Ok(all.into_iter().flatten().min())
    }

    /// A tenant namespace, and the peer it is shared with.
    fn tenant(&self, namespace: &str) -> Option<(Arc<Namespace>, String)> {
        let namespace = self.namespaces.get("", namespace)?;
        let peers = self.peers.all();
        let peer = peer_of_tenant(&namespace, peers.iter().map(AsRef::as_ref))?.to_owned();
        Some((namespace, peer))
    }

    /// Tells that a report of a peer was refused.
    async fn complain(&self, Original { namespace, name }: Original, why: String) -> Result<(), KubeError> {
        let (cluster, reason) = (&self.home.cluster, "ReportIgnored");
        if let Some(map) = self.maps.store.get(&namespace, &name) {
            self.told.warn((cluster, COMPONENT), &*map, "", reason, &why).await;
        } else if let Some(offer) = self.offers.store.get(&namespace, &name) {
            self.told.warn((cluster, COMPONENT), &*offer, "", reason, &why).await;
        }
        Ok(())
    }

    /// Shows on the original of a request what its peer says.
    async fn note(&self, Original { namespace, name }: Original, words: Option<String>) -> Result<(), KubeError> {
        let original = self.requests.store.get(&namespace, &name).filter(|one| said_about(&**one) != words.as_deref());
        if let Some(original) = original {
            let patch = json!({"metadata": {"uid": original.uid(), "annotations": {annotation::REFUSAL: words}}});
            match self.home.cluster.merge(&*original, patch).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the link of a tenant namespace act with this identity; a new link when the identity leads elsewhere.
    async fn follow(
        &self,
        links: &mut HashMap<String, Link>,
        namespace: &str,
        identity: PeerIdentity,
        remote_id: String,
    ) -> Result<(), String> {
        if let Some(link) = links.get_mut(namespace).filter(|link| link.remote_id == remote_id)
            && link.peer.renew(&identity).await? != Renewal::Elsewhere
        {
            return Ok(());
        }
        links.remove(namespace);
        let link = self.connect(identity, remote_id).await?;
        links.insert(namespace.to_owned(), link);
        Ok(())
    }

    async fn connect(&self, identity: PeerIdentity, remote_id: String) -> Result<Link, String> {
        let peer = PeerClient::open(identity, &self.home.reach).await?;
        let remote = Cluster::new(peer.client(), "liqo-crd-replicator").bounded(REPLICAS, REPLICAS_BYTES);
        let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        remotes.insert(remote_id.clone(), remote.clone());
        drop(remotes);
        Ok(Link { peer, remote, remote_id, mirrors: HashMap::new() })
    }
}
