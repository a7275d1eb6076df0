//! What of an object is not as the user wants it in the other cluster: an Event, once for each new text.

use std::sync::Arc;

use kube::ResourceExt;
use liqo_kube::{Cluster, Object, told::Told};

use super::component;

/// Called for the object of a name with what is wrong with it; with nothing when all is well, or it is gone.
pub(super) type Complain<K> = Arc<dyn Fn(&str, Option<(&K, String)>) + Send + Sync>;

/// Reason of Events about an object that is not in the other cluster, or lacks an address there.
pub(super) const FAILED: &str = "FailedReflection";
/// Reason of Events about an object that is in the other cluster without something it has here.
pub(super) const INCOMPLETE: &str = "IncompleteReflection";

/// Complaints that users of a kind find in the Events of its objects, with this reason.
pub(super) fn by_event<K: Object>(home: &Cluster, kind: &'static str, reason: &'static str) -> Complain<K> {
    let (home, told) = (home.clone(), Told::default());
    Arc::new(move |name, complaint| {
        let Some((object, text)) = complaint else { return told.forget(name) };
        if !told.is_news(name, "", &text) {
            return;
        }
        let (cluster, object, told, name) = (home.clone(), object.clone(), told.clone(), name.to_owned());
        tracing::warn!(kind, namespace = object.namespace(), name, reason = text, "object is not wholly reflected");
        // Nobody waits for an Event.
        tokio::spawn(async move {
            told.write((&cluster, &component(kind)), &object, (&name, ""), ("Warning", reason), &text).await;
        });
    })
}
