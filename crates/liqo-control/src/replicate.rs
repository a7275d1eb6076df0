//! Role `crd-replicator`: the messenger between tenant namespaces.
//!
//! Watches   originals (label `liqo.io/replication=true`) of `ResourceRequest`, `ResourceOffer`, `NamespaceMap`
//!           and `NetworkConfig`; identity secrets; in the peer's tenant namespace the replicas of all.
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

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, ResourceRequest},
    meta::{annotation, finalizer, label},
    names,
    net::NetworkConfig,
    sharing::ResourceOffer,
    virtualkubelet::NamespaceMap,
};
use liqo_core::{mapping, naming, standing};
use liqo_kube::{
    Cluster, KubeError, Object, Queue, Store,
    args::RuntimeArgs,
    drive,
    life::Life,
    now,
    peer::{PeerClient, PeerIdentity, Renewal},
    role::Role,
    said,
    told::Told,
    twin::{Back, Farewell, Forged, Mirror, Parts, Reflect},
};
use serde_json::{Value, json};

use crate::{
    COMPONENT,
    home::{Home, HomeArgs},
    ledger::recorded,
};

/// Pause before an identity that cannot be used is looked at again.
const RETRY: Duration = Duration::from_secs(30);

/// How long a deleted original of a banned peer is held for its replica.
const FAREWELL_OF_BANNED: Duration = Duration::from_secs(10);

