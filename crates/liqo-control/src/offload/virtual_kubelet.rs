//! The virtual kubelet of an accepted offer: `ServiceAccount`, `RoleBinding` in the tenant namespace, `Deployment`, and
//! its rights on its node ([`node`]). What it may do in offloaded namespaces is bound by [`super::access`].
//!
//! Keeps true: what runs is what this version and its flags ask for, also after an upgrade; nothing is
//! written when nothing has changed; two peers that share a name do not share a node.
//!
//! Watches   nothing, the controller of offers calls it.
//! Writes    `ServiceAccount` and `Deployment` `virtual-kubelet`, `RoleBinding` `liqo-virtual-kubelet-…`; what
//!           [`node`] writes.
//! Removes   the same.

mod arguments;
mod node;
mod pod;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{Node, PodTemplateSpec, ServiceAccount},
        rbac::v1::{RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{ResourceExt, core::ObjectMeta};
use liqo_api::{
    ClusterIdentity,
    discovery::ForeignCluster,
    meta::{annotation, label},
    names,
    sharing::ResourceOffer,
};
use liqo_core::{naming, quantity::Amount};
use liqo_kube::{KubeError, Object, twin};

use crate::{
    args::{KubeletArgs, map},
    home::Home,
};

/// Value of `app.kubernetes.io/managed-by`, as Liqo 0.8.3 has it.
const MANAGER: &str = "advertisementoperator";

/// Whether the flags about virtual kubelets can be used in a pod.
///
/// # Errors
/// A text that names the flag, its value and what is allowed.
pub(super) fn check(args: &KubeletArgs) -> Result<(), String> {
    for (flag, value) in [
        ("kubelet-cpu-requests", &args.kubelet_cpu_requests),
        ("kubelet-cpu-limits", &args.kubelet_cpu_limits),
        ("kubelet-ram-requests", &args.kubelet_ram_requests),
        ("kubelet-ram-limits", &args.kubelet_ram_limits),
    ] {
        if !value.is_empty() && Amount::parse(value).is_none() {
            return Err(format!("--{flag} {value:?} must be a quantity like 250m or 128Mi"));
        }
    }
    if args.kubelet_metrics_enabled && pod::metrics_port(args).is_none() {
        let address = &args.kubelet_metrics_address;
        return Err(format!("--kubelet-metrics-address {address:?} must end with a port, like :8080"));
    }
    Ok(())
}

/// Makes the virtual kubelet of an accepted offer what it should be. Its rights and its Deployment are written at the same time:
/// the rights are there before its process is.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn ensure(
    home: &Home,
    args: &KubeletArgs,
    offer: &ResourceOffer,
    fc: &ForeignCluster,
) -> Result<(), KubeError> {
    let namespace = offer.namespace().unwrap_or_default();
    let peer = fc.spec.cluster_identity.clone().unwrap_or_default();
    let current = home.cluster.get::<Deployment>(&namespace, names::VIRTUAL_KUBELET).await?;
    let node = match current.as_ref().and_then(node_name) {
        Some(node) => node,
        None => choose_node_name(home, &peer).await?,
    };
    // First the account: Kubernetes refuses pods of an account that does not exist, and retries with growing pauses.
    keep(home, &namespace, service_account(&namespace)).await?;
    let binding = role_binding(&namespace, &namespace, &peer, names::VIRTUAL_KUBELET_TENANT_ROLE);
    let wanted = deployment(home, args, offer, &peer, &node);
    // A failure of one write does not stop the others: a refused Deployment must not keep an old right in place.
    let (written, granted, bound) = tokio::join!(
        keep_deployment(home, current, wanted),
        node::grant(home, &namespace, &peer, &node),
        keep(home, &namespace, binding),
    );
    written.and(granted).and(bound)
}

