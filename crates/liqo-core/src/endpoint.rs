//! Where peers find this cluster: the URLs of its authentication service and of its API server.

use std::{borrow::Borrow, net::IpAddr};

use k8s_openapi::api::core::v1::{Node, Service};
use liqo_api::meta::{annotation, label};

/// Port of an API server on a control plane node.
const API_SERVER_PORT: u16 = 6443;
/// Labels of control plane nodes.
pub const CONTROL_PLANE: [&str; 3] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master", "node-role.kubernetes.io/controlplane"];
/// Kinds of node addresses, the best for a peer first.
const PREFERENCE: [&str; 5] = ["ExternalDNS", "ExternalIP", "InternalDNS", "InternalIP", "Hostname"];

/// URL of the authentication service behind `service`, as peers should use it.
///
/// # Errors
/// A text that says why there is none.
pub fn auth_url(service: &Service, nodes: &[impl Borrow<Node>]) -> Result<String, String> {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP");
    let host = match override_of(service, annotation::OVERRIDE_ADDRESS) {
        Some(host) => bare_host(&host).to_owned(),
        None => host_of(service, kind, nodes)?,
    };
    let port = match override_of(service, annotation::OVERRIDE_PORT) {
        Some(port) => port,
        None => port_of(service, kind)?.to_string(),
    };
    Ok(if port == "443" { format!("https://{host}") } else { format!("https://{host}:{port}") })
}

/// URL of the API server: what the administrator says, else a control plane node.
///
/// # Errors
/// A text that says why there is none.
pub fn api_server_url(advertised: &str, nodes: &[impl Borrow<Node>]) -> Result<String, String> {
    if !advertised.is_empty() {
        let has_scheme = advertised.starts_with("https://");
        return Ok(if has_scheme { advertised.to_owned() } else { format!("https://{advertised}") });
    }
    let is_control_plane = |node: &&Node| {
        node.metadata.labels.as_ref().is_some_and(|labels| CONTROL_PLANE.iter().any(|key| labels.contains_key(*key)))
    };
    let real = sorted(nodes).into_iter().filter(|node| !is_virtual(node));
    let address = real.filter(is_control_plane).find_map(node_address);
    let address = address.ok_or(
        "no node is labelled as control plane (a managed cluster?): say how peers reach the API server with \
         --advertise-api-server-address (chart value apiServer.address)",
    )?;
    Ok(format!("https://{}:{API_SERVER_PORT}", bracketed(address)))
}

/// Why a URL that a cluster gives of itself is not that of an authentication service: `https://HOST[:PORT]`, as every
/// release of Liqo forms it, and nothing that leads elsewhere.
///
/// # Errors
/// A text that names the URL.
pub fn introduced_url(url: &str) -> Result<(), String> {
    let authority = url.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if authority.is_some_and(|authority| !authority.is_empty() && authority.chars().all(is_host)) {
        return Ok(());
    }
    let shown: String = url.chars().filter(|c| !c.is_control()).take(128).collect();
    Err(format!("the authentication URL {shown:?} must be https://HOST[:PORT], without user, path or query"))
}

fn override_of(service: &Service, key: &str) -> Option<String> {
    service.metadata.annotations.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned()
}

fn bare_host(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    text.trim_end_matches('/')
}

fn host_of(service: &Service, kind: &str, nodes: &[impl Borrow<Node>]) -> Result<String, String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).and_then(<[_]>::first);
    let published = ingress.and_then(|ingress| ingress.hostname.as_ref().or(ingress.ip.as_ref()));
    if let Some(host) = published.filter(|host| !host.is_empty()) {
        return Ok(bracketed(host));
    }
    if kind == "LoadBalancer" {
        return Err(format!(
            "the load balancer has not given Service {} an address yet; without a load balancer, use the \
             Service type NodePort or set the annotation {}",
            service.metadata.name.as_deref().unwrap_or_default(),
            annotation::OVERRIDE_ADDRESS
        ));
    }
    let address = sorted(nodes).into_iter().filter(|node| !is_virtual(node)).find_map(node_address);
    address.map(bracketed).ok_or_else(|| "no node has an address".to_owned())
}

fn port_of(service: &Service, kind: &str) -> Result<i32, String> {
    let port = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).and_then(<[_]>::first);
    let port = port.ok_or("the Service of the authentication endpoint has no port")?;
    match kind {
        "LoadBalancer" => Ok(port.port),
        "NodePort" => port.node_port.ok_or_else(|| "the Service has not been given a node port yet".to_owned()),
        other => Err(format!(
            "you cannot expose the Auth Service with a {other} Service. If you are using an Ingress, probably, \
             there are configuration issues"
        )),
    }
}

/// By name, so that the choice does not depend on the order in which nodes were listed.
fn sorted(nodes: &[impl Borrow<Node>]) -> Vec<&Node> {
    let mut nodes: Vec<&Node> = nodes.iter().map(Borrow::borrow).collect();
    nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    nodes
}

fn is_virtual(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(label::TYPE)).is_some_and(|value| value == label::VIRTUAL_NODE)
}

/// The best address of a node.
pub fn node_address(node: &Node) -> Option<&str> {
    let addresses = node.status.as_ref()?.addresses.as_deref().unwrap_or_default();
    let of_kind = |kind: &&str| addresses.iter().find(|one| one.type_ == **kind).map(|one| one.address.as_str());
    PREFERENCE.iter().find_map(of_kind)
}