/// Bounds of the objects of a peer, and of their bytes, in memory: the replication to all peers shares this process.
const REPLICAS: usize = 5_000;
const REPLICAS_BYTES: usize = 64 << 20;
/// A status longer than this, in bytes of JSON, is not carried: nothing we ask for has so long an answer.
const LONGEST_STATUS: usize = 256 * 1024;
/// Namespaces named in one Event.
const NAMED: usize = 5;

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
        let home = Home::open(&self.runtime, &self.home, "liqo-crd-replicator").await?;
        life.count_calls("home", &home.cluster);
        let busy = life.busy();
        let replicator = Arc::new(Replicator::start(home, self.workers, &life));
        let this = Arc::clone(&replicator);
        life.spawn("complaints", async move {
            drive("complaints", this.complaints.clone(), 1, |complaint| this.complain(complaint)).await;
        });
        let this = Arc::clone(&replicator);
        life.spawn("answers", async move {
            drive("answers", this.answers.clone(), 1, |answer| this.note(answer)).await;
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

/// How long an original that was deleted `since` is still held; `None`: it is not deleted.
fn rest(since: Option<&Time>, patience: Duration, now: &Time) -> Option<Duration> {
    let gone = now.0.as_second().saturating_sub(since?.0.as_second());
    Some(patience.saturating_sub(Duration::from_secs(u64::try_from(gone).unwrap_or_default())))
}

/// Names of objects, by the namespace they are in: where the mirror of that namespace listens.
type Names = Arc<Mutex<HashMap<String, Queue<String>>>>;

/// Whether an original is held while it has a replica.
type Held<K> = fn(&K) -> bool;

/// A kind that is replicated.
trait Replicated: Object {
    /// Whether a peer says on the replica why it does not do what the original asks for.
    const IS_ANSWERED: bool = false;

    /// What a peer reports about the object, as far as the object asked for it; `report` is not longer than
    /// [`LONGEST_STATUS`].
    fn believed(&self, report: &Self) -> Value {
        part(report, "status")
    }

    /// A peer reports namespaces that the original never asked for.
    fn unasked(&self, _report: &Self) -> Option<String> {
        None
    }
}

impl Replicated for ResourceRequest {
    const IS_ANSWERED: bool = true;
}
impl Replicated for ResourceOffer {}
impl Replicated for NetworkConfig {}

impl Replicated for NamespaceMap {
    fn believed(&self, report: &Self) -> Value {
        let report = report.status.as_ref().map(|report| mapping::believed(self, report));
        serde_json::to_value(report).unwrap_or_default()
    }

    fn unasked(&self, report: &Self) -> Option<String> {
        let all: Vec<_> = report.status.iter().flat_map(|report| mapping::unasked(self, report)).collect();
        let named = all.iter().take(NAMED).map(|name| format!("{name:.63?}")).collect::<Vec<_>>().join(", ");
        (!all.is_empty()).then(|| {
            format!(
                "the provider reports {} namespaces that it was not asked for under that name, among them {named}: \
                 they are ignored",
                all.len()
            )
        })
    }
}

/// Whether what a peer reports is short enough to be carried.
fn is_short(status: &Value) -> bool {
    serde_json::to_vec(status).is_ok_and(|bytes| bytes.len() <= LONGEST_STATUS)
}

/// A report of a peer that was refused: the original, and why.
type Complaint = (String, String, String);
/// The words of a peer about an original request, if there are any: namespace, name, words.
type Answer = (String, String, Option<String>);

/// The originals of one kind.
struct Originals<K> {
    store: Store<K>,
    names: Names,
    held: Held<K>,
}

impl<K: Replicated> Originals<K> {
    fn watch(home: &Home, tenants: &Queue<String>, held: Held<K>) -> Self {
        let names = Names::default();
        let (listening, tenants) = (Arc::clone(&names), tenants.clone());
        let selector = format!("{}=true", label::REPLICATION);
        let store = home.cluster.watch::<K>("").labels(&selector).start(move |object: &K| {
            let namespace = object.namespace().unwrap_or_default();
            if let Some(queue) = listening.lock().unwrap_or_else(PoisonError::into_inner).get(&namespace) {
                queue.push(object.name_any());
            }
            tenants.push(namespace);
        });
        Self { store, names, held }
    }

    /// Starts the mirror of a tenant namespace if there is anything to mirror, else ends it.
    fn settle(&self, namespace: &str, link: &mut Link, cx: &Replicator) {
        let kind = K::kind(&()).into_owned();
        if self.store.filter(|object| object.namespace().as_deref() == Some(namespace)).is_empty() {
            self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
            link.mirrors.remove(&kind);
        } else if !link.mirrors.contains_key(&kind) {
            let queue = Queue::new();
            self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned(), queue.clone());
            let originals = self.store.filter(|object| object.namespace().as_deref() == Some(namespace));
            originals.iter().for_each(|object| queue.push(object.name_any()));
            let back = queue.clone();
            let (originals, complaints, inside) = (self.store.clone(), cx.complaints.clone(), namespace.to_owned());
            let twins = link.remote.watch::<K>(link.peer.namespace()).trim(|_| ()).start(move |twin: &K| {
                let original = originals.get(&inside, &twin.name_any());
                if let Some(why) = original.and_then(|original| refused(&*original, twin)) {
                    complaints.push((inside.clone(), twin.name_any(), why));
                }
                back.push(twin.name_any());
            });
            let mirror = Mirror::start(Parts {
                reflector: Replica {
                    answers: Some(cx.answers.clone()),
                    ..Replica::new(&cx.home.identity.cluster_id, &link.remote_id, self.held)
                },
                here: cx.home.cluster.clone(),
                there: link.remote.clone(),
                namespace_here: namespace.to_owned(),
                namespace_there: link.peer.namespace().to_owned(),
                sources: self.store.clone(),
                twins,
                seen: None,
                queue,
                workers: cx.workers,
                component: String::new(),
                peer: link.remote_id.clone(),
                settled: None,
            });
            link.mirrors.insert(kind, mirror);
        }
    }

    /// Forgets the names that wait for the mirror of a tenant namespace, which has ended.
    fn forget(&self, namespace: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    /// Lets go of originals that were deleted at least `patience` ago, whatever has become of their replicas; tells when the
    /// next one is to be let go.
    async fn let_go(
        &self,
        namespace: &str,
        cluster: &Cluster,
        patience: Duration,
    ) -> Result<Option<Duration>, KubeError> {
        let held = self.store.filter(|object| {
            object.namespace().as_deref() == Some(namespace)
                && object.finalizers().iter().any(|one| one == finalizer::CRD_REPLICATOR)
        });
        let mut again = None;
        for object in held {
            match rest(object.meta().deletion_timestamp.as_ref(), patience, &now()) {
                None => {}
                Some(Duration::ZERO) => cluster.release(&*object, finalizer::CRD_REPLICATOR).await?,
                rest => again = again.into_iter().chain(rest).min(),
            }
        }
        Ok(again)
    }
}

/// The way to one peer.
struct Link {
    peer: PeerClient,
    remote: Cluster,
    remote_id: String,
    mirrors: HashMap<String, Mirror>,
}

struct Replicator {
    home: Home,
    workers: usize,
    identities: Store<Secret>,
    tenants: Queue<String>,
    /// Tenant namespaces.
    namespaces: Store<Namespace>,
    /// The ledger, which knows the tenant namespace of each peer.
    peers: Store<ForeignCluster>,
    /// Reports that were refused.
    complaints: Queue<Complaint>,
    /// Words of peers that the originals do not show yet.
    answers: Queue<Answer>,
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
        let selector = format!("{}=true,{}=true", label::LOCAL_IDENTITY, label::CERTIFICATE_AVAILABLE);
        let queue = tenants.clone();
        let identities = home.cluster.watch::<Secret>("").labels(&selector).start(move |secret: &Secret| {
            queue.push(secret.namespace().unwrap_or_default());
        });
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
            complaints: Queue::new(),
            answers: Queue::new(),
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
        self.identities.ready().await;
        self.namespaces.ready().await;
        self.peers.ready().await;
        self.requests.store.ready().await;
        self.offers.store.ready().await;
        self.maps.store.ready().await;
        self.networks.store.ready().await;
    }

    /// Makes what runs for one tenant namespace fit its identity and its originals.
    async fn settle(&self, namespace: String) -> Result<Option<Duration>, KubeError> {
        let found = self.peer_in(&namespace).and_then(|peer| Some((self.identity(&namespace, &peer)?, peer)));
        let Some((identity, remote_id)) = found else {
            if let Some(link) = self.links.lock().await.remove(&namespace) {
                self.forget(&namespace, &link.remote_id);
            }
            // Without an identity nothing can have a replica that we could reach: nothing is held any longer.
            return self.let_go(&namespace, Duration::ZERO).await;
        };
        let is_banned = standing::bans(self.peers.all().iter().map(AsRef::as_ref), &remote_id);
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

    /// The peer a tenant namespace is shared with.
    fn peer_in(&self, namespace: &str) -> Option<String> {
        let namespace = self.namespaces.get("", namespace)?;
        let peers = self.peers.all();
        naming::tenant_of(&namespace, recorded(&namespace, peers.iter().map(AsRef::as_ref))).map(str::to_owned)
    }

    /// Our identity on a peer: only what lies in that peer's tenant namespace and is named as we name identities.
    fn identity(&self, namespace: &str, peer: &str) -> Option<PeerIdentity> {
        let secrets = self.identities.filter(|secret| {
            secret.namespace().as_deref() == Some(namespace)
                && secret.labels().get(label::CLUSTER_ID).is_some_and(|id| id == peer)
                && secret.name_any().starts_with(names::IDENTITY_SECRET_PREFIX)
        });
        PeerIdentity::best(secrets.iter().map(AsRef::as_ref))
    }

    /// Tells that a report of a peer was refused.
    async fn complain(&self, (namespace, name, why): Complaint) -> Result<Option<Duration>, KubeError> {
        let (cluster, reason) = (&self.home.cluster, "ReportIgnored");
        if let Some(map) = self.maps.store.get(&namespace, &name) {
            self.told.warn((cluster, COMPONENT), &*map, "", reason, &why).await;
        } else if let Some(offer) = self.offers.store.get(&namespace, &name) {
            self.told.warn((cluster, COMPONENT), &*offer, "", reason, &why).await;
        }
        Ok(None)
    }

    /// Shows on the original of a request what its peer says.
    async fn note(&self, (namespace, name, words): Answer) -> Result<Option<Duration>, KubeError> {
        let original = self.requests.store.get(&namespace, &name).filter(|one| said_about(&**one) != words.as_deref());
        if let Some(original) = original {
            let patch = json!({"metadata": {"uid": original.uid(), "annotations": {annotation::REFUSAL: words}}});
            match self.home.cluster.merge(&*original, patch).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(None)
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
        let peer = PeerClient::open(identity).await?;
        let remote = Cluster::new(peer.client(), "liqo-crd-replicator").bounded(REPLICAS, REPLICAS_BYTES);
        let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        remotes.insert(remote_id.clone(), remote.clone());
        drop(remotes);
        Ok(Link { peer, remote, remote_id, mirrors: HashMap::new() })
    }
}

/// Whether a network configuration was made by the network manager, as it does for out-of-band peerings only.
fn is_out_of_band(original: &NetworkConfig) -> bool {
    original.labels().contains_key(label::OWNERSHIP)
}

/// How a replica of `K` looks, and what it teaches us.
struct Replica<K> {
    home_id: String,
    remote_id: String,
    held: Held<K>,
    /// Where words of the peer about an original are left.
    answers: Option<Queue<Answer>>,
}

impl<K> Replica<K> {
    fn new(home_id: &str, remote_id: &str, held: Held<K>) -> Self {
        Self { home_id: home_id.to_owned(), remote_id: remote_id.to_owned(), held, answers: None }
    }
}

/// What the peer says about an object, as the object shows it.
fn said_about<K: Object>(object: &K) -> Option<&str> {
    object.annotations().get(annotation::REFUSAL).map(String::as_str)
}

/// The words of the peer on the replica, if the original shows others: the words, or nothing when there are none any more.
fn answer<K: Replicated>(here: &K, there: Option<&K>) -> Option<Option<String>> {
    let words = there.and_then(said_about).map(said::printable).filter(|words| !words.is_empty());
    let is_news = K::IS_ANSWERED && here.meta().deletion_timestamp.is_none() && words.as_deref() != said_about(here);
    is_news.then_some(words)
}

/// Why a report of a peer is not, or not wholly, carried back.
fn refused<K: Replicated>(here: &K, there: &K) -> Option<String> {
    if !is_short(&part(there, "status")) {
        return Some(format!("the status the peer reports is longer than {LONGEST_STATUS} bytes: it is ignored"));
    }
    here.unasked(there)
}

impl<K: Replicated> Reflect for Replica<K> {
    const NAME: &'static str = "replica";
    type Here = K;
    type There = K;
    type Seen = K;
    const FAREWELL: Farewell = Farewell::Release(finalizer::CRD_REPLICATOR);
    /// A replica is a standing wish: an original that was made anew (restored from a backup, say) wishes on. Removing the
    /// replica would end the peering, and every namespace of a map, for nothing.
    const RECORD: Option<&'static str> = None;

    fn farewell(&self, here: &K) -> Farewell {
        // What is held already is let go when its time has come, whoever held it.
        let is_held = (self.held)(here) || here.finalizers().iter().any(|one| one == finalizer::CRD_REPLICATOR);
        if is_held { Self::FAREWELL } else { Farewell::Nothing }
    }

    fn look(&self, name: &str, here: Option<&K>, there: Option<&K>, _seen: Option<&K>) {
        let news = here.and_then(|here| Some((here.namespace()?, answer(here, there.filter(|one| self.ours(one)))?)));
        if let (Some((namespace, words)), Some(answers)) = (news, &self.answers) {
            answers.push((namespace, name.to_owned(), words));
        }
    }

    fn forge(&self, here: &K, _there: Option<&K>) -> Forged<K> {
        if here.labels().get(label::REMOTE_ID) != Some(&self.remote_id) {
            return Forged::Nothing(None);
        }
        let mut labels = here.labels().clone();
        labels.remove(label::OWNERSHIP);
        labels.insert(label::REPLICATION.to_owned(), "false".to_owned());
        labels.insert(label::REPLICATED.to_owned(), "true".to_owned());
        labels.insert(label::ORIGIN_ID.to_owned(), self.home_id.clone());
        let mut annotations = here.annotations().clone();
        // These are words of the peer, which stand on the replica already.
        annotations.remove(annotation::REFUSAL);
        let replica = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": part(here, "spec"),
        });
        match serde_json::from_value(replica) {
            Ok(replica) => Forged::Make(Box::new(replica)),
            Err(_) => Forged::NotYet,
        }
    }

    fn ours(&self, there: &K) -> bool {
        there.labels().get(label::ORIGIN_ID) == Some(&self.home_id)
    }

    fn back(&self, here: &K, there: Option<&K>, _seen: Option<&K>) -> Back {
        let reported = there.filter(|there| is_short(&part(*there, "status"))).map(|there| here.believed(there));
        match reported {
            Some(news) if !news.is_null() && news != part(here, "status") => Back::Status(news),
            _ => Back::Nothing,
        }
    }
}

fn part<K: Object>(object: &K, name: &str) -> Value {
    serde_json::to_value(object).map(|mut object| object[name].take()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use liqo_api::{
        ClusterIdentity,
        discovery::{OfferState, ResourceRequestSpec, ResourceRequestStatus},
    };

    use super::*;

    fn original() -> ResourceRequest {
        let identity = ClusterIdentity::new("home", "rome");
        let spec =
            ResourceRequestSpec { cluster_identity: identity, auth_url: "https://a.b".into(), ..Default::default() };
        let mut original = ResourceRequest::new("rome", spec);
        for (key, value) in [(label::REPLICATION, "true"), (label::REMOTE_ID, "peer"), (label::OWNERSHIP, "x")] {
            original.labels_mut().insert(key.into(), value.into());
        }
        original.annotations_mut().insert("note".into(), "kept".into());
        original
    }

    fn forged(original: &ResourceRequest) -> Box<ResourceRequest> {
        match Replica::new("home", "peer", |_| true).forge(original, None) {
            Forged::Make(replica) => replica,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_replica_carries_the_labels_recorded_from_real_clusters() {
        let replica = forged(&original());
        let expected = [
            (label::ORIGIN_ID, "home"),
            (label::REMOTE_ID, "peer"),
            (label::REPLICATED, "true"),
            (label::REPLICATION, "false"),
        ];
        let labels: Vec<_> = replica.labels().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, expected);
        assert_eq!(replica.annotations().get("note").map(String::as_str), Some("kept"));
        assert_eq!(replica.spec, original().spec);
        assert!(replica.finalizers().is_empty() && replica.owner_references().is_empty());
    }

    #[test]
    fn a_deleted_original_is_held_for_a_time() {
        let at = |second| Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap());
        let rest = |since: Option<i64>| rest(since.map(at).as_ref(), Duration::from_secs(10), &at(100));
        assert_eq!(rest(None), None);
        assert_eq!(rest(Some(100)), Some(Duration::from_secs(10)));
        assert_eq!(rest(Some(91)), Some(Duration::from_secs(1)));
        assert_eq!(rest(Some(90)), Some(Duration::ZERO));
    }

    #[test]
    fn an_original_for_somebody_else_is_not_sent() {
        let mut other = original();
        other.labels_mut().insert(label::REMOTE_ID.into(), "another".into());
        assert_eq!(Replica::new("home", "peer", |_| true).forge(&other, None), Forged::Nothing(None));
    }

    #[test]
    fn the_network_of_an_in_band_peering_is_followed_and_not_held() {
        use liqo_kube::{
            now,
            twin::{Here, Plan, There, decide},
        };
        let replica = Replica::new("home", "peer", is_out_of_band);
        let network = |endpoint: &str, owner: Option<&str>| {
            let spec = json!({
                "cluster": {"clusterID": "peer", "clusterName": "milan"}, "podCIDR": "10.244.0.0/16",
                "externalCIDR": "10.97.0.0/16", "endpointIP": endpoint, "backendType": "wireguard",
                "backend_config": {"publicKey": "k", "port": "5871"},
            });
            let labels = json!({label::REPLICATION: "true", label::REMOTE_ID: "peer", label::OWNERSHIP: owner});
            let mut value = json!({"metadata": {"name": "milan-57fb02", "labels": labels}, "spec": spec});
            if owner.is_none() {
                value["metadata"]["labels"].as_object_mut().unwrap().remove(label::OWNERSHIP);
            }
            serde_json::from_value::<NetworkConfig>(value).unwrap()
        };
        let out = network("1.2.3.4", Some("netcfgCreator"));
        assert!(matches!(decide(&replica, Some(&out), None, None).here, Here::Hold(_)), "made by the network manager");
        let made = network("1.2.3.4", None);
        let Forged::Make(copy) = replica.forge(&made, None) else { panic!("it is replicated") };
        let plan = decide(&replica, Some(&made), Some(&copy), Some(&copy));
        assert_eq!(plan, Plan { here: Here::Keep, there: There::Keep }, "the copy made by liqoctl is as it should be");
        let moved = network("5.6.7.8", None);
        let Plan { here, there: There::Apply(new) } = decide(&replica, Some(&moved), Some(&copy), Some(&copy)) else {
            panic!("a changed endpoint is sent")
        };
        assert_eq!((here, new.spec.endpoint_ip.as_str()), (Here::Keep, "5.6.7.8"));
        let mut leaving = made.clone();
        leaving.metadata.deletion_timestamp = Some(now());
        assert_eq!(decide(&replica, Some(&leaving), None, None).here, Here::Keep, "nothing of ours to release");
        leaving.finalizers_mut().push(finalizer::CRD_REPLICATOR.into());
        assert!(matches!(decide(&replica, Some(&leaving), None, None).here, Here::Release(_)));
    }

    #[test]
    fn only_what_was_asked_for_comes_back() {
        let map = |current: Value| -> NamespaceMap {
            let spec = json!({"desiredMapping": {"demo": "demo-rome"}});
            let status = json!({"currentMapping": current});
            serde_json::from_value(json!({"metadata": {"name": "map"}, "spec": spec, "status": status})).unwrap()
        };
        let (replica, here) = (Replica::new("home", "peer", |_| true), map(json!({})));
        let demo = json!({"remoteNamespace": "demo-rome", "phase": "Accepted"});
        let there = map(json!({"demo": demo, "liqo": {"remoteNamespace": "loot", "phase": "Accepted"}}));
        let believed = json!({"currentMapping": {"demo": demo}});
        assert_eq!(replica.back(&here, Some(&there), None), Back::Status(believed));
        assert!(refused(&here, &there).unwrap().contains("1 namespaces that it was not asked for"));
        assert_eq!(refused(&here, &map(json!({"demo": demo}))), None);
        let long = "n".repeat(LONGEST_STATUS);
        let there = map(json!({"demo": {"remoteNamespace": long, "phase": "Accepted"}}));
        assert_eq!(replica.back(&here, Some(&there), None), Back::Nothing);
        assert!(refused(&here, &there).unwrap().contains("longer than 262144 bytes"));
    }

    #[test]
    fn words_of_the_peer_come_back_on_requests_only_and_are_not_sent() {
        let says = |one: &ResourceRequest, words: &str| {
            let mut one = one.clone();
            one.annotations_mut().insert(annotation::REFUSAL.into(), words.into());
            one
        };
        let (here, there) = (original(), *forged(&original()));
        let cordoned = || Some("cordoned".to_owned());
        assert_eq!(answer(&here, Some(&there)), None);
        assert_eq!(answer(&here, Some(&says(&there, "cordo\nned"))), Some(Some("cordo ned".to_owned())));
        assert_eq!(answer(&here, Some(&says(&there, "cordoned"))), Some(cordoned()));
        assert_eq!(answer(&says(&here, "cordoned"), Some(&says(&there, "cordoned"))), None, "no news");
        assert_eq!(answer(&says(&here, "cordoned"), Some(&there)), Some(None));
        assert_eq!(answer(&says(&here, "cordoned"), None), Some(None));
        assert!(!forged(&says(&here, "cordoned")).annotations().contains_key(annotation::REFUSAL));
        let offer: ResourceOffer =
            serde_json::from_value(json!({"metadata": {"name": "o"}, "spec": {"clusterId": "x"}})).unwrap();
        let mut copy = offer.clone();
        copy.annotations_mut().insert(annotation::REFUSAL.into(), "x".into());
        assert_eq!(answer(&offer, Some(&copy)), None, "nobody answers an offer so");
    }

    #[test]
    fn status_comes_back_only_when_it_is_news() {
        let replica = Replica::new("home", "peer", |_| true);
        let mut here = original();
        let mut there = *forged(&here);
        assert_eq!(replica.back(&here, None, None), Back::Nothing);
        assert_eq!(replica.back(&here, Some(&there), None), Back::Nothing);
        there.status = Some(ResourceRequestStatus { offer_state: OfferState::Created, ..Default::default() });
        assert_eq!(replica.back(&here, Some(&there), None), Back::Status(json!({"offerState": "Created"})));
        here.status.clone_from(&there.status);
        assert_eq!(replica.back(&here, Some(&there), None), Back::Nothing);
    }
}
