//! In-band: two consumers behind routers that let nobody in, and a provider of which they reach one UDP port and
//! nothing else. All three use the same addresses inside.

mod in_band {
    pub(crate) mod port;
}

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use liqo_test::{
    Cluster, ClusterSpec, Stage,
    run::{inside_of, ip, nft, output},
    stage::{LONG, on},
    story, wait_for,
};
use serde_json::Value;

/// The name its load balancer gets.
const BALANCER: &str = "gateway.milan.example";

#[test]
fn two_consumers_behind_routers_use_a_provider_through_its_wireguard_port() -> Result<()> {
    let spec = |name, number| ClusterSpec::new(name, number).cidrs("10.244.0.0/16", "10.96.0.0/16");
    let specs = vec![spec("rome", 1).behind_nat(), spec("turin", 2).behind_nat(), spec("milan", 3)];
    story::alone("in-band", || Stage::apart("in-band", specs), through_one_port)
}

fn through_one_port(stage: &Stage) -> Result<()> {
    let (rome, turin, milan) = (stage.cluster("rome"), stage.cluster("turin"), stage.cluster("milan"));
    stage.everywhere(|cluster| {
        let more = if cluster.name() == "turin" { ",gateway.service.type=ClusterIP" } else { "" };
        // Nobody needs to reach the authentication service from outside.
        stage.install(cluster, cluster.name(), &["--set", &format!("auth.service.type=ClusterIP{more}")])
    })?;
    only_udp(milan)?;
    refused_before_anything_is_written(stage)?;

    let told = peer(stage, rome, milan, &["--bidirectional"])?;
    told_as_documented(&told)?;
    known_on_both_sides(rome, milan)?;
    // Again, and without asking for the other direction: that one stays.
    peer(stage, rome, milan, &[])?;
    milan.wait_peering("rome", "OutgoingPeering", "Established")?;
    let told = peer(stage, turin, milan, &[])?;
    ensure!(told.contains("service liqo-gateway is of type ClusterIP, so it cannot be reached from outside"), "{told}");

    for consumer in [rome, turin] {
        used(stage, consumer, milan)?;
    }
    shown(stage, rome)?;
    in_band::port::followed(&[rome, turin], milan)?;
    key_followed(turin, milan)?;
    for consumer in [rome, turin] {
        reached(consumer)?;
    }
    followed_by_name(&[rome, turin], milan)?;
    for consumer in [rome, turin] {
        reached(consumer)?;
    }

    for consumer in [rome, turin] {
        stage.liqoctl(consumer, &["unoffload", "namespace", "demo"])?;
        unpeer(stage, consumer, milan)?;
    }
    for cluster in [rome, turin, milan] {
        forgotten(cluster)?;
    }
    // What is gone is no failure, and the way back is open.
    let told = unpeer(stage, rome, milan)?;
    ensure!(
        told.contains("it seems that the foreign cluster for remote cluster \"milan\" has been already removed"),
        "{told}"
    );
    peer(stage, rome, milan, &[])?;
    unpeer(stage, rome, milan).map(drop)
}

/// From the routers nothing but UDP comes in: neither API server nor authentication service can be reached there.
fn only_udp(milan: &Cluster) -> Result<()> {
    for node in milan.nodes() {
        let routers = node.ip.rsplit_once('.').map(|(net, _)| format!("{net}.201-{net}.250"));
        let routers = routers.context("the node has no address")?;
        nft(
            &node.netns,
            &format!(
                "table ip only_udp {{
                   chain admit {{
                     type filter hook prerouting priority raw;
                     iifname eth0 ip saddr {routers} meta l4proto != udp drop
                   }}
                 }}\n"
            ),
        )?;
    }
    Ok(())
}

fn in_band(stage: &Stage, verb: &str, here: &Cluster, there: &Cluster, more: &[&str]) -> Result<String> {
    let remote = there.kubeconfig().display().to_string();
    stage.liqoctl(here, &[&[verb, "in-band", "--remote-kubeconfig", &remote, "--timeout", "180s"], more].concat())
}

fn peer(stage: &Stage, here: &Cluster, there: &Cluster, more: &[&str]) -> Result<String> {
    in_band(stage, "peer", here, there, more)
}

fn unpeer(stage: &Stage, here: &Cluster, there: &Cluster) -> Result<String> {
    in_band(stage, "unpeer", here, there, &[])
}

