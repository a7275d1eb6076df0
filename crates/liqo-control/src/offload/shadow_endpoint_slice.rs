//! `ShadowEndpointSlice`s: endpoints in a peer's cluster, ready only while that cluster can be reached.
//!
//! Keeps true: clients here stop using endpoints of a peer as soon as the tunnel or its API server is
//! down; slices of others are never touched.
//!
//! Watches   `ShadowEndpointSlice`s, `EndpointSlice`s made from them, `ForeignCluster`s.
//! Writes    `EndpointSlice`s.
//! Removes   those whose address type has changed, which cannot be changed in place.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringConditionType},
    meta::label,
    virtualkubelet::ShadowEndpointSlice,
};
use liqo_kube::{Cluster, KubeError, Queue, Store, drive, owner_reference};
use serde_json::{Value, json};

use super::{Shared, answers, condition, drift, is_leaving};

/// Under this name slices are written.
const WRITER: &str = "shadow-endpointslice-controller";
/// How soon to look again for a name somebody else has.
const LATER: Duration = Duration::from_secs(30);

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A slice, by namespace and name.
    Slice(String, String),
    /// A peer, by ID.
    Peer(String),
}

struct Loop {
    shared: Arc<Shared>,
    cluster: Cluster,
    shadows: Store<ShadowEndpointSlice>,
    slices: Store<EndpointSlice>,
    queue: Queue<Key>,
    /// Whether a peer could be reached when it was last looked at.
    reached: Mutex<HashMap<String, bool>>,
    /// Shadows (by UID) whose user knows that the name is taken.
    told: Mutex<HashMap<String, ()>>,
}

/// What to do for a shadow.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Keep,
    Create,
    Merge(Value),
    Remove,
    Taken,
}

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, queue: Queue<Key>, workers: usize) {
    let cluster = shared.home.cluster.writing_as(WRITER);
    let seen = queue.clone();
    let shadows = cluster.watch::<ShadowEndpointSlice>("").start(move |shadow| {
        seen.push(Key::Slice(shadow.namespace().unwrap_or_default(), shadow.name_any()));
    });
    let seen = queue.clone();
    let selector = format!("{}={}", label::MANAGED_BY, label::MANAGED_BY_SHADOW_ENDPOINT_SLICE);
    let trim = |slice: &mut EndpointSlice| drift::keep_fields_of(&mut slice.metadata, WRITER);
    let slices = cluster.watch::<EndpointSlice>("").labels(&selector).trim(trim).start(move |slice| {
        seen.push(Key::Slice(slice.namespace().unwrap_or_default(), slice.name_any()));
    });
    shared.ready().await;
    shadows.ready().await;
    slices.ready().await;
    let (reached, told) = (Mutex::default(), Mutex::default());
    let all = Loop { shared, cluster, shadows, slices, queue: queue.clone(), reached, told };
    drive("shadow-endpoint-slice", queue, workers, |key| all.settle(key)).await;
}

impl Loop {
    async fn settle(&self, key: Key) -> Result<Option<Duration>, KubeError> {
        match key {
            Key::Slice(namespace, name) => self.settle_slice(&namespace, &name).await,
            Key::Peer(id) => {
                let reachable = is_reachable(self.shared.peer(&id).as_deref());
                let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
                if reached.insert(id.clone(), reachable) != Some(reachable) {
                    for shadow in self.shadows.filter(|shadow| origin(shadow) == id) {
                        self.queue.push(Key::Slice(shadow.namespace().unwrap_or_default(), shadow.name_any()));
                    }
                }
                Ok(None)
            }
        }
    }

    async fn settle_slice(&self, namespace: &str, name: &str) -> Result<Option<Duration>, KubeError> {
        // The slice of a shadow that is gone, or going, goes with it: it is its dependent.
        let Some(shadow) = self.shadows.get(namespace, name).filter(|shadow| !is_leaving(&**shadow)) else {
            return Ok(None);
        };
        let slice = self.slices.get(namespace, name);
        let reachable = is_reachable(self.shared.peer(origin(&shadow)).as_deref());
        let ending = self.shared.namespaces.get("", namespace).is_some_and(|one| is_leaving(&*one));
        match (plan(&shadow, slice.as_deref(), reachable), slice) {
            // Nothing can be made there any more; the shadow goes, too.
            (Step::Create, _) if ending => Ok(None),
            (Step::Create, _) => self.create(&shadow, reachable).await,
            (Step::Merge(patch), Some(slice)) => self.cluster.merge(&*slice, patch).await.map(|_| None),
            (Step::Remove, Some(slice)) => self.cluster.remove(&*slice).await.map(|()| None),
            (Step::Taken, _) => Ok(self.taken(&shadow).await),
            _ => Ok(None),
        }
    }

