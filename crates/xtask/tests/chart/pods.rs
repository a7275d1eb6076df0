//! How pods run: their rights on a node, images, resources and places.

use serde_json::json;

use crate::{STATUS, args, with};

#[test]
fn pods_run_with_little_power() {
    let deployment = |name: &str| name.starts_with("Deployment/") && name != "Deployment/liqo-gateway";
    for (name, object) in with(&[STATUS]).iter().filter(|(name, _)| deployment(name)) {
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], name.trim_start_matches("Deployment/"), "{name}");
        assert_eq!(
            pod["securityContext"],
            json!({"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
                   "seccompProfile": {"type": "RuntimeDefault"}})
        );
        let container = &pod["containers"][0];
        assert_eq!(
            container["securityContext"],
            json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
        );
        assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "healthz"}));
        assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/healthz", "port": "healthz"}));
        let ports = container["ports"].as_array().expect("ports");
        assert!(ports.contains(&json!({"name": "healthz", "containerPort": 8081})), "{name}");
    }
    let open = with(&["--set=openshiftConfig.enable=true"]);
    assert_eq!(open["Deployment/liqo-auth"]["spec"]["template"]["spec"].get("securityContext"), None);
    let managers = args(&open, "liqo-controller-manager");
    assert!(managers.contains(&"--kubelet-platform-security-context".to_owned()), "virtual kubelets, too");
    let rules = open["ClusterRole/liqo-virtual-kubelet-cluster"]["rules"].as_array().expect("rules");
    assert_eq!(rules.last().map(|rule| rule["resourceNames"].clone()), Some(json!(["anyuid"])));
}

#[test]
fn the_gateway_is_sure_of_its_share_of_a_node() {
    let requests = |more: &[&str]| {
        with(more)["Deployment/liqo-gateway"]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
            .clone()
    };
    assert_eq!(requests(&[]), json!({"cpu": "100m", "memory": "32Mi"}));
    assert_eq!(requests(&["--set=gateway.pod.resources.requests.cpu=2"]), json!({"cpu": 2, "memory": "32Mi"}));
    assert_eq!(requests(&["--set=gateway.pod.resources.requests=null"]), json!(null));
}

#[test]
fn images() {
    let objects = with(&[
        "--set=image=localhost/liqo,tag=dev,auth.imageName=localhost/auth,crdReplicator.imageName=r@sha256:0,virtualKubelet.imageName=vk",
    ]);
    let image = |name: &str| {
        objects[&format!("Deployment/{name}")]["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    assert_eq!(image("liqo-controller-manager"), "localhost/liqo:dev");
    assert_eq!(image("liqo-auth"), "localhost/auth:dev");
    assert_eq!(image("liqo-crd-replicator"), "r@sha256:0");
    assert!(args(&objects, "liqo-controller-manager").contains(&"--kubelet-image=vk:dev".to_owned()));
}

#[test]
fn pods_are_placed_as_the_values_say() {
    let objects = with(&[
        "--set=common.nodeSelector.zone=a,common.tolerations[0].operator=Exists",
        "--set=common.affinity.podAffinity.x=y,controllerManager.replicas=3,crdReplicator.pod.labels.a=b",
    ]);
    let pod = |name: &str| &objects[&format!("Deployment/{name}")]["spec"]["template"];
    for name in ["liqo-auth", "liqo-controller-manager", "liqo-crd-replicator"] {
        let spec = &pod(name)["spec"];
        assert_eq!(
            (&spec["nodeSelector"], &spec["tolerations"]),
            (&json!({"zone": "a"}), &json!([{"operator": "Exists"}]))
        );
        assert_eq!(spec["affinity"]["podAffinity"], json!({"x": "y"}), "{name}");
        assert_eq!(spec["affinity"].get("podAntiAffinity").is_some(), name == "liqo-controller-manager");
    }
    assert_eq!(pod("liqo-crd-replicator")["metadata"]["labels"]["a"], "b");
}