/// A cluster cannot be peered with itself, and a refusal leaves no trace.
fn refused_before_anything_is_written(stage: &Stage) -> Result<()> {
    let (rome, copy) = (stage.cluster("rome"), stage.cluster("rome").kubeconfig().display().to_string());
    let told = stage.refused(rome, &["peer", "in-band", "--remote-kubeconfig", &copy])?;
    ensure!(told.contains("local and remote clusters must be different"), "{told}");
    // The same cluster under another user name is found out by its ID.
    let told = stage.refused(
        rome,
        &[
            "peer",
            "in-band",
            "--remote-kubeconfig",
            &copy,
            "--remote-as",
            "kubernetes-super-admin",
            "--remote-as-group",
            "system:masters",
        ],
    )?;
    ensure!(told.contains("is equal to the ID of the local cluster"), "{told}");
    let tenants = rome.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
    ensure!(tenants.is_empty() && rome.items(&["foreignclusters"])?.is_empty(), "a refused peering left something");
    Ok(())
}

fn told_as_documented(told: &str) -> Result<()> {
    for line in [
        " INFO  (local) cluster identity correctly retrieved",
        " INFO  (remote) network configuration correctly retrieved",
        " WARN  (local) wireGuard configuration correctly retrieved: endpoint IP \"",
        " INFO  (local) foreign cluster for remote cluster \"milan\" not found: marked for creation",
        " INFO  (remote) network configuration created in remote cluster \"rome\"",
        " INFO  (local) network configuration status correctly reflected from cluster \"milan\"",
        " INFO  (local) IPAM service correctly port-forwarded \"",
        " INFO  (remote) foreign cluster for remote cluster \"rome\" correctly configured",
        " INFO  (local) Network established to the remote cluster \"milan\"",
        " INFO  (local) outgoing peering flag for remote cluster \"milan\" correctly configured",
        " INFO  (remote) Node created for remote cluster \"rome\"",
        " INFO  Peering successfully established",
    ] {
        ensure!(told.contains(line), "{line:?} is missing in:\n{told}");
    }
    Ok(())
}

fn known_on_both_sides(rome: &Cluster, milan: &Cluster) -> Result<()> {
    for (cluster, peer) in [(rome, "milan"), (milan, "rome")] {
        let known = cluster.json(&["foreignclusters", peer])?;
        ensure!(known["spec"]["peeringType"] == "InBand", "{known}");
        let proxy = known["spec"]["foreignProxyUrl"].as_str().unwrap_or_default();
        ensure!(proxy.starts_with("http://") && proxy.ends_with(":8118"), "{known}");
        for direction in ["OutgoingPeering", "IncomingPeering"] {
            cluster.wait_peering(peer, direction, "Established")?;
        }
        cluster.wait_peering(peer, "APIServerStatus", "Established")?;
    }
    Ok(())
}

/// Pods run there, answer here, can be looked into, and reach the API server of their home.
fn used(stage: &Stage, consumer: &Cluster, milan: &Cluster) -> Result<()> {
    stage.offload(consumer, "demo", &[])?;
    consumer.web("demo", "web", 1, &on("milan"))?;
    consumer.web("demo", "client", 1, "nodeSelector: {node-role.kubernetes.io/control-plane: ''},")?;
    consumer.rolled_out("demo", "web")?;
    consumer.rolled_out("demo", "client")?;
    reached(consumer)?;
    let pods = consumer.pods("demo", "app=web")?;
    let (name, node) = pods.first().context("no pod")?;
    ensure!(node == "liqo-milan", "placed as {pods:?}");
    let hostname = consumer.kubectl(&["exec", "-n", "demo", name, "--", "hostname"])?;
    ensure!(hostname.trim() == name, "exec reached {hostname:?}");
    asks_its_home(consumer, milan, name)
}

/// From a pod at home to the one abroad: by its address and by the name of its Service.
fn reached(consumer: &Cluster) -> Result<()> {
    let clients = consumer.pods("demo", "app=client")?;
    let (client, _) = clients.first().context("no client")?;
    let web = consumer.items(&["pods", "-n", "demo", "-l", "app=web"])?;
    let address =
        web.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("the remote pod has no address")?;
    let name = web[0]["metadata"]["name"].as_str().unwrap_or_default();
    for target in [format!("http://{address}:8080/"), "http://web/".to_owned()] {
        wait_for(&format!("{} reaches {target}", consumer.name()), LONG, || {
            let said = consumer.kubectl(&["exec", "-n", "demo", client, "--", "wget", "-qO-", &target])?;
            Ok(said.contains(name).then_some(()))
        })?;
    }
    Ok(())
}

