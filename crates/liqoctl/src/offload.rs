//! `liqoctl offload namespace`: extends a namespace to other clusters.
//!
//! Writes    `NamespaceOffloading` `offloading` in that namespace.
//! Keeps true: when the command has succeeded, pods created afterwards are placed as asked: the namespace
//! carries the label the pod webhook looks for.

mod selector;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{Namespace, NodeSelector};
use kube::{Resource, ResourceExt};
use liqo_api::{
    meta::label,
    names,
    offloading::{NamespaceMappingStrategy, NamespaceOffloading, NamespaceOffloadingSpec, PodOffloadingStrategy},
};
use liqo_kube::Cluster;
use serde_json::{Value, json};

use crate::{
    clusters::ConnectionArgs,
    completion, flag,
    out::{Format, Out},
    wait::{Deadline, Watched},
};

/// Namespaces that belong to Kubernetes or to Liqo.
const SYSTEM: [&str; 5] =
    ["kube-system", "kube-public", "kube-node-lease", names::LIQO_NAMESPACE, names::STORAGE_NAMESPACE];
const FAILED_WAITING: &str = "Failed waiting for offloading to complete";

/// Arguments of `offload`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct OffloadArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Offload a namespace to remote clusters
    ///
    /// A twin of the namespace is created in every selected remote cluster; pods created afterwards may run
    /// there, as the pod offloading strategy says. The namespace must exist.
    ///
    /// The selector is written as for `kubectl -l`; given several times, a cluster that matches any of them is
    /// selected. It is compared with the labels of the virtual nodes.
    ///
    /// Examples:
    ///   liqoctl offload namespace demo
    ///   liqoctl offload namespace demo --selector 'topology.kubernetes.io/region in (eu, us)' --selector 'gpu'
    ///   liqoctl offload namespace demo --pod-offloading-strategy Remote -o yaml
    #[command(visible_alias = "ns", verbatim_doc_comment)]
    Namespace(NamespaceArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct NamespaceArgs {
    /// Name of the namespace
    #[arg(add = clap_complete::ArgValueCompleter::new(completion::namespaces))]
    name: String,
    /// Where pods may run: LocalAndRemote, Remote or Local
    #[arg(long, default_value = "LocalAndRemote", value_parser = pods, value_name = "STRATEGY")]
    pod_offloading_strategy: PodOffloadingStrategy,
    /// How the remote namespaces are called: DefaultName or EnforceSameName
    #[arg(long, default_value = "DefaultName", value_parser = mapping, value_name = "STRATEGY")]
    namespace_mapping_strategy: NamespaceMappingStrategy,
    /// The timeout for completion
    #[arg(long, default_value = "20s", value_parser = flag::duration, value_name = "DURATION")]
    timeout: Duration,
    /// The selector to filter the target clusters. Can be specified multiple times, defining alternatives
    #[arg(short = 'l', long)]
    selector: Vec<String>,
    /// Print the NamespaceOffloading instead of creating it
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

fn pods(text: &str) -> Result<PodOffloadingStrategy, String> {
    match text {
        "LocalAndRemote" => Ok(PodOffloadingStrategy::LocalAndRemote),
        "Remote" => Ok(PodOffloadingStrategy::Remote),
        "Local" => Ok(PodOffloadingStrategy::Local),
        _ => Err(format!("{text} is not included in LocalAndRemote,Remote,Local")),
    }
}

fn mapping(text: &str) -> Result<NamespaceMappingStrategy, String> {
    match text {
        "DefaultName" => Ok(NamespaceMappingStrategy::DefaultName),
        "EnforceSameName" => Ok(NamespaceMappingStrategy::EnforceSameName),
        _ => Err(format!("{text} is not included in DefaultName,EnforceSameName")),
    }
}

/// `liqoctl offload …`
pub(crate) async fn run(args: OffloadArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let What::Namespace(args) = args.what;
    let NamespaceArgs { name, pod_offloading_strategy, namespace_mapping_strategy, timeout, selector, output } = args;
    let terms = selector.iter().map(|one| selector::parse(one)).collect::<Result<_, _>>();
    let spec = NamespaceOffloadingSpec {
        namespace_mapping_strategy,
        pod_offloading_strategy,
        cluster_selector: Some(NodeSelector { node_selector_terms: terms.map_err(|why| anyhow!(why))? }),
    };
    if let Some(format) = output {
        return Out::new(true).value(&manifest(&name, &spec), format);
    }
    let (out, deadline) = (Out::new(false), Deadline::after(timeout));
    let cluster = connection.open().await?.cluster;
    enable(&cluster, &name, &spec, out).await.context("Failed enabling namespace offloading")?;
    wait(&cluster, &name, spec.pod_offloading_strategy, deadline, out).await
}

/// The object as `kubectl` prints one.
fn manifest(namespace: &str, spec: &NamespaceOffloadingSpec) -> Value {
    json!({
        "apiVersion": NamespaceOffloading::api_version(&()),
        "kind": NamespaceOffloading::kind(&()),
        "metadata": {"name": names::NAMESPACE_OFFLOADING, "namespace": namespace, "creationTimestamp": null},
        "spec": spec,
        "status": {},
    })
}

async fn enable(cluster: &Cluster, name: &str, spec: &NamespaceOffloadingSpec, out: Out) -> anyhow::Result<()> {
    let step = out.step(format!("Enabling namespace offloading for {name:?}"));
    let namespace: Option<Namespace> = cluster.get("", name).await?;
    check(name, namespace.as_ref()).map_err(|why| anyhow!(why))?;
    let old: Option<NamespaceOffloading> = cluster.get(name, names::NAMESPACE_OFFLOADING).await?;
    if old.as_ref().is_some_and(|old| old.metadata.deletion_timestamp.is_some()) {
        bail!("an earlier offloading of namespace {name:?} is still being removed: try again in a moment");
    }
    match &old {
        Some(old) => cluster.merge(old, json!({ "spec": spec })).await?,
        None => {
            let mut made = NamespaceOffloading::new(names::NAMESPACE_OFFLOADING, spec.clone());
            made.metadata.namespace = Some(name.to_owned());
            cluster.create(&made).await?
        }
    };
    step.done(format!("Offloading of namespace {name:?} correctly enabled"));
    if old.is_some_and(|old| is_narrower(old.spec.pod_offloading_strategy, spec.pod_offloading_strategy)) {
        out.warn("The PodOffloadingStrategy was mutated to a more restrictive setting");
        out.warn("Existing pods violating this policy might still be running");
    }
    Ok(())
}

/// Pure: whether this namespace may be offloaded.
fn check(name: &str, namespace: Option<&Namespace>) -> Result<(), String> {
    let Some(namespace) = namespace else {
        return Err(format!("namespaces {name:?} not found: create it first (`kubectl create namespace {name}`)"));
    };
    let labelled = |key: &str| namespace.labels().contains_key(key);
    if SYSTEM.contains(&name) || labelled(label::TENANT_NAMESPACE) || labelled(label::STORAGE_PROVISIONER) {
        return Err(format!("{name:?} is a system namespace, which cannot be offloaded"));
    }
    if labelled(label::REMOTE_CLUSTER_ID) {
        return Err(format!("namespace {name:?} is itself offloaded from another cluster"));
    }
    if namespace.metadata.deletion_timestamp.is_some() {
        return Err(format!("namespace {name:?} is being deleted"));
    }
    Ok(())
}

fn is_narrower(old: PodOffloadingStrategy, new: PodOffloadingStrategy) -> bool {
    old != new && new != PodOffloadingStrategy::LocalAndRemote
}

async fn wait(
    cluster: &Cluster,
    name: &str,
    strategy: PodOffloadingStrategy,
    deadline: Deadline,
    out: Out,
) -> anyhow::Result<()> {
    let step = out.step("Waiting for offloading to complete");
    let watched = Watched::<NamespaceOffloading>::one(cluster, name, names::NAMESPACE_OFFLOADING);
    let settled = watched.until(deadline, |all| all.first().and_then(|one| settled(one))).await;
    let phase =
        settled.with_context(|| format!("{FAILED_WAITING}: {}", stand(watched.now().first().map(AsRef::as_ref))));
    let phase = phase.map_err(swap)?;
    if phase == "SomeFailed" || phase == "AllFailed" {
        let stand = stand(watched.now().first().map(AsRef::as_ref));
        bail!("{FAILED_WAITING}: the offloading is in {phase:?} state: {stand}");
    }
    if strategy != PodOffloadingStrategy::Local {
        let namespace = Watched::<Namespace>::one(cluster, "", name);
        let labelled =
            |one: &Namespace| one.labels().get(label::SCHEDULING_ENABLED).is_some_and(|value| value == "true");
        let enabled = namespace.until(deadline, |all| all.iter().any(|one| labelled(one)).then_some(())).await;
        enabled.with_context(|| {
            format!("{FAILED_WAITING}: the namespace has no label {}=true", label::SCHEDULING_ENABLED)
        })?;
    }
    if phase == "NoClusterSelected" {
        step.warn("Offloading completed, but no cluster was selected");
    } else {
        step.done("Offloading completed successfully");
    }
    Ok(())
}

/// Moves the last state in an error message behind its cause.
fn swap(error: anyhow::Error) -> anyhow::Error {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((what, stand)) => anyhow!("{what}: {}: {stand}", error.root_cause()),
        None => error,
    }
}

/// The phase, once it speaks of what we wrote and is final.
fn settled(offloading: &NamespaceOffloading) -> Option<String> {
    let status = offloading.status.as_ref()?;
    let current = status.observed_generation == offloading.metadata.generation;
    let phase = status.offloading_phase.clone()?;
    (current && ["Ready", "NoClusterSelected", "SomeFailed", "AllFailed"].contains(&phase.as_str())).then_some(phase)
}

/// How the offloading stands, and which cluster lacks what.
fn stand(offloading: Option<&NamespaceOffloading>) -> String {
    let Some(status) = offloading.and_then(|one| one.status.as_ref()) else {
        return "nothing has been reported yet: is liqo-controller-manager running? See `liqoctl status`".to_owned();
    };
    let conditions =
        status.remote_namespaces_conditions.iter().flat_map(|(peer, all)| all.iter().map(move |one| (peer, one)));
    let failing = conditions.filter(|(_, one)| one.type_ == "Ready" && one.status != "True");
    let told: Vec<_> = failing
        .map(|(peer, one)| {
            let words = [one.reason.as_deref(), one.message.as_deref()].into_iter().flatten().collect::<Vec<_>>();
            format!("{peer}: {}", words.join(", "))
        })
        .collect();
    let phase = status.offloading_phase.as_deref().unwrap_or("unknown");
    if told.is_empty() { format!("the offloading is in {phase:?} state") } else { told.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offloading(status: Value) -> NamespaceOffloading {
        let mut value = manifest("demo", &NamespaceOffloadingSpec::default());
        value["metadata"]["generation"] = 2.into();
        value["status"] = status;
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_a_final_phase_of_this_generation_counts() {
        for (phase, generation, wanted) in [
            ("Ready", 2, Some("Ready")),
            ("NoClusterSelected", 2, Some("NoClusterSelected")),
            ("SomeFailed", 2, Some("SomeFailed")),
            ("Ready", 1, None),
            ("InProgress", 2, None),
        ] {
            let one = offloading(json!({"offloadingPhase": phase, "observedGeneration": generation}));
            assert_eq!(settled(&one).as_deref(), wanted, "{phase} {generation}");
        }
    }

    #[test]
    fn a_failure_names_the_cluster() {
        let ready =
            json!({"type": "Ready", "status": "False", "reason": "CreationLoopBackOff", "message": "name taken"});
        let one = offloading(
            json!({"offloadingPhase": "AllFailed", "remoteNamespacesConditions": {"milan-ca6261": [ready]}}),
        );
        assert_eq!(stand(Some(&one)), "milan-ca6261: CreationLoopBackOff, name taken");
    }

    #[test]
    fn system_namespaces_are_refused() {
        let namespace =
            |labels: Value| serde_json::from_value::<Namespace>(json!({"metadata": {"labels": labels}})).unwrap();
        let plain = namespace(json!({}));
        assert_eq!(check("demo", Some(&plain)), Ok(()));
        assert_eq!(check("default", Some(&plain)), Ok(()));
        assert!(check("demo", None).unwrap_err().contains("not found"));
        for name in SYSTEM {
            assert!(check(name, Some(&plain)).unwrap_err().contains("system namespace"), "{name}");
        }
        let tenant = namespace(json!({"discovery.liqo.io/tenant-namespace": "true"}));
        assert!(check("liqo-tenant-milan-ca6261", Some(&tenant)).is_err());
        assert!(
            check("demo", Some(&namespace(json!({"liqo.io/remote-cluster-id": "x"}))))
                .unwrap_err()
                .contains("itself offloaded")
        );
    }

    #[test]
    fn the_manifest_is_the_documented_one() {
        let spec = NamespaceOffloadingSpec {
            cluster_selector: Some(NodeSelector::default()),
            ..NamespaceOffloadingSpec::default()
        };
        let wanted = json!({"apiVersion": "offloading.liqo.io/v1alpha1", "kind": "NamespaceOffloading",
            "metadata": {"name": "offloading", "namespace": "demo", "creationTimestamp": null},
            "spec": {"clusterSelector": {"nodeSelectorTerms": []}, "namespaceMappingStrategy": "DefaultName", "podOffloadingStrategy": "LocalAndRemote"},
            "status": {}});
        assert_eq!(manifest("demo", &spec), wanted);
    }

    #[test]
    fn leaving_a_place_is_narrower() {
        use PodOffloadingStrategy::{Local, LocalAndRemote, Remote};
        assert!(
            is_narrower(LocalAndRemote, Local) && is_narrower(Remote, Local) && is_narrower(LocalAndRemote, Remote)
        );
        assert!(!is_narrower(Local, LocalAndRemote) && !is_narrower(Local, Local));
    }
}
