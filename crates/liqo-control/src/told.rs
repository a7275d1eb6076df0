//! The warnings already given about objects, so that the same warning is given once.
//!
//! Keeps true: a warning about one topic of an object is given again only after another warning about that topic, or after
//! the topic was settled. [`Cluster::event`] bounds how many warnings one object gets in a minute; a warning it leaves out is
//! given at the next opportunity. The memory is bounded, whatever peers do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use kube::ResourceExt;
use liqo_kube::{Cluster, Object, refusals};

/// Objects that are remembered; for one more, the object that was silent longest is forgotten.
const OBJECTS: usize = 1024;
/// Topics of one object that are remembered; for one more, all topics of the object are forgotten.
const TOPICS: usize = 128;

/// The warnings given, by UID of the object.
#[derive(Default)]
pub(crate) struct Told(Mutex<HashMap<String, Said>>);

#[derive(Default)]
struct Said {
    /// By reason and topic, the last warning.
    last: BTreeMap<String, String>,
    touched: Option<Instant>,
}

impl Told {
    /// Writes a Warning Event about an object, unless the same warning was given already.
    pub(crate) async fn warn<K: Object>(&self, cluster: &Cluster, object: &K, reason: &'static str, message: &str) {
        self.warn_of(cluster, object, "", reason, message).await;
    }

    /// The same, where an object has several topics: namespaces in a map, say.
    pub(crate) async fn warn_of<K: Object>(
        &self,
        cluster: &Cluster,
        object: &K,
        topic: &str,
        reason: &'static str,
        message: &str,
    ) {
        let (uid, topic_of_reason) = (object.uid().unwrap_or_default(), format!("{reason}/{topic}"));
        if self.is_known(&uid, &topic_of_reason, message)
            || !cluster.event(object, "liqo-controller-manager", "Warning", reason, message).await
        {
            return;
        }
        refusals::count("controller", reason);
        self.remember(&uid, topic_of_reason, message, Instant::now());
        let kind = K::kind(&()).into_owned();
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        tracing::warn!(kind, namespace, object = name, topic, reason = message, "{reason}");
    }

    /// The trouble with a topic is over: when the same trouble returns, the warning is given again.
    pub(crate) fn settled<K: Object>(&self, object: &K, topic: &str, reason: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = all.get_mut(&object.uid().unwrap_or_default()) {
            said.last.remove(&format!("{reason}/{topic}"));
        }
    }

    fn is_known(&self, uid: &str, topic: &str, message: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(uid).and_then(|said| said.last.get(topic)).is_some_and(|last| last == message)
    }

    fn remember(&self, uid: &str, topic: String, message: &str, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= OBJECTS && !all.contains_key(uid) {
            let silent = all.iter().min_by_key(|(_, said)| said.touched).map(|(uid, _)| uid.clone());
            silent.and_then(|uid| all.remove(&uid));
        }
        let said = all.entry(uid.to_owned()).or_default();
        said.touched = Some(now);
        if said.last.len() >= TOPICS {
            said.last.clear();
        }
        said.last.insert(topic, message.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn remember(told: &Told, uid: &str, topic: &str, message: &str) {
        told.remember(uid, topic.to_owned(), message, Instant::now());
    }

    #[test]
    fn a_warning_is_known_until_another_one_about_its_topic() {
        let told = Told::default();
        assert!(!told.is_known("a", "topic", "0"));
        remember(&told, "a", "topic", "0");
        assert!(told.is_known("a", "topic", "0"));
        assert!(!told.is_known("b", "topic", "0"), "another object");
        assert!(!told.is_known("a", "other", "0"), "another topic");
        remember(&told, "a", "topic", "1");
        assert!(!told.is_known("a", "topic", "0") && told.is_known("a", "topic", "1"));
    }

    #[test]
    fn the_memory_is_bounded() {
        let (told, start) = (Told::default(), Instant::now());
        for number in 0..5_000_u64 {
            let now = start + Duration::from_millis(number);
            told.remember(&number.to_string(), "topic".to_owned(), "x", now);
            told.remember("one", number.to_string(), "x", now);
        }
        let all = told.0.lock().unwrap();
        assert_eq!((all.len(), all["one"].last.len() <= TOPICS), (OBJECTS, true));
    }
}
