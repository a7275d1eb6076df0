//! One Kubernetes cluster of a test bed, and what a test wants from it.
//!
//! Kept true: a [`Cluster`] is a name for what is on disk and in the kernel; any process may open it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    api::Api,
    cidr,
    process::Daemon,
    record::Record,
    run::{command, feed, output},
    wait_for,
};

mod addons;
mod bootstrap;
mod containers;
mod control_plane;
mod kwok;
mod mounts;
mod node;

pub use node::Node;

/// What a cluster shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterSpec {
    pub name: String,
    pub pod_cidr: String,
    pub service_cidr: String,
    /// Real nodes, the first one with the control plane.
    pub nodes: u32,
    /// Nodes that only pretend, for tests of scale; tainted `kwok.x-k8s.io/node=fake:NoSchedule`.
    pub kwok_nodes: u32,
    /// The API server keeps a record of what service accounts ask of it, see [`Cluster::forbidden`].
    #[serde(default)]
    pub audited: bool,
    /// How kube-proxy translates Services.
    #[serde(default)]
    pub proxy: ProxyMode,
    /// Nodes drop packets that come from where they would not send the answer (RFC 3704, strict).
    #[serde(default)]
    pub strict_paths: bool,
    /// The nodes are behind a router that translates their addresses: they reach everybody, and only the host reaches them.
    #[serde(default)]
    pub behind_nat: bool,
    /// The network plugin takes addresses of pods from ranges of its own, as Calico and Cilium do, and not from those that
    /// Kubernetes assigns to nodes. Like the latter, it does not masquerade what pods send to nodes.
    #[serde(default)]
    pub own_ranges: bool,
    /// Tokens of service accounts name this cluster's API server as their issuer, so that others can tell them from their
    /// own, see [`Cluster::trusts`].
    #[serde(default)]
    pub own_issuer: bool,
}

/// What kube-proxy writes its rules with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    #[default]
    Nftables,
    Iptables,
}

impl ProxyMode {
    /// As kube-proxy's configuration writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl ClusterSpec {
    /// A cluster whose CIDRs are distinct for each `number` from 1 to 25: pods `10.<10*number>.0.0/16`, services
    /// `10.<100+number>.0.0/16`.
    pub fn new(name: &str, number: u32) -> Self {
        Self {
            name: name.to_owned(),
            pod_cidr: format!("10.{}.0.0/16", 10 * number),
            service_cidr: format!("10.{}.0.0/16", 100 + number),
            nodes: 1,
            kwok_nodes: 0,
            audited: false,
            proxy: ProxyMode::default(),
            strict_paths: false,
            behind_nat: false,
            own_ranges: false,
            own_issuer: false,
        }
    }

    pub fn nodes(self, nodes: u32) -> Self {
        Self { nodes, ..self }
    }

    pub fn kwok_nodes(self, kwok_nodes: u32) -> Self {
        Self { kwok_nodes, ..self }
    }

    pub fn audited(self) -> Self {
        Self { audited: true, ..self }
    }

    pub fn proxy(self, proxy: ProxyMode) -> Self {
        Self { proxy, ..self }
    }

    pub fn strict_paths(self) -> Self {
        Self { strict_paths: true, ..self }
    }

    pub fn behind_nat(self) -> Self {
        Self { behind_nat: true, ..self }
    }

    pub fn own_ranges(self) -> Self {
        Self { own_ranges: true, ..self }
    }

    pub fn own_issuer(self) -> Self {
        Self { own_issuer: true, ..self }
    }

    pub fn cidrs(self, pods: &str, services: &str) -> Self {
        Self { pod_cidr: pods.to_owned(), service_cidr: services.to_owned(), ..self }
    }
}

/// A cluster that runs.
#[derive(Clone, Debug)]
pub struct Cluster {
    record: Record,
    spec: ClusterSpec,
    dir: PathBuf,
}

