//! `ResourceOffer`, as a consumer: accepted, it becomes a virtual kubelet; withdrawn, the kubelet goes
//! after its node.
//!
//! Keeps true: no virtual kubelet unless we want resources from the peer and a request of ours stands. What lies here without one (a
//! peer came back from the dead, a request was removed by hand) is taken down, and the provider is told
//! so that it can finish.
//!
//! Watches   `ResourceOffer` replicas, `ResourceRequest` originals, virtual kubelet `Deployment`s,
//!           `ForeignCluster`.
//! Writes    `ResourceOffer` replicas: owner, finalizer, status; on the virtual node of a banned provider that the node ends
//!           at once; the virtual kubelet, by [`virtual_kubelet`].
//! Removes   the virtual kubelet; a `ResourceOffer` replica that only a kubelet can release.

mod plan;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::ForeignCluster,
    meta::{annotation, finalizer, label},
    names,
    sharing::{OfferPhase, ResourceOffer, ResourceOfferStatus, VirtualKubeletStatus},
};
use liqo_core::{decision::is_banned, naming};
use liqo_kube::{KubeError, now, owner_reference};
use serde_json::json;

use super::{is_nobody, world::World};
use crate::{COMPONENT, args::KubeletArgs, offload::virtual_kubelet};
use plan::{Course, Seen, plan};

/// Pause before it is looked again whether a virtual kubelet is gone.
const GONE_YET: Duration = Duration::from_millis(300);

/// What each virtual kubelet was last made from, by tenant namespace: made once per change, not per event.
#[derive(Default)]
struct Ensured(Mutex<HashMap<String, String>>);

impl Ensured {
    fn is(&self, namespace: &str, from: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).is_some_and(|known| known == from)
    }

    fn set(&self, namespace: &str, from: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned(), from);
    }

    fn forget(&self, namespace: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }
}

/// What the controller of offers knows besides the [`World`].
pub(crate) struct Offers {
    kubelets: KubeletArgs,
    ensured: Ensured,
}

impl Offers {
    pub(crate) fn new(kubelets: &KubeletArgs) -> Self {
        Self { kubelets: kubelets.clone(), ensured: Ensured::default() }
    }
}

/// Settles the offer in one tenant namespace.
pub(crate) async fn settle(world: &World, offers: &Offers, namespace: String) -> Result<Option<Duration>, KubeError> {
    let Some(peer) = world.peer_in(&namespace) else {
        offers.ensured.forget(&namespace);
        return Ok(None);
    };
    let Some(offer) = world.their_offer(&namespace, &peer) else { return Ok(None) };
    Pass { world, offers, namespace: &namespace, peer: &peer, offer: &offer }.run().await
}

/// One look at one offer.
#[derive(Clone, Copy)]
struct Pass<'a> {
    world: &'a World,
    offers: &'a Offers,
    namespace: &'a str,
    peer: &'a str,
    offer: &'a ResourceOffer,
}

