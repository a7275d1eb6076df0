//! Which addresses of this cluster each peer reaches when peers are segregated.
//!
//! Keeps true: a peer reaches the pods of namespaces that are offloaded to it, the pods of namespaces that were made for it,
//! and what is exported to it. A namespace that serves another one (such as that of the store of jobs) is shared as that one is.
//! A pod is found by its own address, not by endpoints: an `EndpointSlice` that names a pod of
//! another namespace opens nothing, whoever wrote the slice. All three kinds are objects that no peer can write for itself.
//! Until every kind has been listed nothing is known, and the gateway leaves the rules in the kernel as they are.
//!
//! Watches: `NamespaceOffloading`s, `Namespace`s made for peers or serving others, `Pod`s; in the segregated mode only.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, meta::label, names, offloading::NamespaceOffloading};
use liqo_core::{mapping, naming};
use liqo_kube::{Cluster, Store};
use tokio::sync::{Notify, watch};

use super::rules::Exports;
use crate::{network::Networks, route::pods};

/// Pause between two looks, so that a burst of changes is looked at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Which pods of this cluster peers reach; names and meaning are those of Liqo 1.x.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SecurityMode {
    /// Every pod but those of Liqo, as in Liqo 0.8.3.
    #[default]
    #[value(name = "FullPodToPod")]
    FullPodToPod,
    /// Pods of namespaces that are shared with the peer.
    #[value(name = "IntraClusterTrafficSegregation")]
    IntraClusterTrafficSegregation,
}

impl SecurityMode {
    /// The name in flags, values and statuses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FullPodToPod => "FullPodToPod",
            Self::IntraClusterTrafficSegregation => "IntraClusterTrafficSegregation",
        }
    }
}

/// The addresses in this cluster that one peer reaches, before they are translated for the peer.
pub(crate) type ReachableAddresses = BTreeSet<Ipv4Addr>;

/// The peer a namespace is shared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sharer {
    /// The namespace is offloaded to the peer whose `NamespaceMap` has this name.
    Provider(String),
    /// The namespace was made for the peer with this cluster ID.
    Consumer(String),
}

/// What this cluster shares with each of its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared(BTreeMap<Sharer, ReachableAddresses>);

impl Shared {
    /// What `peer` reaches: shared addresses within the pod network, and every address exported to the peer.
    pub(crate) fn reach(&self, peer: &ClusterIdentity, networks: &Networks, exports: &Exports) -> ReachableAddresses {
        let sharers = [Sharer::Provider(naming::unique_name(peer)), Sharer::Consumer(peer.cluster_id.clone())];
        let shared = sharers.iter().filter_map(|sharer| self.0.get(sharer)).flatten();
        let pods = shared.filter(|address| networks.local_pods.contains(&IpAddr::V4(**address)));
        pods.chain(exports.values()).copied().collect()
    }

    fn of(seen: &Seen) -> Self {
        let spaces = seen.spaces();
        let mut all: BTreeMap<Sharer, ReachableAddresses> = BTreeMap::new();
        for (address, owners) in owners(&seen.pods) {
            for sharer in sharers(&spaces, &owners) {
                all.entry(sharer.clone()).or_default().insert(address);
            }
        }
        Self(all)
    }
}

/// The objects that the decision reads.
#[derive(Debug, Default)]
struct Seen {
    offloadings: Vec<Arc<NamespaceOffloading>>,
    /// Namespaces made for peers.
    namespaces: Vec<Arc<Namespace>>,
    /// Namespaces that serve another one.
    serving: Vec<Arc<Namespace>>,
    pods: Vec<Arc<Pod>>,
}

impl Seen {
    /// The namespaces that are shared, each with its peers. A namespace made for a peer is shared with no other one.
    fn spaces(&self) -> BTreeMap<String, BTreeSet<Sharer>> {
        let mut all: BTreeMap<String, BTreeSet<Sharer>> = BTreeMap::new();
        for offloading in &self.offloadings {
            let namespace = offloading.namespace().unwrap_or_default();
            if !mapping::stays_here(&namespace) {
                all.insert(namespace, providers(offloading));
            }
        }
        for namespace in &self.namespaces {
            let peer = namespace.labels().get(label::REMOTE_CLUSTER_ID).cloned().unwrap_or_default();
            all.insert(namespace.name_any(), [Sharer::Consumer(peer)].into());
        }
        let serving = self.serving.iter().filter_map(|one| {
            let served = all.get(one.labels().get(label::SERVES_NAMESPACE)?)?;
            (!mapping::stays_here(&one.name_any())).then(|| (one.name_any(), served.clone()))
        });
        let serving: Vec<_> = serving.filter(|(name, _)| !all.contains_key(name)).collect();
        all.extend(serving);
        all
    }
}

