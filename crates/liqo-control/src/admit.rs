//! What the API server asks us before it accepts an object. The authentication service asks at the same port, and is
//! answered by [`Issuer`].
//!
//! Keeps true: every replica answers alike, whichever replica leads; nothing here answers with an internal error
//! because another object is missing; the certificates are made, renewed and trusted without help. Whoever reaches the port
//! can make reviews up, unless clients must show a certificate: an answer changes nothing that outlives the answer but a
//! bounded reservation ([`quota`]), and reviews of one source delay those of others for a bounded time ([`Turns`]).
//!
//! Watches   the `ConfigMap` `liqo-peer-policy`; of the [`Memory`] `NamespaceOffloading`s, `Namespace`s and, with resource
//!           enforcement, `ShadowPod`s, the `Pod`s made from them and `ResourceOffer`s.
//! Writes    Events on `ForeignCluster`s about refused requests; see `certificates` for what keeps the server trusted.
//! Removes   nothing.

mod certificates;
mod foreign_cluster;
#[cfg(test)]
mod judged;
mod namespace_offloading;
pub(crate) mod peer;
mod pod;
mod quota;
mod review;
mod rules;
mod shadow_pod;
mod virtual_kubelet;

use std::{net::IpAddr, sync::Arc};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, discovery::ForeignCluster, meta::label, names, offloading::NamespaceOffloading};
use liqo_core::{decision, door};
use liqo_kube::{
    Cluster, Store,
    certs::{self, Shown},
    life::Life,
    refusals, said,
    server::{self, Limits, Listen, Peer, Reply},
    told::Told,
    turns::Turns,
};

use self::{
    quota::Quota,
    review::{Request as Asked, Verdict},
};
use crate::{
    COMPONENT, args::ManagerArgs, door::Policy, home::Home, memory::Memory, offload::guest::GuestArgs,
    peering::issuer::Issuer,
};

/// Longest review accepted: two objects of the size etcd takes (1.5 MiB), and what is around them.
const LONGEST: usize = (3 << 20) + (128 << 10);
/// Questions to the API server that answers wait for, at once; and those for reviews of one source.
const QUESTIONS: (usize, usize) = (16, 4);

/// What answers are made from.
struct Context {
    cluster: Cluster,
    identity: ClusterIdentity,
    /// The Liqo namespace.
    home: String,
    offloadings: Store<NamespaceOffloading>,
    /// All namespaces.
    namespaces: Store<Namespace>,
    foreign_clusters: Store<ForeignCluster>,
    /// Refusals of requests of peers that were told.
    told: Told,
    /// What pods of peers may ask for.
    guests: GuestArgs,
    /// Bookkeeping of peers' resources; `None`: not enforced.
    quota: Option<Arc<Quota>>,
    /// The settings that loosen what peers may write.
    policy: Policy,
    /// What virtual kubelets may write.
    nodes: virtual_kubelet::Nodes,
    /// Who is given an identity.
    issuer: Arc<Issuer>,
    /// Turns for reading and judging reviews.
    turns: Turns,
    /// Turns for asking the API server what the stores do not know.
    questions: Turns,
    /// Whether reviews count only from clients with a certificate.
    known_clients: bool,
}

/// Starts the webhook server and what keeps its certificates.
///
/// # Errors
/// When the port of the webhooks is none, or the authorities of clients cannot be read.
pub(crate) fn spawn(
    home: &Home,
    args: &ManagerArgs,
    (memory, issuer, policy): (&Memory, &Arc<Issuer>, &Policy),
    life: &Life,
) -> Result<(), String> {
    let webhooks = &args.webhooks;
    if webhooks.webhook_port == 0 {
        return Err("--webhook-port 0 is no port: the Service of the webhooks needs a fixed one, like 9443".to_owned());
    }
    certs::install_crypto();
    let shown = Arc::new(Shown::default());
    let tls = match webhooks.webhook_client_ca.as_str() {
        "" => certs::server_config(Arc::clone(&shown)),
        authorities => certs::server_config_with_clients(Arc::clone(&shown), authorities)
            .map_err(|error| format!("--webhook-client-ca: {error}"))?,
    };
    let busy = life.busy();
    life.spawn("webhook-certificates", certificates::run(home.clone(), shown, busy));
    let context = Arc::new(Context {
        cluster: home.cluster.clone(),
        identity: home.identity.clone(),
        home: home.namespace.clone(),
        offloadings: Store::clone(&memory.offloadings),
        namespaces: Store::clone(&memory.namespaces),
        foreign_clusters: Store::clone(&memory.foreign_clusters),
        told: Told::default(),
        guests: args.guests.clone(),
        quota: args.enable_resource_enforcement.then(|| Arc::new(Quota::new(memory, &home.identity))),
        policy: policy.clone(),
        nodes: virtual_kubelet::Nodes::new(&home.cluster),
        issuer: Arc::clone(issuer),
        turns: Turns::of_processors(),
        questions: Turns::new(QUESTIONS.0, QUESTIONS.1),
        known_clients: !webhooks.webhook_client_ca.is_empty(),
    });
    life.spawn("webhooks", serve(context, webhooks.webhook_port, tls, life.clone(), life.busy()));
    Ok(())
}

