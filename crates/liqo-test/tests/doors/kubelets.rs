//! What a virtual kubelet may write in its own cluster.

use anyhow::{Context, Result, bail, ensure};
use liqo_test::{Cluster, run::feed};
use serde_json::json;

use super::older::By;

/// The node of the virtual kubelet.
const NODE: &str = "liqo-rome";

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The request is admitted.
    Done,
    /// No role gives the right.
    NoRight,
    /// A role gives the right, and a rule for virtual kubelets refuses.
    Refused,
}

use End::{Done, NoRight, Refused};

/// Arguments of kubectl, its input, and what comes of them.
type Case = (Vec<String>, String, End);

/// Whoever takes over a virtual kubelet can write the node of that virtual kubelet, its lease and the pods on it in offloaded
/// namespaces, and no others. All writes are dry runs.
pub(crate) fn are_held_to_their_node(milan: &Cluster, by: By) -> Result<()> {
    let tenants = milan.items(&["namespaces", "-l", "discovery.liqo.io/tenant-namespace=true"])?;
    ensure!(tenants.len() == 1, "one tenant namespace is expected, not {}", tenants.len());
    let tenant = tenants[0]["metadata"]["name"].as_str().unwrap_or_default();
    let account = format!("--as=system:serviceaccount:{tenant}:virtual-kubelet");
    for (args, manifest, end) in nodes_and_leases(milan).into_iter().chain(pods(milan)?) {
        let outcome = feed(milan.kubectl_command().args(&args).arg(&account), &manifest);
        match (&outcome, end) {
            (Ok(_), Done) => {}
            (Err(error), Refused) if by.refused(error) => {}
            (Err(error), NoRight) if format!("{error:#}").contains("cannot") => {}
            _ => bail!("as a virtual kubelet, {args:?} ({manifest}): {outcome:?}, not {end:?} by {by:?}"),
        }
    }
    Ok(())
}

fn nodes_and_leases(milan: &Cluster) -> Vec<Case> {
    let patch = |node: &str| dry(&["patch", "node", node, "-p", r#"{"metadata":{"labels":{"story":"told"}}}"#]);
    let stranger = "apiVersion: v1\nkind: Node\nmetadata: {name: stranger}";
    let lease = |name: &str, namespace: &str| {
        let meta = json!({"name": name, "namespace": namespace});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}).to_string()
    };
    let create = || dry(&["create", "-f", "-"]);
    vec![
        (patch(NODE), String::new(), Done),
        (patch(&milan.first()), String::new(), NoRight),
        (create(), stranger.to_owned(), Refused),
        (create(), lease("stranger", "kube-node-lease"), Refused),
        (create(), lease(NODE, "demo"), Refused),
    ]
}

fn pods(milan: &Cluster) -> Result<Vec<Case>> {
    let pods = milan.pods("demo", "app")?;
    let on = |wanted: bool| {
        let found = pods.iter().find(|(_, node)| (node == NODE) == wanted);
        found.map(|(name, _)| name.as_str()).context("the pods are on both nodes")
    };
    let (remote, local) = (on(true)?, on(false)?);
    let elsewhere = milan.pods("liqo", "app.kubernetes.io/part-of=liqo")?;
    let (elsewhere, _) = elsewhere.first().context("a pod of the product")?;
    let delete = |namespace: &str, pod: &str| (dry(&["delete", "pod", "-n", namespace, pod]), String::new());
    let case = |(args, manifest), end| (args, manifest, end);
    Ok(vec![
        case(status(milan, "demo", remote)?, Done),
        case(status(milan, "demo", local)?, Refused),
        case(status(milan, "liqo", elsewhere)?, NoRight),
        case(delete("demo", remote), Done),
        case(delete("demo", local), Refused),
        case(delete("liqo", elsewhere), NoRight),
        case(evict("demo", remote), Done),
        case(evict("liqo", elsewhere), NoRight),
    ])
}

fn dry(words: &[&str]) -> Vec<String> {
    words.iter().chain(&["--dry-run=server"]).map(|&word| word.to_owned()).collect()
}

/// The status of a pod, written as it is. (kubectl reads a status before it writes it, which a virtual kubelet may not.)
fn status(milan: &Cluster, namespace: &str, pod: &str) -> Result<(Vec<String>, String)> {
    let mut object = milan.json(&["pod", "-n", namespace, pod])?;
    object["metadata"].as_object_mut().map(|meta| meta.remove("resourceVersion"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/status?dryRun=All");
    Ok((["replace", "--raw", &path, "-f", "-"].map(str::to_owned).to_vec(), object.to_string()))
}

fn evict(namespace: &str, pod: &str) -> (Vec<String>, String) {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction?dryRun=All");
    let meta = json!({"name": pod, "namespace": namespace});
    let what = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta});
    (["create", "--raw", &path, "-f", "-"].map(str::to_owned).to_vec(), what.to_string())
}
