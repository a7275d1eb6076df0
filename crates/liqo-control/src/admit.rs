//! What the API server asks us before it accepts an object. The authentication service asks at the same port, and is
//! answered by [`Issuer`].
//!
//! Keeps true: every replica answers alike, whoever leads; nothing here answers with an internal error
//! because another object is missing; the certificates are made, renewed and trusted without help.
//!
//! Watches   `NamespaceOffloading`s, remote `Namespace`s, the `ConfigMap` `liqo-peer-policy` and, with resource
//!           enforcement, `ShadowPod`s, the `Pod`s made from them and `ResourceOffer`s.
//! Writes    nothing; see `certificates` for what keeps the server trusted.
//! Removes   nothing.

mod certificates;
mod foreign_cluster;
mod namespace_offloading;
mod peer;
mod pod;
mod quota;
mod review;
mod shadow_pod;

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, meta::label, names, offloading::NamespaceOffloading};
use liqo_kube::{
    Cluster, Store,
    certs::{self, Shown},
    life::Life,
    server::{self, Limits, Listen, Reply},
    strip,
};

use self::{
    quota::Quota,
    review::{Request as Asked, Verdict},
};
use crate::{home::Home, manager::ManagerArgs, offload::guest::GuestArgs, peering::issuer::Issuer};

/// Longest review accepted: two objects of the size etcd takes (1.5 MiB), and what is around them.
const LONGEST: usize = (3 << 20) + (128 << 10);

/// What answers are made from.
struct Context {
    cluster: Cluster,
    identity: ClusterIdentity,
    /// The Liqo namespace.
    home: String,
    offloadings: Store<NamespaceOffloading>,
    /// Namespaces made for peers.
    namespaces: Store<Namespace>,
    /// What pods of peers may ask for.
    guests: GuestArgs,
    /// Bookkeeping of peers' resources; `None`: not enforced.
    quota: Option<Quota>,
    /// What peers may write.
    door: peer::Door,
    /// Who is given an identity.
    issuer: Arc<Issuer>,
}

/// Starts the webhook server and what keeps its certificates.
///
/// # Errors
/// When the port of the webhooks is none.
pub(crate) fn spawn(home: &Home, args: &ManagerArgs, issuer: &Arc<Issuer>, life: &Life) -> Result<(), String> {
    if args.webhook_port == 0 {
        return Err("--webhook-port 0 is no port: the Service of the webhooks needs a fixed one, like 9443".to_owned());
    }
    certs::install_crypto();
    let shown = Arc::new(Shown::default());
    let busy = life.busy();
    life.spawn("webhook-certificates", certificates::run(home.clone(), Arc::clone(&shown), busy));
    let context = Arc::new(Context {
        cluster: home.cluster.clone(),
        identity: home.identity.clone(),
        home: home.namespace.clone(),
        offloadings: home.cluster.watch::<NamespaceOffloading>("").start(|_| {}),
        namespaces: watch_namespaces(&home.cluster),
        guests: args.guests.clone(),
        quota: args.enable_resource_enforcement.then(|| Quota::watch(&home.cluster, &home.identity)),
        door: peer::Door::watch(home),
        issuer: Arc::clone(issuer),
    });
    life.spawn("webhooks", serve(context, args.webhook_port, shown, life.clone(), life.busy()));
    Ok(())
}

fn watch_namespaces(cluster: &Cluster) -> Store<Namespace> {
    let trim = |namespace: &mut Namespace| {
        strip(namespace);
        (namespace.spec, namespace.status, namespace.metadata.annotations) = (None, None, None);
    };
    cluster.watch::<Namespace>("").labels(label::REMOTE_CLUSTER_ID).trim(trim).start(|_| {})
}

async fn serve(
    context: Arc<Context>,
    port: u16,
    shown: Arc<Shown>,
    life: Life,
    busy: liqo_kube::life::Busy,
) -> Result<(), String> {
    let listener = Listen::All(port).bind().await?;
    context.offloadings.ready().await;
    context.namespaces.ready().await;
    context.door.ready().await;
    drop(busy);
    let tls = certs::server_config(shown);
    let answer = move |request, _peer| {
        let context = Arc::clone(&context);
        async move { answer(&context, request).await }
    };
    server::serve_within(Limits::default(), life.drain(), listener, Some(tls), answer).await;
    Ok(())
}

