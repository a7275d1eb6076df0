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
mod status;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    meta::{finalizer, label},
    names,
    offloading::{NamespaceOffloading, PodOffloadingStrategy},
    virtualkubelet::NamespaceMap,
};
use liqo_core::{mapping, naming, selector};
use liqo_kube::{KubeError, Queue, drive, now, told::Told};
use serde_json::{Value, json};

use self::{
    news::News,
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

/// What this cluster says about an entry of an original map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    /// A `NamespaceOffloading` asks the provider for the namespace under that name.
    Asked,
    /// Nothing is decided without the virtual node or a readable selector, nor while the map is being deleted.
    Undecided,
    /// Nobody asks for it: somebody else wrote the entry, or the entry is about to be removed.
    Unasked,
}

/// What this cluster says about the entry of an original map for a namespace. The map itself is no answer: a peer that found a
/// way to write the map would be given the namespace.
pub(super) fn entry_state(shared: &Shared, map: &Arc<NamespaceMap>, namespace: &str) -> EntryState {
    let offloading = shared.memory.offloadings.get(namespace, names::NAMESPACE_OFFLOADING);
    let facts = offloading.map(|offloading| (facts(shared, Arc::clone(map), &offloading), offloading));
    facts.map_or(EntryState::Unasked, |(facts, offloading)| {
        entry_state_of(&offloading, &facts, &shared.home.identity, &shared.home.namespace)
    })
}

fn entry_state_of(
    offloading: &NamespaceOffloading,
    facts: &Facts,
    own: &ClusterIdentity,
    liqo_namespace: &str,
) -> EntryState {
    let ask = plan(offloading, std::slice::from_ref(facts), own, liqo_namespace).pop();
    let is_as_wanted = ask.is_some_and(|ask| ask.wanted.is_some() && ask.wanted == ask.desired());
    match (is_as_wanted, &facts.selected) {
        (false, _) => EntryState::Unasked,
        (true, Some(Ok(true))) if !is_leaving(&*facts.map) => EntryState::Asked,
        (true, _) => EntryState::Undecided,
    }
}

fn label_wanted(offloading: &NamespaceOffloading) -> bool {
    !is_leaving(offloading) && offloading.spec.pod_offloading_strategy != PodOffloadingStrategy::Local
}

