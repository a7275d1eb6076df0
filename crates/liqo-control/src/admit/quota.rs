//! Whether one more pod of a peer fits into the offer to that peer.
//!
//! Keeps true: what counts is what exists, so every replica comes to the same answer and nothing has to be
//! booked back: a `ShadowPod` counts until it is gone or its work is done, its pod until the containers have ended. What was
//! admitted a moment ago and was not seen yet is [`reserved`], and delays a pod that would not fit beside, for [`reserved::LASTS`]
//! at most. Two replicas, or an API server that takes longer to store an object, can therefore admit too much; the controller
//! counts again before it makes a pod.
//!
//! A review may be made up: a pod is refused because of objects that exist, never because of earlier reviews alone.

mod reserved;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec};
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, sharing::ResourceOffer, virtualkubelet::ShadowPod};
use liqo_core::door;
use liqo_kube::{Store, turns::Turns};
use tokio::{sync::watch, time::Instant};

use self::reserved::{LASTS, Reserved};
use super::review::User;
use crate::{
    memory::Memory,
    offload::allowance::{self, Fit, Place, Used},
};

/// How long a request waits for the first lists.
const PATIENCE: Duration = Duration::from_secs(5);

/// The objects that count, and the reservations for pods that were let pass a moment ago.
pub(super) struct Quota {
    own: ClusterIdentity,
    shadows: Store<ShadowPod>,
    /// Pods made from `ShadowPod`s.
    pods: Store<Pod>,
    offers: Store<ResourceOffer>,
    namespaces: Store<Namespace>,
    reserved: Arc<Mutex<Reserved>>,
    /// Changes when the watch shows an object with a reservation.
    shown: watch::Receiver<()>,
}

/// A shadow pod that is asked for.
pub(super) struct Asked {
    /// UID of the object that will be created, or of the admission request when the object has no UID yet.
    pub uid: String,
    /// The peer whose pod that is.
    pub origin: String,
    /// The user who asks.
    pub user: User,
    /// Where it would be.
    pub namespace: String,
    /// What it would be called.
    pub name: String,
    /// The pod to be made from it.
    pub pod: PodSpec,
    /// Nothing will be stored.
    pub dry_run: bool,
}

impl Asked {
    /// Where the pod will be. A `ShadowPod` whose name is yet to be generated has a place of its own.
    fn place(&self) -> Place {
        let name = if self.name.is_empty() { &self.uid } else { &self.name };
        (self.namespace.clone(), name.clone())
    }

    /// Whether the peer itself asks, as the API server has authenticated the user.
    fn is_by_origin(&self) -> bool {
        self.user.username == self.origin && self.user.groups.iter().any(|group| group == door::GROUP)
    }
}

/// Why a pod is not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The pod asks for too much, or does not say what it asks for.
    Denied(String),
    /// It is not known yet what the peer may have.
    Unable(String),
}

/// What follows from one look.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Admit,
    Refuse(Refusal),
    /// Look again when an object with a reservation is shown, at this time at the latest.
    Wait(Instant),
}

impl Quota {
    /// A quota that counts the objects in the memory.
    pub(super) fn new(memory: &Memory, own: &ClusterIdentity) -> Self {
        let (reserved, (news, shown)) = (Arc::<Mutex<Reserved>>::default(), watch::channel(()));
        let booked = Arc::clone(&reserved);
        Self {
            own: own.clone(),
            // An object that the watch shows counts by itself; an object that was deleted does not count.
            shadows: memory.shadow_pods.listen(move |shadow| {
                if lock(&booked).seen(shadow.metadata.uid.as_deref().unwrap_or_default()) {
                    news.send_replace(());
                }
            }),
            pods: Store::clone(&memory.pods),
            offers: Store::clone(&memory.offers),
            namespaces: Store::clone(&memory.namespaces),
            reserved,
            shown,
        }
    }

