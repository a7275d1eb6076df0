//! What a peering consists of in one cluster: objects, and what becomes of those that exist. Whoever peers clusters, a person
//! with `liqoctl` or a program, writes these.
//!
//! Keeps true: nothing is planned over an earlier peering that is still being taken down; a known peer keeps its name and its
//! wishes. Plans carry the version of what they were made of, so that a write over newer state is a conflict.

pub mod in_band;
pub mod out_of_band;

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringConditionType},
    meta::label,
    names,
    net::NetworkConfigSpec,
};
use serde_json::Value;

use crate::decision;

/// What to do about the `ForeignCluster` of a peer.
#[derive(Clone, Debug)]
pub enum Plan {
    /// An earlier peering is still being taken down under this name.
    Wait(String),
    /// The peer is new: create this `ForeignCluster`.
    Create(Box<ForeignCluster>),
    /// The peer is known: apply this merge patch to its `ForeignCluster`. The patch names the version of the object.
    Update(Box<ForeignCluster>, Value),
}

/// What a peer is told about the tunnel of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Address or name.
    pub address: String,
    /// UDP port.
    pub port: u16,
    /// WireGuard key, in base64.
    pub public_key: String,
}

/// Key of [`NetworkConfigSpec::backend_config`]: UDP port of the gateway.
pub const PORT: &str = "port";
/// The only VPN technology.
const BACKEND: &str = "wireguard";

/// What `peer` is told about the networks of this cluster: that of pods, that of exported addresses, and the gateway.
pub fn networks(peer: &ClusterIdentity, [pods, external]: [String; 2], gateway: &Gateway) -> NetworkConfigSpec {
    let parameters = [(PORT, gateway.port.to_string()), ("publicKey", gateway.public_key.clone())];
    NetworkConfigSpec {
        cluster: peer.clone(),
        pod_cidr: pods,
        external_cidr: external,
        endpoint_ip: gateway.address.clone(),
        backend_type: BACKEND.to_owned(),
        backend_config: parameters.map(|(key, value)| (key.to_owned(), value)).into(),
    }
}

/// How an aspect of a peering stands; [`PeeringConditionStatus::None`] where nothing was reported.
pub fn status(foreign: &ForeignCluster, aspect: PeeringConditionType) -> PeeringConditionStatus {
    let conditions = foreign.status.iter().flat_map(|status| &status.peering_conditions);
    conditions.into_iter().find(|condition| condition.type_ == aspect).map(|found| found.status).unwrap_or_default()
}

/// The cluster ID of a peer as its `ForeignCluster` says it, or else the label; empty while neither says it.
pub fn id_of(foreign: &ForeignCluster) -> &str {
    let labelled = foreign.metadata.labels.as_ref().and_then(|labels| labels.get(label::CLUSTER_ID));
    match decision::id_of(foreign) {
        "" => labelled.map(String::as_str).unwrap_or_default(),
        id => id,
    }
}

/// Whether a `ForeignCluster`, or its earlier outgoing peering, is being taken down.
pub fn is_leaving(foreign: &ForeignCluster) -> bool {
    let outgoing = status(foreign, PeeringConditionType::OutgoingPeering);
    foreign.metadata.deletion_timestamp.is_some() || outgoing == PeeringConditionStatus::Disconnecting
}

/// Name of the Secret with the token that this cluster shows to the peer with this ID.
pub fn token_name(peer: &str) -> String {
    format!("{}{peer}", names::REMOTE_TOKEN_PREFIX)
}

/// The Secret with the token that this cluster shows to the peer with this ID, in the namespace Liqo is installed in.
pub fn token_secret(token: &str, peer: &str, namespace: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(token_name(peer)),
            namespace: Some(namespace.to_owned()),
            labels: labels([(label::CLUSTER_ID, peer), (label::AUTH_TOKEN, "")]),
            ..ObjectMeta::default()
        },
        data: Some([(names::TOKEN_KEY.to_owned(), ByteString(token.as_bytes().to_vec()))].into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// The namespace `name`, for what is exchanged with `peer`.
pub fn tenant_namespace(name: &str, peer: &ClusterIdentity) -> Namespace {
    let labels = labels([(label::CLUSTER_ID, &peer.cluster_id), (label::TENANT_NAMESPACE, "true")]);
    Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() },
        ..Namespace::default()
    }
}

fn labels<const N: usize>(labels: [(&str, &str); N]) -> Option<BTreeMap<String, String>> {
    Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
}

fn name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_token_secret_is_the_recorded_one() {
        let secret = serde_json::to_value(token_secret("t", "id", "liqo")).unwrap();
        assert_eq!(secret["metadata"]["name"], "remote-token-id");
        assert_eq!(
            secret["metadata"]["labels"],
            json!({"discovery.liqo.io/auth-token": "", "discovery.liqo.io/cluster-id": "id"})
        );
        assert_eq!(secret["data"], json!({"token": "dA=="}));
    }
}
