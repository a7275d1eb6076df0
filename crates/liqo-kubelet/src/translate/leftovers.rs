//! Mappings that an earlier process asked for and did not live to give back.
//!
//! The `NatMapping` of the peer says what is mapped for it. What of that no endpoint needs any more is given
//! back. Addresses of Services are left alone: no endpoint has one, those were mapped for others (by `liqoctl`, for
//! in-band peering), or for the alias of the API server.
//!
//! Meanwhile a leftover is an answer: so after a restart endpoints keep their addresses though the IPAM is away.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use liqo_api::{meta::label, net::NatMapping};
use liqo_kube::{Cluster, KubeError};

use super::{asker::Asker, memory::User};
use crate::reflect::Pairs;

/// How leftovers are called as users.
const SCOPE: &str = "leftovers";
/// Pause before the API server is asked again.
const RETRY: Duration = Duration::from_secs(10);
/// Pause between two looks at leftovers that are still needed.
const AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Leftovers {
    pub(super) home: Cluster,
    pub(super) peer: String,
    pub(super) asker: Arc<Asker>,
    pub(super) pairs: Arc<Pairs>,
}

impl Leftovers {
    /// Runs for ever; there is nothing to do any more when the last leftover is gone.
    pub(super) async fn run(self) {
        let mut is_told = false;
        let mut all = loop {
            match self.find().await {
                Ok(all) => break all,
                Err(error) if is_told => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "mappings still not known");
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "mappings of an earlier process are not known, what it took stays taken");
                    is_told = true;
                }
            }
            tokio::time::sleep(RETRY).await;
        };
        while !all.is_empty() {
            self.pairs.known().await;
            all.retain(|ip| !self.is_over(*ip));
            tokio::time::sleep(AGAIN).await;
        }
        std::future::pending().await
    }

    fn user(ip: IpAddr) -> User {
        User { scope: SCOPE.into(), name: ip.to_string() }
    }

    /// What is mapped already; remembered, and held until judged.
    async fn find(&self) -> Result<BTreeSet<IpAddr>, KubeError> {
        let selector = format!("{}={}", label::TUNNEL_CLUSTER_ID, self.peer);
        let mut found = endpoints(&self.home.list::<NatMapping>("", &selector).await?);
        if !found.is_empty() {
            let services = self.home.list::<Service>("", "").await?;
            found.retain(|ip, _| !services.iter().any(|service| has_address(service, *ip)));
        }
        for (ip, answer) in &found {
            self.asker.wish(&Self::user(*ip), BTreeSet::from([*ip]));
            self.asker.memory().recall(*ip, *answer);
        }
        Ok(found.into_keys().collect())
    }

    /// Whether an address is no leftover any more: some object wants it, or none ever will. The asker gives it
    /// back when nobody wants it.
    fn is_over(&self, ip: IpAddr) -> bool {
        let is_wanted = self.asker.memory().is_wanted_elsewhere(ip, SCOPE);
        // A slice that has not been looked at yet.
        let is_over = is_wanted || !self.pairs.has_endpoint(ip);
        if is_over {
            self.asker.wish(&Self::user(ip), BTreeSet::new());
        }
        is_over
    }
}

fn has_address(service: &Service, ip: IpAddr) -> bool {
    let addresses = service.spec.as_ref().and_then(|spec| spec.cluster_ips.as_ref());
    addresses.into_iter().flatten().any(|address| address.parse() == Ok(ip))
}

/// The endpoints that are mapped, with the addresses the peer uses. The tunnel's own address is none.
fn endpoints(mappings: &[NatMapping]) -> BTreeMap<IpAddr, IpAddr> {
    let pairs = mappings.iter().flat_map(|mapping| &mapping.spec.cluster_mappings);
    let parsed = pairs.filter_map(|(from, to)| Some((from.parse::<IpAddr>().ok()?, to.parse().ok()?)));
    parsed.filter(|(from, _)| !matches!(from, IpAddr::V4(ip) if ip.is_link_local())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_mapped_is_read_from_the_recorded_mapping_without_the_tunnel() {
        let recorded: NatMapping = serde_json::from_value(json!({
            "metadata": {"name": "natmapping-9qwrp", "labels": {"clusterID": "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9"}},
            "spec": {
                "clusterID": "16fbeaec-e4e4-41dc-9eea-170ce95d7dd9", "externalCIDR": "10.98.0.0/16", "podCIDR": "10.245.0.0/16",
                "clusterMappings": {"10.96.0.1": "10.98.0.2", "169.254.0.1": "10.98.0.1", "nonsense": "10.98.0.9"},
            },
        }))
        .unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(endpoints(&[recorded]), BTreeMap::from([(ip("10.96.0.1"), ip("10.98.0.2"))]));
    }

    #[test]
    fn addresses_of_services_are_recognised_in_every_family() {
        let service: Service =
            serde_json::from_value(json!({"spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}}))
                .unwrap();
        for (address, is_its) in [("10.96.0.1", true), ("fd00:0::1", true), ("10.96.0.2", false)] {
            assert_eq!(has_address(&service, address.parse().unwrap()), is_its, "{address}");
        }
        let headless: Service = serde_json::from_value(json!({"spec": {"clusterIPs": ["None"]}})).unwrap();
        assert!(!has_address(&headless, "10.96.0.1".parse().unwrap()));
    }
}
