//! `NamespaceOffloading`: the namespaces a user wants extended, turned into entries of namespace maps.
//!
//! Keeps true: a provider is asked for a namespace exactly while its virtual node is selected; pods pass
//! through the webhook before the status says anything; one provider never holds up another; the
//! end of an offloading never waits for a provider that does not answer.
//!
//! Watches   `NamespaceOffloading`s, original `NamespaceMap`s, virtual `Node`s, `Namespace`s, `ForeignCluster`s.
//! Writes    `NamespaceMap.spec.desiredMapping`, label `liqo.io/scheduling-enabled` of namespaces, status and
//!           finalizer of `NamespaceOffloading`s.
//! Removes   nothing.

mod news;
mod plan;
mod status;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    meta::{finalizer, label},
    names,
    offloading::NamespaceOffloading,
    virtualkubelet::NamespaceMap,
};
use liqo_core::{mapping, selector};
use liqo_kube::{KubeError, Queue, drive, now, told::Told};
use serde_json::{Value, json};

pub(super) use self::plan::EntryState;
use self::{
    news::News,
    plan::{label_wanted, plan},
    status::{Ask, Facts},
};
use super::{Shared, answers, is_leaving, is_original, provider_of};
use crate::COMPONENT;

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A namespace, or the offloading in it.
    Namespace(String),
    /// A namespace map, by namespace and name.
    Map(String, String),
    /// A virtual node.
    Node(String),
    /// A provider, by ID.
    Peer(String),
}

struct Loop {
    shared: Arc<Shared>,
    queue: Queue<Key>,
    news: News,
    /// What the user was last told about the selector in a namespace.
    told: Told,
}

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>, queue: Queue<Key>) {
    shared.ready().await;
    let all = Loop { shared, queue: queue.clone(), news: News::default(), told: Told::default() };
    drive("namespace-offloading", queue, 4, |key| all.settle(key)).await;
}

impl Loop {
    async fn settle(&self, key: Key) -> Result<Option<Duration>, KubeError> {
        let touched = match key {
            Key::Namespace(name) => return self.settle_namespace(&name).await.map(|()| None),
            Key::Map(namespace, name) => {
                let map = self.shared.memory.maps.get(&namespace, &name);
                if let Some(map) = map.as_deref().filter(|map| is_original(map)) {
                    self.prune(map).await?;
                }
                self.news.of_map(&(namespace, name), map.as_deref())
            }
            Key::Node(name) => self.news.of_node(&name, self.shared.virtual_node(&name).as_deref()),
            Key::Peer(id) => self.news.of_peer(&id, self.shared.peer(&id).map(|peer| answers(Some(&peer)))),
        };
        for offloading in self.shared.memory.offloadings.all() {
            let namespace = offloading.namespace().unwrap_or_default();
            if touched.includes(&namespace) {
                self.queue.push(Key::Namespace(namespace));
            }
        }
        Ok(None)
    }

    /// Takes out of a map of ours what no `NamespaceOffloading` asked for: the provider would be given that namespace. What a
    /// `NamespaceOffloading` asks for otherwise is put right with its namespace.
    async fn prune(&self, map: &NamespaceMap) -> Result<(), KubeError> {
        let cluster = &self.shared.home.cluster;
        for namespace in map.spec.desired_mapping.keys() {
            self.queue.push(Key::Namespace(namespace.clone()));
            if self.shared.memory.offloadings.get(namespace, names::NAMESPACE_OFFLOADING).is_some()
                // Newer than what the watch has shown us.
                || cluster.get::<NamespaceOffloading>(namespace, names::NAMESPACE_OFFLOADING).await?.is_some()
            {
                continue;
            }
            let why =
                format!("no NamespaceOffloading asks for the namespace {namespace:?}: it is taken out of the map");
            cluster.event(map, COMPONENT, "Warning", "MappingRemoved", &why).await;
            let patch = json!({"spec": {"desiredMapping": {namespace: null}}, "metadata": {"uid": map.uid()}});
            cluster.merge(map, patch).await?;
        }
        Ok(())
    }

