//! Addresses that networks of peers must not cover: of this cluster's nodes and API server, and of peers' gateways.
//!
//! Watches   `Node`s that are not virtual, the `EndpointSlice`s of the Service `default/kubernetes`.
//! Writes    nothing.

use std::{
    borrow::Borrow,
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Node, discovery::v1::EndpointSlice};
use kube::ResourceExt;
use liqo_api::meta::label;
use liqo_ipam::Around;
use liqo_kube::{Cluster, Object, Store};

use crate::layout::{API_SERVER_NAMESPACE, API_SERVER_SLICES};

/// The current addresses.
pub(crate) struct Surroundings {
    nodes: Store<Node>,
    slices: Store<EndpointSlice>,
    api_server: Option<IpAddr>,
    public: bool,
}

impl Surroundings {
    /// Starts watching. `ring` is called when an address comes or changes; `api_server` is what peers are told, `public`
    /// whether their public networks are used as announced.
    pub(crate) fn watch(
        cluster: &Cluster,
        api_server: &str,
        public: bool,
        ring: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Self {
        let no_virtual = format!("{}!={}", label::TYPE, label::VIRTUAL_NODE);
        let nodes = cluster.watch("").labels(&no_virtual).trim(crate::route::trim);
        let slices = cluster.watch(API_SERVER_NAMESPACE).labels(API_SERVER_SLICES);
        Self {
            nodes: nodes.start(changes(addresses_of, ring.clone())),
            slices: slices.start(changes(|slice: &EndpointSlice| endpoints_of(slice).collect(), ring)),
            api_server: host(api_server),
            public,
        }
    }

    /// Returns when all are known.
    pub(crate) async fn ready(&self) {
        self.nodes.ready().await;
        self.slices.ready().await;
    }

    /// The current addresses, together with the addresses among `gateways`; host names are ignored.
    pub(crate) fn around<'g>(&self, gateways: impl IntoIterator<Item = &'g str>) -> Around {
        Around {
            vital: vital(&self.nodes.all(), &self.slices.all(), self.api_server),
            gateways: gateways.into_iter().filter_map(host).map(IpNet::from).collect(),
            public: self.public,
        }
    }
}

/// Objects whose addresses [`changes`] remembers; for one more, all are forgotten, and each rings once more.
const MOST: usize = 16_384;

/// Calls `ring` when the part of an object that `read` extracts has changed.
fn changes<K: Object>(
    read: impl Fn(&K) -> Vec<IpAddr> + Send + Sync + 'static,
    ring: impl Fn() + Send + Sync + 'static,
) -> impl Fn(&K) + Send + Sync + 'static {
    let known: Mutex<HashMap<String, Vec<IpAddr>>> = Mutex::default();
    move |object| {
        let now = read(object);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        if known.insert(object.name_any(), now.clone()).is_none_or(|before| before != now) {
            drop(known);
            ring();
        }
    }
}

fn vital(
    nodes: &[impl Borrow<Node>],
    slices: &[impl Borrow<EndpointSlice>],
    api_server: Option<IpAddr>,
) -> Vec<(IpNet, String)> {
    let of_node = |node: &Node| {
        let what = format!("an address of node {}", node.name_any());
        addresses_of(node).into_iter().map(move |address| (IpNet::from(address), what.clone())).collect::<Vec<_>>()
    };
    let nodes = nodes.iter().flat_map(|node| of_node(node.borrow()));
    let endpoints = slices.iter().flat_map(|slice| endpoints_of(slice.borrow()));
    let api =
        endpoints.chain(api_server).map(|address| (IpNet::from(address), "an address of the API server".to_owned()));
    nodes.chain(api).collect()
}

/// Addresses packets of a node may have.
pub(crate) fn addresses_of(node: &Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let real = all.iter().filter(|one| matches!(one.type_.as_str(), "InternalIP" | "ExternalIP"));
    real.filter_map(|one| one.address.parse().ok()).collect()
}

/// Addresses of the endpoints in a slice.
pub(crate) fn endpoints_of(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok())
}

/// The address in `address`, `address:port`, `[address]:port` or a URL of one of these; `None` for a name.
fn host(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split('/').next().unwrap_or_default();
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return Some(address);
    }
    text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_lives_on_its_nodes_and_its_api_server() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": {"addresses": [
            {"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "172.30.0.11"},
            {"type": "ExternalIP", "address": "203.0.113.4"}, {"type": "InternalIP", "address": "fd00::b"},
        ]}}))
        .unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "kubernetes"}, "addressType": "IPv4", "endpoints": [{"addresses": ["172.30.0.8"]}],
        }))
        .unwrap();
        let all = vital(&[node], &[slice], host("https://203.0.113.5:6443"));
        let texts: Vec<_> = all.iter().map(|(network, what)| format!("{network} {what}")).collect();
        assert_eq!(
            texts,
            [
                "172.30.0.11/32 an address of node n1",
                "203.0.113.4/32 an address of node n1",
                "fd00::b/128 an address of node n1",
                "172.30.0.8/32 an address of the API server",
                "203.0.113.5/32 an address of the API server",
            ]
        );
    }

    #[test]
    fn an_address_is_found_in_what_people_write() {
        for (text, found) in [
            ("172.30.0.11", Some("172.30.0.11")),
            ("172.30.0.11:6443", Some("172.30.0.11")),
            ("https://172.30.0.11:6443/", Some("172.30.0.11")),
            ("[fd00::1]:6443", Some("fd00::1")),
            ("fd00::1", Some("fd00::1")),
            ("rome.it:6443", None),
            ("", None),
        ] {
            assert_eq!(host(text), found.map(|text| text.parse().unwrap()), "{text}");
        }
    }
}
