//! `ResourceRequest`, as a provider: who asks, and what is offered.
//!
//! Keeps true: only what a peer says about itself is believed, that is, in its own tenant namespace and
//! under its own ID. An offer exists exactly while an accepted request does; what is withdrawn goes only
//! when the consumer has taken its node away, or is dead.
//!
//! Watches   `ResourceRequest` replicas, `ResourceOffer` originals, `ForeignCluster`, `Node`, `Pod`,
//!           `StorageClass`.
//! Writes    `ForeignCluster` for a peer that asks before it has one; `ResourceOffer` originals; `ResourceRequest`
//!           replicas: owner and status.
//! Removes   `ResourceOffer` originals.

mod names;
mod plan;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ResourceQuotaSpec;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, ForeignClusterSpec, ResourceRequest},
    meta::{annotation, label},
    sharing::{ResourceOffer, ResourceOfferSpec, StorageType},
};
use liqo_core::{
    decision::{self, accepts, is_cordoned},
    resources::{changed, read, write},
};
use liqo_kube::{KubeError, now, owner_reference};
use serde_json::json;

use super::{foreign_cluster::is_dead, is_nobody, monitor, permissions, world::World};
use crate::{
    COMPONENT,
    args::{self, StorageArgs},
};
use names::Owner;
pub(crate) use plan::foul;
use plan::{Seen, Step, plan};

/// Requests of one peer about which this cluster is told at a time.
const REFUSALS: usize = 4;
/// A storage class with this annotation is the default one.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What the controller of requests knows besides the [`World`].
#[derive(Default)]
pub(crate) struct Requests {
    /// Name of the storage class that is offered as the default; empty: the default class of this cluster.
    real_storage_class: String,
    /// Whether the peer of a tenant namespace may read its metrics, as far as this process knows: `true` granted, `false`
    /// revoked. The entry goes with the tenant namespace.
    metrics: Mutex<HashMap<String, bool>>,
}

impl Requests {
    pub(crate) fn new(storage: &StorageArgs) -> Self {
        Self { real_storage_class: storage.real_storage_class_name.clone(), metrics: Mutex::default() }
    }

    fn metrics(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settles what happens in one tenant namespace.
pub(crate) async fn settle(
    world: &World,
    requests: &Requests,
    namespace: String,
) -> Result<Option<Duration>, KubeError> {
    let Some(peer) = world.peer_in(&namespace) else {
        requests.metrics().remove(&namespace);
        return Ok(None);
    };
    Pass { world, requests, namespace: &namespace, peer: &peer }.run().await
}

/// One look at one tenant namespace.
struct Pass<'a> {
    world: &'a World,
    requests: &'a Requests,
    namespace: &'a str,
    peer: &'a str,
}

impl Pass<'_> {
    async fn run(&self) -> Result<Option<Duration>, KubeError> {
        let here = &self.world.home.identity;
        let offer = self.world.our_offer(self.namespace, self.peer);
        self.refuse().await;
        let request = self.world.their_request(self.namespace, self.peer);
        let foreign_cluster = match &request {
            Some(request) => self.foreign_cluster(request).await?,
            None => self.world.foreign_cluster(self.peer),
        };
        let cordoned = foreign_cluster.as_ref().is_some_and(|one| is_cordoned(one));
        let accepted = foreign_cluster.as_ref().is_some_and(|one| {
            accepts(one, self.world.policy.accept_by_default).is_ok()
                // New resources are refused; resources granted before stay.
                && !(cordoned && offer.is_none())
                && !is_nobody(one, &self.world.foreign_clusters.all(), here)
        });
        let (dead, dead_in) = is_dead(self.world.checker.health(self.peer));
        let grant = self.world.grants(self.peer).consumer;
        let plan = plan(&Seen {
            request: request.as_deref(),
            offer: offer.as_deref(),
            accepted,
            dead,
            overdue: !grant.is_in_force(),
        });
        let foreign_cluster = foreign_cluster.as_deref();
        let step = Some(plan.step).filter(|step| !(cordoned && *step == Step::Make));
        // The offer does not wait for the role by which the peer reads metrics; a failure of one does not stop the other.
        let (metrics, served) = tokio::join!(
            self.metrics(plan.metrics, foreign_cluster),
            self.serve(request.as_deref(), foreign_cluster, step, offer.as_deref()),
        );
        metrics.and(served)?;
        if let Some(request) = request.filter(|request| request.metadata.deletion_timestamp.is_none())
            && let Some(status) = plan.status(request.status.as_ref(), &now())
        {
            self.world.home.cluster.put_status(request.as_ref(), &status).await?;
        }
        let ends_in = grant.ends_in(now().0.as_second());
        Ok(dead_in.into_iter().chain(ends_in).min().filter(|_| plan.waits_for_the_consumer))
    }

