//! Reading: one object, all objects, and watches.
#![expect(clippy::disallowed_types, reason = "part of the one door to API servers")]

use std::{sync::Arc, time::Duration};

use kube::api::{ApiResource, DynamicObject, GetParams, ListParams, ObjectList};
use serde_json::Value;

use super::{
    Cluster, KubeError, LIST_DEADLINE, Object,
    error::{Cause, failure, kube_text},
    path, space,
};
use crate::{budget::weight, watch::Watch};

/// Page size of lists: bounds the memory a list needs at its peak.
const PAGE: u32 = 200;

impl Cluster {
    /// Something that keeps all `K` of a namespace (empty: of all namespaces) in memory.
    pub fn watch<K: Object>(&self, namespace: &str) -> Watch<K> {
        let (client, kind) = (self.client.clone(), ApiResource::erase::<K>(&()));
        let api = match space::<K>(namespace) {
            Some(namespace) => kube::Api::<DynamicObject>::namespaced_with(client, namespace, &kind),
            None => kube::Api::all_with(client, &kind),
        };
        Watch::new(api, kind.kind, Arc::clone(&self.calls), Arc::clone(&self.budget))
    }

    /// The object, if it exists.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, KubeError> {
        let request = path::<K>(namespace).get(name, &GetParams::default());
        match self.ask::<K, K>("get", name, request).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a namespace (empty: of all namespaces) that match a label selector (empty: any).
    pub async fn list<K: Object>(&self, namespace: &str, labels: &str) -> Result<Vec<K>, KubeError> {
        let mut params = ListParams::default().limit(PAGE);
        if !labels.is_empty() {
            params = params.labels(labels);
        }
        let began = tokio::time::Instant::now();
        let (mut all, mut rooms, kind) = (Vec::new(), Vec::new(), K::kind(&()));
        let failed = |cause| failure("list", &kind, namespace, cause);
        loop {
            let request = path::<K>(namespace).list(&params).map_err(kube::Error::BuildRequest);
            let page = self.answer("list", &kind, namespace, request).await?;
            // Each page counts as one more object, because a hostile API server may send empty pages for ever.
            let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
            for bytes in items.map(weight).chain([0]) {
                rooms.push(self.budget.room(bytes).map_err(|error| failed(Cause::TooMuch(error)))?);
            }
            let page: ObjectList<K> = serde_json::from_value(page).map_err(|error| failed(Cause::of_json(error)))?;
            all.extend(page.items);
            if began.elapsed() > LIST_DEADLINE {
                return Err(failed(Cause::Endless));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Whether the API server answers, within `limit`.
    pub async fn alive(&self, limit: Duration) -> Result<(), String> {
        let request = http::Request::get("/livez").body(Vec::new()).expect("a valid request");
        match tokio::time::timeout(limit, self.client.request_text(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(kube_text(&error)),
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        }
    }
}
