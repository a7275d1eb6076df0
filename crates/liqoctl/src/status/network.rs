//! The network between this cluster and a peer: whose addresses were remapped, and how the tunnel stands.

use std::collections::BTreeMap;

use kube::ResourceExt;
use liqo_api::{
    meta::label,
    net::{NetworkConfig, NetworkConfigStatus, TunnelEndpoint},
};
use serde::Serialize;

use crate::status::frame::Section;

/// What is said where nothing is remapped.
const NOT_REMAPPED: &str = "remapping not necessary";

/// What our gateways add to `peerConfiguration`, with its title.
const DETAILS: [(&str, &str); 5] = [
    ("loss", "Loss"),
    ("mtu", "Path MTU"),
    ("implementation", "Driver"),
    ("securityMode", "Security mode"),
    ("reachableAddresses", "Reachable here"),
];

/// The objects that are about the network of peers.
pub(crate) struct Objects {
    pub(crate) configs: Vec<NetworkConfig>,
    pub(crate) tunnels: Vec<TunnelEndpoint>,
}

/// The network to one peer, as far as its objects exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkView {
    /// Our networks, and how the peer sees them.
    #[serde(rename = "localCIDRs", skip_serializing_if = "Option::is_none")]
    local: Option<RangesView>,
    /// The peer's networks, and how we see them.
    #[serde(rename = "remoteCIDRs", skip_serializing_if = "Option::is_none")]
    remote: Option<RangesView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectionView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RangesView {
    #[serde(rename = "podCIDR")]
    pods: String,
    #[serde(rename = "externalCIDR")]
    external: String,
    /// How the other side sees them; without value: as they are.
    #[serde(rename = "podCIDRRemapped", skip_serializing_if = "Option::is_none")]
    pods_remapped: Option<String>,
    #[serde(rename = "externalCIDRRemapped", skip_serializing_if = "Option::is_none")]
    external_remapped: Option<String>,
    /// Whether the other side has said how it sees them.
    processed: bool,
    /// Address and UDP port of the gateway.
    #[serde(skip)]
    gateway: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionView {
    local_gateway: String,
    remote_gateway: String,
    status: String,
    latency: String,
    /// What our gateway says besides, by the keys of [`DETAILS`]. Go Liqo says nothing of the kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<String, String>,
}

impl NetworkView {
    /// Pure: what the objects say of the peer with this ID.
    pub(crate) fn of(objects: &Objects, id: &str) -> Self {
        let config = |key: &str, replication: &str| {
            objects.configs.iter().find(|one| {
                one.labels().get(key).map(String::as_str) == Some(id)
                    && one.labels().get(label::REPLICATION).map(String::as_str) == Some(replication)
            })
        };
        let local = config(label::REMOTE_ID, "true").map(ranges);
        let remote = config(label::ORIGIN_ID, "false").map(ranges);
        let tunnel = objects.tunnels.iter().find(|one| {
            one.metadata.deletion_timestamp.is_none()
                && one.labels().get(label::TUNNEL_CLUSTER_ID).map(String::as_str) == Some(id)
        });
        let gateway = local.as_ref().map(|one| one.gateway.clone()).unwrap_or_default();
        Self { connection: tunnel.map(|tunnel| connection(tunnel, gateway)), local, remote }
    }

    /// The rows below `Network`: the networks of the clusters of these names, and how the tunnel between them stands.
    pub(crate) fn show(&self, network: &mut Section, here: &str, there: &str) {
        self.show_networks(network, here, there);
        if self.connection.is_none() {
            network.line("TunnelEndpoint Not Found");
        }
        self.show_connection(network);
    }

    fn show_networks(&self, network: &mut Section, here: &str, there: &str) {
        let been = format!("how {here:?} has been remapped by {there:?}");
        let has = format!("how {here:?} remapped {there:?}");
        if let (Some(local), Some(remote)) = (&self.local, &self.remote) {
            network.section(cidrs("Local CIDRs", local, &been)).section(cidrs("Remote CIDRs", remote, &has));
        } else {
            network.line("NetWorkConfig Not Found");
        }
    }

    /// The rows of the tunnel, if there is one.
    pub(crate) fn show_connection(&self, network: &mut Section) {
        let Some(connection) = &self.connection else { return };
        let ConnectionView { local_gateway, remote_gateway, status, latency, details } = connection;
        let mut gateways = Section::new("Gateway IPs");
        gateways.entry("Local", local_gateway).entry("Remote", remote_gateway);
        let mut section = Section::new("Network connection");
        section.section(gateways).entry("Status", status).entry("Latency", latency);
        for (key, title) in DETAILS {
            if let Some(value) = details.get(key) {
                section.entry(title, value);
            }
        }
        network.section(section);
    }
}

fn ranges(config: &NetworkConfig) -> RangesView {
    let spec = &config.spec;
    let NetworkConfigStatus { processed, pod_cidr_nat, external_cidr_nat } = config.status.clone().unwrap_or_default();
    let remapped = |text: Option<String>| text.filter(|text| !text.is_empty() && text != "None");
    RangesView {
        pods: spec.pod_cidr.clone(),
        external: spec.external_cidr.clone(),
        pods_remapped: remapped(pod_cidr_nat),
        external_remapped: remapped(external_cidr_nat),
        processed,
        gateway: endpoint(&spec.endpoint_ip, &spec.backend_config),
    }
}

fn endpoint(address: &str, config: &BTreeMap<String, String>) -> String {
    let port = config.get("port").map(String::as_str).unwrap_or_default();
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn connection(tunnel: &TunnelEndpoint, local_gateway: String) -> ConnectionView {
    let spec = &tunnel.spec;
    let known = tunnel.status.as_ref().and_then(|status| status.connection.clone()).unwrap_or_default();
    let latency = known.latency.and_then(|latency| latency.value);
    let mut details = known.peer_configuration;
    details.retain(|key, _| DETAILS.iter().any(|(known, _)| key == known));
    ConnectionView {
        local_gateway,
        remote_gateway: endpoint(&spec.endpoint_ip, &spec.backend_config),
        status: known.status.filter(|status| !status.is_empty()).unwrap_or_else(|| "Unknown".to_owned()),
        latency: latency.unwrap_or_else(|| "N/A".to_owned()),
        details,
    }
}

fn cidrs(title: &str, ranges: &RangesView, how: &str) -> Section {
    let mut original = Section::new("Original");
    original.entry("Pod CIDR", &ranges.pods).entry("External CIDR", &ranges.external);
    let mut remapped = Section::new(format!("Remapped - {how}"));
    match (&ranges.pods_remapped, &ranges.external_remapped) {
        (None, None) if !ranges.processed => remapped.line("not decided yet"),
        (None, None) => remapped.line(NOT_REMAPPED),
        (pods, external) => {
            let text = |range: &Option<String>| range.clone().unwrap_or_else(|| NOT_REMAPPED.to_owned());
            remapped.entry("Pod CIDR", text(pods)).entry("External CIDR", text(external))
        }
    };
    let mut all = Section::new(title);
    all.section(original).section(remapped);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The objects recorded on the consumer.
    fn recorded() -> Objects {
        let config = |labels: serde_json::Value, ip: &str, port: &str| -> NetworkConfig {
            serde_json::from_value(json!({
                "apiVersion": "net.liqo.io/v1alpha1", "kind": "NetworkConfig", "metadata": {"name": "x", "labels": labels},
                "spec": {"backendType": "wireguard", "backend_config": {"port": port, "publicKey": "k"},
                    "cluster": {"clusterID": "c", "clusterName": "n"}, "endpointIP": ip,
                    "externalCIDR": "10.97.0.0/16", "podCIDR": "10.244.0.0/16"},
                "status": {"externalCIDRNAT": "10.98.0.0/16", "podCIDRNAT": "10.245.0.0/16", "processed": true}}))
            .unwrap()
        };
        let tunnel = serde_json::from_value(json!({
            "apiVersion": "net.liqo.io/v1alpha1", "kind": "TunnelEndpoint", "metadata": {"name": "x", "labels": {"clusterID": "peer"}},
            "spec": {"backendType": "wireguard", "backend_config": {"port": "32481", "publicKey": "k"},
                "clusterIdentity": {"clusterID": "peer", "clusterName": "provider"}, "endpointIP": "172.30.0.12",
                "localPodCIDR": "", "localExternalCIDR": "", "remotePodCIDR": "", "remoteExternalCIDR": ""},
            "status": {"connection": {"status": "Connected", "latency": {"value": "627\u{3bc}s"},
                "peerConfiguration": {"allowedIPs": "a", "mtu": "1420"}}}}))
        .unwrap();
        Objects {
            configs: vec![
                config(json!({"liqo.io/remoteID": "peer", "liqo.io/replication": "true"}), "172.30.0.11", "32205"),
                config(
                    json!({"liqo.io/originID": "peer", "liqo.io/remoteID": "us", "liqo.io/replication": "false"}),
                    "172.30.0.12",
                    "32481",
                ),
            ],
            tunnels: vec![tunnel],
        }
    }

    fn text(view: &NetworkView) -> String {
        let mut section = Section::new("");
        view.show(&mut section, "consumer", "provider");
        section.text()
    }

    #[test]
    fn the_rows_are_those_of_the_documentation() {
        let view = NetworkView::of(&recorded(), "peer");
        let ranges = |how: &str| {
            format!(
                "    Original\n        Pod CIDR:      10.244.0.0/16\n        External CIDR: 10.97.0.0/16\n    Remapped - {how}\n        \
                 Pod CIDR:      10.245.0.0/16\n        External CIDR: 10.98.0.0/16\n"
            )
        };
        let wanted = format!(
            "Local CIDRs\n{}Remote CIDRs\n{}Network connection\n    Gateway IPs\n        Local:  172.30.0.11:32205\n        \
             Remote: 172.30.0.12:32481\n    Status:   Connected\n    Latency:  627\u{3bc}s\n    Path MTU: 1420\n",
            ranges("how \"consumer\" has been remapped by \"provider\""),
            ranges("how \"consumer\" remapped \"provider\"")
        );
        assert_eq!(text(&view), wanted);
    }

    #[test]
    fn the_security_mode_is_shown() {
        let mut objects = recorded();
        let connection = objects.tunnels[0].status.as_mut().unwrap().connection.as_mut().unwrap();
        for (key, value) in [("securityMode", "IntraClusterTrafficSegregation"), ("reachableAddresses", "7")] {
            connection.peer_configuration.insert(key.to_owned(), value.to_owned());
        }
        let told: String = text(&NetworkView::of(&objects, "peer")).split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = "Security mode: IntraClusterTrafficSegregation Reachable here: 7";
        assert!(told.ends_with(wanted), "{told}");
    }

    #[test]
    fn what_is_missing_is_said() {
        let nothing = NetworkView::of(&recorded(), "another");
        assert_eq!(text(&nothing), "NetWorkConfig Not Found\nTunnelEndpoint Not Found\n");
    }

    #[test]
    fn ranges_that_stay_need_no_remapping() {
        let mut objects = recorded();
        for config in &mut objects.configs {
            let none = || Some("None".to_owned());
            config.status =
                Some(NetworkConfigStatus { processed: true, pod_cidr_nat: none(), external_cidr_nat: none() });
        }
        let told = text(&NetworkView::of(&objects, "peer"));
        assert_eq!(told.matches("    Remapped - ").count(), 2, "{told}");
        assert_eq!(told.matches("        remapping not necessary\n").count(), 2, "{told}");
        objects.configs[0].status = None;
        assert!(text(&NetworkView::of(&objects, "peer")).contains("        not decided yet\n"));
    }
}
