//! Whether this cluster makes, and changes, the pod of a shadow: asked again here, whatever the webhook said or did
//! not say.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{meta::label, virtualkubelet::ShadowPod};
use serde_json::Value;

use super::super::{
    allowance::{Place, place_of},
    guest::{self, GuestArgs},
    provider_of,
};
use crate::manager::ManagerArgs;

/// What decides about pods of peers.
pub(crate) struct Rules {
    /// What they may ask for.
    pub guests: GuestArgs,
}

/// The memory of one `ShadowPod`, kept until neither the `ShadowPod` nor its pod exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// UID of the `ShadowPod`: a new `ShadowPod` of the same name has another UID.
    pub uid: String,
    /// The generation whose changes were brought to the pod.
    pub followed: i64,
    /// What the user was last told.
    pub told: String,
}

/// What is remembered of all `ShadowPod`s.
pub(super) type Memories = HashMap<Place, Memory>;

/// What is remembered of a `ShadowPod`.
pub(super) fn recall<'a>(memories: &'a mut Memories, shadow: &ShadowPod) -> &'a mut Memory {
    let uid = shadow.uid().unwrap_or_default();
    let memory = memories.entry(place_of(shadow)).or_default();
    if memory.uid != uid {
        *memory = Memory { uid, ..Memory::default() };
    }
    memory
}

impl Rules {
    /// As the flags say.
    pub(crate) fn new(args: &ManagerArgs) -> Self {
        Self { guests: args.guests.clone() }
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
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Rules {
        Rules { guests: GuestArgs::default() }
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
        recall(&mut memories, &shadow("first", "p", pod.clone())).followed = 7;
        assert_eq!(recall(&mut memories, &shadow("first", "p", pod.clone())).followed, 7);
        assert_eq!(recall(&mut memories, &shadow("second", "p", pod)).followed, 0);
    }
}
