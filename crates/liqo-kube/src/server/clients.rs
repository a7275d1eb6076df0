//! A server for users of the cluster: client certificates count whose authorities the cluster names.

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

/// Where Kubernetes says whose client certificates count.
const CLIENT_AUTHORITIES: (&str, &str, &str) = ("kube-system", "extension-apiserver-authentication", "client-ca-file");
/// How long a server waits for the authorities; afterwards only tokens count, until the authorities are known.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves HTTPS until `drain` closes, and listens anew when other client authorities count. The process is `busy` until the
/// server listens.
///
/// # Errors
/// A text with the address and why the address cannot be used.
pub async fn serve_users<F>(
    home: &Cluster,
    address: Listen,
    limits: Limits,
    (drain, busy): (Drain, Busy),
    shown: Arc<Shown>,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) -> Result<(), String>
where
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let (namespace, name, key) = CLIENT_AUTHORITIES;
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
        tracing::warn!(object = name, "the client authorities are not known, only tokens count");
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
        Some(Err(error)) => tracing::warn!(error = %error, "client certificates do not count, only tokens"),
        None => {}
    }
    certs::server_config(Arc::clone(shown))
}
