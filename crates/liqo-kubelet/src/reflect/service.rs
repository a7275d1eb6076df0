//! `Service` to `Service`. Addresses and node ports are given anew there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use kube::ResourceExt;
use liqo_api::meta::annotation;
use liqo_kube::twin::{Forged, Reflect};

use super::twin_meta::{SKIPPED, is_skipped, metadata};
use crate::link::Link;

#[derive(Clone)]
pub(super) struct Services(pub(super) Arc<Link>);

/// Whether a Service is the own API server, which must not appear elsewhere.
pub(super) fn is_api_server(namespace: Option<&str>, name: &str) -> bool {
    namespace == Some("default") && name == "kubernetes"
}

impl Reflect for Services {
    const NAME: &'static str = "service";
    type Here = Service;
    type There = Service;
    type Seen = Service;

    fn forge(&self, here: &Service, there: Option<&Service>) -> Forged<Service> {
        if is_api_server(here.namespace().as_deref(), &here.name_any()) {
            return Forged::Nothing(None);
        }
        if is_skipped(here) {
            return Forged::Nothing(Some(SKIPPED.to_owned()));
        }
        let force = here.annotations().get(annotation::FORCE_REMOTE_NODE_PORT).is_some_and(|value| value == "true");
        let taken =
            there.and_then(|there| there.spec.as_ref()).and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let spec = here.spec.clone().map(|spec| twin_spec(spec, taken, force));
        Forged::Make(Box::new(Service { metadata: metadata(here, &self.0), spec, status: None }))
    }

    fn ours(&self, there: &Service) -> bool {
        self.0.made(there)
    }
}

/// `taken` are the ports the twin has now.
fn twin_spec(spec: ServiceSpec, taken: &[ServicePort], force: bool) -> ServiceSpec {
    ServiceSpec {
        type_: spec.type_,
        selector: spec.selector,
        external_name: spec.external_name,
        external_traffic_policy: spec.external_traffic_policy,
        internal_traffic_policy: spec.internal_traffic_policy,
        ip_family_policy: spec.ip_family_policy,
        load_balancer_class: spec.load_balancer_class,
        load_balancer_source_ranges: spec.load_balancer_source_ranges,
        publish_not_ready_addresses: spec.publish_not_ready_addresses,
        session_affinity: spec.session_affinity,
        allocate_load_balancer_node_ports: spec.allocate_load_balancer_node_ports,
        cluster_ip: spec.cluster_ip.filter(|ip| ip == "None"),
        ports: spec.ports.map(|ports| ports.into_iter().map(|port| twin_port(port, taken, force)).collect()),
        ..ServiceSpec::default()
    }
}

fn twin_port(port: ServicePort, taken: &[ServicePort], force: bool) -> ServicePort {
    let there = taken.iter().find(|other| other.port == port.port && other.protocol == port.protocol);
    let node_port = match (port.node_port.unwrap_or_default(), there.and_then(|there| there.node_port)) {
        // Without a node port here the twin must not keep the one it has from earlier.
        (0, Some(1..)) => Some(0),
        (0, _) => None,
        (number, _) => force.then_some(number),
    };
    ServicePort { node_port, ..port }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(value: serde_json::Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    fn forged(here: &Service, there: Option<&Service>) -> serde_json::Value {
        let Forged::Make(twin) = Services(Arc::new(Link::example())).forge(here, there) else { panic!("reflected") };
        serde_json::to_value(twin).unwrap()
    }

    #[test]
    fn what_the_other_cluster_allocates_is_left_out() {
        let here = service(json!({"metadata": {"name": "web", "namespace": "demo"}, "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "selector": {"app": "web"},
            "sessionAffinity": "None", "externalIPs": ["1.2.3.4"], "healthCheckNodePort": 30000,
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "h2c", "nodePort": 30080}],
        }}));
        assert_eq!(
            forged(&here, None)["spec"],
            json!({
                "type": "NodePort", "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
                "selector": {"app": "web"}, "sessionAffinity": "None",
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "h2c"}],
            })
        );
    }

    #[test]
    fn node_ports_absent_forced_and_taken_back() {
        let with = |port, force: &str| {
            service(json!({"metadata": {"name": "web", "annotations": {"liqo.io/force-remote-node-port": force}},
                "spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": port}]}}))
        };
        let port =
            |here: &Service, there: Option<&Service>| forged(here, there)["spec"]["ports"][0]["nodePort"].clone();
        assert_eq!(port(&with(30080, "false"), None), json!(null));
        assert_eq!(port(&with(30080, "true"), None), json!(30080));
        assert_eq!(port(&with(0, "true"), None), json!(null));
        assert_eq!(port(&with(0, ""), Some(&with(31000, ""))), json!(0));
        assert_eq!(port(&with(0, ""), Some(&with(0, ""))), json!(null));
    }

    #[test]
    fn headless_stays_headless_and_the_api_server_stays_here() {
        let headless = service(json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"clusterIP": "None"}}));
        assert_eq!(forged(&headless, None)["spec"]["clusterIP"], json!("None"));
        let own = service(json!({"metadata": {"name": "kubernetes", "namespace": "default"}}));
        assert_eq!(Services(Arc::new(Link::example())).forge(&own, None), Forged::Nothing(None));
    }
}
