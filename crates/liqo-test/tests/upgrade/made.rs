//! The objects that controllers of the version before the rules for peers made, beside the objects of its chart: `made.txt`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use liqo_test::Cluster;
use serde_json::{Value, json};

/// Objects that the upgrade takes away: kind, and how the name begins.
const GONE: [(&str, &str); 1] = [("ClusterRoleBinding", "liqo-virtual-kubelet-")];

/// The kinds of `made.txt`, and where the part is whose value an upgrade keeps; empty: the object itself and no value. Offers follow
/// what is free, the addresses of pods and the state of a node follow the world, and rights are what the upgrade is about.
const KINDS: [(&str, &str); 22] = [
    ("ClusterRole", ""),
    ("ClusterRoleBinding", "roleRef"),
    ("ConfigMap", "data"),
    ("Deployment", ""),
    ("ForeignCluster", "spec"),
    ("IpamStorage", ""),
    ("Namespace", ""),
    ("NamespaceMap", "spec"),
    ("NamespaceOffloading", "spec"),
    ("NatMapping", ""),
    ("NetworkConfig", "spec"),
    ("Node", ""),
    ("Pod", "status"),
    ("ResourceOffer", ""),
    ("ResourceRequest", "spec"),
    ("RoleBinding", "roleRef"),
    ("Secret", "data"),
    ("Service", "spec"),
    ("ServiceAccount", ""),
    ("ShadowEndpointSlice", "spec"),
    ("ShadowPod", "spec"),
    ("TunnelEndpoint", "spec"),
];
/// Secrets whose certificates are renewed when a controller manager starts.
const RENEWED: &str = "liqo-webhook-certs";

/// What there is in a cluster of what the old version made, by the words of `made.txt` and the name: UID and value.
pub(crate) type Made = BTreeMap<String, Value>;

/// The objects of `made.txt` in a cluster. Each line of the file is met.
pub(crate) fn of(cluster: &Cluster) -> Result<Made> {
    let mut wanted: BTreeSet<_> = include_str!("made.txt")
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{} ", cluster.name())))
        .filter(|line| !GONE.iter().any(|(kind, name)| line.starts_with(&format!("{kind} - {name}"))))
        .collect();
    let kinds = KINDS.map(|(kind, _)| kind.to_lowercase()).join(",");
    let mut found = Made::new();
    let mut met = BTreeSet::new();
    for item in cluster.items(&[&kinds, "-A"])? {
        let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        let place = if namespace.is_empty() { "-".to_owned() } else { normal(namespace) };
        let words = format!("{kind} {place} {}", normal(name));
        let Some(line) = wanted.get(&*words) else { continue };
        met.insert(*line);
        let (_, part) = KINDS.into_iter().find(|(known, _)| *known == kind).context("a kind that was asked for")?;
        let value = if name == RENEWED { Value::Null } else { value(&item, part) };
        let meta = &item["metadata"];
        found.insert(
            format!("{words} {name}"),
            json!({"uid": meta["uid"], "deleted": meta["deletionTimestamp"], "value": value}),
        );
    }
    wanted.retain(|line| !met.contains(line));
    ensure!(wanted.is_empty(), "{} has not what the old version made: {wanted:#?}", cluster.name());
    Ok(found)
}

/// What of an object an upgrade keeps: of a pod that runs, its address and its containers.
fn value(item: &Value, part: &str) -> Value {
    match part {
        "" => Value::Null,
        "status" => {
            let container = &item["status"]["containerStatuses"][0];
            json!({"ip": item["status"]["podIP"], "restarts": container["restartCount"], "state": container["state"]})
        }
        part => item[part].clone(),
    }
}

/// A name without what differs from installation to installation, as `made.txt` has it.
fn normal(name: &str) -> String {
    for made_up in ["web-", "liqo-identity-", "kube-root-ca.crt."] {
        if name.starts_with(made_up) {
            return format!("{made_up}*");
        }
    }
    let is_hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<_> = name.split('-').collect();
    let lengths = [8, 4, 4, 4, 12];
    let id = parts
        .windows(lengths.len())
        .position(|some| some.iter().zip(lengths).all(|(part, length)| is_hex(part, length)));
    let mut words: Vec<_> = parts.iter().map(|part| if is_hex(part, 6) { "HASH" } else { part }).collect();
    if let Some(at) = id {
        words.splice(at..at + lengths.len(), ["ID"]);
    }
    words.join("-")
}

/// Everything that the old version made is there, the same object with the same value, and is not being deleted.
pub(crate) fn same(cluster: &Cluster, before: &Made) -> Result<()> {
    let now = of(cluster)?;
    let changed = |(name, old): &(&String, &Value)| now.get(*name) != Some(*old);
    let changed: Vec<_> = before.iter().filter(changed).map(|(name, old)| (name, old, now.get(name))).collect();
    ensure!(changed.is_empty(), "{} lost, made anew or changed: {changed:#?}", cluster.name());
    ensure!(before.values().all(|one| one["deleted"].is_null()), "something was being deleted before: {before:#?}");
    Ok(())
}
