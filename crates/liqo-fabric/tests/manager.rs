//! The network manager on a real API server: two replicas, one peer played by hand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::Parser;
use liqo_fabric::manager::ManagerArgs;
use liqo_ipam_rpc::IpamClient;
use liqo_kube::role;
use liqo_test::{Cluster, ClusterSpec, Product, Story, Testbed, assets, wait_for};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const PEER: &str = "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9";
const US: &str = "09897b82-7830-483b-b786-9cf90899f809";
const TENANT: &str = "liqo-tenant-provider-ca6261";
const OURS: &str = "provider-ca6261";
const THEIRS: &str = "consumer-ed03b8";
const KEY: &str = "fAtXqFbclsLrEwLCMmP18WQmRtocQDjKtHV8rRnTSW0=";
const THEIR_KEY: &str = "9v9D+gK8ara2qUR9Jb3UhLGfgb3ZPWeF4aAE7mmwRx0=";
const LIMIT: Duration = Duration::from_secs(60);

/// A network manager on a thread of its own.
struct Replica {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Replica {
    fn flags(kubeconfig: &Path, name: &str, address: &str) -> Vec<String> {
        vec![
            format!("--home-kubeconfig={}", kubeconfig.display()),
            "--health-probe-address=".into(),
            "--manager.pod-cidr=10.244.0.0/16".into(),
            "--manager.service-cidr=10.96.0.0/16".into(),
            "--manager.leader-elect".into(),
            format!("--manager.ipam-address={address}"),
            format!("--pod-name={name}"),
        ]
    }

    fn start(kubeconfig: &Path, name: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let flags = Self::flags(kubeconfig, name, &address);
        let args = ManagerArgs::parse_from(std::iter::once("liqo-network-manager".to_owned()).chain(flags));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    outcome = role::run(args) => panic!("ended: {outcome:?}"),
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn client(&self) -> IpamClient {
        IpamClient::new(&self.address).unwrap().with_deadline(Duration::from_secs(20))
    }
}

impl Drop for Replica {
    /// Ends it where it is, as `kill -9` does.
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

/// The cluster, and what a test does in it.
struct Stage {
    cluster: Cluster,
    _bed: Testbed,
}

impl Stage {
    fn raise() -> Result<Self> {
        let bed = Testbed::new("network-manager")?;
        let cluster = bed.cluster(ClusterSpec::new("rome", 1))?;
        let crds = assets::source().join("deploy/chart/crds").display().to_string();
        cluster.kubectl(&["apply", "-f", &crds])?;
        cluster.wait(&["--for=condition=Established", "-f", &crds], LIMIT)?;
        let stage = Self { cluster, _bed: bed };
        stage.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "liqo"}}))?;
        let labels = json!({"discovery.liqo.io/cluster-id": PEER, "discovery.liqo.io/tenant-namespace": "true"});
        stage
            .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TENANT, "labels": labels}}))?;
        stage.apply(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "liqo-gateway", "namespace": "liqo", "labels": {"net.liqo.io/gateway": "true"}},
            "spec": {"type": "ClusterIP", "ports": [{"name": "wireguard", "port": 5871, "protocol": "UDP"}]},
        }))?;
        stage.apply(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "wireguard-pubkey", "namespace": "liqo", "labels": {"net.liqo.io/key": "wireguard"}},
            "stringData": {"publicKey": KEY, "privateKey": "none of the manager's business"},
        }))?;
        stage.apply(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "provider"},
            "spec": {
                "foreignAuthUrl": "https://10.0.0.1:443",
                "clusterIdentity": {"clusterID": PEER, "clusterName": "provider"},
            },
        }))?;
        Ok(stage)
    }

    fn apply(&self, object: Value) -> Result<()> {
        self.cluster.apply(&object.to_string()).map(drop)
    }

    fn get(&self, what: &[&str]) -> Result<Value> {
        let printed = self.cluster.kubectl(&[&["get", "--ignore-not-found", "-o", "json"], what].concat())?;
        Ok(if printed.trim().is_empty() { Value::Null } else { serde_json::from_str(&printed)? })
    }

    fn patch(&self, what: &[&str], patch: Value) {
        let patch = patch.to_string();
        self.cluster.kubectl(&[&["patch", "--type=merge", "-p", &patch], what].concat()).unwrap();
    }

    fn peering(&self, status: &str) {
        let condition = json!([{"type": "OutgoingPeering", "status": status}]);
        let status = json!({"tenantNamespace": {"local": TENANT}, "peeringConditions": condition});
        self.patch(&["foreigncluster", "provider", "--subresource=status"], json!({"status": status}));
    }

    fn problem(&self) -> Result<Value> {
        Ok(self.get(&["foreigncluster", "provider"])?["metadata"]["annotations"]["net.liqo.io/problem"].clone())
    }

    fn config(&self, name: &str) -> Result<Value> {
        self.get(&["-n", TENANT, "networkconfig", name])
    }

    fn tunnel(&self) -> Result<Value> {
        self.get(&["-n", TENANT, "tunnelendpoint", OURS])
    }

    fn storage(&self) -> Value {
        self.get(&["ipamstorage"]).unwrap()["items"][0]["spec"].clone()
    }

    fn mappings(&self) -> Result<BTreeMap<String, String>> {
        let all = self.get(&["natmapping", "-l", &format!("clusterID={PEER}")])?;
        Ok(serde_json::from_value(all["items"][0]["spec"]["clusterMappings"].clone()).unwrap_or_default())
    }

    /// The peer tells us its networks, as its replicator writes them here.
    fn tell(&self, pod: &str, endpoint: &str) {
        let labels = json!({
            "liqo.io/originID": PEER, "liqo.io/remoteID": US, "liqo.io/replicated": "true", "liqo.io/replication": "false",
        });
        let spec = json!({
            "backendType": "wireguard", "backend_config": {"port": "32481", "publicKey": THEIR_KEY},
            "cluster": {"clusterID": US, "clusterName": "consumer"},
            "endpointIP": endpoint, "externalCIDR": "10.97.0.0/16", "podCIDR": pod,
        });
        let meta = json!({"name": THEIRS, "namespace": TENANT, "labels": labels});
        let object =
            json!({"apiVersion": "net.liqo.io/v1alpha1", "kind": "NetworkConfig", "metadata": meta, "spec": spec});
        self.apply(object).unwrap();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) {
    wait_for(what, LIMIT, || Ok(holds()?.then_some(()))).unwrap();
}