/// The peers that an offloading has selected; none once the offloading ends.
fn providers(offloading: &NamespaceOffloading) -> BTreeSet<Sharer> {
    if offloading.name_any() != names::NAMESPACE_OFFLOADING || offloading.metadata.deletion_timestamp.is_some() {
        return BTreeSet::new();
    }
    let conditions = offloading.status.iter().flat_map(|status| &status.remote_namespaces_conditions);
    let selected = conditions.filter(|(_, all)| {
        all.iter().any(|condition| condition.type_ == "OffloadingRequired" && condition.status == "True")
    });
    selected.map(|(map, _)| Sharer::Provider(map.clone())).collect()
}

/// The namespaces of the pods that have each address. A pod that is being deleted has its address unless another pod has
/// that address already.
fn owners(pods: &[Arc<Pod>]) -> BTreeMap<Ipv4Addr, BTreeSet<&str>> {
    let mut all: BTreeMap<Ipv4Addr, BTreeSet<&str>> = BTreeMap::new();
    let mut leaving = Vec::new();
    for pod in pods {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for address in pods::addresses(pod) {
            match address {
                IpAddr::V4(address) if pod.metadata.deletion_timestamp.is_some() => leaving.push((address, namespace)),
                IpAddr::V4(address) => _ = all.entry(address).or_default().insert(namespace),
                IpAddr::V6(_) => {}
            }
        }
    }
    let taken: BTreeSet<_> = all.keys().copied().collect();
    for (address, namespace) in leaving.into_iter().filter(|(address, _)| !taken.contains(address)) {
        all.entry(address).or_default().insert(namespace);
    }
    all
}

/// The peers that every one of the namespaces is shared with.
fn sharers<'s>(spaces: &'s BTreeMap<String, BTreeSet<Sharer>>, owners: &BTreeSet<&str>) -> Vec<&'s Sharer> {
    let mut others = owners.iter().map(|namespace| spaces.get(*namespace));
    let first = others.next().flatten();
    let others: Vec<_> = others.collect();
    let in_all = |sharer: &&Sharer| others.iter().all(|space| space.is_some_and(|space| space.contains(*sharer)));
    first.into_iter().flatten().filter(in_all).collect()
}

/// Starts watching. The receiver holds `None` until every kind has been listed.
pub(super) fn watch(cluster: &Cluster) -> watch::Receiver<Option<Arc<Shared>>> {
    let news = Arc::new(Notify::new());
    let ring = || {
        let news = Arc::clone(&news);
        move || news.notify_one()
    };
    let (offloadings, namespaces, serving, pods) = (ring(), ring(), ring(), ring());
    let stores = Stores {
        offloadings: cluster.watch("").start(move |_| offloadings()),
        namespaces: cluster.watch("").labels(label::REMOTE_CLUSTER_ID).start(move |_| namespaces()),
        serving: cluster.watch("").labels(label::SERVES_NAMESPACE).start(move |_| serving()),
        pods: cluster.watch("").trim(pods::trim).start(move |_| pods()),
    };
    let (sender, receiver) = watch::channel(None);
    // When the task ends, the sender is dropped, and the receiver fails.
    tokio::spawn(stores.follow(news, sender));
    receiver
}

struct Stores {
    offloadings: Store<NamespaceOffloading>,
    namespaces: Store<Namespace>,
    serving: Store<Namespace>,
    pods: Store<Pod>,
}

impl Stores {
    /// Tells what is shared whenever that has changed, as long as somebody listens.
    async fn follow(self, news: Arc<Notify>, sender: watch::Sender<Option<Arc<Shared>>>) {
        tokio::join!(self.offloadings.ready(), self.namespaces.ready(), self.serving.ready(), self.pods.ready());
        loop {
            let now = Shared::of(&self.seen());
            sender.send_if_modified(|shared| {
                let differs = shared.as_deref() != Some(&now);
                if differs {
                    *shared = Some(Arc::new(now));
                }
                differs
            });
            tokio::select! {
                () = news.notified() => tokio::time::sleep(PAUSE).await,
                () = sender.closed() => return,
            }
        }
    }

    fn seen(&self) -> Seen {
        let (offloadings, namespaces) = (self.offloadings.all(), self.namespaces.all());
        Seen { offloadings, namespaces, serving: self.serving.all(), pods: self.pods.all() }
    }
}

#[cfg(test)]
mod tests;
