//! What the version before the rules for peers (the tree of git 421c5f7) left behind, by what this version has added since.
//!
//! The rows come from a comparison: that version was installed on two clusters that peered and offloaded a namespace, this version
//! was installed over it, and all objects were compared before and after. What the chart alone makes (policies, their ConfigMap,
//! NetworkPolicies) is removed as one row for each kind.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{Cluster, stage::LONG, wait_for};
use serde_json::{Value, json};

/// Something that this version writes and the old one did not.
struct Row {
    /// Why this version writes it.
    reason: &'static str,
    /// Resources, and a label that selects from them; empty: all.
    among: (&'static str, &'static str),
    /// How the name begins.
    beginning: &'static str,
    added: Added,
}

#[derive(Clone, Copy)]
enum Added {
    /// The whole object.
    Object,
    /// A field of an object that the old version had, too: its parts.
    Field(&'static [&'static str]),
    /// A field of the status.
    Status(&'static [&'static str]),
}

const ORIGINAL: &[&str] = &["metadata", "annotations", "virtualkubelet.liqo.io/original-uid"];
const NAMESPACE: &[&str] = &["metadata", "annotations", "virtualkubelet.liqo.io/original-namespace"];
const PART: &str = "app.kubernetes.io/part-of=liqo";
const REFLECTED: &str = "virtualkubelet.liqo.io/origin";

const ROWS: &[Row] = &[
    row("twins carry the UID of their source", ("configmaps", REFLECTED), "settings", Added::Field(ORIGINAL)),
    row("the same", ("secrets", REFLECTED), "password", Added::Field(ORIGINAL)),
    row("the same", ("services", REFLECTED), "", Added::Field(ORIGINAL)),
    row("the same", ("shadowpods", REFLECTED), "", Added::Field(ORIGINAL)),
    row("the same", ("shadowendpointslices", REFLECTED), "", Added::Field(ORIGINAL)),
    row("the same", ("pods", REFLECTED), "", Added::Field(ORIGINAL)),
    row("the same", ("endpointslices", REFLECTED), "", Added::Field(ORIGINAL)),
    row(
        "pods of guests meet a standard",
        REMOTE,
        "",
        Added::Field(&[META, "labels", "pod-security.kubernetes.io/enforce"]),
    ),
    row("the same", REMOTE, "", Added::Field(&[META, "labels", "pod-security.kubernetes.io/audit"])),
    row("the same", REMOTE, "", Added::Field(&[META, "labels", "pod-security.kubernetes.io/warn"])),
    row(
        "virtual kubelets meet a standard",
        ("namespaces", "discovery.liqo.io/tenant-namespace"),
        "",
        Added::Field(&[META, "labels", "pod-security.kubernetes.io/enforce"]),
    ),
    row("objects of guests are counted", ("resourcequotas", ""), "liqo-objects", Added::Object),
    row("pods of the Liqo namespace may be critical", ("resourcequotas", PART), "liqo-critical-pods", Added::Object),
    row("the certificate of the authentication service stays", ("secrets", ""), "liqo-auth-certificate", Added::Object),
    row("a gateway says which mode it enforces", ("tunnelendpoints", ""), "", Added::Status(MODE)),
    row("a virtual kubelet writes its own node", ("clusterroles", ""), "liqo-virtual-node-", Added::Object),
    row("the same", ("clusterrolebindings", ""), "liqo-virtual-node-", Added::Object),
    row("a virtual kubelet has rights by namespace", ("rolebindings", ""), "liqo-virtual-kubelet-", Added::Object),
    row("the same", ("clusterroles", ""), "liqo-virtual-kubelet-cluster", Added::Object),
    row("the same", ("clusterroles", ""), "liqo-virtual-kubelet-namespace", Added::Object),
    row("the same", ("clusterroles", ""), "liqo-virtual-kubelet-tenant", Added::Object),
    row(
        "the controller manager grants them",
        ("clusterrolebindings", ""),
        "liqo-controller-manager-grant-virtual-kubelet-cluster",
        Added::Object,
    ),
    row(
        "the same",
        ("clusterrolebindings", ""),
        "liqo-controller-manager-grant-virtual-kubelet-namespace",
        Added::Object,
    ),
    row("the same", ("clusterrolebindings", ""), "liqo-controller-manager-grant-virtual-kubelet-tenant", Added::Object),
    row("the replicator reads Secrets by namespace", ("clusterroles", ""), "liqo-crd-replicator-tenant", Added::Object),
    row("the same", ("rolebindings", ""), "liqo-crd-replicator-tenant", Added::Object),
    row("a peer that is refused may withdraw", ("clusterroles", ""), "liqo-remote-peering-leaving", Added::Object),
    row("the same", ("clusterrolebindings", ""), "liqo-remote-peering-leaving", Added::Object),
    row("peers are told what their pods use", ("deployments", PART), "liqo-metric-agent", Added::Object),
    row("the same", ("services", PART), "liqo-metric-agent", Added::Object),
    row("the same", ("serviceaccounts", PART), "liqo-metric-agent", Added::Object),
    row("the same", ("clusterroles", PART), "liqo-metric-agent", Added::Object),
    row("the same", ("clusterrolebindings", PART), "liqo-metric-agent", Added::Object),
    row("the same", ("rolebindings", PART), "liqo-metric-agent", Added::Object),
    row("the same", ("apiservices", PART), "v1alpha1.metrics.liqo.io", Added::Object),
    row("pods find the namespace of home", ("shadowpods", REFLECTED), "", Added::Field(NAMESPACE)),
    row("the same", ("pods", REFLECTED), "", Added::Field(NAMESPACE)),
    row("settings of the rules for peers", ("configmaps", PART), "liqo-peer-policy", Added::Object),
    row("rules for peers and virtual kubelets", ("validatingadmissionpolicies", PART), "liqo-", Added::Object),
    row("the same", ("validatingadmissionpolicybindings", PART), "liqo-", Added::Object),
    row("who may connect to our pods", ("networkpolicies", PART), "liqo-", Added::Object),
];
const META: &str = "metadata";
const REMOTE: (&str, &str) = ("namespaces", "liqo.io/remote-cluster-id");
const MODE: &[&str] = &["status", "connection", "peerConfiguration", "securityMode"];