#[test]
fn networks_are_exchanged_and_addresses_given_out_by_two_replicas() {
    liqo_kube::certs::install_crypto();
    let _story = Story::begin("network-manager");
    let stage = Stage::raise().unwrap();
    let kubeconfig = stage.cluster.kubeconfig();
    let first = Replica::start(&kubeconfig, "first");
    until("the networks of this cluster", || {
        Ok(stage.get(&["ipamstorage"])?["items"][0]["spec"]["externalCIDR"] == "10.97.0.0/16")
    });
    let second = Replica::start(&kubeconfig, "second");
    let empty = stage.storage();
    what_we_tell(&stage);
    what_the_peer_tells(&stage);
    what_cannot_be(&stage);
    flags_that_cannot_be(&stage);
    let (first, second) = addresses(&stage, first, second);
    mappings_are_put_right(&stage);
    a_lost_storage_is_made_again(&stage);
    leaving(&stage, &empty);
    drop((first, second));
}

fn what_we_tell(stage: &Stage) {
    stage.peering("Established");
    until("the user is told that nobody reaches a ClusterIP", || {
        Ok(stage.problem()?.as_str().is_some_and(|text| text.contains("of type ClusterIP")))
    });
    let told = || -> Result<usize> {
        let events = stage.get(&["-n", "default", "events"])?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        Ok(events.iter().filter(|one| one["reason"] == "GatewayNotReachable").count())
    };
    until("an Event says so, too", || Ok(told()? == 1));
    assert!(stage.config(OURS).unwrap().is_null());
    let annotations = json!({"net.liqo.io/gatewayNodeIP": "172.30.0.11"});
    let ports = json!([{"name": "wireguard", "port": 5871, "nodePort": 32205, "protocol": "UDP"}]);
    let patch = json!({"metadata": {"annotations": annotations}, "spec": {"type": "NodePort", "ports": ports}});
    stage.patch(&["-n", "liqo", "service", "liqo-gateway"], patch);
    until("what we tell", || Ok(stage.config(OURS)?["spec"]["endpointIP"] == "172.30.0.11"));
    until("no problem is left", || Ok(stage.problem()?.is_null()));
    assert_eq!(told().unwrap(), 1, "told once");
    let config = stage.config(OURS).unwrap();
    assert_eq!(config["spec"]["backend_config"], json!({"port": "32205", "publicKey": KEY}));
    let moved = json!({"metadata": {"annotations": {"net.liqo.io/gatewayNodeIP": "172.30.0.21"}}});
    stage.patch(&["-n", "liqo", "service", "liqo-gateway"], moved);
    until("a gateway that moves is told", || Ok(stage.config(OURS)?["spec"]["endpointIP"] == "172.30.0.21"));
}