async fn serve(
    context: Arc<Context>,
    port: u16,
    tls: Arc<rustls::ServerConfig>,
    life: Life,
    busy: liqo_kube::life::Busy,
) -> Result<(), String> {
    let listener = Listen::All(port).bind().await?;
    context.offloadings.ready().await;
    context.namespaces.ready().await;
    context.policy.ready().await;
    drop(busy);
    let answer = move |request, peer| {
        let context = Arc::clone(&context);
        async move { answer(&context, request, &peer).await }
    };
    server::serve_within(Limits::default(), life.drain(), listener, Some(tls), answer).await;
    Ok(())
}

async fn answer(context: &Arc<Context>, request: Request<Incoming>, peer: &Peer) -> Response<Reply> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    if Issuer::hears(&path) {
        return context.issuer.answer(&path, request, peer.address.ip()).await;
    }
    let Some(hook) = Hook::of(&path) else {
        return server::text(StatusCode::NOT_FOUND, &format!("there is no webhook {path:?}"));
    };
    if context.known_clients && peer.certificate.is_none() {
        return server::text(StatusCode::UNAUTHORIZED, "a client certificate of the API server is needed");
    }
    if request.method() != Method::POST {
        return server::text(StatusCode::METHOD_NOT_ALLOWED, "an AdmissionReview must be sent with POST");
    }
    let body = match server::body(request, LONGEST).await {
        Ok(body) => body,
        Err(error) => return server::text(StatusCode::BAD_REQUEST, &format!("reading the AdmissionReview: {error}")),
    };
    let source = peer.address.ip();
    let (version, asked) = match context.turns.run(source, move || review::read(&body)).await {
        Ok(review) => review,
        Err(why) => return server::text(StatusCode::BAD_REQUEST, &why),
    };
    let uid = asked.uid.clone();
    let (operation, namespace, name) = (asked.operation.clone(), asked.namespace.clone(), asked.name.clone());
    let peer = peer_of(&asked);
    let verdict = hook.judge(context, asked, source).await;
    if let Verdict::Deny { code, message } = &verdict {
        refusals::count("webhook", hook.path());
        tracing::info!(path, operation, namespace, name, code, reason = message, "request denied");
        if let Some(peer) = peer {
            tell_refused(context, &peer, hook, message);
        }
    }
    server::json(StatusCode::OK, &review::write(&version, &uid, verdict))
}

/// The ID of the peer that makes a request which is to be stored.
fn peer_of(asked: &Asked) -> Option<String> {
    let is_peer = asked.user_info.groups.iter().any(|group| group == door::GROUP);
    (is_peer && !asked.dry_run).then(|| asked.user_info.username.clone())
}

/// Tells on the `ForeignCluster` of a peer that a webhook refused a request in the peer's name: one Event in ten
/// minutes for each webhook, because every client that reaches the port can invent reviews. The verdict does not wait for the Event.
fn tell_refused(context: &Arc<Context>, peer: &str, hook: Hook, why: &str) {
    let known = context.foreign_clusters.filter(|one| decision::id_of(one) == peer).into_iter().next();
    let Some(known) = known else { return };
    let (uid, told) = (known.uid().unwrap_or_default(), context.told.clone());
    if !told.is_due(&uid, hook.path()) {
        return;
    }
    let message = format!(
        "The webhook {} refused a request in the name of this cluster: {}. Further refusals are in the log of the \
         controller manager and in the metric liqo_refusals_total",
        hook.path(),
        said::printable(why)
    );
    let cluster = context.cluster.clone();
    tokio::spawn(async move {
        let (by, event) = ((&cluster, COMPONENT), ("Warning", "RequestRefused"));
        told.write(by, &*known, (&uid, hook.path()), event, &message).await;
    });
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
    VirtualKubelet,
}

