//! What must be undone before Liqo can go.

use std::fmt::Write;

use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type},
    offloading::NamespaceOffloading,
};

use crate::condition;

/// Pure: nothing depends on Liqo, or what to do about it.
pub(crate) fn check(peers: &[ForeignCluster], offloadings: &[NamespaceOffloading]) -> Result<(), String> {
    let peers = |wanted: fn(&ForeignCluster) -> bool| {
        peers.iter().filter(|one| wanted(one)).map(ResourceExt::name_any).collect()
    };
    let blocks: [(&str, Vec<String>); 4] = [
        (
            "disable outgoing peering for clusters:",
            peers(|one| condition::status(one, Type::OutgoingPeering) != Status::None),
        ),
        (
            "disable incoming peering for clusters:",
            peers(|one| condition::status(one, Type::IncomingPeering) != Status::None),
        ),
        (
            "disable networking for clusters:",
            peers(|one| condition::status(one, Type::NetworkStatus) == Status::Established),
        ),
        ("disable offloading for namespaces:", offloadings.iter().filter_map(ResourceExt::namespace).collect()),
    ];
    let mut text = String::new();
    for (what, names) in blocks.iter().filter(|(_, names)| !names.is_empty()) {
        let _ = write!(text, "\n{what}");
        for name in names {
            let _ = write!(text, "\n- {name}");
        }
    }
    if text.is_empty() { Ok(()) } else { Err(format!("you should:{text}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_dependency_is_named() {
        let peer: ForeignCluster = serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "milan"},
            "spec": {"foreignAuthUrl": "https://a.b"}, "status": {"peeringConditions": [
                {"type": "OutgoingPeering", "status": "Established"}, {"type": "NetworkStatus", "status": "External"}]}}))
        .unwrap();
        let offloading: NamespaceOffloading = serde_json::from_value(json!({
            "apiVersion": "offloading.liqo.io/v1alpha1", "kind": "NamespaceOffloading",
            "metadata": {"name": "offloading", "namespace": "demo"}, "spec": {}}))
        .unwrap();
        assert_eq!(
            check(&[peer], &[offloading]).unwrap_err(),
            "you should:\ndisable outgoing peering for clusters:\n- milan\ndisable offloading for namespaces:\n- demo"
        );
        assert_eq!(check(&[], &[]), Ok(()));
    }
}
