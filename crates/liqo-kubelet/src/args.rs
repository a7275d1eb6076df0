//! Flags of the virtual kubelet: those of Liqo 0.8.3, a deadline for draining, and what pods are told of themselves.

use std::{collections::BTreeMap, time::Duration};

use clap::{ArgAction, ValueEnum};
use ipnet::IpNet;
use liqo_kube::args::{ReachArgs, RuntimeArgs};

/// Flags of the virtual kubelet.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "virtual-kubelet",
    version,
    about = "One node that stands for another cluster: what runs on it runs there"
)]
pub struct KubeletArgs {
    /// How the own cluster is reached.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Who we are and for whom the node stands.
    #[command(flatten)]
    pub peering: PeeringArgs,
    /// How the node behaves.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How many objects of a kind are handled at the same time.
    #[command(flatten)]
    pub workers: WorkerArgs,
    /// How pods reach their own API server from there.
    #[command(flatten)]
    pub api_server: ApiServerArgs,
    /// Whose namespace and UID pods find in the downward API, and so in the namespace file of their service account.
    #[arg(long, value_enum, default_value_t = DownwardApi::Home)]
    pub downward_api: DownwardApi,
    /// Address of the IPAM; empty: addresses are passed on as they are.
    #[arg(long, default_value = "")]
    pub ipam_server: String,
    /// Where the own cluster is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Networks of the other cluster's pods, where addresses are passed on as they are; none: everywhere but in the own cluster.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    pub peer_networks: Vec<IpNet>,
    /// Keep addresses to ourselves: no endpoints there, no pod addresses here.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub disable_ip_reflection: bool,
    /// Reflect volume claims of the virtual storage class.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_storage: bool,
    /// Name of the virtual storage class.
    #[arg(long, default_value = "liqo")]
    pub virtual_storage_class_name: String,
    /// Storage class of the real volumes there; empty: the default one.
    #[arg(long, default_value = "")]
    pub remote_real_storage_class_name: String,
    /// Serve metrics.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub metrics_enabled: bool,
    /// Where metrics are served.
    #[arg(long, default_value = ":8080", value_name = "HOST:PORT")]
    pub metrics_address: String,
    /// Accepted for compatibility; watches need no resync.
    #[arg(long, hide = true, default_value = "10h")]
    pub resync_period: String,
    /// Accepted for compatibility; there is no profiler inside.
    #[arg(long, hide = true, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_profiling: bool,
}

/// Who we are and for whom the node stands.
#[derive(Clone, Debug, clap::Args)]
pub struct PeeringArgs {
    /// ID of the own cluster.
    #[arg(long)]
    pub home_cluster_id: String,
    /// Name of the own cluster.
    #[arg(long)]
    pub home_cluster_name: String,
    /// ID of the cluster the node stands for.
    #[arg(long)]
    pub foreign_cluster_id: String,
    /// Name of the cluster the node stands for.
    #[arg(long)]
    pub foreign_cluster_name: String,
    /// Namespace of what is exchanged with that cluster.
    #[arg(long, default_value = "default")]
    pub tenant_namespace: String,
}

/// How the node behaves.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// Name of the node.
    #[arg(long = "nodename", default_value = "virtual-kubelet")]
    pub name: String,
    /// Address of the node, that of this pod.
    #[arg(long = "node-ip", default_value = "")]
    pub ip: String,
    /// Who signs the serving certificate.
    #[arg(long, value_enum, default_value_t = CertificateType::Kubelet)]
    pub certificate_type: CertificateType,
    /// Port of the kubelet API.
    #[arg(long, default_value_t = 10250)]
    pub listen_port: u16,
    /// How long the node's lease holds; it is renewed four times as often.
    #[arg(long, default_value = "40s", value_parser = duration)]
    pub node_lease_duration: Duration,
    /// How often the other API server is probed; 0 never.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub node_ping_interval: Duration,
    /// How long a probe may take, one second or more.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub node_ping_timeout: Duration,
    /// Whether the node needs the tunnel to be ready.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub node_check_network: bool,
    /// Extra annotations of the node: key=value,...
    #[arg(long, default_value = "", value_parser = pairs)]
    pub node_extra_annotations: Pairs,
    /// Extra labels of the node: key=value,...
    #[arg(long, default_value = "", value_parser = pairs)]
    pub node_extra_labels: Pairs,
    /// How long pods may take to leave a node that goes away; then they are deleted.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub drain_timeout: Duration,
}

