//! What a `TunnelEndpoint` says of its connection.
//!
//! Words, units and fields are those of Liqo 0.8.3 (data-plane 7.5, 7.8); `mtu`, `loss`, `implementation`,
//! `securityMode` and `reachableAddresses` in `peerConfiguration` are ours.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use liqo_api::net::{Connection, ConnectionLatency, TunnelEndpointSpec, TunnelEndpointStatus};
use liqo_tunnel::Implementation;

use super::{path::Report, segregation::SecurityMode};
use crate::{
    layout::{PUBLIC_KEY, VETH_GATEWAY_IP, VETH_HOST},
    network::Networks,
};

/// A latency is told again after this.
const REFRESH: SignedDuration = SignedDuration::from_secs(30);
/// In `peerConfiguration`: how many addresses of this cluster the peer reaches. Told anew together with a latency, not with
/// every pod.
const REACHABLE: &str = "reachableAddresses";

/// What a status is made of.
pub(crate) struct Facts<'f> {
    pub(crate) spec: &'f TunnelEndpointSpec,
    /// The networks, or why the tunnel cannot be used.
    pub(crate) networks: Result<&'f Networks, &'f str>,
    /// What the pings say; none before the first.
    pub(crate) report: Option<Report>,
    pub(crate) node: IpAddr,
    pub(crate) veth: Option<u32>,
    pub(crate) implementation: Implementation,
    pub(crate) mode: SecurityMode,
    /// How many addresses of this cluster the peer reaches; counts in the segregated mode only.
    pub(crate) reach: usize,
    pub(crate) now: &'f Time,
}

/// The status to be written, if it differs from the one that is there in anything worth a write.
pub(crate) fn plan(facts: &Facts<'_>, old: Option<&TunnelEndpointStatus>) -> Option<TunnelEndpointStatus> {
    let new = status(facts, old);
    let timeless = |status: &TunnelEndpointStatus| {
        let mut status = status.clone();
        if let Some(connection) = &mut status.connection {
            connection.latency = None;
            connection.peer_configuration.retain(|key, _| !matches!(key.as_str(), "loss" | REACHABLE));
        }
        status
    };
    let Some(old) = old else { return Some(new) };
    let told = latency(old).and_then(|latency| latency.timestamp.as_ref());
    let is_old = told.is_none_or(|told| facts.now.0.duration_since(told.0) >= REFRESH);
    let has_news = latency(&new).map(|latency| &latency.value) != latency(old).map(|latency| &latency.value);
    let is_connected = facts.report.is_some_and(|report| report.connected);
    (timeless(old) != timeless(&new) || is_connected && is_old && has_news).then_some(new)
}

fn latency(status: &TunnelEndpointStatus) -> Option<&ConnectionLatency> {
    status.connection.as_ref()?.latency.as_ref()
}

fn status(facts: &Facts<'_>, old: Option<&TunnelEndpointStatus>) -> TunnelEndpointStatus {
    let was_connected = old
        .and_then(|old| old.connection.as_ref())
        .is_some_and(|connection| matches!(connection.status.as_deref(), Some("Connected" | "Error")));
    let (word, message) = match (facts.networks, facts.report) {
        (Err(why), _) => ("Error", why.to_owned()),
        (_, Some(report)) if report.connected => ("Connected", "VPN connection established".to_owned()),
        _ if was_connected => ("Error", "No network connectivity towards remote cluster".to_owned()),
        _ => ("Connecting", "Waiting VPN connection to be established".to_owned()),
    };
    let rtt = facts.report.and_then(|report| report.rtt);
    let value = rtt.map_or_else(|| "N/A".to_owned(), text);
    let connection = Connection {
        status: Some(word.to_owned()),
        status_message: Some(message),
        latency: Some(ConnectionLatency { value: Some(value), timestamp: Some(facts.now.clone()) }),
        peer_configuration: facts.networks.map(|networks| configuration(facts, networks)).unwrap_or_default(),
    };
    TunnelEndpointStatus {
        tunnel_iface_index: None,
        tunnel_iface_name: None,
        veth_iface_index: facts.veth.map(i64::from),
        veth_iface_name: Some(VETH_HOST.to_owned()),
        veth_ip: Some(VETH_GATEWAY_IP.to_string()),
        gateway_ip: Some(facts.node.to_string()),
        connection: Some(connection),
    }
}

