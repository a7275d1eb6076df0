//! The gateway at work: looks at everything, makes it so, waits for news.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    net::IpAddr,
    os::fd::AsFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use k8s_openapi::api::core::v1::{Node, NodeStatus, Pod, Service};
use liqo_api::{
    meta::label,
    net::{NatMapping, TunnelEndpoint},
};
use liqo_kube::{Cluster, Store, life::Busy, metrics::Samples};
use liqo_netlink::{Kernel, Netns, Realm, State};
use liqo_tunnel::{Device, Engine, PrivateKey};
use tokio::sync::{Notify, watch};

use super::{
    GatewayArgs, Space,
    check::{self, Checks},
    duty,
    election::address_of,
    flows::Flows,
    heartbeat::Secrets,
    key::Keys,
    metrics::{self, Figures, Row},
    path::Report,
    peers::{self, Peer, Peers},
    resolve::Resolver,
    segregation::{self, SecurityMode, Shared},
    space, status, told, wish,
};
use crate::{
    layout::{GATEWAY_LABEL, NAMESPACE, TUNNEL, TUNNEL_OVERHEAD_V4, VETH_HOST},
    manager::addresses_of,
    pace::Pace,
    wire,
};

/// A gateway.
pub(super) struct Gateway {
    args: GatewayArgs,
    cluster: Cluster,
    space: Space,
    bell: Arc<Notify>,
    standing: watch::Receiver<bool>,
    tunnels: Store<TunnelEndpoint>,
    mappings: Store<NatMapping>,
    pods: Store<Pod>,
    /// All pods of Liqo's namespace.
    components: Store<Pod>,
    /// The virtual nodes of this cluster: the address of one is that of the pod of its virtual kubelet.
    virtual_nodes: Store<Node>,
    services: Store<Service>,
    /// What is shared with peers; not looked at in the mode in which peers reach every pod.
    shared: Option<watch::Receiver<Option<Arc<Shared>>>>,
    /// Address of this node.
    address: watch::Sender<IpAddr>,
    keys: Keys,
    /// The tag by which the other gateways recognise this gateway.
    secrets: watch::Sender<Secrets>,
    resolver: Resolver,
    checks: Checks,
    figures: Arc<Mutex<Figures>>,
    flows: Flows,
    tunnel: Option<Tunnel>,
    settled: BTreeMap<&'static str, State>,
    /// IDs of the peers that answered at the last look.
    answering: BTreeSet<String>,
    /// What our side carries outside the tunnel, bytes.
    outside: u16,
}

/// A running tunnel, and what it was last told.
struct Tunnel {
    engine: Box<dyn Engine>,
    key: PrivateKey,
    peers: Vec<liqo_tunnel::Peer>,
    check: tokio::task::JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.check.abort();
    }
}

impl Gateway {
    /// Starts watching.
    pub(super) fn start(
        args: &GatewayArgs,
        cluster: Cluster,
        space: Space,
        standing: watch::Receiver<bool>,
        bell: Arc<Notify>,
    ) -> Result<Self, String> {
        let ring = || {
            let bell = Arc::clone(&bell);
            move || bell.notify_one()
        };
        let (tunnels, mappings, pods, components, services) = (ring(), ring(), ring(), ring(), ring());
        let virtual_nodes = ring();
        let outside = wire::carries(args.pod_ip, None);
        Ok(Self {
            tunnels: cluster.watch("").start(move |_| tunnels()),
            mappings: cluster.watch("").start(move |_| mappings()),
            pods: cluster.watch(&args.namespace).labels(GATEWAY_LABEL).start(move |_| pods()),
            components: cluster.watch(&args.namespace).trim(crate::route::pods::trim).start(move |_| components()),
            virtual_nodes: cluster
                .watch("")
                .labels(&format!("{}={}", label::TYPE, label::VIRTUAL_NODE))
                .trim(addresses_only)
                .start(move |_| virtual_nodes()),
            services: cluster
                .watch(&args.namespace)
                .labels(&format!("{GATEWAY_LABEL}=true"))
                .start(move |_| services()),
            shared: (args.security_mode == SecurityMode::IntraClusterTrafficSegregation)
                .then(|| segregation::watch(&cluster)),
            address: watch::Sender::new(args.pod_ip),
            keys: Keys::watch(&cluster, &args.namespace, &args.pod_name, &bell),
            secrets: watch::Sender::default(),
            resolver: Resolver::start(Arc::clone(&bell)),
            checks: Checks::new(Arc::clone(&bell)),
            figures: Arc::default(),
            flows: Flows::default(),
            args: args.clone(),
            cluster,
            space,
            bell,
            standing,
            tunnel: None,
            settled: BTreeMap::new(),
            answering: BTreeSet::new(),
            outside: if args.mtu == 0 { outside } else { outside.min(args.mtu.saturating_add(TUNNEL_OVERHEAD_V4)) },
        })
    }

