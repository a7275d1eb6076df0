//! Role `liqo-proxy`: the way of an in-band peer to our API server.
//!
//! An HTTP/1.1 proxy that knows one method, CONNECT, and two ends: the API server of this cluster, and the
//! authentication service when the target names it. As with the proxy of Liqo 0.8.3 it does not matter which
//! address of the API server the target says: peers know it under one that cannot be reached from inside the
//! tunnel. What flows is TLS from end to end, so the proxy authenticates nobody and reads nothing.
//!
//! Keeps true: the proxy never connects to an address that a client chose; when one end closes a direction, the proxy
//! closes that direction at the other end, and only that direction; an idle tunnel holds no buffer; the tunnels of one
//! network (see `source.rs`) are limited, so that a peer with one such network cannot use up the tunnels of all.

mod count;
mod relay;
mod route;
mod source;
#[cfg(test)]
mod tests;

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::ALLOW};
use hyper::body::Incoming;
use liqo_kube::{
    args::RuntimeArgs,
    life::Life,
    role::Role,
    server::{self, Listen, Reply, text},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use count::{Counts, Refused};
use relay::{End, Limits};
use route::{Destination, Routes};
use source::{Place, Sources};

/// How long connecting to an end may take, the look-up of its name included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the look-up of the authentication service may take before a target is not taken for it.
const LOOK_UP: Duration = Duration::from_secs(2);
/// A peer that does not answer for three minutes is gone: longer than a partition that must do no harm.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 8);

/// Flags of the proxy.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-proxy", version, about = "Lets in-band peers reach the API server of this cluster")]
pub struct ProxyArgs {
    /// How much is logged and where health is told; the cluster is not asked anything.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// TCP port of the proxy, on all addresses.
    #[arg(long, default_value_t = 8118, value_name = "PORT")]
    pub listening_port: u16,
    /// Host of the API server; in a pod, the address of the Service `kubernetes`.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", default_value = "kubernetes.default.svc", value_name = "HOST")]
    pub api_server_host: String,
    /// Port of the API server.
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", default_value_t = 443, value_name = "PORT")]
    pub api_server_port: u16,
    /// Namespace Liqo is installed in.
    #[arg(long = "liqo-namespace", alias = "namespace", env = "POD_NAMESPACE", default_value = "liqo")]
    pub namespace: String,
    /// The authentication service: a target with this name or address leads there. Without it, `liqo-auth` in the
    /// namespace of Liqo, port 443.
    #[arg(long, value_parser = route::service, value_name = "HOST:PORT")]
    pub auth_service: Option<(String, u16)>,
    /// Tunnels at the same time; more are refused.
    #[arg(long, default_value_t = 2048, value_name = "NUMBER")]
    pub max_tunnels: u32,
    /// Tunnels at the same time from one network of 16 bits (IPv6: 48), as the pods of one peer have; more are refused.
    #[arg(long, default_value_t = 256, value_name = "NUMBER")]
    pub max_tunnels_per_source: u32,
    /// Seconds without a byte in either direction after which a tunnel is closed.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub idle_timeout: u64,
    /// Seconds without a byte after which a tunnel that one side has closed is closed altogether.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub half_closed_timeout: u64,
    /// Seconds tunnels are given to end by themselves when the proxy is told to stop.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub grace_period: u64,
}

impl Role for ProxyArgs {
    const NAME: &'static str = "liqo-proxy";
    const TIDIES_UP: bool = true;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let busy = life.busy();
        let (port, grace) = (self.listening_port, Duration::from_secs(self.grace_period));
        let listener = Listen::All(port)
            .bind()
            .await
            .map_err(|error| format!("{error}; is another proxy running here? choose another --listening-port"))?;
        let proxy = Proxy::new(self);
        let (counts, sources) = (Arc::clone(&proxy.counts), Arc::clone(&proxy.sources));
        life.metrics(move |samples| counts.samples(&sources.all(), samples));
        tracing::info!(port, "in-band peers can connect");
        drop(busy);
        tokio::select! {
            () = proxy.clone().serve(listener) => {}
            () = life.until_signal() => {}
        }
        if !proxy.ended(grace).await {
            tracing::info!("tunnels are still in use, closing them");
        }
        Ok(())
    }
}

/// The proxy; copies share it.
#[derive(Clone)]
struct Proxy {
    routes: Arc<Routes>,
    limits: Limits,
    most: u32,
    tunnels: Arc<Semaphore>,
    sources: Arc<Sources>,
    counts: Arc<Counts>,
}

/// Resources that a tunnel holds as long as it lives.
struct Share {
    _tunnel: OwnedSemaphorePermit,
    _source: Place,
}

