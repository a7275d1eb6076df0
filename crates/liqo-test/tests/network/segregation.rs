//! Segregated peers: `rome` and `milan` let peers reach what is shared with them only, `turin` lets them reach every pod.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use liqo_test::{
    echo::{self, PORT, Way},
    netns::Netns,
    wait_for,
};
use serde_json::json;

use super::{
    fabric::{Fabric, SOON, active_gateway, connection, role},
    matrix::{Again, Matrix},
    places::{self, Place, mapped, running},
};

const MODE: &str = "IntraClusterTrafficSegregation";
const SEGREGATED: [&str; 2] = ["rome", "milan"];
/// A change of what is shared is followed in this time.
const PROMPT: Duration = Duration::from_secs(2);
/// An answer through the tunnel takes a few milliseconds.
const KNOCK: Duration = Duration::from_millis(500);
/// The web server of test pods.
const WEB: u16 = 8080;

pub(crate) fn story(fabric: &mut Fabric) -> Result<()> {
    switch(fabric, MODE)?;
    let told = shown(fabric).and_then(|()| segregated(fabric));
    let back = switch(fabric, "FullPodToPod");
    told.and(back)?;
    fabric.whole("peers are segregated no more", SOON)
}

/// What holds while rome and milan segregate their peers.
fn segregated(fabric: &mut Fabric) -> Result<()> {
    all_is_as_it_should(fabric, "segregated")?;
    the_application_is_reached_by_address(fabric)?;
    crate::a_remote_pod_reaches_the_api_server_of_its_home(fabric)?;
    a_failover_opens_nothing(fabric)?;
    what_is_shared_changes(fabric)?;
    endpoints_open_nothing(fabric)?;
    let forbidden = fabric.clusters().iter().map(|cluster| cluster.forbidden(0)).collect::<Result<Vec<_>>>()?.concat();
    ensure!(forbidden.is_empty(), "rights are missing: {forbidden:#?}");
    Ok(())
}

/// Installs rome and milan with another security mode.
fn switch(fabric: &Fabric, mode: &str) -> Result<()> {
    fabric.stage.everywhere(|cluster| match cluster.name() {
        name if SEGREGATED.contains(&name) => {
            Fabric::install(&fabric.stage, cluster, &["--set", &format!("networking.securityMode={mode}")])?;
            cluster.rolled_out("liqo", "liqo-gateway")
        }
        _ => Ok(()),
    })
}

/// The mode is shown for the cluster and for each peer.
fn shown(fabric: &Fabric) -> Result<()> {
    for (cluster, peer) in [("rome", "milan"), ("rome", "turin"), ("milan", "rome"), ("turin", "rome")] {
        let mode = if SEGREGATED.contains(&cluster) { MODE } else { "FullPodToPod" };
        let home = fabric.stage.cluster(cluster);
        wait_for(&format!("{cluster} tells its mode for {peer}"), SOON, || {
            let told = connection(home, peer)?["peerConfiguration"].clone();
            ensure!(told["securityMode"] == mode, "{told}");
            ensure!(told["reachableAddresses"].is_null() != (mode == MODE), "{told}");
            Ok(Some(()))
        })?;
        // turin has one node for its two gateways: `liqoctl status` fails there.
        let own = (cluster != "turin").then(|| vec!["status"]);
        for words in own.into_iter().chain([vec!["status", "peer", "--verbose", peer]]) {
            let text = fabric.stage.liqoctl(home, &words)?;
            let lines = || text.lines().filter(|line| line.contains("Security mode:"));
            ensure!(lines().count() == 1 && lines().all(|line| line.contains(mode)), "{words:?} of {cluster}: {text}");
        }
    }
    Ok(())
}

/// Services of the application, and pods of turin, are reached from everywhere; other pods of rome and milan from no peer.
fn all_is_as_it_should(fabric: &mut Fabric, after: &str) -> Result<()> {
    let places = fabric.places()?;
    let views = places::views(&fabric.stage)?;
    let matrix = Matrix::new(&places, &views, &fabric.application)?;
    let (inside, outside) = matrix.partition(|from, to| from == to || !SEGREGATED.contains(&to));
    inside.whole(after, SOON, Again::All)?;
    outside.nobody_answers(after)
}

