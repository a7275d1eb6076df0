//! The network fabric: pods of clusters with equal ranges talk as if there were one network, whatever happens.
//!
//! One stage for all tests of this file; each leaves it whole.

mod network {
    pub(crate) mod application;
    pub(crate) mod fabric;
    pub(crate) mod matrix;
    pub(crate) mod places;
    pub(crate) mod segregation;
}

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use liqo_api::role::Runs;
use liqo_test::{
    Cluster,
    cluster::Node,
    echo::{self, Conversation, PORT, Way},
    fault::Garbage,
    netns::Netns,
    out,
    process::Process,
    run::{inside, inside_of, output},
    wait_for,
};
use network::{
    fabric::{Fabric, SOON, active_gateway, on_stage, role, wait_connection},
    places::{self, Place, mapped},
    segregation,
};

/// A gateway that dies is replaced in this time.
const FAILOVER: Duration = Duration::from_secs(2);
/// TCP sends a segment that was lost again after this time, at the earliest.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Answers that a connection gets in some seconds.
const A_WHILE: u64 = 200;

#[test]
fn every_place_reaches_every_other_one_by_every_way() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("after peering", SOON)?;
        all_endpoints_answer(fabric)?;
        outsiders_reach_node_ports(fabric)?;
        pods_are_pinged(fabric)?;
        a_remote_pod_reaches_the_api_server_of_its_home(fabric)?;
        what_is_outside_is_reached_through_its_home(fabric)?;
        peers_are_measured(fabric)?;
        let forbidden =
            fabric.clusters().iter().map(|cluster| cluster.forbidden(0)).collect::<Result<Vec<_>>>()?.concat();
        ensure!(forbidden.is_empty(), "rights are missing: {forbidden:#?}");
        Ok(())
    })
}

/// A Service with endpoints in three clusters is balanced over all, asked from any. What two providers say to each other goes
/// through their consumer.
fn all_endpoints_answer(fabric: &mut Fabric) -> Result<()> {
    let application = &fabric.application;
    let pods = [&application.here, &application.there, &application.far];
    let wanted: BTreeSet<_> = pods.map(|pod| pod.name.clone()).into();
    for from in pods {
        let to = application.services[&from.cluster].all;
        let answers = (0..48).map(|_| echo::ask(&from.netns, to, Way::Tcp(10)).map(|answer| answer.name));
        let names = answers.collect::<Result<BTreeSet<_>>>()?;
        ensure!(names == wanted, "{} is answered by {names:?} only", from.name);
    }
    Ok(())
}

/// Who is outside of both clusters asks a node port of one and is answered by a pod of the other.
fn outsiders_reach_node_ports(fabric: &mut Fabric) -> Result<()> {
    let outside = Netns::of(Process::me())?;
    let there = fabric.application.there.name.clone();
    for node in fabric.rome().nodes() {
        let to = SocketAddr::new(node.ip.parse()?, fabric.application.services["rome"].away);
        for way in [Way::Tcp(100_000), Way::Udp(3000)] {
            let answer = echo::ask(&outside, to, way)?;
            ensure!(answer.name == there, "{} answers at {to}", answer.name);
        }
    }
    Ok(())
}

/// ICMP, small and larger than any link carries at once.
fn pods_are_pinged(fabric: &mut Fabric) -> Result<()> {
    let (places, views) = (fabric.places()?, places::views(&fabric.stage)?);
    let pods = |cluster: &str| places.iter().filter(|one| one.is_pod && one.cluster == cluster).collect::<Vec<_>>();
    for (one, other) in [("rome", "milan"), ("milan", "rome")] {
        let view = views.get(&(one.to_owned(), other.to_owned())).context("no tunnel")?;
        for (from, to) in pods(one).into_iter().zip(pods(other)) {
            let to = mapped(to.ip, &view.remote_pods)?.to_string();
            for size in ["56", "3000"] {
                let mut ping = inside_of(&from.file, "busybox");
                ping.args(["ping", "-c3", "-W2", "-s", size]);
                output(ping.arg(&to)).with_context(|| format!("{} pings {to}", from.name))?;
            }
        }
    }
    Ok(())
}

