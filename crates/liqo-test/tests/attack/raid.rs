//! The stage of the attacks, and the conditions that must hold after each attack.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{
    Cluster, ClusterSpec, Stage,
    stage::{LONG, on},
    wait_for,
};
use serde_json::Value;

use super::{holes, hostile::Peer};

/// Long enough for an attack to show its effect; successful attacks were seen to take half a second.
pub(crate) const MOMENT: Duration = Duration::from_millis(2500);
/// Values of rome: resource enforcement, a short deadline of withdrawals, and limits of objects that are soon reached.
const AT_HOME: &str = "controllerManager.config.enableResourceEnforcement=true,controllerManager.config.withdrawalDeadline=15s,\
                       offloading.guests.objects.secrets=300,offloading.guests.objects.services=300,\
                       offloading.namespacesPerPeer=16";
/// The honest peer is served within this time.
const SERVED: Duration = Duration::from_secs(20);

/// The stage and the two peers of rome.
pub(crate) struct Raid {
    pub(crate) stage: Stage,
    /// The hostile peer at home, with its own certificate.
    pub(crate) turin: Peer,
    /// The honest peer at home.
    pub(crate) milan: Peer,
    /// The ID of home.
    pub(crate) home: String,
    /// Our processes at home with the times they were restarted, when all was well.
    processes: BTreeMap<String, u64>,
}

impl AsMut<Stage> for Raid {
    fn as_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

impl Raid {
    pub(crate) fn raise() -> Result<Self> {
        let specs =
            vec![ClusterSpec::new("rome", 1).nodes(2), ClusterSpec::new("milan", 2), ClusterSpec::new("turin", 3)];
        let stage = Stage::apart("attack", specs)?;
        stage.everywhere(|cluster| {
            let more: &[&str] = match cluster.name() {
                "rome" => &["--set", AT_HOME],
                _ => &[],
            };
            stage.install(cluster, cluster.name(), more)
        })?;
        let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
        thread::scope(|scope| -> Result<()> {
            let both = [milan, turin].map(|peer| scope.spawn(|| both_ways(&stage, rome, peer)));
            both.into_iter().try_for_each(|one| one.join().expect("peering does not panic"))
        })?;
        furnish(&stage)?;
        let [milan, turin] = [milan, turin].map(|peer| Peer::of(&stage, peer));
        let raid = Self { home: id(rome)?, milan: milan?, turin: turin?, processes: BTreeMap::new(), stage };
        raid.stop_the_controllers_of_turin()?;
        let processes = restarts(raid.rome())?;
        Ok(Self { processes, ..raid })
    }

    pub(crate) fn rome(&self) -> &Cluster {
        self.stage.cluster("rome")
    }

    /// The hostile peer's own cluster; the peer is its administrator.
    pub(crate) fn hostile_cluster(&self) -> &Cluster {
        self.stage.cluster("turin")
    }

    /// Stops the controllers of turin: turin changes and repairs nothing by itself. Its API server answers, and its tunnel
    /// stays up.
    fn stop_the_controllers_of_turin(&self) -> Result<()> {
        let turin = self.hostile_cluster();
        let tenant = tenant(turin, &self.home)?;
        for (namespace, name) in
            [("liqo", "liqo-controller-manager"), ("liqo", "liqo-crd-replicator"), (&tenant, "virtual-kubelet")]
        {
            turin.kubectl(&["scale", "-n", namespace, "deployment", name, "--replicas=0"])?;
        }
        wait_for("the controllers of turin are gone", LONG, || {
            let names = "liqo-controller-manager,liqo-crd-replicator,virtual-kubelet";
            let left = turin.items(&["pods", "-A"])?;
            let left = left.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
            let left: Vec<_> = left.filter(|pod| names.split(',').any(|name| pod.starts_with(name))).collect();
            if left.is_empty() { Ok(Some(())) } else { bail!("{left:?}") }
        })
    }
}

fn both_ways(stage: &Stage, rome: &Cluster, peer: &Cluster) -> Result<()> {
    stage.peer(rome, peer)?;
    stage.peer(peer, rome)?;
    for (cluster, other) in [(rome, peer), (peer, rome)] {
        for aspect in ["OutgoingPeering", "IncomingPeering", "NetworkStatus"] {
            cluster.wait_peering(other.name(), aspect, "Established")?;
        }
    }
    Ok(())
}

/// What honest people do: rome has a shop whose server runs in milan, milan bakes in rome; `lent` is given to turin.
fn furnish(stage: &Stage) -> Result<()> {
    let (rome, milan, turin) = (stage.cluster("rome"), stage.cluster("milan"), stage.cluster("turin"));
    stage.offload(rome, "shop", &["--selector", "kubernetes.io/hostname=liqo-milan"])?;
    stage.offload(rome, "lent", &["--selector", "kubernetes.io/hostname=liqo-turin"])?;
    stage.offload(milan, "bakery", &[])?;
    stage.offload(turin, "raid", &[])?;
    rome.web("shop", "web", 1, &on("milan"))?;
    rome.web("shop", "client", 1, &format!("nodeSelector: {{kubernetes.io/hostname: {}}},", rome.first()))?;
    milan.apply(BAKER)?;
    turin.web("default", "burglar", 1, "")?;
    for (cluster, namespace, name) in
        [(rome, "shop", "web"), (rome, "shop", "client"), (milan, "bakery", "baker"), (turin, "default", "burglar")]
    {
        cluster.rolled_out(namespace, name)?;
    }
    Ok(())
}

/// A Deployment of milan whose pod runs in rome; its limits fit the offer.
const BAKER: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: baker, namespace: bakery}
spec:
  selector: {matchLabels: {app: baker}}
  template:
    metadata: {labels: {app: baker}}
    spec: {nodeSelector: {kubernetes.io/hostname: liqo-rome}, terminationGracePeriodSeconds: 1, containers: [{name: web,
      image: 'localhost/busybox:1', imagePullPolicy: IfNotPresent, resources: {limits: {cpu: 20m, memory: 16Mi}}}]}
