//! A stage for stories: clusters with the product installed by its own `liqoctl`, and the verbs of a user.
//!
//! Kept true: everything goes the way a user goes, through `liqoctl` and `kubectl`; nothing of the product is called.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Cluster, ClusterSpec, Product, Testbed, assets, record, rights, run, wait_for};

mod commands;

/// Long enough for anything that works, also beside another suite on a machine that others use too.
pub const LONG: Duration = Duration::from_secs(180);

/// Clusters on one wire, and the product.
#[derive(Debug)]
pub struct Stage {
    /// The wire.
    pub bed: Testbed,
    /// The product under test.
    pub product: Product,
    /// The clusters, as they were named.
    pub clusters: Vec<Cluster>,
    network: Network,
}

/// Who connects the pods of different clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// The wire: routes lead from each cluster to the others.
    Wire,
    /// The product.
    Product,
}

impl Stage {
    /// Clusters with these names whose pods reach each other, with the image loaded and nothing installed.
    ///
    /// # Errors
    /// When the product does not build or a cluster does not come up.
    pub fn raise(bed: &str, names: &[&str]) -> Result<Self> {
        Self::of(bed, (1..).zip(names).map(|(number, name)| ClusterSpec::new(name, number)).collect())
    }

    /// The same with clusters as specified.
    ///
    /// # Errors
    /// As [`Stage::raise`].
    pub fn of(bed: &str, specs: Vec<ClusterSpec>) -> Result<Self> {
        let stage = Self::build(bed, specs, Network::Wire)?;
        stage.bed.join_pod_networks(&stage.clusters.iter().collect::<Vec<_>>())?;
        Ok(stage)
    }

    /// Clusters as specified whose pods reach each other only if the product connects them.
    ///
    /// # Errors
    /// As [`Stage::raise`].
    pub fn apart(bed: &str, specs: Vec<ClusterSpec>) -> Result<Self> {
        Self::build(bed, specs, Network::Product)
    }

    fn build(bed: &str, specs: Vec<ClusterSpec>, network: Network) -> Result<Self> {
        let specs: Vec<_> = specs.into_iter().map(ClusterSpec::audited).collect();
        let product = Product::build()?;
        let mut bed = raised(bed)?;
        bed.keep_logs(true);
        let there = bed.existing()?;
        let missing =
            specs.iter().filter(|spec| there.iter().all(|cluster| cluster.name() != spec.name)).cloned().collect();
        bed.start_all(missing)?;
        let clusters = specs.iter().map(|spec| bed.find(&spec.name)).collect::<Result<Vec<_>>>()?;
        product.load(&clusters.iter().collect::<Vec<_>>())?;
        Ok(Self { bed, product, clusters, network })
    }

    /// The same as [`Stage::raise`] with the product installed everywhere.
    ///
    /// # Errors
    /// As [`Stage::raise`], or when an installation fails.
    pub fn ready(bed: &str, names: &[&str]) -> Result<Self> {
        let stage = Self::raise(bed, names)?;
        stage.install_all(&[])?;
        Ok(stage)
    }