/// By the name that every pod knows it by, and with the certificate that this name has at home.
fn a_remote_pod_reaches_the_api_server_of_its_home(fabric: &mut Fabric) -> Result<()> {
    let application = &fabric.application;
    let authority = fabric.rome().logs_dir().join("pki/ca.crt");
    let mut curl = inside_of(&application.there.file, "curl");
    curl.args(["-sS", "--fail", "--noproxy", "*"]);
    curl.args(["--max-time", "5", "--cacert"]).arg(authority);
    curl.args(["--resolve", &format!("kubernetes.default:443:{}", application.api_server)]);
    let version = output(curl.arg("https://kubernetes.default/version"))?;
    ensure!(version.contains("gitVersion"), "{version}");
    Ok(())
}

/// An endpoint that is no pod of any cluster gets an address of the external network for each peer, and the address back when it goes.
/// It is asked by a node of the cluster that exports it: it knows the way back to no other.
fn what_is_outside_is_reached_through_its_home(fabric: &mut Fabric) -> Result<()> {
    const MANIFEST: &str = "apiVersion: v1
kind: Service
metadata: {name: outside, namespace: demo}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside, namespace: demo, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
ports: [{port: 7007, protocol: TCP}]
";
    let (rome, milan) = (fabric.rome(), fabric.milan());
    let nodes: Vec<String> = rome.nodes().into_iter().map(|node| node.ip).collect();
    // This machine, at its end of the wire between all nodes.
    let (wire, _) = nodes.first().and_then(|ip| ip.rsplit_once('.')).context("no node")?;
    let outside = format!("{wire}.1");
    echo::serve(&Netns::of(Process::me())?, "outside", outside.parse()?)?;
    rome.apply(&format!("{MANIFEST}endpoints: [{{addresses: [{outside}]}}]\n"))?;
    let exported = wait_for("what is outside has an address in milan", SOON, || {
        let slices = milan.items(&["endpointslices", "-A", "-l", "kubernetes.io/service-name=outside"])?;
        let address = slices.first().and_then(|slice| slice["endpoints"][0]["addresses"][0].as_str());
        Ok(address.map(str::to_owned))
    })?;
    ensure!(exported != outside, "milan is told the address as it is");
    let to = SocketAddr::new(exported.parse()?, PORT);
    for way in [Way::Tcp(100_000), Way::Udp(100)] {
        let ask = || echo::ask(&fabric.application.there.netns, to, way).map(Some);
        let answer = wait_for("what is outside answers a pod in milan", SOON, ask)?;
        ensure!(answer.name == "outside", "{} answers at {to}", answer.name);
        ensure!(nodes.contains(&answer.seen.to_string()), "asked by {}, which is no node of rome", answer.seen);
    }
    rome.kubectl(&["delete", "-n", "demo", "service/outside", "endpointslice/outside"])?;
    wait_for("the address is given back", SOON, || {
        let mappings = rome.items(&["natmappings", "-A"])?;
        let held = mappings.iter().filter(|one| !one["spec"]["clusterMappings"][&outside].is_null()).count();
        Ok((held == 0).then_some(()))
    })
}

