//! Texts of Events and log lines that were written already, so that each text is written once.
//!
//! Keeps true: a text about one topic of an object is news only after another text about that topic, or after the topic was
//! settled; about a topic whose text callers choose, one text is written in [`SELDOM`]. [`Cluster::event`] bounds the Events of one object
//! in a minute; an Event that was left out is written at the next opportunity. The memory is bounded, whatever peers do.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt;

use crate::{Cluster, Object, refusals};

/// Objects that are remembered; for one more, the object that was silent longest is forgotten.
const OBJECTS: usize = 4096;
/// Topics of one object that are remembered; for one more, all topics of the object are forgotten.
const TOPICS: usize = 128;
/// Pause between two texts about a topic whose texts callers choose.
const SELDOM: Duration = Duration::from_secs(600);

/// The last text about each topic of each object. Clones share the memory.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<HashMap<String, Said>>>);

#[derive(Debug, Default)]
struct Said {
    /// The last text, by topic.
    last: BTreeMap<String, Text>,
    touched: Option<Instant>,
}

/// A text that was told.
#[derive(Clone, Copy, Debug)]
struct Text {
    /// Texts of peers are long.
    hash: u64,
    when: Instant,
}

impl Told {
    /// Whether `text` differs from the last one about this topic of the object; `text` is the last one from now on.
    pub fn is_news(&self, object: &str, topic: &str, text: &str) -> bool {
        self.differs(object, topic, text, Instant::now())
    }

    /// Whether nothing was told about this topic of the object for ten minutes, for topics about which a caller chooses text and
    /// pace; if so, something is told from now on. Only objects of this cluster may be named: a caller who chose the object would
    /// have others forgotten.
    pub fn is_due(&self, object: &str, topic: &str) -> bool {
        self.is_due_at(object, topic, Instant::now())
    }

    /// The topic is settled: the same text is news when it comes again.
    pub fn settle(&self, object: &str, topic: &str) {
        if let Some(said) = self.lock().get_mut(object) {
            said.last.remove(topic);
        }
    }

    /// Forgets an object that is gone, or about which every topic is settled.
    pub fn forget(&self, object: &str) {
        self.lock().remove(object);
    }

    /// Writes a Warning Event of `component` about an object, a log line and a refusal of the door `controller`, unless the user was
    /// told the same about this topic (for objects with several: namespaces in a map, say). Objects are told apart by their UIDs.
    pub async fn warn<K: Object>(
        &self,
        (cluster, component): (&Cluster, &str),
        object: &K,
        topic: &str,
        reason: &'static str,
        message: &str,
    ) {
        let (uid, topic_of_reason) = (object.uid().unwrap_or_default(), format!("{reason}/{topic}"));
        if !self.is_news(&uid, &topic_of_reason, message) {
            return;
        }
        if !self.write((cluster, component), object, (&uid, &topic_of_reason), ("Warning", reason), message).await {
            return;
        }
        refusals::count("controller", reason);
        let kind = K::kind(&()).into_owned();
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        tracing::warn!(kind, namespace, object = name, topic, reason = message, "{reason}");
    }

    /// Writes an Event of this type and reason about an object, after [`Told::is_news`] said so for this key and topic. `false`: the
    /// Event was left out, and the same text is news the next time.
    pub async fn write<K: Object>(
        &self,
        (cluster, component): (&Cluster, &str),
        object: &K,
        (key, topic): (&str, &str),
        (kind, reason): (&str, &str),
        message: &str,
    ) -> bool {
        let is_written = cluster.event(object, component, kind, reason, message).await;
        if !is_written {
            self.settle(key, topic);
        }
        is_written
    }

    /// The topic about which [`Told::warn`] wrote is settled.
    pub fn settled<K: Object>(&self, object: &K, topic: &str, reason: &str) {
        self.settle(&object.uid().unwrap_or_default(), &format!("{reason}/{topic}"));
    }

    fn differs(&self, object: &str, topic: &str, text: &str, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let before = self.replace(object, topic, |_| Some(Text { hash, when: now }), now);
        before.is_none_or(|before| before.hash != hash)
    }

    fn is_due_at(&self, object: &str, topic: &str, now: Instant) -> bool {
        let is_due = |last: Option<Text>| last.is_none_or(|last| now.duration_since(last.when) >= SELDOM);
        let before = self.replace(object, topic, |last| is_due(last).then_some(Text { hash: 0, when: now }), now);
        is_due(before)
    }

    /// Puts a text, if `new` makes one of the last text about a topic, in place of the last text, and returns the last text.
    fn replace(
        &self,
        object: &str,
        topic: &str,
        new: impl FnOnce(Option<Text>) -> Option<Text>,
        now: Instant,
    ) -> Option<Text> {
        let mut all = self.lock();
        if all.len() >= OBJECTS && !all.contains_key(object) {
            let silent = all.iter().min_by_key(|(_, said)| said.touched).map(|(object, _)| object.clone());
            silent.and_then(|object| all.remove(&object));
        }
        let said = all.entry(object.to_owned()).or_default();
        said.touched = Some(now);
        if said.last.len() >= TOPICS && !said.last.contains_key(topic) {
            said.last.clear();
        }
        let last = said.last.get(topic).copied();
        if let Some(new) = new(last) {
            said.last.insert(topic.to_owned(), new);
        }
        last
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_news_after_another_one_about_its_topic() {
        let told = Told::default();
        assert!(told.is_news("a", "topic", "0"));
        assert!(!told.is_news("a", "topic", "0"));
        assert!(told.is_news("b", "topic", "0"), "another object");
        assert!(told.is_news("a", "other", "0"), "another topic");
        assert!(told.is_news("a", "topic", "1") && told.is_news("a", "topic", "0"), "another text");
        told.settle("a", "topic");
        assert!(told.is_news("a", "topic", "0") && !told.is_news("a", "other", "0"), "one topic was settled");
        told.forget("a");
        assert!(told.is_news("a", "other", "0") && !told.is_news("b", "topic", "0"), "one object was forgotten");
    }

    #[test]
    fn a_topic_is_told_of_seldom_whatever_the_text() {
        let (told, start) = (Told::default(), Instant::now());
        for (object, topic, after, wanted) in [
            ("a", "topic", 0, true),
            ("a", "topic", 599, false),
            ("b", "topic", 599, true),
            ("a", "other", 599, true),
            ("a", "topic", 600, true),
            ("a", "topic", 1199, false),
        ] {
            let now = start + Duration::from_secs(after);
            assert_eq!(told.is_due_at(object, topic, now), wanted, "{object} {topic} {after}");
        }
        told.settle("a", "topic");
        assert!(told.is_due_at("a", "topic", start + Duration::from_secs(1199)), "an Event that was left out is due");
    }

    #[test]
    fn the_memory_is_bounded() {
        let (told, start) = (Told::default(), Instant::now());
        for number in 0..10_000_u64 {
            let now = start + Duration::from_millis(number);
            told.differs(&number.to_string(), "topic", "x", now);
            told.differs("one", &number.to_string(), "x", now);
        }
        let all = told.lock();
        assert_eq!((all.len(), all["one"].last.len() <= TOPICS), (OBJECTS, true));
        assert!(all.contains_key("9999") && !all.contains_key("0"), "who was silent longest is forgotten");
    }
}
