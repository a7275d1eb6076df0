//! A client whose connections notice when their path has died.
//!
//! A watch mostly listens: nothing would tell it that the other end has forgotten the connection. The API server of an
//! in-band peer is reached through address translation on gateways, whose memory goes with them; connections through it
//! are then heard of no more, until something is sent. So something is sent whenever they are silent.

use std::time::Duration;

use hyper_util::{
    client::legacy::{
        Client as Http,
        connect::{HttpConnector, proxy::Tunnel},
    },
    rt::TokioExecutor,
};
use kube::{Client, Config, client::ConfigExt};
use tower_layer::Layer;

/// A connection that is silent for so long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it is asked again, and how many times; what was sent must be acknowledged within both together.
const PAUSE: Duration = Duration::from_secs(5);
const TIMES: u32 = 4;

/// A client for the cluster `config` describes, by the identity of a certificate.
///
/// # Errors
/// The certificates cannot be used.
pub(crate) fn client(config: Config) -> kube::Result<Client> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_keepalive(Some(SILENCE));
    connector.set_keepalive_interval(Some(PAUSE));
    connector.set_keepalive_retries(Some(TIMES));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(SILENCE + PAUSE * TIMES));
    let http = Http::builder(TokioExecutor::new());
    let namespace = config.default_namespace.clone();
    match config.proxy_url.as_ref().filter(|url| url.scheme_str() == Some("http")) {
        Some(proxy) => {
            let connector = config.rustls_https_connector_with_connector(Tunnel::new(proxy.clone(), connector))?;
            Ok(Client::new(config.base_uri_layer().layer(http.build(connector)), namespace))
        }
        None if config.proxy_url.is_some() => Client::try_from(config),
        None => {
            let connector = config.rustls_https_connector_with_connector(connector)?;
            Ok(Client::new(config.base_uri_layer().layer(http.build(connector)), namespace))
        }
    }
}