/// The active gateway tells of each peer what 0.8.3 told, with its labels.
fn peers_are_measured(fabric: &mut Fabric) -> Result<()> {
    let rome = fabric.rome();
    let gateway = rome.node(&active_gateway(rome)?.1)?;
    let metrics = metrics(&gateway, &format!("{}:5872", gateway.ip))?;
    for (peer, name) in ["milan", "turin"].into_iter().flat_map(|peer| MEASURED.map(|name| (peer, name))) {
        let id = &rome.json(&["foreignclusters", peer])?["spec"]["clusterIdentity"]["clusterID"];
        let labels = format!(r#"driver="wireguard",device="liqo.tunnel",cluster_id={id},cluster_name="{peer}""#);
        let value = value(&metrics, &format!("{name}{{{labels}}}"));
        let expected = if name == LOSS { 0.0..1.0 } else { f64::MIN_POSITIVE..f64::INFINITY };
        ensure!(value.is_some_and(|value| expected.contains(&value)), "{name} of {peer} is {value:?} in:\n{metrics}");
    }
    for sample in
        ["liqo_gateway_is_active", r#"liqo_wireguard_implementation{driver="wireguard",implementation="userspace"}"#]
    {
        ensure!(value(&metrics, sample) == Some(1.0), "{sample} is not 1 in:\n{metrics}");
    }
    liqo_test::metrics::are_those_of_the_guide(rome, |runs| matches!(runs, Runs::Networks | Runs::NetworksOnEachNode))
}

const LOSS: &str = "liqo_peer_loss_ratio";
/// Those of 0.8.3, and ours.
const MEASURED: [&str; 6] = [
    "liqo_peer_receive_bytes_total",
    "liqo_peer_transmit_bytes_total",
    "liqo_peer_latency_us",
    "liqo_peer_is_connected",
    "liqo_peer_mtu_bytes",
    LOSS,
];

/// What is served to Prometheus at an address, as a node sees it.
fn metrics(node: &Node, address: &str) -> Result<String> {
    let url = format!("http://{address}/metrics");
    output(inside(&node.netns, "curl").args(["-sS", "--fail", "--noproxy", "*", "--max-time", "5", &url]))
}

/// One sample, by its name and labels.
fn value(metrics: &str, sample: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

/// A connection between a pod of each cluster, in use all the time.
fn conversation(fabric: &mut Fabric) -> Result<Conversation> {
    let (places, views) = (fabric.places()?, places::views(&fabric.stage)?);
    let view = views.get(&("rome".into(), "milan".into())).context("no tunnel")?;
    let pod = |cluster: &str| -> Result<&Place> {
        // On the node of the control plane, which no test takes away.
        places.iter().find(|one| one.is_pod && one.node == format!("{cluster}-1")).context("no pod")
    };
    let to = SocketAddr::new(mapped(pod("milan")?.ip, &view.remote_pods)?.into(), PORT);
    Conversation::open(&pod("rome")?.netns, to)
}

#[test]
fn segregated_peers_reach_what_is_shared_and_nothing_else() -> Result<()> {
    on_stage(segregation::story)
}

#[test]
fn every_agent_may_die() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before anything dies", SOON)?;
        let talk = conversation(fabric)?;
        for cluster in [fabric.rome().clone(), fabric.milan().clone()] {
            for name in ["route", "network-manager", "controller-manager"] {
                for (pod, _) in role(&cluster, name)? {
                    cluster.kill_pod_process("liqo", &pod, name)?;
                }
            }
        }
        // What is measured is not to wait behind the questions of the matrix.
        talk.goes_on(A_WHILE, SOON)?;
        let longest = talk.end()?;
        ensure!(longest < Duration::from_secs(1), "packets waited {longest:?} for agents that carry none");
        fabric.whole("route agents and managers killed", SOON)
    })
}

/// Agents are replaced as by an update: the routes of one stay until the next has taken over, so a connection notices nothing.
#[test]
fn an_update_of_route_agents_stops_no_packet() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before route agents are replaced", SOON)?;
        let talk = conversation(fabric)?;
        for cluster in [fabric.rome().clone(), fabric.milan().clone()] {
            cluster.kubectl(&["rollout", "restart", "-n", "liqo", "daemonset/liqo-route"])?;
            cluster.kubectl(&["rollout", "status", "-n", "liqo", "daemonset/liqo-route", "--timeout=120s"])?;
        }
        talk.goes_on(A_WHILE, SOON)?;
        let longest = talk.end()?;
        out::note(&format!("  the longest pause while route agents were replaced: {longest:?}"));
        ensure!(longest < RETRANSMISSION, "packets waited {longest:?} for agents that carry none");
        fabric.whole("route agents replaced", SOON)
    })
}

#[test]
fn connections_outlive_the_control_plane() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the API servers are away", SOON)?;
        let talk = conversation(fabric)?;
        let clusters = [fabric.rome().clone(), fabric.milan().clone()];
        let away = Instant::now();
        clusters.iter().try_for_each(|cluster| cluster.stop_component("kube-apiserver"))?;
        // Longer than any lease.
        let meanwhile =
            wait_for("20 s have passed", SOON, || Ok((away.elapsed() > Duration::from_secs(20)).then_some(())));
        let meanwhile = meanwhile.and_then(|()| talk.goes_on(A_WHILE, SOON));
        clusters.iter().try_for_each(|cluster| cluster.start_component("kube-apiserver"))?;
        meanwhile?;
        pause(talk)?;
        fabric.whole("the API servers of two clusters away for 20 s", SOON * 2)
    })
}

