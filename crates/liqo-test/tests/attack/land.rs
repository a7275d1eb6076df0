//! The land grabber: a peer announces networks that do not belong to it.

use anyhow::{Context, Result, ensure};
use liqo_test::{Cluster, run, stage::LONG, wait_for};
use serde_json::{Value, json};

use super::{
    hostile::Outcome,
    raid::{Raid, never, text},
};

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let announced = announced(raid)?;
    let name = text(&announced, "/metadata/name");
    let before = routes(raid)?;
    let network = |field: &str, value: &str| json!({"spec": {field: value}});
    let tried = |patch: &Value| -> Result<Outcome> { peer.patches(&peer.tenant, &["networkconfig", name], patch) };
    let ranges = ranges(rome)?;
    let announcements = ranges.iter().map(|range| ("podCIDR", range)).chain([("externalCIDR", &ranges[0])]);
    for (field, range) in announcements {
        let what = format!("{field} {range}");
        let refused = tried(&network(field, range))?.is_refused();
        let held = never(&format!("routes have moved with {what}"), || moved(raid, &before));
        let held = held.and_then(|()| connected(rome, &raid.milan.id).context(what.clone()));
        super::raid::answers(raid)?;
        // Private ranges are used by many clusters, and public ones are not believed: both are translated.
        let settled = wait_for(&format!("{what} is refused, reported as a problem, or translated"), LONG, || {
            let settled = refused || has_problem(rome, "turin")? || is_translated(raid, field, range)?;
            Ok(settled.then_some(()))
        });
        restore(raid, &announced)?;
        held.and(settled)?;
    }
    keys_and_ends(raid, name, &before)?;
    in_anothers_name(raid)?;
    restore(raid, &announced)?;
    rome.wait_peering("turin", "NetworkStatus", "Established")
}

/// The networks that turin announced honestly, as rome stores them.
fn announced(raid: &Raid) -> Result<Value> {
    let selector = format!("liqo.io/originID={}", raid.turin.id);
    let all = raid.rome().items(&["networkconfigs", "-n", &raid.turin.tenant, "-l", &selector])?;
    all.into_iter().next().context("turin announced no network in rome")
}

/// Whether rome sees turin's network under another range than the announced one.
fn is_translated(raid: &Raid, field: &str, range: &str) -> Result<bool> {
    let tunnels = raid.rome().items(&["tunnelendpoints", "-n", &raid.turin.tenant])?;
    let (here, there) = match field {
        "podCIDR" => ("/spec/remotePodCIDR", "/spec/remoteNATPodCIDR"),
        _ => ("/spec/remoteExternalCIDR", "/spec/remoteNATExternalCIDR"),
    };
    Ok(tunnels.iter().any(|one| text(one, here) == range && !["", "None", range].contains(&text(one, there))))
}

/// Ranges that are not the peer's alone.
fn ranges(rome: &Cluster) -> Result<Vec<String>> {
    let api = rome.node_ip();
    let net = api.rsplit_once('.').context("a node has an address")?.0.to_owned();
    Ok(vec![
        rome.spec().service_cidr.clone(),
        // The honest peer's pods.
        "10.20.0.0/16".to_owned(),
        // What covers all pods and Services of rome.
        "10.0.0.0/9".to_owned(),
        "8.8.8.0/24".to_owned(),
        "0.0.0.0/1".to_owned(),
        "169.254.0.0/16".to_owned(),
        "fd00::/64".to_owned(),
        // Last, because a success would cut rome off: the API server, then the nodes of all clusters and their host.
        format!("{api}/32"),
        format!("{net}.0/24"),
    ])
}

/// The route on each node of rome to its nodes, its API server, a Service, the honest peer's pods and outside addresses.
fn routes(raid: &Raid) -> Result<Vec<String>> {
    let rome = raid.rome();
    let web = rome.json(&["pods", "-n", "shop", "-l", "app=web"])?;
    let outside = ["8.8.8.8", "1.1.1.1", "169.254.169.254", "fd00::1"].map(str::to_owned);
    let targets: Vec<_> =
        [text(&web, "/items/0/status/podIP").to_owned(), rome.dns_ip()].into_iter().chain(outside).collect();
    let nodes = rome.nodes();
    let mut all = Vec::new();
    for node in &nodes {
        for target in nodes.iter().map(|other| &other.ip).chain(&targets) {
            let asked = run::output(run::inside(&node.netns, "ip").args(["-o", "route", "get", target]));
            let way = asked.unwrap_or_else(|_| format!("{target} unreachable"));
            all.push(format!("{}: {}", node.name, way.replace("cache", "").trim()));
        }
    }
    Ok(all)
}

fn moved(raid: &Raid, before: &[String]) -> Result<Vec<String>> {
    let now = routes(raid)?;
    Ok(now.into_iter().filter(|way| !before.contains(way)).collect())
}

