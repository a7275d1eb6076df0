//! A server for users of the cluster: client certificates count whose authorities the cluster names.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::Notify};

use super::{Limits, Peer, Reply, serve_within};
use crate::{
    Cluster,
    certs::{self, Shown},
};

/// Where Kubernetes says whose client certificates count.
const CLIENT_AUTHORITIES: (&str, &str, &str) = ("kube-system", "extension-apiserver-authentication", "client-ca-file");
/// So long is waited for that; afterwards only tokens count, until it is known.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves HTTPS, and starts over when other client authorities count. Returns only when the address cannot be used.
pub async fn serve_users<F>(
    home: &Cluster,
    address: SocketAddr,
    shown: Arc<Shown>,
    limits: Limits,
    answer: impl Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
) -> std::io::Error
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
    loop {
        let used = authorities();
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        let changed = async {
            loop {
                news.notified().await;
                if authorities() != used {
                    return;
                }
            }
        };
        tokio::select! {
            () = serve_within(limits, listener, Some(tls(&shown, used.as_deref())), answer.clone()) => {}
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