#[test]
fn a_gateway_that_dies_is_replaced_within_two_seconds() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the gateways die", SOON)?;
        for cluster in [fabric.rome().clone(), fabric.milan().clone()] {
            standby_is_ready(&cluster)?;
            let talk = conversation(fabric)?;
            talk.goes_on(A_WHILE / 2, SOON)?;
            let (pod, node) = active_gateway(&cluster)?;
            cluster.kill_pod_process("liqo", &pod, "gateway")?;
            // The standby takes over, or the kubelet was quicker: what counts is that connections go on.
            pause(talk)?;
            fabric.whole(&format!("gateway of {} on {node} killed", cluster.name()), SOON)?;
        }
        Ok(())
    })
}

/// Two gateways run, so that one can take over.
fn standby_is_ready(cluster: &Cluster) -> Result<()> {
    wait_for("two gateways", SOON * 2, || Ok((role(cluster, "gateway")?.len() == 2).then_some(())))
}

#[test]
fn a_gateway_moves_when_its_node_is_drained() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the gateway moves", SOON)?;
        let milan = fabric.milan().clone();
        standby_is_ready(&milan)?;
        let talk = conversation(fabric)?;
        let (pod, node) = active_gateway(&milan)?;
        milan.kubectl(&["cordon", &node])?;
        milan.kubectl(&["delete", "pod", "-n", "liqo", &pod, "--wait=false"])?;
        wait_for("the gateway is elsewhere", SOON, || Ok((active_gateway(&milan)?.1 != node).then_some(())))?;
        pause(talk)?;
        fabric.whole(&format!("gateway moved away from {node}"), SOON)?;
        milan.kubectl(&["uncordon", &node]).map(drop)
    })
}

/// A connection goes on after another gateway has taken over, and has not waited for long. It is not to wait behind the
/// questions of the matrix either.
fn pause(talk: Conversation) -> Result<()> {
    talk.goes_on(A_WHILE, SOON)?;
    let longest = talk.end()?;
    out::note(&format!("  the longest pause of a connection: {longest:?}"));
    ensure!(longest < FAILOVER, "a connection had to wait {longest:?}");
    Ok(())
}

#[test]
fn nodes_come_and_go_and_change_their_address() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before nodes change", SOON)?;
        let milan = fabric.milan().clone();
        let fresh = milan.add_node()?;
        fabric.stage.product.load(&[&milan])?;
        fabric.whole(&format!("node {} added", fresh.name), SOON)?;
        milan.remove_node(&fresh.name)?;
        fabric.whole("and removed", SOON)?;

        let (_, gateway) = active_gateway(&milan)?;
        let other = milan.nodes().into_iter().find(|node| node.name != gateway && node.name != milan.first());
        let other = other.context("a node that is neither first nor the gateway's")?.name;
        milan.reboot_with_another_address(&other)?;
        fabric.refresh()?;
        fabric.node_whole("node with another address, its own places", &other, SOON)?;
        fabric.whole(&format!("node {other} with another address"), SOON)
    })
}

#[test]
fn a_gateway_node_changes_its_address() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the gateway's node changes", SOON)?;
        let milan = fabric.milan().clone();
        let (_, node) = active_gateway(&milan)?;
        if node == milan.first() {
            // The node of the control plane keeps its address: the gateway has to be elsewhere first.
            standby_is_ready(&milan)?;
            milan.kubectl(&["delete", "pod", "-n", "liqo", &active_gateway(&milan)?.0])?;
            wait_for("the gateway is elsewhere", SOON, || Ok((active_gateway(&milan)?.1 != node).then_some(())))?;
        }
        let (_, node) = active_gateway(&milan)?;
        milan.reboot_with_another_address(&node)?;
        fabric.refresh()?;
        fabric.whole(&format!("gateway's node {node} with another address"), SOON * 2)
    })
}

#[test]
fn a_wire_that_loses_frames_carries_the_rest() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the wire gets bad", SOON)?;
        let milan = fabric.milan().clone();
        milan.link().loss(5)?;
        fabric.whole_at_last("5 % of the frames lost", SOON * 2)?;
        milan.link().loss(0)?;
        milan.link().delay(50)?;
        fabric.whole_at_last("50 ms each way", SOON * 2)
    })
}