    /// Whether a peer may have one more pod; if so, the peer itself asks and the request is no dry run, the demand of the
    /// pod is reserved.
    ///
    /// # Errors
    /// Why the peer may not.
    pub(super) async fn admit(self: &Arc<Self>, asked: Asked, turns: &Turns, source: IpAddr) -> Result<(), Refusal> {
        let known = async {
            tokio::join!(self.shadows.ready(), self.pods.ready(), self.offers.ready(), self.namespaces.ready())
        };
        if tokio::time::timeout(PATIENCE, known).await.is_err() {
            return Err(Refusal::Unable("initialization in progress".to_owned()));
        }
        let (asked, patience) = (Arc::new(asked), Instant::now() + LASTS);
        let mut shown = self.shown.clone();
        loop {
            shown.mark_unchanged();
            let (quota, one) = (Arc::clone(self), Arc::clone(&asked));
            match turns.run(source, move || quota.look(&one, patience)).await {
                Step::Admit => return Ok(()),
                Step::Refuse(why) => return Err(why),
                // The watch that sends lives as long as the process.
                Step::Wait(until) => drop(tokio::time::timeout_at(until, shown.changed()).await),
            }
        }
    }

    /// Looks once at what exists and is reserved; a request waits for reservations to end until `patience` at the latest.
    fn look(&self, asked: &Asked, patience: Instant) -> Step {
        let origin = &asked.origin;
        let to_origin = |offer: &ResourceOffer| {
            let tenant = self.namespaces.get("", &offer.namespace().unwrap_or_default());
            allowance::is_ours(offer, &self.own, origin, tenant.as_deref())
        };
        let Some(offer) = self.offers.filter(to_origin).into_iter().next() else {
            let why = format!("error getting resource offer by label: there is none for the cluster {origin}");
            return Step::Refuse(Refusal::Unable(why));
        };
        // Locked before the objects are counted: an object that is shown meanwhile counts once, or twice, but not never.
        let mut reserved = lock(&self.reserved);
        let now = Instant::now();
        let used = self.used(origin).beside(&asked.place());
        let others = reserved.others(origin, &asked.uid, now);
        let fit = allowance::fit(&allowance::given(&offer), used, &others.demand, &asked.pod);
        let step = step(fit, others.ends.map(|ends| ends.min(patience)).filter(|until| *until > now));
        // The API server will not store an object whose name is taken, so the object books nothing.
        let is_new = || self.shadows.get(&asked.namespace, &asked.name).is_none();
        if step == Step::Admit && asked.is_by_origin() && !asked.dry_run && is_new() {
            reserved.make(origin, &asked.uid, allowance::demand(&asked.pod), now);
        }
        step
    }

    /// What exists of a peer.
    fn used(&self, peer: &str) -> Used {
        let shadows = self.shadows.filter(|one| allowance::counts(one, peer));
        Used::of(&shadows, &self.pods.filter(|one| allowance::runs(one, peer)))
    }
}

/// What follows for a pod: a pod that does not fit beside reservations waits `until` the first of them ends, unless the pod
/// has waited long enough.
fn step(fit: Fit, until: Option<Instant>) -> Step {
    match (fit, until) {
        (Fit::Never(why), _) => Step::Refuse(Refusal::Denied(why)),
        (Fit::NotBesideClaims, Some(until)) => Step::Wait(until),
        (Fit::Fits | Fit::NotBesideClaims, _) => Step::Admit,
    }
}

fn lock(reserved: &Mutex<Reserved>) -> MutexGuard<'_, Reserved> {
    reserved.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_existing_objects_refuse_a_pod() {
        let ends = Instant::now();
        let never = || Fit::Never("full".to_owned());
        for (fit, ends, wanted) in [
            (Fit::Fits, None, Step::Admit),
            (Fit::Fits, Some(ends), Step::Admit),
            (Fit::NotBesideClaims, Some(ends), Step::Wait(ends)),
            (Fit::NotBesideClaims, None, Step::Admit),
            (never(), None, Step::Refuse(Refusal::Denied("full".to_owned()))),
            (never(), Some(ends), Step::Refuse(Refusal::Denied("full".to_owned()))),
        ] {
            assert_eq!(step(fit.clone(), ends), wanted, "{fit:?} {ends:?}");
        }
    }

    #[test]
    fn only_the_peer_itself_reserves() {
        let by = |username: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let user = User { username: username.to_owned(), groups };
            let text = String::new;
            let (origin, pod) = ("milan".to_owned(), PodSpec::default());
            Asked { uid: text(), origin, user, namespace: text(), name: text(), pod, dry_run: false }.is_by_origin()
        };
        assert!(by("milan", &["system:authenticated", "liqo.io"]));
        assert!(
            !by("turin", &["liqo.io"]) && !by("milan", &["system:authenticated"]) && !by("admin", &["system:masters"])
        );
    }
}
