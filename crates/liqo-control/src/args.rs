//! Flags of the controller manager, in groups: each part of the manager reads its own group.

use std::collections::BTreeMap;

use ipnet::IpNet;
use liqo_kube::args::RuntimeArgs;

use crate::{home::HomeArgs, offload::guest::GuestArgs, peering::issuer::IdentityArgs};

/// Flags of the controller manager, those of Liqo 0.8.3.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "liqo-controller-manager",
    version,
    about = "Decides for this cluster: peerings, virtual nodes, offloaded namespaces, shadow pods"
)]
pub struct ManagerArgs {
    /// How the own cluster is reached.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Who the own cluster is.
    #[command(flatten)]
    pub home: HomeArgs,
    /// What pods of peers may ask for.
    #[command(flatten)]
    pub guests: GuestArgs,
    /// Who is given an identity.
    #[command(flatten)]
    pub identities: IdentityArgs,
    /// The admission webhooks.
    #[command(flatten)]
    pub webhooks: WebhookArgs,
    /// Peers and offers.
    #[command(flatten)]
    pub peering: PeeringArgs,
    /// Namespaces made for peers.
    #[command(flatten)]
    pub namespaces: NamespaceArgs,
    /// Virtual kubelets.
    #[command(flatten)]
    pub kubelets: KubeletArgs,
    /// Storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Name of this replica, for leader election.
    #[arg(long, env = "POD_NAME", default_value = "liqo-controller-manager")]
    pub pod_name: String,
    /// Accepted for compatibility; metrics are served at --health-probe-address.
    #[arg(long, hide = true, default_value = "")]
    pub metrics_address: String,
    /// Accepted for compatibility; watches need no resync.
    #[arg(long, hide = true, default_value = "10h")]
    pub resync_period: String,
    /// Check that a peer's pods stay within its offer.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_resource_enforcement: bool,
    /// How often the accounting of a peer's pods is aligned with what exists.
    #[arg(long, default_value = "5m")]
    pub resource_validator_refresh_interval: String,
    /// With several replicas: only one decides, all answer webhooks.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_leader_election: bool,
    /// Shadow pods handled at the same time.
    #[arg(long, default_value_t = 10)]
    pub shadow_pod_ctrl_workers: usize,
    /// Shadow endpoint slices handled at the same time.
    #[arg(long, default_value_t = 10)]
    pub shadow_endpointslice_ctrl_workers: usize,
    /// The networks of peers are connected by something else.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub disable_internal_network: bool,
    /// Delete pods of peers that hang on failed nodes.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_node_failure_controller: bool,
    /// Accepted for compatibility; we never panic on purpose.
    #[arg(long, hide = true, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub panic_on_unexpected_errors: bool,
}

/// Flags of the admission webhooks.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookArgs {
    /// Port of the admission webhooks.
    #[arg(long, default_value_t = 9443)]
    pub webhook_port: u16,
    /// Authorities (PEM) of the certificate that the API server shows to webhooks; empty: reviews of every
    /// client are answered.
    #[arg(long, default_value = "", value_name = "PEM")]
    pub webhook_client_ca: String,
}

/// Flags about peers: whether they are asked, accepted and probed, and what they are offered.
#[derive(Clone, Debug, clap::Args)]
pub struct PeeringArgs {
    /// Peers handled at the same time.
    #[arg(long, default_value_t = 1)]
    pub foreign_cluster_workers: usize,
    /// How often a peer's API server is probed; 0 never, then it counts as ready.
    #[arg(long, default_value = "15s")]
    pub foreign_cluster_ping_interval: String,
    /// How long a probe may take.
    #[arg(long, default_value = "5s")]
    pub foreign_cluster_ping_timeout: String,
    /// Peer with clusters found on the local network.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub auto_join_discovered_clusters: bool,
    /// gRPC address of a plugin that says what is offered, instead of the built-in monitor.
    #[arg(long, default_value = "")]
    pub resource_plugin_address: String,
    /// Labels of this cluster, shown on virtual nodes that stand for it: key=value,...
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    pub cluster_labels: Vec<(String, String)>,
    /// Percentage of the free resources offered to each peer.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub resource_sharing_percentage: u8,
    /// Accept requests of peers unless their ForeignCluster says no; false: only where it says yes.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_incoming_peering: bool,
    /// Somebody has to accept each offer by setting its status.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub offer_disable_auto_accept: bool,
    /// Change in percent below which an offer is not updated; empty or 0: always.
    #[arg(long, default_value = "")]
    pub offer_update_threshold_percentage: String,
    /// Time a peer has to give back its resources in this cluster once they are no longer granted.
    #[arg(long, default_value = "5m")]
    pub withdrawal_deadline: String,
}

