//! A client of another cluster's API server: the client notices dead connections, and bounds every answer in size and time.
//!
//! A watch mostly listens: nothing would tell it that the other end has forgotten the connection. The API server of an
//! in-band peer is reached through address translation on gateways, whose memory goes with them; connections through it
//! are then heard of no more, until something is sent. So something is sent whenever they are silent.

mod bound;
mod switch;

use std::{
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use hyper_util::{
    client::legacy::{
        Client as Http,
        connect::{Connect, HttpConnector, dns::Name, proxy::Tunnel},
    },
    rt::TokioExecutor,
};
use kube::{Config, client::ConfigExt};
use tower_layer::Layer;
use tower_service::Service;

use crate::reach::Reach;

pub(crate) use switch::{Switch, Way};

/// A connection that is silent for so long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it is asked again, and how many times; what was sent must be acknowledged within both together.
const PAUSE: Duration = Duration::from_secs(5);
const TIMES: u32 = 4;
/// So long a connection may take to stand, with the handshakes of proxies and of TLS.
const CONNECT: Duration = Duration::from_secs(15);
/// No head of an answer is longer, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// What a body or a connection fails with.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The way to the cluster `config` describes, by the identity of a certificate. The way leads to what `reach` permits, or
/// through the proxy of `config`, which is the administrator's choice.
///
/// # Errors
/// The certificates, the URL or the proxy cannot be used; in words.
pub(crate) fn way(config: &Config, reach: Reach) -> Result<Way, String> {
    let failed = |error: kube::Error| error.to_string();
    if config.cluster_url.scheme_str() != Some("https") {
        return Err("the URL of an API server must begin with https://".to_owned());
    }
    let Some(proxy) = config.proxy_url.clone() else {
        reach.check_host(config.cluster_url.host().unwrap_or_default())?;
        let connector = config.rustls_https_connector_with_connector(tcp(config, reach));
        return Ok(finish(config, connector.map_err(failed)?));
    };
    let tcp = tcp(config, Reach::anywhere());
    match proxy.scheme_str() {
        Some("http") => {
            let connector = config.rustls_https_connector_with_connector(Tunnel::new(proxy, tcp));
            Ok(finish(config, connector.map_err(failed)?))
        }
        Some("https") => {
            let secure = config.rustls_https_connector_with_connector(tcp).map_err(failed)?;
            let connector = config.rustls_https_connector_with_connector(Tunnel::new(proxy, secure));
            Ok(finish(config, connector.map_err(failed)?))
        }
        _ => Err(format!("proxy {proxy} must begin with http:// or https://")),
    }
}

fn tcp(config: &Config, reach: Reach) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(Resolver(reach));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_keepalive(Some(SILENCE));
    connector.set_keepalive_interval(Some(PAUSE));
    connector.set_keepalive_retries(Some(TIMES));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(SILENCE + PAUSE * TIMES));
    connector
}

fn finish<C>(config: &Config, connector: C) -> Way
where
    Prompt<C>: Connect + Clone + Send + Sync + 'static,
{
    let mut http = Http::builder(TokioExecutor::new());
    http.http1_max_buf_size(LONGEST_HEAD);
    let service = config.base_uri_layer().layer(http.build(Prompt(connector)));
    Way::through(bound::Bounded(service))
}

/// A connector that gives up in time.
#[derive(Clone)]
struct Prompt<C>(C);

impl<C> Service<Uri> for Prompt<C>
where
    C: Service<Uri, Response: Send, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = self.0.call(uri);
        async move {
            match tokio::time::timeout(CONNECT, connected).await {
                Ok(outcome) => outcome.map_err(Into::into),
                Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs()).into()),
            }
        }
        .boxed()
    }
}

/// Resolves names to addresses that may be reached.
#[derive(Clone)]
struct Resolver(Reach);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.0.clone();
        async move { Ok(reach.resolve(name.as_str(), 0).await?.into_iter()) }.boxed()
    }
}
