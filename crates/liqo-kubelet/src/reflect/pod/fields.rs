//! Which fields of a pod travel, which do not, and what the user is told about those that do not.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// The fields that mean the same in every cluster. Every field is decided: a field that a new version of Kubernetes brings
/// stops the build here.
pub(super) fn carried(spec: &PodSpec) -> PodSpec {
    let PodSpec {
        // Carried over.
        active_deadline_seconds,
        dns_config,
        dns_policy,
        enable_service_links,
        host_users,
        hostname,
        hostname_override,
        image_pull_secrets,
        os,
        readiness_gates,
        resources,
        restart_policy,
        security_context,
        set_hostname_as_fqdn,
        share_process_namespace,
        subdomain,
        termination_grace_period_seconds,
        topology_spread_constraints,
        // Forged by others of this module's neighbours.
        affinity: _,
        automount_service_account_token: _,
        containers: _,
        host_aliases: _,
        init_containers: _,
        tolerations: _,
        volumes: _,
        // Said their part when the pod was bound to the virtual node, or follow from a class of this cluster.
        node_name: _,
        node_selector: _,
        overhead: _,
        preemption_policy: _,
        priority: _,
        scheduler_name: _,
        scheduling_gates: _,
        scheduling_group: _,
        // Accounts stay here; their tokens travel in a Secret.
        service_account: _,
        service_account_name: _,
        // Left out, see `left_out` and `unheeded`.
        ephemeral_containers: _,
        eviction_responders: _,
        host_ipc: _,
        host_network: _,
        host_pid: _,
        priority_class_name: _,
        resource_claims: _,
        runtime_class_name: _,
    } = spec.clone();
    PodSpec {
        active_deadline_seconds,
        dns_config,
        dns_policy,
        enable_service_links,
        // A user namespace of its own is a wish; the host's is what a pod has without one.
        host_users: host_users.filter(|host| !host),
        hostname,
        hostname_override,
        image_pull_secrets,
        os,
        readiness_gates,
        resources,
        restart_policy,
        security_context,
        set_hostname_as_fqdn,
        share_process_namespace,
        subdomain,
        termination_grace_period_seconds,
        topology_spread_constraints,
        ..PodSpec::default()
    }
}

/// Fields the user set that the pod there does not have, in one sentence; `None`: there are none.
pub(super) fn left_out(spec: &PodSpec) -> Option<String> {
    let is_named = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    let fields = [
        ("evictionResponders", spec.eviction_responders.as_ref().is_some_and(|all| !all.is_empty())),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("hostNetwork", spec.host_network == Some(true)),
        ("hostPID", spec.host_pid == Some(true)),
        ("priorityClassName", is_named(&spec.priority_class_name)),
        ("resourceClaims", spec.resource_claims.as_ref().is_some_and(|all| !all.is_empty())),
        ("runtimeClassName", is_named(&spec.runtime_class_name)),
    ];
    let set: Vec<_> = fields.into_iter().filter(|(_, set)| *set).map(|(name, _)| format!("spec.{name}")).collect();
    (!set.is_empty()).then(|| {
        format!(
            "the pod there is made without {}: the virtual kubelet of this cluster never sends that",
            set.join(", ")
        )
    })
}

/// Changes of a pod that its twin does not follow, each in a sentence.
pub(super) fn unheeded(here: &PodSpec, there: &PodSpec) -> Vec<String> {
    let mut all = Vec::new();
    let debuggers: Vec<_> = here.ephemeral_containers.iter().flatten().map(|one| format!("{:?}", one.name)).collect();
    if !debuggers.is_empty() {
        all.push(format!("ephemeral containers are not started there: {}", debuggers.join(", ")));
    }
    let twins: Vec<_> = containers(there).collect();
    let is_resized = |one: &&Container| {
        twins.iter().any(|twin| twin.name == one.name && !same(one.resources.as_ref(), twin.resources.as_ref()))
    };
    let mut resized: Vec<_> = containers(here).filter(is_resized).map(|one| format!("{:?}", one.name)).collect();
    if !same(here.resources.as_ref(), there.resources.as_ref()) {
        resized.push("the pod".to_owned());
    }
    if !resized.is_empty() {
        all.push(format!("resources are not changed there while the pod runs: {}", resized.join(", ")));
    }
    all
}

