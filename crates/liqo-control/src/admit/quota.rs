//! Whether one more pod of a peer fits into the offer to that peer.
//!
//! Keeps true: what counts is what exists, so every replica comes to the same answer and nothing has to be
//! booked back: a `ShadowPod` counts until it is gone or its work is done, its pod until the containers have ended. What was
//! admitted a moment ago and was not seen yet is reserved here; two replicas can therefore admit too much only within the time
//! a watch takes. The controller counts again before it makes a pod.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, PodStatus};
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, meta::label, sharing::ResourceOffer, virtualkubelet::ShadowPod};
use liqo_core::resources::Resources;
use liqo_kube::{Cluster, Store, strip};
use tokio::time::Instant;

use crate::offload::allowance::{self, Place, Used};

/// How long a reservation lasts without its shadow pod being seen: then it was refused by somebody else.
const RESERVED: Duration = Duration::from_secs(30);
/// How long a request waits for the first lists.
const PATIENCE: Duration = Duration::from_secs(5);

/// What exists, and what is about to.
pub(super) struct Quota {
    own: ClusterIdentity,
    shadows: Store<ShadowPod>,
    /// Pods made from `ShadowPod`s.
    pods: Store<Pod>,
    offers: Store<ResourceOffer>,
    tenants: Store<Namespace>,
    reserved: Reservations,
}

/// Admitted objects that the watch has not shown yet, by UID: no two objects share a UID.
type Reservations = Arc<Mutex<HashMap<String, Reservation>>>;

struct Reservation {
    origin: String,
    place: Place,
    demand: Resources,
    until: Instant,
}

/// A shadow pod that is asked for.
pub(super) struct Asked<'a> {
    /// UID of the object that will be created, or of the admission request when the object has no UID yet.
    pub uid: String,
    /// The peer that asks.
    pub origin: &'a str,
    /// Where it would be.
    pub namespace: &'a str,
    /// What it would be called.
    pub name: &'a str,
    /// The pod to be made from it.
    pub pod: &'a PodSpec,
    /// Nothing will be stored.
    pub dry_run: bool,
}

impl Asked<'_> {
    /// Where the pod will be. A `ShadowPod` whose name is yet to be generated has a place of its own.
    fn place(&self) -> Place {
        let name = if self.name.is_empty() { &self.uid } else { self.name };
        (self.namespace.to_owned(), name.to_owned())
    }
}

/// Why a pod is not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It asks for too much, or does not say what it asks for.
    Denied(String),
    /// It is not known yet what it may have.
    Unable(String),
}

impl Quota {
    /// Starts watching.
    pub(super) fn watch(cluster: &Cluster, own: &ClusterIdentity) -> Self {
        let originals = format!("{}=true", label::REPLICATION);
        let tenants = format!("{}=true", label::TENANT_NAMESPACE);
        let guests = format!("{}={}", label::MANAGED_BY, label::MANAGED_BY_SHADOW_POD);
        let reserved = Reservations::default();
        let booked = Arc::clone(&reserved);
        Self {
            own: own.clone(),
            // An object that the watch shows counts by itself; an object that was deleted does not count.
            shadows: cluster.watch::<ShadowPod>("").trim(trim).start(move |shadow| {
                lock(&booked).remove(shadow.metadata.uid.as_deref().unwrap_or_default());
            }),
            pods: cluster.watch::<Pod>("").labels(&guests).trim(trim_pod).start(|_| {}),
            offers: cluster.watch::<ResourceOffer>("").labels(&originals).start(|_| {}),
            tenants: cluster.watch::<Namespace>("").labels(&tenants).start(|_| {}),
            reserved,
        }
    }

    /// Whether a peer may have one more pod; if so, and the request is no dry run, the demand of the pod is reserved.
    pub(super) async fn admit(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let known =
            async { tokio::join!(self.shadows.ready(), self.pods.ready(), self.offers.ready(), self.tenants.ready()) };
        if tokio::time::timeout(PATIENCE, known).await.is_err() {
            return Err(Refusal::Unable("initialization in progress".to_owned()));
        }
        let origin = asked.origin;
        let to_origin = |offer: &ResourceOffer| {
            let tenant = self.tenants.get("", &offer.namespace().unwrap_or_default());
            allowance::is_ours(offer, &self.own, origin, tenant.as_deref())
        };
        let Some(offer) = self.offers.filter(to_origin).into_iter().next() else {
            let why = format!("error getting resource offer by label: there is none for the cluster {origin}");
            return Err(Refusal::Unable(why));
        };
        let mut reserved = lock(&self.reserved);
        let now = Instant::now();
        reserved.retain(|_, one| one.until > now);
        let mut used = self.used(origin);
        for (_, one) in reserved.iter().filter(|(uid, one)| one.origin == origin && **uid != asked.uid) {
            used.raise(one.place.clone(), &one.demand);
        }
        let place = asked.place();
        let used = used.beside(&place);
        allowance::judge(&allowance::given(&offer), &used, asked.pod).map_err(Refusal::Denied)?;
        // The API server will not store an object whose name is taken, so the object books nothing.
        if !asked.dry_run && self.shadows.get(asked.namespace, asked.name).is_none() {
            let (origin, demand) = (origin.to_owned(), allowance::demand(asked.pod));
            reserved.insert(asked.uid.clone(), Reservation { origin, place, demand, until: now + RESERVED });
        }
        Ok(())
    }

    /// What exists of a peer.
    fn used(&self, peer: &str) -> Used {
        let shadows = self.shadows.filter(|one| allowance::counts(one, peer));
        Used::of(&shadows, &self.pods.filter(|one| allowance::runs(one, peer)))
    }
}

fn lock(reserved: &Reservations) -> MutexGuard<'_, HashMap<String, Reservation>> {
    reserved.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what counts.
fn trim(shadow: &mut ShadowPod) {
    strip(shadow);
    shadow.metadata.annotations = None;
    shadow.spec.pod = shadow.spec.pod.take().map(allowance::sizes);
}

/// Keeps what counts.
fn trim_pod(pod: &mut Pod) {
    strip(pod);
    pod.metadata.annotations = None;
    pod.spec = pod.spec.take().map(allowance::sizes);
    let phase = pod.status.take().and_then(|status| status.phase);
    pod.status = Some(PodStatus { phase, ..PodStatus::default() });
}
