//! Where peers find our gateway: what its Service and its key say (data-plane 7.4).

use std::borrow::Borrow;

use k8s_openapi::api::core::v1::{Secret, Service, ServicePort};
use kube::ResourceExt;
use liqo_api::meta::annotation;
use liqo_core::peering::Gateway;
use liqo_tunnel::PublicKey;

use crate::layout::{GATEWAY_NODE_IP, GATEWAY_SERVICE, KEY_SECRET, PUBLIC_KEY};

/// Name of the Service's port that leads to WireGuard.
const PORT_NAME: &str = "wireguard";

/// Why peers cannot be told where our gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// A sentence that says why, and what to do.
    pub(crate) why: String,
    /// WireGuard public key, if there is one: a gateway that no peer reaches can still open the tunnel itself.
    pub(crate) public_key: Option<String>,
}

/// Reads where our gateway is.
///
/// # Errors
/// When peers could not reach the gateway.
pub(crate) fn endpoint(
    services: &[impl Borrow<Service>],
    secrets: &[impl Borrow<Secret>],
) -> Result<Gateway, Unreachable> {
    let public_key = public_key(secrets).map_err(|why| Unreachable { why, public_key: None })?;
    match way(services) {
        Ok((address, port)) => Ok(Gateway { address, port, public_key }),
        Err(why) => Err(Unreachable { why, public_key: Some(public_key) }),
    }
}

fn way(services: &[impl Borrow<Service>]) -> Result<(String, u16), String> {
    let service = services.iter().map(Borrow::borrow).min_by_key(|one: &&Service| one.name_any());
    let service =
        service.ok_or_else(|| format!("there is no Service {GATEWAY_SERVICE}: install Liqo's chart again"))?;
    Ok((address(service)?, port(service)?))
}

fn kind(service: &Service) -> &str {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP")
}

fn address(service: &Service) -> Result<String, String> {
    if let Some(address) = overridden(service, annotation::OVERRIDE_ADDRESS) {
        return bare_host(address);
    }
    let name = service.name_any();
    match kind(service) {
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).and_then(<[_]>::first);
            let published = ingress.and_then(|ingress| ingress.ip.as_ref().or(ingress.hostname.as_ref()));
            published.filter(|host| !host.is_empty()).cloned().ok_or_else(|| {
                format!(
                    "the load balancer has not given Service {name} an address yet; without a load balancer use the \
                     Service type NodePort or set the annotation {}",
                    annotation::OVERRIDE_ADDRESS
                )
            })
        }
        "NodePort" => service
            .annotations()
            .get(GATEWAY_NODE_IP)
            .filter(|address| !address.is_empty())
            .cloned()
            .ok_or_else(|| format!("no gateway is active yet: Service {name} has no annotation {GATEWAY_NODE_IP}")),
        other => Err(format!(
            "peers cannot reach a Service of type {other}: change {name} to NodePort or LoadBalancer, or set the \
             annotations {} and {}",
            annotation::OVERRIDE_ADDRESS,
            annotation::OVERRIDE_PORT
        )),
    }
}

fn port(service: &Service) -> Result<u16, String> {
    let name = service.name_any();
    if let Some(text) = overridden(service, annotation::OVERRIDE_PORT) {
        let port = text.parse().ok().filter(|port| *port != 0);
        return port
            .ok_or_else(|| format!("annotation {} of Service {name} is no port: {text:?}", annotation::OVERRIDE_PORT));
    }
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let named = |port: &&ServicePort| port.name.as_deref() == Some(PORT_NAME);
    let udp = |port: &&ServicePort| port.protocol.as_deref() == Some("UDP");
    let port = ports.iter().find(named).or_else(|| ports.iter().find(udp));
    let port = port.ok_or_else(|| format!("Service {name} has no UDP port {PORT_NAME}"))?;
    let number = match kind(service) {
        "NodePort" => port.node_port,
        _ => Some(port.port),
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
    number.ok_or_else(|| format!("Service {name} has not been given a node port yet"))
}

/// Our own WireGuard public key.
///
/// # Errors
/// A sentence that says why the gateway has no address.
pub(crate) fn public_key(secrets: &[impl Borrow<Secret>]) -> Result<String, String> {
    // The choice of the gateway: the oldest.
    let age = |one: &&Secret| (one.creation_timestamp(), one.name_any());
    let secret = secrets.iter().map(Borrow::borrow).min_by_key(age);
    let secret = secret.ok_or_else(|| format!("the gateway has not made the Secret {KEY_SECRET} yet"))?;
    let bytes = secret.data.as_ref().and_then(|data| data.get(PUBLIC_KEY));
    let text = bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).map(str::trim).unwrap_or_default();
    if text.parse::<PublicKey>().is_err() {
        return Err(format!("Secret {}: {PUBLIC_KEY} is no WireGuard key; mend it, or delete it", secret.name_any()));
    }
    Ok(text.to_owned())
}

