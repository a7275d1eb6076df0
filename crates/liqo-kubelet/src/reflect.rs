//! What is reflected into the other cluster, and what comes back: one mirror for each kind and pair of namespaces.
//!
//! Watches   `NamespaceMap` of the peer: which namespace here is which there; `Pod` here, all of our node.
//! Writes    nothing itself, see the modules of the kinds.
//! Removes   nothing: when a pair of namespaces ends, its mirrors stop and leave both sides as they are.
//!           What is there goes with the namespace there.
//!
//! Keeps true: a pod of our node is looked after by exactly one: by the mirror of its namespace where the namespace is offloaded
//! to the peer, else by the controller manager (`offload/stray.rs` of `liqo-control`), because we have no rights elsewhere.

mod complaint;
mod config_map;
mod endpoint_slice;
mod ingress;
mod needs;
mod pair;
mod pod;
mod secret;
mod service;
mod token;
mod twin_meta;
mod users;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use liqo_api::{meta::label, virtualkubelet::NamespaceMap};
use liqo_core::mapping;
use liqo_kube::{Cluster, Queue, Store, access, drive, life::Life};
use tokio::sync::watch;

use self::pair::Pair;
use crate::{
    args::{DownwardApi, WorkerArgs},
    link::Link,
    metrics::Counters,
    node::Connectivity,
    translate::Addresses,
};

pub(crate) use pod::{API_SERVER_NAMES, ApiServer, ApiSupport};

/// Pause before the rights in a namespace are reviewed again.
const RIGHTS_PAUSE: Duration = Duration::from_millis(100);

/// What every reflector needs.
pub(crate) struct Cx {
    /// The own cluster.
    pub(crate) home: Cluster,
    /// The other one.
    pub(crate) there: Cluster,
    /// Who is linked.
    pub(crate) link: Arc<Link>,
    /// Names handled at the same time, by kind.
    pub(crate) workers: WorkerArgs,
    /// How pods reach their own API server.
    pub(crate) support: ApiSupport,
    /// Whose namespace and UID pods are told.
    pub(crate) downward_api: DownwardApi,
    /// What becomes of addresses on the way.
    pub(crate) addresses: Addresses,
    /// What was done.
    pub(crate) counters: Arc<Counters>,
}

/// Where a namespace is, there.
#[derive(Clone)]
pub(crate) struct Place {
    /// Its name there.
    pub(crate) namespace: String,
    /// The pods in it; none while pods are not reflected.
    pub(crate) pods: Option<Store<Pod>>,
}

/// The pairs of namespaces that are mirrored now, by their name here.
#[derive(Default)]
pub(crate) struct Pairs {
    pairs: RwLock<BTreeMap<String, Pair>>,
    /// Whether the first namespaces are known.
    known: watch::Sender<bool>,
}