/// How many objects of a kind are handled at the same time, in each pair of namespaces; 0 none at all.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArgs {
    /// Pods.
    #[arg(long = "pod-reflection-workers", default_value_t = 10)]
    pub pod: usize,
    /// Services.
    #[arg(long = "service-reflection-workers", default_value_t = 3)]
    pub service: usize,
    /// Endpoint slices.
    #[arg(long = "endpointslice-reflection-workers", default_value_t = 10)]
    pub endpoint_slice: usize,
    /// Ingresses.
    #[arg(long = "ingress-reflection-workers", default_value_t = 3)]
    pub ingress: usize,
    /// Config maps.
    #[arg(long = "configmap-reflection-workers", default_value_t = 3)]
    pub config_map: usize,
    /// Secrets.
    #[arg(long = "secret-reflection-workers", default_value_t = 3)]
    pub secret: usize,
    /// Tokens of service accounts.
    #[arg(long = "service-account-reflection-workers", default_value_t = 3)]
    pub service_account: usize,
    /// Volume claims; not used before volumes are reflected.
    #[arg(long = "persistentvolumeclaim-reflection-workers", default_value_t = 3)]
    pub persistent_volume_claim: usize,
}

/// How pods reach their own API server from there.
#[derive(Clone, Debug, clap::Args)]
pub struct ApiServerArgs {
    /// Give pods a token for, and the address of, their own API server.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_apiserver_support: bool,
    /// Host of the own API server as pods there should see it.
    #[arg(long, default_value = "")]
    pub home_api_server_host: String,
    /// Port of the own API server as pods there should see it.
    #[arg(long, default_value = "")]
    pub home_api_server_port: String,
    /// Where this pod sees the own API server.
    #[arg(long, hide = true, env = "KUBERNETES_SERVICE_HOST", default_value = "")]
    pub kubernetes_service_host: String,
    /// Port of the own API server.
    #[arg(long, hide = true, env = "KUBERNETES_SERVICE_PORT", default_value = "443")]
    pub kubernetes_service_port: String,
}

/// Whose namespace and UID the downward API tells a pod that runs in the other cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DownwardApi {
    /// Those of the pod in the own cluster, where its service account has its rights.
    Home,
    /// Those of its copy in the other cluster, as with Liqo 0.8.3.
    Remote,
}

/// Who signs the serving certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertificateType {
    /// The cluster, as for any kubelet.
    Kubelet,
    /// The cluster, on EKS.
    Aws,
    /// We ourselves.
    SelfSigned,
}

/// Keys and values of a flag.
pub type Pairs = BTreeMap<String, String>;

fn pairs(text: &str) -> Result<Pairs, String> {
    let one = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{pair:?} must look like key=value")),
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(one).collect()
}

/// A duration as Go writes it: `10h`, `1m30s`, `500ms`, `0`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} must be a duration like 10s, 1m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(wrong)?;
        let (count, tail) = rest.split_at(number);
        let count: u32 = count.parse().map_err(|_| wrong())?;
        let (unit, after) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let unit = match unit {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return Err(wrong()),
        };
        total = total.saturating_add(unit.saturating_mul(count));
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in
            [("0", 0.0), ("0s", 0.0), ("40s", 40.0), ("1m30s", 90.0), ("10h", 36_000.0), ("500ms", 0.5)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_secs_f64(seconds), "{text}");
        }
        for text in ["", "s", "10", "1d", "-1s", "1.5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_recorded_command_line_is_understood() {
        let recorded = [
            "virtual-kubelet",
            "--foreign-cluster-id=16fbeaec-e4e4-41dc-9eea-170ce95d7dd9",
            "--foreign-cluster-name=provider",
            "--nodename=liqo-provider",
            "--node-ip=10.244.0.42",
            "--tenant-namespace=liqo-tenant-provider-ca6261",
            "--home-cluster-id=09897b82-7830-483b-b786-9cf90899f809",
            "--home-cluster-name=consumer",
            "--ipam-server=liqo-network-manager.liqo:6000",
            "--enable-storage",
            "--remote-real-storage-class-name=liqo",
            "--enable-apiserver-support=true",
            "--node-check-network=false",
            "--node-extra-labels=a=b,c=",
            "--node-extra-annotations=",
            "--metrics-enabled=false",
        ];
        let args = KubeletArgs::try_parse_from(recorded).unwrap();
        assert!(args.enable_storage && args.api_server.enable_apiserver_support && !args.node.node_check_network);
        assert_eq!(args.node.node_extra_labels, pairs("a=b,c=").unwrap());
        assert!(args.node.node_extra_annotations.is_empty());
        assert_eq!(args.downward_api, DownwardApi::Home);
        assert!(KubeletArgs::try_parse_from(&recorded[..1]).is_err(), "the two clusters must be named");
    }
}
