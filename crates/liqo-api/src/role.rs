//! The roles of the two server binaries: the one table that the binaries, the image, `liqoctl`, the chart's tests and the stories
//! read.

/// A role.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// The program by which its binary is called; for roles of Liqo 0.8.3 the name there.
    pub program: &'static str,
    /// Label `app.kubernetes.io/name` of its pods.
    pub component: &'static str,
    /// What runs it.
    pub runs: Runs,
    /// Whether it serves `/metrics` beside `/healthz` and `/readyz` at port [`HEALTH_PORT`].
    pub has_metrics: bool,
}

/// What runs a role, and in which installations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// A Deployment of every installation.
    Always,
    /// A Deployment of installations that connect networks.
    Networks,
    /// A DaemonSet of installations that connect networks.
    NetworksOnEachNode,
    /// A Deployment of every installation, unless a value switches the Deployment off.
    Usually,
    /// A Deployment of installations that ask for it.
    Asked,
    /// A Deployment of installations that are the broker of a market.
    Broker,
    /// A Deployment of installations that take part in a market.
    Agent,
    /// A Deployment in the namespace of jobs, of installations that run jobs.
    Jobs,
    /// A Deployment for each provider, in its tenant namespace, made by the controller manager.
    ForProvider,
    /// A container beside the worker of each job.
    ForJob,
}

/// The binary of the roles that connect clusters and offload pods.
pub const PLATFORM: &str = "liqo";
/// The binary of the roles that stand on the platform: pages, APIs, the market, jobs and their store.
pub const SERVICES: &str = "liqo-services";

/// The port of probes and metrics of every role, unless flags choose another one.
pub const HEALTH_PORT: u16 = 8081;

impl Role {
    /// Name of the Deployment or DaemonSet in the chart, and of its `ServiceAccount`.
    pub fn workload(&self) -> String {
        format!("liqo-{}", self.component)
    }

    /// The binary that holds the role. Processes of the platform run in every installation, virtual kubelets and route agents many
    /// times: such a process does not load the code of services.
    pub fn binary(&self) -> &'static str {
        match self.runs {
            Runs::Always | Runs::Usually | Runs::Networks | Runs::NetworksOnEachNode | Runs::ForProvider => PLATFORM,
            Runs::Asked | Runs::Broker | Runs::Agent | Runs::Jobs | Runs::ForJob => SERVICES,
        }
    }

    /// The role with this program.
    pub fn called(program: &str) -> Option<&'static Self> {
        ROLES.iter().find(|role| role.program == program)
    }
}

const fn role(program: &'static str, component: &'static str, runs: Runs) -> Role {
    Role { program, component, runs, has_metrics: true }
}

/// All roles.
pub const ROLES: [Role; 16] = [
    role("liqo-controller-manager", "controller-manager", Runs::Always),
    role("crd-replicator", "crd-replicator", Runs::Always),
    role("auth-service", "auth", Runs::Always),
    role("metric-agent", "metric-agent", Runs::Usually),
    role("virtual-kubelet", "virtual-kubelet", Runs::ForProvider),
    role("liqo-proxy", "proxy", Runs::Networks),
    role("liqo-network-manager", "network-manager", Runs::Networks),
    role("liqo-gateway", "gateway", Runs::Networks),
    role("liqo-route", "route", Runs::NetworksOnEachNode),
    role("liqo-status", "status", Runs::Asked),
    role("liqo-broker", "broker", Runs::Broker),
    role("liqo-agent", "agent", Runs::Agent),
    role("liqo-jobs", "jobs", Runs::Jobs),
    role("liqo-jobs-api", "jobs-api", Runs::Jobs),
    // Neither of the two knows Kubernetes.
    Role { has_metrics: false, ..role("liqo-store", "store", Runs::Jobs) },
    Role { has_metrics: false, ..role("liqo-mover", "mover", Runs::ForJob) },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn roles_are_told_apart_by_program_and_by_component() {
        let programs: BTreeSet<_> = ROLES.iter().map(|role| role.program).collect();
        let components: BTreeSet<_> = ROLES.iter().map(|role| role.component).collect();
        assert_eq!((programs.len(), components.len()), (ROLES.len(), ROLES.len()));
        assert_eq!(Role::called("auth-service").map(Role::workload).as_deref(), Some("liqo-auth"));
        assert!(Role::called("liqo").is_none());
    }
}