    async fn settle_namespace(&self, name: &str) -> Result<(), KubeError> {
        let Some(offloading) = self.shared.memory.offloadings.get(name, names::NAMESPACE_OFFLOADING) else {
            self.told.forget(name);
            return Ok(());
        };
        let cluster = &self.shared.home.cluster;
        let held = offloading.finalizers().iter().any(|one| one == finalizer::NAMESPACE_OFFLOADING);
        let leaving = is_leaving(&*offloading);
        if leaving && !held {
            return Ok(());
        }
        let mut current = (*offloading).clone();
        if !held {
            current = cluster.hold(&current, finalizer::NAMESPACE_OFFLOADING).await?;
        }
        // From here on pods go through the webhook; only then they are promised anything.
        let known = self.shared.memory.namespaces.get("", name);
        let namespace = match known {
            Some(namespace) => Some(namespace),
            // Newer than what the watch has shown us.
            None => cluster.get::<Namespace>("", name).await?.map(Arc::new),
        };
        if let Some(namespace) = namespace {
            self.label(&namespace, label_wanted(&offloading)).await?;
        }
        let facts = self.observe(&offloading);
        let asks = plan(&offloading, &facts, &self.shared.home.identity, &self.shared.home.namespace);
        self.tell(&offloading, &asks).await;
        let (asks, outcome) = self.map(name, asks).await;
        let status = status::of(&offloading, &asks, &self.shared.home.identity, &now());
        if offloading.status.as_ref() != Some(&status) {
            let Some(told) = cluster.put_status(&current, &status).await? else { return Ok(()) };
            current = told;
        }
        outcome?;
        if leaving && status.remote_namespaces_conditions.is_empty() {
            cluster.release(&current, finalizer::NAMESPACE_OFFLOADING).await?;
            tracing::info!(namespace = name, "namespace no longer offloaded");
        }
        Ok(())
    }

    async fn label(&self, namespace: &Namespace, wanted: bool) -> Result<(), KubeError> {
        let is = namespace.labels().get(label::SCHEDULING_ENABLED).is_some_and(|value| value == "true");
        if is == wanted {
            return Ok(());
        }
        let value = if wanted { json!("true") } else { Value::Null };
        let patch = json!({"metadata": {"uid": namespace.uid(), "labels": {label::SCHEDULING_ENABLED: value}}});
        match self.shared.home.cluster.merge(namespace, patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Every original map, with what is known of its provider.
    fn observe(&self, offloading: &NamespaceOffloading) -> Vec<Facts> {
        let facts = |map: Arc<NamespaceMap>| facts(&self.shared, map, offloading);
        let mut maps = self.shared.memory.maps.filter(is_original);
        maps.sort_by_key(|map| map.name_any());
        maps.into_iter().map(facts).collect()
    }

    /// Writes what is asked into the maps. A map that cannot be written stops no other map and stays as it is.
    async fn map(&self, namespace: &str, mut asks: Vec<Ask>) -> (Vec<Ask>, Result<(), KubeError>) {
        let mut outcome = Ok(());
        for ask in &mut asks {
            if ask.wanted == ask.desired() {
                continue;
            }
            let patch =
                json!({"spec": {"desiredMapping": {namespace: ask.wanted}}, "metadata": {"uid": ask.map.uid()}});
            let written = self.shared.home.cluster.merge(&*ask.map, patch).await;
            match written {
                Ok(map) => ask.map = Arc::new(map),
                // The map went away meanwhile; its end comes to us as an event.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => outcome = Err(error),
            }
        }
        (asks, outcome)
    }

    /// Tells the user, once, that the selector cannot be read.
    async fn tell(&self, offloading: &NamespaceOffloading, asks: &[Ask]) {
        let why = offloading.spec.cluster_selector.as_ref().and_then(selector::error);
        let bad = asks.iter().find_map(|ask| ask.invalid.clone()).or(why.map(|why| why.to_string()));
        let namespace = offloading.namespace().unwrap_or_default();
        let Some(why) = bad else { return self.told.forget(&namespace) };
        if self.told.is_news(&namespace, "", &why) {
            let text = format!("Invalid ClusterSelector: {why}");
            let by = (&self.shared.home.cluster, COMPONENT);
            self.told.write(by, offloading, (&namespace, ""), ("Warning", "Invalid"), &text).await;
        }
    }
}

/// What is known of the provider of an original map, for one `NamespaceOffloading`.
fn facts(shared: &Shared, map: Arc<NamespaceMap>, offloading: &NamespaceOffloading) -> Facts {
    let id = provider_of(&*map);
    let node = shared.virtual_nodes_of(id).into_iter().next();
    let selected = node.map(|node| mapping::selects(offloading, &node));
    let answers = answers(shared.peer(id).as_deref());
    Facts { map, selected, answers }
}

/// What this cluster says about the entry of an original map for a namespace. The map itself is no answer: a peer that found a
/// way to write the map would be given the namespace.
pub(super) fn entry_state(shared: &Shared, map: &Arc<NamespaceMap>, namespace: &str) -> EntryState {
    let offloading = shared.memory.offloadings.get(namespace, names::NAMESPACE_OFFLOADING);
    let facts = offloading.map(|offloading| (facts(shared, Arc::clone(map), &offloading), offloading));
    facts.map_or(EntryState::Unasked, |(facts, offloading)| {
        plan::entry_state(&offloading, &facts, &shared.home.identity, &shared.home.namespace)
    })
}