fn what_the_peer_tells(stage: &Stage) {
    stage.tell("10.244.0.0/16", "172.30.0.12");
    let answer = json!({"processed": true, "podCIDRNAT": "10.245.0.0/16", "externalCIDRNAT": "10.98.0.0/16"});
    until("the peer's networks have a place here", || Ok(stage.config(THEIRS)?["status"] == answer));
    let config = stage.config(THEIRS).unwrap();
    assert_eq!(config["metadata"]["finalizers"], json!(["tunnelendpointcreator.net.liqo.io"]));
    assert_eq!(config["metadata"]["ownerReferences"][0]["kind"], "ForeignCluster");
    assert!(stage.tunnel().unwrap().is_null(), "the peer has not answered yet");
    stage.patch(&["-n", TENANT, "networkconfig", OURS, "--subresource=status"], json!({"status": answer}));
    until("the tunnel", || Ok(stage.tunnel()?["spec"]["remoteNATPodCIDR"] == "10.245.0.0/16"));
    let expected = BTreeMap::from([("169.254.0.1".to_owned(), "10.98.0.1".to_owned())]);
    until("the tunnel's own mapping", || Ok(stage.mappings()? == expected));
    stage.tell("10.244.0.0/16", "rome.it");
    until("a peer that moves is followed", || Ok(stage.tunnel()?["spec"]["endpointIP"] == "rome.it"));
}

fn what_cannot_be(stage: &Stage) {
    let version = || stage.tunnel().unwrap()["metadata"]["resourceVersion"].clone();
    let before = (version(), stage.storage());
    for (announced, why) in [
        ("0.0.0.0/0", "0.0.0.0/0 means every address there is"),
        ("127.0.0.0/8", "127.0.0.0/8 contains"),
        ("224.0.0.0/4", "224.0.0.0/4 contains"),
        ("10.244.0.7/16", "has bits set behind its mask"),
        ("10.244.0.0/31", "is too small"),
        // It overlaps our own network, and nothing as large is free.
        ("10.128.0.0/9", "no pool has a free network of size /9"),
    ] {
        stage.tell(announced, "milan.it");
        until(&format!("the user is told that {announced} cannot be"), || {
            let problem = stage.problem()?;
            ensure!(problem.as_str().is_some_and(|text| text.contains(why)), "{problem}");
            Ok(true)
        });
        assert_eq!(before, (version(), stage.storage()), "nothing else has changed");
    }
    for (endpoint, why) in [("127.0.0.1", "no address of a single machine"), ("10.96.0.1", "a network of this cluster")]
    {
        stage.tell("10.244.0.0/16", endpoint);
        until(&format!("the user is told that no gateway is at {endpoint}"), || {
            Ok(stage.problem()?.as_str().is_some_and(|text| text.contains(why)))
        });
        assert_eq!(before, (version(), stage.storage()), "nothing else has changed");
    }
    stage.tell("10.244.0.0/16", "rome.it");
    until("no problem is left", || Ok(stage.problem()?.is_null()));
}

/// A new replica whose flags contradict what peers were given says which, and ends; the others go on and nothing is changed. So a rollout
/// of such flags stops at its first Pod.
fn flags_that_cannot_be(stage: &Stage) {
    let before = (stage.storage(), stage.tunnel().unwrap());
    let product = Product::build().unwrap();
    for (wrong, value) in [("--manager.reserved-pools=", "10.245.128.0/17"), ("--manager.pod-cidr=", "10.200.0.0/16")] {
        let mut flags = Replica::flags(&stage.cluster.kubeconfig(), "third", "127.0.0.1:0");
        flags.retain(|flag| !flag.starts_with(wrong));
        flags.push(format!("{wrong}{value}"));
        let ended = product.server("liqo-network-manager", LIMIT).args(&flags).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        let last = said.trim_end().lines().next_back().unwrap_or_default();
        assert!(last.contains("the flags --manager.* cannot be followed") && last.contains(value), "{said}");
        assert_eq!(before, (stage.storage(), stage.tunnel().unwrap()), "{said}");
    }
}