/// Whether two wishes for resources are the same; none is as good as an empty one.
fn same<T: Default + PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    let none = T::default();
    one.unwrap_or(&none) == other.unwrap_or(&none)
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Whether a twin without the UID of its original can be that of this pod. Kubernetes gives the volume with a pod's tokens
/// a name of its own, so another pod of the same name has another volume.
pub(super) fn fits(here: &Pod, there: &PodSpec) -> bool {
    let none = PodSpec::default();
    let here = here.spec.as_ref().unwrap_or(&none);
    let names = |spec: &PodSpec| containers(spec).map(|one| one.name.clone()).collect::<BTreeSet<_>>();
    let volumes = |spec: &PodSpec| spec.volumes.iter().flatten().map(|one| one.name.clone()).collect::<BTreeSet<_>>();
    names(here) == names(there) && volumes(there).is_subset(&volumes(here))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        let mut value = value;
        value["containers"] = json!([{"name": "c", "resources": {"limits": {"cpu": "1"}}}]);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn fields_of_every_cluster_travel() {
        for (field, value) in [
            ("resources", json!({"limits": {"cpu": "1", "memory": "64Mi"}})),
            ("readinessGates", json!([{"conditionType": "example.org/gate"}])),
            ("hostUsers", json!(false)),
            ("hostnameOverride", json!("a.b")),
            ("os", json!({"name": "linux"})),
            ("securityContext", json!({"runAsUser": 1})),
            (
                "topologySpreadConstraints",
                json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
            ),
        ] {
            let twin = serde_json::to_value(carried(&spec(json!({field: value})))).unwrap();
            assert_eq!(twin[field], value, "{field}");
        }
        let twin = serde_json::to_value(carried(&spec(json!({"hostUsers": true})))).unwrap();
        assert_eq!(twin["hostUsers"], Value::Null, "what is no wish is not sent");
    }

    #[test]
    fn fields_the_user_set_are_not_left_out_in_silence() {
        for (field, value, told) in [
            ("hostNetwork", json!(true), true),
            ("hostNetwork", json!(false), false),
            ("hostPID", json!(true), true),
            ("hostIPC", json!(true), true),
            ("runtimeClassName", json!("gvisor"), true),
            ("runtimeClassName", json!(""), false),
            ("priorityClassName", json!("high"), true),
            ("resourceClaims", json!([{"name": "gpu"}]), true),
            ("nodeSelector", json!({"a": "b"}), false),
            ("schedulerName", json!("default-scheduler"), false),
            ("serviceAccountName", json!("robot"), false),
        ] {
            let text = left_out(&spec(json!({field: value})));
            assert_eq!(text.is_some_and(|text| text.contains(field)), told, "{field}");
        }
    }

    #[test]
    fn changes_that_are_not_followed_are_known() {
        let there = spec(json!({}));
        assert!(unheeded(&there, &there).is_empty());
        let debugged = spec(json!({"ephemeralContainers": [{"name": "debugger"}]}));
        assert!(unheeded(&debugged, &there).concat().contains("\"debugger\""));
        let mut resized = there.clone();
        resized.containers[0].resources = None;
        assert!(unheeded(&resized, &there).concat().contains("\"c\""));
        let whole = spec(json!({"resources": {"limits": {"cpu": "2"}}}));
        assert!(unheeded(&whole, &there).concat().contains("the pod"));
        let unlimited: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
        let empty: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c", "resources": {}}]})).unwrap();
        assert!(unheeded(&empty, &unlimited).is_empty(), "nothing is nothing");
    }

    #[test]
    fn a_pod_is_known_by_its_containers_and_volumes() {
        let pod = |containers: &[&str], volumes: &[&str]| -> Pod {
            let named = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
            serde_json::from_value(json!({"spec": {"containers": named(containers), "volumes": named(volumes)}}))
                .unwrap()
        };
        let here = pod(&["a", "b"], &["data", "kube-api-access-hm45r"]);
        for (containers, volumes, fitting) in [
            (&["a", "b"][..], &["data", "kube-api-access-hm45r"][..], true),
            (&["b", "a"], &["data"], true),
            (&["a", "b"], &["data", "kube-api-access-xxxxx"], false),
            (&["a"], &["data"], false),
        ] {
            let there = pod(containers, volumes).spec.unwrap();
            assert_eq!(fits(&here, &there), fitting, "{containers:?} {volumes:?}");
        }
    }
}