impl Pairs {
    /// A pod of our node came, changed or went.
    pub(crate) fn saw(&self, pod: &Pod) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        if let Some(pair) = self.read().get(&namespace) {
            pair.saw(name);
        }
    }

    /// Where a namespace is, there.
    pub(crate) fn place(&self, namespace: &str) -> Option<Place> {
        self.read().get(namespace).map(Pair::place)
    }

    /// All mirrored namespaces, with where they are.
    pub(crate) fn places(&self) -> Vec<(String, Place)> {
        self.read().iter().map(|(namespace, pair)| (namespace.clone(), pair.place())).collect()
    }

    /// Returns when every endpoint that is reflected now is known, here and there.
    pub(crate) async fn known(&self) {
        self.first().await;
        let all: Vec<_> = self.read().values().filter_map(|pair| pair.slices().cloned()).collect();
        for slices in all {
            slices.ready().await;
        }
    }

    /// Whether an endpoint that is reflected has this address.
    pub(crate) fn has_endpoint(&self, ip: IpAddr) -> bool {
        self.read().values().filter_map(Pair::slices).any(|slices| slices.have(ip))
    }

    /// Returns when the first namespaces are known.
    async fn first(&self) {
        // The sender is ours: it lives.
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Pair>> {
        self.pairs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Pair>> {
        self.pairs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The component that tells users about a kind.
fn component(kind: &str) -> String {
    format!("liqo-{}-reflection", kind.to_lowercase())
}

/// Starts reflection, which follows the namespace maps for as long as the process lives. Returns the maps.
pub(crate) fn start(
    life: &Life,
    cx: Cx,
    pods: Store<Pod>,
    pairs: Arc<Pairs>,
    reach: watch::Receiver<Connectivity>,
) -> Store<NamespaceMap> {
    let cx = Arc::new(cx);
    let queue = Queue::new();
    let selector = format!("{}={}", label::REMOTE_CLUSTER_ID, cx.link.there.cluster_id);
    let maps = cx.home.watch::<NamespaceMap>(&cx.link.tenant_namespace).labels(&selector).start({
        let queue = queue.clone();
        move |_| queue.push(())
    });
    let follower = Arc::new(Follower { cx, maps: maps.clone(), pods, pairs, renew: AtomicBool::new(false) });

    queue.push(());
    life.spawn("reconnect", reconnect(reach, Arc::clone(&follower), queue.clone()));
    life.spawn("namespaces", async move { drive("namespaces", queue, 1, |()| follower.settle()).await });
    maps
}

/// When the other cluster answers again all watches there start anew: connections from before may look
/// alive for minutes although nothing comes through.
async fn reconnect(mut reach: watch::Receiver<Connectivity>, follower: Arc<Follower>, queue: Queue<()>) {
    let mut before = *reach.borrow_and_update();
    while reach.changed().await.is_ok() {
        let now = *reach.borrow_and_update();
        if (before, now) == (Connectivity::Lost, Connectivity::Reached) {
            follower.renew.store(true, Ordering::SeqCst);
            queue.push(());
        }
        before = now;
    }
    std::future::pending().await
}

/// Follows the namespace maps.
struct Follower {
    cx: Arc<Cx>,
    maps: Store<NamespaceMap>,
    pods: Store<Pod>,
    pairs: Arc<Pairs>,
    /// All mirrors shall start anew.
    renew: AtomicBool,
}

impl Follower {
    async fn settle(&self) -> Result<Option<Duration>, Infallible> {
        self.maps.ready().await;
        let renew = self.renew.swap(false, Ordering::SeqCst);
        let maps = self.maps.all();
        if maps.len() > 1 {
            let names: Vec<_> = maps.iter().map(|map| map.name_any()).collect();
            tracing::error!(
                reason = names.join(", "),
                "several namespace maps for one cluster, none is followed: delete all but one"
            );
            return Ok(None);
        }
        let wanted = maps.first().map(|map| mapping::reflected(map)).unwrap_or_default();
        let running = self.pairs.read().iter().map(|(here, pair)| (here.clone(), pair.there().to_owned())).collect();
        let Changes { stop, start } = plan(&running, wanted, renew);
        for here in stop {
            tracing::info!(namespace = here, "namespace no longer reflected");
            let ended = self.pairs.write().remove(&here);
            drop(ended);
            self.cx.counters.forget(&here);
        }
        let mut again = None;
        for (here, there) in start {
            // The controller manager binds the rights when it asks for the namespace.
            if !access::may_list_secrets(&self.cx.home, &here).await {
                again = Some(RIGHTS_PAUSE);
                continue;
            }
            tracing::info!(namespace = here, there, "namespace reflected");
            let pair = pair::start(&self.cx, &self.pods, &here, &there);
            let ended = self.pairs.write().insert(here.clone(), pair);
            drop(ended);
            self.look_at(&here);
        }
        self.pairs.known.send_replace(true);
        Ok(again)
    }

    /// A mirror looks after the pods of a namespace from now on.
    fn look_at(&self, namespace: &str) {
        for pod in self.pods.filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace)) {
            self.pairs.saw(&pod);
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct Changes {
    stop: Vec<String>,
    start: Vec<(String, String)>,
}

fn plan(running: &BTreeMap<String, String>, wanted: BTreeMap<String, String>, renew: bool) -> Changes {
    let stop = running.keys().filter(|here| !wanted.contains_key(*here)).cloned().collect();
    let start = wanted.into_iter().filter(|(here, there)| renew || running.get(here) != Some(there)).collect();
    Changes { stop, start }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(here, there)| ((*here).to_owned(), (*there).to_owned())).collect()
    }

    #[test]
    fn mirrors_start_and_stop_with_their_namespaces() {
        let running = pairs(&[("a", "x"), ("b", "y"), ("c", "z")]);
        let wanted = pairs(&[("a", "x"), ("b", "other"), ("d", "w")]);
        let changes = plan(&running, wanted.clone(), false);
        assert_eq!(changes.stop, ["c"]);
        assert_eq!(pairs(&[("b", "other"), ("d", "w")]), changes.start.into_iter().collect());
        assert_eq!(plan(&wanted, wanted.clone(), false), Changes::default());
        assert_eq!(plan(&wanted, wanted.clone(), true).start.len(), 3, "all over again");
    }

    #[test]
    fn components_are_named_after_kinds() {
        assert_eq!(component("EndpointSlice"), "liqo-endpointslice-reflection");
    }
}
