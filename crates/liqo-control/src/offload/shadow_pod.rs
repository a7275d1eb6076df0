//! `ShadowPod`s: the pods a peer wants run here.
//!
//! Keeps true: while a `ShadowPod` exists and its pod has not ended, the pod exists, whatever happens to the peer,
//! the node or the pod; a pod that has ended is not created again, whatever its restart policy; no other pod is touched.
//! A pod costs one request at its creation and one for each phase. A pod
//! that the guest profile refuses is neither created nor changed, whether or not the webhook was asked. A deleted
//! `ShadowPod`, or one whose peer has no grant, loses its pod, even while a finalizer holds the `ShadowPod`.
//!
//! Watches   `ShadowPod`s, `Pod`s made from them.
//! Writes    `Pod`s; `ShadowPod.status` and the annotation `liqo.io/refusal`; in `Pod.status` the readiness gates of the original.
//! Removes   pods of deleted `ShadowPod`s, of earlier `ShadowPod`s of the same name, and of peers without a grant.

mod plan;
mod pods;
mod rules;
mod wishes;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::ResourceExt;
use liqo_api::{
    meta::{annotation, label},
    virtualkubelet::{ShadowPod, ShadowPodPhase, ShadowPodStatus},
};
use liqo_kube::{Cluster, KubeError, Store, drive, now, refusals, said};
use serde_json::json;

use self::{
    plan::{Kinship, Step, forge, kinship, plan},
    rules::{Memories, recall},
    wishes::{Removal, grace, removal},
};
pub(crate) use self::{
    pods::{Pods, trim},
    rules::Rules,
};
use super::{
    Shared,
    allowance::{self, Bookings, Existing, Place, place_of},
    brief, drift, guest,
};

/// Field manager of the pods.
const WRITER: &str = "shadow-pod";
/// How soon to look again for a name somebody else has.
const LATER: Duration = Duration::from_secs(30);
/// How soon to look again for what is about to change.
const SOON: Duration = Duration::from_secs(1);

struct Loop {
    shared: Arc<Shared>,
    cluster: Cluster,
    shadows: Store<ShadowPod>,
    pods: Store<Pod>,
    rules: Rules,
    bookings: Bookings,
    memories: Mutex<Memories>,
}

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, (rules, bookings): (Rules, Bookings), pods: Pods, workers: usize) {
    let cluster = shared.home.cluster.writing_as(WRITER);
    let queue = pods.queue.clone();
    let seen = queue.clone();
    let shadows = shared.memory.shadow_pods.listen(move |shadow| {
        seen.push((shadow.namespace().unwrap_or_default(), shadow.name_any()));
    });
    shared.ready().await;
    shadows.ready().await;
    pods.store.ready().await;
    let all = Loop { shared, cluster, shadows, pods: pods.store, rules, bookings, memories: Mutex::default() };
    drive("shadow-pod", queue, workers, |key| all.settle(key)).await;
}

