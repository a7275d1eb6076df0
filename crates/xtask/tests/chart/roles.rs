//! The chart runs the roles of the table, and no other program.

use std::collections::BTreeSet;

use liqo_api::role::{HEALTH_PORT, ROLES, Role, Runs};
use serde_json::{Value, json};
use xtask::rbac;

use super::helm::Objects;
use crate::{MARKET, STATUS, with};

const JOBS: &str = "--set=jobs.enabled=true";

fn kind(role: &Role) -> Option<&'static str> {
    match role.runs {
        Runs::Always | Runs::Usually | Runs::Networks | Runs::Asked | Runs::Broker | Runs::Agent | Runs::Jobs => {
            Some("Deployment")
        }
        Runs::NetworksOnEachNode => Some("DaemonSet"),
        Runs::ForProvider | Runs::ForJob => None,
    }
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

/// Everything that runs pods.
fn workloads(objects: &Objects) -> BTreeSet<String> {
    objects.keys().filter(|name| name.starts_with("Deployment/") || name.starts_with("DaemonSet/")).cloned().collect()
}

#[test]
fn each_role_has_its_workload_account_program_and_probes() {
    let objects = with(&[STATUS, JOBS, MARKET]);
    let mut wanted = BTreeSet::new();
    for role in ROLES {
        let Some(kind) = kind(&role) else { continue };
        let (name, workload) = (role.workload(), format!("{kind}/{}", role.workload()));
        let found = &objects[&workload];
        assert_eq!(container(found)["command"], json!([format!("/usr/bin/{}", role.program)]), "{workload}");
        let pod = &found["spec"]["template"];
        assert_eq!(pod["spec"]["serviceAccountName"], name.as_str(), "{workload}");
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], role.component, "{workload}");
        let probe = &container(found)["readinessProbe"]["httpGet"];
        let port = container(found)["ports"].as_array().into_iter().flatten().find(|port| port["name"] == "healthz");
        let is_of_host = pod["spec"]["hostNetwork"] == json!(true);
        assert_eq!(port.is_none(), is_of_host, "{workload}");
        assert!(port.is_none_or(|port| port["containerPort"] == HEALTH_PORT), "{workload}");
        assert_eq!(probe["path"], "/readyz", "{workload}");
        wanted.insert(workload);
    }
    assert_eq!(workloads(&objects), wanted);
}

#[test]
fn installations_have_the_roles_that_they_ask_for() {
    let of = |runs: &[Runs]| -> BTreeSet<String> {
        let roles = ROLES.iter().filter(|role| runs.contains(&role.runs));
        roles.filter_map(|role| Some(format!("{}/{}", kind(role)?, role.workload()))).collect()
    };
    let networks = [Runs::Always, Runs::Usually, Runs::Networks, Runs::NetworksOnEachNode];
    assert_eq!(workloads(&with(&["--set=networking.internal=false"])), of(&[Runs::Always, Runs::Usually]));
    let least = with(&["--set=networking.internal=false,metricAgent.enable=false"]);
    assert_eq!(workloads(&least), of(&[Runs::Always]));
    assert_eq!(workloads(&with(&[])), of(&networks));
    assert_eq!(workloads(&with(&[STATUS])), of(&[&networks[..], &[Runs::Asked]].concat()));
    assert_eq!(workloads(&with(&[MARKET])), of(&[&networks[..], &[Runs::Broker, Runs::Agent]].concat()));
    assert_eq!(workloads(&with(&[JOBS])), of(&[&networks[..], &[Runs::Jobs]].concat()));
}

#[test]
fn rights_are_those_of_roles_and_of_peers() {
    let components: BTreeSet<_> = ROLES.iter().map(|role| role.component).collect();
    for (file, _) in rbac::all() {
        let subject = file.split('.').next().unwrap_or_default();
        let is_of_peers = subject.starts_with("remote-peering-");
        let is_of_role = components.contains(subject) || subject.starts_with("virtual-kubelet-");
        assert!(is_of_peers || is_of_role, "{file} is of no role");
    }
}

#[test]
fn the_monitor_finds_the_roles_with_metrics_at_the_port_of_probes() {
    let objects = with(&[
        STATUS,
        JOBS,
        MARKET,
        "--set=common.podMonitor.enabled=true,common.podMonitor.interval=10s,common.podMonitor.labels.release=x",
    ]);
    let monitor = &objects["PodMonitor/liqo"];
    assert_eq!(monitor["metadata"]["labels"]["release"], "x");
    let spec = &monitor["spec"];
    assert_eq!(spec["namespaceSelector"]["matchNames"], json!(["liqo", "liqo-jobs-system"]));
    assert_eq!(spec["podMetricsEndpoints"], json!([{"port": "healthz", "interval": "10s"}]));
    let left_out = &spec["selector"]["matchExpressions"];
    for role in ROLES {
        let Some(kind) = kind(&role) else { continue };
        let pod = &objects[&format!("{kind}/{}", role.workload())]["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/part-of"], "liqo");
        let is_left_out = left_out[0]["values"].as_array().expect("names").contains(&json!(role.component));
        assert_eq!(is_left_out, !role.has_metrics, "{}", role.program);
    }
    assert!(!with(&[]).contains_key("PodMonitor/liqo"));
}
