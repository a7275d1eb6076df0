//! Whether this cluster makes, and changes, the pod of a shadow: asked again here, whatever the webhook said or did
//! not say.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use liqo_api::{
    meta::label,
    sharing::ResourceOffer,
    virtualkubelet::{ShadowPod, ShadowPodPhase},
};
use liqo_core::{resources::Resources, standing::Grant};
use serde_json::Value;

use super::super::{
    allowance::{self, Place, Used, made_from, place_of},
    guest::{self, GuestArgs},
    provider_of,
};
use crate::manager::ManagerArgs;

/// What decides about pods of peers.
pub(crate) struct Rules {
    /// What they may ask for.
    pub guests: GuestArgs,
    /// Whether the pods of a peer are limited to the offer to the peer.
    enforced: bool,
}

/// The memory of one `ShadowPod`, kept until neither the `ShadowPod` nor its pod exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// UID of the `ShadowPod`: a new `ShadowPod` of the same name has another UID.
    pub uid: String,
    /// ID of the peer.
    pub peer: String,
    /// The generation whose changes were brought to the pod.
    pub followed: i64,
    /// What the user was last told.
    pub told: String,
    /// The demand that was found within the offer to the peer.
    pub booked: Option<Resources>,
    /// The creation of the pod was asked for, and the watch has not shown the pod since.
    pub awaits_pod: bool,
}

/// What is remembered of all `ShadowPod`s.
pub(super) type Memories = HashMap<Place, Memory>;

/// What is remembered of a `ShadowPod`.
pub(super) fn recall<'a>(memories: &'a mut Memories, shadow: &ShadowPod) -> &'a mut Memory {
    let uid = shadow.uid().unwrap_or_default();
    let memory = memories.entry(place_of(shadow)).or_default();
    if memory.uid != uid {
        *memory = Memory { uid, peer: guest::origin(&shadow.metadata).to_owned(), ..Memory::default() };
    }
    memory
}

/// What exists of a peer.
pub(super) struct Existing {
    /// `ShadowPod`s that count.
    pub shadows: Vec<Arc<ShadowPod>>,
    /// Pods that count.
    pub pods: Vec<Arc<Pod>>,
}

impl Existing {
    /// What the peer uses besides `shadow`: its pods, also those whose `ShadowPod` is gone and those that the watch has not
    /// shown yet; and `ShadowPod`s without a pod whose pod may be made without a new booking.
    fn used_beside(&self, shadow: &ShadowPod, memories: &Memories) -> Resources {
        let owners: HashSet<_> = self.pods.iter().filter_map(|pod| made_from(pod)).collect();
        let booked = |one: &ShadowPod| {
            let memory = memories.get(&place_of(one)).filter(|memory| Some(&memory.uid) == one.metadata.uid.as_ref());
            memory.and_then(|memory| memory.booked.as_ref())
        };
        let is_made = |one: &ShadowPod| {
            let has_pod = one.metadata.uid.as_deref().is_some_and(|uid| owners.contains(uid));
            one.uid() != shadow.uid() && (has_pod || ran(one) || booked(one).is_some())
        };
        let made: Vec<_> = self.shadows.iter().filter(|one| is_made(one)).map(AsRef::as_ref).collect();
        let mut used = Used::of(&made, &self.pods);
        for one in made {
            booked(one).into_iter().for_each(|booked| used.raise(place_of(one), booked));
        }
        let peer = guest::origin(&shadow.metadata);
        for (place, memory) in memories.iter().filter(|(_, memory)| memory.awaits_pod && memory.peer == peer) {
            memory.booked.iter().for_each(|booked| used.raise(place.clone(), booked));
        }
        used.beside(&place_of(shadow))
    }
}

impl Rules {
    /// As the flags say.
    pub(crate) fn new(args: &ManagerArgs) -> Self {
        Self { guests: args.guests.clone(), enforced: args.enable_resource_enforcement }
    }

    /// Why the pod of a shadow in that namespace is neither made nor changed. `settings`: those of the door, see
    /// [`guest::violations`].
    pub(super) fn refusal(
        &self,
        shadow: &ShadowPod,
        namespace: Option<&Namespace>,
        settings: Option<&Value>,
    ) -> Option<String> {
        let origin = guest::origin(&shadow.metadata);
        let owner = namespace.map(provider_of).unwrap_or_default();
        if origin.is_empty() || origin != owner {
            return Some(format!(
                "this cluster does not run the pod: its label {} names the cluster {origin:?}, the namespace was made \
                 for {owner:?}",
                label::REFLECTION_ORIGIN
            ));
        }
        let pod = shadow.spec.pod.clone().unwrap_or_default();
        let all = guest::violations(&self.guests, settings, &shadow.metadata, &pod);
        (!all.is_empty()).then(|| guest::text(&all))
    }

