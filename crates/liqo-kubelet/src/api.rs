//! The kubelet API of the virtual node: logs, exec, attach, port-forward, statistics. Its client is the own
//! API server; what it asks about a pod here is asked about its twin there.
//!
//! Keeps true: nobody is answered who has not shown who they are and may not do with this node what they ask
//! for; nothing is passed on about pods that are not ours.

mod access;
mod certificate;
mod pass;
mod route;
mod summary;

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::{ResourceExt, api::ListParams};
use liqo_core::exposition::{Page, Space};
use liqo_kube::{
    Cluster, Store,
    certs::Shown,
    life::Life,
    now, refusals,
    server::{self, Limits, Listen, Peer, Reply, json, text},
};
use serde_json::json;

use self::{
    access::Access,
    certificate::Serving,
    route::{Route, Target},
    summary::PodMetricsList,
};
use crate::{
    args::NodeArgs,
    link::Link,
    reflect::{Pairs, Place},
};

/// Answers may be streams that last, like logs that are followed, and all come from the API server.
const LIMITS: Limits = Limits { connections: 2048, per_source: 1024, answer: None, ..Limits::DEFAULT };

/// Bytes of a page of metrics.
const LONGEST_PAGE: usize = 16 * 1024 * 1024;

/// What the API needs from the rest of the process.
pub(crate) struct Surroundings {
    /// The own cluster.
    pub(crate) home: Cluster,
    /// The other one.
    pub(crate) there: Cluster,
    /// Who is linked.
    pub(crate) link: Arc<Link>,
    /// All pods of the node.
    pub(crate) pods: Store<Pod>,
    /// Where namespaces are, there.
    pub(crate) pairs: Arc<Pairs>,
}

/// Why a request is not answered.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

/// Starts to serve, and to look after the certificate.
pub(crate) fn start(life: &Life, args: &NodeArgs, around: Surroundings) {
    let shown = Arc::new(Shown::default());
    let serving = Serving {
        home: around.home.clone(),
        node: args.name.clone(),
        ip: args.ip.clone(),
        kind: args.certificate_type,
        shown: Arc::clone(&shown),
    };
    life.spawn("serving-certificate", serving.run());

    let address = Listen::All(args.listen_port);
    let home = around.home.clone();
    let access = Access::new(around.home.clone(), args.name.clone());
    let api = Arc::new(Api { around, access, started: now(), scraping: tokio::sync::Mutex::default() });
    let life_of_server = (life.drain().clone(), life.busy());
    life.spawn("kubelet-api", async move {
        let answer = move |request, peer| {
            let api = Arc::clone(&api);
            async move { api.answer(request, peer).await }
        };
        server::serve_users(&home, address, LIMITS, life_of_server, shown, answer).await
    });
}

struct Api {
    around: Surroundings,
    access: Access,
    started: Time,
    /// Held while a page of metrics is made: pages are large, and the provider may answer slowly.
    scraping: tokio::sync::Mutex<()>,
}