impl Hook {
    const ALL: [Self; 8] = [
        Self::Pod,
        Self::ForeignClusterLabel,
        Self::ForeignCluster,
        Self::NamespaceOffloading,
        Self::Peer,
        Self::PeerService,
        Self::ShadowPod,
        Self::VirtualKubelet,
    ];

    fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.path() == path)
    }

    /// The path it is asked at.
    fn path(self) -> &'static str {
        match self {
            Self::Pod => "/mutate/pod",
            Self::ForeignClusterLabel => "/mutate/foreign-cluster",
            Self::ForeignCluster => "/validate/foreign-cluster",
            Self::NamespaceOffloading => "/validate/namespace-offloading",
            Self::Peer => "/validate/peer",
            Self::PeerService => "/mutate/peer-service",
            Self::ShadowPod => "/validate/shadowpods",
            Self::VirtualKubelet => "/validate/virtual-kubelet",
        }
    }

    async fn judge(self, context: &Arc<Context>, asked: Asked, source: IpAddr) -> Verdict {
        match self {
            Self::Pod => {
                let Some(offloading) = offloading_of(context, &asked.namespace, source).await else {
                    return Verdict::allow();
                };
                context.turns.run(source, move || pod::mutate(&asked.object, &offloading)).await
            }
            Self::ShadowPod => shadow_pod::validate(context, asked, source).await,
            Self::VirtualKubelet => virtual_kubelet::validate(context, asked, source).await,
            Self::ForeignClusterLabel => alone(context, source, move |_| foreign_cluster::mutate(&asked.object)).await,
            Self::ForeignCluster => alone(context, source, move |_| foreign_cluster::validate(&asked)).await,
            Self::NamespaceOffloading => {
                let judge = move |at: &Context| namespace_offloading::validate(&asked, &at.identity, &at.home);
                alone(context, source, judge).await
            }
            Self::Peer => alone(context, source, move |at| peer::admit(&at.policy, &asked)).await,
            Self::PeerService => alone(context, source, move |at| peer::keep_inside(&at.policy, &asked)).await,
        }
    }
}

/// A verdict that needs nothing but what is known.
async fn alone(
    context: &Arc<Context>,
    source: IpAddr,
    judge: impl FnOnce(&Context) -> Verdict + Send + 'static,
) -> Verdict {
    let at = Arc::clone(context);
    context.turns.run(source, move || judge(&at)).await
}

/// The offloading of a namespace. None, though the namespace says it is offloaded: the label is older
/// than what we see, or was forgotten; pods are not held up for that.
async fn offloading_of(context: &Context, namespace: &str, source: IpAddr) -> Option<Arc<NamespaceOffloading>> {
    let name = names::NAMESPACE_OFFLOADING;
    if let Some(offloading) = context.offloadings.get(namespace, name) {
        return Some(offloading);
    }
    let _turn = context.questions.take(source).await;
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
async fn origin_of_namespace(context: &Context, namespace: &str, source: IpAddr) -> Result<Option<String>, String> {
    let origin = |namespace: &Namespace| namespace.labels().get(label::REMOTE_CLUSTER_ID).cloned();
    // A namespace without an origin may be older in the store than in the API server.
    let known = context.namespaces.get("", namespace).and_then(|known| origin(&known));
    if known.is_some() {
        return Ok(known);
    }
    let _turn = context.questions.take(source).await;
    match context.cluster.get::<Namespace>("", namespace).await {
        Ok(Some(found)) => Ok(origin(&found)),
        Ok(None) => Err(format!("namespace {namespace:?} does not exist")),
        Err(error) => Err(format!("namespace {namespace:?} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_refusals_of_peers_are_told() {
        let asked = |groups: &[&str], dry_run| {
            let user = json!({"username": "id", "groups": groups});
            serde_json::from_value::<Asked>(json!({"userInfo": user, "dryRun": dry_run})).unwrap()
        };
        assert_eq!(peer_of(&asked(&["system:authenticated", "liqo.io"], false)).as_deref(), Some("id"));
        assert_eq!(peer_of(&asked(&["liqo.io"], true)), None, "a dry run");
        assert_eq!(peer_of(&asked(&["system:masters"], false)), None, "an administrator");
    }

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
            "/validate/virtual-kubelet",
        ] {
            assert_eq!(Hook::of(path).map(Hook::path), Some(path));
        }
        assert_eq!(Hook::of("/validate/pod"), None);
        assert_eq!(Hook::of(""), None);
    }
}