impl Loop {
    async fn settle(&self, (namespace, name): Place) -> Result<Option<Duration>, KubeError> {
        let place = (namespace.clone(), name.clone());
        let pod = self.pods.get(&namespace, &name);
        if pod.is_none() && self.is_unseen(&place).await? {
            return Ok(Some(SOON));
        }
        let shadow = match self.shadows.get(&namespace, &name) {
            Some(known) => match brief::whole(&self.cluster, known).await? {
                Some(shadow) => Some(shadow),
                // The watch is about to show that the ShadowPod is gone.
                None => return Ok(Some(SOON)),
            },
            None => None,
        };
        let Some(shadow) = shadow else {
            if let Some(pod) = pod {
                return self.sweep(&pod).await;
            }
            self.memories().remove(&place);
            self.bookings.end(&place);
            return Ok(None);
        };
        pod.iter().for_each(|pod| self.bookings.note(&shadow, pod));
        let has_grant = self.has_grant(&shadow.metadata);
        if !has_grant || super::is_leaving(&*shadow) || grace(&shadow).is_some() {
            return self.end(&shadow, pod.as_deref(), has_grant).await;
        }
        let space = self.shared.memory.namespaces.get("", &namespace);
        let refusal = self.rules.refusal(&shadow, space.as_deref(), self.shared.door.settings().as_ref());
        let (step, phase) = plan(&shadow, pod.as_deref(), self.is_followed(&shadow), &now());
        let (again, phase) = match (step, pod) {
            // Nothing can be made there any more; the shadow goes, too.
            (Step::Create, _) if space.is_some_and(|one| super::is_leaving(&*one)) => (None, None),
            (Step::Create, _) => match refusal.map_or_else(|| self.book(&shadow), Err) {
                Ok(()) => self.create(&shadow).await?,
                Err(why) => {
                    self.refuse(&shadow, "Refused", why).await?;
                    (Some(LATER), Some(ShadowPodPhase::Pending))
                }
            },
            // A running pod stays as it was admitted.
            (Step::Follow(_), _) if refusal.is_some() => {
                self.tell(&shadow, "Refused", refusal.unwrap_or_default()).await;
                (None, phase)
            }
            (Step::Follow(patch), Some(pod)) => {
                self.follow(&shadow, &pod, patch).await?;
                (None, phase)
            }
            (Step::Remove, Some(pod)) => {
                tracing::info!(pod = name, namespace, "pod of an earlier shadow goes");
                self.cluster.remove(&*pod).await?;
                (None, phase)
            }
            (Step::Wait(pause), _) => (Some(pause), phase),
            (Step::Taken, _) => {
                self.refuse(&shadow, "AlreadyExists", taken(&name)).await?;
                (Some(LATER), Some(ShadowPodPhase::Pending))
            }
            (_, Some(pod)) if kinship(&shadow, &pod) == Kinship::Own => {
                self.answer(&shadow, None).await?;
                (None, phase)
            }
            _ => (None, phase),
        };
        self.report(&shadow, phase).await?;
        Ok(again)
    }

    /// Ends the pod of a `ShadowPod` that was deleted or is about to be, even while a finalizer holds the `ShadowPod`, or whose
    /// peer has no grant.
    async fn end(&self, shadow: &ShadowPod, pod: Option<&Pod>, has_grant: bool) -> Result<Option<Duration>, KubeError> {
        if let Some(pod) = pod.filter(|pod| kinship(shadow, pod) == Kinship::Own) {
            self.remove(pod, removal(Some(shadow), pod, has_grant)).await?;
        }
        if super::is_leaving(shadow) || grace(shadow).is_some() {
            return Ok(None);
        }
        let peer = guest::origin(&shadow.metadata);
        let why = format!("this cluster does not run the pod: the cluster {peer:?} is granted nothing");
        self.refuse(shadow, "Refused", why).await?;
        self.report(shadow, Some(ShadowPodPhase::Pending)).await?;
        Ok(Some(LATER))
    }

    fn has_grant(&self, of: &ObjectMeta) -> bool {
        self.shared.ledger.grants(guest::origin(of)).consumer.is_in_force()
    }

    /// Ends a pod of ours, in a namespace of its peer, whose `ShadowPod` is gone. Garbage collection does so, too, unless the
    /// request that deleted the `ShadowPod` asked for orphans.
    async fn sweep(&self, pod: &Pod) -> Result<Option<Duration>, KubeError> {
        let space = self.shared.memory.namespaces.get("", &pod.namespace().unwrap_or_default());
        let peer = space.as_ref().and_then(|space| space.labels().get(label::REMOTE_CLUSTER_ID));
        if peer.is_none_or(|peer| peer != guest::origin(&pod.metadata)) {
            return Ok(None);
        }
        let Some(removal) = removal(None, pod, self.has_grant(&pod.metadata)) else { return Ok(None) };
        // A watch leaves out what it cannot read, and a running pod is not removed for that.
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        if self.cluster.get::<ShadowPod>(&namespace, &name).await?.is_some() {
            return Ok(Some(SOON));
        }
        self.remove(pod, Some(removal)).await.map(|()| None)
    }

    async fn remove(&self, pod: &Pod, removal: Option<Removal>) -> Result<(), KubeError> {
        match removal {
            Some(Removal::Plain) => self.cluster.remove(pod).await,
            Some(Removal::Within(seconds)) => self.cluster.remove_in(pod, seconds).await,
            None => Ok(()),
        }
    }