#[test]
fn a_path_that_swallows_large_packets_carries_them_cut() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before large packets vanish", SOON)?;
        let milan = fabric.milan().clone();
        milan.link().black_hole(1280)?;
        fabric.whole("what is longer than 1280 vanishes", SOON)?;
        milan.link().black_hole(0)?;
        fabric.whole("large packets pass again", SOON)
    })
}

#[test]
fn rules_and_routes_flushed_by_others_come_back() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the rules are flushed", SOON)?;
        let rome = fabric.rome().clone();
        for node in rome.nodes() {
            rome.flush_nftables(&node.name)?;
        }
        fabric.whole("all rules of all nodes flushed", SOON)?;
        for node in rome.nodes() {
            output(inside(&node.netns, "ip").args(["route", "flush", "table", "18952"]))?;
        }
        fabric.whole("all routes to peers flushed", SOON)?;
        let gateway = rome.node(&active_gateway(&rome)?.1)?;
        let netns = gateway.kept_netns("liqo-netns");
        output(inside_of(&netns, "nft").args(["flush", "ruleset"]))?;
        output(inside_of(&netns, "ip").args(["route", "flush", "dev", "liqo.tunnel"]))?;
        fabric.whole("the rules and routes of the gateway flushed", SOON)?;
        let repairs = |node: &Node, address: &str, kind: &str| {
            let sample = format!("liqo_fabric_repairs_total{{kind=\"{kind}\"}}");
            Ok::<_, anyhow::Error>(value(&metrics(node, address)?, &sample).unwrap_or_default())
        };
        for kind in ["table", "route"] {
            // What an agent makes anew because there is news at the same moment it does not count: one of three is enough.
            let counted: Vec<_> =
                rome.nodes().iter().map(|node| repairs(node, "127.0.0.1:5874", kind)).collect::<Result<_>>()?;
            ensure!(counted.iter().sum::<f64>() > 0.0, "the agents of rome count {counted:?} repairs of a {kind}");
            let counted = repairs(&gateway, &format!("{}:5872", gateway.ip), kind)?;
            ensure!(counted > 0.0, "the gateway of rome counts no repair of a {kind}");
        }
        Ok(())
    })
}

#[test]
fn garbage_harms_nobody() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the garbage", SOON)?;
        let (rome, milan) = (fabric.rome().clone(), fabric.milan().clone());
        let gateway = format!("{}:5871", rome.node(&active_gateway(&rome)?.1)?.ip).parse()?;
        let check = format!("{}:12345", tunnel_address(fabric)?).parse()?;
        let outside = Netns::of(Process::me())?;
        let pod = fabric.places()?.into_iter().find(|one| one.is_pod && one.cluster == "milan").context("no pod")?;
        let restarts = restarts(&rome)?;
        under(&[(&outside, gateway), (&pod.netns, check)], || {
            fabric.whole_at_last("under garbage at 5871, and at 12345 from a pod", SOON * 2)
        })?;
        // A peer's gateway does what it likes: what it carries itself may suffer.
        let peer = milan.node(&active_gateway(&milan)?.1)?.kept_netns("liqo-netns");
        under(&[(&Netns::open(&peer)?, check)], || {
            fabric.whole_without("milan", "under garbage at 12345 from the gateway of milan", SOON * 2)
        })?;
        ensure!(self::restarts(&rome)? == restarts, "something of ours was restarted");
        wait_connection(&rome, "milan", "Connected", SOON)?;
        wait_connection(&milan, "rome", "Connected", SOON)
    })
}

/// While garbage is thrown from some places at others.
fn under(thrown: &[(&Netns, SocketAddr)], act: impl FnOnce() -> Result<()>) -> Result<()> {
    let thrown = thrown.iter().map(|(from, to)| Garbage::throw(from, *to)).collect::<Result<Vec<_>>>()?;
    act()?;
    for one in &thrown {
        ensure!(one.sent() > 10_000, "only {} datagrams of garbage", one.sent());
    }
    Ok(())
}

/// Where milan's connection checks go: the second address of rome's external network, as milan sees it.
fn tunnel_address(fabric: &Fabric) -> Result<std::net::Ipv4Addr> {
    let tunnels = fabric.milan().items(&["tunnelendpoints", "-A"])?;
    let text = |key: &str| tunnels[0]["spec"][key].as_str().unwrap_or_default().to_owned();
    let network = match text("remoteNATExternalCIDR") {
        same if same == "None" || same.is_empty() => text("remoteExternalCIDR"),
        other => other,
    };
    liqo_test::cidr::nth(&network, 1)
}

