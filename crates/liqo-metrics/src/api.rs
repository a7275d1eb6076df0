//! The API `metrics.liqo.io`, which the API server of this cluster serves to peers: `…/scrape/<cluster ID>/metrics` and its
//! subpaths.
//!
//! Keeps true: one peer waits for a few answers at a time, and for all peers together two are made at a time, in the order of the
//! questions, so that kubelets are not asked more often than they answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use liqo_core::exposition::Page;
use liqo_kube::{
    Store, now, refusals,
    server::{Peer, Reply, json, metrics, text},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{caller, kubelets::Kubelets, peer::held};

const GROUP: &str = "metrics.liqo.io";
const VERSION: &str = "metrics.liqo.io/v1alpha1";
/// Kubelets asked at the same time, for one answer.
const NODES: usize = 4;
/// Answers being made at the same time.
pub(crate) const ANSWERS: usize = 2;
/// Answers that one peer may wait for: its metrics-server asks for one page, its Prometheus for all four.
const OF_ONE_PEER: usize = 5;
/// Bytes of one answer.
const LONGEST: usize = 16 * 1024 * 1024;
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
    /// The nodes of this cluster, without virtual ones: what runs on those is told by their providers.
    pub(crate) nodes: Store<Node>,
    /// How the API server shows that it is the one that asks.
    pub(crate) authentication: Store<ConfigMap>,
    pub(crate) answers: Semaphore,
    /// How many answers each peer waits for.
    pub(crate) waiting: Mutex<BTreeMap<String, usize>>,
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
                let _turn = Turn::take(&self.waiting, id).ok_or_else(|| {
                    (StatusCode::TOO_MANY_REQUESTS, "too many answers about this cluster are waited for".to_owned())
                })?;
                let _answering = self.answers.acquire().await;
                self.scrape(id, &path).await
            }
        }
    }

    async fn scrape(&self, id: &str, path: &str) -> Result<Response<Reply>, (StatusCode, String)> {
        let (spaces, nodes) = held(id, &self.namespaces.all(), &self.pods.all());
        let nodes: Vec<_> = nodes.iter().filter_map(|name| self.nodes.get("", name)).collect();
        let (mut page, mut failed) = (Page::new(LONGEST), Vec::new());
        let count = nodes.len();
        let asked = nodes.into_iter().map(|node| async move { self.kubelets.ask(&node, path).await });
        let mut answers = stream::iter(asked).buffer_unordered(NODES);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(text) => page.add(&text, &spaces).map_err(|_too_long| {
                    (StatusCode::INSUFFICIENT_STORAGE, format!("the pods have more than {LONGEST} bytes of metrics"))
                })?,
                Err(why) => failed.push(why),
            }
        }
        if !failed.is_empty() {
            tracing::warn!(peer = id, path, reason = failed.join("; "), "metrics of some pods are missing");
        }
        if failed.len() == count && count > 0 {
            return Err((StatusCode::BAD_GATEWAY, failed.join("; ")));
        }
        if path == RESOURCES {
            page.add_node(now().0.as_millisecond());
        }
        Ok(metrics(page.text()))
    }
}

/// That an answer about a peer is waited for.
struct Turn<'a> {
    waiting: &'a Mutex<BTreeMap<String, usize>>,
    id: String,
}

impl<'a> Turn<'a> {
    fn take(waiting: &'a Mutex<BTreeMap<String, usize>>, id: &str) -> Option<Self> {
        let mut counts = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(id.to_owned()).or_default();
        if *count == OF_ONE_PEER {
            return None;
        }
        *count += 1;
        Some(Self { waiting, id: id.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut counts = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
        }
        counts.retain(|_, count| *count > 0);
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

    #[test]
    fn a_peer_waits_for_a_few_answers_at_a_time() {
        let waiting = Mutex::default();
        let mut turns: Vec<_> = (0..OF_ONE_PEER).map(|_| Turn::take(&waiting, "rome").unwrap()).collect();
        assert!(Turn::take(&waiting, "rome").is_none() && Turn::take(&waiting, "turin").is_some());
        turns.pop();
        assert!(Turn::take(&waiting, "rome").is_some());
        drop(turns);
        assert!(waiting.lock().unwrap().is_empty());
    }
}