/// Makes the Deployment what it should be; `current` is the Deployment now.
async fn keep_deployment(home: &Home, current: Option<Deployment>, wanted: Deployment) -> Result<(), KubeError> {
    match current {
        Some(current) if current.metadata.deletion_timestamp.is_some() => Ok(()),
        Some(current) if selects_others(&current, &wanted) => {
            // A selector cannot be changed. The node stays while a virtual kubelet restarts.
            home.cluster.remove(&current).await?;
            home.cluster.apply(&wanted).await.map(drop)
        }
        Some(current) if !twin::differs(&wanted, &current) => Ok(()),
        _ => home.cluster.apply(&wanted).await.map(drop),
    }
}

/// Removes the virtual kubelet of an offer; `true` when it is gone.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn remove(home: &Home, offer: &ResourceOffer, peer: &ClusterIdentity) -> Result<bool, KubeError> {
    let namespace = offer.namespace().unwrap_or_default();
    let deployment = drop_one::<Deployment>(home, &namespace, names::VIRTUAL_KUBELET).await?;
    let node = node::withdraw(home, peer).await?;
    let tenant = drop_one::<RoleBinding>(home, &namespace, &binding_name(peer)).await?;
    let account = drop_one::<ServiceAccount>(home, &namespace, names::VIRTUAL_KUBELET).await?;
    Ok(deployment && node && tenant && account)
}

/// Deletes an object; `true` when it is gone.
async fn drop_one<K: Object>(home: &Home, namespace: &str, name: &str) -> Result<bool, KubeError> {
    match home.cluster.get::<K>(namespace, name).await? {
        None => Ok(true),
        Some(object) => {
            home.cluster.remove(&object).await?;
            Ok(home.cluster.get::<K>(namespace, name).await?.is_none())
        }
    }
}

/// Applies an object unless it looks like that already.
async fn keep<K: Object>(home: &Home, namespace: &str, wanted: K) -> Result<(), KubeError> {
    match home.cluster.get::<K>(namespace, &wanted.name_any()).await? {
        Some(current) if !twin::differs(&wanted, &current) => Ok(()),
        _ => home.cluster.apply(&wanted).await.map(drop),
    }
}

/// The node a running virtual kubelet stands for: once chosen, the name stays.
fn node_name(deployment: &Deployment) -> Option<String> {
    let spec = deployment.spec.template.spec.as_ref()?;
    let mut args = spec.containers.first()?.args.iter().flatten();
    args.find_map(|arg| arg.strip_prefix("--nodename=")).map(str::to_owned)
}

/// `liqo-<name>`, or `liqo-<unique name>` when another peer has or may take that name.
async fn choose_node_name(home: &Home, peer: &ClusterIdentity) -> Result<String, KubeError> {
    let usual = naming::virtual_node(peer);
    let node = home.cluster.get::<Node>("", &usual).await?;
    let id = |node: &Node| node.labels().get(label::REMOTE_CLUSTER_ID).cloned();
    let taken = node.is_some_and(|node| id(&node).as_deref() != Some(&peer.cluster_id));
    if taken || home.cluster.list::<ForeignCluster>("", "").await?.iter().any(|other| namesake(other, peer)) {
        return Ok(format!("{}{}", names::VIRTUAL_NODE_PREFIX, naming::unique_name(peer)));
    }
    Ok(usual)
}

/// Whether `other` is another cluster with the name of `peer`.
fn namesake(other: &ForeignCluster, peer: &ClusterIdentity) -> bool {
    let identity = other.spec.cluster_identity.as_ref();
    identity.is_some_and(|it| it.cluster_name == peer.cluster_name && it.cluster_id != peer.cluster_id)
}

/// Whether the pods we want are not those the Deployment looks after.
fn selects_others(current: &Deployment, wanted: &Deployment) -> bool {
    current.spec.selector != wanted.spec.selector
}

fn service_account(namespace: &str) -> ServiceAccount {
    ServiceAccount { metadata: meta(namespace, names::VIRTUAL_KUBELET), ..ServiceAccount::default() }
}