const fn row(reason: &'static str, among: (&'static str, &'static str), beginning: &'static str, added: Added) -> Row {
    Row { reason, among, beginning, added }
}

/// For the number of each row, the objects that lost something: namespaces and names.
pub(crate) type Taken = BTreeMap<usize, Vec<(String, String)>>;

/// Stops the product, takes away what the old version did not write, and adds the one object that the old version wrote and this one
/// does not.
pub(crate) fn go_back(cluster: &Cluster) -> Result<Taken> {
    stop(cluster)?;
    cluster.kubectl(&["delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "-l", PART])?;
    let mut taken = Taken::new();
    // The policies are the last rows, and protect what the others are about.
    for (number, row) in ROWS.iter().enumerate().rev() {
        let objects = row.objects(cluster)?;
        for (namespace, name) in &objects {
            row.take(cluster, namespace, name).with_context(|| format!("row {number}, {}", row.reason))?;
        }
        taken.insert(number, objects);
    }
    cluster.apply(&old_binding(cluster)?.to_string())?;
    // The Deployments of the chart are scaled by the installation. Nobody else has scaled those of virtual kubelets.
    scale(cluster, "app.kubernetes.io/name=virtual-kubelet", 1)?;
    Ok(taken)
}

/// A row that is met in no cluster is out of date.
pub(crate) fn every_row_was_met(taken: &[Taken]) -> Result<()> {
    let missed: Vec<_> = ROWS
        .iter()
        .enumerate()
        .filter(|(number, _)| taken.iter().all(|taken| taken.get(number).is_none_or(Vec::is_empty)))
        .map(|(number, row)| format!("{number} ({:?} {}: {})", row.among, row.beginning, row.reason))
        .collect();
    ensure!(missed.is_empty(), "nothing was taken away by the rows {missed:#?}");
    Ok(())
}

/// What was taken away is there again, and the binding of the old version is gone.
pub(crate) fn written_again(cluster: &Cluster, taken: &Taken) -> Result<()> {
    for (row, objects) in ROWS.iter().enumerate().map(|(number, row)| (row, &taken[&number])) {
        let what = format!("{:?} {} of {} ({})", row.among, row.beginning, cluster.name(), row.reason);
        wait_for(&format!("{what} is written again"), LONG, || {
            let now = row.objects(cluster)?;
            let missing: Vec<_> = objects.iter().filter(|one| !now.contains(one)).collect();
            if missing.is_empty() { Ok(Some(())) } else { bail!("{missing:?} are missing") }
        })?;
    }
    wait_for("the rights of the old version are gone", LONG, || {
        let left = cluster.items(&["clusterrolebindings"])?;
        let is_old = |one: &Value| {
            let account = &one["subjects"][0]["name"];
            one["roleRef"]["name"] == OLD_ROLE && account == "virtual-kubelet"
        };
        Ok((!left.iter().any(is_old)).then_some(()))
    })
}

/// Ends all processes of the product. The controller manager is the first to go: it starts virtual kubelets again.
fn stop(cluster: &Cluster) -> Result<()> {
    let gone = |selector: &str| {
        wait_for(&format!("pods of {selector} end"), LONG, || {
            Ok(cluster.items(&["pods", "-A", "-l", selector])?.is_empty().then_some(()))
        })
    };
    cluster.kubectl(&["scale", "-n", "liqo", "deployment/liqo-controller-manager", "--replicas=0"])?;
    gone("app.kubernetes.io/name=controller-manager")?;
    scale(cluster, PART, 0)?;
    // Nothing scales a DaemonSet; the installation makes the DaemonSet again.
    cluster.kubectl(&["delete", "-n", "liqo", "daemonset/liqo-route"])?;
    gone(PART)
}

/// Scales the Deployments of a label in all namespaces.
fn scale(cluster: &Cluster, selector: &str, replicas: u32) -> Result<()> {
    for deployment in cluster.items(&["deployments", "-A", "-l", selector])? {
        let text = |field: &str| deployment[META][field].as_str().unwrap_or_default().to_owned();
        let name = format!("deployment/{}", text("name"));
        cluster.kubectl(&["scale", "-n", &text("namespace"), &name, &format!("--replicas={replicas}")])?;
    }
    Ok(())
}

const OLD_ROLE: &str = "liqo-virtual-kubelet-local";

/// All rights of a virtual kubelet in the whole cluster, as the old version bound them.
fn old_binding(cluster: &Cluster) -> Result<Value> {
    let tenants = cluster.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
    let tenant = tenants.first().context("a tenant namespace")?;
    let id = &tenant[META]["labels"]["discovery.liqo.io/cluster-id"];
    let tenant = tenant[META]["name"].as_str().context("a name")?;
    let peer = tenant.trim_start_matches("liqo-tenant-");
    Ok(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("liqo-virtual-kubelet-{peer}"), "labels": {
            "app.kubernetes.io/managed-by": "advertisementoperator", "discovery.liqo.io/cluster-id": id,
        }},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OLD_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": "virtual-kubelet", "namespace": tenant}],
    }))
}