/// What to ask of each provider.
fn plan(offloading: &NamespaceOffloading, facts: &[Facts], own: &ClusterIdentity, liqo_namespace: &str) -> Vec<Ask> {
    let namespace = offloading.namespace().unwrap_or_default();
    let remote = naming::remote_namespace(&namespace, own, offloading.spec.namespace_mapping_strategy);
    let stays = (mapping::stays_here(&namespace) || namespace == liqo_namespace)
        .then(|| format!("The namespace {namespace:?} belongs to this cluster: it is never offloaded"));
    let too_long = naming::dns_label_error(&remote).map(|why| {
        format!(
            "The name of the remote namespace {remote:?} {why}: rename the namespace, or offload it with the \
                 NamespaceMappingStrategy EnforceSameName"
        )
    });
    let unusable = stays.or(too_long);
    let ask = |one: &Facts| {
        let desired = one.map.spec.desired_mapping.get(&namespace).cloned();
        let leaving = is_leaving(&*one.map);
        let mut ask = Ask {
            namespace: namespace.clone(),
            map: Arc::clone(&one.map),
            answers: one.answers,
            required: false,
            wanted: None,
            invalid: None,
            unusable: None,
        };
        match &one.selected {
            // A map on its way out takes everything with it.
            _ if leaving => ask.wanted = desired,
            _ if is_leaving(offloading) => {}
            // No node (yet, or any longer): nothing is decided without it.
            None => ask.wanted = desired,
            Some(Ok(true)) if unusable.is_some() => ask.unusable.clone_from(&unusable),
            Some(Ok(true)) => ask.wanted = Some(remote.clone()),
            Some(Ok(false)) => {}
            Some(Err(why)) => {
                ask.invalid = Some(why.to_string());
                ask.wanted = desired;
            }
        }
        ask.required = !leaving && (ask.wanted.is_some() || ask.unusable.is_some());
        ask
    };
    facts.iter().map(ask).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSelector;
    use liqo_api::{
        offloading::{NamespaceMappingStrategy, NamespaceOffloadingSpec},
        virtualkubelet::NamespaceMapSpec,
    };

    use super::*;

    fn offloading(strategy: PodOffloadingStrategy, leaving: bool) -> NamespaceOffloading {
        let spec = NamespaceOffloadingSpec {
            pod_offloading_strategy: strategy,
            cluster_selector: Some(NodeSelector::default()),
            ..NamespaceOffloadingSpec::default()
        };
        let mut offloading = NamespaceOffloading::new(names::NAMESPACE_OFFLOADING, spec);
        offloading.metadata.namespace = Some("demo".to_owned());
        offloading.metadata.deletion_timestamp = leaving.then(now);
        offloading
    }

    fn facts(selected: Option<bool>, desired: Option<&str>) -> Facts {
        let desired_mapping = desired.map(|name| ("demo".to_owned(), name.to_owned())).into_iter().collect();
        let map = NamespaceMap::new("milan-6b1f02", NamespaceMapSpec { desired_mapping });
        Facts { map: Arc::new(map), selected: selected.map(Ok), answers: true }
    }

    fn own() -> ClusterIdentity {
        ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "consumer")
    }

    #[test]
    fn a_provider_is_asked_exactly_while_it_is_selected() {
        let remote = "demo-consumer-ed03b8";
        for (selected, desired, leaving, wanted) in [
            (Some(true), None, false, Some(remote)),
            (Some(true), Some("old-name"), false, Some(remote)),
            (Some(false), Some(remote), false, None),
            (Some(false), None, false, None),
            // No node: nothing changes.
            (None, Some(remote), false, Some(remote)),
            (None, None, false, None),
            (Some(true), Some(remote), true, None),
            (None, Some(remote), true, None),
        ] {
            let offloading = offloading(PodOffloadingStrategy::Remote, leaving);
            let asks = plan(&offloading, &[facts(selected, desired)], &own(), "liqo");
            assert_eq!(asks[0].wanted.as_deref(), wanted, "{selected:?} {desired:?} {leaving}");
            assert_eq!(asks[0].required, wanted.is_some());
        }
    }

    #[test]
    fn an_entry_of_a_map_counts_only_if_an_offloading_asks_for_it() {
        let remote = "demo-consumer-ed03b8";
        let remotely = |leaving: bool| offloading(PodOffloadingStrategy::Remote, leaving);
        for (selected, desired, leaving, wanted) in [
            (Some(true), remote, false, EntryState::Asked),
            // Another name than the one that is asked for.
            (Some(true), "loot", false, EntryState::Unasked),
            // Offloaded to others only.
            (Some(false), remote, false, EntryState::Unasked),
            (Some(false), "loot", false, EntryState::Unasked),
            (Some(true), remote, true, EntryState::Unasked),
            (None, remote, false, EntryState::Undecided),
        ] {
            let state = entry_state_of(&remotely(leaving), &facts(selected, Some(desired)), &own(), "liqo");
            assert_eq!(state, wanted, "{selected:?} {desired} {leaving}");
        }
        let mut going = facts(Some(true), Some("loot"));
        Arc::make_mut(&mut going.map).metadata.deletion_timestamp = Some(now());
        assert_eq!(entry_state_of(&remotely(false), &going, &own(), "liqo"), EntryState::Undecided);
        let mut system = remotely(false);
        system.metadata.namespace = Some("liqo".to_owned());
        assert_eq!(entry_state_of(&system, &facts(Some(true), Some(remote)), &own(), "liqo"), EntryState::Unasked);
    }

    #[test]
    fn an_unreadable_selector_changes_nothing() {
        let mut selector: NodeSelector = serde_json::from_value(json!({"nodeSelectorTerms": []})).unwrap();
        selector.node_selector_terms =
            serde_json::from_value(json!([{"matchExpressions": [{"key": "a", "operator": "Like"}]}])).unwrap();
        let why = selector::error(&selector).unwrap();
        for desired in [None, Some("demo-consumer-ed03b8")] {
            let mut facts = facts(None, desired);
            facts.selected = Some(Err(why.clone()));
            let asks = plan(&offloading(PodOffloadingStrategy::Remote, false), &[facts], &own(), "liqo");
            assert_eq!(asks[0].wanted.as_deref(), desired);
            assert!(asks[0].invalid.as_ref().unwrap().contains("Unsupported value: \"Like\""));
        }
    }

    #[test]
    fn a_name_too_long_is_not_asked_for_but_explained() {
        let mut offloading = offloading(PodOffloadingStrategy::Remote, false);
        let long = "n".repeat(60);
        offloading.metadata.namespace = Some(long.clone());
        let asks = plan(&offloading, &[facts(Some(true), None)], &own(), "liqo");
        assert_eq!((asks[0].wanted.as_deref(), asks[0].required), (None, true));
        assert!(asks[0].unusable.as_ref().unwrap().contains("is longer than 63 characters"));
        offloading.spec.namespace_mapping_strategy = NamespaceMappingStrategy::EnforceSameName;
        let asks = plan(&offloading, &[facts(Some(true), None)], &own(), "liqo");
        assert_eq!(asks[0].wanted.as_deref(), Some(long.as_str()));
    }

    #[test]
    fn pods_pass_the_webhook_unless_they_must_stay_here() {
        assert!(label_wanted(&offloading(PodOffloadingStrategy::Remote, false)));
        assert!(label_wanted(&offloading(PodOffloadingStrategy::LocalAndRemote, false)));
        assert!(!label_wanted(&offloading(PodOffloadingStrategy::Local, false)));
        assert!(!label_wanted(&offloading(PodOffloadingStrategy::Remote, true)));
    }
}