";

/// The API server of rome answers.
pub(crate) fn answers(raid: &Raid) -> Result<()> {
    raid.rome().api().text("/readyz").context("the API server of rome is out of reach").map(drop)
}

/// The honest peer is served, nothing of ours restarted, the API server answers.
pub(crate) fn all_is_calm(raid: &Raid) -> Result<()> {
    let rome = raid.rome();
    answers(raid)?;
    wait_for("a pod in rome is answered by the one in milan", SERVED, || {
        let client = rome.pods("shop", "app=client")?;
        let (client, _) = client.first().context("no client")?;
        let answer =
            rome.kubectl(&["exec", "-n", "shop", client, "--", "timeout", "5", "wget", "-qO-", "http://web"])?;
        Ok(answer.starts_with("web-").then_some(()))
    })?;
    raid.stage.cluster("milan").rolled_out("bakery", "baker")?;
    let now = restarts(rome)?;
    // The virtual kubelet for the hostile peer goes with the peer, and not before.
    let has_turin = !rome.items(&["nodes", "-l", "kubernetes.io/hostname=liqo-turin"])?.is_empty();
    for (process, before) in raid.processes.iter().filter(|(process, _)| has_turin || !process.contains("turin")) {
        ensure!(now.get(process) == Some(before), "{process} of rome restarted or went: {now:#?}");
    }
    Ok(())
}

/// The pods of the product with how often they were restarted.
fn restarts(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let pods = cluster.items(&["pods", "-A", "-l", "app.kubernetes.io/part-of=liqo"])?;
    Ok(pods
        .iter()
        .map(|pod| {
            let containers = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            let count = containers.iter().filter_map(|one| one["restartCount"].as_u64()).sum();
            (format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name")), count)
        })
        .collect())
}

/// A text of an object; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The ID of a cluster.
pub(crate) fn id(cluster: &Cluster) -> Result<String> {
    let map = cluster.json(&["configmap", "-n", "liqo", "liqo-clusterid-configmap"])?;
    Ok(text(&map, "/data/CLUSTER_ID").to_owned())
}

/// The namespace that a cluster shares with a peer.
pub(crate) fn tenant(cluster: &Cluster, peer: &str) -> Result<String> {
    let selector = format!("discovery.liqo.io/tenant-namespace=true,discovery.liqo.io/cluster-id={peer}");
    let found = cluster.items(&["namespaces", "-l", &selector])?;
    ensure!(found.len() == 1, "{} has {} namespaces for {peer}", cluster.name(), found.len());
    Ok(text(&found[0], "/metadata/name").to_owned())
}

/// The one namespace in a cluster for the objects that a peer offloads.
pub(crate) fn offloaded(cluster: &Cluster, peer: &str) -> Result<String> {
    let found = cluster.items(&["namespaces", "-l", &format!("liqo.io/remote-cluster-id={peer}")])?;
    ensure!(found.len() == 1, "{} has {} namespaces of {peer}", cluster.name(), found.len());
    Ok(text(&found[0], "/metadata/name").to_owned())
}

/// Calls `look` for a moment; each thing that `look` returns is a finding.
pub(crate) fn never(what: &str, mut look: impl FnMut() -> Result<Vec<String>>) -> Result<()> {
    let began = std::time::Instant::now();
    while began.elapsed() < MOMENT {
        let seen = look()?;
        if !seen.is_empty() {
            holes::found(format!("{what}: {seen:?} after {:?}", began.elapsed()));
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The names of some objects.
pub(crate) fn names(objects: &[Value]) -> Vec<String> {
    objects.iter().map(|one| format!("{}/{}", text(one, "/metadata/namespace"), text(one, "/metadata/name"))).collect()
}
