//! What the active gateway writes so that others find it.
//!
//! Writes: the label `net.liqo.io/gateway` of all gateway Pods, the annotation `net.liqo.io/gatewayNodeIP` of the
//! Service `liqo-gateway`. The annotation goes first: nodes follow it, peers' packets follow the label.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use liqo_kube::{Cluster, KubeError, Store};
use serde_json::json;

use crate::layout::{GATEWAY_LABEL, GATEWAY_NODE_IP, GATEWAY_SERVICE};

/// Makes this pod the one that is found.
pub(crate) async fn announce(
    cluster: &Cluster,
    me: &str,
    node: IpAddr,
    pods: &Store<Pod>,
    services: &Store<Service>,
) -> Result<(), KubeError> {
    let service = services.all().into_iter().find(|service| service.name_any() == GATEWAY_SERVICE);
    if let Some(service) =
        service.filter(|service| service.annotations().get(GATEWAY_NODE_IP) != Some(&node.to_string()))
    {
        let patch = json!({"metadata": {"annotations": {GATEWAY_NODE_IP: node.to_string()}}});
        cluster.merge(&*service, patch).await?;
    }
    for (pod, label) in labels(&pods.all(), me) {
        let patch = json!({"metadata": {"uid": pod.uid(), "labels": {GATEWAY_LABEL: label}}});
        match cluster.merge(pod, patch).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The pods whose label is not right, each with the right one.
fn labels<'p>(pods: &'p [std::sync::Arc<Pod>], me: &str) -> Vec<(&'p Pod, &'static str)> {
    let right = |pod: &Pod| if pod.name_any() == me { "active" } else { "standby" };
    let wrong = pods.iter().filter(|pod| pod.labels().get(GATEWAY_LABEL).map(String::as_str) != Some(right(pod)));
    wrong.map(|pod| (&**pod, right(pod))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn one_is_active_and_only_wrong_labels_are_written() {
        let pod = |name: &str, label: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.into());
            pod.metadata.labels = Some([(GATEWAY_LABEL.to_owned(), label.to_owned())].into());
            Arc::new(pod)
        };
        let pods = [pod("a", "standby"), pod("b", "active"), pod("c", "standby")];
        let wrong: Vec<_> = labels(&pods, "a").into_iter().map(|(pod, label)| (pod.name_any(), label)).collect();
        assert_eq!(wrong, [("a".to_owned(), "active"), ("b".to_owned(), "standby")]);
    }
}
