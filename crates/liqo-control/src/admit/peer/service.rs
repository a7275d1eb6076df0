//! A peer's Service of a type that opens it to the outside becomes a `ClusterIP`, unless the provider allows that type. Clients
//! in the namespace reach the Service as in the consumer's cluster; the Service takes no node port, external address or load
//! balancer of this cluster. (Liqo 0.8.3 reflects Services with their types.)

use liqo_core::door;
use serde_json::json;

use super::super::review::{Request, Verdict, text};

/// Types that a `ClusterIP` can stand for.
const OUTSIDE: &[&str] = &["LoadBalancer", "NodePort"];
/// Fields that only those have.
const FIELDS: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
];

/// The patch to a Service; `types` are the types allowed for peers. A Service stored earlier keeps its type.
pub(super) fn keep_inside(asked: &Request, types: &str) -> Verdict {
    let (was, is) = (text(&asked.old_object, "/spec/type"), text(&asked.object, "/spec/type"));
    let is_peer = asked.user_info.groups.iter().any(|group| group == door::GROUP);
    let is_given = types.split(' ').any(|one| one == is || one == "*");
    if !is_peer || is_given || was == is || !OUTSIDE.contains(&is) {
        return Verdict::allow();
    }
    let spec = &asked.object["spec"];
    let remove = |path: String| json!({"op": "remove", "path": path});
    let mut patch = vec![json!({"op": "replace", "path": "/spec/type", "value": "ClusterIP"})];
    patch.extend(FIELDS.iter().filter(|field| spec.get(field).is_some()).map(|field| remove(format!("/spec/{field}"))));
    let ports = spec["ports"].as_array().into_iter().flatten().enumerate();
    let numbered = ports.filter(|(_, port)| port.get("nodePort").is_some());
    patch.extend(numbered.map(|(index, _)| remove(format!("/spec/ports/{index}/nodePort"))));
    let warning = format!(
        "the Service becomes a ClusterIP: peerPolicy.allowedServiceTypes of this cluster does not contain {is}"
    );
    Verdict::Allow { patch, warnings: vec![warning] }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn asked(groups: &[&str], old: Value, new: Value) -> Request {
        let user = json!({"username": "09897b82", "groups": groups});
        serde_json::from_value(json!({"operation": "UPDATE", "object": new, "oldObject": old, "userInfo": user}))
            .unwrap()
    }

    fn service(kind: &str) -> Value {
        json!({"spec": {"type": kind, "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}]}})
    }

    fn is_changed(groups: &[&str], old: Value, new: Value, types: &str) -> bool {
        keep_inside(&asked(groups, old, new), types) != Verdict::allow()
    }

    #[test]
    fn only_new_services_of_peers_and_of_types_not_given() {
        let (peer, admin) = (&["liqo.io"][..], &["system:masters"][..]);
        for (groups, old, new, types, changed) in [
            (peer, Value::Null, "NodePort", "ClusterIP", true),
            (peer, Value::Null, "LoadBalancer", "ClusterIP NodePort", true),
            (peer, service("ClusterIP"), "LoadBalancer", "ClusterIP", true),
            (peer, service("NodePort"), "LoadBalancer", "", true),
            (peer, service("LoadBalancer"), "LoadBalancer", "ClusterIP", false),
            (peer, Value::Null, "NodePort", "ClusterIP NodePort", false),
            (peer, Value::Null, "NodePort", "*", false),
            (peer, Value::Null, "ClusterIP", "", false),
            (peer, Value::Null, "ExternalName", "", false),
            (admin, Value::Null, "NodePort", "ClusterIP", false),
        ] {
            assert_eq!(is_changed(groups, old.clone(), service(new), types), changed, "{old} {new} {types}");
        }
    }

    #[test]
    fn nothing_is_left_that_a_cluster_ip_cannot_have() {
        let mut object = service("LoadBalancer");
        for field in FIELDS {
            object["spec"][*field] = json!("x");
        }
        let verdict = keep_inside(&asked(&["liqo.io"], Value::Null, object.clone()), "ClusterIP");
        let Verdict::Allow { patch, warnings } = verdict else { panic!("denied") };
        assert!(warnings[0].contains("LoadBalancer"), "{warnings:?}");
        let patch: json_patch::Patch = serde_json::from_value(patch.into()).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}, {"port": 81}]}}));
    }
}