impl Api {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Reply> {
        let outcome = self.handle(request, &peer).await;
        outcome.unwrap_or_else(|refusal| {
            refusals::count("kubelet", refusals::reason_of(refusal.status.as_u16()));
            text(refusal.status, &refusal.text)
        })
    }

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Result<Response<Reply>, Refusal> {
        let path = request.uri().path();
        self.access.check(peer, request.headers(), route::permission(request.method(), path)).await?;
        let Some(route) = route::route(path) else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, format!("a virtual kubelet has no {path}")));
        };
        if !matches!(route, Route::Stream(..)) && request.method() != Method::GET {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} can only be read")));
        }
        let there = &self.around.there;
        match route {
            Route::Health => Ok(text(StatusCode::OK, "ok")),
            Route::Pods => Ok(self.pods()),
            Route::Summary => self.summary().await,
            Route::Metrics(page) => self.metrics_of(page).await,
            Route::Logs(target) => {
                let namespace = self.namespace_there(&target)?;
                pass::get(there, &route::path_there(&namespace, &target, "log", request.uri().query())).await
            }
            Route::Stream(subresource, target) => {
                let namespace = self.namespace_there(&target)?;
                let path = route::path_there(&namespace, &target, subresource, request.uri().query());
                pass::stream(there, &path, request).await
            }
        }
    }

    /// The namespace there of a pod, if the pod is on our node and its twin is ours.
    fn namespace_there(&self, target: &Target) -> Result<String, Refusal> {
        let Target { namespace, pod, .. } = target;
        let Surroundings { link, pods, pairs, .. } = &self.around;
        let missing = |why: String| Refusal::new(StatusCode::NOT_FOUND, why);
        if pods.get(namespace, pod).is_none() {
            return Err(missing(format!("pod {namespace}/{pod} is not on node {}", link.node)));
        }
        let Some(Place { namespace: there, pods: twins }) = pairs.place(namespace) else {
            return Err(missing(format!(
                "namespace {namespace} is not offloaded to cluster {}",
                link.there.cluster_name
            )));
        };
        let twin = twins.and_then(|twins| twins.get(&there, pod));
        if !twin.is_some_and(|twin| link.made(&*twin)) {
            return Err(missing(format!("pod {namespace}/{pod} is not in cluster {} yet", link.there.cluster_name)));
        }
        Ok(there)
    }

    fn pods(&self) -> Response<Reply> {
        let pods = self.around.pods.all();
        let items: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
        json(StatusCode::OK, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    async fn summary(&self) -> Result<Response<Reply>, Refusal> {
        let Surroundings { link, pairs, .. } = &self.around;
        let mut all = Vec::new();
        for (here, place) in pairs.places() {
            let Some(metrics) = self.metrics(&here, &place).await? else {
                all = self.scraped().await?;
                break;
            };
            all.push((self.pods_in(&here), metrics));
        }
        Ok(json(StatusCode::OK, &summary::summary(&link.node, &self.started, &now(), &all)))
    }

    fn pods_in(&self, namespace: &str) -> Vec<Arc<Pod>> {
        self.around.pods.filter(|pod| pod.namespace().as_deref() == Some(namespace))
    }

    /// Metrics of a namespace, from the provider's metrics API; `None`: the provider has no metrics API.
    async fn metrics(&self, here: &str, place: &Place) -> Result<Option<PodMetricsList>, Refusal> {
        let Surroundings { link, there, .. } = &self.around;
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", place.namespace);
        let request = kube::core::Request::new(path).list(&ListParams::default().labels(&link.selector()));
        match there.ask::<Pod, PodMetricsList>("list-metrics", &place.namespace, request).await {
            Ok(metrics) => Ok(Some(metrics)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => {
                let text = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                let status =
                    error.code().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::BAD_GATEWAY);
                Err(Refusal::new(status, format!("metrics of namespace {here} there: {text}")))
            }
        }
    }

    /// The metrics of all namespaces, from the provider's metric agent.
    async fn scraped(&self) -> Result<Vec<(Vec<Arc<Pod>>, PodMetricsList)>, Refusal> {
        let page = self.page("metrics/resource").await?.text();
        Ok(summary::read(&page).into_iter().map(|(here, metrics)| (self.pods_in(&here), metrics)).collect())
    }

    /// A page of metrics as a kubelet has it, of our pods.
    async fn metrics_of(&self, path: &str) -> Result<Response<Reply>, Refusal> {
        let mut page = self.page(path).await?;
        if path == "metrics/resource" {
            page.add_node(now().0.as_millisecond());
        }
        Ok(server::metrics(page.text()))
    }

    /// A page of the provider's metric agent, with the samples of our pods only. One page is made at a time.
    async fn page(&self, path: &str) -> Result<Page, Refusal> {
        let _alone = self.scraping.lock().await;
        let told = self.scrape(path).await?;
        let spaces = self.around.pairs.places().into_iter().map(|(here, _)| {
            let pods = self.pods_in(&here).iter().map(|pod| pod.name_any()).collect();
            (here.clone(), Space { name: here, pods })
        });
        let mut page = Page::new(LONGEST_PAGE);
        let outcome = page.add(&told, &spaces.collect());
        outcome.map_err(|_too_long| Refusal::new(StatusCode::BAD_GATEWAY, "the page of the provider is too long"))?;
        Ok(page)
    }

    /// The answer of the provider's metric agent. The answer is a claim: a provider may name pods that the provider does not run.
    async fn scrape(&self, page: &str) -> Result<String, Refusal> {
        let id = &self.around.link.here.cluster_id;
        pass::text_soon(&self.around.there, &format!("/apis/metrics.liqo.io/v1alpha1/scrape/{id}/{page}")).await
    }
}
