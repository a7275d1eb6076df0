//! `Service` to `Service`. Addresses and node ports are given anew there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use kube::ResourceExt;
use liqo_api::meta::annotation;
use liqo_kube::twin::{Forged, Reflect};

use super::{
    Cx,
    complaint::{self, Complain},
    twin_meta::{SKIPPED, is_skipped, metadata},
};
use crate::link::Link;

#[derive(Clone)]
pub(super) struct Services {
    link: Arc<Link>,
    /// The namespace here and there.
    namespaces: (String, String),
    complain: Complain<Service>,
}

impl Services {
    /// Reflects Services of the namespace `here` of the own cluster into the namespace `there` of the other cluster.
    pub(super) fn new(cx: &Cx, here: &str, there: &str) -> Self {
        let complain = complaint::by_event(&cx.home, "Service", complaint::INCOMPLETE);
        Self { link: Arc::clone(&cx.link), namespaces: (here.to_owned(), there.to_owned()), complain }
    }

    #[cfg(test)]
    fn example() -> Self {
        let namespaces = ("demo".to_owned(), "demo-there".to_owned());
        Self { link: Arc::new(Link::example()), namespaces, complain: Arc::new(|_, _| {}) }
    }
}

/// Whether a Service is the own API server, which must not appear elsewhere.
pub(super) fn is_api_server(namespace: Option<&str>, name: &str) -> bool {
    namespace == Some("default") && name == "kubernetes"
}

impl Reflect for Services {
    const NAME: &'static str = "service";
    type Here = Service;
    type There = Service;
    type Seen = Service;
    const RECORD: Option<&'static str> = Some(annotation::ORIGINAL_UID);
    /// A Service with an address never becomes one without (`None`), nor the other way round.
    const IMMUTABLE: &'static [&'static str] = &["/spec/clusterIP"];

    fn look(&self, name: &str, here: Option<&Service>, there: Option<&Service>, _seen: Option<&Service>) {
        let peer = &self.link.there.cluster_name;
        let lacks = here.filter(|here| !is_skipped(*here)).and_then(|here| {
            let spec = here.spec.as_ref()?;
            let text = match there {
                // Told when the twin is made, not after each restart.
                None => format!(
                    "Service is reflected to cluster \"{peer}\" without {}: the virtual kubelet of this cluster never sends that",
                    left_out(spec)?
                ),
                Some(there) => format!(
                    "Cluster \"{peer}\" has made the Service a ClusterIP: peerPolicy.allowedServiceTypes of cluster \
                     \"{peer}\" does not contain {}",
                    downgraded(spec, there.spec.as_ref().filter(|_| self.ours(there))?)?
                ),
            };
            Some((here, text))
        });
        if here.is_none() || lacks.is_some() {
            (self.complain)(name, lacks);
        }
    }

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
        let mut spec = here.spec.clone().map(|spec| twin_spec(spec, taken, force));
        if let Some(name) = spec.as_mut().and_then(|spec| spec.external_name.as_mut()) {
            *name = name_there(name, &self.namespaces);
        }
        Forged::Make(Box::new(Service { metadata: metadata(here, &self.link), spec, status: None }))
    }

    fn ours(&self, there: &Service) -> bool {
        self.link.made(there)
    }
}

/// The name there of what a Service of the type `ExternalName` stands for: a Service of the same namespace, or a pod behind it, has
/// another name there, since the name contains the namespace. Every other name stays.
fn name_there(name: &str, (here, there): &(String, String)) -> String {
    let mut parts: Vec<_> = name.split('.').collect();
    match parts[..] {
        [_, namespace, "svc", ref domain @ ..] if namespace == here && is_of_cluster(domain) => parts[1] = there,
        [_, _, namespace, "svc", ref domain @ ..] if namespace == here && is_of_cluster(domain) => parts[2] = there,
        _ => {}
    }
    parts.join(".")
}

/// Whether the end of a name, after `svc`, is that of a cluster: nothing, or the domain that clusters have by default.
fn is_of_cluster(domain: &[&str]) -> bool {
    matches!(domain, [] | ["cluster", "local"] | ["cluster", "local", ""])
}

/// The specification of the twin. `taken` are the ports the twin has now. Every field is decided: a field that a new
/// version of Kubernetes brings stops the build here.
fn twin_spec(spec: ServiceSpec, taken: &[ServicePort], force: bool) -> ServiceSpec {
    let ServiceSpec {
        // Carried over.
        allocate_load_balancer_node_ports,
        external_name,
        external_traffic_policy,
        internal_traffic_policy,
        ip_family_policy,
        load_balancer_class,
        load_balancer_source_ranges,
        publish_not_ready_addresses,
        selector,
        session_affinity,
        session_affinity_config,
        traffic_distribution,
        type_,
        // Forged.
        cluster_ip,
        ports,
        // Given by each cluster itself.
        cluster_ips: _,
        health_check_node_port: _,
        ip_families: _,
        // Left out, see `left_out`.
        external_ips: _,
        load_balancer_ip: _,
    } = spec;
    ServiceSpec {
        allocate_load_balancer_node_ports,
        external_name,
        external_traffic_policy,
        internal_traffic_policy,
        ip_family_policy,
        load_balancer_class,
        load_balancer_source_ranges,
        publish_not_ready_addresses,
        selector,
        session_affinity,
        session_affinity_config,
        traffic_distribution,
        type_,
        cluster_ip: cluster_ip.filter(|ip| ip == "None"),
        ports: ports.map(|ports| ports.into_iter().map(|port| twin_port(port, taken, force)).collect()),
        cluster_ips: None,
        health_check_node_port: None,
        ip_families: None,
        external_ips: None,
        load_balancer_ip: None,
    }
}

