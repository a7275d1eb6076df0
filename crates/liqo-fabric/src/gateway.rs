//! The gateway: one end of the tunnels to all peers.
//!
//! Every gateway pod keeps the namespace, the tunnel's interface, routes and rules for all peers ready; the active one also speaks to
//! the peers, pings, tells and is found. All state is read from the cluster and from the kernel again and again: nothing is lost with the process, and
//! the namespace outlives a crash.
//!
//! Watches: `TunnelEndpoint`, `NatMapping`, the key Secret, the Pods of Liqo's namespace, the gateway Service, the Lease, and what
//! [`segregation`] says. Writes: status of `TunnelEndpoint`s, and what [`duty`], [`key`] and [`election`] say. Removes: what [`flows`]
//! says; its links and namespace at the end.

mod check;
mod duty;
mod election;
mod flows;
mod heartbeat;
mod key;
mod message;
pub(crate) mod metrics;
mod mtu;
mod path;
mod peers;
mod resolve;
mod rules;
mod segregation;
mod space;
mod status;
mod world;

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use liqo_kube::{args::RuntimeArgs, life::Life, role::Role};
use liqo_netlink::{Kernel, Netns};
use liqo_tunnel::Implementation;
use tokio::sync::{Notify, watch};

pub use segregation::SecurityMode;

use crate::layout::NAMESPACE;

/// Flags of the gateway; those with a dot are those of Liqo 0.8.3.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-gateway", about = "One end of the tunnels to all peers", version)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Namespace Liqo is installed in.
    #[arg(long = "liqo-namespace", alias = "namespace", env = "POD_NAMESPACE", default_value = "liqo")]
    pub namespace: String,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Address of this pod, which is that of its node.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: IpAddr,
    /// UDP port of WireGuard.
    #[arg(long = "gateway.listening-port", default_value_t = crate::layout::WIREGUARD_PORT)]
    pub listening_port: u16,
    /// Largest packet in the tunnel, bytes; 0: what the node's network carries. What a path really carries is
    /// measured in any case.
    #[arg(long = "gateway.mtu", default_value_t = 0)]
    pub mtu: u16,
    /// Who moves the packets: kernel (or, where the kernel cannot, this process) or userspace (this process).
    #[arg(long, env = "WIREGUARD_IMPLEMENTATION", default_value = "kernel", value_parser = ["kernel", "userspace"])]
    pub wireguard_implementation: String,
    /// Which pods of this cluster peers reach: every one, or those of namespaces shared with the peer.
    #[arg(long = "gateway.security-mode", value_enum, default_value_t)]
    pub security_mode: SecurityMode,
    /// Several gateways choose one that is active. Off: this one is, always.
    #[arg(long = "gateway.leader-elect", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// A gateway that does not answer and has not renewed its lease for so long is replaced.
    #[arg(long = "gateway.lease-duration", default_value = "7s", value_parser = duration)]
    pub lease_duration: Duration,
    /// Accepted for compatibility: a gateway cut off from the API server goes on until another one has taken over.
    #[arg(long = "gateway.renew-deadline", hide = true, default_value = "5s", value_parser = duration)]
    pub renew_deadline: Duration,
    /// Pause between renewals of the lease while there are other gateways.
    #[arg(long = "gateway.retry-period", default_value = "2s", value_parser = duration)]
    pub retry_period: Duration,
    /// Accepted for compatibility: pings come often enough to notice a dead path within a second.
    #[arg(long = "gateway.ping-interval", hide = true, default_value = "2s", value_parser = duration)]
    pub ping_interval: Duration,
    /// Accepted for compatibility, like --gateway.ping-interval.
    #[arg(long = "gateway.ping-loss-threshold", hide = true, default_value_t = 5)]
    pub ping_loss_threshold: u32,
    /// Accepted for compatibility: a latency is told again every 30 s.
    #[arg(long = "gateway.ping-latency-update-interval", hide = true, default_value = "30s", value_parser = duration)]
    pub ping_latency_update_interval: Duration,
    /// Makes the network namespace of the tunnels, bound where every process of the node sees it, and ends. Only a privileged
    /// container can do that, and the gateway itself is not one.
    #[arg(long)]
    pub prepare: bool,
    /// Address of the peers' metrics; empty: they are served with the health checks only.
    #[arg(long, default_value = "")]
    pub metrics_bind_addr: String,
}