/// Whether an address can belong to another cluster: an address that means each node itself, several machines or none cannot.
pub fn can_be_elsewhere(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let of_a_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(of_a_link || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

/// An IPv6 address in brackets, anything else as it is.
fn bracketed(host: impl AsRef<str>) -> String {
    let host = host.as_ref();
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, labels: Value, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        serde_json::from_value(
            json!({"metadata": {"name": name, "labels": labels}, "status": {"addresses": addresses}}),
        )
        .unwrap()
    }

    fn service(kind: &str, annotations: Value, ingress: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "liqo-auth", "annotations": annotations},
            "spec": {"type": kind, "ports": [{"port": 443, "nodePort": 32137}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    #[test]
    fn the_authentication_service_is_found() {
        let nodes = [
            node("a-virtual", json!({"liqo.io/type": "virtual-node"}), &[("InternalIP", "10.0.0.9")]),
            node("c1", json!({}), &[("Hostname", "c1"), ("InternalIP", "172.30.0.12")]),
        ];
        let url = |kind, annotations, ingress| auth_url(&service(kind, annotations, ingress), &nodes);
        assert_eq!(url("NodePort", json!({}), json!([])).unwrap(), "https://172.30.0.12:32137");
        assert_eq!(url("LoadBalancer", json!({}), json!([{"ip": "1.2.3.4"}])).unwrap(), "https://1.2.3.4");
        assert_eq!(url("LoadBalancer", json!({}), json!([{"hostname": "a.b"}])).unwrap(), "https://a.b");
        assert!(url("LoadBalancer", json!({}), json!([])).unwrap_err().contains("has not given Service liqo-auth"));
        let both = json!({"liqo.io/override-address": "https://rome.it/", "liqo.io/override-port": "8443"});
        assert_eq!(url("ClusterIP", both, json!([])).unwrap(), "https://rome.it:8443");
        let one = json!({"liqo.io/override-address": "rome.it"});
        assert!(url("ClusterIP", one, json!([])).unwrap_err().starts_with("you cannot expose the Auth Service with a"));
    }

    #[test]
    fn addresses_of_a_node_itself_are_nowhere_else() {
        let own = [
            "127.0.0.1",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "::",
            "::ffff:127.0.0.1",
        ];
        assert!(own.iter().all(|ip| !can_be_elsewhere(ip.parse().unwrap())));
        assert!(["10.0.0.1", "8.8.8.8", "fd00::1"].iter().all(|ip| can_be_elsewhere(ip.parse().unwrap())));
    }

    #[test]
    fn the_api_server_is_found() {
        let plane = json!({"node-role.kubernetes.io/control-plane": ""});
        let nodes = [
            node("w", json!({}), &[("InternalIP", "10.0.0.2")]),
            node("m", plane, &[("InternalIP", "10.0.0.1"), ("ExternalIP", "5.6.7.8")]),
            // The provider chooses the labels of its virtual node, so a virtual node never stands for the API server.
            node(
                "a-virtual",
                json!({"liqo.io/type": "virtual-node", "node-role.kubernetes.io/control-plane": ""}),
                &[("InternalIP", "10.0.0.9")],
            ),
        ];
        assert_eq!(api_server_url("", &nodes).unwrap(), "https://5.6.7.8:6443");
        assert_eq!(
            api_server_url(
                "",
                &[node("m", json!({"node-role.kubernetes.io/master": ""}), &[("InternalIP", "fd00::1")])]
            )
            .unwrap(),
            "https://[fd00::1]:6443"
        );
        assert_eq!(api_server_url("rome.it:443", &nodes[..0]).unwrap(), "https://rome.it:443");
        assert_eq!(api_server_url("https://rome.it", &nodes[..0]).unwrap(), "https://rome.it");
        assert!(api_server_url("", &nodes[..1]).unwrap_err().contains("--advertise-api-server-address"));
    }

    #[test]
    fn a_url_of_an_authentication_service_has_host_and_port_only() {
        for good in ["https://a.b", "https://a.b:30443", "https://10.0.0.1:443/", "https://[fd00::1]:443"] {
            assert_eq!(introduced_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "http://a.b",
            "https://",
            "https://a.b/any/path?x=",
            "https://a.b?x",
            "https://a.b#x",
            "https://user@a.b",
            "https://user:word@a.b",
            "https://a.b:443//",
            "https://a.b\n",
        ] {
            assert!(introduced_url(bad).is_err(), "{bad:?}");
        }
    }

    /// Whatever a cluster calls itself, its URL has a host, perhaps a port, and nothing else that a client would read.
    #[test]
    fn fuzz_introduced_urls() {
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "introduced_url", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match introduced_url(&text) {
                Ok(()) => {
                    let authority = text.strip_prefix("https://").expect("a URL of https");
                    let authority = authority.strip_suffix('/').unwrap_or(authority);
                    assert!(!authority.is_empty() && !authority.contains(['/', '@', '?', '#', '\\', '%', ' ']));
                }
                Err(why) => assert!(why.len() < 2048 && !why.contains(char::is_control)),
            }
        });
    }
}