fn overridden<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service.annotations().get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// A host without the scheme, the brackets and the slash people add.
fn bare_host(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = host.trim_end_matches('/').trim_start_matches('[').trim_end_matches(']');
    let is_host =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_'));
    if is_host {
        Ok(host.to_owned())
    } else {
        Err(format!("annotation {} is no host: {text:?}", annotation::OVERRIDE_ADDRESS))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "fAtXqFbclsLrEwLCMmP18WQmRtocQDjKtHV8rRnTSW0=";

    fn service(kind: &str, annotations: Value, ingress: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "liqo-gateway", "annotations": annotations},
            "spec": {"type": kind, "ports": [
                {"name": "metrics", "port": 5872, "nodePort": 30001, "protocol": "TCP"},
                {"name": "wireguard", "port": 5871, "nodePort": 32205, "protocol": "UDP"},
            ]},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    fn secret(key: &str) -> Secret {
        use k8s_openapi::ByteString;
        let data = [(PUBLIC_KEY.to_owned(), ByteString(key.as_bytes().to_vec()))].into();
        Secret { data: Some(data), ..Secret::default() }
    }

    fn found(service: Service) -> Result<(String, u16), String> {
        let found = endpoint(&[service], &[secret(KEY)]);
        found.map(|endpoint| (endpoint.address, endpoint.port)).map_err(|unreachable| {
            assert_eq!(unreachable.public_key.as_deref(), Some(KEY), "the key does not depend on the Service");
            unreachable.why
        })
    }

    #[test]
    fn each_type_of_service_has_its_address_and_port() {
        let node = json!({"net.liqo.io/gatewayNodeIP": "172.30.0.11"});
        let at = |address: &str, port: u16| Ok((address.to_owned(), port));
        assert_eq!(found(service("NodePort", node.clone(), json!([]))), at("172.30.0.11", 32205));
        assert_eq!(found(service("LoadBalancer", node.clone(), json!([{"ip": "1.2.3.4"}]))), at("1.2.3.4", 5871));
        let both = json!([{"ip": "1.2.3.4", "hostname": "a.b"}]);
        assert_eq!(found(service("LoadBalancer", json!({}), both)), at("1.2.3.4", 5871));
        assert_eq!(found(service("LoadBalancer", json!({}), json!([{"hostname": "a.b"}]))), at("a.b", 5871));
        let overridden = json!({"liqo.io/override-address": "https://rome.it/", "liqo.io/override-port": "443"});
        for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
            assert_eq!(found(service(kind, overridden.clone(), json!([]))), at("rome.it", 443), "{kind}");
        }
        let six = json!({"liqo.io/override-address": "[fd00::1]"});
        assert_eq!(found(service("NodePort", six, json!([]))), at("fd00::1", 32205));
        let port = json!({"net.liqo.io/gatewayNodeIP": "172.30.0.11", "liqo.io/override-port": "7000"});
        assert_eq!(found(service("NodePort", port, json!([]))), at("172.30.0.11", 7000));
    }

    #[test]
    fn what_peers_cannot_reach_says_why_and_what_to_do() {
        let none = || json!([]);
        let cases = [
            (service("ClusterIP", json!({}), none()), "Service of type ClusterIP: change liqo-gateway to NodePort"),
            (service("ExternalName", json!({}), none()), "Service of type ExternalName"),
            (service("NodePort", json!({}), none()), "no gateway is active yet"),
            (service("LoadBalancer", json!({}), none()), "has not given Service liqo-gateway an address yet"),
            (service("LoadBalancer", json!({"liqo.io/override-port": "0"}), json!([{"ip": "1.1.1.1"}])), "is no port"),
            (service("NodePort", json!({"liqo.io/override-address": "a b"}), none()), "is no host"),
            (service("NodePort", json!({"liqo.io/override-address": "rome/x"}), none()), "is no host"),
        ];
        for (service, expected) in cases {
            let why = found(service).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let mut no_node_port = service("NodePort", json!({"net.liqo.io/gatewayNodeIP": "172.30.0.11"}), none());
        no_node_port.spec.as_mut().unwrap().ports.as_mut().unwrap()[1].node_port = None;
        assert!(found(no_node_port).unwrap_err().contains("not been given a node port yet"));
        let node = [service("NodePort", json!({"net.liqo.io/gatewayNodeIP": "172.30.0.11"}), none())];
        let why = |services: &[Service], secrets: &[Secret]| endpoint(services, secrets).unwrap_err().why;
        assert!(why(&node, &[]).contains("has not made the Secret"));
        assert!(why(&node, &[secret("rubbish")]).contains("is no WireGuard key"));
        assert!(why(&[], &[secret(KEY)]).contains("there is no Service liqo-gateway"));
    }
}