    /// Notes the pod of a `ShadowPod`. After a restart the pod is the record of what was booked: a specification that has
    /// changed since is booked for no more than the pod has.
    pub(super) fn note(&self, shadow: &ShadowPod, pod: &Pod, memories: &mut Memories) {
        let memory = recall(memories, shadow);
        memory.awaits_pod = false;
        if self.enforced && memory.booked.is_none() && made_from(pod) == shadow.metadata.uid.as_deref() {
            let (asked, has) =
                (allowance::demand_of(shadow), pod.spec.as_ref().map(allowance::demand).unwrap_or_default());
            memory.booked = Some(if is_as_made(shadow) || allowance::covers(&has, &asked) { asked } else { has });
        }
    }

    /// Books the demand of a `ShadowPod` whose pod is to be made, beside what exists of its peer. New pods are made while
    /// the peer is granted more, those that ran once while it is granted anything.
    ///
    /// # Errors
    /// A text that says why the demand does not fit into the offer.
    pub(super) fn book(
        &self,
        shadow: &ShadowPod,
        existing: impl FnOnce() -> Existing,
        memories: &mut Memories,
        (grant, offer): (Grant, Option<Arc<ResourceOffer>>),
    ) -> Result<(), String> {
        let origin = guest::origin(&shadow.metadata);
        if !(grant.may_grow() || grant.is_in_force() && ran(shadow)) {
            return Err(format!(
                "this cluster does not run the pod: the cluster {origin:?} is granted no more pods now"
            ));
        }
        let demand = allowance::demand_of(shadow);
        let booked = recall(memories, shadow).booked.as_ref();
        if !self.enforced || booked.is_some_and(|booked| allowance::covers(booked, &demand)) {
            return Ok(());
        }
        // What ran once was within the offer. That the offer is smaller now does not end it.
        if !(ran(shadow) && is_as_made(shadow)) {
            let offer = offer.ok_or_else(|| format!("nothing is offered to the cluster {origin}"))?;
            let used = existing().used_beside(shadow, memories);
            allowance::judge(&allowance::given(&offer), &used, &shadow.spec.pod.clone().unwrap_or_default())?;
        }
        recall(memories, shadow).booked = Some(demand);
        Ok(())
    }
}

/// Whether its pod has run. Such a pod is made again without being judged, so its `ShadowPod` counts until its work is done.
fn ran(shadow: &ShadowPod) -> bool {
    shadow.status.as_ref().is_some_and(|status| status.phase != ShadowPodPhase::Pending)
}

