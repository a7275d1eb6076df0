//! `ShadowEndpointSlice`s: endpoints in a peer's cluster, ready only while that cluster can be reached.
//!
//! Keeps true: clients here stop using endpoints of a peer as soon as the tunnel or its API server is
//! down; slices of others are never touched; no endpoint has an address that is not the peer's to name.
//!
//! Watches   `ShadowEndpointSlice`s, `EndpointSlice`s made from them, `ForeignCluster`s; `TunnelEndpoint`s, or `Node`s
//!           where Liqo does not connect the networks.
//! Writes    `EndpointSlice`s.
//! Removes   those whose address type has changed, which cannot be changed in place.

mod bounds;
mod plan;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Node, discovery::v1::EndpointSlice};
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringConditionType},
    meta::label,
    net::TunnelEndpoint,
    virtualkubelet::ShadowEndpointSlice,
};
use liqo_core::peering;
use liqo_kube::{Cluster, KubeError, Queue, Store, drive, told::Told};

use self::{
    bounds::Bounds,
    plan::{Step, forge, plan},
};
use super::{Shared, answers, brief, drift, is_leaving, provider_of};
use crate::{COMPONENT, memory::Memory};

/// Under this name slices are written.
const WRITER: &str = "shadow-endpointslice-controller";
/// How soon to look again for a name that another owner has, or an address that is not the peer's yet.
const LATER: Duration = Duration::from_secs(30);

/// How soon to look again for an object that the watch is about to show.
const SOON: Duration = Duration::from_secs(1);

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
    networks: Networks,
    /// By ID of a peer that has a `ForeignCluster`: what its endpoints were last computed from.
    seen: Mutex<HashMap<String, Sight>>,
    /// By namespace and name of a shadow: the last Event about the shadow.
    told: Told,
}

/// The source of the networks in which endpoints of peers may be.
enum Networks {
    /// The tunnels Liqo made.
    Tunnels(Store<TunnelEndpoint>),
    /// The networks in `--guest-networks`.
    Given(Vec<IpNet>),
    /// Neither: an endpoint may have any address that is not a node's of this cluster.
    Nodes(Store<Node>),
}

/// The facts about a peer that its endpoints depend on.
#[derive(Clone, Debug, PartialEq)]
struct Sight {
    /// Whether the tunnel to the peer is up and the peer's API server answers.
    reachable: bool,
    /// Where its endpoints may be.
    bounds: Bounds,
}

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, queue: Queue<Key>, given_networks: Vec<IpNet>, workers: usize) {
    let cluster = shared.home.cluster.writing_as(WRITER);
    let seen = queue.clone();
    let shadows = cluster.watch::<ShadowEndpointSlice>("").trim(brief::shadow_slice).start(move |shadow| {
        seen.push(Key::Slice(shadow.namespace().unwrap_or_default(), shadow.name_any()));
    });
    let seen = queue.clone();
    let selector = format!("{}={}", label::MANAGED_BY, label::MANAGED_BY_SHADOW_ENDPOINT_SLICE);
    let trim = |slice: &mut EndpointSlice| {
        brief::slice(slice);
        drift::keep_fields_of(&mut slice.metadata, WRITER);
    };
    let slices = cluster.watch::<EndpointSlice>("").labels(&selector).trim(trim).start(move |slice| {
        seen.push(Key::Slice(slice.namespace().unwrap_or_default(), slice.name_any()));
    });
    shared.ready().await;
    shadows.ready().await;
    slices.ready().await;
    let networks = Networks::watch(&shared.memory, given_networks, &queue);
    networks.ready().await;
    let (seen, told) = Default::default();
    let all = Loop { shared, cluster, shadows, slices, queue: queue.clone(), networks, seen, told };
    drive("shadow-endpoint-slice", queue, workers, |key| all.settle(key)).await;
}

impl Networks {
    /// The tunnels, else the networks that are given, else the nodes.
    fn watch(memory: &Memory, given: Vec<IpNet>, queue: &Queue<Key>) -> Self {
        if let Some(tunnels) = &memory.tunnels {
            let seen = queue.clone();
            return Self::Tunnels(tunnels.listen(move |tunnel| {
                seen.push(Key::Peer(tunnel.labels().get(label::TUNNEL_CLUSTER_ID).cloned().unwrap_or_default()));
            }));
        }
        match given.is_empty() {
            true => Self::Nodes(Store::clone(&memory.nodes)),
            false => Self::Given(given),
        }
    }

    async fn ready(&self) {
        match self {
            Self::Tunnels(tunnels) => tunnels.ready().await,
            Self::Given(_) => {}
            Self::Nodes(nodes) => nodes.ready().await,
        }
    }
}

