//! Makes the namespaces that a map asks for, each with the role and the quota of the peer, and deletes the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::Namespace,
    rbac::v1::{RoleBinding, RoleRef, Subject},
};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{
    meta::annotation,
    names,
    virtualkubelet::{MappingPhase, NamespaceMap},
};
use liqo_core::grants::Grant;
use liqo_kube::KubeError;
use serde_json::json;

use super::{
    super::{is_leaving, is_original, strip},
    Loop, Rules, id, is_in,
    plan::{Owner, Step, is_marked, look, originals, owner_of, within},
    status::{Left, Outcome},
};

/// Namespaces of one map handled at the same time.
const AT_ONCE: usize = 8;

impl Loop {
    /// Makes the namespaces that the map asks for; several at once, one failure does not stop the others.
    pub(super) async fn make(
        &self,
        map: &NamespaceMap,
        origin: &str,
        desired: &BTreeMap<String, String>,
        grant: Grant,
    ) -> Vec<Outcome> {
        let is_there = |original: &str, name: &str| {
            let namespace = self.shared.memory.namespaces.get("", name);
            namespace.as_deref().and_then(owner_of) == Some(Owner { map: id(map), original: original.to_owned() })
        };
        let allowed = self.allowed(map, origin, desired);
        let one = |(original, name): (&String, &String)| {
            let owner = Owner { map: id(map), original: original.clone() };
            let (name, tenant) = (name.clone(), map.namespace().unwrap_or_default());
            let refused = match () {
                () if !allowed.contains(original) => {
                    let most = self.rules.namespaces_per_peer;
                    Some(format!("a peer may have {most} namespaces here (offloading.namespacesPerPeer)"))
                }
                () if !grant.may_grow() && !is_there(original, &name) => Some(self.why(origin, grant)),
                () => None,
            };
            async move {
                let result = match refused {
                    Some(why) => Ok(Err(why)),
                    None => self.make_one(&owner, origin, &name, &tenant).await,
                };
                if let Ok(made) = &result {
                    self.tell(map, &name, made.as_ref().err()).await;
                }
                Outcome { original: owner.original, name, result }
            }
        };
        // Collected first: what is borrowed from the map must not be borrowed across the stream.
        let all: Vec<_> = desired.iter().map(one).collect();
        futures::stream::iter(all).buffer_unordered(AT_ONCE).collect().await
    }

    /// The entries of a map within the limit of its peer, which all maps of the peer share.
    fn allowed(&self, map: &NamespaceMap, origin: &str, desired: &BTreeMap<String, String>) -> BTreeSet<String> {
        let tenant = map.namespace().unwrap_or_default();
        let is_beside = |one: &NamespaceMap| one.namespace().as_ref() == Some(&tenant) && one.uid() != map.uid();
        let beside = self.shared.memory.maps.filter(|one| is_beside(one) && !is_original(one) && !is_leaving(one));
        let age = |one: &NamespaceMap| (one.metadata.creation_timestamp.clone().map(|time| time.0), one.name_any());
        let mut maps: Vec<_> = beside.iter().map(|one| (age(one), id(one), &one.spec.desired_mapping)).collect();
        maps.push((age(map), id(map), desired));
        maps.sort_by(|one, other| one.0.cmp(&other.0));
        let maps: Vec<_> = maps.into_iter().map(|(_, id, desired)| (id, desired)).collect();
        let there = self.shared.memory.namespaces.filter(|one| is_marked(one, origin));
        let there = there.iter().filter_map(|one| Some((owner_of(one)?, one.name_any())));
        let there: Vec<_> = there.filter(|(owner, _)| is_in(&owner.map, &tenant)).collect();
        within(&id(map), &maps, &there, self.rules.namespaces_per_peer)
    }