/// Whether the specification is the one with which the `ShadowPod` was created. Admission lets no change of a demand pass;
/// where the webhook is away, only this counts.
fn is_as_made(shadow: &ShadowPod) -> bool {
    shadow.metadata.generation.unwrap_or_default() <= 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Rules {
        Rules { guests: GuestArgs::default(), enforced: false }
    }

    fn shadow(uid: &str, origin: &str, pod: Value) -> ShadowPod {
        let labels = json!({"virtualkubelet.liqo.io/origin": origin});
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "demo-x", "uid": uid, "labels": labels}, "spec": {"pod": pod},
        }))
        .unwrap()
    }

    fn namespace(peer: &str) -> Namespace {
        serde_json::from_value(json!({"metadata": {"name": "x", "labels": {"liqo.io/remote-cluster-id": peer}}}))
            .unwrap()
    }

    #[test]
    fn what_the_webhook_would_refuse_is_refused_without_it() {
        let fine = json!({"containers": [{"name": "c"}]});
        let refusal = |origin, pod: &Value, space: Option<&str>| {
            rules().refusal(&shadow("u", origin, pod.clone()), space.map(namespace).as_ref(), None)
        };
        assert_eq!(refusal("peer", &fine, Some("peer")), None);
        for (origin, space) in
            [("peer", Some("other")), ("peer", None), ("", Some("")), ("", None), ("other", Some("peer"))]
        {
            assert!(refusal(origin, &fine, space).unwrap().contains("was made"), "{origin} {space:?}");
        }
        let host = json!({"containers": [{"name": "c"}], "hostPID": true});
        assert!(refusal("peer", &host, Some("peer")).unwrap().contains("hostPID"));
        let share = json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "nfs": {"server": "10.0.0.1"}}]});
        assert!(refusal("peer", &share, Some("peer")).unwrap().contains("nfs"));
    }

    #[test]
    fn another_shadow_of_the_same_name_is_not_remembered_for_the_first() {
        let mut memories = Memories::default();
        let pod = json!({"containers": []});
        recall(&mut memories, &shadow("first", "p", pod.clone())).booked = Some(Resources::new());
        assert!(recall(&mut memories, &shadow("first", "p", pod.clone())).booked.is_some());
        assert!(recall(&mut memories, &shadow("second", "p", pod)).booked.is_none());
    }

    /// A `ShadowPod` of 1 Gi of memory; `phase` is empty while there is no status.
    fn asking(name: &str, uid: &str, cpu: &str, (phase, generation): (&str, i64)) -> ShadowPod {
        let limits = json!({"limits": {"cpu": cpu, "memory": "1Gi"}});
        let mut one = shadow(uid, "peer", json!({"containers": [{"name": "c", "resources": limits}]}));
        one.metadata.name = Some(name.to_owned());
        one.metadata.generation = Some(generation);
        one.status = (!phase.is_empty()).then(|| serde_json::from_value(json!({ "phase": phase })).unwrap());
        one
    }

    /// The pod of a `ShadowPod`, while it ends slowly.
    fn ending(shadow: &ShadowPod) -> Arc<Pod> {
        let mut pod = super::super::forge(shadow);
        pod.metadata.deletion_timestamp = Some(liqo_kube::now());
        Arc::new(pod)
    }

    fn offer() -> ResourceOffer {
        let hard = json!({"cpu": "2", "memory": "10Gi"});
        serde_json::from_value(
            json!({"metadata": {"name": "o"}, "spec": {"clusterId": "us", "resourceQuota": {"hard": hard}}}),
        )
        .unwrap()
    }

    fn book(one: &ShadowPod, shadows: &[&ShadowPod], pods: &[Arc<Pod>], memories: &mut Memories) -> Result<(), String> {
        let rules = Rules { enforced: true, ..rules() };
        let shadows = shadows.iter().map(|one| Arc::new((*one).clone())).collect();
        let existing = || Existing { shadows, pods: pods.to_vec() };
        rules.book(one, existing, memories, (Grant::Full, Some(Arc::new(offer()))))
    }

    const NEW: (&str, i64) = ("", 1);
    const RAN: (&str, i64) = ("Running", 1);
    const CHANGED: (&str, i64) = ("Running", 2);

    #[test]
    fn what_a_peer_has_leaves_no_room_until_it_is_gone() {
        let (a, b) = (|state| asking("a", "1", "2", state), asking("b", "2", "1", NEW));
        let awaited = |awaits_pod| Memory {
            uid: "1".to_owned(),
            peer: "peer".to_owned(),
            booked: Some(allowance::demand_of(&a(NEW))),
            awaits_pod,
            ..Memory::default()
        };
        let at = |memory: Option<Memory>| memory.map(|memory| (place_of(&a(NEW)), memory)).into_iter().collect();
        for (what, shadows, pods, memory, fits) in [
            ("nothing", vec![], vec![], None, true),
            ("a ShadowPod whose pod is not made yet", vec![a(NEW)], vec![], None, true),
            ("a ShadowPod that is booked", vec![a(NEW)], vec![], Some(awaited(false)), false),
            ("a ShadowPod and its pod", vec![a(NEW)], vec![ending(&a(NEW))], None, false),
            ("the pod of a deleted ShadowPod, in its grace period", vec![], vec![ending(&a(NEW))], None, false),
            ("the same, not shown by the watch yet", vec![], vec![], Some(awaited(true)), false),
            ("the memory of what is gone", vec![], vec![], Some(awaited(false)), true),
            ("a ShadowPod whose pod ran and was ended by the grace annotation", vec![a(RAN)], vec![], None, false),
        ] {
            let shadows: Vec<_> = shadows.iter().chain([&b]).collect();
            assert_eq!(book(&b, &shadows, &pods, &mut at(memory)).is_ok(), fits, "{what}");
        }
    }

    #[test]
    fn a_pod_is_made_again_without_being_judged_as_it_was_booked() {
        let other = asking("b", "2", "2", RAN);
        let (ran, changed) = (asking("a", "1", "2", RAN), |cpu| asking("a", "1", cpu, CHANGED));
        let again = |one: &ShadowPod, memories: &mut Memories| book(one, &[one, &other], &[], memories).is_ok();
        assert!(again(&ran, &mut Memories::default()), "the offer is smaller now");
        assert!(!again(&asking("a", "1", "2", NEW), &mut Memories::default()));
        assert!(!again(&changed("2"), &mut Memories::default()), "nobody knows what was booked");
        let mut memories = Memories::default();
        Rules { enforced: true, ..rules() }.note(&changed("3"), &ending(&ran), &mut memories);
        assert!(again(&changed("2"), &mut memories), "the pod told what was booked");
        assert!(!again(&changed("3"), &mut memories), "more than was booked");
    }

    #[test]
    fn the_successor_of_a_pod_takes_its_place() {
        let (old, new) = (asking("a", "1", "2", RAN), asking("a", "2", "2", NEW));
        let mut memories = Memories::default();
        assert_eq!(book(&new, &[&new], &[ending(&old)], &mut memories), Ok(()));
        let b = asking("b", "3", "1", NEW);
        assert!(book(&b, &[&new, &b], &[ending(&old)], &mut memories).is_err(), "one place counts once, and counts");
        let small = asking("a", "4", "1", NEW);
        assert!(book(&b, &[&small, &b], &[ending(&old)], &mut Memories::default()).is_err(), "the old pod still runs");
        assert_eq!(book(&b, &[&small, &b], &[], &mut Memories::default()), Ok(()));
    }
}
