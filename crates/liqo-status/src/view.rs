//! What one caller sees of the objects: a pure function of the objects and the caller's rights.
//!
//! Keeps true: nothing is shown, counted or summed up that the caller may not list.

mod needs;
mod peer;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::ResourceExt;
use liqo_api::offloading::NamespaceOffloading;
use liqo_core::{
    quantity::Amount,
    resources::{Half, Resources, add, of_pod},
};
use liqo_front::scope::Scope;

use crate::{
    model::{Capacity, Hidden, Level, Namespace, Overview, Peer, Pod},
    observe::Objects,
};

/// What a caller may list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) peers: Scope,
    pub(crate) nodes: Scope,
    pub(crate) tunnels: Scope,
    pub(crate) offloadings: Scope,
    pub(crate) pods: Scope,
}

/// Everything a caller sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) overview: Overview,
    pub(crate) peers: Vec<Peer>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
}

/// Pure: what a caller with these rights sees of the objects in the cluster of this name and ID.
pub(crate) fn view((name, id): &(String, String), objects: &Objects, rights: &Rights) -> View {
    let peers_seen = rights.peers == Scope::All;
    let mut peers: Vec<_> = if peers_seen {
        objects.peers.iter().map(|one| peer::peer(one, objects, rights)).collect()
    } else {
        Vec::new()
    };
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let offloadings = objects.offloadings.iter().filter(|one| rights.offloadings.has(&namespace_of(&***one)));
    let mut namespaces: Vec<_> = offloadings.map(|one| namespace(one)).collect();
    namespaces.sort_by(|a, b| a.name.cmp(&b.name));
    let mut pods: Vec<_> = elsewhere(objects, rights).map(pod).collect();
    pods.sort_by_key(Pod::key);
    let guests = objects.guests.iter().filter(|one| rights.pods.has(&namespace_of(&***one))).count();
    let (nodes_seen, pods_seen) = (rights.nodes == Scope::All, rights.pods == Scope::All);
    let overview = Overview {
        cluster_name: name.clone(),
        cluster_id: id.clone(),
        peers_established: peers_seen.then(|| peers.iter().filter(|one| one.state == peer::ESTABLISHED).count()),
        peers: peers_seen.then_some(peers.len()),
        namespaces: namespaces.len(),
        pods_elsewhere: pods.len(),
        pods_of_guests: guests,
        acquired: nodes_seen.then(|| capacity(&sum(objects.nodes.iter().map(|node| peer::offered(node))))),
        used: pods_seen.then(|| requested(elsewhere(objects, rights))),
        needs: needs::needs(&peers, &namespaces, &pods),
        hidden: hidden(rights),
    };
    View { overview, peers, namespaces, pods }
}

fn namespace_of<K: ResourceExt>(object: &K) -> String {
    object.namespace().unwrap_or_default()
}

/// Pods on virtual nodes that the caller may list. The label that they carry is a claim of whoever made them: a pod counts
/// by its node.
fn elsewhere<'a>(objects: &'a Objects, rights: &'a Rights) -> impl Iterator<Item = &'a KubePod> {
    let is_elsewhere = |one: &&KubePod| {
        let node = one.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node.is_some_and(|node| objects.nodes.iter().any(|virtual_one| virtual_one.name_any() == node))
    };
    let all = objects.elsewhere.iter().map(AsRef::as_ref);
    all.filter(is_elsewhere).filter(|one: &&KubePod| rights.pods.has(&namespace_of(*one)))
}

fn sum(all: impl Iterator<Item = Resources>) -> Resources {
    all.fold(Resources::new(), |mut sum, one| {
        add(&mut sum, &one);
        sum
    })
}

fn capacity(resources: &Resources) -> Capacity {
    let amount = |name: &str| resources.get(name).copied().unwrap_or_default();
    let (cpu, memory): (Amount, Amount) = (amount("cpu"), amount("memory"));
    Capacity { cpu_milli: cpu.nanos() / 1_000_000, memory_bytes: memory.units() }
}

/// What these pods request; those that have ended request nothing.
fn requested<'a>(pods: impl Iterator<Item = &'a KubePod>) -> Capacity {
    let runs = |one: &&KubePod| !matches!(phase(one), "Succeeded" | "Failed");
    capacity(&sum(pods.filter(runs).filter_map(|one| one.spec.as_ref()).map(|spec| of_pod(spec, Half::Requests))))
}

fn phase(pod: &KubePod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
}

fn pod(pod: &KubePod) -> Pod {
    let level = match phase(pod) {
        "Running" | "Succeeded" => Level::Good,
        "Pending" => Level::Waiting,
        _ => Level::Bad,
    };
    let said = pod.status.as_ref().map(|status| [status.reason.as_deref(), status.message.as_deref()]);
    let reason: Vec<_> = said.into_iter().flatten().flatten().filter(|text| !text.is_empty()).collect();
    Pod {
        namespace: namespace_of(pod),
        name: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        level,
        phase: phase(pod).to_owned(),
        reason: reason.join(": "),
    }
}

fn namespace(offloading: &NamespaceOffloading) -> Namespace {
    let status = offloading.status.clone().unwrap_or_default();
    let phase = status.offloading_phase.unwrap_or_else(|| "InProgress".to_owned());
    let level = match phase.as_str() {
        "Ready" => Level::Good,
        "InProgress" | "Terminating" | "NoClusterSelected" => Level::Waiting,
        _ => Level::Bad,
    };
    let failed = status.remote_namespaces_conditions.iter().flat_map(|(peer, conditions)| {
        let bad = conditions.iter().filter(|one| one.type_ == "Ready" && one.status != "True");
        bad.map(move |one| format!("{peer}: {}", one.message.as_deref().unwrap_or("not ready")))
    });
    Namespace {
        name: namespace_of(offloading),
        remote_name: status.remote_namespace_name.unwrap_or_default(),
        pods: format!("{:?}", offloading.spec.pod_offloading_strategy),
        level,
        reason: failed.collect::<Vec<_>>().join("; "),
        phase,
    }
}

/// What the caller may not see, said without looking whether there is any.
fn hidden(rights: &Rights) -> Vec<Hidden> {
    let kinds = [
        ("peers", "foreignclusters.discovery.liqo.io", &rights.peers),
        ("capacity", "nodes", &rights.nodes),
        ("round trip times", "tunnelendpoints.net.liqo.io", &rights.tunnels),
        ("offloaded namespaces", "namespaceoffloadings.offloading.liqo.io", &rights.offloadings),
        ("pods", "pods", &rights.pods),
    ];
    let limited = kinds.into_iter().filter(|(.., scope)| **scope != Scope::All);
    let told = limited.map(|(what, resource, scope)| Hidden {
        what: what.to_owned(),
        shown: match scope.only_in().unwrap_or_default().len() {
            0 => "none is shown".to_owned(),
            1 => "shown of 1 namespace".to_owned(),
            count => format!("shown of {count} namespaces"),
        },
        command: format!("kubectl auth can-i list {resource} --all-namespaces"),
    });
    told.collect()
}
