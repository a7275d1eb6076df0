//! Role `crd-replicator`: the messenger between tenant namespaces.
//!
//! Watches   originals (label `liqo.io/replication=true`) of `ResourceRequest`, `ResourceOffer`, `NamespaceMap`
//!           and `NetworkConfig`; identity secrets; in the peer's tenant namespace the replicas of all.
//! Writes    replicas in the peer's tenant namespace (spec, labels, annotations), the status of originals,
//!           the finalizer `crdReplicator.liqo.io` on originals.
//! Removes   replicas whose original is going away.
//!
//! Spec flows out, status flows back, by the one mirror engine. What holds without exception: an original
//! with the finalizer may have a replica, one without has none. So an original whose peer is away stays,
//! terminating, as a tombstone, and the replica goes when the peer is back, even if by then the
//! `ForeignCluster` is long forgotten: replication needs an identity, not a `ForeignCluster`.
//!
//! One exception: the `NetworkConfig`s of an in-band peering are made by `liqoctl`, original and replica, because
//! the tunnel they describe is the only way to the peer. Their replicas follow them like all others, so a changed
//! endpoint or key reaches the peer while the old tunnel still stands; but they are not held. Without the tunnel
//! nobody could remove the replica, and both would wait for each other for ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use liqo_api::{
    discovery::ResourceRequest,
    meta::{finalizer, label},
    net::NetworkConfig,
    sharing::ResourceOffer,
    virtualkubelet::NamespaceMap,
};
use liqo_kube::{
    Cluster, KubeError, Object, Queue, Store,
    args::RuntimeArgs,
    drive,
    life::Life,
    peer::PeerIdentity,
    twin::{Back, Farewell, Forged, Mirror, Parts, Reflect},
};
use serde_json::{Value, json};

use crate::home::{Home, HomeArgs};

/// Pause before an identity that cannot be used is looked at again.
const RETRY: Duration = Duration::from_secs(30);

/// Objects of a peer, and their bytes, that are kept in memory: all peers share this process.
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

/// Runs the replicator until SIGTERM.
///
/// # Errors
/// A text that says why it could not start.
pub async fn run(args: ReplicatorArgs) -> Result<(), String> {
    let ReplicatorArgs { runtime, home, resync_period: _, workers } = args;
    let life = Life::start("crd-replicator", &runtime)?;
    let home = Home::open(&runtime, &home, "liqo-crd-replicator").await?;
    let calls = Arc::clone(home.cluster.calls());
    life.metrics(move || calls.text("home"));
    let busy = life.busy();
    let replicator = Replicator::start(home, workers, life.clone());
    life.spawn("replicate", async move {
        replicator.ready().await;
        drop(busy);
        let tenants = replicator.tenants.clone();
        drive("replicate", tenants, 4, |namespace| replicator.settle(namespace)).await;
    });
    life.until_signal().await;
    Ok(())
}

/// Names of objects, by the namespace they are in: where the mirror of that namespace listens.
type Names = Arc<Mutex<HashMap<String, Queue<String>>>>;

/// Whether an original is held while it has a replica.
type Held<K> = fn(&K) -> bool;

/// The originals of one kind.
struct Originals<K> {
    store: Store<K>,
    names: Names,
    held: Held<K>,
}