impl Loop {
    async fn settle(&self, key: Key) -> Result<Option<Duration>, KubeError> {
        match key {
            Key::Slice(namespace, name) => self.settle_slice(&namespace, &name).await,
            Key::Peer(id) => {
                let now = self.shared.peer(&id).map(|_| self.sight(&id));
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let before = match now.clone() {
                    Some(sight) => seen.insert(id.clone(), sight),
                    None => seen.remove(&id),
                };
                if before != now {
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
            self.told.forget(&format!("{namespace}/{name}"));
            return Ok(None);
        };
        let Some(shadow) = brief::whole(&self.cluster, shadow).await? else { return Ok(Some(SOON)) };
        let slice = match self.slices.get(namespace, name) {
            Some(known) => brief::whole(&self.cluster, known).await?,
            None => None,
        };
        let space = self.shared.memory.namespaces.get("", namespace);
        let own = space.as_deref().map(provider_of) == Some(origin(&shadow));
        let sight = self.sight(origin(&shadow));
        let sight = if own { sight } else { Sight { bounds: Bounds::NONE, ..sight } };
        let offence = shadow.spec.template.endpoints.iter().find_map(|one| sight.bounds.offence(one));
        let again = match (plan(&shadow, slice.as_deref(), &sight), slice) {
            // Nothing can be made there any more; the shadow goes, too.
            (Step::Create, _) if space.is_some_and(|one| is_leaving(&*one)) => return Ok(None),
            (Step::Create, _) => self.create(&shadow, &sight).await?,
            (Step::Merge(patch), Some(slice)) => self.cluster.merge(&*slice, patch).await.map(|_| None)?,
            (Step::Remove, Some(slice)) => self.cluster.remove(&*slice).await.map(|()| None)?,
            (Step::Taken, _) => return Ok(self.taken(&shadow).await),
            _ => None,
        };
        let Some(address) = offence else { return Ok(again) };
        self.tell(&shadow, "Refused", refusal(address, origin(&shadow))).await;
        Ok(again.or(Some(LATER)))
    }

    /// How a peer looks.
    fn sight(&self, id: &str) -> Sight {
        let its = |tunnel: &TunnelEndpoint| {
            tunnel.labels().get(label::TUNNEL_CLUSTER_ID).is_some_and(|one| one == id)
                && self.shared.ledger.peer_in(&tunnel.namespace().unwrap_or_default()).as_deref() == Some(id)
        };
        let bounds = match &self.networks {
            Networks::Tunnels(tunnels) => {
                tunnels.filter(its).first().map_or(Bounds::NONE, |tunnel| Bounds::of_tunnel(&tunnel.spec))
            }
            Networks::Given(networks) => Bounds::Networks(networks.clone()),
            Networks::Nodes(nodes) => {
                let all = nodes.all();
                Bounds::outside(all.iter().map(|node| &**node))
            }
        };
        Sight { reachable: is_reachable(self.shared.peer(id).as_deref()), bounds }
    }

    async fn create(&self, shadow: &ShadowEndpointSlice, sight: &Sight) -> Result<Option<Duration>, KubeError> {
        match self.cluster.create(&forge(shadow, sight)).await {
            Ok(_) => Ok(None),
            Err(error) if error.is_conflict() => {
                let namespace = shadow.namespace().unwrap_or_default();
                let there = self.cluster.get::<EndpointSlice>(&namespace, &shadow.name_any()).await?;
                match there.map(|there| (plan(shadow, Some(&there), sight), there)) {
                    Some((Step::Merge(patch), there)) => self.cluster.merge(&there, patch).await.map(|_| None),
                    Some((Step::Taken, _)) => Ok(self.taken(shadow).await),
                    // The slice is ours and the watch is about to show the slice, or the slice is gone again.
                    _ => Ok(Some(SOON)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the user that the name is taken.
    async fn taken(&self, shadow: &ShadowEndpointSlice) -> Option<Duration> {
        let name = shadow.name_any();
        let text = format!(
            "an EndpointSlice {name} that does not belong to this ShadowEndpointSlice already exists: \
             the ShadowEndpointSlice waits until it is gone"
        );
        self.tell(shadow, "AlreadyExists", text).await;
        Some(LATER)
    }

    /// Tells the user what is wrong, once.
    async fn tell(&self, shadow: &ShadowEndpointSlice, kind: &str, text: String) {
        let name = format!("{}/{}", shadow.namespace().unwrap_or_default(), shadow.name_any());
        if self.told.is_news(&name, "", &text) {
            self.told.write((&self.cluster, COMPONENT), shadow, (&name, ""), ("Warning", kind), &text).await;
        }
    }
}

fn refusal(address: &str, peer: &str) -> String {
    let address: String = address.chars().take(64).collect();
    format!(
        "endpoints like {address:?} are left out: the address is not in the networks of the cluster {peer:?} as this \
         cluster sees them, or the namespace was not made for that cluster"
    )
}

/// The peer the endpoints are in.
fn origin(shadow: &ShadowEndpointSlice) -> &str {
    shadow.labels().get(label::REFLECTION_ORIGIN).map(String::as_str).unwrap_or_default()
}

/// Whether packets reach the peer and its news reach us.
fn is_reachable(peer: Option<&ForeignCluster>) -> bool {
    use PeeringConditionStatus::{Established, External};
    let network = peer.map(|peer| peering::status(peer, PeeringConditionType::NetworkStatus));
    matches!(network, Some(Established | External)) && answers(peer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
}
