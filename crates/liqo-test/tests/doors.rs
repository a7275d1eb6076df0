//! Doors of admission: what the values of a provider open and close, and what a virtual kubelet may write.
//!
//! One stage: `rome` provides with values that differ from the defaults, `milan` consumes. At last both clusters are as before
//! Kubernetes 1.30: our webhook takes the place of admission policies, and the same requests get the same answers. Then rome gets
//! further values, one after the other: what was refused before is admitted, and what was admitted is refused.

mod doors {
    pub(crate) mod guests;
    pub(crate) mod kubelets;
    pub(crate) mod older;
    pub(crate) mod tenants;
    pub(crate) mod trust;
    pub(crate) mod values;
}

use anyhow::{Result, ensure};
use doors::{
    guests, kubelets,
    older::{self, By},
    tenants, values,
};
use liqo_test::{Stage, stage::on, story};

/// The values of rome.
const VALUES: [&str; 11] = [
    "auth.config.acceptClusterToken=false",
    "auth.config.identityLifetime=15m",
    "auth.config.maxTenants=1",
    "discovery.config.incomingPeeringEnabled=false",
    "offloading.podSecurity=restricted",
    "offloading.reservedNamespaces={lab-*}",
    "offloading.guests.tolerations={example.org/gpu}",
    "offloading.guests.priorityClasses={guest-batch}",
    "offloading.guests.runtimeClasses={guest-sandbox}",
    "offloading.guests.annotations={k8s.v1.cni.cncf.io/networks}",
    "peerPolicy.ingressHostSuffixes={shop.example}",
];
/// The fields of a pod that the Pod Security Standard `restricted` asks for; the other fields are the container's.
const RESTRICTED: &str =
    "securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}},";

#[test]
fn values_and_versions_decide_which_doors_are_open() -> Result<()> {
    story::alone("doors", raise, |stage| {
        let (rome, milan) = (stage.cluster("rome"), stage.cluster("milan"));
        let since = [rome.recorded(), milan.recorded()];
        tenants::the_token_of_the_cluster_opens_nothing(stage)?;
        tenants::one_cluster_and_no_more(stage)?;
        tenants::a_person_accepts_what_is_asked(stage)?;
        tenants::identities_are_short(milan)?;
        stage.offload(milan, "demo", &[])?;
        guests::reserved_names_are_taken(stage)?;
        milan.web("demo", "local", 1, &format!("nodeSelector: {{kubernetes.io/hostname: {}}},", milan.first()))?;
        milan.rolled_out("demo", "local")?;
        restricted_pods_run(stage, "before")?;
        for by in [By::Policy, By::Webhook] {
            if by == By::Webhook {
                older::without_policies(stage)?;
            }
            guests::get_what_values_allow(rome, milan, by)?;
            kubelets::are_held_to_their_node(milan, by)?;
        }
        restricted_pods_run(stage, "later")?;
        values::guests_are_trusted(stage)?;
        values::the_webhooks_know_who_asks(stage)?;
        let forbidden = [rome.forbidden(since[0])?, milan.forbidden(since[1])?].concat();
        ensure!(forbidden.is_empty(), "rights are missing: {forbidden:#?}");
        Ok(())
    })
}

fn raise() -> Result<Stage> {
    let stage = Stage::raise("doors", &["rome", "milan"])?;
    stage.everywhere(|cluster| {
        let values = VALUES.iter().flat_map(|value| ["--set", value]);
        let more: Vec<_> = values.filter(|_| cluster.name() == "rome").collect();
        stage.install(cluster, cluster.name(), &more)
    })?;
    Ok(stage)
}

/// A pod of milan that keeps to the standard runs in rome: its virtual kubelet writes, and rome answers.
fn restricted_pods_run(stage: &Stage, name: &str) -> Result<()> {
    let milan = stage.cluster("milan");
    milan.web("demo", name, 1, &format!("{} {RESTRICTED}", on("rome")))?;
    let confined = r#"[{"op": "add", "path": "/spec/template/spec/containers/0/securityContext", "value":
        {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]"#;
    milan.kubectl(&["patch", "deployment", "-n", "demo", name, "--type=json", "-p", confined])?;
    milan.rolled_out("demo", name)
}