    async fn make_one(
        &self,
        owner: &Owner,
        origin: &str,
        name: &str,
        tenant: &str,
    ) -> Result<Result<MappingPhase, String>, KubeError> {
        let cluster = &self.shared.home.cluster;
        let mut there = self.shared.memory.namespaces.get("", name);
        if there.is_none() && look(owner, origin, name, None, &self.rules) == Step::Create {
            match cluster.create(&forge(owner, origin, name, &self.rules)).await {
                Ok(made) => {
                    tracing::info!(namespace = name, map = owner.map, "namespace created for a peer");
                    there = Some(Arc::new(made));
                }
                // Somebody made the namespace in the meantime.
                Err(error) if error.is_conflict() => there = cluster.get("", name).await?.map(Arc::new),
                Err(error) => return Err(error),
            }
        }
        match look(owner, origin, name, there.as_deref(), &self.rules) {
            Step::Refuse(why) => {
                self.unbind(&owner.map, name, tenant).await?;
                Ok(Err(why))
            }
            Step::Wait => Ok(Ok(MappingPhase::Terminating)),
            // The namespace is gone again already; its end wakes the map.
            Step::Create => Ok(Ok(MappingPhase::CreationLoopBackOff)),
            Step::Keep { label: wrong } => {
                if let Some(there) = there.filter(|_| wrong) {
                    let meta = json!({"uid": there.uid(), "labels": self.rules.labels(origin)});
                    cluster.merge(&*there, json!({ "metadata": meta })).await?;
                }
                self.quotas.limit(cluster, name).await?;
                self.bind(owner, origin, name, tenant).await?;
                Ok(Ok(MappingPhase::Accepted))
            }
        }
    }

    /// Binds the peer to its role in the namespace, whatever somebody has made of the binding.
    async fn bind(&self, owner: &Owner, origin: &str, namespace: &str, tenant: &str) -> Result<(), KubeError> {
        let wanted = binding(owner, origin, namespace, tenant);
        match self.bindings.get(namespace, tenant) {
            Some(is) if binding_like(&is, &wanted) => return Ok(()),
            // A role reference cannot be changed.
            Some(is) if is.role_ref != wanted.role_ref => self.shared.home.cluster.remove(&*is).await?,
            _ => {}
        }
        self.shared.home.cluster.apply(&wanted).await.map(drop)
    }

    /// Takes back the role that a map gave its peer in a namespace.
    async fn unbind(&self, map: &str, namespace: &str, tenant: &str) -> Result<(), KubeError> {
        match self.bindings.get(namespace, tenant).filter(|binding| is_of(binding, map)) {
            Some(binding) => self.shared.home.cluster.remove(&*binding).await,
            None => Ok(()),
        }
    }

    /// Deletes the namespaces with the peer's label that the peer no longer asks for. Returns the namespaces that are still being
    /// deleted, and when to look again at namespaces that finalizers hold.
    pub(super) async fn clear(
        &self,
        map: &NamespaceMap,
        origin: &str,
        desired: &BTreeMap<String, String>,
        grant: Grant,
    ) -> (Left, Option<Duration>) {
        let (id, tenant) = (id(map), map.namespace().unwrap_or_default());
        let cluster = &self.shared.home.cluster;
        let (mut left, mut again) = (Vec::new(), None::<Duration>);
        let mut outcome = Ok(());
        for namespace in self.shared.memory.namespaces.filter(|one| owner_of(one).is_some_and(|owner| owner.map == id))
        {
            let original = owner_of(&namespace).map(|owner| owner.original).unwrap_or_default();
            let name = namespace.name_any();
            if desired.get(&original) == Some(&name) {
                continue;
            }
            let is_theirs = is_marked(&namespace, origin) && !self.rules.is_system(&name);
            if !is_theirs || !grant.is_in_force() {
                outcome = self.unbind(&id, &name, &tenant).await.and(outcome);
            }
            if !is_theirs {
                continue;
            }
            left.push((original, name.clone()));
            if !grant.is_in_force() {
                match strip::namespace(cluster, &namespace).await {
                    Ok(held) => again = again.into_iter().chain(held).min(),
                    Err(error) => outcome = Err(error),
                }
            }
            if is_leaving(&*namespace) {
                continue;
            }
            match cluster.remove(&*namespace).await {
                Ok(()) => tracing::info!(namespace = namespace.name_any(), map = id, "namespace of a peer deleted"),
                Err(error) => outcome = Err(error),
            }
        }
        (outcome.map(|()| left), again)
    }
}

