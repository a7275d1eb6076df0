//! The thief: a provider reports namespaces that rome never offloaded, and waits for rome to copy objects there.

use anyhow::{Result, ensure};
use liqo_test::{Cluster, stage::LONG, wait_for};
use serde_json::{Value, json};

use super::raid::{Raid, names, never, offloaded, text};

/// The virtual kubelet of rome may write into this namespace of turin, if it can be made to.
const LOOT: &str = "apiVersion: v1
kind: Namespace
metadata: {name: loot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: loot, namespace: loot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: liqo-virtual-kubelet-remote}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: HOME}]
";

pub(crate) fn story(raid: &Raid) -> Result<()> {
    let (rome, turin) = (raid.rome(), raid.hostile_cluster());
    rome.kubectl(&["create", "namespace", "private"])?;
    rome.kubectl(&["create", "secret", "generic", "canary", "-n", "private", "--from-literal=word=sesame"])?;
    turin.apply(&LOOT.replace("HOME", &raid.home))?;
    let lent = offloaded(turin, &raid.home)?;
    let original = map(rome, &raid.turin.tenant, "liqo.io/remoteID", &raid.turin.id)?;
    let replica = map(turin, &super::raid::tenant(turin, &raid.home)?, "liqo.io/originID", &raid.home)?;

    // Foreign namespaces in the report, beside the one that is offloaded to turin.
    let loot = json!({"remoteNamespace": "loot", "phase": "Accepted"});
    let mut reported = json!({"lent": {"remoteNamespace": lent, "phase": "Accepted"}});
    for namespace in ["private", "shop", "liqo", "kube-system", "default", &raid.turin.tenant, &raid.milan.tenant] {
        reported[namespace] = loot.clone();
    }
    report(turin, &replica, &reported)?;
    // Objects of `lent` still arrive, so the virtual kubelet works and has read the report.
    rome.kubectl(&["create", "secret", "generic", "control", "-n", "lent", "--from-literal=word=hello"])?;
    wait_for("a secret of the namespace that is lent", LONG, || {
        Ok(turin.json(&["secret", "-n", &lent, "control"]).is_ok().then_some(()))
    })?;
    never("secrets of rome", || stolen(turin, &lent))?;

    // The offloaded namespace of turin, reported under another remote name.
    report(turin, &replica, &json!({"lent": loot}))?;
    never("secrets under a name that was not asked for", || stolen(turin, &lent))?;
    report(turin, &replica, &json!({"lent": {"remoteNamespace": lent, "phase": "Accepted"}}))?;

    // The original itself, which a peer in both directions finds in the namespace it shares with rome.
    let (tenant, name) = (text(&original, "/metadata/namespace"), text(&original, "/metadata/name"));
    let wish = json!({"spec": {"desiredMapping": {"private": "loot", "lent": lent}}});
    raid.turin.patches(tenant, &["namespacemap", name], &wish)?.refused("the wish of rome is changed");
    let status = json!({"status": {"currentMapping": {"private": loot}}});
    raid.turin
        .patches(tenant, &["namespacemap", name, "--subresource=status"], &status)?
        .refused("the status of rome's own map is written by a peer");
    raid.turin
        .runs(&["delete", "namespacemap", "-n", tenant, name, "--wait=false"])?
        .refused("rome's own map is removed");
    let now = map(rome, tenant, "liqo.io/remoteID", &raid.turin.id)?;
    ensure!(now["spec"] == original["spec"], "the wish of rome has changed: {now}");
    without_policies(raid, &original)
}

/// The policy that keeps peers from writing originals.
const COPIES: &str = "liqo-peer-copies";