    /// Adds the rights our service accounts have used since the last time, see `rights.rs`.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub(crate) fn note_rights(&self) -> Result<()> {
        self.clusters.iter().filter(|cluster| cluster.spec().audited).try_for_each(rights::note)
    }

    /// The stories succeeded: dropping the stage keeps no evidence. (A stage dropped without this call keeps the logs of its
    /// clusters.)
    pub fn is_well(&mut self) {
        self.bed.keep_logs(false);
    }

    /// [`Stage::install`] in all clusters, each under its name.
    ///
    /// # Errors
    /// When an installation fails.
    pub fn install_all(&self, more: &[&str]) -> Result<()> {
        self.everywhere(|cluster| self.install(cluster, cluster.name(), more))
    }

    /// Runs a function in all clusters at the same time.
    ///
    /// # Errors
    /// The error of a cluster in which the function failed.
    ///
    /// # Panics
    /// When the function panics in a cluster.
    pub fn everywhere(&self, act: impl Fn(&Cluster) -> Result<()> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let act = &act;
            let all: Vec<_> = self.clusters.iter().map(|cluster| scope.spawn(move || act(cluster))).collect();
            all.into_iter().try_for_each(|one| one.join().expect("no cluster makes it panic"))
        })
    }

    /// The cluster of that name.
    ///
    /// # Panics
    /// When the stage has none.
    pub fn cluster(&self, name: &str) -> &Cluster {
        self.clusters.iter().find(|cluster| cluster.name() == name).expect("a cluster of this stage")
    }

    /// Runs `liqoctl` as a user; gives what it prints.
    ///
    /// # Errors
    /// When it fails, with everything it said.
    pub fn liqoctl(&self, cluster: &Cluster, args: &[&str]) -> Result<String> {
        self.product.liqoctl_ok(cluster, args)
    }

    /// Runs `liqoctl`, which must refuse; gives all it says, and its exit code must be 1.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn refused(&self, cluster: &Cluster, args: &[&str]) -> Result<String> {
        let output = self.product.liqoctl(cluster, args)?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.code() == Some(1), "`liqoctl {}` ended with {}: {text}", args.join(" "), output.status);
        Ok(text)
    }

    /// `liqoctl install kubeadm` with the chart of this tree and the image that was loaded.
    ///
    /// # Errors
    /// When the installation fails.
    pub fn install(&self, cluster: &Cluster, name: &str, more: &[&str]) -> Result<()> {
        let base = ["install", "kubeadm", "--cluster-name", name, "--service-type", "NodePort"];
        let image = ["--set", "image=localhost/liqo", "--set", "tag=dev"];
        let network: &[&str] = match self.network {
            Network::Wire => &["--set", "networking.internal=false"],
            Network::Product => &[],
        };
        self.liqoctl(cluster, &[&base[..], &image, network, more].concat()).map(drop)
    }

    /// Peers `consumer` with `provider`, by the command that `provider` generates; gives how long the peering took.
    ///
    /// # Errors
    /// When one of the commands fails.
    pub fn peer(&self, consumer: &Cluster, provider: &Cluster) -> Result<Duration> {
        let command = self.peer_command(provider)?;
        let began = Instant::now();
        self.liqoctl(consumer, &command.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(began.elapsed())
    }

    /// Undoes [`Stage::peer`].
    ///
    /// # Errors
    /// When the command fails.
    pub fn unpeer(&self, consumer: &Cluster, provider: &str) -> Result<Duration> {
        let began = Instant::now();
        self.liqoctl(consumer, &["unpeer", "out-of-band", provider])?;
        Ok(began.elapsed())
    }

    /// Creates a namespace and offloads it.
    ///
    /// # Errors
    /// When one of the commands fails.
    pub fn offload(&self, consumer: &Cluster, namespace: &str, more: &[&str]) -> Result<()> {
        consumer.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}"))?;
        self.liqoctl(consumer, &[&["offload", "namespace", namespace], more].concat()).map(drop)
    }
}

impl AsMut<Stage> for Stage {
    fn as_mut(&mut self) -> &mut Stage {
        self
    }
}

/// A test bed of that name for this process. With `LIQO_STAY` it stays when the process ends, and the next one finds it: for
/// work on a story, by hand. What `LIQO_STAY` says, but for 1, becomes part of the name, so that two may work at a time.
fn raised(name: &str) -> Result<Testbed> {
    let Some(word) = assets::word("LIQO_STAY") else { return Testbed::new(name) };
    let name = if word == "1" { name.to_owned() } else { format!("{name}-{word}") };
    let exists = record::all()?.iter().any(|record| record.name == name);
    if exists { Testbed::open(&name) } else { Testbed::persistent(&name) }
}

