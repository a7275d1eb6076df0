//! A real node: a network namespace with containerd, kubelet and kube-proxy.
//!
//! Kept true: everything a node makes on the host lies below its directory, starts with the test bed's prefix or is named by a
//! file below it, so that tearing down finds it: network namespaces of pods, cgroups, CNI's notes, runc's state.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Cluster, control_plane::words, mounts};
use crate::{
    cidr, nat,
    process::Daemon,
    record::Record,
    run::{command, output, write},
    wait_for,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub ip: String,
    pub netns: String,
    /// Unique in the test bed.
    pub number: u32,
    /// The range its pods get; known when the controller manager has given one.
    pub pod_cidr: Option<String>,
    /// The number of the router that hides it.
    #[serde(default)]
    pub behind: Option<u32>,
    pub(crate) dir: PathBuf,
}

impl Node {
    /// Makes the directories of a node and gives it a number.
    pub(super) fn claim(cluster: &Cluster, name: &str) -> Result<Self> {
        let (record, dir) = (&cluster.record, cluster.dir.join(name));
        let number = next_number(record)?;
        // A router is called after the first node that it hides.
        let router = cluster.node(&cluster.first()).map_or(number, |first| first.number);
        for part in ["log", "run", "cni", "data"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut node = Self {
            name: name.to_owned(),
            ip: String::new(),
            netns: format!("{}{name}", record.prefix()),
            number,
            pod_cidr: None,
            behind: cluster.spec.behind_nat.then_some(router),
            dir,
        };
        node.ip = format!("{}.{}", node.net(record), 9 + number);
        node.save()?;
        Ok(node)
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join("node.json"))?)?)
    }

    fn save(&self) -> Result<()> {
        let temporary = self.dir.join("node.json.new");
        write(&temporary, serde_json::to_vec(self)?)?;
        Ok(fs::rename(temporary, self.dir.join("node.json"))?)
    }

    /// The first three numbers of its address.
    pub(crate) fn net(&self, record: &Record) -> String {
        if self.behind.is_some() { nat::net(record) } else { record.net() }
    }

    /// Gives it an address that no node had, in place of its own.
    pub(crate) fn readdress(&mut self, record: &Record) -> Result<()> {
        let number = next_number(record)?;
        self.ip = format!("{}.{}", self.net(record), 9 + number);
        self.save()
    }

    /// The bridge its leg is plugged into.
    pub(crate) fn bridge(&self) -> String {
        self.behind.map_or_else(|| "br0".to_owned(), nat::bridge)
    }

    /// Its end of the wire, in the bridge's namespace.
    pub fn leg(&self) -> String {
        format!("leg{}", self.number)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// containerd, kubelet, kube-proxy; on the first node the control plane too.
    pub fn daemon(&self, name: &str) -> Daemon {
        Daemon::of(&self.dir, name)
    }

    /// containerd's own client, speaking to this node.
    pub(crate) fn ctr(&self) -> std::process::Command {
        let mut ctr = command("ctr");
        ctr.arg("-a").arg(self.socket()).args(["-n", "k8s.io"]);
        ctr
    }

    pub fn load_image(&self, tar: &Path) -> Result<()> {
        output(self.ctr().args(["images", "import"]).arg(tar))
            .with_context(|| format!("cannot load {} on {}", tar.display(), self.name))
            .map(drop)
    }

    /// The file of a network namespace that something on this node keeps in its `/run/netns`.
    pub fn kept_netns(&self, name: &str) -> PathBuf {
        self.dir.join("netns").join(name)
    }

    /// The file of the node's own network namespace.
    pub fn netns_file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.netns)
    }

    /// Starts containerd; returns when it answers.
    pub(super) fn start_containerd(&self) -> Result<()> {
        mounts::isolate(self)?;
        let config = self.dir.join("containerd.toml");
        write(&config, containerd(&self.dir))?;
        let flags = format!("-c {}", config.display());
        Daemon::spawn(&self.dir, &self.netns, "containerd", mounts::words(self, words("containerd", &flags)))?;
        let what = format!("containerd of {}", self.name);
        wait_for(&what, Duration::from_secs(20), || output(self.ctr().arg("version")).map(Some)).map(drop)
    }

    /// Makes the Node object. A kubelet would make it too, but may not give it the control plane's label, and the
    /// controller manager can choose its pod CIDR while the kubelet starts.
    pub(super) fn announce(&self, cluster: &Cluster) -> Result<()> {
        let mut labels =
            json!({"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
        if self.name == cluster.first() {
            // Liqo 0.8.3 finds the API server's address by this label.
            labels["node-role.kubernetes.io/control-plane"] = json!("");
        }
        cluster.api().create("/api/v1/nodes", &json!({"metadata": {"name": self.name, "labels": labels}}))
    }

    /// Starts the kubelet, whose kubeconfig is ready.
    pub(crate) fn start_kubelet(&self, cluster: &Cluster, kubeconfig: &Path) -> Result<()> {
        let config = self.dir.join("kubelet.yaml");
        write(&config, kubelet(cluster, self))?;
        Daemon::spawn(&self.dir, &self.netns, "kubelet", mounts::words(self, self.kubelet_words(&config, kubeconfig)))
            .map(drop)
    }

    fn kubelet_words(&self, config: &Path, kubeconfig: &Path) -> Vec<String> {
        let dir = self.dir.display();
        let flags = format!(
            "--config={} --kubeconfig={} --node-ip={} --hostname-override={} --root-dir={dir}/data/kubelet
             --cert-dir={dir}/kubelet-pki",
            config.display(),
            kubeconfig.display(),
            self.ip,
            self.name
        );
        words("kubelet", &flags)
    }

    pub(super) fn start_proxy(&self, cluster: &Cluster) -> Result<()> {
        let config = self.dir.join("kube-proxy.yaml");
        write(&config, proxy(cluster, self))?;
        let flags = format!("--config={}", config.display());
        Daemon::spawn(&self.dir, &self.netns, "kube-proxy", words("kube-proxy", &flags)).map(drop)
    }

    /// Waits for the range of its pods and tells CNI.
    pub(super) fn learn_pod_cidr(&mut self, cluster: &Cluster) -> Result<()> {
        let (api, path) = (cluster.api(), format!("/api/v1/nodes/{}", self.name));
        let what = format!("pod CIDR of {}", self.name);
        let given = wait_for(&what, Duration::from_secs(60), || {
            Ok(api.get(&path)?["spec"]["podCIDR"].as_str().map(str::to_owned))
        })?;
        let used = if cluster.spec.own_ranges { cidr::upper_half(&cluster.spec.pod_cidr, &given)? } else { given };
        // In place, with one write: containerd looks again when a file is written, not when one is moved in.
        write(&self.dir.join("cni/10-bridge.conflist"), cni(self, &used))?;
        self.pod_cidr = Some(used);
        self.save()
    }

    /// Waits until Kubernetes calls it Ready.
    pub(super) fn wait_ready(&self, cluster: &Cluster) -> Result<()> {
        let (api, path) = (cluster.api(), format!("/api/v1/nodes/{}", self.name));
        let what = format!("node {} Ready", self.name);
        wait_for(&what, Duration::from_secs(60), || {
            let node = api.get(&path)?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True").then_some(()))
        })
    }
}

fn next_number(record: &Record) -> Result<u32> {
    let lock = fs::File::create(record.dir.join("number.lock"))?;
    lock.lock()?;
    let file = record.dir.join("number");
    let last: u32 = fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    write(&file, (last + 1).to_string())?;
    Ok(last + 1)
}

fn containerd(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/data/containerd"
state = "{dir}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{dir}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{dir}/runc"
"#
    )
}

