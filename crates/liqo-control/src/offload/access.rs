//! The rights of virtual kubelets in namespaces of this cluster: a virtual kubelet has rights only in namespaces that are
//! offloaded to its provider.
//!
//! Keeps true: a virtual kubelet reads Secrets and asks for tokens in exactly the namespaces that a `NamespaceOffloading` asks its
//! provider for and that its map names, and never in those of this cluster or of Liqo; what somebody made of a binding, or of a
//! map, gives no rights. When an offloaded namespace is deleted, the rights in the namespace end after the last pod of the namespace on the
//! virtual node: only the virtual kubelet can end pods of the virtual node.
//!
//! Watches   `NamespaceMap` originals, `NamespaceOffloading`s, virtual `Node`s, `RoleBinding`s of virtual kubelets.
//! Writes    a `RoleBinding` `liqo-virtual-kubelet-…` in each offloaded namespace.
//! Removes   the same, where the namespace is no longer offloaded.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Pod, rbac::v1::RoleBinding};
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    meta::{finalizer, label},
    names,
    virtualkubelet::NamespaceMap,
};
use liqo_core::mapping;
use liqo_kube::{KubeError, Queue, Store, drive, told::Told, twin};

use super::{
    Shared, is_leaving, is_original,
    namespace::{EntryState, entry_state},
    provider_of,
    virtual_kubelet::role_binding,
};
use crate::COMPONENT;

/// How soon to look again for a namespace, or a peer, that is not known yet.
const LATER: Duration = Duration::from_millis(300);
/// Pause between two looks whether pods of a namespace that is deleted have ended.
const ENDING: Duration = Duration::from_secs(1);

/// Runs for ever. The queue names providers, by ID.
pub(crate) async fn run(shared: Arc<Shared>, queue: Queue<String>) {
    let seen = queue.clone();
    let bindings = shared.memory.bindings.listen(move |binding| {
        let is_ours = binding.labels().get(label::APP_NAME).is_some_and(|name| name == names::VIRTUAL_KUBELET);
        if let Some(provider) = binding.labels().get(label::CLUSTER_ID).filter(|_| is_ours) {
            seen.push(provider.clone());
        }
    });
    shared.ready().await;
    bindings.ready().await;
    let told = Told::default();
    drive("virtual-kubelet-access", queue, 2, |id| settle(&shared, &bindings, &told, id)).await;
}

async fn settle(
    shared: &Shared,
    bindings: &Store<RoleBinding>,
    told: &Told,
    id: String,
) -> Result<Option<Duration>, KubeError> {
    // A map that is being deleted still counts: its virtual kubelet removes the reflected objects first.
    let maps = shared.memory.maps.filter(|map| is_original(map) && provider_of(map) == id);
    let peer = shared.peer(&id).and_then(|peer| peer.spec.cluster_identity.clone());
    let mut wanted = BTreeMap::new();
    let mut again = None;
    if let Some(peer) = &peer {
        for map in &maps {
            for (namespace, binding) in bindings_of(map, peer, &shared.home.namespace) {
                let is_bound = bindings.get(&namespace, &binding.name_any()).is_some();
                let state = entry_state(shared, map, &namespace);
                if grants(state, is_bound) {
                    wanted.insert(namespace, binding);
                } else if state == EntryState::Unasked && !is_bound {
                    let why = format!("no NamespaceOffloading asks this provider for the namespace {namespace:?}");
                    told.warn((&shared.home.cluster, COMPONENT), &**map, &namespace, "MappingIgnored", &why).await;
                }
            }
        }
        let there = |name: &str| shared.memory.namespaces.get("", name).is_some_and(|one| !is_leaving(&*one));
        let all = wanted.len();
        wanted.retain(|name, _| there(name));
        again = (wanted.len() < all).then_some(LATER);
    } else if !maps.is_empty() {
        return Ok(Some(LATER));
    }
    let own = |one: &RoleBinding| one.role_ref.name == names::VIRTUAL_KUBELET_NAMESPACE_ROLE;
    let is = bindings.filter(|one| own(one) && one.labels().get(label::CLUSTER_ID) == Some(&id));
    let cluster = &shared.home.cluster;
    for binding in is.iter().filter(|one| is_leaving(&***one)) {
        if is_needed(shared, binding, &id).await? {
            again = Some(again.map_or(ENDING, |again| again.min(ENDING)));
        } else {
            cluster.release(&**binding, finalizer::VIRTUAL_KUBELET_RIGHTS).await?;
        }
    }
    for binding in is.iter().filter(|one| !is_leaving(&***one)) {
        let namespace = binding.namespace().unwrap_or_default();
        if wanted.get(&namespace).is_none_or(|wanted| wanted.name_any() != binding.name_any()) {
            tracing::info!(peer = id, namespace, "virtual kubelet no longer reads the namespace");
            cluster.remove(&**binding).await?;
        }
    }
    for (namespace, wanted) in &wanted {
        let current = bindings.get(namespace, &wanted.name_any());
        let current = match current {
            Some(current) if is_leaving(&*current) => continue,
            Some(current) if !twin::differs(wanted, &current) => current.as_ref().clone(),
            _ => cluster.apply(wanted).await?,
        };
        if !is_held(&current) {
            cluster.hold(&current, finalizer::VIRTUAL_KUBELET_RIGHTS).await?;
        }
    }
    Ok(again)
}

