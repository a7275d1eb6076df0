//! Services, Ingresses, endpoints and claims of a peer that reach beyond the namespace made for it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::raid::{Raid, never, text};

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let there = peer.offloaded(rome)?;
    let object = |api: &str, kind: &str, name: &str, fields: &Value| {
        let mut labels = json!({"virtualkubelet.liqo.io/origin": peer.id});
        if kind == "ShadowEndpointSlice" {
            labels["endpointslice.kubernetes.io/managed-by"] = json!("endpointslice.reflection.liqo.io");
            labels["kubernetes.io/service-name"] = json!(name);
        }
        let metadata = json!({"name": name, "namespace": there, "labels": labels});
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": metadata});
        for (key, value) in fields.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object.to_string()
    };
    let ports = json!([{"port": 53, "protocol": "UDP"}]);
    // Objects that every peer writes, and that must be allowed.
    let plain = object("v1", "Service", "plain", &json!({"spec": {"ports": ports, "selector": {"app": "plain"}}}));
    peer.tries(&plain)?.done("a Service like any")?;
    let settings = object("v1", "ConfigMap", "plain", &json!({"data": {"a": "b"}}));
    peer.tries(&settings)?.done("a ConfigMap like any")?;
    let foreign = json!({"metadata": {"labels": {"virtualkubelet.liqo.io/origin": raid.milan.id}}});
    peer.patches(&there, &["configmap", "plain"], &foreign)?.refused("what is reflected gets another origin");

    for (what, spec) in [
        ("external", json!({"ports": ports, "externalIPs": [rome.dns_ip(), "8.8.8.8"]})),
        ("name", json!({"type": "ExternalName", "externalName": "kubernetes.default.svc"})),
    ] {
        peer.tries(&object("v1", "Service", what, &json!({"spec": spec})))?.refused(what);
    }
    // A consumer's Services keep their type in its own cluster; in rome such a Service becomes a ClusterIP.
    for (name, kind) in [("balancer", "LoadBalancer"), ("node-port", "NodePort")] {
        peer.tries(&object("v1", "Service", name, &json!({"spec": {"ports": ports, "type": kind}})))?.done(name)?;
        let spec = rome.json(&["service", name, "-n", &there])?["spec"].take();
        let took = spec["type"] != "ClusterIP" || spec["ports"][0].get("nodePort").is_some();
        ensure!(!took, "a Service of type {kind} is {spec}");
        peer.runs(&["delete", "service", "-n", &there, name, "--wait=false"])?.done("its own")?;
    }
    let later = json!({"spec": {"externalIPs": [rome.dns_ip()]}});
    peer.patches(&there, &["service", "plain"], &later)?.refused("external addresses are added later");

    let backend = json!({"service": {"name": "plain", "port": {"number": 53}}});
    let rule = json!({"host": "shop.rome.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    let ingress = json!({"spec": {"rules": [rule]}});
    peer.tries(&object("networking.k8s.io/v1", "Ingress", "host", &ingress))?.refused("the host of somebody else");
    let claim = json!({"spec": {"volumeName": "somebodys", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    peer.tries(&object("v1", "PersistentVolumeClaim", "claim", &claim))?.refused("the volume of somebody else");
    let labels = json!({"virtualkubelet.liqo.io/origin": peer.id});
    // Kubernetes prefers this class to the one in the specification; the empty class takes volumes made by hand.
    let class = json!({"volume.beta.kubernetes.io/storage-class": ""});
    let mut annotated = claim.clone();
    annotated["spec"].as_object_mut().and_then(|spec| spec.remove("volumeName"));
    annotated["metadata"] = json!({"name": "claim", "namespace": there, "labels": labels, "annotations": class});
    peer.tries(&object("v1", "PersistentVolumeClaim", "claim", &annotated))?.refused("a class in an annotation");
    let token = json!({"type": "kubernetes.io/service-account-token", "metadata": {
        "name": "token", "namespace": there, "labels": {"virtualkubelet.liqo.io/origin": peer.id},
        "annotations": {"kubernetes.io/service-account.name": "default"}}});
    peer.tries(&object("v1", "Secret", "token", &token))?.refused("a token of this cluster");
    for (what, patch) in [
        ("a finalizer", json!({"metadata": {"finalizers": ["turin.example/never"]}})),
        (
            "an owner",
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": "y"}]}}),
        ),
    ] {
        peer.patches(&there, &["service", "plain"], &patch)?.refused(what);
    }
    slices(raid, &there, &object)?;
    for kind in ["service", "configmap"] {
        peer.runs(&["delete", kind, "-n", &there, "plain", "--wait=false"])?.done("its own")?;
    }
    Ok(())
}

/// Endpoints outside of the peer's networks are refused, or no slice is made of them.
fn slices(raid: &Raid, there: &str, object: &dyn Fn(&str, &str, &str, &Value) -> String) -> Result<()> {
    let (rome, peer) = (raid.rome(), &raid.turin);
    let web = rome.json(&["pods", "-n", "shop", "-l", "app=client"])?;
    let foreign =
        [rome.node_ip(), "169.254.169.254".to_owned(), rome.dns_ip(), text(&web, "/items/0/status/podIP").to_owned()];
    for (number, address) in foreign.iter().enumerate() {
        let endpoints = json!([{"addresses": [address], "conditions": {"ready": true}}]);
        let template =
            json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 6443, "protocol": "TCP"}]});
        let spec = json!({"spec": {"template": template}});
        let api = "virtualkubelet.liqo.io/v1alpha1";
        // Either the door refuses the object, or the controller makes no EndpointSlice of it.
        let _ = peer.tries(&object(api, "ShadowEndpointSlice", &format!("slice-{number}"), &spec))?;
    }
    never("endpoints that are not the peer's", || {
        let slices = rome.items(&["endpointslices", "-n", there])?;
        let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        let addresses = endpoints.filter_map(|one| one["addresses"].as_array()).flatten();
        Ok(addresses
            .filter_map(Value::as_str)
            .filter(|one| foreign.iter().any(|f| f == one))
            .map(str::to_owned)
            .collect())
    })?;
    peer.runs(&["delete", "shadowendpointslices", "-n", there, "--all", "--wait=false"])?
        .done("its own slices")
        .map(drop)
}