/// Parses a duration as Go writes it: `300ms`, `7s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = units.iter().find_map(|(unit, millis)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_millis(count.checked_mul(*millis)?))
    });
    parsed.ok_or_else(|| format!("{text:?} must look like 300ms, 7s or 2m"))
}

impl Role for GatewayArgs {
    const NAME: &'static str = "gateway";
    const TIDIES_UP: bool = true;

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    /// Prepares the node, in an init container.
    fn once(&self) -> Option<Result<(), String>> {
        let prepare = || Netns::create(Path::new(NAMESPACE)).map(drop).map_err(|error| told(&error));
        self.prepare.then(prepare)
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let cluster = life.home(&self.runtime, "liqo-gateway").await?;
        let bell = Arc::new(Notify::new());
        let space = Space::open().map_err(|error| told(&error))?;
        let (active, standing) = watch::channel(!self.leader_elect);
        let mut gateway = world::Gateway::start(&self, cluster.clone(), space, standing, bell)?;
        life.metrics(gateway.figures());
        if !self.metrics_bind_addr.is_empty() {
            life.serve_metrics(&self.metrics_bind_addr).await?;
        }
        let (leave, leaving) = watch::channel(false);
        if self.leader_elect {
            let candidate = election::Candidate {
                cluster: cluster.clone(),
                namespace: self.namespace.clone(),
                me: self.pod_name.clone(),
                terms: election::Terms { duration: self.lease_duration, retry: self.retry_period },
                pods: gateway.pods(),
                secrets: gateway.secrets(),
                leaving,
            };
            life.spawn("election", candidate.run(active));
            let (address, secrets) = (gateway.address(), gateway.secrets());
            life.spawn("heartbeat", async move { election::answer(address, secrets).await });
        }
        let busy = life.busy();
        let outcome = gateway.run(busy, life.until_signal()).await;
        if self.leader_elect {
            // Another gateway takes over while this one tidies up.
            leave.send_replace(true);
            let name = liqo_api::names::GATEWAY_LEASE;
            liqo_kube::lease::release(&cluster, &self.namespace, name, &self.pod_name).await;
        }
        outcome.and(gateway.leave())
    }
}

/// The two places in the kernel a gateway works in.
pub(crate) struct Space {
    node: Kernel,
    netns: Netns,
    inside: Kernel,
}

impl Space {
    fn open() -> Result<Self, liqo_netlink::Error> {
        let node = Kernel::open(&Netns::current()?)?;
        let netns = Netns::create(Path::new(NAMESPACE))?;
        let inside = Kernel::open(&netns)?;
        Ok(Self { node, netns, inside })
    }
}

/// What the flag says; the kernel is only ever a preference.
fn wish(args: &GatewayArgs) -> Option<Implementation> {
    (args.wireguard_implementation == "userspace").then_some(Implementation::Userspace)
}

/// An error with its causes, on one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_flags_of_0_8_3_are_understood() {
        let args = GatewayArgs::parse_from([
            "liqo-gateway",
            "--pod-name=gw",
            "--pod-ip=172.30.0.11",
            "--gateway.leader-elect=true",
            "--gateway.mtu=1340",
            "--gateway.lease-duration=7s",
            "--gateway.ping-interval=2s",
            "--gateway.listening-port=5871",
        ]);
        assert!(args.leader_elect);
        assert_eq!(args.security_mode, SecurityMode::FullPodToPod);
        assert_eq!((args.mtu, args.lease_duration), (1340, Duration::from_secs(7)));
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert!(duration("7").is_err());
    }

    #[test]
    fn the_security_mode_has_the_words_of_liqo_1() {
        let mode = |word: &str| {
            let flag = format!("--gateway.security-mode={word}");
            GatewayArgs::try_parse_from(["liqo-gateway", "--pod-name=gw", "--pod-ip=172.30.0.11", &flag])
                .map(|args| args.security_mode)
        };
        for known in [SecurityMode::FullPodToPod, SecurityMode::IntraClusterTrafficSegregation] {
            assert_eq!(mode(known.as_str()).unwrap(), known);
        }
        assert!(mode("fullpodtopod").is_err());
    }
}
