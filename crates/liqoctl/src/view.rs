//! A peer as programs read it: the shape of `-o json` and `-o yaml`.

use std::collections::BTreeMap;

use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus, PeeringEnabled, PeeringType},
    meta::annotation,
};
use serde::Serialize;

use crate::{peer::identity, status::network::NetworkView};

/// One peer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PeerView {
    /// Name of the ForeignCluster.
    pub(crate) name: String,
    #[serde(rename = "clusterID")]
    pub(crate) cluster_id: String,
    pub(crate) cluster_name: String,
    #[serde(rename = "type")]
    pub(crate) kind: PeeringType,
    pub(crate) outgoing_peering_enabled: PeeringEnabled,
    pub(crate) incoming_peering_enabled: PeeringEnabled,
    pub(crate) auth_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy_url: Option<String>,
    /// `Cordoned`, `Drained` or `Banned`, when the peer is granted less than its ForeignCluster says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant_condition: Option<String>,
    /// By type.
    pub(crate) conditions: BTreeMap<String, ConditionView>,
    /// The network to the peer, where Liqo connects it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkView>,
    /// What we may use of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acquired: Option<BTreeMap<String, String>>,
    /// What the peer may use of us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shared: Option<BTreeMap<String, String>>,
}

/// How one aspect stands.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConditionView {
    pub(crate) status: PeeringConditionStatus,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl PeerView {
    /// The peer, without its resources.
    pub(crate) fn of(foreign: &ForeignCluster) -> Self {
        let who = identity(foreign);
        let conditions = foreign.status.iter().flat_map(|status| &status.peering_conditions).map(|one| {
            let view = ConditionView { status: one.status, reason: one.reason.clone(), message: one.message.clone() };
            (format!("{:?}", one.type_), view)
        });
        Self {
            name: foreign.name_any(),
            cluster_id: who.cluster_id,
            cluster_name: who.cluster_name,
            kind: foreign.spec.peering_type,
            outgoing_peering_enabled: foreign.spec.outgoing_peering_enabled,
            incoming_peering_enabled: foreign.spec.incoming_peering_enabled,
            auth_url: foreign.spec.foreign_auth_url.clone(),
            proxy_url: foreign.spec.foreign_proxy_url.clone(),
            tenant_condition: foreign.annotations().get(annotation::TENANT_CONDITION).cloned(),
            conditions: conditions.collect(),
            network: None,
            acquired: None,
            shared: None,
        }
    }

    /// The status of an aspect by its name; what was never reported is not there.
    pub(crate) fn status(&self, aspect: &str) -> PeeringConditionStatus {
        self.conditions.get(aspect).map(|condition| condition.status).unwrap_or_default()
    }
}
