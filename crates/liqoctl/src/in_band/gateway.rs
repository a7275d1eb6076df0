//! Where the gateway of a cluster is found by its peers, and what can be said about that from outside.

use std::net::IpAddr;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, Service, ServicePort},
};
use liqo_api::meta::annotation;
use liqo_core::peering::Gateway;

/// Name of the gateway's Service.
pub(crate) const SERVICE: &str = "liqo-gateway";
/// Label of the Secret with the WireGuard keys.
pub(crate) const KEY_LABEL: &str = "net.liqo.io/key=wireguard";
/// On the Service: address of the node of the active gateway.
const NODE_IP: &str = "net.liqo.io/gatewayNodeIP";
/// Key of the public key in the Secret.
const PUBLIC_KEY: &str = "publicKey";

/// Whether a peer can begin the conversation. One of two gateways that can be reached is enough: the other one
/// begins, and is answered wherever its packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reachability {
    /// As far as can be seen from here.
    Open,
    /// From the same network only: the address is none of the Internet's.
    Private,
    /// Nothing leads to it, and why.
    Closed(String),
}

/// What peers are told about the gateway, and whether they can begin the conversation, from its Service and the Secret with its keys.
///
/// # Errors
/// A text that says what is missing, and what to do.
pub(crate) fn gateway(service: Option<&Service>, keys: &[Secret]) -> Result<(Gateway, Reachability), String> {
    let (address, port, reach) = endpoint(service)?;
    let public_key = keys.iter().find_map(public_key).ok_or_else(|| {
        format!("there is no secret labelled {KEY_LABEL} with a {PUBLIC_KEY} yet: is {SERVICE} running?")
    })?;
    Ok((Gateway { address, port, public_key }, reach))
}

/// Pure: address and UDP port of the gateway.
///
/// # Errors
/// A text that says what is missing.
pub(crate) fn endpoint(service: Option<&Service>) -> Result<(String, u16, Reachability), String> {
    let service = service.ok_or_else(|| format!("service {SERVICE} does not exist: is Liqo's network installed?"))?;
    match published(service) {
        Ok((address, port)) => {
            let reach = if is_private(&address) { Reachability::Private } else { Reachability::Open };
            Ok((address, port, reach))
        }
        Err(why) => {
            let (address, port) = on_its_node(service).ok_or_else(|| format!("{why}; no gateway is active either"))?;
            Ok((address, port, Reachability::Closed(why)))
        }
    }
}

fn public_key(secret: &Secret) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(PUBLIC_KEY)?;
    String::from_utf8(bytes.clone()).ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty())
}

/// Where the Service can be reached from outside the cluster.
fn published(service: &Service) -> Result<(String, u16), String> {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP");
    let port = wireguard_port(service).ok_or_else(|| format!("service {SERVICE} has no port"))?;
    let (address, number) = match kind {
        "NodePort" => (annotation(service, NODE_IP), port.node_port),
        "LoadBalancer" => (balancer(service), Some(port.port)),
        _ => (None, None),
    };
    let address = annotation(service, annotation::OVERRIDE_ADDRESS).map(bare).or(address);
    let number = match annotation(service, annotation::OVERRIDE_PORT) {
        Some(text) => {
            let wrong =
                |_| format!("annotation {} of service {SERVICE} is no port: {text:?}", annotation::OVERRIDE_PORT);
            Some(text.parse::<u16>().map_err(wrong)?)
        }
        None => number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0),
    };
    match (address, number, kind) {
        (Some(address), Some(number), _) => Ok((address, number)),
        (None, _, "LoadBalancer") => Err(format!("the load balancer has not given service {SERVICE} an address")),
        (None, _, "NodePort") => {
            Err(format!("service {SERVICE} does not say on which node the gateway is ({NODE_IP})"))
        }
        (_, _, "NodePort") => Err(format!("service {SERVICE} has not been given a node port")),
        (_, _, other) => Err(format!("service {SERVICE} is of type {other}")),
    }
}

/// The gateway lives in the network of its node: there it listens itself.
fn on_its_node(service: &Service) -> Option<(String, u16)> {
    let port = u16::try_from(wireguard_port(service)?.port).ok()?;
    Some((annotation(service, NODE_IP)?, port))
}

