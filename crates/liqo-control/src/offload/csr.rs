//! Serving certificates of virtual kubelets: approved for them, and for nobody else.
//!
//! Keeps true: a request is approved only if it was made by the virtual kubelet of a peer's tenant
//! namespace and speaks of the node that stands for that peer. Anything else is left to others.
//!
//! Watches   `CertificateSigningRequest`s.
//! Writes    their approval.
//! Removes   nothing.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::ResourceExt;
use liqo_api::{ClusterIdentity, names};
use liqo_core::naming;
use liqo_kube::{
    KubeError, Queue, Store,
    certs::{self, Subject},
    drive, strip,
};

use super::Shared;

/// How soon to look again at a request of a peer not known.
const LATER: Duration = Duration::from_secs(60);
const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "beta.eks.amazonaws.com/app-serving"];
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

/// Runs for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let queue = Queue::new();
    let seen = queue.clone();
    let requests = shared.home.cluster.watch::<CertificateSigningRequest>("").trim(only_open).start(move |request| {
        if is_open(request) && SIGNERS.contains(&request.spec.signer_name.as_str()) {
            seen.push(request.name_any());
        }
    });
    shared.ready().await;
    requests.ready().await;
    let (shared, requests) = (&shared, &requests);
    drive("kubelet-csr", queue, 2, |name| settle(shared, requests, name)).await;
}

/// Of requests that are decided only the name is kept.
fn only_open(request: &mut CertificateSigningRequest) {
    strip(request);
    request.spec.extra = None;
    if !is_open(request) {
        request.spec.request.0 = Vec::new();
        if let Some(status) = &mut request.status {
            status.certificate = None;
        }
    }
}

fn is_open(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|status| status.conditions.as_ref()).is_none_or(Vec::is_empty)
}

async fn settle(
    shared: &Shared,
    requests: &Store<CertificateSigningRequest>,
    name: String,
) -> Result<Option<Duration>, KubeError> {
    let Some(request) = requests.get("", &name).filter(|request| is_open(request)) else { return Ok(None) };
    // Not a virtual kubelet's at all: not worth a word.
    let Some(namespace) = kubelet_namespace(&request) else { return Ok(None) };
    let peer = peer_of(shared, namespace);
    let subject =
        String::from_utf8(request.spec.request.0.clone()).ok().and_then(|pem| certs::request_subject(&pem).ok());
    match refusal(&request, subject.as_ref(), peer.as_ref()) {
        None => {
            shared.home.cluster.approve(&request, "LiqoApproval", "This CSR was approved by Liqo").await?;
            tracing::info!(csr = name, namespace, "serving certificate of a virtual kubelet approved");
        }
        Some(why) => {
            tracing::warn!(csr = name, namespace, reason = why, "signing request left alone");
            // The peer may become known.
            return Ok(peer.is_none().then_some(LATER));
        }
    }
    Ok(None)
}

/// The namespace of the virtual kubelet that made the request.
fn kubelet_namespace(request: &CertificateSigningRequest) -> Option<&str> {
    let account = request.spec.username.as_deref()?.strip_prefix("system:serviceaccount:")?;
    account.split_once(':').filter(|(_, name)| *name == names::VIRTUAL_KUBELET).map(|(namespace, _)| namespace)
}

/// The peer a namespace is dedicated to.
fn peer_of(shared: &Shared, namespace: &str) -> Option<ClusterIdentity> {
    shared.peer(&shared.ledger.peer_in(namespace)?)?.spec.cluster_identity.clone()
}

/// Why the request of a virtual kubelet is not approved.
fn refusal(
    request: &CertificateSigningRequest,
    subject: Option<&Subject>,
    peer: Option<&ClusterIdentity>,
) -> Option<String> {
    let Some(peer) = peer else {
        return Some("its namespace is not the tenant namespace of a known cluster".to_owned());
    };
    let Some(subject) = subject else { return Some("the request cannot be read".to_owned()) };
    let unique = format!("{}{}", names::VIRTUAL_NODE_PREFIX, naming::unique_name(peer));
    let nodes = [naming::virtual_node(peer), unique];
    if !nodes.iter().any(|node| subject.common_name == format!("system:node:{node}")) {
        return Some(format!("its common name is {:?}, not that of the node {}", subject.common_name, nodes[0]));
    }
    if subject.organizations != ["system:nodes"] {
        return Some(format!("its organizations are {:?}, not only system:nodes", subject.organizations));
    }
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    let other = usages.iter().find(|usage| !USAGES.contains(&usage.as_str()));
    other.map(|usage| format!("the usage {usage:?} is not one of {}", USAGES.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(user: &str, usages: &[&str]) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "csr-x"},
            "spec": {"signerName": SIGNERS[0], "request": "", "username": user, "usages": usages},
        }))
        .unwrap()
    }

    #[test]
    fn only_virtual_kubelets_are_considered() {
        for (user, wanted) in [
            ("system:serviceaccount:liqo-tenant-a:virtual-kubelet", Some("liqo-tenant-a")),
            ("system:serviceaccount:liqo-tenant-a:default", None),
            ("system:serviceaccount:liqo-tenant-a:virtual-kubelet:x", None),
            ("liqo-tenant-a:virtual-kubelet", None),
        ] {
            assert_eq!(kubelet_namespace(&request(user, &[])), wanted, "{user}");
        }
    }

    #[test]
    fn a_kubelet_gets_a_certificate_for_its_own_node_only() {
        let peer = ClusterIdentity::new("16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "provider");
        let good = ["digital signature", "server auth"];
        for (name, organization, usages, peer, approved) in [
            ("system:node:liqo-provider", "system:nodes", &good[..], Some(&peer), true),
            ("system:node:liqo-provider-ca6261", "system:nodes", &good, Some(&peer), true),
            ("system:node:liqo-provider", "system:nodes", &good, None, false),
            ("system:node:liqo-other", "system:nodes", &good, Some(&peer), false),
            ("system:node:worker-1", "system:nodes", &good, Some(&peer), false),
            ("liqo-provider", "system:nodes", &good, Some(&peer), false),
            ("system:node:liqo-provider", "system:masters", &good, Some(&peer), false),
            ("system:node:liqo-provider", "system:nodes", &["client auth"], Some(&peer), false),
        ] {
            let subject = Subject::new(name, organization);
            let refused = refusal(&request("", usages), Some(&subject), peer);
            assert_eq!(refused.is_none(), approved, "{name} {organization} {usages:?}: {refused:?}");
        }
        assert!(refusal(&request("", &good), None, Some(&peer)).is_some());
    }
}