impl Proxy {
    fn new(args: ProxyArgs) -> Self {
        let limits = Limits {
            idle: Duration::from_secs(args.idle_timeout.max(1)),
            half_closed: Duration::from_secs(args.half_closed_timeout.max(1)),
        };
        let auth = args.auth_service.unwrap_or_else(|| (format!("liqo-auth.{}.svc", args.namespace), 443));
        Self {
            routes: Arc::new(Routes { api_server: (args.api_server_host, args.api_server_port), auth }),
            limits,
            most: args.max_tunnels,
            tunnels: Arc::new(Semaphore::new(args.max_tunnels as usize)),
            sources: Sources::new(args.max_tunnels_per_source),
            counts: Arc::default(),
        }
    }

    /// Accepts connections until dropped; tunnels live on.
    async fn serve(self, listener: TcpListener) {
        server::serve(listener, None, move |request, peer| {
            let proxy = self.clone();
            async move { proxy.answer(request, peer.address.ip()).await }
        })
        .await;
    }

    /// Waits until there is no tunnel any more; `false` when that takes longer than `limit`.
    async fn ended(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.tunnels.acquire_many(self.most)).await.is_ok()
    }

    async fn answer(&self, request: Request<Incoming>, source: IpAddr) -> Response<Reply> {
        if request.method() != Method::CONNECT {
            self.counts.refused(Refused::Method);
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "this is a proxy for the method CONNECT only\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("CONNECT"));
            return refusal;
        }
        let Some((host, port)) = route::target(request.uri()) else {
            return self.refuse(Refused::Target, "the target of CONNECT must look like HOST:PORT");
        };
        let known = if self.routes.may_be_auth(port) { self.auth_addresses().await } else { Vec::new() };
        let destination = match self.routes.lead(&host, port, &known) {
            Ok(destination) => destination,
            Err(why) => return self.refuse(Refused::Forbidden, &why),
        };
        let share = match self.share(source) {
            Ok(share) => share,
            Err((why, words)) => return self.refuse(why, &words),
        };
        match self.connect(destination).await {
            Ok(upstream) => {
                self.counts.opened(destination);
                let proxy = self.clone();
                tokio::spawn(async move { proxy.tunnel(request, upstream, share).await });
                Response::new(server::full(Bytes::new()))
            }
            Err(why) => {
                tracing::warn!(?destination, reason = why, "not connected");
                self.refuse(Refused::Unreachable, &why)
            }
        }
    }

    /// A permit for one more tunnel from this source.
    fn share(&self, source: IpAddr) -> Result<Share, (Refused, String)> {
        let place = self.sources.take(source).map_err(|why| (Refused::Source, why))?;
        let permit = Arc::clone(&self.tunnels).try_acquire_owned().map_err(|_| {
            (Refused::Full, format!("{} tunnels are in use, that is the limit (--max-tunnels)", self.most))
        })?;
        Ok(Share { _tunnel: permit, _source: place })
    }

    fn refuse(&self, why: Refused, words: &str) -> Response<Reply> {
        self.counts.refused(why);
        text(why.code(), &format!("{words}\n"))
    }

    /// What the name of the authentication service means at the moment.
    async fn auth_addresses(&self) -> Vec<SocketAddr> {
        let (host, port) = &self.routes.auth;
        match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((host.as_str(), *port))).await {
            Ok(Ok(found)) => found.collect(),
            _ => Vec::new(),
        }
    }

    async fn connect(&self, destination: Destination) -> Result<TcpStream, String> {
        let (host, port) = self.routes.end(destination);
        let failed = |why: &dyn Display| format!("connecting to {} at {host}:{port}: {why}", destination.text());
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), *port))).await;
        let stream = stream.map_err(|_| failed(&format!("no answer within {} s", CONNECT.as_secs())))?;
        stream.map_err(|error| failed(&error))
    }

    /// Passes bytes until both sides have ended. `_share` is held as long.
    async fn tunnel(self, request: Request<Incoming>, upstream: TcpStream, _share: Share) {
        match hyper::upgrade::on(request).await.map(server::socket) {
            Ok(Some((client, early))) => {
                keep_alive(&client);
                keep_alive(&upstream);
                match relay::relay(&client, &upstream, &early, self.limits, &self.counts).await {
                    End::Finished => {}
                    End::Silent => tracing::info!("a tunnel in which nothing flowed any more is closed"),
                    End::Broken(error) => tracing::debug!(error = %error, "tunnel broken"),
                }
            }
            Ok(None) => tracing::error!("a connection is not a plain TCP socket"),
            Err(error) => tracing::debug!(error = %error, "the client left before the tunnel stood"),
        }
        self.counts.closed();
    }
}

/// Small writes leave at once, and a peer that vanished is noticed. Best effort: a tunnel works without.
fn keep_alive(stream: &TcpStream) {
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