impl Pass<'_> {
    async fn run(&self) -> Result<Option<Duration>, KubeError> {
        let one = self.world.foreign_cluster(self.peer);
        let one = one.filter(|one| !is_nobody(one, &self.world.foreign_clusters.all(), &self.world.home.identity));
        if let Some(one) = &one
            && let Some(owned) = self.own(one).await?
        {
            // Go on with what is stored now.
            return Box::pin(Pass { offer: &owned, ..*self }.run()).await;
        }
        let request = self.world.our_request(self.namespace, self.peer);
        let request = request.filter(|request| request.metadata.deletion_timestamp.is_none());
        let grant = self.world.grants(self.peer).provider;
        let wanted = grant.is_granted() && one.is_some();
        if request.is_none() && !self.holds(finalizer::VIRTUAL_KUBELET) {
            let (cluster, why) =
                (&self.world.home.cluster, "this cluster has not asked for resources: the offer is ignored");
            self.world.told.warn((cluster, COMPONENT), self.offer, "", "OfferIgnored", why).await;
        }
        let has_kubelet = self.world.kubelets.get(self.namespace, names::VIRTUAL_KUBELET).is_some();
        let course = plan(&Seen {
            offer: self.offer,
            requested: request.is_some() && grant.is_in_force(),
            wanted,
            has_kubelet,
            accept: !self.world.args.offer_disable_auto_accept,
        });
        match (course, one) {
            (Course::Run, Some(one)) => self.run_kubelet(&one, has_kubelet).await.map(|()| None),
            (Course::Run | Course::Rest, _) => Ok(None),
            (Course::Tell(status), _) => self.tell(status).await.map(|_| None),
            // A provider that does not answer gets the time until the deadline.
            (Course::Drain { remove }, one) => {
                self.drain(remove, one.is_some_and(|one| is_banned(&one))).await?;
                Ok(grant.ends_in(now().0.as_second()))
            }
            (Course::Clear, one) => self.clear(one.as_deref()).await,
        }
    }

    /// The offer goes with the `ForeignCluster` it belongs to.
    async fn own(&self, one: &ForeignCluster) -> Result<Option<ResourceOffer>, KubeError> {
        let is_going = self.offer.metadata.deletion_timestamp.is_some() || one.metadata.deletion_timestamp.is_some();
        if is_going {
            return Ok(None);
        }
        self.world.home.cluster.own(self.offer, owner_reference(one, true)).await
    }

    async fn run_kubelet(&self, one: &ForeignCluster, exists: bool) -> Result<(), KubeError> {
        let (home, Offers { kubelets, ensured }) = (&self.world.home, self.offers);
        let from = made_from(self.offer, one);
        if !(exists && ensured.is(self.namespace, &from)) {
            if !exists && !ensured.is(self.namespace, &from) {
                let name = &one.spec.cluster_identity.clone().unwrap_or_default().cluster_name;
                let message = format!("[{name}] Launching virtual-kubelet in namespace {}", self.namespace);
                home.cluster.event(self.offer, COMPONENT, "Normal", "VkCreated", &message).await;
            }
            virtual_kubelet::ensure(home, kubelets, self.offer, one).await?;
            ensured.set(self.namespace, from);
        }
        if !self.holds(finalizer::VIRTUAL_KUBELET) {
            home.cluster.hold(self.offer, finalizer::VIRTUAL_KUBELET).await?;
        }
        let status = VirtualKubeletStatus::Created;
        self.tell(ResourceOfferStatus { phase: OfferPhase::Accepted, virtual_kubelet_status: status }).await.map(drop)
    }

    /// The virtual kubelet drains its node because the offer is withdrawn or removed; `at_once`: it gives pods no time.
    async fn drain(&self, remove: bool, at_once: bool) -> Result<(), KubeError> {
        if at_once {
            self.end_nodes().await?;
        }
        let phase = self.offer.status.as_ref().map(|status| status.phase).unwrap_or_default();
        self.tell(ResourceOfferStatus { phase, virtual_kubelet_status: VirtualKubeletStatus::Deleting }).await?;
        if remove {
            self.world.home.cluster.remove(self.offer).await?;
        }
        Ok(())
    }

    /// Tells the virtual kubelet to give pods no time. The offer belongs to the provider, who could write the same there.
    async fn end_nodes(&self) -> Result<(), KubeError> {
        let cluster = &self.world.home.cluster;
        let theirs = format!("{}={},{}={}", label::TYPE, label::VIRTUAL_NODE, label::REMOTE_CLUSTER_ID, self.peer);
        for node in cluster.list::<Node>("", &theirs).await? {
            if !node.annotations().contains_key(annotation::END_AT_ONCE) {
                let metadata = json!({"uid": node.uid(), "annotations": {annotation::END_AT_ONCE: "true"}});
                cluster.merge(&node, json!({"metadata": metadata})).await?;
            }
        }
        Ok(())
    }

    /// The node is gone, the virtual kubelet follows.
    async fn clear(&self, one: Option<&ForeignCluster>) -> Result<Option<Duration>, KubeError> {
        let home = &self.world.home;
        let known = one.and_then(|one| one.spec.cluster_identity.clone());
        let peer = known.unwrap_or_else(|| self.guess());
        self.offers.ensured.forget(self.namespace);
        if !virtual_kubelet::remove(home, self.offer, &peer).await? {
            return Ok(Some(GONE_YET));
        }
        let message = format!("[{}] Deleting virtual-kubelet in namespace {}", self.peer, self.namespace);
        home.cluster.event(self.offer, COMPONENT, "Normal", "VkDeleted", &message).await;
        let phase = self.offer.status.as_ref().map(|status| status.phase).unwrap_or_default();
        let told = self.tell(ResourceOfferStatus { phase, virtual_kubelet_status: VirtualKubeletStatus::None }).await?;
        if self.holds(finalizer::VIRTUAL_KUBELET) {
            home.cluster.release(told.as_ref().unwrap_or(self.offer), finalizer::VIRTUAL_KUBELET).await?;
        }
        Ok(None)
    }

    /// Who the peer was, when its `ForeignCluster` is gone: the tenant namespace is named after it.
    fn guess(&self) -> ClusterIdentity {
        let hash = format!("-{}", naming::short_hash(self.peer));
        let unique = self.namespace.strip_prefix(names::TENANT_NAMESPACE_PREFIX);
        let name = unique.and_then(|unique| unique.strip_suffix(&hash)).map(str::to_owned);
        ClusterIdentity::new(self.peer, name.unwrap_or_else(|| self.offer.name_any()))
    }

    fn holds(&self, finalizer: &str) -> bool {
        self.offer.finalizers().iter().any(|held| held == finalizer)
    }

    /// Writes the status, if it is new; gives the offer as it is then.
    async fn tell(&self, status: ResourceOfferStatus) -> Result<Option<ResourceOffer>, KubeError> {
        if self.offer.status.as_ref() == Some(&status) {
            return Ok(None);
        }
        self.world.home.cluster.put_status(self.offer, &status).await
    }
}

/// What a virtual kubelet is made from, besides flags: a change of it changes the Deployment.
fn made_from(offer: &ResourceOffer, one: &ForeignCluster) -> String {
    let identity = one.spec.cluster_identity.clone().unwrap_or_default();
    format!("{:?} {:?} {:?} {:?}", offer.uid(), offer.name_any(), identity, offer.spec.storage_classes)
}
