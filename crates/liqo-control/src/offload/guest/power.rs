//! Fields that give a pod control over its node. Pod Security `baseline` refuses these fields of the pod where the namespace
//! has its labels; this module refuses the `ShadowPod` before, so that the consumer gets the reason.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, PodSpec, SecurityContext, TCPSocketAction};

use super::{containers, quoted};

/// Capabilities a container may add, those of Pod Security `baseline`.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel parameters that belong to the namespaces of the pod: the list of Pod Security `baseline`.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

pub(super) fn check(pod: &PodSpec, all: &mut Vec<String>) {
    let yes = |flag: Option<bool>| flag == Some(true);
    for (name, set) in [
        ("hostNetwork", yes(pod.host_network)),
        ("hostPID", yes(pod.host_pid)),
        ("hostIPC", yes(pod.host_ipc)),
        ("hostUsers", yes(pod.host_users)),
    ] {
        if set {
            all.push(format!("{name}: pods of peers do not share namespaces with a node"));
        }
    }
    let context = pod.security_context.as_ref();
    for sysctl in context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten() {
        if !SYSCTLS.contains(&sysctl.name.as_str()) {
            all.push(format!("sysctl {}: not the pod's own", quoted(&sysctl.name)));
        }
    }
    if context.and_then(|context| context.windows_options.as_ref()).is_some_and(|one| yes(one.host_process)) {
        all.push("hostProcess: pods of peers do not run on a node itself".to_owned());
    }
    for container in containers(pod) {
        check_container(container, all);
    }
}

fn check_container(container: &Container, all: &mut Vec<String>) {
    let name = quoted(&container.name);
    if container.ports.iter().flatten().any(|port| port.host_port.is_some_and(|port| port != 0)) {
        all.push(format!("container {name}: hostPort is a port of a node"));
    }
    if asks_elsewhere(container) {
        all.push(format!(
            "container {name}: host in a probe or hook: the node would ask another address than the pod's"
        ));
    }
    let Some(context) = &container.security_context else { return };
    if context.privileged == Some(true) {
        all.push(format!("container {name}: privileged"));
    }
    if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        all.push(format!("container {name}: procMount other than Default"));
    }
    if context.windows_options.as_ref().is_some_and(|one| one.host_process == Some(true)) {
        all.push(format!("container {name}: hostProcess"));
    }
    for capability in added(context).filter(|one| !CAPABILITIES.contains(one)) {
        all.push(format!("container {name}: capability {}", quoted(capability)));
    }
}

/// Whether the kubelet is to ask, from the network of the node, an address that the container chooses: in a probe or a hook.
fn asks_elsewhere(container: &Container) -> bool {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes = probes.into_iter().flatten().map(|probe| (&probe.http_get, &probe.tcp_socket));
    let hooks = container.lifecycle.iter().flat_map(|cycle| [&cycle.post_start, &cycle.pre_stop]);
    let hooks = hooks.flatten().map(|hook| (&hook.http_get, &hook.tcp_socket));
    let http = |action: &Option<HTTPGetAction>| action.as_ref().and_then(|action| action.host.clone());
    let tcp = |action: &Option<TCPSocketAction>| action.as_ref().and_then(|action| action.host.clone());
    probes.chain(hooks).any(|(get, socket)| [http(get), tcp(socket)].into_iter().flatten().any(|host| !host.is_empty()))
}

fn added(context: &SecurityContext) -> impl Iterator<Item = &str> {
    let capabilities = context.capabilities.as_ref().and_then(|all| all.add.as_ref());
    capabilities.into_iter().flatten().map(|one| one.strip_prefix("CAP_").unwrap_or(one))
}
