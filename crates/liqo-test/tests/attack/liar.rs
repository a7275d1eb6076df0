//! The liar on the wire: a peer's API server answers what no honest one does.

use anyhow::{Context, Result, bail};
use liqo_test::{Cluster, run, stage::LONG, wait_for};
use serde_json::json;

use super::{
    crowd, holes,
    raid::{Raid, tenant, text},
    server::{Liar, METADATA},
};

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
    crowd::of_own_addresses(raid)?;
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
    no_api_server(raid)?;
    // Originals for turin stay, because turin's controllers, which would remove the copies, are stopped.
    raid.stage.liqoctl(rome, &["unoffload", "namespace", "third"]).map(drop)
}

/// Port of the server that lies, where turin's API server is.
const PORT: u16 = 7443;

/// What rome asks turin's API server is answered by one that lies, in every way it knows; old connections end.
fn no_api_server(raid: &Raid) -> Result<()> {
    let (rome, turin) = (raid.rome(), raid.hostile_cluster());
    let node = turin.node(&turin.first())?;
    let liar = Liar::listen(&node.netns_file(), PORT, &turin.logs_dir().join("pki"))?;
    for node in rome.nodes() {
        let watched = format!(
            "table ip metadata {{ counter asked {{ }}
             chain sent {{ type filter hook output priority 0; ip daddr {METADATA} counter name asked; }}
             chain passed {{ type filter hook forward priority 0; ip daddr {METADATA} counter name asked; }}
             }}"
        );
        run::nft(&node.netns, &watched)?;
    }
    let nodes: Vec<_> = rome.nodes().into_iter().map(|node| node.ip).collect();
    let from = format!("{{ {}, {} }}", nodes.join(", "), rome.spec().pod_cidr);
    let diverted = format!(
        "table ip liar {{
         chain turned {{ type nat hook prerouting priority -101; ip saddr {from} tcp dport 6443 redirect to :{PORT}; }}
         chain old {{ type filter hook input priority 0; ip saddr {from} tcp dport 6443 reject with tcp reset; }}
         }}"
    );
    run::nft(&node.netns, &diverted)?;
    let lied = lied(raid, &liar);
    run::nft(&node.netns, "delete table ip liar")?;
    drop(liar);
    for node in rome.nodes() {
        let said = run::output(run::inside(&node.netns, "nft").args(["list", "counter", "ip", "metadata", "asked"]))?;
        if !said.contains("packets 0 ") {
            holes::found(format!("{} asks {METADATA} because a peer said so: {said}", node.name));
        }
        run::nft(&node.netns, "delete table ip metadata")?;
    }
    lied
}

/// Every lie was heard, the administrator sees that something is wrong with the peer, and the honest peer is served.
fn lied(raid: &Raid, liar: &Liar) -> Result<()> {
    let (rome, turin) = (raid.rome(), raid.hostile_cluster());
    let there = tenant(turin, &raid.home)?;
    let kinds = "resourcerequests,resourceoffers,namespacemaps,networkconfigs";
    wait_for("every lie is heard", LONG, || {
        // What an old connection is sent ends it.
        turin.kubectl(&["annotate", kinds, "-n", &there, "--all", "--overwrite", "turin.example/moved=again"])?;
        let left = liar.untold();
        if left.is_empty() { Ok(Some(())) } else { bail!("nobody has heard {left:?}") }
    })?;
    rome.wait_peering("turin", "APIServerStatus", "Error")?;
    raid.stage.offload(rome, "fourth", &["--selector", "kubernetes.io/hostname=liqo-milan"])?;
    served(raid, "fourth")?;
    raid.stage.liqoctl(rome, &["unoffload", "namespace", "fourth"]).map(drop)
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