fn configuration(facts: &Facts<'_>, networks: &Networks) -> std::collections::BTreeMap<String, String> {
    let [pods, external] = networks.remote();
    let entry = |key: &str| facts.spec.backend_config.get(key).cloned().unwrap_or_default();
    let mut pairs = vec![
        ("endpointIP", facts.spec.endpoint_ip.clone()),
        ("port", entry("port")),
        (PUBLIC_KEY, entry(PUBLIC_KEY)),
        ("allowedIPs", format!("{pods}, {external}")),
        ("implementation", facts.implementation.as_str().to_owned()),
        ("securityMode", facts.mode.as_str().to_owned()),
    ];
    if facts.mode == SecurityMode::IntraClusterTrafficSegregation {
        pairs.push((REACHABLE, facts.reach.to_string()));
    }
    if let Some(report) = facts.report {
        pairs.extend(report.mtu.map(|mtu| ("mtu", mtu.to_string())));
        pairs.push(("loss", format!("{:.1}%", report.loss * 100.0)));
    }
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// As 0.8.3 writes it: whole milliseconds, whole microseconds below one.
fn text(rtt: Duration) -> String {
    match rtt.as_millis() {
        0 => format!("{}\u{3bc}s", rtt.as_micros()),
        millis => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn time(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn spec() -> TunnelEndpointSpec {
        TunnelEndpointSpec {
            local_pod_cidr: "10.244.0.0/16".into(),
            local_nat_pod_cidr: "10.245.0.0/16".into(),
            local_external_cidr: "10.97.0.0/16".into(),
            local_nat_external_cidr: "10.98.0.0/16".into(),
            remote_pod_cidr: "10.244.0.0/16".into(),
            remote_nat_pod_cidr: "10.245.0.0/16".into(),
            remote_external_cidr: "10.97.0.0/16".into(),
            remote_nat_external_cidr: "10.98.0.0/16".into(),
            endpoint_ip: "172.30.0.11".into(),
            backend_type: "wireguard".into(),
            backend_config: [("port".into(), "32205".into()), ("publicKey".into(), "9v9D".into())].into(),
            ..TunnelEndpointSpec::default()
        }
    }

    fn report(connected: bool, micros: u64) -> Report {
        let rtt = connected.then(|| Duration::from_micros(micros));
        Report { connected, rtt, loss: 0.0, mtu: Some(1420) }
    }

    fn told(report: Option<Report>, second: i64, old: Option<&TunnelEndpointStatus>) -> Option<TunnelEndpointStatus> {
        told_with(3, report, second, old)
    }

    fn told_with(
        reach: usize,
        report: Option<Report>,
        second: i64,
        old: Option<&TunnelEndpointStatus>,
    ) -> Option<TunnelEndpointStatus> {
        let (spec, now) = (spec(), time(second));
        let networks = Networks::of(&spec).unwrap();
        let facts = Facts {
            spec: &spec,
            networks: Ok(&networks),
            report,
            node: "172.30.0.12".parse().unwrap(),
            veth: Some(14),
            implementation: Implementation::Userspace,
            mode: SecurityMode::IntraClusterTrafficSegregation,
            reach,
            now: &now,
        };
        plan(&facts, old)
    }

    #[test]
    fn a_tunnel_says_what_0_8_3_said() {
        let status = told(Some(report(true, 1700)), 100, None).unwrap();
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["gatewayIP"], "172.30.0.12");
        assert_eq!((&json["vethIFaceName"], &json["vethIP"]), (&"liqo.host".into(), &"169.254.100.1".into()));
        let connection = &json["connection"];
        assert_eq!(connection["status"], "Connected");
        assert_eq!(connection["statusMessage"], "VPN connection established");
        assert_eq!(connection["latency"]["value"], "1ms");
        assert_eq!(connection["peerConfiguration"]["allowedIPs"], "10.245.0.0/16, 10.98.0.0/16");
        assert_eq!(text(Duration::from_micros(420)), "420μs");
    }

    #[test]
    fn a_change_is_told_at_once_and_a_latency_now_and_then() {
        let first = told(None, 100, None).unwrap();
        assert_eq!(first.connection.as_ref().unwrap().status.as_deref(), Some("Connecting"));
        assert_eq!(told(None, 500, Some(&first)), None);
        let up = told(Some(report(true, 1700)), 101, Some(&first)).unwrap();
        assert_eq!(told(Some(report(true, 9900)), 110, Some(&up)), None, "too early for another latency");
        assert!(told(Some(report(true, 9900)), 131, Some(&up)).is_some());
        assert_eq!(told(Some(report(true, 1701)), 131, Some(&up)), None, "nothing new");
        let down = told(Some(report(false, 0)), 102, Some(&up)).unwrap();
        let connection = down.connection.as_ref().unwrap();
        assert_eq!(connection.status.as_deref(), Some("Error"));
        assert_eq!(connection.latency.as_ref().unwrap().value.as_deref(), Some("N/A"));
        let another = told(Some(report(false, 0)), 103, Some(&down));
        assert_eq!(another, None);
    }

    #[test]
    fn what_a_peer_reaches_is_told_with_a_latency() {
        let first = told_with(3, Some(report(true, 1700)), 100, None).unwrap();
        let shown = |status: &TunnelEndpointStatus| {
            let all = &status.connection.as_ref().unwrap().peer_configuration;
            (all["securityMode"].clone(), all[REACHABLE].clone())
        };
        assert_eq!(shown(&first), ("IntraClusterTrafficSegregation".to_owned(), "3".to_owned()));
        assert_eq!(
            told_with(4, Some(report(true, 9900)), 110, Some(&first)),
            None,
            "one more pod is not worth a write"
        );
        assert_eq!(shown(&told_with(4, Some(report(true, 9900)), 131, Some(&first)).unwrap()).1, "4");
    }
}
