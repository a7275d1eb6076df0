//! The `EndpointSlice` of a `ShadowEndpointSlice`, and the step that leads to it.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{meta::label, virtualkubelet::ShadowEndpointSlice};
use liqo_kube::owner_reference;
use serde_json::{Value, json};

use super::Sight;
use crate::offload::{drift, is_leaving};

/// The next step for a shadow.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Keep,
    Create,
    Merge(Value),
    Remove,
    Taken,
}

/// What to do for `shadow`, whose slice is `slice`. Only differences are written, and only to a slice of this very shadow.
pub(super) fn plan(shadow: &ShadowEndpointSlice, slice: Option<&EndpointSlice>, sight: &Sight) -> Step {
    let Some(slice) = slice else { return Step::Create };
    let owner = slice.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if shadow.uid().as_ref() == Some(&owner.uid) => {}
        // Owned by an earlier shadow of that name: garbage collection removes the slice.
        Some(owner) if owner.kind == "ShadowEndpointSlice" && owner.name == shadow.name_any() => return Step::Keep,
        _ => return Step::Taken,
    }
    if is_leaving(slice) {
        return Step::Keep;
    }
    let wanted = forge(shadow, sight);
    if slice.address_type != wanted.address_type {
        return Step::Remove;
    }
    let mut patch = serde_json::Map::new();
    if let Some(meta) = drift::metadata(&slice.metadata, wanted.labels(), wanted.annotations()) {
        patch.insert("metadata".to_owned(), meta.into());
    }
    if slice.endpoints.as_deref().unwrap_or_default() != wanted.endpoints.as_deref().unwrap_or_default() {
        patch.insert("endpoints".to_owned(), json!(wanted.endpoints.unwrap_or_default()));
    }
    if slice.ports.as_deref().unwrap_or_default() != wanted.ports.as_deref().unwrap_or_default() {
        patch.insert("ports".to_owned(), json!(wanted.ports.unwrap_or_default()));
    }
    if patch.is_empty() {
        return Step::Keep;
    }
    let mut patch = Value::from(patch);
    patch["metadata"]["uid"] = json!(slice.uid());
    Step::Merge(patch)
}

/// The slice of a shadow: without endpoints that are out of bounds, ready only while the peer is reachable.
pub(super) fn forge(shadow: &ShadowEndpointSlice, sight: &Sight) -> EndpointSlice {
    let template = &shadow.spec.template;
    let allowed = template.endpoints.iter().filter(|one| sight.bounds.offence(one).is_none());
    let mut labels = shadow.labels().clone();
    labels.insert(label::MANAGED_BY.to_owned(), label::MANAGED_BY_SHADOW_ENDPOINT_SLICE.to_owned());
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(shadow.name_any()),
            namespace: shadow.namespace(),
            labels: Some(labels),
            annotations: shadow.metadata.annotations.clone(),
            owner_references: Some(vec![owner_reference(shadow, true)]),
            ..ObjectMeta::default()
        },
        address_type: template.address_type.clone(),
        endpoints: Some(allowed.cloned().map(|one| overlay(one, sight.reachable)).collect()),
        ports: Some(template.ports.clone()),
    }
}

/// An endpoint is ready if its cluster does not call it unready and the peer is reachable. An endpoint of an unreachable peer
/// serves no client, not even while it terminates.
fn overlay(mut endpoint: Endpoint, reachable: bool) -> Endpoint {
    let conditions = endpoint.conditions.get_or_insert_default();
    if conditions.ready != Some(false) {
        conditions.ready = Some(reachable);
    }
    if conditions.serving == Some(true) {
        conditions.serving = Some(reachable);
    }
    endpoint
}

#[cfg(test)]
mod tests {
    use liqo_api::virtualkubelet::ShadowEndpointSliceSpec;

    use super::{super::Bounds, *};

    fn shadow(ready: &[Option<bool>]) -> ShadowEndpointSlice {
        let endpoints: Vec<_> =
            ready.iter().map(|ready| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}})).collect();
        let template =
            json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80, "protocol": "TCP"}]});
        let spec: ShadowEndpointSliceSpec = serde_json::from_value(json!({ "template": template })).unwrap();
        let mut shadow = ShadowEndpointSlice::new("web-1", spec);
        shadow.metadata.namespace = Some("demo-x".to_owned());
        shadow.metadata.uid = Some("uid".to_owned());
        shadow.labels_mut().insert(label::REFLECTION_ORIGIN.to_owned(), "id".to_owned());
        shadow
    }

    fn sight(reachable: bool) -> Sight {
        Sight { reachable, bounds: Bounds::Networks(vec!["10.0.0.0/8".parse().unwrap()]) }
    }

    #[test]
    fn endpoints_out_of_bounds_are_left_out() {
        let mut shadow = shadow(&[Some(true), Some(true)]);
        shadow.spec.template.endpoints[1].addresses = vec!["172.30.0.8".to_owned()];
        let made = forge(&shadow, &sight(true)).endpoints.unwrap();
        assert_eq!((made.len(), made[0].addresses[0].as_str()), (1, "10.0.0.1"));
        let none = forge(&shadow, &Sight { reachable: true, bounds: Bounds::NONE });
        assert_eq!(none.endpoints, Some(vec![]));
    }

    #[test]
    fn endpoints_are_ready_while_their_cluster_is_reachable() {
        let ready = |reachable| -> Vec<_> {
            let made = forge(&shadow(&[None, Some(true), Some(false)]), &sight(reachable));
            made.endpoints.unwrap().into_iter().map(|one| one.conditions.unwrap().ready).collect()
        };
        assert_eq!(ready(true), [Some(true), Some(true), Some(false)]);
        assert_eq!(ready(false), [Some(false), Some(false), Some(false)]);
    }

    #[test]
    fn endpoints_on_their_way_out_serve_only_while_their_cluster_is_reachable() {
        let ending = || -> Endpoint {
            let conditions = json!({"ready": false, "serving": true, "terminating": true});
            serde_json::from_value(json!({"addresses": ["10.0.0.1"], "conditions": conditions})).unwrap()
        };
        for reachable in [true, false] {
            let told = json!({"ready": false, "serving": reachable, "terminating": true});
            assert_eq!(json!(overlay(ending(), reachable).conditions), told);
        }
    }

    #[test]
    fn only_differences_are_written_and_only_to_our_own() {
        let shadow = shadow(&[Some(true)]);
        let mut slice = forge(&shadow, &sight(true));
        slice.metadata.uid = Some("slice".to_owned());
        assert_eq!(plan(&shadow, None, &sight(true)), Step::Create);
        assert_eq!(plan(&shadow, Some(&slice), &sight(true)), Step::Keep);
        let Step::Merge(patch) = plan(&shadow, Some(&slice), &sight(false)) else { panic!("the peer is gone") };
        assert_eq!(patch["endpoints"][0]["conditions"]["ready"], json!(false));
        assert_eq!(patch["metadata"], json!({"uid": "slice"}));
        let mut six = slice.clone();
        six.address_type = "IPv6".to_owned();
        assert_eq!(plan(&shadow, Some(&six), &sight(true)), Step::Remove);
        slice.metadata.owner_references = None;
        assert_eq!(plan(&shadow, Some(&slice), &sight(true)), Step::Taken);
    }
}
