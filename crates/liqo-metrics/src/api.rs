//! The API `metrics.liqo.io`, which the API server of this cluster serves to peers: `…/scrape/<cluster ID>/metrics` and its
//! subpaths.
//!
//! Keeps true: one peer asks so often, waits for a few answers, and has one made at a time; two are made at a time for all peers
//! together, each in a bounded time, so that kubelets are not asked more often than they answer. The answers that are on their way
//! are bounded, too: a peer that does not read has one.

mod turn;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use liqo_core::exposition::Page;
use liqo_kube::{
    Store, now, refusals,
    server::{Peer, Reply, json, metrics, text, too_many, until_sent},
    told::Told,
};
use serde_json::{Value, json};

pub(crate) use self::turn::Turns;
use crate::{caller, kubelets::Kubelets, peer::held};

const GROUP: &str = "metrics.liqo.io";
const VERSION: &str = "metrics.liqo.io/v1alpha1";
/// Kubelets asked at the same time, for one answer.
const NODES: usize = 2;
/// Time limit for the kubelets of one answer: metrics-server waits for ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);
/// Bytes of one answer.
const LONGEST: usize = 8 * 1024 * 1024;
/// The page on which a node says what it uses.
const RESOURCES: &str = "metrics/resource";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    /// The document with all groups, this group, or its resources.
    Groups,
    Group,
    Resources,
    /// A page of kubelets, about the pods of a cluster.
    Scrape(&'a str, String),
}

fn route(path: &str) -> Option<Route<'_>> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    Some(match parts[..] {
        ["apis"] => Route::Groups,
        ["apis", GROUP] => Route::Group,
        ["apis", GROUP, "v1alpha1"] => Route::Resources,
        ["apis", GROUP, "v1alpha1", "scrape", id, "metrics"] => Route::Scrape(id, "metrics".to_owned()),
        ["apis", GROUP, "v1alpha1", "scrape", id, "metrics", page @ ("resource" | "cadvisor" | "probes")] => {
            Route::Scrape(id, format!("metrics/{page}"))
        }
        _ => return None,
    })
}

fn group() -> Value {
    let version = json!({"groupVersion": VERSION, "version": "v1alpha1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version})
}

fn resources() -> Value {
    let resource =
        |name: &str| json!({"name": name, "singularName": "", "namespaced": false, "kind": "Scrape", "verbs": ["get"]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION,
        "resources": [resource("scrape"), resource("scrape/metrics")]})
}

/// What answers are made of.
pub(crate) struct Api {
    pub(crate) kubelets: Kubelets,
    pub(crate) namespaces: Store<Namespace>,
    pub(crate) pods: Store<Pod>,
    /// The nodes of this cluster, without virtual nodes: providers report the pods of virtual nodes.
    pub(crate) nodes: Store<Node>,
    /// The `ConfigMap` with the authorities and header names by which the API server authenticates itself (front proxy).
    pub(crate) authentication: Store<ConfigMap>,
    pub(crate) turns: Turns,
    /// The warnings that were logged about each peer.
    pub(crate) told: Told,
}

impl Api {
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Reply> {
        match self.handle(&request, &peer).await {
            Ok(response) => response,
            Err((status, why)) => {
                refusals::count("metric-agent", refusals::reason_of(status.as_u16()));
                text(status, &why)
            }
        }
    }

    async fn handle(&self, request: &Request<Incoming>, peer: &Peer) -> Result<Response<Reply>, (StatusCode, String)> {
        let route = route(request.uri().path());
        let route = route.ok_or_else(|| (StatusCode::NOT_FOUND, "there is nothing at this path".to_owned()))?;
        if request.method() != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read".to_owned()));
        }
        match route {
            Route::Groups => {
                let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]});
                Ok(json(StatusCode::OK, &groups))
            }
            Route::Group => Ok(json(StatusCode::OK, &group())),
            Route::Resources => Ok(json(StatusCode::OK, &resources())),
            Route::Scrape(id, path) => {
                let authentication = self.authentication.all().pop();
                let checked = caller::check(peer, request.headers(), authentication.as_deref(), id);
                checked.map_err(|why| (StatusCode::FORBIDDEN, why.to_owned()))?;
                let turn = match self.turns.take(id) {
                    Ok(turn) => turn,
                    Err(turn::Refused::TooOften(wait)) => return Ok(too_many(wait)),
                    Err(turn::Refused::Busy) => {
                        let why = "too many answers are waited for, or not read: try again later";
                        return Err((StatusCode::SERVICE_UNAVAILABLE, why.to_owned()));
                    }
                };
                let alone = turn.alone().await;
                let making = self.turns.making().await;
                let response = self.scrape(id, &path).await?;
                drop(making);
                Ok(until_sent(response, (turn, alone)))
            }
        }
    }

    async fn scrape(&self, id: &str, path: &str) -> Result<Response<Reply>, (StatusCode, String)> {
        let (spaces, nodes) = held(id, &self.namespaces.all(), &self.pods.all());
        let nodes: Vec<_> = nodes.iter().filter_map(|name| self.nodes.get("", name)).collect();
        let (mut page, mut failed, mut added) = (Page::new(LONGEST), Vec::new(), nodes.is_empty());
        let until = Instant::now() + PATIENCE;
        let asked = nodes.into_iter().map(|node| async move {
            let left = until.saturating_duration_since(Instant::now());
            self.kubelets.ask(&node, path, left).await
        });
        let mut answers = stream::iter(asked).buffer_unordered(NODES);
        while let Some(answer) = answers.next().await {
            let outcome = answer.and_then(|text| {
                added = true;
                page.add(&text, &spaces).map_err(|_too_long| format!("there are more than {LONGEST} bytes"))
            });
            failed.extend(outcome.err());
        }
        let reasons = failed.join("; ");
        if !failed.is_empty() && self.told.is_due(id, path) {
            tracing::warn!(peer = id, path, reason = reasons, "metrics of some pods are missing");
        }
        if !added {
            return Err((StatusCode::BAD_GATEWAY, reasons));
        }
        if path == RESOURCES {
            page.add_node(now().0.as_millisecond());
        }
        Ok(metrics(page.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_liqo() {
        let scrape = |path: &str| Some(Route::Scrape("x", path.to_owned()));
        let base = "/apis/metrics.liqo.io/v1alpha1";
        for (path, wanted) in [
            ("/apis".to_owned(), Some(Route::Groups)),
            ("/apis/metrics.liqo.io".to_owned(), Some(Route::Group)),
            (base.to_owned(), Some(Route::Resources)),
            (format!("{base}/scrape/x/metrics"), scrape("metrics")),
            (format!("{base}/scrape/x/metrics/resource"), scrape("metrics/resource")),
            (format!("{base}/scrape/x/metrics/cadvisor"), scrape("metrics/cadvisor")),
            (format!("{base}/scrape/x/metrics/probes"), scrape("metrics/probes")),
            (format!("{base}/scrape/x/metrics/other"), None),
            (format!("{base}/scrape/x/exec/a/b/c"), None),
            (format!("{base}/scrape/x"), None),
            ("/metrics".to_owned(), None),
        ] {
            assert_eq!(route(&path), wanted, "{path}");
        }
    }
}