    /// Books the demand of the pod.
    fn book(&self, shadow: &ShadowPod) -> Result<(), String> {
        let (ledger, peer) = (&self.shared.ledger, guest::origin(&shadow.metadata));
        let offer = ledger.tenant(peer).and_then(|tenant| ledger.our_offer(&tenant, peer));
        let grant = ledger.grants(peer).consumer;
        if ledger.policy.evicts_in(grant, now().0.as_second()) == Some(Duration::ZERO) {
            return Err(format!(
                "this cluster takes back what the cluster {peer:?} has here: an evicted pod is not made again"
            ));
        }
        let existing = || Existing {
            shadows: self.shadows.filter(|one| allowance::counts(one, peer)),
            pods: self.pods.filter(|one| allowance::runs(one, peer)),
        };
        self.bookings.book(shadow, existing, (grant, offer))
    }

    /// Whether a pod of this name exists that was made here and that the watch has not shown yet. Until the watch shows the pod,
    /// what was booked for the pod counts.
    async fn is_unseen(&self, place: &Place) -> Result<bool, KubeError> {
        if !self.bookings.is_awaited(place) {
            return Ok(false);
        }
        let (namespace, name) = place;
        let is_ours =
            |pod: &Pod| pod.labels().get(label::MANAGED_BY).is_some_and(|by| by == label::MANAGED_BY_SHADOW_POD);
        let exists = self.cluster.get::<Pod>(namespace, name).await?.as_ref().is_some_and(is_ours);
        if !exists {
            self.bookings.no_pod(place);
        }
        Ok(exists)
    }

    /// Makes the pod. Its phase becomes known when the watch shows it.
    async fn create(&self, shadow: &ShadowPod) -> Result<(Option<Duration>, Option<ShadowPodPhase>), KubeError> {
        let pending = Some(ShadowPodPhase::Pending);
        let mut pod = forge(shadow);
        guest::adapt(&self.rules.guests, pod.spec.get_or_insert_default());
        // Also when the answer is lost, the pod may have been made.
        self.bookings.await_pod(shadow, true);
        match self.cluster.create(&pod).await {
            Ok(made) if lacks_limits(&pod, &made) => {
                self.cluster.remove_now(&made).await?;
                let why = "this cluster knows no resources of whole pods (spec.resources): set them for each container";
                self.refuse(shadow, "FailedCreate", why.to_owned()).await?;
                self.report(shadow, pending).await?;
                Ok((Some(LATER), None))
            }
            Ok(_) => {
                recall(&mut self.memories(), shadow).told.clear();
                self.mark_followed(shadow);
                Ok((None, None))
            }
            Err(error) if error.is_conflict() => self.meet(shadow).await,
            Err(error) => {
                self.bookings.await_pod(shadow, error.code().is_none());
                if matches!(error.code(), Some(400 | 403 | 422)) {
                    self.refuse(shadow, "FailedCreate", reason(&error)).await?;
                    self.report(shadow, pending).await?;
                }
                Err(error)
            }
        }
    }

    /// A pod of that name is there, though the watch has not shown one of ours.
    async fn meet(&self, shadow: &ShadowPod) -> Result<(Option<Duration>, Option<ShadowPodPhase>), KubeError> {
        let (namespace, name) = (shadow.namespace().unwrap_or_default(), shadow.name_any());
        let Some(pod) = self.cluster.get::<Pod>(&namespace, &name).await? else { return Ok((Some(SOON), None)) };
        self.bookings.await_pod(shadow, kinship(shadow, &pod) == Kinship::Own);
        match kinship(shadow, &pod) {
            Kinship::Own => {
                let managed = forge(shadow);
                if let Some(patch) = drift::metadata(&pod.metadata, managed.labels(), managed.annotations()) {
                    self.cluster.merge(&pod, json!({ "metadata": patch })).await?;
                }
                Ok((None, None))
            }
            Kinship::Older => Ok((Some(SOON), None)),
            Kinship::Foreign => {
                self.refuse(shadow, "AlreadyExists", taken(&name)).await?;
                Ok((Some(LATER), Some(ShadowPodPhase::Pending)))
            }
        }
    }