fn is_held(binding: &RoleBinding) -> bool {
    binding.finalizers().iter().any(|one| one == finalizer::VIRTUAL_KUBELET_RIGHTS)
}

/// Whether a binding that is being deleted must stay a while: its namespace is deleted, too, and has pods on the provider's virtual node.
async fn is_needed(shared: &Shared, binding: &RoleBinding, provider: &str) -> Result<bool, KubeError> {
    let namespace = binding.namespace().unwrap_or_default();
    let is_ending = shared.memory.namespaces.get("", &namespace).is_some_and(|one| is_leaving(&*one));
    if !is_held(binding) || !is_ending {
        return Ok(false);
    }
    let nodes: Vec<_> = shared.memory.nodes.filter(|node| provider_of(node) == provider);
    let pods = shared.home.cluster.list::<Pod>(&namespace, "").await?;
    Ok(pods.iter().any(|pod| is_on(pod, nodes.iter().map(|node| node.name_any()))))
}

/// Whether a pod is on one of these nodes.
fn is_on(pod: &Pod, mut nodes: impl Iterator<Item = String>) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| nodes.any(|one| one == node))
}

/// Whether a virtual kubelet has rights in a namespace. While nothing is decided, it keeps what it has.
fn grants(state: EntryState, is_bound: bool) -> bool {
    state == EntryState::Asked || state == EntryState::Undecided && is_bound
}

/// The bindings a map asks for, by namespace.
fn bindings_of(map: &NamespaceMap, peer: &ClusterIdentity, home: &str) -> Vec<(String, RoleBinding)> {
    let tenant = map.namespace().unwrap_or_default();
    let system = |name: &str| name == home || name == tenant || mapping::stays_here(name);
    let names = map.spec.desired_mapping.keys().filter(|name| !system(name));
    names
        .map(|name| {
            let binding = role_binding(name, &tenant, peer, names::VIRTUAL_KUBELET_NAMESPACE_ROLE);
            (name.clone(), binding)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use liqo_api::virtualkubelet::NamespaceMapSpec;

    use super::*;

    #[test]
    fn rights_follow_what_is_asked_for() {
        for (state, unbound, bound) in
            [(EntryState::Asked, true, true), (EntryState::Undecided, false, true), (EntryState::Unasked, false, false)]
        {
            assert_eq!((grants(state, false), grants(state, true)), (unbound, bound), "{state:?}");
        }
    }

    #[test]
    fn a_virtual_kubelet_reads_offloaded_namespaces_and_no_others() {
        let names = ["demo", "kube-system", "liqo", "liqo-tenant-victim-1", "liqo-tenant-p"];
        let desired_mapping = names.map(|name| (name.to_owned(), format!("{name}-there"))).into();
        let mut map = NamespaceMap::new("p", NamespaceMapSpec { desired_mapping });
        map.metadata.namespace = Some("liqo-tenant-p".to_owned());
        let all = bindings_of(&map, &ClusterIdentity::new("16fbeaec", "provider"), "liqo");
        let [(namespace, binding)] = &all[..] else { panic!("{all:?}") };
        assert_eq!((namespace.as_str(), binding.namespace().as_deref()), ("demo", Some("demo")));
        assert_eq!(binding.role_ref.name, "liqo-virtual-kubelet-namespace");
        let subject = &binding.subjects.as_ref().unwrap()[0];
        assert_eq!((subject.name.as_str(), subject.namespace.as_deref()), ("virtual-kubelet", Some("liqo-tenant-p")));
    }
}