/// Two replicas give out addresses at the same time; one of them, the leader, is killed in the middle.
fn addresses(stage: &Stage, first: Replica, second: Replica) -> (Replica, Replica) {
    let endpoints: Vec<IpAddr> = (0..200_u8).map(|last| IpAddr::from([172, 30, 7, last])).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (of_killed, of_other) = runtime.block_on(async {
        let ask = |client: IpamClient| {
            let each = endpoints.iter().copied().map(|ip| {
                let client = client.clone();
                tokio::spawn(async move { (ip, client.map_endpoint_ip(PEER, ip).await) })
            });
            each.collect::<VecDeque<_>>()
        };
        let (mut of_first, of_second) = (ask(first.client()), ask(second.client()));
        let mut of_killed = vec![of_first.pop_front().unwrap().await.unwrap()];
        tokio::task::spawn_blocking(move || drop(first)).await.unwrap();
        for task in of_first {
            of_killed.push(task.await.unwrap());
        }
        let mut of_other = Vec::new();
        for task in of_second {
            of_other.push(task.await.unwrap());
        }
        (of_killed, of_other)
    });
    let mut given: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for (ip, answer) in of_other {
        given.entry(ip).or_default().insert(answer.unwrap());
    }
    for (ip, answer) in of_killed {
        match answer {
            Ok(address) => drop(given.entry(ip).or_default().insert(address)),
            Err(error) => assert!(error.is_unreachable(), "{error}"),
        }
    }
    assert!(given.len() == 200 && given.values().all(|all| all.len() == 1), "one address for each: {given:?}");
    let distinct: BTreeSet<IpAddr> = given.values().flatten().copied().collect();
    assert_eq!(distinct.len(), 200, "each address for one");
    let again = Replica::start(&stage.cluster.kubeconfig(), "first-again");
    let map =
        |replica: &Replica, ip: IpAddr| runtime.block_on(async { replica.client().map_endpoint_ip(PEER, ip).await });
    until("the new replica answers as the others did", || {
        Ok(given.iter().step_by(37).all(|(ip, all)| map(&again, *ip).is_ok_and(|address| all.contains(&address))))
    });
    // The leader was killed: another one leads when its lease has run out.
    until("gateways learn them all", || Ok(stage.mappings()?.len() == 201));
    let mapped = stage.mappings().unwrap();
    assert!(given.iter().all(|(ip, all)| all.contains(&mapped[&ip.to_string()].parse().unwrap())));
    let home =
        runtime.block_on(async { second.client().home_pod_ip(PEER, IpAddr::from([10, 244, 1, 2])).await }).unwrap();
    assert_eq!(home, IpAddr::from([10, 245, 1, 2]));
    runtime.block_on(async {
        let client = second.client();
        for ip in &endpoints[1..] {
            client.unmap_endpoint_ip(PEER, *ip).await.unwrap();
        }
    });
    until("what is released is free", || Ok(stage.mappings()?.len() == 2));
    let next = map(&again, IpAddr::from([1, 2, 3, 4])).unwrap();
    assert!(distinct.contains(&next), "{next} was used before");
    until("gateways learn that, too", || Ok(stage.mappings()?.get("1.2.3.4") == Some(&next.to_string())));
    (again, second)
}

fn mappings_are_put_right(stage: &Stage) {
    let right = stage.mappings().unwrap();
    let name = stage.get(&["natmapping"]).unwrap()["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let wrong = json!({"spec": {"clusterMappings": {"169.254.0.1": "1.1.1.1", "9.9.9.9": "2.2.2.2"}}});
    stage.patch(&["natmapping", &name], wrong);
    until("a wrong mapping is put right", || Ok(stage.mappings()? == right));
    stage.cluster.kubectl(&["delete", "natmapping", "--all"]).unwrap();
    until("a missing mapping is made again", || Ok(stage.mappings()? == right));
}

fn a_lost_storage_is_made_again(stage: &Stage) {
    stage.cluster.kubectl(&["delete", "ipamstorage", "--all"]).unwrap();
    let answer = json!({"processed": true, "podCIDRNAT": "10.245.0.0/16", "externalCIDRNAT": "10.98.0.0/16"});
    until("all are where they were", || {
        let same = stage.storage()["clusterSubnets"][PEER]["remotePodCIDR"] == "10.245.0.0/16";
        Ok(same && stage.config(THEIRS)?["status"] == answer && stage.problem()?.is_null())
    });
}

fn leaving(stage: &Stage, empty: &Value) {
    stage.peering("Disconnecting");
    // Long enough for the network manager to act on the condition, if it did.
    std::thread::sleep(Duration::from_secs(2));
    let stays = |what: Result<Value>| !what.unwrap().is_null();
    assert!(stays(stage.config(OURS)) && stays(stage.tunnel()), "the network is cut while pods may be there");
    stage.peering("None");
    until("what we told is taken back, and the tunnel with it", || {
        Ok(stage.config(OURS)?.is_null() && stage.tunnel()?.is_null())
    });
    stage.cluster.kubectl(&["delete", "-n", TENANT, "networkconfig", THEIRS]).unwrap();
    until("all addresses are free again", || Ok(stage.storage() == *empty));
    until("nothing is translated", || Ok(stage.get(&["natmapping"])?["items"].as_array().is_none_or(Vec::is_empty)));
}