    /// Brings changes of the shadow to its pod.
    async fn follow(&self, shadow: &ShadowPod, pod: &Pod, patch: plan::Patch) -> Result<(), KubeError> {
        let plan::Patch { merge, images, conditions } = patch;
        if !conditions.is_empty() {
            self.refusable(shadow, self.cluster.set_conditions(pod, &conditions).await).await?;
        }
        if let Some(mut merge) = merge {
            merge["metadata"]["uid"] = json!(pod.uid());
            self.refusable(shadow, self.cluster.merge(pod, merge).await.map(drop)).await?;
        }
        if let Some(images) = images {
            let body = json!({"metadata": {"uid": pod.uid()}, "spec": images});
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let applied = self.cluster.apply_value::<Pod>(&namespace, &name, body).await;
            self.refusable(shadow, applied.map(drop)).await?;
        }
        self.mark_followed(shadow);
        Ok(())
    }

    /// A change Kubernetes does not allow is told, not tried for ever.
    async fn refusable(&self, shadow: &ShadowPod, outcome: Result<(), KubeError>) -> Result<(), KubeError> {
        match outcome {
            Err(error) if matches!(error.code(), Some(400 | 403 | 422)) => {
                self.tell(shadow, "FailedUpdate", reason(&error)).await;
                Ok(())
            }
            // The pod went away meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Writes the phase, if it is news.
    async fn report(&self, shadow: &ShadowPod, phase: Option<ShadowPodPhase>) -> Result<(), KubeError> {
        let Some(phase) = phase.filter(|phase| shadow.status.as_ref().map(|status| status.phase) != Some(*phase))
        else {
            return Ok(());
        };
        self.cluster.put_status(shadow, &ShadowPodStatus { phase }).await.map(drop)
    }

    /// Tells this cluster and the peer why the pod is not made.
    async fn refuse(&self, shadow: &ShadowPod, kind: &'static str, why: String) -> Result<(), KubeError> {
        let told = said::printable(&why);
        self.tell(shadow, kind, why).await;
        self.answer(shadow, Some(&told)).await
    }

    /// Writes on the `ShadowPod` why its pod is not made, for the peer; nothing when the pod is made.
    async fn answer(&self, shadow: &ShadowPod, why: Option<&str>) -> Result<(), KubeError> {
        if shadow.annotations().get(annotation::REFUSAL).map(String::as_str) == why {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": shadow.uid(), "annotations": {annotation::REFUSAL: why}}});
        match self.cluster.merge(shadow, patch).await {
            // The ShadowPod went away meanwhile.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Tells the user what is wrong, once for each new reason.
    async fn tell(&self, shadow: &ShadowPod, kind: &'static str, text: String) {
        let news = std::mem::replace(&mut recall(&mut self.memories(), shadow).told, text.clone()) != text;
        if news {
            refusals::count("shadow-pod", kind);
            tracing::warn!(shadow = ?place_of(shadow), kind, reason = text, "pod of a peer");
            self.cluster.event(shadow, "liqo-controller-manager", "Warning", kind, &text).await;
        }
    }

    fn is_followed(&self, shadow: &ShadowPod) -> bool {
        let generation = shadow.metadata.generation.unwrap_or_default();
        generation <= 1 || recall(&mut self.memories(), shadow).followed == generation
    }

    fn mark_followed(&self, shadow: &ShadowPod) {
        recall(&mut self.memories(), shadow).followed = shadow.metadata.generation.unwrap_or_default();
    }

    fn memories(&self) -> MutexGuard<'_, Memories> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the resources of a whole pod were dropped when it was made, as clusters do that do not know them: what was
/// booked for the pod would not bind it.
fn lacks_limits(wanted: &Pod, made: &Pod) -> bool {
    let resources = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.resources.is_some());
    resources(wanted) && !resources(made)
}

fn taken(name: &str) -> String {
    format!("a pod {name} that does not belong to this ShadowPod already exists: the ShadowPod waits until it is gone")
}

fn reason(error: &KubeError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}