fn forge(owner: &Owner, origin: &str, name: &str, rules: &Rules) -> Namespace {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(rules.labels(origin)),
        annotations: Some(originals(owner)),
        ..ObjectMeta::default()
    };
    Namespace { metadata, ..Namespace::default() }
}

fn binding(owner: &Owner, origin: &str, namespace: &str, tenant: &str) -> RoleBinding {
    let annotations = BTreeMap::from([(annotation::MANAGED_BY_NAMESPACE_MAP.to_owned(), owner.map.clone())]);
    let group = Some("rbac.authorization.k8s.io".to_owned());
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(tenant.to_owned()),
            namespace: Some(namespace.to_owned()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: group.clone(),
            kind: "ClusterRole".to_owned(),
            name: names::VIRTUAL_KUBELET_REMOTE_ROLE.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: group,
            kind: "User".to_owned(),
            name: origin.to_owned(),
            namespace: None,
        }]),
    }
}

/// Whether a binding was made for a map.
fn is_of(binding: &RoleBinding, map: &str) -> bool {
    binding.annotations().get(annotation::MANAGED_BY_NAMESPACE_MAP).is_some_and(|owner| owner == map)
}

/// Whether a binding gives what it should, no more and no less.
fn binding_like(is: &RoleBinding, wanted: &RoleBinding) -> bool {
    let owner = |one: &RoleBinding| one.annotations().get(annotation::MANAGED_BY_NAMESPACE_MAP).cloned();
    is.role_ref == wanted.role_ref && is.subjects == wanted.subjects && owner(is) == owner(wanted)
}

#[cfg(test)]
mod tests {
    use liqo_api::meta::label;

    use super::*;

    #[test]
    fn the_namespace_is_the_one_recorded_from_a_real_cluster() {
        let owner =
            Owner { map: "liqo-tenant-consumer-ed03b8/provider-ca6261".to_owned(), original: "demo".to_owned() };
        let rules = Rules {
            own: Default::default(),
            reserved: Vec::new(),
            free: Vec::new(),
            pod_security: "baseline".to_owned(),
            namespaces_per_peer: 64,
            objects: Vec::new(),
        };
        let made = forge(&owner, "09897b82", "demo-consumer-ed03b8", &rules);
        assert_eq!(made.labels().get("pod-security.kubernetes.io/enforce").map(String::as_str), Some("baseline"));
        assert_eq!(made.labels().get(label::REMOTE_CLUSTER_ID).map(String::as_str), Some("09897b82"));
        assert_eq!(made.annotations().get("liqo.io/original-name").map(String::as_str), Some("demo"));
        assert_eq!(owner_of(&made), Some(owner));
    }

    #[test]
    fn a_tampered_binding_is_noticed() {
        let owner = Owner { map: "tenant/map".to_owned(), original: "demo".to_owned() };
        let wanted = binding(&owner, "id", "demo-x", "tenant");
        assert!(binding_like(&wanted, &wanted));
        let changes: [fn(&mut RoleBinding); 4] = [
            |one| one.subjects = None,
            |one| one.subjects.as_mut().unwrap()[0].name = "somebody".to_owned(),
            |one| one.role_ref.name = "cluster-admin".to_owned(),
            |one| one.metadata.annotations = None,
        ];
        for change in changes {
            let mut is = wanted.clone();
            change(&mut is);
            assert!(!binding_like(&is, &wanted));
        }
    }
}