fn binding_name(peer: &ClusterIdentity) -> String {
    format!("{}{}", names::VIRTUAL_KUBELET_BINDING_PREFIX, naming::unique_name(peer))
}

/// Gives the virtual kubelet of a peer, which lives in the namespace `tenant`, a role in another namespace.
pub(super) fn role_binding(namespace: &str, tenant: &str, peer: &ClusterIdentity, name: &str) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta { labels: Some(own_labels(peer)), ..meta(namespace, &binding_name(peer)) },
        role_ref: role(name),
        subjects: Some(vec![account(tenant)]),
    }
}

fn role(name: &str) -> RoleRef {
    RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "ClusterRole".to_owned(),
        name: name.to_owned(),
    }
}

fn account(namespace: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: names::VIRTUAL_KUBELET.to_owned(),
        namespace: Some(namespace.to_owned()),
        api_group: None,
    }
}

fn deployment(
    home: &Home,
    args: &KubeletArgs,
    offer: &ResourceOffer,
    peer: &ClusterIdentity,
    node: &str,
) -> Deployment {
    let namespace = offer.namespace().unwrap_or_default();
    let own = own_labels(peer);
    let mut labels = map(&args.kubelet_extra_labels);
    labels.extend(own.clone());
    let extra = map(&args.kubelet_extra_annotations);
    let mut annotations = extra.clone();
    annotations.insert(annotation::RESOURCE_OFFER.to_owned(), offer.name_any());
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels.clone()),
            annotations: (!extra.is_empty()).then_some(extra),
            ..ObjectMeta::default()
        }),
        spec: Some(pod::spec(args, arguments::of((&home.identity, &home.networks), args, offer, peer, node))),
    };
    Deployment {
        metadata: ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..meta(&namespace, names::VIRTUAL_KUBELET)
        },
        spec: DeploymentSpec {
            // Our own labels alone: flags may change the others, a selector may never change.
            selector: LabelSelector { match_labels: Some(own), ..LabelSelector::default() },
            template,
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

fn own_labels(peer: &ClusterIdentity) -> BTreeMap<String, String> {
    owned(&[
        (label::APP_NAME, names::VIRTUAL_KUBELET),
        ("app.kubernetes.io/instance", names::VIRTUAL_KUBELET),
        ("app.kubernetes.io/component", names::VIRTUAL_KUBELET),
        (label::APP_PART_OF, "liqo"),
        (label::APP_MANAGED_BY, MANAGER),
        (label::CLUSTER_ID, &peer.cluster_id),
    ])
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    use super::*;
    use crate::args::ManagerArgs;

    fn manager(flags: &[&str]) -> KubeletArgs {
        let flags = ["liqo-controller-manager", "--cluster-name=consumer"].iter().chain(flags);
        ManagerArgs::parse_from(flags).kubelets
    }

    #[test]
    fn flags_no_pod_can_have_are_refused_at_the_start() {
        assert_eq!(check(&manager(&["--kubelet-cpu-requests=250m", "--kubelet-ram-limits=1Gi"])), Ok(()));
        let error = check(&manager(&["--kubelet-ram-limits=plenty"])).unwrap_err();
        assert!(error.contains("--kubelet-ram-limits \"plenty\""), "{error}");
        assert!(check(&manager(&["--kubelet-metrics-address=x", "--kubelet-metrics-enabled=true"])).is_err());
    }

    #[test]
    fn the_name_of_a_node_stays_once_it_is_chosen() {
        let mut one = Deployment::default();
        assert_eq!(node_name(&one), None);
        let container = Container { args: Some(vec!["--nodename=liqo-x".to_owned()]), ..Container::default() };
        let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
        one.spec.template = PodTemplateSpec { spec: Some(spec), ..PodTemplateSpec::default() };
        assert_eq!(node_name(&one).as_deref(), Some("liqo-x"));
    }
}