/// Flags about the namespaces made for peers.
#[derive(Clone, Debug, clap::Args)]
pub struct NamespaceArgs {
    /// Names of namespaces no peer gets, besides kube-* and those of Liqo; a * stands for anything.
    #[arg(long, value_delimiter = ',')]
    pub reserved_namespaces: Vec<String>,
    /// Names that peers may choose for namespaces (the strategy EnforceSameName); a * stands for anything. Names that end with
    /// the hash of the ID of the peer, as those of the strategy DefaultName do, are always free.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    pub free_names: Vec<String>,
    /// Namespaces that one peer may have in this cluster.
    #[arg(long, default_value_t = 64)]
    pub namespaces_per_peer: usize,
    /// The Pod Security Standard enforced in namespaces made for peers: restricted, baseline or privileged.
    #[arg(long, default_value = "baseline", value_parser = ["restricted", "baseline", "privileged"])]
    pub pod_security: String,
}

/// Flags about virtual kubelets and their nodes.
#[derive(Clone, Debug, clap::Args)]
pub struct KubeletArgs {
    /// Image of virtual kubelets.
    #[arg(long, default_value = "ghcr.io/liqo-rs/liqo")]
    pub kubelet_image: String,
    /// Extra annotations of virtual kubelet pods.
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    pub kubelet_extra_annotations: Vec<(String, String)>,
    /// Extra labels of virtual kubelet pods.
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    pub kubelet_extra_labels: Vec<(String, String)>,
    /// Extra arguments of virtual kubelets, separated by commas.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    pub kubelet_extra_args: Vec<String>,
    /// CPU request of virtual kubelets.
    #[arg(long, default_value = "")]
    pub kubelet_cpu_requests: String,
    /// CPU limit of virtual kubelets.
    #[arg(long, default_value = "")]
    pub kubelet_cpu_limits: String,
    /// Memory request of virtual kubelets.
    #[arg(long, default_value = "")]
    pub kubelet_ram_requests: String,
    /// Memory limit of virtual kubelets.
    #[arg(long, default_value = "")]
    pub kubelet_ram_limits: String,
    /// Metrics address of virtual kubelets.
    #[arg(long, default_value = ":8080")]
    pub kubelet_metrics_address: String,
    /// Whether virtual kubelets serve metrics.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub kubelet_metrics_enabled: bool,
    /// The platform sets the security context of virtual kubelet pods (OpenShift).
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub kubelet_platform_security_context: bool,
    /// Extra annotations of virtual nodes.
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    pub node_extra_annotations: Vec<(String, String)>,
    /// Extra labels of virtual nodes.
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    pub node_extra_labels: Vec<(String, String)>,
    /// Name of the virtual storage class.
    #[arg(long, default_value = "liqo")]
    pub virtual_storage_class_name: String,
    /// Address of the IPAM, passed on to virtual kubelets.
    #[arg(long, default_value = "")]
    pub kubelet_ipam_server: String,
    /// Networks of pods of peers where Liqo does not connect the networks, passed on to virtual kubelets.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    pub kubelet_peer_networks: Vec<IpNet>,
}

/// Flags about storage classes and volumes.
#[derive(Clone, Debug, clap::Args)]
pub struct StorageArgs {
    /// Offer storage classes to peers.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_storage: bool,
    /// Real storage class behind the virtual one; empty: the default class.
    #[arg(long, default_value = "")]
    pub real_storage_class_name: String,
    /// Namespace of real volumes.
    #[arg(long, default_value = "liqo-storage")]
    pub storage_namespace: String,
}

/// Parses `key=value`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("invalid value {text}: it must look like key=value")),
    }
}

/// Pairs of a flag as a map.
pub fn map(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}
