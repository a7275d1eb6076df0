//! What was said about objects, so that it is said once, and that nobody makes us speak without end.
//!
//! Keeps true: about one object the same thing is said once in a row, and at most [`PER_MINUTE`] things in a minute;
//! what is remembered is bounded, whatever peers do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt;
use liqo_kube::{Cluster, Object};

/// Events about one object in a minute.
const PER_MINUTE: usize = 10;
/// Objects that are remembered; of more the one that was silent longest is forgotten.
const OBJECTS: usize = 1024;
/// Topics of one object that are remembered.
const TOPICS: usize = 128;
const MINUTE: Duration = Duration::from_secs(60);

/// What was said, by UID of the object.
#[derive(Default)]
pub(crate) struct Told(Mutex<HashMap<String, Said>>);

#[derive(Default)]
struct Said {
    /// By topic, what was said last.
    last: BTreeMap<String, String>,
    /// When something was said in the last minute.
    times: Vec<Instant>,
    touched: Option<Instant>,
}

impl Told {
    /// Writes a Warning Event about an object, unless it was said already.
    pub(crate) async fn warn<K: Object>(&self, cluster: &Cluster, object: &K, reason: &str, message: &str) {
        self.warn_of(cluster, object, "", reason, message).await;
    }

    /// The same, where an object has several topics: namespaces in a map, say.
    pub(crate) async fn warn_of<K: Object>(
        &self,
        cluster: &Cluster,
        object: &K,
        topic: &str,
        reason: &str,
        message: &str,
    ) {
        let uid = object.uid().unwrap_or_default();
        if self.is_news(&uid, &format!("{reason}/{topic}"), message, Instant::now()) {
            let kind = K::kind(&()).into_owned();
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            tracing::warn!(kind, namespace, object = name, topic, reason = message, "{reason}");
            cluster.event(object, "liqo-controller-manager", "Warning", reason, message).await;
        }
    }

    /// What was said about a topic no longer holds: it is said again when it does.
    pub(crate) fn settled<K: Object>(&self, object: &K, topic: &str, reason: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = all.get_mut(&object.uid().unwrap_or_default()) {
            said.last.remove(&format!("{reason}/{topic}"));
        }
    }

    fn is_news(&self, uid: &str, topic: &str, message: &str, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= OBJECTS && !all.contains_key(uid) {
            let silent = all.iter().min_by_key(|(_, said)| said.touched).map(|(uid, _)| uid.clone());
            silent.and_then(|uid| all.remove(&uid));
        }
        let said = all.entry(uid.to_owned()).or_default();
        said.touched = Some(now);
        if said.last.get(topic).is_some_and(|last| last == message) {
            return false;
        }
        said.times.retain(|then| now.duration_since(*then) < MINUTE);
        if said.times.len() >= PER_MINUTE {
            return false;
        }
        if said.last.len() >= TOPICS {
            said.last.clear();
        }
        said.times.push(now);
        said.last.insert(topic.to_owned(), message.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_said_once_and_ten_in_a_minute() {
        let (told, start) = (Told::default(), Instant::now());
        let say = |uid: &str, message: &str, after: u64| {
            told.is_news(uid, "topic", message, start + Duration::from_secs(after))
        };
        assert!(say("a", "0", 0));
        assert!(!say("a", "0", 0), "said already");
        assert_eq!((1..50).filter(|number| say("a", &number.to_string(), 0)).count(), 9);
        assert!(say("b", "0", 0), "another object");
        assert!(say("a", "50", 61));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (told, start) = (Told::default(), Instant::now());
        for number in 0..5_000_u64 {
            assert!(told.is_news(&number.to_string(), "topic", "x", start + Duration::from_millis(number)));
            assert!(told.is_news("one", &number.to_string(), "x", start + MINUTE * u32::try_from(number).unwrap()));
        }
        let all = told.0.lock().unwrap();
        assert_eq!((all.len(), all["one"].last.len() <= TOPICS), (OBJECTS, true));
    }
}
