//! The liar on the wire: a peer's API server answers what no honest one does.

use anyhow::{Context, Result};
use liqo_test::{Cluster, stage::LONG, wait_for};
use serde_json::json;

use super::raid::{Raid, tenant, text};

/// A webhook in milan that refuses what rome's replicator writes, with a text whose wide space has several bytes.
const REFUSAL: &str = r#"apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: liar}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [virtualkubelet.liqo.io], apiVersions: ['*'],
    operations: [CREATE, UPDATE], resources: [namespacemaps]}]}
  validations: [{expression: "false", message: "a\u2003.spec.desiredMapping: field not declared in schema"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: liar}
spec: {policyName: liar, validationActions: [Deny]}
"#;

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let (rome, turin) = (raid.rome(), raid.hostile_cluster());
    turin.apply(REFUSAL)?;
    wait_for("turin refuses", LONG, || {
        let there = tenant(turin, &raid.home)?;
        let maps = turin.items(&["namespacemaps", "-n", &there])?;
        let name = text(maps.first().context("no map")?, "/metadata/name");
        let tried = turin.kubectl(&["annotate", "namespacemap", "-n", &there, name, "--overwrite", "tried=now"]);
        Ok(tried.is_err().then_some(()))
    })?;
    // Both maps of rome change: the one is refused with that text, the other is served as fast as ever.
    rome.kubectl(&["create", "namespace", "second"])?;
    // liqoctl waits for turin, too, and in vain.
    let _ = raid.stage.product.liqoctl(rome, &["offload", "namespace", "second", "--timeout", "2s"])?;
    served(raid, "second")?;
    long_objects(raid, turin)?;
    raid.stage.offload(rome, "third", &["--selector", "kubernetes.io/hostname=liqo-milan"])?;
    served(raid, "third")?;
    turin.kubectl(&["delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "liar"])?;
    // Originals for turin stay, because turin's controllers, which would remove the copies, are stopped.
    raid.stage.liqoctl(rome, &["unoffload", "namespace", "third"]).map(drop)
}

/// Whether the honest peer has a namespace for one of rome.
fn there(raid: &Raid, namespace: &str) -> Result<bool> {
    let selector = format!("liqo.io/remote-cluster-id={}", raid.home);
    let found = raid.stage.cluster("milan").items(&["namespaces", "-l", &selector])?;
    Ok(found.iter().any(|one| text(one, "/metadata/name").starts_with(&format!("{namespace}-"))))
}

fn served(raid: &Raid, namespace: &str) -> Result<()> {
    wait_for(&format!("{namespace} is at the honest peer's"), LONG, || Ok(there(raid, namespace)?.then_some(())))
}

/// Objects that rome watches at turin, as large as an API server stores them.
fn long_objects(raid: &Raid, turin: &Cluster) -> Result<()> {
    let tenant = tenant(turin, &raid.home)?;
    let requests = turin.items(&["resourcerequests", "-n", &tenant])?;
    let name = text(requests.first().context("turin has no request")?, "/metadata/name").to_owned();
    let filler = "x".repeat(100 << 10);
    let patch = json!({"metadata": {"annotations": {"turin.example/filler": filler}}}).to_string();
    turin.kubectl(&["patch", "resourcerequest", "-n", &tenant, &name, "--type=merge", "-p", &patch]).map(drop)
}