    async fn create(&self, shadow: &ShadowEndpointSlice, reachable: bool) -> Result<Option<Duration>, KubeError> {
        match self.cluster.create(&forge(shadow, reachable)).await {
            Ok(_) => {
                self.lock_told().remove(&shadow.uid().unwrap_or_default());
                Ok(None)
            }
            Err(error) if error.is_conflict() => {
                let namespace = shadow.namespace().unwrap_or_default();
                let there = self.cluster.get::<EndpointSlice>(&namespace, &shadow.name_any()).await?;
                match there.map(|there| (plan(shadow, Some(&there), reachable), there)) {
                    Some((Step::Merge(patch), there)) => self.cluster.merge(&there, patch).await.map(|_| None),
                    Some((Step::Taken, _)) => Ok(self.taken(shadow).await),
                    // It is ours and the watch is about to show it, or it is gone again.
                    _ => Ok(Some(Duration::from_secs(1))),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the user, once, that the name is taken.
    async fn taken(&self, shadow: &ShadowEndpointSlice) -> Option<Duration> {
        let news = self.lock_told().insert(shadow.uid().unwrap_or_default(), ()).is_none();
        if news {
            let name = shadow.name_any();
            let text = format!(
                "an EndpointSlice {name} that does not belong to this ShadowEndpointSlice already exists: \
                 the ShadowEndpointSlice waits until it is gone"
            );
            self.cluster.event(shadow, "liqo-controller-manager", "Warning", "AlreadyExists", &text).await;
        }
        Some(LATER)
    }

    fn lock_told(&self) -> std::sync::MutexGuard<'_, HashMap<String, ()>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peer the endpoints are in.
fn origin(shadow: &ShadowEndpointSlice) -> &str {
    shadow.labels().get(label::REFLECTION_ORIGIN).map(String::as_str).unwrap_or_default()
}

/// Whether packets reach the peer and its news reach us.
fn is_reachable(peer: Option<&ForeignCluster>) -> bool {
    use PeeringConditionStatus::{Established, External};
    let network = peer.map(|peer| condition(peer, PeeringConditionType::NetworkStatus));
    matches!(network, Some(Established | External)) && answers(peer)
}

fn plan(shadow: &ShadowEndpointSlice, slice: Option<&EndpointSlice>, reachable: bool) -> Step {
    let Some(slice) = slice else { return Step::Create };
    let owner = slice.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if shadow.uid().as_ref() == Some(&owner.uid) => {}
        // Of an earlier shadow of that name: it goes with that one.
        Some(owner) if owner.kind == "ShadowEndpointSlice" && owner.name == shadow.name_any() => return Step::Keep,
        _ => return Step::Taken,
    }
    if is_leaving(slice) {
        return Step::Keep;
    }
    let wanted = forge(shadow, reachable);
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

fn forge(shadow: &ShadowEndpointSlice, reachable: bool) -> EndpointSlice {
    let template = &shadow.spec.template;
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
        endpoints: Some(template.endpoints.iter().cloned().map(|one| overlay(one, reachable)).collect()),
        ports: Some(template.ports.clone()),
    }
}

/// What is not said to be unready is as ready as the peer is reachable. What cannot be reached serves nobody, also
/// not while it is on its way out.
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

    use super::*;

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

    fn peer(network: PeeringConditionStatus, api: PeeringConditionStatus) -> ForeignCluster {
        serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"foreignAuthUrl": "https://a.b"},
            "status": {"peeringConditions": [
                {"type": "NetworkStatus", "status": network}, {"type": "APIServerStatus", "status": api},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn a_peer_is_reachable_when_its_network_and_its_api_server_are() {
        use PeeringConditionStatus::{Error, Established, External, None as Nothing, Pending};
        for (network, api, wanted) in [
            (Established, Established, true),
            (External, Established, true),
            (Pending, Established, false),
            (Established, Error, false),
            (Nothing, Nothing, false),
        ] {
            assert_eq!(is_reachable(Some(&peer(network, api))), wanted, "{network:?} {api:?}");
        }
        assert!(!is_reachable(None));
    }

    #[test]
    fn endpoints_are_ready_while_their_cluster_is_reachable() {
        let ready = |reachable| -> Vec<_> {
            let made = forge(&shadow(&[None, Some(true), Some(false)]), reachable);
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
        let mut slice = forge(&shadow, true);
        slice.metadata.uid = Some("slice".to_owned());
        assert_eq!(plan(&shadow, None, true), Step::Create);
        assert_eq!(plan(&shadow, Some(&slice), true), Step::Keep);
        let Step::Merge(patch) = plan(&shadow, Some(&slice), false) else { panic!("the peer is gone") };
        assert_eq!(patch["endpoints"][0]["conditions"]["ready"], json!(false));
        assert_eq!(patch["metadata"], json!({"uid": "slice"}));
        let mut six = slice.clone();
        six.address_type = "IPv6".to_owned();
        assert_eq!(plan(&shadow, Some(&six), true), Step::Remove);
        slice.metadata.owner_references = None;
        assert_eq!(plan(&shadow, Some(&slice), true), Step::Taken);
    }
}
