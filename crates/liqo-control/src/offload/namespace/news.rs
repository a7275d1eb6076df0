//! Which namespaces a change concerns, so that a thousand of them are not looked at for one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use liqo_api::virtualkubelet::{NamespaceMap, RemoteNamespaceStatus};

use super::super::is_leaving;

/// Namespaces to look at.
#[derive(Debug, PartialEq)]
pub(super) enum Touched {
    /// Every one.
    All,
    /// These.
    Some(BTreeSet<String>),
}

impl Touched {
    /// Whether a namespace is among them.
    pub(super) fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(some) => some.contains(namespace),
        }
    }
}

/// What was last seen of everything that matters to all namespaces.
#[derive(Default)]
pub(super) struct News {
    maps: Seen<(String, String), MapSeen>,
    nodes: Seen<String, BTreeMap<String, String>>,
    peers: Seen<String, bool>,
}

#[derive(Clone, PartialEq)]
struct MapSeen {
    uid: Option<String>,
    leaving: bool,
    desired: BTreeMap<String, String>,
    current: BTreeMap<String, RemoteNamespaceStatus>,
}

struct Seen<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Seen<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Seen<K, V> {
    /// Remembers what is seen now, tells what was seen before.
    fn exchange(&self, key: &K, now: Option<V>) -> Option<V> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match now {
            Some(now) => seen.insert(key.clone(), now),
            None => seen.remove(key),
        }
    }
}

impl News {
    /// A map came, changed or went.
    pub(super) fn of_map(&self, key: &(String, String), map: Option<&NamespaceMap>) -> Touched {
        let now = map.map(|map| MapSeen {
            uid: map.uid(),
            leaving: is_leaving(map),
            desired: map.spec.desired_mapping.clone(),
            current: map.status.as_ref().map(|status| status.current_mapping.clone()).unwrap_or_default(),
        });
        match (self.maps.exchange(key, now.clone()), now) {
            (None, None) => Touched::Some(BTreeSet::new()),
            (Some(old), Some(new)) if old.uid == new.uid && old.leaving == new.leaving => {
                let mut some = changed(&old.desired, &new.desired);
                some.append(&mut changed(&old.current, &new.current));
                Touched::Some(some)
            }
            _ => Touched::All,
        }
    }

    /// A virtual node came, changed its labels or went.
    pub(super) fn of_node(&self, name: &str, node: Option<&Node>) -> Touched {
        let now = node.map(|node| node.labels().clone());
        let old = self.nodes.exchange(&name.to_owned(), now.clone());
        if old == now { Touched::Some(BTreeSet::new()) } else { Touched::All }
    }

    /// A provider's API server answers, or does not; `None`: there is no such provider.
    pub(super) fn of_peer(&self, id: &str, answers: Option<bool>) -> Touched {
        let old = self.peers.exchange(&id.to_owned(), answers);
        if old == answers { Touched::Some(BTreeSet::new()) } else { Touched::All }
    }
}

/// Keys whose values differ.
fn changed<V: PartialEq>(old: &BTreeMap<String, V>, new: &BTreeMap<String, V>) -> BTreeSet<String> {
    old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use liqo_api::virtualkubelet::{NamespaceMapSpec, NamespaceMapStatus};

    use super::*;

    fn map(uid: &str, current: &[&str]) -> NamespaceMap {
        let mut map = NamespaceMap::new("milan", NamespaceMapSpec::default());
        map.metadata.uid = Some(uid.to_owned());
        let current_mapping = current.iter().map(|&name| (name.to_owned(), RemoteNamespaceStatus::default())).collect();
        map.status = Some(NamespaceMapStatus { current_mapping });
        map
    }

    #[test]
    fn a_map_touches_the_namespaces_that_changed_in_it() {
        let (news, key) = (News::default(), ("tenant".to_owned(), "milan".to_owned()));
        let some = |names: &[&str]| Touched::Some(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(news.of_map(&key, Some(&map("1", &[]))), Touched::All, "a new map concerns everybody");
        assert_eq!(news.of_map(&key, Some(&map("1", &["a"]))), some(&["a"]));
        assert_eq!(news.of_map(&key, Some(&map("1", &["a"]))), some(&[]));
        assert_eq!(news.of_map(&key, Some(&map("1", &["b"]))), some(&["a", "b"]));
        assert_eq!(news.of_map(&key, Some(&map("2", &["b"]))), Touched::All);
        assert_eq!(news.of_map(&key, None), Touched::All);
        assert_eq!(news.of_map(&key, None), some(&[]));
    }

    #[test]
    fn a_peer_matters_when_it_begins_or_ceases_to_answer_and_is_forgotten() {
        let news = News::default();
        let touched = |answers| news.of_peer("milan", answers) == Touched::All;
        let looks = [Some(true), Some(true), Some(false), None, None, Some(false)];
        assert_eq!(looks.map(touched), [true, false, true, true, false, true]);
        touched(None);
        assert!(news.peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_node_matters_only_when_its_labels_change() {
        let news = News::default();
        let mut node = Node::default();
        assert_eq!(news.of_node("n", Some(&node)), Touched::All);
        assert!(!news.of_node("n", Some(&node)).includes("demo"));
        node.labels_mut().insert("zone".to_owned(), "eu".to_owned());
        assert!(news.of_node("n", Some(&node)).includes("demo"));
    }
}