async fn answer(context: &Context, request: Request<Incoming>) -> Response<Reply> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    if Issuer::hears(&path) {
        return context.issuer.answer(&path, request).await;
    }
    let Some(hook) = Hook::of(&path) else {
        return server::text(StatusCode::NOT_FOUND, &format!("there is no webhook {path:?}"));
    };
    if request.method() != Method::POST {
        return server::text(StatusCode::METHOD_NOT_ALLOWED, "an AdmissionReview must be sent with POST");
    }
    let body = match server::body(request, LONGEST).await {
        Ok(body) => body,
        Err(error) => return server::text(StatusCode::BAD_REQUEST, &format!("reading the AdmissionReview: {error}")),
    };
    let (version, asked) = match review::read(&body) {
        Ok(review) => review,
        Err(why) => return server::text(StatusCode::BAD_REQUEST, &why),
    };
    let uid = asked.uid.clone();
    let (operation, namespace, name) = (asked.operation.clone(), asked.namespace.clone(), asked.name.clone());
    let verdict = hook.judge(context, asked).await;
    if let Verdict::Deny { code, message } = &verdict {
        tracing::info!(path, operation, namespace, name, code, reason = message, "request denied");
    }
    server::json(StatusCode::OK, &review::write(&version, &uid, verdict))
}

/// The webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Pod,
    ForeignClusterLabel,
    ForeignCluster,
    NamespaceOffloading,
    Peer,
    PeerService,
    ShadowPod,
}

impl Hook {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/mutate/pod" => Self::Pod,
            "/mutate/foreign-cluster" => Self::ForeignClusterLabel,
            "/validate/foreign-cluster" => Self::ForeignCluster,
            "/validate/namespace-offloading" => Self::NamespaceOffloading,
            "/validate/peer" => Self::Peer,
            "/mutate/peer-service" => Self::PeerService,
            "/validate/shadowpods" => Self::ShadowPod,
            _ => return None,
        })
    }

    async fn judge(self, context: &Context, asked: Asked) -> Verdict {
        match self {
            Self::Pod => {
                let offloading = offloading_of(context, &asked.namespace).await;
                offloading.map_or_else(Verdict::allow, |offloading| pod::mutate(&asked.object, &offloading))
            }
            Self::ForeignClusterLabel => foreign_cluster::mutate(&asked.object),
            Self::ForeignCluster => foreign_cluster::validate(&asked),
            Self::NamespaceOffloading => namespace_offloading::validate(&asked, &context.identity, &context.home),
            Self::Peer => context.door.judge(&asked),
            Self::PeerService => context.door.keep_inside(&asked),
            Self::ShadowPod => shadow_pod::validate(context, &asked).await,
        }
    }
}

/// The offloading of a namespace. None, though the namespace says it is offloaded: the label is older
/// than what we see, or was forgotten; pods are not held up for that.
async fn offloading_of(context: &Context, namespace: &str) -> Option<Arc<NamespaceOffloading>> {
    let name = names::NAMESPACE_OFFLOADING;
    if let Some(offloading) = context.offloadings.get(namespace, name) {
        return Some(offloading);
    }
    match context.cluster.get::<NamespaceOffloading>(namespace, name).await {
        Ok(found) => found.map(Arc::new),
        Err(error) => {
            tracing::warn!(namespace, error = &error as &dyn std::error::Error, "offloading not read, pod unchanged");
            None
        }
    }
}

/// The peer a namespace was made for, by ID.
///
/// # Errors
/// Why the namespace cannot be read.
async fn origin_of_namespace(context: &Context, namespace: &str) -> Result<Option<String>, String> {
    let origin = |namespace: &Namespace| namespace.labels().get(label::REMOTE_CLUSTER_ID).cloned();
    if let Some(known) = context.namespaces.get("", namespace) {
        return Ok(origin(&known));
    }
    match context.cluster.get::<Namespace>("", namespace).await {
        Ok(Some(found)) => Ok(origin(&found)),
        Ok(None) => Err(format!("namespace {namespace:?} does not exist")),
        Err(error) => Err(format!("namespace {namespace:?} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_webhook_of_the_chart_is_served() {
        for path in [
            "/mutate/pod",
            "/mutate/foreign-cluster",
            "/mutate/peer-service",
            "/validate/foreign-cluster",
            "/validate/namespace-offloading",
            "/validate/peer",
            "/validate/shadowpods",
        ] {
            assert!(Hook::of(path).is_some(), "{path}");
        }
        assert_eq!(Hook::of("/validate/pod"), None);
        assert_eq!(Hook::of(""), None);
    }
}