fn restarts(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let pods = cluster.items(&["pods", "-n", "liqo"])?;
    let count = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].to_string();
    Ok(pods.iter().map(|pod| (pod["metadata"]["name"].to_string(), count(pod))).collect())
}

#[test]
fn a_key_is_rotated() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the key changes", SOON)?;
        let milan = fabric.milan().clone();
        let key = || -> Result<String> {
            let secret = milan.json(&["secret", "-n", "liqo", "wireguard-pubkey"])?;
            Ok(secret["data"]["publicKey"].as_str().unwrap_or_default().to_owned())
        };
        let old = key()?;
        milan.kubectl(&["delete", "secret", "-n", "liqo", "wireguard-pubkey"])?;
        wait_for("another key", SOON, || Ok((key()? != old).then_some(())))?;
        fabric.whole("the key of milan is another one", SOON)
    })
}

#[test]
fn a_minute_apart_changes_nothing() -> Result<()> {
    on_stage(|fabric| {
        fabric.whole("before the clusters are parted", SOON)?;
        let (rome, milan) = (fabric.rome().clone(), fabric.milan().clone());
        let pods = |fabric: &Fabric| (fabric.application.here.name.clone(), fabric.application.there.name.clone());
        let before = pods(fabric);
        let objects = [objects(&rome)?, objects(&milan)?];
        let talk = conversation(fabric)?;
        talk.goes_on(A_WHILE / 4, SOON)?;
        let parted = Instant::now();
        fabric.stage.bed.part(&rome, &milan)?;
        for (cluster, peer) in [(&rome, "milan"), (&milan, "rome")] {
            wait_connection(cluster, peer, "Connecting", Duration::from_secs(5))
                .or_else(|_| wait_connection(cluster, peer, "Error", Duration::from_secs(5)))?;
        }
        a_dead_path_is_told_everywhere(&rome)?;
        wait_for("a minute has passed", Duration::from_secs(70), || {
            Ok((parted.elapsed() > Duration::from_secs(60)).then_some(()))
        })?;
        fabric.stage.bed.heal()?;
        fabric.whole("after a minute apart", SOON)?;
        // TCP has waited longer and longer before it asked again.
        talk.goes_on(A_WHILE, SOON * 3)?;
        talk.end().context("a connection that was open when the clusters were parted")?;
        fabric.refresh()?;
        ensure!(pods(fabric) == before, "pods were replaced");
        ensure!([self::objects(&rome)?, self::objects(&milan)?] == objects, "objects were made anew");
        Ok(())
    })
}

/// What the network between clusters is made of, by their UIDs.
fn objects(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let all = cluster.items(&["foreignclusters,networkconfigs,tunnelendpoints,natmappings,resourceoffers", "-A"])?;
    let told =
        |one: &serde_json::Value| format!("{} {} {}", one["kind"], one["metadata"]["name"], one["metadata"]["uid"]);
    Ok(all.iter().map(told).collect())
}

/// Where people look: the ForeignCluster, the virtual node, the metrics.
fn a_dead_path_is_told_everywhere(rome: &Cluster) -> Result<()> {
    wait_for("the ForeignCluster says that the network is down", SOON, || {
        let now = rome.peering("milan", "NetworkStatus")?;
        ensure!(["Pending", "Error"].iter().any(|down| now["status"] == *down), "{now}");
        Ok(Some(()))
    })?;
    wait_for("the virtual node says so", SOON, || {
        let node = rome.json(&["node", "liqo-milan"])?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is = |kind: &str, status: &str| conditions.iter().any(|one| one["type"] == kind && one["status"] == status);
        ensure!(is("NetworkUnavailable", "True") && is("Ready", "False"), "{conditions:?}");
        Ok(Some(()))
    })?;
    let gateway = rome.node(&active_gateway(rome)?.1)?;
    let metrics = metrics(&gateway, &format!("{}:5872", gateway.ip))?;
    let told = metrics.lines().find(|line| line.starts_with("liqo_peer_is_connected") && line.contains("\"milan\""));
    ensure!(told.is_some_and(|line| line.ends_with(" 0")), "{told:?}");
    Ok(())
}
