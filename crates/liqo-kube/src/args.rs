//! Arguments every role takes.

use std::path::PathBuf;

use ipnet::IpNet;

/// How a role reaches its cluster and how much it says.
#[derive(Clone, Debug, clap::Args)]
pub struct RuntimeArgs {
    /// Kubeconfig of the own cluster; inside a pod its service account is used.
    #[arg(long = "home-kubeconfig", alias = "kubeconfig", env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Verbosity of the log: 0 what changed, 1 and 2 also what was looked at, 4 and more everything.
    #[arg(long = "v", alias = "klog.v", default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
    /// Accepted for compatibility: requests are limited by the API server, not by us.
    #[arg(long, hide = true, default_value_t = 100)]
    pub client_qps: u32,
    /// Accepted for compatibility, like --client-qps.
    #[arg(long, hide = true, default_value_t = 100)]
    pub client_max_burst: u32,
    /// Address of `/healthz`, `/readyz` and the process' own `/metrics`; empty: none.
    #[arg(long, default_value = ":8081", value_name = "HOST:PORT")]
    pub health_probe_address: String,
}

/// Where this cluster is, so that no peer leads us there.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ReachArgs {
    /// Networks of the pods and Services of this cluster, where no peer is.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    pub own_networks: Vec<IpNet>,
    /// Networks where peers are although their addresses are also those of nodes, pods or Services of this cluster.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    pub peers_within: Vec<IpNet>,
}