impl Cluster {
    /// All clusters of a test bed, by name.
    pub(crate) fn all(record: &Record) -> Result<Vec<Self>> {
        let mut names: Vec<_> = fs::read_dir(&record.dir)?
            .flatten()
            .filter(|entry| entry.path().join("cluster.json").exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names.iter().map(|name| Self::open(record, name)).collect()
    }

    pub(crate) fn open(record: &Record, name: &str) -> Result<Self> {
        let dir = record.dir.join(name);
        let spec = fs::read(dir.join("cluster.json"))
            .with_context(|| format!("the test bed {} has no cluster {name}", record.name))?;
        Ok(Self { record: record.clone(), spec: serde_json::from_slice(&spec)?, dir })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// What service accounts of an audited cluster asked for and had no right to: who, verb and resource, once each. `since`
    /// is what [`Cluster::recorded`] said at the beginning. Refusals after the last permitted request of a pod do not count:
    /// its roles have gone while the pod ends.
    pub fn forbidden(&self, since: usize) -> Result<Vec<String>> {
        let log = self.record_since(since)?;
        // Of each pod, or account outside of pods: refusals since its last permitted request, and whether there was one.
        let mut pods: BTreeMap<String, (bool, BTreeSet<String>)> = BTreeMap::new();
        let mut all = BTreeSet::new();
        for line in log.lines() {
            // The API server writes while we read: the last line may be half a one.
            let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let text = |pointer: &str| event.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
            let user = text("/user/username");
            let pod = text("/user/extra/authentication.kubernetes.io~1pod-uid/0");
            let (was_permitted, refused) = pods.entry(format!("{user} {pod}")).or_default();
            match text("/annotations/authorization.k8s.io~1decision") {
                "forbid" => {
                    let (group, resource) = (text("/objectRef/apiGroup"), text("/objectRef/resource"));
                    let (subresource, namespace) = (text("/objectRef/subresource"), text("/objectRef/namespace"));
                    let verb = text("/verb");
                    refused.insert(format!(
                        "{user} may not {verb} {resource}/{subresource} of {group:?} in {namespace:?}"
                    ));
                }
                "allow" => {
                    *was_permitted = true;
                    all.append(refused);
                }
                _ => {}
            }
        }
        all.extend(pods.into_values().filter(|(was_permitted, _)| !was_permitted).flat_map(|(_, refused)| refused));
        Ok(all.into_iter().collect())
    }

    /// What a service account of the namespace `liqo` of an audited cluster asked for in `namespace`, one text with verb and resource
    /// for each request; `since` as in [`Cluster::forbidden`].
    ///
    /// # Errors
    /// When there is no record.
    pub fn asked(&self, since: usize, account: &str, namespace: &str) -> Result<Vec<String>> {
        let log = self.record_since(since)?;
        let events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let request = |event: serde_json::Value| {
            let text = |pointer: &str| event.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
            let is_meant = text("/user/username") == format!("system:serviceaccount:liqo:{account}")
                && text("/objectRef/namespace") == namespace;
            is_meant.then(|| format!("{} {}", text("/verb"), text("/objectRef/resource")))
        };
        Ok(events.filter_map(request).collect())
    }

    /// The record of an audited cluster from a length on; a record that does not grow tells nothing.
    fn record_since(&self, since: usize) -> Result<String> {
        let path = self.audit_log();
        let mut log = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(log.len() > since && log.is_char_boundary(since), "the API server of {} kept no record", self.name());
        Ok(log.split_off(since))
    }

    /// How long the record of an audited cluster is, in bytes. There is no file before the first entry.
    pub fn recorded(&self) -> usize {
        fs::read(self.audit_log()).map_or(0, |record| record.len())
    }

    /// Where an audited cluster's API server keeps its record.
    pub(crate) fn audit_log(&self) -> PathBuf {
        control_plane::audit_log(self)
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// It came up once; one that was interrupted on the way did not.
    pub fn complete(&self) -> bool {
        self.dir.join("complete").exists()
    }

    /// The administrator's kubeconfig; it works from the host and from any node of the test bed.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    /// The address of the first node, where NodePorts answer.
    pub fn node_ip(&self) -> String {
        self.node(&self.first()).map(|node| node.ip).expect("a cluster has a first node")
    }

    pub fn api_server(&self) -> String {
        format!("https://{}:6443", self.node_ip())
    }

    pub fn api(&self) -> Api {
        Api::new(self.api_server(), &self.credentials())
    }

    /// The directory with the authority of the cluster and the certificate and key of its administrator, PEM: `ca`, `crt`, `key`.
    pub fn credentials(&self) -> PathBuf {
        self.dir.join("admin")
    }

    /// The address of the cluster's DNS.
    pub fn dns_ip(&self) -> String {
        cidr::nth(&self.spec.service_cidr, 10).expect("the CIDR was checked at the start").to_string()
    }

    /// The directories `<node>/log` hold one log per component.
    pub fn logs_dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Runs kubectl as administrator; gives what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        output(self.kubectl_command().args(args))
    }

    /// A kubectl command as administrator, without arguments. Its discovery cache belongs to this cluster, because later
    /// clusters reuse addresses.
    pub fn kubectl_command(&self) -> Command {
        let mut kubectl = command("kubectl");
        kubectl.env("KUBECACHEDIR", self.dir.join("cache")).arg("--kubeconfig").arg(self.kubeconfig());
        kubectl
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        feed(self.kubectl_command().args(["apply", "-f", "-"]), manifest)
    }

    /// The real nodes, by number.
    pub fn nodes(&self) -> Vec<Node> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut nodes: Vec<_> = entries.flatten().filter_map(|entry| Node::read(&entry.path()).ok()).collect();
        nodes.sort_by_key(|node| node.number);
        nodes
    }

    pub fn node(&self, name: &str) -> Result<Node> {
        Node::read(&self.dir.join(name)).with_context(|| format!("{} has no node {name}", self.name()))
    }

    /// The name of the node with the control plane.
    pub fn first(&self) -> String {
        format!("{}-1", self.name())
    }

    /// A component of the first node: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd, kubelet,
    /// kube-proxy, kwok. Those of other nodes: [`Node::daemon`].
    pub fn component(&self, name: &str) -> Daemon {
        Daemon::of(&self.dir.join(self.first()), name)
    }

    pub fn stop_component(&self, name: &str) -> Result<()> {
        self.component(name).stop()
    }

    /// Starts a component again; for the API server, waits until it answers.
    pub fn start_component(&self, name: &str) -> Result<()> {
        self.component(name).start()?;
        if name == "kube-apiserver" || name == "etcd" { self.wait_api() } else { Ok(()) }
    }

    /// From now on the signers of this cluster sign for no longer than `life`, whatever a request asks for; they date back by
    /// five minutes.
    pub fn sign_for(&self, life: Duration) -> Result<()> {
        control_plane::sign_for(self, &self.node(&self.first())?, life)
    }

    /// From now on the API server takes tokens of the OpenID Connect issuer `other`, made for the audience of this cluster's
    /// name; their users are `<other>:<sub>`. Anybody must be able to read the keys of `other`.
    pub fn trusts(&self, other: &Self) -> Result<()> {
        control_plane::trust(self, &self.node(&self.first())?, other)
    }

    pub fn wait_api(&self) -> Result<()> {
        let api = self.api();
        let what = format!("API server of {}", self.name());
        wait_for(&what, Duration::from_secs(60), || api.text("/readyz").map(Some)).map(drop)
    }

    /// Waits until kubectl's `wait` is content; `what` as in `--for=condition=Ready pod/x`.
    pub fn wait(&self, what: &[&str], limit: Duration) -> Result<()> {
        let limit = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&[&["wait", &limit], what].concat()).map(drop)
    }

    /// Puts the image of a docker archive on every real node.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        let nodes = self.nodes();
        std::thread::scope(|scope| {
            let loads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.load_image(tar))).collect();
            loads.into_iter().try_for_each(|load| load.join().expect("loading does not panic"))
        })
    }
}