/// With its own token the remote pod is known to the API server of its home: asked from the pod's network namespace,
/// at the address the pod was given.
fn asks_its_home(consumer: &Cluster, milan: &Cluster, pod: &str) -> Result<()> {
    let read = |path: &str| consumer.kubectl(&["exec", "-n", "demo", pod, "--", "cat", path]);
    let hosts = read("/etc/hosts")?;
    let alias = hosts.lines().find(|line| line.split_whitespace().any(|word| word == "kubernetes.default"));
    let address =
        alias.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no alias in {hosts}"))?;
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let (token, authority) = (read(&format!("{account}/token"))?, read(&format!("{account}/ca.crt"))?);
    let kept = std::env::temp_dir().join(format!("in-band-{}-{}.crt", std::process::id(), consumer.name()));
    std::fs::write(&kept, authority)?;
    let remote = milan.items(&["pods", "-A", "--field-selector", &format!("metadata.name={pod}")])?;
    let there = remote.first().and_then(|one| one["metadata"]["namespace"].as_str()).context("the pod does not run")?;
    let process = milan.container_process(there, pod, "web")?;
    let mut ask = inside_of(Path::new(&format!("/proc/{}/ns/net", process.pid)), "kubectl");
    ask.arg("--kubeconfig=/dev/null");
    ask.arg(format!("--server=https://{address}:443")).arg("--tls-server-name=kubernetes.default");
    ask.arg(format!("--certificate-authority={}", kept.display())).arg(format!("--token={}", token.trim()));
    let said = output(ask.args(["auth", "whoami", "-o", "json"]));
    let _ = std::fs::remove_file(&kept);
    let said: Value = serde_json::from_str(&said?)?;
    let who = &said["status"]["userInfo"]["username"];
    ensure!(who == "system:serviceaccount:demo:default", "the home knows the pod as {said}");
    Ok(())
}

fn shown(stage: &Stage, rome: &Cluster) -> Result<()> {
    let told = stage.liqoctl(rome, &["status", "peer", "milan", "--verbose"])?;
    for part in [
        "InBand",
        "Auth Proxy URL:",
        "Remapped - how \"rome\" has been remapped by \"milan\"",
        "Gateway IPs",
        "Connected",
        "Latency:",
    ] {
        ensure!(told.contains(part), "{part:?} is missing in:\n{told}");
    }
    let told = stage.liqoctl(rome, &["status"])?;
    for part in ["liqo-gateway:", "liqo-route:", "External CIDR:", "udp://"] {
        ensure!(told.contains(part), "{part:?} is missing in:\n{told}");
    }
    Ok(())
}

/// The gateway of a consumer that nobody reaches from outside gets another key: the provider learns the key, and the consumer
/// opens the tunnel with it. Nothing is wrong meanwhile with a gateway of this kind.
fn key_followed(turin: &Cluster, milan: &Cluster) -> Result<()> {
    let key = || -> Result<String> {
        let secret = turin.json(&["secret", "-n", "liqo", "wireguard-pubkey"])?;
        Ok(secret["data"]["publicKey"].as_str().unwrap_or_default().to_owned())
    };
    let known = || -> Result<Vec<String>> {
        let tunnels = milan.items(&["tunnelendpoints", "-A"])?;
        let keys = tunnels.iter().filter_map(|tunnel| tunnel["spec"]["backend_config"]["publicKey"].as_str());
        Ok(keys.map(|key| BASE64.encode(key)).collect())
    };
    let old = key()?;
    ensure!(known()?.contains(&old), "milan does not know turin's key");
    turin.kubectl(&["delete", "secret", "-n", "liqo", "wireguard-pubkey"])?;
    wait_for("turin's new key is known in milan", LONG, || {
        let new = key()?;
        Ok((new != old && known()?.contains(&new)).then_some(()))
    })?;
    for foreign in turin.items(&["foreignclusters"])? {
        let problem = &foreign["metadata"]["annotations"]["net.liqo.io/problem"];
        ensure!(problem.is_null(), "turin's gateway needs no way in: {problem}");
    }
    Ok(())
}