impl Row {
    /// Namespaces and names of the objects that have what the row is about.
    fn objects(&self, cluster: &Cluster) -> Result<Vec<(String, String)>> {
        let (kind, selector) = self.among;
        let all = cluster.items(&[kind, "-A", "-l", selector])?;
        let found = all.iter().filter(|item| {
            let name = item[META]["name"].as_str().unwrap_or_default();
            name.starts_with(self.beginning)
                && self.path().is_none_or(|path| !path.iter().fold(*item, |at, key| &at[*key]).is_null())
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(found.map(|item| (text(&item[META]["namespace"]), text(&item[META]["name"]))).collect())
    }

    fn path(&self) -> Option<&'static [&'static str]> {
        match self.added {
            Added::Object => None,
            Added::Field(path) | Added::Status(path) => Some(path),
        }
    }

    fn take(&self, cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
        let Some(path) = self.path() else {
            // No controller is there that would release the object.
            let free = r#"{"metadata":{"finalizers":null}}"#;
            cluster.kubectl(&["patch", self.among.0, name, "-n", namespace, "--type=merge", "-p", free])?;
            return cluster.kubectl(&["delete", self.among.0, name, "-n", namespace]).map(drop);
        };
        let pointer: String = path.iter().map(|key| format!("/{}", key.replace('/', "~1"))).collect();
        let patch = json!([{"op": "remove", "path": pointer}]).to_string();
        let mut words = vec!["patch", self.among.0, name, "-n", namespace, "--type=json", "-p", &patch];
        if matches!(self.added, Added::Status(_)) {
            words.push("--subresource=status");
        }
        cluster.kubectl(&words).map(drop)
    }
}