/// Pods of offloaded namespaces, and pods that were offloaded, by their own addresses, from any pod of the peer.
fn the_application_is_reached_by_address(fabric: &mut Fabric) -> Result<()> {
    let (places, views) = (fabric.places()?, places::views(&fabric.stage)?);
    for to in [&fabric.application.here, &fabric.application.there] {
        let from = if to.cluster == "rome" { "milan" } else { "rome" };
        let view = views.get(&(from.to_owned(), to.cluster.clone())).context("no tunnel")?;
        let at = SocketAddr::new(mapped(to.ip, &view.remote_pods)?.into(), PORT);
        for place in places.iter().filter(|place| place.is_pod && place.cluster == from) {
            for way in [Way::Tcp(100), Way::Udp(100)] {
                let answer = echo::ask(&place.netns, at, way)?;
                ensure!(answer.name == to.name, "{} answers {} at {at}", answer.name, place.name);
            }
        }
    }
    Ok(())
}

/// Somebody who knocks all the time is not let in while the gateways of rome change places.
fn a_failover_opens_nothing(fabric: &mut Fabric) -> Result<()> {
    let rome = fabric.rome().clone();
    let [from, to] = ["milan", "rome"].map(|cluster| a_pod(fabric, cluster));
    let (from, to) = (from?, to?);
    let at = SocketAddr::new(seen_from_milan(fabric, to.ip)?, PORT);
    wait_for("two gateways", SOON, || Ok((role(&rome, "gateway")?.len() == 2).then_some(())))?;
    let knocks = Knocks::begin(&from.netns, at)?;
    rome.kill_pod_process("liqo", &active_gateway(&rome)?.0, "gateway")?;
    all_is_as_it_should(fabric, "a gateway of rome killed")?;
    let opened = knocks.end()?;
    ensure!(!opened, "{at} was reached while another gateway took over");
    Ok(())
}

/// A namespace that is offloaded becomes reachable with all its pods, one that is offloaded no more stops being so, and what
/// was said before is cut off.
fn what_is_shared_changes(fabric: &mut Fabric) -> Result<()> {
    let rome = fabric.rome().clone();
    let from = a_pod(fabric, "milan")?;
    rome.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: late}")?;
    rome.web("late", "late", 1, &format!("nodeSelector: {{kubernetes.io/hostname: {}}},", rome.first()))?;
    rome.rolled_out("late", "late")?;
    let addresses = || -> Result<Vec<IpAddr>> {
        let pods = rome.items(&["pods", "-n", "late"])?;
        pods.iter()
            .filter_map(|pod| pod["status"]["podIP"].as_str())
            .map(|ip| seen_from_milan(fabric, ip.parse()?))
            .collect()
    };
    let first = SocketAddr::new(*addresses()?.first().context("no pod")?, WEB);
    ensure!(!is_reached(&from, first)?, "a pod of a namespace that is not shared is reached");
    fabric.stage.offload(&rome, "late", &["--selector", "kubernetes.io/hostname=liqo-milan"])?;
    follows(&from, first, true)?;
    rome.kubectl(&["scale", "-n", "late", "deployment/late", "--replicas=2"])?;
    let second = wait_for("the second pod has an address", SOON, || {
        Ok(addresses()?.into_iter().find(|address| *address != first.ip()))
    })?;
    follows(&from, SocketAddr::new(second, WEB), true)?;
    let open = from.netns.run(move || TcpStream::connect_timeout(&first, KNOCK))??;
    fabric.stage.liqoctl(&rome, &["unoffload", "namespace", "late"])?;
    follows(&from, first, false)?;
    ensure!(!answers(open)?, "a connection to a pod that is shared no more goes on");
    ensure!(running(&rome, "late", "app=late")?.len() == 2, "the pods of the namespace are gone");
    rome.kubectl(&["delete", "namespace", "late", "--wait=false"]).map(drop)
}

