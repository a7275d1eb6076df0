//! Whether this cluster makes, and changes, the pod of a shadow: asked again here, whatever the webhook said or did
//! not say.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    meta::label,
    sharing::ResourceOffer,
    virtualkubelet::{ShadowPod, ShadowPodPhase},
};
use liqo_core::{
    resources::{self, Resources},
    standing::Grant,
};
use liqo_kube::Store;

use super::{
    super::{
        allowance,
        guest::{self, GuestArgs},
        provider_of,
    },
    Key,
};
use crate::manager::ManagerArgs;

/// What decides about pods of peers.
pub(crate) struct Rules {
    /// What they may ask for.
    pub guests: GuestArgs,
    /// Whether the pods of a peer are limited to the offer to the peer.
    enforced: bool,
}

/// The memory of one `ShadowPod`, kept as long as the `ShadowPod` exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// UID of the `ShadowPod`: a new `ShadowPod` of the same name has another UID.
    pub uid: String,
    /// The generation whose changes were brought to the pod.
    pub followed: i64,
    /// What the user was last told.
    pub told: String,
    /// The demand was found within the offer to the peer.
    pub booked: bool,
}

/// What is remembered of all shadows.
pub(super) type Memories = HashMap<Key, Memory>;

pub(super) fn key_of(shadow: &ShadowPod) -> Key {
    (shadow.namespace().unwrap_or_default(), shadow.name_any())
}

/// What is remembered of a shadow.
pub(super) fn recall<'a>(memories: &'a mut Memories, shadow: &ShadowPod) -> &'a mut Memory {
    let uid = shadow.uid().unwrap_or_default();
    let memory = memories.entry(key_of(shadow)).or_default();
    if memory.uid != uid {
        *memory = Memory { uid, ..Memory::default() };
    }
    memory
}

impl Rules {
    /// As the flags say.
    pub(crate) fn new(args: &ManagerArgs) -> Self {
        Self { guests: args.guests.clone(), enforced: args.enable_resource_enforcement }
    }

    /// Why the pod of a shadow in that namespace is neither made nor changed.
    pub(super) fn refusal(&self, shadow: &ShadowPod, namespace: Option<&Namespace>) -> Option<String> {
        let origin = guest::origin(&shadow.metadata);
        let owner = namespace.map(provider_of).unwrap_or_default();
        if origin.is_empty() || origin != owner {
            return Some(format!(
                "this cluster does not run the pod: its label {} names the cluster {origin:?}, the namespace was made \
                 for {owner:?}",
                label::REFLECTION_ORIGIN
            ));
        }
        let all = guest::violations(&self.guests, &shadow.metadata, &shadow.spec.pod.clone().unwrap_or_default());
        (!all.is_empty()).then(|| guest::text(&all))
    }

    /// Books the demand of a shadow whose pod is to be made, beside those that `has_pod` or were booked. New pods are
    /// made while the peer is granted more, those that ran once while it is granted anything.
    ///
    /// # Errors
    /// A text that says why it does not fit into the offer.
    pub(super) fn book(
        &self,
        shadow: &ShadowPod,
        (shadows, memories): (&Store<ShadowPod>, &mut Memories),
        (grant, offer): (Grant, Option<Arc<ResourceOffer>>),
        has_pod: impl Fn(&Key) -> bool,
    ) -> Result<(), String> {
        let origin = guest::origin(&shadow.metadata);
        if !(grant.may_grow() || grant.is_in_force() && ran(shadow)) {
            return Err(format!(
                "this cluster does not run the pod: the cluster {origin:?} is granted no more pods now"
            ));
        }
        // What ran once was within the offer. That the offer is smaller now does not end it.
        if !self.enforced || recall(memories, shadow).booked || ran(shadow) {
            return Ok(());
        }
        let offer = offer.ok_or_else(|| format!("nothing is offered to the cluster {origin}"))?;
        let made = |other: &ShadowPod| {
            let key = key_of(other);
            let booked = memories.get(&key).is_some_and(|one| one.booked && Some(&one.uid) == other.uid().as_ref());
            other.uid() != shadow.uid() && allowance::counts(other, origin) && (booked || has_pod(&key))
        };
        let mut used = Resources::new();
        for other in shadows.filter(made) {
            resources::add(&mut used, &allowance::demand_of(&other));
        }
        allowance::judge(&allowance::given(&offer), &used, &shadow.spec.pod.clone().unwrap_or_default())?;
        recall(memories, shadow).booked = true;
        Ok(())
    }
}

/// Whether its pod has run.
fn ran(shadow: &ShadowPod) -> bool {
    shadow.status.as_ref().is_some_and(|status| status.phase != ShadowPodPhase::Pending)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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
            rules().refusal(&shadow("u", origin, pod.clone()), space.map(namespace).as_ref())
        };
        assert_eq!(refusal("peer", &fine, Some("peer")), None);
        for (origin, space) in
            [("peer", Some("other")), ("peer", None), ("", Some("")), ("", None), ("other", Some("peer"))]
        {
            assert!(refusal(origin, &fine, space).unwrap().contains("was made"), "{origin} {space:?}");
        }
        let host = json!({"containers": [{"name": "c"}], "hostPID": true});
        assert!(refusal("peer", &host, Some("peer")).unwrap().contains("hostPID"));
    }

    #[test]
    fn another_shadow_of_the_same_name_is_not_remembered_for_the_first() {
        let mut memories = Memories::default();
        let pod = json!({"containers": []});
        recall(&mut memories, &shadow("first", "p", pod.clone())).booked = true;
        assert!(recall(&mut memories, &shadow("first", "p", pod.clone())).booked);
        assert!(!recall(&mut memories, &shadow("second", "p", pod)).booked);
    }
}
