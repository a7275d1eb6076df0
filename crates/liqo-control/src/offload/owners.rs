//! Whose turn it is: the peer for which a key waits in a queue.
//!
//! Keeps true: the work for one peer, however many namespaces and maps the peer has, takes one share of the turns of a queue;
//! so does all work for this cluster itself.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::meta::label;
use liqo_core::naming;
use liqo_kube::{Queue, Store};

use super::{allowance::Place, namespace_map, shadow_endpoint_slice};

/// Finds a namespace by its name.
type Lookup = Box<dyn Fn(&str) -> Option<Arc<Namespace>> + Send + Sync>;

/// The peers that namespaces belong to.
#[derive(Clone)]
pub(super) struct Owners(Arc<Lookup>);

impl Owners {
    /// Namespaces are found in this store.
    pub(super) fn new(namespaces: Store<Namespace>) -> Self {
        Self(Arc::new(Box::new(move |name| namespaces.get("", name))))
    }

    /// The peer, by ID, that a namespace was made for or is shared with; empty: neither.
    fn of(&self, namespace: &str) -> String {
        (self.0)(namespace).as_deref().map(peer_of).unwrap_or_default().to_owned()
    }

    /// A queue of objects in namespaces.
    pub(super) fn places(&self) -> Queue<Place> {
        let owners = self.clone();
        Queue::fair(move |(namespace, _): &Place| owners.of(namespace))
    }

    /// The queue of the namespace maps.
    pub(super) fn maps(&self) -> Queue<namespace_map::Key> {
        let owners = self.clone();
        Queue::fair(move |key: &namespace_map::Key| match key {
            namespace_map::Key::Map(namespace, _) | namespace_map::Key::Namespace(namespace) => owners.of(namespace),
            namespace_map::Key::Peer(peer) => peer.clone(),
        })
    }

    /// The queue of the endpoint slices.
    pub(super) fn slices(&self) -> Queue<shadow_endpoint_slice::Key> {
        let owners = self.clone();
        Queue::fair(move |key: &shadow_endpoint_slice::Key| match key {
            shadow_endpoint_slice::Key::Slice(namespace, _) => owners.of(namespace),
            shadow_endpoint_slice::Key::Peer(peer) => peer.clone(),
        })
    }
}

fn peer_of(namespace: &Namespace) -> &str {
    let made_for = namespace.labels().get(label::REMOTE_CLUSTER_ID).map(String::as_str);
    made_for.or_else(|| naming::claimed_tenant_of(namespace)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use liqo_kube::drive;
    use serde_json::json;

    use super::*;

    /// Namespaces `glutton-0` to `glutton-63` and `honest-0`, a tenant namespace of each, and one of this cluster.
    fn owners() -> Owners {
        Owners(Arc::new(Box::new(|name| {
            let labels = match name.split_once('-')? {
                ("tenant", peer) => {
                    json!({"discovery.liqo.io/tenant-namespace": "true", "discovery.liqo.io/cluster-id": peer})
                }
                ("own", _) => json!({}),
                (peer, _) => json!({"liqo.io/remote-cluster-id": peer}),
            };
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).ok().map(Arc::new)
        })))
    }

    /// The order in which one worker settles what waits in a queue.
    async fn order<K: Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static>(
        queue: Queue<K>,
        keys: Vec<K>,
    ) -> Vec<K> {
        let (settled, count) = (Mutex::new(Vec::new()), keys.len());
        keys.into_iter().for_each(|key| queue.push(key));
        let all = drive("test", queue, 1, |key| {
            settled.lock().unwrap().push(key);
            async { Ok::<_, liqo_kube::KubeError>(None) }
        });
        let _ = tokio::time::timeout(Duration::from_millis(200), all).await;
        let settled = settled.into_inner().unwrap();
        assert_eq!(settled.len(), count);
        settled
    }

    #[tokio::test]
    async fn a_peer_with_64_namespaces_and_a_peer_with_one_take_turns() {
        let pod = |namespace: String| (namespace, "pod".to_owned());
        let mut keys: Vec<Place> = (0..64).map(|number| pod(format!("glutton-{number}"))).collect();
        keys.extend((0..4).map(|number| ("honest-0".to_owned(), format!("pod-{number}"))));
        let settled = order(owners().places(), keys).await;
        let peers: Vec<_> = settled.iter().filter_map(|(namespace, _)| namespace.split_once('-')).take(8).collect();
        let turns: Vec<_> = peers.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(turns, ["glutton", "honest"].repeat(4));
    }

    #[tokio::test]
    async fn maps_namespaces_and_grants_of_a_peer_are_one_owner() {
        use namespace_map::Key;
        let text = |text: &str| text.to_owned();
        let mut keys: Vec<Key> =
            (0..9).map(|number| Key::Map(text("tenant-glutton"), format!("map-{number}"))).collect();
        keys.extend((0..9).map(|number| Key::Namespace(format!("glutton-{number}"))));
        keys.extend([
            Key::Peer(text("glutton")),
            Key::Map(text("tenant-honest"), text("map")),
            Key::Namespace(text("own-a")),
        ]);
        let settled = order(owners().maps(), keys).await;
        let place = |wanted: &Key| settled.iter().position(|key| key == wanted).unwrap();
        assert!(place(&Key::Map(text("tenant-honest"), text("map"))) < 3, "{settled:?}");
        assert!(place(&Key::Namespace(text("own-a"))) < 3, "{settled:?}");
    }

    #[tokio::test]
    async fn slices_belong_to_the_peer_of_their_namespace() {
        use shadow_endpoint_slice::Key;
        let slice = |namespace: String| Key::Slice(namespace, "slice".to_owned());
        let mut keys: Vec<Key> = (0..64).map(|number| slice(format!("glutton-{number}"))).collect();
        keys.extend([Key::Peer("glutton".to_owned()), slice("honest-0".to_owned())]);
        let settled = order(owners().slices(), keys).await;
        assert_eq!(settled[1], slice("honest-0".to_owned()));
    }
}
