//! The gateway's metrics, in the Prometheus text format: the four of Liqo 0.8.3 with their labels, and ours.

use std::fmt::Write;

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
    pub(crate) repairs: std::collections::BTreeMap<String, u64>,
}

/// A family: name, kind, help, and what it says of a connected peer.
type Family = (&'static str, &'static str, &'static str, fn(&Row) -> Option<f64>);

const FAMILIES: [Family; 6] = [
    ("liqo_peer_receive_bytes_total", "counter", "Bytes received from the peer.", |row| {
        connected(row).and(row.traffic.as_ref()).map(|traffic| number(traffic.received))
    }),
    ("liqo_peer_transmit_bytes_total", "counter", "Bytes sent to the peer.", |row| {
        connected(row).and(row.traffic.as_ref()).map(|traffic| number(traffic.sent))
    }),
    ("liqo_peer_latency_us", "gauge", "Round trip time to the peer, microseconds.", |row| {
        connected(row)?.rtt.map(|rtt| rtt.as_secs_f64() * 1e6)
    }),
    ("liqo_peer_is_connected", "gauge", "Whether the peer answers through the tunnel.", |row| {
        Some(f64::from(u8::from(connected(row).is_some())))
    }),
    ("liqo_peer_loss_ratio", "gauge", "Part of the last pings that were not answered, 0 to 1.", |row| {
        row.report.map(|report| report.loss)
    }),
    ("liqo_peer_mtu_bytes", "gauge", "Largest packet that passes the path, as measured.", |row| {
        row.report?.mtu.map(f64::from)
    }),
];

fn connected(row: &Row) -> Option<Report> {
    row.report.filter(|report| report.connected)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The text.
pub(crate) fn text(figures: &Figures) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in FAMILIES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for row in &figures.rows {
            if let Some(value) = value(row) {
                let labels = format!(
                    "driver=\"wireguard\",device=\"{TUNNEL}\",cluster_id=\"{}\",cluster_name=\"{}\"",
                    row.id, row.name
                );
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
    }
    if let Some(implementation) = figures.implementation {
        let name = "liqo_wireguard_implementation";
        let _ = writeln!(text, "# HELP {name} Who moves the packets.\n# TYPE {name} gauge");
        let _ = writeln!(text, "{name}{{driver=\"wireguard\",implementation=\"{}\"}} 1", implementation.as_str());
    }
    let name = "liqo_gateway_is_active";
    let _ = writeln!(text, "# HELP {name} Whether this gateway is the active one.\n# TYPE {name} gauge");
    let _ = writeln!(text, "{name} {}", u8::from(figures.active));
    text.push_str(&repairs(&figures.repairs));
    text
}

/// What has been repaired, for the gateway and for the route agent.
pub(crate) fn repairs(repairs: &std::collections::BTreeMap<String, u64>) -> String {
    let name = "liqo_fabric_repairs_total";
    let mut text = format!("# HELP {name} Network settings of ours that others had changed.\n# TYPE {name} counter\n");
    for (kind, count) in repairs {
        let _ = writeln!(text, "{name}{{kind=\"{kind}\"}} {count}");
    }
    text
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
        let text = text(&figures);
        let labels = "driver=\"wireguard\",device=\"liqo.tunnel\",cluster_id=\"a\",cluster_name=\"name-a\"";
        assert!(text.contains(&format!("liqo_peer_latency_us{{{labels}}} 420\n")), "{text}");
        assert!(!text.contains("liqo_peer_latency_us{driver=\"wireguard\",device=\"liqo.tunnel\",cluster_id=\"b\""));
        assert_eq!(text.matches("liqo_peer_is_connected{").count(), 2);
        assert!(text.contains("liqo_gateway_is_active 1\n"));
    }
}