fn cni(node: &Node, pods: &str) -> String {
    let (network, dir) = (&node.netns, node.dir.display());
    format!(
        r#"{{"cniVersion":"1.0.0","name":"{network}","plugins":[
 {{"type":"bridge","bridge":"cni0","isDefaultGateway":true,"hairpinMode":true,"ipMasq":false,
  "ipam":{{"type":"host-local","dataDir":"{dir}/ipam","ranges":[[{{"subnet":"{pods}"}}]]}}}},
 {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}
"#
    )
}

fn kubelet(cluster: &Cluster, node: &Node) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {pki}/ca.crt}}}}
authorization: {{mode: Webhook}}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: ["{dns}"]
containerRuntimeEndpoint: unix://{socket}
podLogsDir: {dir}/podlogs
volumePluginDir: {dir}/volume-plugins
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
registerNode: true
maxPods: 250
featureGates: {{InPlacePodVerticalScaling: false}}
"#,
        pki = cluster.dir.join("pki").display(),
        dns = cluster.dns_ip(),
        socket = node.socket().display(),
        dir = node.dir.display(),
    )
}

fn proxy(cluster: &Cluster, node: &Node) -> String {
    format!(
        r"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {dir}/super-admin.conf}}
clusterCIDR: {pods}
mode: {mode}
hostnameOverride: {node}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
        dir = cluster.dir.display(),
        pods = cluster.spec.pod_cidr,
        mode = cluster.spec.proxy.word(),
        node = node.name,
    )
}