/// Nothing at the door stops turin from writing rome's own map: turin is given nothing that rome offloads to others, or to nobody.
fn without_policies(raid: &Raid, original: &Value) -> Result<()> {
    let (rome, turin) = (raid.rome(), &raid.turin);
    let (tenant, name) = (text(original, "/metadata/namespace"), text(original, "/metadata/name"));
    let binding = rome.json(&["validatingadmissionpolicybinding", COPIES])?;
    let (labels, spec) = (&binding["metadata"]["labels"], &binding["spec"]);
    let again = json!({
        "apiVersion": binding["apiVersion"], "kind": binding["kind"], "metadata": {"name": COPIES, "labels": labels}, "spec": spec,
    });
    rome.kubectl(&["delete", "validatingadmissionpolicybinding", COPIES])?;
    let wish = json!({"spec": {"desiredMapping": {"shop": "loot", "private": "loot"}}});
    let tried = wait_for("nobody stops turin", LONG, || {
        Ok((!turin.patches(tenant, &["namespacemap", name], &wish)?.is_refused()).then_some(()))
    })
    .and_then(|()| binds_nothing(raid, (tenant, name), &wish));
    // Later stories need the door, however this one ends.
    rome.apply(&again.to_string())?;
    tried?;
    wait_for("the door is closed again", LONG, || {
        Ok(turin.patches(tenant, &["namespacemap", name], &wish)?.is_refused().then_some(()))
    })?;
    wait_for("rome puts its map right", LONG, || {
        let now = map(rome, tenant, "liqo.io/remoteID", &turin.id)?;
        Ok((now["spec"] == original["spec"]).then_some(()))
    })?;
    let events = rome.items(&["events", "-n", tenant, "--field-selector", "reason=MappingIgnored"])?;
    ensure!(!events.is_empty(), "no Event says that an entry of the map is ignored");
    let loot = stolen(raid.hostile_cluster(), &offloaded(raid.hostile_cluster(), &raid.home)?)?;
    ensure!(loot.is_empty(), "turin has {loot:?}");
    Ok(())
}

/// Whatever turin writes into rome's map, its virtual kubelet has rights in the namespace that was lent, and in no other.
fn binds_nothing(raid: &Raid, (tenant, name): (&str, &str), wish: &Value) -> Result<()> {
    let (rome, turin) = (raid.rome(), &raid.turin);
    let selector = format!("discovery.liqo.io/cluster-id={}", turin.id);
    let bound = |namespace: &str| rome.items(&["rolebindings", "-n", namespace, "-l", &selector]);
    ensure!(!bound("lent")?.is_empty(), "the selector {selector} finds no binding where there is one");
    never("rights of turin's virtual kubelet", || {
        // What rome has put right is written again.
        turin.patches(tenant, &["namespacemap", name], wish)?.done("the map is written")?;
        Ok(names(&[bound("shop")?, bound("private")?].concat()))
    })
}

/// The NamespaceMap with this label.
fn map(cluster: &Cluster, namespace: &str, label: &str, value: &str) -> Result<Value> {
    let found = cluster.items(&["namespacemaps", "-n", namespace, "-l", &format!("{label}={value}")])?;
    let mut mine = found
        .into_iter()
        .filter(|one| one["metadata"]["labels"]["liqo.io/replication"] == "true" || label.ends_with("originID"));
    mine.next().ok_or_else(|| anyhow::anyhow!("{} has no map with {label}={value}", cluster.name()))
}

/// Turin writes the whole status of its copy of rome's map.
fn report(turin: &Cluster, replica: &Value, mapping: &Value) -> Result<()> {
    let (namespace, name) = (text(replica, "/metadata/namespace"), text(replica, "/metadata/name"));
    let patch = json!([{"op": "add", "path": "/status", "value": {"currentMapping": mapping}}]).to_string();
    let what = ["patch", "namespacemap", "-n", namespace, name, "--subresource=status", "--type=json", "-p", &patch];
    turin.kubectl(&what).map(drop)
}

/// What came from rome and lies anywhere but in the namespace that was lent.
fn stolen(turin: &Cluster, lent: &str) -> Result<Vec<String>> {
    let loot = turin.items(&["secrets,configmaps,services", "-n", "loot"])?;
    let loot = loot.into_iter().filter(|one| text(one, "/metadata/name") != "kube-root-ca.crt");
    let labelled = turin.items(&["secrets", "-A", "-l", "virtualkubelet.liqo.io/origin"])?;
    let elsewhere = labelled.into_iter().filter(|one| text(one, "/metadata/namespace") != lent);
    Ok(names(&loot.chain(elsewhere).collect::<Vec<_>>()))
}