impl Cluster {
    /// An object, or a list of them, as kubectl gives it.
    ///
    /// # Errors
    /// When kubectl fails or prints no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {} gave no JSON", args.join(" ")))
    }

    /// The items of a list; none if the kind does not exist.
    ///
    /// # Errors
    /// When kubectl fails for another reason.
    pub fn items(&self, args: &[&str]) -> Result<Vec<Value>> {
        match self.json(args) {
            Ok(list) => Ok(list["items"].as_array().cloned().unwrap_or_default()),
            Err(error) if format!("{error:#}").contains("the server doesn't have a resource type") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// A web server's Deployment and Service of `replicas`, each answering with its host name.
    ///
    /// # Errors
    /// When it cannot be applied.
    pub fn web(&self, namespace: &str, name: &str, replicas: u32, pod: &str) -> Result<()> {
        self.apply(&web(namespace, name, replicas, pod)).map(drop)
    }

    /// Waits until a Deployment has all its replicas ready.
    ///
    /// # Errors
    /// When that takes longer than [`LONG`].
    pub fn rolled_out(&self, namespace: &str, name: &str) -> Result<()> {
        let limit = format!("--timeout={}s", LONG.as_secs());
        self.kubectl(&["rollout", "status", "-n", namespace, &limit, &format!("deployment/{name}")]).map(drop)
    }

    /// Names of the pods of a label, with the nodes they are on.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<(String, String)>> {
        let pods = self.items(&["pods", "-n", namespace, "-l", selector])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))).collect())
    }

    /// The status of a condition of a ForeignCluster.
    ///
    /// # Errors
    /// When there is no such ForeignCluster.
    pub fn peering(&self, peer: &str, condition: &str) -> Result<Value> {
        let cluster = self.json(&["foreignclusters", peer])?;
        let conditions = cluster["status"]["peeringConditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|one| one["type"] == condition).unwrap_or_default())
    }

    /// Waits until a condition of a ForeignCluster has this status.
    ///
    /// # Errors
    /// When that takes longer than [`LONG`]; says how the condition stands then.
    pub fn wait_peering(&self, peer: &str, condition: &str, status: &str) -> Result<()> {
        wait_for(&format!("{condition} of {peer} is {status}"), LONG, || {
            let now = self.peering(peer, condition)?;
            if now["status"] == status { Ok(Some(())) } else { bail!("{now}") }
        })
    }

    /// Seconds until the certificate ends that this cluster has at its only provider.
    ///
    /// # Errors
    /// When there is not one certificate.
    pub fn identity_ends_in(&self) -> Result<u64> {
        let secrets = self.items(&["secrets", "-A", "-l", "discovery.liqo.io/local-identity=true"])?;
        ensure!(secrets.len() == 1, "{} has {} identities", self.name(), secrets.len());
        let ends = secrets[0]["metadata"]["annotations"]["discovery.liqo.io/certificate-expire-time"].as_str();
        let ends: u64 = ends.context("an identity without an end")?.parse()?;
        Ok(ends.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()))
    }

    /// Everything of the product that is in this cluster, by kind and name, its CRDs included, and on its nodes.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        Ok([self.objects_left()?, self.traces_on_nodes()?].concat())
    }

    /// What the fabric makes on a node: links, rules of policy routing, tables, a network namespace.
    fn traces_on_nodes(&self) -> Result<Vec<String>> {
        const LOOK: &str = "ip -o link | grep liqo; ip rule | grep -vE 'lookup (local|main|default)'; \
             ip route show table all | grep liqo; nft list tables | grep liqo; true";
        let mut found = Vec::new();
        for node in self.nodes() {
            let seen = run::output(run::inside(&node.netns, "sh").args(["-c", LOOK]))?;
            found.extend(seen.lines().map(|line| format!("{}: {}", node.name, line.trim())));
            if node.kept_netns("liqo-netns").exists() {
                found.push(format!("{}: the network namespace liqo-netns", node.name));
            }
        }
        Ok(found)
    }

    fn objects_left(&self) -> Result<Vec<String>> {
        let kinds = self.kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
        let kinds: Vec<_> = kinds.lines().filter(|kind| !NOISE.contains(kind)).collect();
        let mut found = Vec::new();
        for item in self.items(&[&kinds.join(","), "-A"])? {
            let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
            let labels = item.pointer("/metadata/labels").map(Value::to_string).unwrap_or_default();
            let annotations = item.pointer("/metadata/annotations").map(Value::to_string).unwrap_or_default();
            let finalizers = item.pointer("/metadata/finalizers").map(Value::to_string).unwrap_or_default();
            let requester = text("/spec/username");
            let marks = [&namespace, &name, &labels, &annotations, &finalizers, &requester, &text("/apiVersion")];
            if marks.iter().any(|mark| mark.contains("liqo")) {
                found.push(format!("{kind} {namespace}/{name}"));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Kinds in which traces of the past are no leftovers.
const NOISE: [&str; 4] = ["events", "events.events.k8s.io", "componentstatuses", "pods.metrics.k8s.io"];

/// The manifest of a web server: its Deployment, answering with its host name, and its Service.
/// `pod` is more of the pod's spec, as flow YAML fields.
pub fn web(namespace: &str, name: &str, replicas: u32, pod: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{terminationGracePeriodSeconds: 1, {pod} containers: [{{name: web, image: 'localhost/busybox:1',
      imagePullPolicy: IfNotPresent, readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}},
      ports: [{{containerPort: 8080}}], resources: {{requests: {{cpu: 1m, memory: 4Mi}}}}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

/// The pod's spec fields that spread replicas over nodes, one on each.
pub const SPREAD: &str = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: \
                          kubernetes.io/hostname, labelSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}},";

/// The pod's spec fields that pin pods to the virtual node of a provider.
pub fn on(provider: &str) -> String {
    format!("nodeSelector: {{kubernetes.io/hostname: liqo-{provider}}},")
}