impl<K: Object> Originals<K> {
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
            let twins = link.remote.watch::<K>(&link.namespace).trim(|_| ()).start(move |twin: &K| {
                back.push(twin.name_any());
            });
            let mirror = Mirror::start(Parts {
                reflector: Replica::new(&cx.home.identity.cluster_id, &link.remote_id, self.held),
                here: cx.home.cluster.clone(),
                there: link.remote.clone(),
                namespace_here: namespace.to_owned(),
                namespace_there: link.namespace.clone(),
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

    /// Without an identity nothing can have a replica that we could reach: nothing is held any longer.
    async fn let_go(&self, namespace: &str, cluster: &Cluster) -> Result<(), KubeError> {
        let held = self.store.filter(|object| {
            object.namespace().as_deref() == Some(namespace)
                && object.meta().deletion_timestamp.is_some()
                && object.finalizers().iter().any(|one| one == finalizer::CRD_REPLICATOR)
        });
        for object in held {
            cluster.release(&*object, finalizer::CRD_REPLICATOR).await?;
        }
        Ok(())
    }
}

/// The way to one peer.
struct Link {
    identity: PeerIdentity,
    remote: Cluster,
    remote_id: String,
    namespace: String,
    mirrors: HashMap<String, Mirror>,
}

struct Replicator {
    home: Home,
    workers: usize,
    life: Life,
    identities: Store<Secret>,
    tenants: Queue<String>,
    requests: Originals<ResourceRequest>,
    offers: Originals<ResourceOffer>,
    maps: Originals<NamespaceMap>,
    networks: Originals<NetworkConfig>,
    links: tokio::sync::Mutex<HashMap<String, Link>>,
}

impl Replicator {
    fn start(home: Home, workers: usize, life: Life) -> Self {
        let tenants = Queue::new();
        let selector = format!("{}=true,{}=true", label::LOCAL_IDENTITY, label::CERTIFICATE_AVAILABLE);
        let queue = tenants.clone();
        let identities = home.cluster.watch::<Secret>("").labels(&selector).start(move |secret: &Secret| {
            queue.push(secret.namespace().unwrap_or_default());
        });
        let requests = Originals::watch(&home, &tenants, |_| true);
        let offers = Originals::watch(&home, &tenants, |_| true);
        let maps = Originals::watch(&home, &tenants, |_| true);
        let networks = Originals::watch(&home, &tenants, is_out_of_band);
        let links = tokio::sync::Mutex::default();
        Self { home, workers, life, identities, tenants, requests, offers, maps, networks, links }
    }

    async fn ready(&self) {
        self.identities.ready().await;
        self.requests.store.ready().await;
        self.offers.store.ready().await;
        self.maps.store.ready().await;
        self.networks.store.ready().await;
    }

    /// Makes what runs for one tenant namespace fit its identity and its originals.
    async fn settle(&self, namespace: String) -> Result<Option<Duration>, KubeError> {
        let secrets = self.identities.filter(|secret| secret.namespace().as_deref() == Some(&namespace));
        let best = PeerIdentity::best(secrets.iter().map(AsRef::as_ref));
        let Some(identity) = best else {
            self.links.lock().await.remove(&namespace);
            self.requests.let_go(&namespace, &self.home.cluster).await?;
            self.offers.let_go(&namespace, &self.home.cluster).await?;
            self.maps.let_go(&namespace, &self.home.cluster).await?;
            self.networks.let_go(&namespace, &self.home.cluster).await?;
            return Ok(None);
        };
        let remote_id = secrets.iter().find_map(|secret| secret.labels().get(label::CLUSTER_ID).cloned());
        let mut links = self.links.lock().await;
        if links.get(&namespace).is_none_or(|link| link.identity != identity) {
            links.remove(&namespace);
            match self.connect(identity, remote_id.unwrap_or_default()).await {
                Ok(link) => drop(links.insert(namespace.clone(), link)),
                Err(why) => {
                    tracing::warn!(namespace, error = why, "identity cannot be used");
                    return Ok(Some(RETRY));
                }
            }
        }
        if let Some(link) = links.get_mut(&namespace) {
            self.requests.settle(&namespace, link, self);
            self.offers.settle(&namespace, link, self);
            self.maps.settle(&namespace, link, self);
            self.networks.settle(&namespace, link, self);
        }
        Ok(None)
    }

    async fn connect(&self, identity: PeerIdentity, remote_id: String) -> Result<Link, String> {
        let remote = Cluster::new(identity.client().await?, "liqo-crd-replicator").bounded(REPLICAS, REPLICAS_BYTES);
        let (calls, peer) = (Arc::clone(remote.calls()), remote_id.clone());
        self.life.metrics_of(&remote_id, move || calls.text(&peer));
        let namespace = identity.namespace.clone();
        Ok(Link { identity, remote, remote_id, namespace, mirrors: HashMap::new() })
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
}

impl<K> Replica<K> {
    fn new(home_id: &str, remote_id: &str, held: Held<K>) -> Self {
        Self { home_id: home_id.to_owned(), remote_id: remote_id.to_owned(), held }
    }
}

impl<K: Object> Reflect for Replica<K> {
    const NAME: &'static str = "replica";
    type Here = K;
    type There = K;
    type Seen = K;
    const FAREWELL: Farewell = Farewell::Release(finalizer::CRD_REPLICATOR);

    fn farewell(&self, here: &K) -> Farewell {
        // What is held already is let go when its time has come, whoever held it.
        let is_held = (self.held)(here) || here.finalizers().iter().any(|one| one == finalizer::CRD_REPLICATOR);
        if is_held { Self::FAREWELL } else { Farewell::Nothing }
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
        let replica = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"labels": labels, "annotations": here.annotations()},
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
        match there.map(|there| part(there, "status")) {
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
