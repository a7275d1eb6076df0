//! Where the store is, for workers: the endpoints of its Service, copied from the own namespace into the namespace of the jobs.
//!
//! Workers find the store as the Service `liqo-results` in their namespace, in this cluster and, since the namespace is offloaded, in
//! others. That Service has no selector: the store is no pod of the namespace.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::ObjectMeta;
use liqo_api::{
    jobs::{STORE_SERVICE, WORKER_SERVICE},
    meta::label,
};
use liqo_kube::{Cluster, KubeError, Queue, Store};

use crate::settle::Key;

/// Who keeps the copies, for Kubernetes.
const MANAGER: &str = "liqo-jobs";
/// How often somebody who changed a copy is overruled.
const AGAIN: Duration = Duration::from_secs(300);

pub(crate) fn watch(cluster: &Cluster, own: &str, queue: Queue<Key>) -> Store<EndpointSlice> {
    let of_store = format!("{}={STORE_SERVICE}", label::SERVICE_NAME);
    cluster.watch::<EndpointSlice>(own).labels(&of_store).start(move |_| queue.push(Key::Endpoints))
}

/// Writes the copies.
pub(crate) async fn copy(
    cluster: &Cluster,
    namespace: &str,
    slices: &[Arc<EndpointSlice>],
) -> Result<Option<Duration>, KubeError> {
    for copy in copies(namespace, slices) {
        cluster.apply(&copy).await?;
    }
    Ok(Some(AGAIN))
}

/// One slice for each family of addresses.
fn copies(namespace: &str, slices: &[Arc<EndpointSlice>]) -> Vec<EndpointSlice> {
    let mut families: BTreeMap<&str, EndpointSlice> = BTreeMap::new();
    for slice in slices {
        let copy = families.entry(&slice.address_type).or_insert_with(|| EndpointSlice {
            address_type: slice.address_type.clone(),
            metadata: metadata(namespace, &slice.address_type),
            ports: slice.ports.clone(),
            endpoints: None,
        });
        copy.endpoints.get_or_insert_default().extend(slice.endpoints.iter().flatten().cloned());
    }
    families.into_values().collect()
}

fn metadata(namespace: &str, family: &str) -> ObjectMeta {
    let labels = [(label::SERVICE_NAME, WORKER_SERVICE), (label::ENDPOINT_SLICE_MANAGED_BY, MANAGER)];
    ObjectMeta {
        name: Some(format!("{WORKER_SERVICE}-{}", family.to_ascii_lowercase())),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_copy_has_all_endpoints_of_its_family() {
        let slice = |family: &str, addresses: &[&str]| {
            let endpoints: Vec<_> = addresses.iter().map(|one| json!({"addresses": [one]})).collect();
            let ports = json!([{"name": "s3", "port": 9000, "protocol": "TCP"}]);
            let value = json!({"addressType": family, "endpoints": endpoints, "ports": ports});
            Arc::new(serde_json::from_value(value).expect("a slice"))
        };
        assert!(copies("liqo-jobs", &[]).is_empty());
        let all = [
            slice("IPv4", &["10.0.0.1"]),
            slice("IPv6", &["fd00::1"]),
            slice("IPv4", &["10.0.0.2"]),
            slice("IPv4", &[]),
        ];
        let found = copies("liqo-jobs", &all);
        let seen: Vec<_> = found
            .iter()
            .map(|copy| {
                (
                    copy.name_any(),
                    copy.endpoints.iter().flatten().flat_map(|one| one.addresses.clone()).collect::<Vec<_>>(),
                )
            })
            .collect();
        let wanted = [("liqo-results-ipv4", vec!["10.0.0.1", "10.0.0.2"]), ("liqo-results-ipv6", vec!["fd00::1"])];
        assert_eq!(seen, wanted.map(|(name, all)| (name.to_owned(), all.into_iter().map(str::to_owned).collect())));
        assert!(found.iter().all(|copy| copy.labels()[label::SERVICE_NAME] == WORKER_SERVICE && copy.ports.is_some()));
    }
}