    /// Answers the request, and carries out what was planned about the offer.
    async fn serve(
        &self,
        request: Option<&ResourceRequest>,
        foreign_cluster: Option<&ForeignCluster>,
        step: Option<Step>,
        offer: Option<&ResourceOffer>,
    ) -> Result<(), KubeError> {
        if let (Some(request), Some(one)) = (request, foreign_cluster) {
            self.own(request, one).await?;
            self.answer(request, one).await?;
        }
        match step {
            Some(step) => self.step(step, request, offer).await,
            None => Ok(()),
        }
    }

    /// Tells which requests of the peer are ignored; of many, the oldest.
    async fn refuse(&self) {
        let mut copies = self.world.copies(self.namespace);
        // The oldest: more that come later are not told about.
        copies.sort_by_cached_key(|one| (one.creation_timestamp().map(|time| time.0), one.name_any()));
        let foul = |one: Arc<ResourceRequest>| Some((foul(&one, self.peer, &self.world.home.identity)?, one));
        for (why, one) in copies.into_iter().filter_map(foul).take(REFUSALS) {
            self.world.told.warn((&self.world.home.cluster, COMPONENT), &*one, "", "RequestIgnored", &why).await;
        }
    }

    /// The `ForeignCluster` of the peer that asks; made when the peer asks for the first time.
    async fn foreign_cluster(&self, request: &ResourceRequest) -> Result<Option<Arc<ForeignCluster>>, KubeError> {
        if let Some(known) = self.world.foreign_cluster(self.peer) {
            self.follow(&known, request).await?;
            return Ok(Some(known));
        }
        if request.metadata.deletion_timestamp.is_some() || request.spec.withdrawal_timestamp.is_some() {
            return Ok(None);
        }
        let (asked, known) = (&request.spec.cluster_identity, self.world.foreign_clusters.all());
        let cluster = &self.world.home.cluster;
        for name in names::free(asked, &request.uid().unwrap_or_default(), &known) {
            match cluster.create(&incoming(&name, self.peer, &request.spec.auth_url)).await {
                Ok(made) => {
                    tracing::info!(peer = self.peer, object = name, "a new peer asks for resources");
                    return Ok(Some(Arc::new(made)));
                }
                Err(error) if error.is_conflict() => {
                    match names::owner(self.peer, cluster.get("", &name).await?.as_ref()) {
                        // Made a moment ago, or being deleted: its event wakes this controller.
                        Owner::ThisPeer => return Ok(None),
                        Owner::Another => {}
                        Owner::Nobody => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let why = format!("no ForeignCluster could be made: all names for cluster {:?} are taken", asked.cluster_name);
        self.world.told.warn((cluster, COMPONENT), request, "", "RequestIgnored", &why).await;
        Ok(None)
    }

    /// A peer that was made for its request follows where the request says it can be reached.
    async fn follow(&self, known: &ForeignCluster, request: &ResourceRequest) -> Result<(), KubeError> {
        let is_incoming =
            known.labels().get(label::DISCOVERY_TYPE).is_some_and(|kind| kind == label::DISCOVERY_INCOMING);
        if is_incoming && known.spec.foreign_auth_url != request.spec.auth_url {
            let patch = json!({"spec": {"foreignAuthUrl": request.spec.auth_url}});
            self.world.home.cluster.merge(known, patch).await?;
        }
        Ok(())
    }

    /// The request goes with the `ForeignCluster` it belongs to.
    async fn own(&self, request: &ResourceRequest, one: &ForeignCluster) -> Result<(), KubeError> {
        let is_going = request.metadata.deletion_timestamp.is_some() || one.metadata.deletion_timestamp.is_some();
        if is_going {
            return Ok(());
        }
        self.world.home.cluster.own(request, owner_reference(one, true)).await.map(drop)
    }

    /// Tells the peer, on its copy of the request, why it is granted nothing new.
    async fn answer(&self, request: &ResourceRequest, one: &ForeignCluster) -> Result<(), KubeError> {
        let why = decision::refusal(one, self.world.policy.accept_by_default);
        let told = request.annotations().get(annotation::REFUSAL).map(String::as_str);
        if told == why || request.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": request.uid(), "annotations": {annotation::REFUSAL: why}}});
        match self.world.home.cluster.merge(request, patch).await {
            // The peer has taken the request back meanwhile.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Lets the peer read its metrics, or no longer; once.
    async fn metrics(&self, granted: bool, one: Option<&ForeignCluster>) -> Result<(), KubeError> {
        let known = self.requests.metrics().get(self.namespace).copied();
        if known == Some(granted) {
            return Ok(());
        }
        let cluster = &self.world.home.cluster;
        match one.and_then(|one| one.spec.cluster_identity.as_ref()).filter(|_| granted) {
            Some(peer) => permissions::grant_metrics(cluster, peer).await?,
            None => permissions::revoke_metrics(cluster, self.peer).await?,
        }
        self.requests.metrics().insert(self.namespace.to_owned(), granted);
        Ok(())
    }

    async fn step(
        &self,
        step: Step,
        request: Option<&ResourceRequest>,
        offer: Option<&ResourceOffer>,
    ) -> Result<(), KubeError> {
        let cluster = &self.world.home.cluster;
        match (step, request, offer) {
            (Step::Make, Some(request), old) => {
                let new = self.offer(request);
                if old.is_none_or(|old| is_news(old, &new, self.world.settings.threshold)) {
                    cluster.apply(&new).await?;
                    tracing::info!(peer = self.peer, first = old.is_none(), "resources offered");
                }
            }
            (Step::Withdraw, _, Some(offer)) => {
                tracing::info!(peer = self.peer, "offer withdrawn");
                cluster.merge(offer, json!({"spec": {"withdrawalTimestamp": now()}})).await?;
            }
            (Step::Remove, _, Some(offer)) => {
                tracing::info!(peer = self.peer, "offer removed");
                cluster.remove(offer).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The offer as it should be.
    fn offer(&self, request: &ResourceRequest) -> ResourceOffer {
        let World { home, args, pods, .. } = self.world;
        let free = monitor::offer(&self.world.real_nodes(), &pods.all(), self.peer, args.resource_sharing_percentage);
        let spec = ResourceOfferSpec {
            cluster_id: home.identity.cluster_id.clone(),
            resource_quota: Some(ResourceQuotaSpec { hard: Some(write(&free)), ..ResourceQuotaSpec::default() }),
            labels: args::map(&args.cluster_labels),
            storage_classes: self.storage_classes(),
            ..ResourceOfferSpec::default()
        };
        let mut offer = ResourceOffer::new(&home.identity.cluster_name, spec);
        offer.metadata.namespace = Some(self.namespace.to_owned());
        let labels = [(label::CLUSTER_ID, self.peer), (label::REPLICATION, "true"), (label::REMOTE_ID, self.peer)];
        offer.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        offer.metadata.owner_references = Some(vec![owner_reference(request, true)]);
        offer
    }

    fn storage_classes(&self) -> Vec<StorageType> {
        let Some(classes) = &self.world.classes else { return Vec::new() };
        let real = &self.requests.real_storage_class;
        let mut all: Vec<_> = classes
            .all()
            .iter()
            .map(|class| {
                let marked = class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true");
                let default = if real.is_empty() { marked } else { class.name_any() == *real };
                StorageType { storage_class_name: class.name_any(), default }
            })
            .collect();
        all.sort_by(|a, b| a.storage_class_name.cmp(&b.storage_class_name));
        all
    }
}

/// Whether a new offer is worth telling.
fn is_news(old: &ResourceOffer, new: &ResourceOffer, threshold: u8) -> bool {
    let hard = |offer: &ResourceOffer| {
        let quota = offer.spec.resource_quota.as_ref().and_then(|quota| quota.hard.clone());
        read(&quota.unwrap_or_default())
    };
    let rest = |offer: &ResourceOffer| ResourceOfferSpec { resource_quota: None, ..offer.spec.clone() };
    let labels = |offer: &ResourceOffer, wanted: &ResourceOffer| {
        wanted.labels().iter().all(|(key, value)| offer.labels().get(key) == Some(value))
    };
    let owners =
        |offer: &ResourceOffer| -> Vec<_> { offer.owner_references().iter().map(|owner| owner.uid.clone()).collect() };
    changed(&hard(old), &hard(new), threshold)
        || rest(old) != rest(new)
        || !labels(old, new)
        || owners(old) != owners(new)
}

/// A `ForeignCluster` for a peer that asks.
fn incoming(name: &str, peer: &str, auth_url: &str) -> ForeignCluster {
    let spec = ForeignClusterSpec {
        cluster_identity: Some(ClusterIdentity::new(peer, name)),
        foreign_auth_url: auth_url.to_owned(),
        insecure_skip_tls_verify: Some(true),
        ..ForeignClusterSpec::default()
    };
    let mut one = ForeignCluster::new(name, spec);
    let labels = [(label::CLUSTER_ID, peer), (label::DISCOVERY_TYPE, label::DISCOVERY_INCOMING)];
    one.metadata.labels = Some(BTreeMap::from(labels.map(|(key, value)| (key.to_owned(), value.to_owned()))));
    one
}
