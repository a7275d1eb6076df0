//! Servers for those whom the cluster knows: client certificates count whose authorities the cluster names.

use std::{future::Future, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::ServerConfig;
use tokio::sync::Notify;

use super::{Limits, Listen, Peer, Reply, serve_within};
use crate::{
    Cluster,
    certs::{self, Shown},
    drain::Drain,
    life::Busy,
};

/// Namespace and name of the `ConfigMap` in which Kubernetes says whose client certificates count.
pub const AUTHENTICATION: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

/// Whose client certificates count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// Those of users of the cluster.
    Users,
    /// Those of the API server, where it passes on requests of users to an API of its own.
    FrontProxy,
}

impl Authorities {
    /// The key in the `ConfigMap`.
    fn key(self) -> &'static str {
        match self {
            Self::Users => "client-ca-file",
            Self::FrontProxy => "requestheader-client-ca-file",
        }
    }
}

/// How long a server waits for the authorities; afterwards only tokens count, until the authorities are known.
const PATIENCE: Duration = Duration::from_secs(5);

/// [`serve_known`] for users of the cluster.
///
/// # Errors
/// As [`serve_known`].
pub async fn serve_users<F>(
    home: &Cluster,
    address: Listen,
    limits: Limits,
    life: (Drain, Busy),
    shown: Arc<Shown>,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) -> Result<(), String>
where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    serve_known(home, (address, limits), life, (shown, Authorities::Users), answer).await
}

/// Serves HTTPS until `drain` closes, and listens anew when other client authorities count. The process is `busy` until the
/// server listens.
///
/// # Errors
/// A text with the address and why the address cannot be used.
pub async fn serve_known<F>(
    home: &Cluster,
    (address, limits): (Listen, Limits),
    (drain, busy): (Drain, Busy),
    (shown, clients): (Arc<Shown>, Authorities),
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) -> Result<(), String>
where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let ((namespace, name), key) = (AUTHENTICATION, clients.key());
    let news = Arc::new(Notify::new());
    let maps = home.watch::<ConfigMap>(namespace).fields(&format!("metadata.name={name}")).start({
        let news = Arc::clone(&news);
        move |_| news.notify_one()
    });
    let authorities = || {
        let map = maps.get(namespace, name)?;
        map.data.as_ref()?.get(key).cloned()
    };
    if tokio::time::timeout(PATIENCE, maps.ready()).await.is_err() {
        tracing::warn!(object = name, "the client authorities are not known, no client certificate counts");
    }
    let mut busy = Some(busy);
    loop {
        let used = authorities();
        let listener = address.bind().await?;
        drop(busy.take());
        let changed = async {
            loop {
                news.notified().await;
                if authorities() != used {
                    return;
                }
            }
        };
        let tls = Some(tls(&shown, used.as_deref()));
        tokio::select! {
            () = serve_within(limits, &drain, listener, tls, answer.clone()) => return Ok(()),
            () = changed => tracing::info!("other client authorities count from now on"),
        }
    }
}

fn tls(shown: &Arc<Shown>, authorities: Option<&str>) -> Arc<ServerConfig> {
    let with_clients = authorities.map(|pem| certs::server_config_with_clients(Arc::clone(shown), pem));
    match with_clients {
        Some(Ok(config)) => return config,
        Some(Err(error)) => tracing::warn!(error = %error, "client certificates do not count"),
        None => {}
    }
    certs::server_config(Arc::clone(shown))
}
