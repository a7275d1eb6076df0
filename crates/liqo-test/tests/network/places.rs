//! Where one can be in the two clusters, and what is there: a pod and an echo on every node, an echo on every node itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use liqo_test::{Cluster, Stage, cidr, echo, netns::Netns};
use serde_json::Value;

/// A DaemonSet of pods that do nothing: one place on every real node.
const PLACES: &str = "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: place, namespace: default}
spec:
  selector: {matchLabels: {app: place}}
  template:
    metadata: {labels: {app: place}}
    spec: {terminationGracePeriodSeconds: 0, tolerations: [{key: node-role.kubernetes.io/control-plane, operator: Exists}],
      containers: [{name: web, image: 'localhost/busybox:1', imagePullPolicy: IfNotPresent,
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}}]}
";

/// A network namespace somewhere, with the address under which its own cluster knows it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) cluster: String,
    /// Of the pod, or of the node when it is the node itself.
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) is_pod: bool,
    pub(crate) ip: Ipv4Addr,
    pub(crate) file: PathBuf,
    pub(crate) netns: Netns,
}

/// Finds places, and makes echoes where there is none yet.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    /// What has an echo already: processes of pods, names of nodes.
    served: BTreeSet<String>,
}

/// Lets a pod run on every node of all clusters.
pub(crate) fn furnish(stage: &Stage) -> Result<()> {
    stage.clusters.iter().try_for_each(|cluster| cluster.apply(PLACES).map(drop))
}

impl Finder {
    /// All places of a cluster as they are now; an error until each node has its pod.
    pub(crate) fn places(&mut self, cluster: &Cluster) -> Result<Vec<Place>> {
        let nodes = cluster.nodes();
        let pods = running(cluster, "default", "app=place")?;
        let missing: Vec<_> = nodes
            .iter()
            .filter(|node| pods.iter().filter(|pod| pod["spec"]["nodeName"] == node.name.as_str()).count() != 1)
            .map(|node| &node.name)
            .collect();
        ensure!(missing.is_empty(), "{missing:?} lack their pod");
        let mut places = Vec::new();
        for node in nodes {
            let netns = Netns::open(&node.netns_file())?;
            let ip = node.ip.parse()?;
            if self.served.insert(format!("{} {ip}", node.netns)) {
                echo::serve(&netns, &node.name, ip)?;
            }
            let (name, file) = (node.name.clone(), node.netns_file());
            places.push(Place {
                cluster: cluster.name().into(),
                node: name.clone(),
                name,
                is_pod: false,
                ip,
                file,
                netns,
            });
        }
        for pod in pods {
            places.push(self.pod(cluster, &pod)?);
        }
        Ok(places)
    }

    /// The place in a pod.
    pub(crate) fn pod(&mut self, cluster: &Cluster, pod: &Value) -> Result<Place> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let process = cluster.container_process(&namespace, &name, &text("/spec/containers/0/name"))?;
        let netns = Netns::of(process)?;
        if self.served.insert(format!("{process:?}")) {
            echo::serve(&netns, &name, Ipv4Addr::UNSPECIFIED)?;
        }
        let ip = text("/status/podIP").parse().with_context(|| format!("pod {name} has no address"))?;
        let file = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
        Ok(Place { cluster: cluster.name().into(), name, node: text("/spec/nodeName"), is_pod: true, ip, file, netns })
    }
}

/// The pods of a label that are ready and stay.
pub(crate) fn running(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Vec<Value>> {
    let pods = cluster.items(&["pods", "-n", namespace, "-l", selector])?;
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        ready && pod["metadata"]["deletionTimestamp"].is_null()
    };
    Ok(pods.into_iter().filter(ready).collect())
}

/// How a cluster's pods look from another one, and the other way round: what the two agreed on.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The peer's pods as we address them.
    pub(crate) remote_pods: String,
    /// Our pods as the peer sees them.
    pub(crate) our_pods: String,
}

/// Each cluster's view of each of its peers, by names.
pub(crate) fn views(stage: &Stage) -> Result<BTreeMap<(String, String), View>> {
    let mut all = BTreeMap::new();
    for cluster in &stage.clusters {
        for tunnel in cluster.items(&["tunnelendpoints", "-A"])? {
            let text = |key: &str| tunnel["spec"][key].as_str().unwrap_or_default().to_owned();
            let effective = |original: &str, remapped: &str| match text(remapped) {
                same if same == "None" || same.is_empty() => text(original),
                other => other,
            };
            let peer = tunnel["spec"]["clusterIdentity"]["clusterName"].as_str().unwrap_or_default().to_owned();
            let view = View {
                remote_pods: effective("remotePodCIDR", "remoteNATPodCIDR"),
                our_pods: effective("localPodCIDR", "localNATPodCIDR"),
            };
            all.insert((cluster.name().to_owned(), peer), view);
        }
    }
    Ok(all)
}

/// An address in another network: the bits of the host stay.
pub(crate) fn mapped(ip: Ipv4Addr, network: &str) -> Result<Ipv4Addr> {
    let (first, length) = cidr::parse(network)?;
    let host = ip.to_bits() & u32::MAX.checked_shr(length.into()).unwrap_or(0);
    Ok((first | host).into())
}
