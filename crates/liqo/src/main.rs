//! The server binary of the platform.
//!
//! Holds no logic. The programs have the names of Liqo 0.8.3, because commands of charts and other people's tools name these
//! programs.

use std::process::ExitCode;

use liqo_api::role::PLATFORM;
use liqo_control::{manager, peering::auth, replicate};
use liqo_fabric::{gateway, manager as network, proxy, route};
use liqo_kube::role::live;

fn main() -> ExitCode {
    liqo::start(PLATFORM, |program, args| {
        Some(match program {
            "liqo-controller-manager" => live::<manager::ManagerArgs>(args),
            "crd-replicator" => live::<replicate::ReplicatorArgs>(args),
            "auth-service" => live::<auth::AuthArgs>(args),
            "virtual-kubelet" => live::<liqo_kubelet::KubeletArgs>(args),
            "liqo-network-manager" => live::<network::ManagerArgs>(args),
            "liqo-gateway" => live::<gateway::GatewayArgs>(args),
            "liqo-route" => live::<route::RouteArgs>(args),
            "metric-agent" => live::<liqo_metrics::MetricArgs>(args),
            "liqo-proxy" => live::<proxy::ProxyArgs>(args),
            _ => return None,
        })
    })
}