/// The type of a Service that the provider did not take: what opens a Service to the outside, it made a `ClusterIP`.
fn downgraded<'a>(here: &'a ServiceSpec, there: &ServiceSpec) -> Option<&'a str> {
    let wanted = here.type_.as_deref().filter(|wanted| ["LoadBalancer", "NodePort"].contains(wanted))?;
    (there.type_.as_deref() == Some("ClusterIP")).then_some(wanted)
}

/// Fields of a Service that mean addresses of this cluster and are set by the user; `None`: there are none.
fn left_out(spec: &ServiceSpec) -> Option<String> {
    let fields = [
        ("spec.externalIPs", spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty())),
        ("spec.loadBalancerIP", spec.load_balancer_ip.as_ref().is_some_and(|ip| !ip.is_empty())),
    ];
    let set: Vec<_> = fields.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    (!set.is_empty()).then(|| set.join(", "))
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
        let Forged::Make(twin) = Services::example().forge(here, there) else { panic!("reflected") };
        serde_json::to_value(twin).unwrap()
    }

    #[test]
    fn what_the_other_cluster_allocates_is_left_out() {
        let here = service(json!({"metadata": {"name": "web", "namespace": "demo"}, "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "selector": {"app": "web"},
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "trafficDistribution": "PreferClose", "loadBalancerIP": "", "externalIPs": ["1.2.3.4"], "healthCheckNodePort": 30000,
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "h2c", "nodePort": 30080}],
        }}));
        assert_eq!(
            forged(&here, None)["spec"],
            json!({
                "type": "NodePort", "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
                "selector": {"app": "web"}, "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "trafficDistribution": "PreferClose",
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "h2c"}],
            })
        );
    }

    #[test]
    fn fields_the_user_set_are_not_left_out_in_silence() {
        for (spec, told) in [
            (json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "healthCheckNodePort": 1}), None),
            (json!({"externalIPs": [], "loadBalancerIP": ""}), None),
            (json!({"externalIPs": ["1.2.3.4"]}), Some("spec.externalIPs")),
            (
                json!({"externalIPs": ["1.2.3.4"], "loadBalancerIP": "1.2.3.4"}),
                Some("spec.externalIPs, spec.loadBalancerIP"),
            ),
        ] {
            assert_eq!(left_out(&serde_json::from_value(spec).unwrap()).as_deref(), told);
        }
    }

    #[test]
    fn a_service_that_the_provider_keeps_inside_is_told_with_the_value_that_decides() {
        let told = Arc::new(std::sync::Mutex::new(None));
        let last = Arc::clone(&told);
        let complain: Complain<Service> =
            Arc::new(move |_, complaint| *last.lock().unwrap() = complaint.map(|(_, text)| text));
        let services = Services { complain, ..Services::example() };
        let of = |kind: &str| service(json!({"metadata": {"name": "web"}, "spec": {"type": kind}}));
        for (here, there, is_told) in [
            ("LoadBalancer", "ClusterIP", true),
            ("NodePort", "ClusterIP", true),
            ("NodePort", "NodePort", false),
            ("ClusterIP", "ClusterIP", false),
            ("ExternalName", "ClusterIP", false),
        ] {
            let mut twin = of(there);
            twin.metadata.labels = Some(Link::example().labels());
            *told.lock().unwrap() = None;
            services.look("web", Some(&of(here)), Some(&twin), None);
            let text = told.lock().unwrap().take();
            assert_eq!(text.is_some(), is_told, "{here} {there}: {text:?}");
            let wanted =
                format!("peerPolicy.allowedServiceTypes of cluster \"{}\"", Link::example().there.cluster_name);
            assert!(text.is_none_or(|text| text.contains(&wanted) && text.ends_with(here)), "{here}");
        }
    }

    #[test]
    fn an_external_name_of_the_namespace_is_that_of_the_namespace_there() {
        for (name, there) in [
            ("web.demo.svc.cluster.local", "web.demo-there.svc.cluster.local"),
            ("web.demo.svc", "web.demo-there.svc"),
            ("db-0.db.demo.svc.cluster.local", "db-0.db.demo-there.svc.cluster.local"),
            ("web.other.svc.cluster.local", "web.other.svc.cluster.local"),
            ("demo.svc.example.org", "demo.svc.example.org"),
            ("web.demo.svc.example.org", "web.demo.svc.example.org"),
            ("web.demo.example.org", "web.demo.example.org"),
            ("example.org", "example.org"),
        ] {
            let here = service(json!({"metadata": {"name": "a", "namespace": "demo"},
                "spec": {"type": "ExternalName", "externalName": name}}));
            assert_eq!(forged(&here, None)["spec"]["externalName"], there, "{name}");
        }
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
        assert_eq!(Services::example().forge(&own, None), Forged::Nothing(None));
    }
}