/// Whether rome reports a problem of a peer's network.
fn has_problem(rome: &Cluster, peer: &str) -> Result<bool> {
    let peer = rome.json(&["foreigncluster", peer])?;
    Ok(!text(&peer, "/metadata/annotations/net.liqo.io~1problem").is_empty())
}

/// The tunnel to the honest peer.
fn connected(rome: &Cluster, id: &str) -> Result<()> {
    let tunnels = rome.items(&["tunnelendpoints", "-A"])?;
    let tunnel = tunnels.iter().find(|one| text(one, "/spec/clusterIdentity/clusterID") == id);
    let status = text(tunnel.context("there is no tunnel to milan")?, "/status/connection/status");
    ensure!(status == "Connected", "the tunnel to milan is {status:?}");
    Ok(())
}

/// Restores turin's honest announcement, as its administrator would.
fn restore(raid: &Raid, announced: &Value) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/spec", "value": announced["spec"]}]).to_string();
    let (namespace, name) = (text(announced, "/metadata/namespace"), text(announced, "/metadata/name"));
    let what = ["patch", "networkconfig", "-n", namespace, name, "--type=json", "-p", &patch];
    raid.rome().kubectl(&what).map(drop)
}

/// WireGuard keys of other clusters, and gateway addresses that are no gateways.
fn keys_and_ends(raid: &Raid, name: &str, before: &[String]) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let of = |tenant: &str, selector: &str| -> Result<String> {
        let all = rome.items(&["networkconfigs", "-n", tenant, "-l", selector])?;
        let key = all.iter().map(|one| text(one, "/spec/backend_config/publicKey")).find(|key| !key.is_empty());
        key.map(str::to_owned).context("a network without a key")
    };
    let milans = of(&raid.milan.tenant, &format!("liqo.io/originID={}", raid.milan.id))?;
    let ours = of(&raid.milan.tenant, "liqo.io/replication=true")?;
    many_addresses(rome)?;
    for (what, patch) in [
        ("a name with many addresses as the end of a tunnel", json!({"spec": {"endpointIP": MANY}})),
        ("the key of the honest peer", json!({"spec": {"backend_config": {"publicKey": milans}}})),
        ("the key of rome itself", json!({"spec": {"backend_config": {"publicKey": ours}}})),
        ("the API server as the end of a tunnel", json!({"spec": {"endpointIP": rome.node_ip()}})),
    ] {
        let refused = peer.patches(&peer.tenant, &["networkconfig", name], &patch)?.is_refused();
        never(what, || moved(raid, before))?;
        if what.contains("key") && !refused {
            wait_for(&format!("{what} is reported"), LONG, || Ok(has_problem(rome, "turin")?.then_some(())))?;
        }
        connected(rome, &raid.milan.id).context(what)?;
        rome.wait_peering("milan", "NetworkStatus", "Established")?;
    }
    rome.kubectl(&["delete", "service,endpointslice", "-n", "default", "many"]).map(drop)
}

/// A name for which rome's DNS answers a thousand addresses, as the DNS of a peer may.
const MANY: &str = "many.default.svc.cluster.local";

fn many_addresses(rome: &Cluster) -> Result<()> {
    let addresses = (0..1000).map(|number| format!("172.31.{}.{}", number / 250, number % 250 + 1));
    let endpoints: Vec<_> = addresses.map(|address| json!({"addresses": [address]})).collect();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "many", "namespace": "default"},
        "spec": {"clusterIP": "None", "ports": [{"port": 5871, "protocol": "UDP"}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "many", "namespace": "default", "labels": {"kubernetes.io/service-name": "many"}},
        "ports": [{"port": 5871, "protocol": "UDP"}], "endpoints": endpoints});
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [service, slice]});
    run::feed(rome.kubectl_command().args(["create", "-f", "-"]), &both.to_string()).map(drop)
}

/// The NetworkConfig that rome writes for turin, and the tunnel made of it, cannot be changed by turin.
fn in_anothers_name(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let ours = rome.items(&["networkconfigs", "-n", &peer.tenant, "-l", "liqo.io/replication=true"])?;
    let ours = text(ours.first().context("rome announces nothing to turin")?, "/metadata/name").to_owned();
    let name = json!({"spec": {"cluster": {"clusterID": raid.milan.id, "clusterName": "milan"}}});
    let mine = ["networkconfig", ours.as_str()];
    peer.patches(&peer.tenant, &mine, &name)?.refused("what rome announces is changed");
    let status = json!({"status": {"processed": true, "podCIDRNAT": "172.30.0.0/16"}});
    let mine = ["networkconfig", ours.as_str(), "--subresource=status"];
    peer.patches(&peer.tenant, &mine, &status)?.refused("the status of what rome announces is written by a peer");
    wait_for("the tunnel is that of turin", LONG, || {
        let tunnels = rome.items(&["tunnelendpoints", "-n", &peer.tenant])?;
        Ok(tunnels.iter().all(|one| text(one, "/spec/clusterIdentity/clusterID") == peer.id).then_some(()))
    })
}
