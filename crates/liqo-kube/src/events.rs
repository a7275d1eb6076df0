//! How many Events one process writes.
//!
//! Keeps true: the objects of one namespace, which may all belong to one peer, leave room for Events in other namespaces.

use std::time::Duration;

use crate::rate::{Limiter, Rate};

/// Events about one object.
const OF_OBJECT: Rate = Rate::new(20, Duration::from_secs(6));
/// Events in one namespace.
const IN_NAMESPACE: Rate = Rate::new(300, Duration::from_millis(100));
/// All Events: more than the Events in all namespaces that one peer may have by default.
const ALL: Rate = Rate::new(20_000, Duration::from_millis(1));
/// Objects, and namespaces, that are remembered.
const REMEMBERED: usize = 16_384;

/// Counts Events, in namespaces and of objects.
#[derive(Debug)]
pub(crate) struct Events {
    namespaces: Limiter<String>,
    objects: Limiter<String>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            namespaces: Limiter::new(IN_NAMESPACE, ALL, REMEMBERED),
            objects: Limiter::new(OF_OBJECT, ALL, REMEMBERED),
        }
    }
}

impl Events {
    /// Counts one Event about an object; `false`: there were too many about the object, or in its namespace. An Event that is
    /// refused for its object counts for no namespace.
    pub(crate) fn take(&self, namespace: &str, object: String) -> bool {
        self.objects.is_free(&object)
            && self.namespaces.take(namespace.to_owned()).is_ok()
            && self.objects.take(object).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_namespace_leaves_room_for_others() {
        let events = Events::default();
        let told = (0..30_000).filter(|one| events.take("loud", format!("Pod loud/{one}"))).count();
        assert!((300..400).contains(&told), "{told} Events in one namespace");
        assert!(events.take("quiet", "Pod quiet/a".to_owned()));
    }

    #[test]
    fn a_loud_object_leaves_room_for_others() {
        let events = Events::default();
        let told = (0..1_000).filter(|_| events.take("demo", "Pod demo/loud".to_owned())).count();
        assert!((20..30).contains(&told), "{told} Events about one object");
        assert!(events.take("demo", "Pod demo/quiet".to_owned()));
    }
}