    /// The gateway pods.
    pub(super) fn pods(&self) -> Store<Pod> {
        self.pods.clone()
    }

    /// The address of this node: it may change, and what this process was told when it started may be an old one.
    pub(super) fn address(&self) -> watch::Receiver<IpAddr> {
        self.address.subscribe()
    }

    /// The tag by which gateways recognise each other changes with the key.
    pub(super) fn secrets(&self) -> watch::Receiver<Secrets> {
        self.secrets.subscribe()
    }

    /// The metrics, as they are whenever they are asked for.
    pub(super) fn figures(&self) -> impl Fn(&mut Samples) + Send + Sync + use<> {
        let figures = Arc::clone(&self.figures);
        move |samples| metrics::samples(&figures.lock().unwrap_or_else(PoisonError::into_inner), samples)
    }

    /// Works until `end`.
    pub(super) async fn run(&mut self, busy: Busy, end: impl Future<Output = ()>) -> Result<(), String> {
        let mut pace = Pace::new(busy);
        let mut end = std::pin::pin!(end);
        let (outside, mut listening) = space::listen(&self.space)?;
        self.tunnels.ready().await;
        self.mappings.ready().await;
        self.pods.ready().await;
        self.components.ready().await;
        self.virtual_nodes.ready().await;
        if let Some(shared) = &mut self.shared {
            let known = shared.wait_for(Option::is_some).await;
            known.map_err(|_| "the task that finds what is shared with peers has ended".to_owned())?;
        }
        loop {
            let pause = pace.after(self.settle().await);
            tokio::select! {
                () = &mut end => return Ok(()),
                () = self.bell.notified() => {}
                () = outside.notified() => {}
                Some(ended) = listening.join_next() => {
                    let why = ended.unwrap_or_else(|error| error.to_string());
                    return Err(format!("listening for changes in the kernel: {why}"));
                }
                changed = self.standing.changed() => {
                    changed.map_err(|_| "the election has ended".to_owned())?;
                    tracing::info!(active = *self.standing.borrow(), "this gateway's standing");
                }
                known = changed(&mut self.shared) => {
                    known.map_err(|_| "the task that finds what is shared with peers has ended".to_owned())?;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn settle(&mut self) -> Result<(), String> {
        let active = *self.standing.borrow_and_update();
        let me = self.pods.get(&self.args.namespace, &self.args.pod_name);
        if let Some(now) = me.as_deref().and_then(address_of) {
            self.address.send_if_modified(|address| std::mem::replace(address, now) != now);
        }
        let key = self.keys.current().await.map_err(|error| told(&error))?;
        let Some(key) = key else { return Ok(()) };
        self.secrets.send_if_modified(|secrets| secrets.follow(&key, Instant::now()));
        let tunnels = self.tunnels.all();
        let mut peers = peers::read(&tunnels, &self.mappings.all(), &self.resolver, (self.outside, key.public()));
        if let Some(shared) = self.shared.as_ref().and_then(|shared| shared.borrow().clone()) {
            peers.share(&shared);
        }
        self.resolver.keep(&tunnels.iter().map(|tunnel| tunnel.spec.endpoint_ip.as_str()).collect::<BTreeSet<_>>());
        self.make("node", space::node_realm(), space::node())?;
        self.open(key)?;
        let reports = self.checks.reports();
        self.tell_tunnel(&peers, active)?;
        self.greet_silent(&peers, &reports);
        let inside: Vec<_> =
            peers.good.iter().map(|peer| peer.space(reports.get(peer.id()).and_then(|report| report.mtu))).collect();
        self.make(
            "namespace",
            space::namespace_realm(),
            space::namespace(self.args.security_mode, &inside, &self.components(), self.tunnel_mtu()),
        )?;
        let targets = peers.good.iter().filter(|_| active).filter_map(|peer| peer.target.clone()).collect();
        self.checks.set(targets);
        self.measure(&peers, &reports, active);
        if active {
            let address = *self.address.borrow();
            let announced =
                duty::announce(&self.cluster, &self.args.pod_name, address, &self.pods, &self.services).await;
            // After the announcement, which others wait for: a look at the flows of a busy node takes some 10 ms.
            let answers = |peer: &Peer| reports.get(peer.id()).is_some_and(|report| report.connected);
            let waits = !peers.good.iter().all(answers);
            self.flows.settle(&self.space.node, &self.services.all(), waits, Instant::now());
            announced.map_err(|error| told(&error))?;
            self.tell(&peers, &reports).await?;
        }
        Ok(())
    }

    /// Addresses of the pods in the Liqo namespace that do not use the network of their node, and of all virtual kubelets.
    fn components(&self) -> BTreeSet<IpAddr> {
        let (pods, nodes) = (self.components.all(), self.virtual_nodes.all());
        let of_pods = pods.iter().flat_map(|pod| crate::route::pods::addresses(pod));
        of_pods.chain(nodes.iter().flat_map(|node| addresses_of(node))).collect()
    }

    fn tunnel_mtu(&self) -> u32 {
        u32::from(self.outside.saturating_sub(TUNNEL_OVERHEAD_V4))
    }

    /// Makes one of the two places look as wanted, and counts what somebody else had changed.
    fn make(&mut self, place: &'static str, realm: Realm, wanted: State) -> Result<(), String> {
        let kernel: &Kernel = if place == "node" { &self.space.node } else { &self.space.inside };
        let repairs = kernel.settle(&realm, &wanted).map_err(|error| told(&error))?;
        if self.settled.get(place) == Some(&wanted) {
            let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
            for (kind, count) in repairs.made {
                tracing::warn!(place, kind = %kind, count, "repaired: somebody had changed it");
                *figures.repairs.entry(kind.to_string()).or_default() += count as u64;
            }
        } else {
            self.settled.insert(place, wanted);
        }
        Ok(())
    }

    /// Opens the tunnel if it is not open, or was broken; gives it the key.
    fn open(&mut self, key: PrivateKey) -> Result<(), String> {
        if let Some(tunnel) = &mut self.tunnel {
            match tunnel.engine.check() {
                Ok(()) if tunnel.key == key => return Ok(()),
                Ok(()) => {
                    tunnel.engine.set_key(&key).map_err(|error| told(&error))?;
                    tunnel.key = key;
                    return Ok(());
                }
                Err(why) => {
                    tracing::error!("{}", told(&why));
                    self.tunnel = None;
                }
            }
        }
        let device = Device {
            interface: TUNNEL.to_owned(),
            port: self.args.listening_port,
            key: key.clone(),
            mtu: self.tunnel_mtu(),
        };
        let engine = liqo_tunnel::open(&device, self.space.netns.as_fd(), wish(&self.args));
        let engine = engine.map_err(|error| told(&error))?;
        let implementation = engine.implementation();
        tracing::info!(
            implementation = implementation.as_str(),
            reason = engine.fallback_reason(),
            port = engine.port(),
            mtu = device.mtu,
            "tunnel open"
        );
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).implementation = Some(implementation);
        let socket = self.space.netns.enter(check::socket).map_err(|error| told(&error))?;
        let socket = socket.and_then(tokio::net::UdpSocket::from_std);
        let socket = socket.map_err(|error| format!("opening the socket of the connection check: {error}"))?;
        let check = tokio::spawn(self.checks.clone().run(socket));
        self.tunnel = Some(Tunnel { engine, key, peers: Vec::new(), check });
        Ok(())
    }

    /// Gives the tunnel its peers and starts a handshake with each. The tunnel of a standby gateway has no peers: otherwise the
    /// standby would answer late packets, and would keep up a tunnel with a peer's gateway that leads nowhere.
    fn tell_tunnel(&mut self, peers: &Peers, active: bool) -> Result<(), String> {
        let Some(tunnel) = &mut self.tunnel else { return Ok(()) };
        let wired: Vec<_> = peers.good.iter().filter(|_| active).map(|peer| peer.wire.clone()).collect();
        if tunnel.peers != wired {
            tunnel.engine.set_peers(&wired).map_err(|error| told(&error))?;
            tunnel.peers = wired;
        }
        Ok(())
    }

    /// A peer that has just fallen silent may have lost our keys: one with Liqo 0.8.3 does when it is told another endpoint
    /// of ours, and asks for new ones once in five seconds. WireGuard would notice after fifteen; we ask at once. (The kernel's WireGuard, whose
    /// keys seem good to it, is only made to send something.)
    fn greet_silent(&mut self, peers: &Peers, reports: &HashMap<String, Report>) {
        let answering = reports.iter().filter(|(_, report)| report.connected).map(|(id, _)| id.clone()).collect();
        let before = std::mem::replace(&mut self.answering, answering);
        let Some(tunnel) = &self.tunnel else { return };
        for peer in peers.good.iter().filter(|peer| before.contains(peer.id()) && !self.answering.contains(peer.id())) {
            // One without an address must come to us; one that cannot be asked now is pinged all the same.
            let _ = tunnel.engine.handshake(&peer.wire.key);
        }
    }

    fn measure(&self, peers: &Peers, reports: &HashMap<String, Report>, active: bool) {
        let traffic = self.tunnel.as_ref().and_then(|tunnel| tunnel.engine.peers().ok()).unwrap_or_default();
        let rows = peers.good.iter().map(|peer| Row {
            id: peer.id().to_owned(),
            name: peer.tunnel.spec.cluster_identity.cluster_name.clone(),
            report: reports.get(peer.id()).copied(),
            traffic: traffic.iter().find(|state| state.key == peer.wire.key).cloned(),
        });
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.rows = rows.collect();
        figures.active = active;
    }

    /// Writes the statuses that have news. One that the API server refuses keeps no other from being written; an API server
    /// that does not answer is asked no further.
    async fn tell(&self, peers: &Peers, reports: &HashMap<String, Report>) -> Result<(), String> {
        let Some(tunnel) = &self.tunnel else { return Ok(()) };
        let veth = self.space.node.link(VETH_HOST).map_err(|error| told(&error))?.map(|link| link.index);
        let now = liqo_kube::now();
        let report = |peer: &Peer| reports.get(peer.id()).copied();
        let good = peers.good.iter().map(|peer| (&peer.tunnel, Ok(&peer.networks), report(peer), peer.reach.len()));
        let bad = peers.bad.iter().map(|(tunnel, why)| (tunnel, Err(why.as_str()), None, 0));
        let mut refused = None;
        for (object, networks, report, reach) in good.chain(bad) {
            let facts = status::Facts {
                spec: &object.spec,
                networks,
                report,
                node: *self.address.borrow(),
                veth,
                implementation: tunnel.engine.implementation(),
                mode: self.args.security_mode,
                reach,
                now: &now,
            };
            if let Some(status) = status::plan(&facts, object.status.as_ref()) {
                match self.cluster.put_status(&**object, &status).await {
                    Err(error) if error.is_unreachable() => return Err(told(&error)),
                    Err(error) if !error.is_not_found() => refused = refused.or(Some(told(&error))),
                    _ => {}
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Removes what was made.
    pub(super) fn leave(mut self) -> Result<(), String> {
        drop(self.tunnel.take());
        let cleared = self.space.node.clear(&space::node_realm()).map_err(|error| told(&error));
        drop(self.space);
        Netns::remove(Path::new(NAMESPACE)).map_err(|error| told(&error)).and(cleared.map(drop))
    }
}

/// Returns when another set of addresses is shared with peers; never in the mode in which peers reach every pod.
async fn changed(shared: &mut Option<watch::Receiver<Option<Arc<Shared>>>>) -> Result<(), watch::error::RecvError> {
    match shared {
        Some(shared) => shared.changed().await,
        None => std::future::pending().await,
    }
}

/// A renewed heartbeat or an image of a node is no news here.
fn addresses_only(node: &mut Node) {
    liqo_kube::strip(node);
    (node.metadata.labels, node.metadata.annotations, node.spec) = (None, None, None);
    node.status = node.status.take().map(|status| NodeStatus { addresses: status.addresses, ..NodeStatus::default() });
}
