//! The pod of a virtual kubelet: with as little power as the pods of the chart.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector,
        PodSecurityContext, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
        SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use liqo_api::names;

use crate::args::KubeletArgs;

/// User and group of the image.
const USER: i64 = 1000;
/// Name of the port that answers health checks.
const HEALTH: &str = "healthz";
/// The port that answers health checks, the default of `--health-probe-address`.
const HEALTH_PORT: i32 = 8081;

pub(super) fn spec(args: &KubeletArgs, arguments: Vec<String>) -> PodSpec {
    let context = PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    };
    PodSpec {
        containers: vec![container(args, arguments)],
        service_account_name: Some(names::VIRTUAL_KUBELET.to_owned()),
        security_context: (!args.kubelet_platform_security_context).then_some(context),
        volumes: Some(vec![ipam_token()]),
        ..PodSpec::default()
    }
}

fn container(args: &KubeletArgs, arguments: Vec<String>) -> Container {
    let pod_ip = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "status.podIP".to_owned() };
    // A user who sets the address of the health checks also sets the probes.
    let health = !args.kubelet_extra_args.iter().any(|arg| arg.starts_with("--health-probe-address"));
    Container {
        name: names::VIRTUAL_KUBELET.to_owned(),
        image: Some(args.kubelet_image.clone()),
        command: Some(vec!["/usr/bin/virtual-kubelet".to_owned()]),
        args: Some(arguments),
        env: Some(vec![EnvVar {
            name: "POD_IP".to_owned(),
            value_from: Some(EnvVarSource { field_ref: Some(pod_ip), ..EnvVarSource::default() }),
            ..EnvVar::default()
        }]),
        ports: Some(
            [health.then(|| port(HEALTH, HEALTH_PORT)), metrics_port(args).map(|at| port("metrics", at))]
                .into_iter()
                .flatten()
                .collect(),
        ),
        readiness_probe: health.then(|| probe("/readyz")),
        liveness_probe: health.then(|| Probe {
            initial_delay_seconds: Some(10),
            period_seconds: Some(20),
            ..probe("/healthz")
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        // The last log lines of the container are its termination message.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        resources: Some(ResourceRequirements {
            requests: quantities(&args.kubelet_cpu_requests, &args.kubelet_ram_requests),
            limits: quantities(&args.kubelet_cpu_limits, &args.kubelet_ram_limits),
            ..ResourceRequirements::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: names::IPAM_AUDIENCE.to_owned(),
            mount_path: names::IPAM_TOKEN_DIRECTORY.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// The token the IPAM knows the virtual kubelet by, good for nothing else.
fn ipam_token() -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(names::IPAM_AUDIENCE.to_owned()),
        expiration_seconds: Some(3600),
        path: names::IPAM_TOKEN_FILE.to_owned(),
        ..ServiceAccountTokenProjection::default()
    };
    let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    let projected = ProjectedVolumeSource {
        sources: Some(vec![source]),
        default_mode: Some(0o644),
        ..ProjectedVolumeSource::default()
    };
    Volume { name: names::IPAM_AUDIENCE.to_owned(), projected: Some(projected), ..Volume::default() }
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str) -> Probe {
    let port = IntOrString::String(HEALTH.to_owned());
    let http_get = HTTPGetAction { path: Some(path.to_owned()), port, ..HTTPGetAction::default() };
    Probe { http_get: Some(http_get), ..Probe::default() }
}

pub(super) fn metrics_port(args: &KubeletArgs) -> Option<i32> {
    let port = args.kubelet_metrics_address.rsplit(':').next()?.parse().ok();
    port.filter(|_| args.kubelet_metrics_enabled)
}

fn quantities(cpu: &str, memory: &str) -> Option<BTreeMap<String, Quantity>> {
    let given = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, value)| !value.is_empty());
    let all: BTreeMap<_, _> = given.map(|(name, value)| (name.to_owned(), Quantity(value.to_owned()))).collect();
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::args::ManagerArgs;

    fn manager(flags: &[&str]) -> KubeletArgs {
        ManagerArgs::parse_from(["liqo-controller-manager", "--cluster-name=consumer"].iter().chain(flags)).kubelets
    }

    #[test]
    fn a_metrics_port_is_opened_only_when_metrics_are_served() {
        assert_eq!(metrics_port(&manager(&["--kubelet-metrics-address=:5872"])), None);
        let args = manager(&["--kubelet-metrics-address=:5872", "--kubelet-metrics-enabled=true"]);
        assert_eq!(metrics_port(&args), Some(5872));
    }

    #[test]
    fn it_runs_with_little_power() {
        let pod = json!(spec(&manager(&[]), vec![]));
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
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(
            volumes.iter().all(|one| one.get("projected").is_some()),
            "tenant namespaces are restricted: {volumes:?}"
        );
        assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "healthz"}));
        assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/healthz", "port": "healthz"}));
        assert_eq!(container["ports"][0], json!({"name": "healthz", "containerPort": 8081, "protocol": "TCP"}));
        let open = json!(spec(&manager(&["--kubelet-platform-security-context"]), vec![]));
        assert_eq!(open.get("securityContext"), None);
        let moved = json!(spec(&manager(&["--kubelet-extra-args=--health-probe-address=:9000"]), vec![]));
        assert_eq!(moved["containers"][0].get("livenessProbe"), None);
    }
}
