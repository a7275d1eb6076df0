//! The gateway's metrics: those of Liqo 0.8.3 with their labels, and ours.

use std::collections::BTreeMap;

use liqo_kube::metrics::{Metric, Samples};
use liqo_tunnel::{Implementation, PeerState};

use super::path::Report;
use crate::layout::TUNNEL;

/// What is told of one peer.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) report: Option<Report>,
    pub(crate) traffic: Option<PeerState>,
}

/// What is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) implementation: Option<Implementation>,
    pub(crate) active: bool,
    pub(crate) rows: Vec<Row>,
    /// Things in the kernel that were missing or wrong and have been repaired, by kind.
    pub(crate) repairs: BTreeMap<String, u64>,
}

/// The labels of a peer in Liqo 0.8.3.
const PEER: &[&str] = &["driver", "device", "cluster_id", "cluster_name"];
const RECEIVED: Metric = Metric::counter("liqo_peer_receive_bytes_total", "Bytes received from the peer.", PEER);
const SENT: Metric = Metric::counter("liqo_peer_transmit_bytes_total", "Bytes sent to the peer.", PEER);
const LATENCY: Metric = Metric::gauge("liqo_peer_latency_us", "Round trip time to the peer, microseconds.", PEER);
const CONNECTED: Metric = Metric::gauge("liqo_peer_is_connected", "Whether the peer answers through the tunnel.", PEER);
const LOSS: Metric =
    Metric::gauge("liqo_peer_loss_ratio", "Part of the last pings that were not answered, 0 to 1.", PEER);
const MTU: Metric = Metric::gauge("liqo_peer_mtu_bytes", "Largest packet that passes the path, as measured.", PEER);
const IMPLEMENTATION: Metric =
    Metric::gauge("liqo_wireguard_implementation", "Who moves the packets.", &["driver", "implementation"]);
const ACTIVE: Metric = Metric::gauge("liqo_gateway_is_active", "Whether this gateway is the active one.", &[]);
const REPAIRS: Metric =
    Metric::counter("liqo_fabric_repairs_total", "Network settings of ours that others had changed.", &["kind"]);

const DRIVER: &str = "wireguard";

fn connected(row: &Row) -> Option<Report> {
    row.report.filter(|report| report.connected)
}

/// All of them.
pub(crate) fn samples(figures: &Figures, samples: &mut Samples) {
    for metric in [&RECEIVED, &SENT, &LATENCY, &CONNECTED, &LOSS, &MTU, &IMPLEMENTATION] {
        samples.describe(metric);
    }
    figures.rows.iter().for_each(|row| peer(row, samples));
    if let Some(implementation) = figures.implementation {
        samples.gauge(&IMPLEMENTATION, &[DRIVER, implementation.as_str()], 1.0);
    }
    samples.gauge(&ACTIVE, &[], f64::from(u8::from(figures.active)));
    repairs(&figures.repairs, samples);
}

/// One peer. A peer that does not answer has no traffic and no latency.
fn peer(row: &Row, samples: &mut Samples) {
    let labels = [DRIVER, TUNNEL, &*row.id, &*row.name];
    let connected = connected(row);
    if let Some(traffic) = connected.and(row.traffic.as_ref()) {
        samples.count(&RECEIVED, &labels, traffic.received);
        samples.count(&SENT, &labels, traffic.sent);
    }
    samples.gauge(&CONNECTED, &labels, f64::from(u8::from(connected.is_some())));
    let gauges = [
        (&LATENCY, connected.and_then(|report| report.rtt).map(|rtt| rtt.as_secs_f64() * 1e6)),
        (&LOSS, row.report.map(|report| report.loss)),
        (&MTU, row.report.and_then(|report| report.mtu).map(f64::from)),
    ];
    for (metric, value) in gauges {
        if let Some(value) = value {
            samples.gauge(metric, &labels, value);
        }
    }
}

/// What has been repaired, for the gateway and for the route agent.
pub(crate) fn repairs(repairs: &BTreeMap<String, u64>, samples: &mut Samples) {
    samples.describe(&REPAIRS);
    for (kind, count) in repairs {
        samples.count(&REPAIRS, &[kind], *count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_silent_peer_has_no_traffic_and_no_latency() {
        let report = |connected| Report {
            connected,
            rtt: connected.then(|| Duration::from_micros(420)),
            loss: 0.5,
            mtu: Some(1420),
        };
        let row = |id: &str, connected| Row {
            id: id.into(),
            name: format!("name-{id}"),
            report: Some(report(connected)),
            traffic: None,
        };
        let figures = Figures { rows: vec![row("a", true), row("b", false)], active: true, ..Figures::default() };
        let mut all = Samples::default();
        samples(&figures, &mut all);
        let text = all.text();
        let labels = "driver=\"wireguard\",device=\"liqo.tunnel\",cluster_id=\"a\",cluster_name=\"name-a\"";
        assert!(text.contains(&format!("liqo_peer_latency_us{{{labels}}} 420")), "{text}");
        assert!(!text.contains("liqo_peer_latency_us{driver=\"wireguard\",device=\"liqo.tunnel\",cluster_id=\"b\""));
        assert_eq!(text.matches("liqo_peer_is_connected{").count(), 2);
        assert!(text.contains("liqo_gateway_is_active 1"));
    }
}
