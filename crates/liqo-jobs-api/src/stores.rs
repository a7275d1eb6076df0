//! The stores that jobs can choose. Submitters have no rights where `ResultStore`s are: they see names and whether a store is ready, and
//! neither addresses nor what the store answered.

use axum::{
    extract::{Extension, RawQuery, State},
    response::Response,
};
use http::{HeaderMap, Method};
use kube::ResourceExt;
use liqo_api::jobs::ResultStore;
use liqo_front::{
    json,
    page::{Cut, Page},
    problem::Problem,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{AppState, Known, What};

/// A store for results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StoreView {
    /// Name, for `resultStore` of a job.
    name: String,
    /// Whether jobs can start that choose the store.
    ready: bool,
    /// One word: why, or why not.
    reason: String,
}

impl StoreView {
    /// A store as a caller sees it.
    fn of(store: &ResultStore) -> Self {
        Self { name: store.name_any(), ready: store.fit().is_ok(), reason: store.reason().to_owned() }
    }
}

/// The stores that jobs can choose besides the embedded one, by name
#[utoipa::path(get, path = "/api/v1/stores",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Most items, 1 to 500"), ("after" = Option<String>, Query, description = "The `next` of a page")),
    responses((status = 200, body = Page<StoreView>), (status = 400, body = Problem), (status = 403, body = Problem)))]
pub(crate) async fn list_stores(
    State(app): AppState,
    Extension(caller): Known,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cut = Cut::read(query.as_deref())?;
    app.may(&caller.user, "list", What::Jobs, "").await?;
    let page = cut.of(&app.world.store.others(), |one| one.name_any());
    json::answer(&method, &headers, &page.map(|one| StoreView::of(&one)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_caller_sees_no_address_and_no_answer_of_a_store() {
        let spec =
            json!({"endpoint": "http://secret-place", "bucket": "results", "secretName": "k", "shareKeys": true});
        let mut store = ResultStore::new("s", serde_json::from_value(spec).unwrap());
        assert_eq!(StoreView::of(&store).reason, "Unknown");
        let condition = json!({"type": "Ready", "status": "False", "reason": "Unreachable", "message": "http://secret-place is away",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        store.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
        let told = serde_json::to_value(StoreView::of(&store)).unwrap();
        assert_eq!(told, json!({"name": "s", "ready": false, "reason": "Unreachable"}));
    }
}