/// A slice in an offloaded namespace that names a pod of a namespace that is not shared does not open that pod, while the pods of
/// the offloaded namespace are reached.
fn endpoints_open_nothing(fabric: &mut Fabric) -> Result<()> {
    let rome = fabric.rome().clone();
    let (from, hidden) = (a_pod(fabric, "milan")?, a_pod(fabric, "rome")?);
    rome.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: named}")?;
    rome.web("named", "open", 1, &format!("nodeSelector: {{kubernetes.io/hostname: {}}},", rome.first()))?;
    rome.rolled_out("named", "open")?;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "hidden", "namespace": "named", "labels": {"kubernetes.io/service-name": "open"}},
        "endpoints": [{"addresses": [hidden.ip.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "echo", "port": PORT, "protocol": "TCP"}]});
    rome.apply(&slice.to_string())?;
    fabric.stage.offload(&rome, "named", &["--selector", "kubernetes.io/hostname=liqo-milan"])?;
    let pods = rome.items(&["pods", "-n", "named"])?;
    let open = pods.iter().find_map(|pod| pod["status"]["podIP"].as_str()).context("no pod")?;
    follows(&from, SocketAddr::new(seen_from_milan(fabric, open.parse()?)?, WEB), true)?;
    let at = SocketAddr::new(seen_from_milan(fabric, hidden.ip)?, PORT);
    ensure!(!is_reached(&from, at)?, "{at} is reached because a slice names the address");
    rome.kubectl(&["delete", "endpointslice", "-n", "named", "hidden"])?;
    fabric.stage.liqoctl(&rome, &["unoffload", "namespace", "named"])?;
    rome.kubectl(&["delete", "namespace", "named", "--wait=false"]).map(drop)
}

/// Whether a web server answers on a connection that is open.
fn answers(mut open: TcpStream) -> Result<bool> {
    open.set_read_timeout(Some(KNOCK))?;
    open.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    Ok(open.read(&mut [0; 1]).is_ok_and(|read| read > 0))
}

/// Waits until an address is, or is not, reached.
fn follows(from: &Place, at: SocketAddr, reached: bool) -> Result<()> {
    let what = format!("{at} is {}reached from {}", if reached { "" } else { "not " }, from.name);
    wait_for(&what, PROMPT, || Ok((is_reached(from, at)? == reached).then_some(())))
}

fn is_reached(from: &Place, at: SocketAddr) -> Result<bool> {
    from.netns.run(move || knock(at))
}

/// Whether somebody answers a SYN, be it with no.
fn knock(at: SocketAddr) -> bool {
    TcpStream::connect_timeout(&at, KNOCK).map_or_else(|error| error.kind() == ErrorKind::ConnectionRefused, |_| true)
}

/// The pod on the node of a cluster's control plane, which is in no shared namespace.
fn a_pod(fabric: &mut Fabric, cluster: &str) -> Result<Place> {
    let places = fabric.places()?;
    places.into_iter().find(|one| one.is_pod && one.node == format!("{cluster}-1")).context("no pod")
}

/// The address of a pod of rome as milan knows it.
fn seen_from_milan(fabric: &Fabric, ip: std::net::Ipv4Addr) -> Result<IpAddr> {
    let views = places::views(&fabric.stage)?;
    let view = views.get(&("milan".into(), "rome".into())).context("no tunnel")?;
    mapped(ip, &view.remote_pods).map(IpAddr::V4)
}

/// Knocks at an address until told to stop.
struct Knocks {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<bool>>,
}

impl Knocks {
    fn begin(from: &Netns, at: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = from.spawn(move || {
            let mut opened = false;
            while !stopped.load(Ordering::Relaxed) {
                opened |= knock(at);
            }
            opened
        })?;
        Ok(Self { stop, thread })
    }

    /// Whether anybody ever answered.
    fn end(self) -> Result<bool> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("knocking does not panic")
    }
}
