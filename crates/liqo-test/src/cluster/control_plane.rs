//! Certificates, etcd and the three servers of a control plane, with the flags kubeadm gives them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Cluster, Node};
use crate::{
    api::Api,
    assets,
    process::Daemon,
    run::{command, output, write},
};

/// Kubernetes' version, as `testbed/install` builds it.
fn version() -> Result<String> {
    let directory = assets::bin().parent().and_then(Path::file_name).context("the programs' directory has no name")?;
    Ok(directory.to_string_lossy().replace("k8s-", "v"))
}

/// Certificates and kubeconfigs, by kubeadm's own phases.
pub(super) fn certificates(cluster: &Cluster, node: &Node) -> Result<()> {
    let (dir, spec) = (&cluster.dir, &cluster.spec);
    let config = dir.join("kubeadm.yaml");
    write(&config, kubeadm(cluster, node)?)?;
    let kubeadm = |phase: &[&str]| {
        output(command("kubeadm").args(["init", "phase"]).args(phase).arg("--config").arg(&config))
            .with_context(|| format!("cannot make certificates for {}", spec.name))
    };
    kubeadm(&["certs", "all"])?;
    let target = format!("--kubeconfig-dir={}", dir.display());
    kubeadm(&["kubeconfig", "all", &target])?;
    std::fs::create_dir_all(dir.join("admin"))?;
    Api::unpack(&dir.join("super-admin.conf"), &dir.join("admin"))
}

/// The kubeconfig of one more node's kubelet.
pub(super) fn kubelet_config(cluster: &Cluster, node: &Node) -> Result<()> {
    let config = node.dir.join("kubeadm.yaml");
    write(&config, kubeadm(cluster, node)?)?;
    let target = format!("--kubeconfig-dir={}", node.dir.display());
    output(command("kubeadm").args(["init", "phase", "kubeconfig", "kubelet", &target, "--config"]).arg(&config))
        .map(drop)
}

fn kubeadm(cluster: &Cluster, node: &Node) -> Result<String> {
    let (spec, server) = (&cluster.spec, cluster.node_ip());
    Ok(format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {server}, bindPort: 6443}}
nodeRegistration: {{name: {node}, criSocket: \"unix://{socket}\"}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: {name}
kubernetesVersion: {version}
certificatesDir: {dir}/pki
encryptionAlgorithm: ECDSA-P256
controlPlaneEndpoint: \"{server}:6443\"
networking: {{podSubnet: {pods}, serviceSubnet: {services}}}
",
        node = node.name,
        socket = node.socket().display(),
        name = spec.name,
        version = version()?,
        dir = cluster.dir.display(),
        pods = spec.pod_cidr,
        services = spec.service_cidr,
    ))
}

/// etcd and the API server; returns when it answers.
pub(super) fn start_api(cluster: &Cluster, node: &Node) -> Result<()> {
    if cluster.spec.audited {
        write(&cluster.dir.join("audit.yaml"), AUDIT_POLICY)?;
    }
    for (name, flags) in [("etcd", etcd(cluster)), ("kube-apiserver", api_server(cluster))] {
        Daemon::spawn(&node.dir, &node.netns, name, words(name, &flags))?;
    }
    let api = cluster.api();
    let what = format!("API server of {}", cluster.name());
    crate::wait_for(&what, Duration::from_secs(60), || api.text("/livez").map(Some)).map(drop)
}

/// Controller manager and scheduler.
pub(super) fn start_controllers(cluster: &Cluster, node: &Node) -> Result<()> {
    let dir = cluster.dir.display();
    let scheduler = format!(
        "--bind-address=127.0.0.1 --kubeconfig={dir}/scheduler.conf --leader-elect=false
         --authentication-kubeconfig={dir}/scheduler.conf --authorization-kubeconfig={dir}/scheduler.conf"
    );
    let manager = controller_manager(cluster);
    for (name, flags) in [("kube-controller-manager", manager), ("kube-scheduler", scheduler)] {
        Daemon::spawn(&node.dir, &node.netns, name, words(name, &flags))?;
    }
    Ok(())
}

/// Starts the controller manager again with signers that sign for no longer than `life`.
pub(super) fn sign_for(cluster: &Cluster, node: &Node, life: Duration) -> Result<()> {
    let name = "kube-controller-manager";
    Daemon::of(&node.dir, name).stop()?;
    let flags = format!("{} --cluster-signing-duration={}s", controller_manager(cluster), life.as_secs());
    Daemon::spawn(&node.dir, &node.netns, name, words(name, &flags)).map(drop)
}

/// Starts the API server again with `other` as an issuer of tokens.
pub(super) fn trust(cluster: &Cluster, node: &Node, other: &Cluster) -> Result<()> {
    let authority = std::fs::read_to_string(other.dir.join("pki/ca.crt")).context("cannot read an authority")?;
    let issuer = json!({"url": issuer(other), "audiences": [cluster.name()], "certificateAuthority": authority});
    let names = json!({"username": {"claim": "sub", "prefix": format!("{}:", other.name())}});
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{"issuer": issuer, "claimMappings": names}]});
    write(&issuers(cluster), config.to_string())?;
    Daemon::of(&node.dir, "kube-apiserver").stop()?;
    Daemon::spawn(&node.dir, &node.netns, "kube-apiserver", words("kube-apiserver", &api_server(cluster)))?;
    cluster.wait_api()
}