fn wireguard_port(service: &Service) -> Option<&ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_deref()?;
    let named = |port: &&ServicePort| port.name.as_deref() == Some("wireguard");
    let udp = |port: &&ServicePort| port.protocol.as_deref() == Some("UDP");
    ports.iter().find(named).or_else(|| ports.iter().find(udp))
}

fn annotation(service: &Service, key: &str) -> Option<String> {
    service.metadata.annotations.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned()
}

fn bare(text: String) -> String {
    let text = text.trim();
    text.rsplit_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/').to_owned()
}

fn balancer(service: &Service) -> Option<String> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_deref()?.first()?;
    ingress.ip.clone().or_else(|| ingress.hostname.clone()).filter(|host| !host.is_empty())
}

/// Addresses that mean something in their own network only (RFC 1918, 6598, 3927, 4193; loopback). A name may mean
/// anything.
fn is_private(address: &str) -> bool {
    match address.parse() {
        Ok(IpAddr::V4(v4)) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        Ok(IpAddr::V6(v6)) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(kind: &str, annotations: Value, ingress: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": SERVICE, "annotations": annotations},
            "spec": {"type": kind, "ports": [{"name": "metrics", "port": 5872}, {"name": "wireguard", "port": 5871, "nodePort": 32481}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    fn keys() -> Vec<Secret> {
        vec![serde_json::from_value(json!({"data": {"publicKey": "a2V5"}})).unwrap()]
    }

    fn found(service: &Service) -> Result<(String, u16, Reachability), String> {
        gateway(Some(service), &keys()).map(|(found, reach)| {
            assert_eq!(found.public_key, "key");
            (found.address, found.port, reach)
        })
    }

    #[test]
    fn the_endpoint_is_the_one_the_network_manager_would_announce() {
        let node = json!({"net.liqo.io/gatewayNodeIP": "172.30.0.12"});
        let over = json!({"net.liqo.io/gatewayNodeIP": "172.30.0.12", "liqo.io/override-address": "gw.rome.it", "liqo.io/override-port": "51820"});
        for (service, address, port, reach) in [
            (service("NodePort", node.clone(), json!([])), "172.30.0.12", 32481, Reachability::Private),
            (service("LoadBalancer", node.clone(), json!([{"ip": "5.6.7.8"}])), "5.6.7.8", 5871, Reachability::Open),
            (service("LoadBalancer", node.clone(), json!([{"hostname": "a.b"}])), "a.b", 5871, Reachability::Open),
            (service("NodePort", over.clone(), json!([])), "gw.rome.it", 51820, Reachability::Open),
            (service("ClusterIP", over, json!([])), "gw.rome.it", 51820, Reachability::Open),
        ] {
            assert_eq!(found(&service), Ok((address.to_owned(), port, reach)));
        }
    }

    #[test]
    fn a_gateway_without_a_way_in_can_still_begin() {
        let node = json!({"net.liqo.io/gatewayNodeIP": "10.0.0.4"});
        for (service, why) in [
            (service("ClusterIP", node.clone(), json!([])), "is of type ClusterIP"),
            (service("LoadBalancer", node.clone(), json!([])), "has not given service liqo-gateway an address"),
        ] {
            let (address, port, reach) = found(&service).unwrap();
            assert_eq!((address.as_str(), port), ("10.0.0.4", 5871));
            assert!(matches!(reach, Reachability::Closed(told) if told.contains(why)), "{why}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let node = json!({"net.liqo.io/gatewayNodeIP": "10.0.0.4"});
        assert!(gateway(None, &keys()).unwrap_err().contains("service liqo-gateway does not exist"));
        let some = service("NodePort", node, json!([]));
        assert!(gateway(Some(&some), &[]).unwrap_err().contains("publicKey"));
        let nowhere = service("ClusterIP", json!({}), json!([]));
        assert!(found(&nowhere).unwrap_err().contains("no gateway is active"));
        let wrong =
            service("NodePort", json!({"liqo.io/override-port": "x", "liqo.io/override-address": "a.b"}), json!([]));
        assert!(found(&wrong).unwrap_err().contains("is no port"));
    }

    #[test]
    fn private_addresses_are_known() {
        for (address, private) in [
            ("10.1.2.3", true),
            ("172.31.255.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("127.0.0.1", true),
            ("8.8.8.8", false),
            ("fd00::1", true),
            ("2001:db8::1", false),
            ("gw.rome.it", false),
        ] {
            assert_eq!(is_private(address), private, "{address}");
        }
    }
}
