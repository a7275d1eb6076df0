//! The request of this cluster to a peer: what the request should say, and the writes that a plan asks for.

use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{PeeringType, ResourceRequest, ResourceRequestSpec},
    meta::label,
};
use liqo_kube::{KubeError, now, owner_reference};
use serde_json::{Map, Value, json};

use super::{
    Pass,
    plan::{Plan, Step},
};
use crate::COMPONENT;

impl Pass<'_> {
    /// Removes requests that carry the labels of this cluster but were not made by it.
    pub(super) async fn clear_false_requests(&self, tenant: &str) -> Result<(), KubeError> {
        let cluster = &self.world.home.cluster;
        for one in self.world.false_requests(tenant, self.one) {
            let why = "the request says that this cluster made it, which is not so: it is removed";
            self.world.told.warn((cluster, COMPONENT), &*one, "", "RequestIgnored", why).await;
            cluster.remove(&*one).await?;
        }
        Ok(())
    }

    /// The request as it should be.
    pub(super) fn desired(&self) -> Result<ResourceRequestSpec, String> {
        let cluster_identity = self.world.home.identity.clone();
        // In-band the peer reaches this cluster by the address that `liqoctl` gave to the peer.
        let auth_url = match (self.world.auth_url(), self.one.spec.peering_type) {
            (Err(_), PeeringType::InBand) => self.world.auth_url_inside()?,
            (url, _) => url?,
        };
        Ok(ResourceRequestSpec { cluster_identity, auth_url, withdrawal_timestamp: None })
    }

    /// Does to the request what the plan says.
    pub(super) async fn step(
        &self,
        plan: &Plan,
        peer: &ClusterIdentity,
        namespace: Option<&str>,
        request: Option<&ResourceRequest>,
    ) -> Result<(), KubeError> {
        let cluster = &self.world.home.cluster;
        match (&plan.step, request, namespace) {
            (Step::Write(spec), None, Some(namespace)) => {
                match cluster.create(&self.request(spec, peer, namespace)).await {
                    Ok(_) => tracing::info!(peer = peer.cluster_id, "resources requested"),
                    // This controller made the request a moment ago; the store will show it.
                    Err(error) if error.is_conflict() => {}
                    Err(error) => return Err(error),
                }
                Ok(())
            }
            (Step::Write(spec), Some(old), Some(namespace)) => {
                let wanted = self.request(spec, peer, namespace);
                let patch = json!({
                    "metadata": {
                        "labels": wanted.metadata.labels,
                        "ownerReferences": wanted.metadata.owner_references,
                        "resourceVersion": old.resource_version(),
                    },
                    "spec": replacement(&old.spec, &wanted.spec),
                });
                cluster.merge(old, patch).await.map(drop)
            }
            (Step::Withdraw, Some(old), _) => {
                tracing::info!(peer = peer.cluster_id, "request for resources withdrawn");
                cluster.merge(old, json!({"spec": {"withdrawalTimestamp": now()}})).await.map(drop)
            }
            (Step::Remove, Some(old), _) if old.metadata.deletion_timestamp.is_none() => cluster.remove(old).await,
            _ => Ok(()),
        }
    }

    fn request(&self, spec: &ResourceRequestSpec, peer: &ClusterIdentity, namespace: &str) -> ResourceRequest {
        let mut request = ResourceRequest::new(&self.world.home.identity.cluster_name, spec.clone());
        request.metadata.namespace = Some(namespace.to_owned());
        request.labels_mut().insert(label::REPLICATION.to_owned(), "true".to_owned());
        request.labels_mut().insert(label::REMOTE_ID.to_owned(), peer.cluster_id.clone());
        request.metadata.owner_references = Some(vec![owner_reference(self.one.as_ref(), true)]);
        request
    }
}

/// A merge patch that turns `old` into `new`, both being flat: fields that went become null.
fn replacement(old: &impl serde::Serialize, new: &impl serde::Serialize) -> Value {
    let object = |value: Result<Value, serde_json::Error>| match value {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(serde_json::to_value(old)), object(serde_json::to_value(new)));
    let gone = old.into_iter().filter(|(key, _)| !new.contains_key(key)).map(|(key, _)| (key, Value::Null));
    Value::Object(gone.chain(new.clone()).collect())
}
