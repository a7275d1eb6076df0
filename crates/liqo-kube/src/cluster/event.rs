//! What users are told about objects.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use kube::{ResourceExt, api::ObjectMeta};

use super::{Cluster, Object, name_of};
use crate::now;

impl Cluster {
    /// Tells the user about `object`: an Event in its namespace. Call it on transitions only. `false` says that this Event was
    /// left out, because there were too many about the object or in the namespace (module `events`).
    pub async fn event<K: Object>(&self, object: &K, component: &str, kind: &str, reason: &str, message: &str) -> bool {
        let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
        if !self.events.take(&namespace, format!("{} {}", K::kind(&()), name_of(object))) {
            tracing::debug!(kind = %K::kind(&()), object = name_of(object), reason, "event not recorded: too many");
            return false;
        }
        let time = now();
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", object.name_any())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: reference(object),
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.chars().take(1024).collect()),
            source: Some(EventSource { component: Some(component.to_owned()), host: None }),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            count: Some(1),
            ..Event::default()
        };
        let outcome = self.create(&event).await;
        if let Err(error) = &outcome {
            tracing::debug!(error = error as &dyn std::error::Error, "event not recorded");
        }
        outcome.is_ok()
    }
}

/// A reference to `object`, as Events carry it.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.namespace(),
        uid: object.uid(),
        resource_version: object.resource_version(),
        field_path: None,
    }
}