/// The provider's gateway is behind a load balancer that has a name, and the name gets another address. Consumers look it up
/// again and again; milan could not tell them, as it cannot reach their routers.
fn followed_by_name(consumers: &[&Cluster], milan: &Cluster) -> Result<()> {
    let names = milan.name_server()?;
    let node = milan.node(&milan.first())?;
    names.tell(BALANCER, &node.ip)?;
    let resolver = format!(
        r#"{{"spec":{{"template":{{"spec":{{"dnsPolicy":"None","dnsConfig":{{"nameservers":["{}"]}}}}}}}}}}"#,
        names.address
    );
    for consumer in consumers {
        consumer.kubectl(&["patch", "deployment", "-n", "liqo", "liqo-gateway", "-p", &resolver])?;
        consumer.rolled_out("liqo", "liqo-gateway")?;
    }
    let service = ["patch", "service", "-n", "liqo", "liqo-gateway", "-p"];
    milan.kubectl(&[&service[..], &[r#"{"spec":{"type":"LoadBalancer"}}"#]].concat())?;
    let published = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"hostname":"{BALANCER}"}}]}}}}}}"#);
    milan.kubectl(&[&service[..], &[&published, "--subresource=status"]].concat())?;
    for consumer in consumers {
        connected_to(consumer, BALANCER, "5871")?;
    }

    let (net, last) = node.ip.rsplit_once('.').context("the node has no address")?;
    let another = format!("{net}.{}", last.parse::<u8>()? + 100);
    ip(&node.netns, &format!("addr add {another}/24 dev eth0"))?;
    nft(&node.netns, &format!("add rule ip only_udp admit ip daddr {} udp dport != 53 drop\n", node.ip))?;
    for consumer in consumers {
        wait_for(&format!("{} hears milan no longer", consumer.name()), LONG, || {
            Ok((tunnel(consumer)?["status"]["connection"]["status"] != "Connected").then_some(()))
        })?;
    }
    names.tell(BALANCER, &another)?;
    for consumer in consumers {
        connected_to(consumer, BALANCER, "5871")?;
    }
    Ok(())
}

fn connected_to(consumer: &Cluster, host: &str, port: &str) -> Result<()> {
    wait_for(&format!("{} is connected to {host}:{port}", consumer.name()), LONG, || {
        let tunnel = tunnel(consumer)?;
        let (spec, state) = (&tunnel["spec"], &tunnel["status"]["connection"]["status"]);
        ensure!(spec["endpointIP"] == host && spec["backend_config"]["port"] == port, "{spec}");
        ensure!(state == "Connected", "{}", tunnel["status"]);
        Ok(Some(()))
    })
}

fn tunnel(consumer: &Cluster) -> Result<Value> {
    consumer.items(&["tunnelendpoints", "-A"])?.into_iter().next().context("there is no tunnel")
}

/// Nothing of a peer is left, besides what every Liqo keeps of itself.
fn forgotten(cluster: &Cluster) -> Result<()> {
    for (kind, selector) in [
        ("foreignclusters", ""),
        ("namespaces", "discovery.liqo.io/tenant-namespace=true"),
        ("namespaces", "liqo.io/remote-cluster-id"),
        ("nodes", "liqo.io/type=virtual-node"),
        ("networkconfigs", ""),
        ("tunnelendpoints", ""),
        ("natmappings", ""),
        ("secrets", "discovery.liqo.io/auth-token"),
    ] {
        wait_for(&format!("{} has no {kind} {selector}", cluster.name()), LONG, || {
            let left = cluster.items(&[kind, "-A", "-l", selector])?;
            ensure!(left.is_empty(), "{} left, like {}", left.len(), left[0]["metadata"]["name"]);
            Ok(Some(()))
        })?;
    }
    let storage = cluster.items(&["ipamstorages"])?;
    let storage = storage.first().context("there is no IpamStorage")?;
    for field in ["clusterSubnets", "natMappingsConfigured"] {
        let left = storage["spec"][field].as_object().map(serde_json::Map::len).unwrap_or_default();
        ensure!(left == 0, "{}: {field} still knows {left} peers", cluster.name());
    }
    Ok(())
}