/// The file that names other issuers, if a cluster has any.
fn issuers(cluster: &Cluster) -> PathBuf {
    cluster.dir.join("authentication.json")
}

/// Whom the tokens of service accounts name as their issuer.
fn issuer(cluster: &Cluster) -> String {
    match cluster.spec.own_issuer {
        true => format!("https://{}:6443", cluster.node_ip()),
        false => "https://kubernetes.default.svc.cluster.local".to_owned(),
    }
}

pub(super) fn words(name: &str, flags: &str) -> Vec<String> {
    std::iter::once(name).chain(flags.split_whitespace()).map(str::to_owned).collect()
}

fn etcd(cluster: &Cluster) -> String {
    let (dir, name) = (cluster.dir.display(), cluster.name());
    let pki = format!("{dir}/pki/etcd");
    format!(
        "--name={name} --data-dir={dir}/etcd --unsafe-no-fsync --log-level=warn
         --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379
         --listen-peer-urls=https://127.0.0.1:2380 --initial-advertise-peer-urls=https://127.0.0.1:2380
         --initial-cluster={name}=https://127.0.0.1:2380
         --cert-file={pki}/server.crt --key-file={pki}/server.key --trusted-ca-file={pki}/ca.crt --client-cert-auth
         --peer-cert-file={pki}/peer.crt --peer-key-file={pki}/peer.key --peer-trusted-ca-file={pki}/ca.crt"
    )
}

/// Only what service accounts outside of kube-system do is of interest.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ['system:serviceaccounts:kube-system']}
- {level: Metadata, userGroups: ['system:serviceaccounts']}
- {level: None}
";

/// Where an audited cluster's API server keeps its record.
pub(super) fn audit_log(cluster: &Cluster) -> PathBuf {
    cluster.dir.join("audit.log")
}

fn api_server(cluster: &Cluster) -> String {
    let audit = match cluster.spec.audited {
        true => format!(
            "--audit-policy-file={}/audit.yaml --audit-log-path={}",
            cluster.dir.display(),
            audit_log(cluster).display()
        ),
        false => String::new(),
    };
    let (pki, address) = (format!("{}/pki", cluster.dir.display()), cluster.node_ip());
    let services = &cluster.spec.service_cidr;
    let (issuer, issuers) = (issuer(cluster), issuers(cluster));
    let others = match issuers.exists() {
        true => format!("--authentication-config={}", issuers.display()),
        false => String::new(),
    };
    format!(
        "--advertise-address={address} --secure-port=6443 --allow-privileged=true --authorization-mode=Node,RBAC
         --client-ca-file={pki}/ca.crt --enable-admission-plugins=NodeRestriction --enable-bootstrap-token-auth=true
         --etcd-servers=https://127.0.0.1:2379 --etcd-cafile={pki}/etcd/ca.crt
         --etcd-certfile={pki}/apiserver-etcd-client.crt --etcd-keyfile={pki}/apiserver-etcd-client.key
         --kubelet-client-certificate={pki}/apiserver-kubelet-client.crt
         --kubelet-client-key={pki}/apiserver-kubelet-client.key
         --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname
         --proxy-client-cert-file={pki}/front-proxy-client.crt --proxy-client-key-file={pki}/front-proxy-client.key
         --requestheader-allowed-names=front-proxy-client --requestheader-client-ca-file={pki}/front-proxy-ca.crt
         --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group
         --requestheader-username-headers=X-Remote-User
         --service-account-issuer={issuer} {others}
         --service-account-key-file={pki}/sa.pub --service-account-signing-key-file={pki}/sa.key
         --service-cluster-ip-range={services}
         --tls-cert-file={pki}/apiserver.crt --tls-private-key-file={pki}/apiserver.key {audit}"
    )
}

pub(super) fn controller_manager(cluster: &Cluster) -> String {
    let dir = cluster.dir.display();
    let (pki, config) = (format!("{dir}/pki"), format!("{dir}/controller-manager.conf"));
    let (name, pods, services) = (cluster.name(), &cluster.spec.pod_cidr, &cluster.spec.service_cidr);
    format!(
        "--bind-address=127.0.0.1 --allocate-node-cidrs=true --cluster-cidr={pods} --cluster-name={name}
         --cluster-signing-cert-file={pki}/ca.crt --cluster-signing-key-file={pki}/ca.key --kubeconfig={config}
         --authentication-kubeconfig={config} --authorization-kubeconfig={config} --client-ca-file={pki}/ca.crt
         --requestheader-client-ca-file={pki}/front-proxy-ca.crt --root-ca-file={pki}/ca.crt
         --service-account-private-key-file={pki}/sa.key --service-cluster-ip-range={services}
         --use-service-account-credentials=true --concurrent-namespace-syncs=32 --controllers=*,bootstrapsigner,tokencleaner --leader-elect=false"
    )
}
