//! The objects that count between this cluster and a peer, and the grants that follow from them.
//!
//! A tenant namespace holds our originals and the peer's copies side by side, and labels say which is which. Labels
//! alone are claims: here, once for all controllers, is decided which object is our request, the peer's request, our
//! offer, the peer's offer.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    discovery::{ForeignCluster, ResourceRequest},
    meta::{finalizer, label},
    sharing::ResourceOffer,
};
use liqo_core::{
    decision::{is_banned, peer_of_tenant, precedence},
    grants::{self, Grants, Policy, Seen},
    naming,
};
use liqo_kube::{Object, Store, now};

use crate::peering::{foul, is_nobody};
pub(crate) use liqo_core::decision::id_of;

/// The stores of every kind on which grants depend.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) here: ClusterIdentity,
    pub(crate) policy: Policy,
    pub(crate) foreign_clusters: Store<ForeignCluster>,
    pub(crate) namespaces: Store<Namespace>,
    pub(crate) requests: Store<ResourceRequest>,
    pub(crate) offers: Store<ResourceOffer>,
}

impl Ledger {
    /// Returns when everything is known.
    pub(crate) async fn ready(&self) {
        self.foreign_clusters.ready().await;
        self.namespaces.ready().await;
        self.requests.ready().await;
        self.offers.ready().await;
    }

    /// The `ForeignCluster` of a peer; of several `ForeignCluster`s of one peer one counts, see [`precedence`].
    pub(crate) fn foreign_cluster(&self, peer: &str) -> Option<Arc<ForeignCluster>> {
        let all = self.foreign_clusters.filter(|one| id_of(one) == peer);
        all.into_iter().min_by(|one, other| precedence(one).cmp(&precedence(other)))
    }

    /// The peer a tenant namespace is shared with.
    pub(crate) fn peer_in(&self, namespace: &str) -> Option<String> {
        self.peer_of(&*self.namespaces.get("", namespace)?)
    }

    /// The peer that a tenant namespace is shared with.
    pub(crate) fn peer_of(&self, namespace: &Namespace) -> Option<String> {
        let all = self.foreign_clusters.all();
        peer_of_tenant(namespace, all.iter().map(AsRef::as_ref)).map(str::to_owned)
    }

    /// The tenant namespaces of a peer; more than one is a mistake that is told.
    pub(crate) fn tenants(&self, peer: &str) -> Vec<Arc<Namespace>> {
        let claimed = self.namespaces.filter(|one| naming::claimed_tenant_of(one) == Some(peer));
        claimed.into_iter().filter(|one| self.peer_of(one).is_some()).collect()
    }

    /// The name of the tenant namespace of a peer.
    pub(crate) fn tenant(&self, peer: &str) -> Option<String> {
        self.tenants(peer).first().map(|one| one.name_any())
    }

    /// Our request in the tenant namespace of a peer.
    pub(crate) fn our_request(&self, namespace: &str, peer: &str) -> Option<Arc<ResourceRequest>> {
        let one = self.requests.get(namespace, &self.here.cluster_name)?;
        let owner = self.foreign_cluster(peer);
        is_our_request(&one, peer, &self.here.cluster_name, owner.as_deref()).then_some(one)
    }

    /// Requests that carry the labels of a request of `owner` without being one.
    pub(crate) fn false_requests(&self, namespace: &str, owner: &ForeignCluster) -> Vec<Arc<ResourceRequest>> {
        self.requests.filter(|one| {
            one.namespace().as_deref() == Some(namespace)
                && labelled(one, label::REPLICATION, "true")
                && one.metadata.deletion_timestamp.is_none()
                && !is_our_request(one, id_of(owner), &self.here.cluster_name, Some(owner))
        })
    }

    /// Our offer in the tenant namespace of a peer.
    pub(crate) fn our_offer(&self, namespace: &str, peer: &str) -> Option<Arc<ResourceOffer>> {
        let one = self.offers.get(namespace, &self.here.cluster_name)?;
        (is_original(&*one, peer) && one.spec.cluster_id == self.here.cluster_id).then_some(one)
    }

    /// The request of a peer that counts: of several valid requests the latest that is not being deleted, because a renamed
    /// consumer leaves its old request behind.
    pub(crate) fn their_request(&self, namespace: &str, peer: &str) -> Option<Arc<ResourceRequest>> {
        let rank = |one: &Arc<ResourceRequest>| {
            let made = one.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
            (one.metadata.deletion_timestamp.is_none(), one.spec.withdrawal_timestamp.is_none(), made, one.name_any())
        };
        let all = self.copies(namespace).into_iter().filter(|one| foul(one, peer, &self.here).is_none());
        all.max_by_key(rank)
    }

    /// Requests copied into a tenant namespace, rightful or not.
    pub(crate) fn copies(&self, namespace: &str) -> Vec<Arc<ResourceRequest>> {
        self.requests
            .filter(|one| one.namespace().as_deref() == Some(namespace) && labelled(one, label::REPLICATED, "true"))
    }

    /// The offer of a peer that counts: of several the offer that a virtual kubelet serves, else the earliest that is not being
    /// deleted.
    pub(crate) fn their_offer(&self, namespace: &str, peer: &str) -> Option<Arc<ResourceOffer>> {
        let rank = |one: &Arc<ResourceOffer>| {
            let made = one.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
            let is_served = one.finalizers().iter().any(|held| held == finalizer::VIRTUAL_KUBELET);
            let stands = one.metadata.deletion_timestamp.is_none() && one.spec.withdrawal_timestamp.is_none();
            (is_served, stands, Reverse((made, one.name_any())))
        };
        // The peer named in the offer must be the peer of the namespace: no peer makes an offer for another peer.
        let all = self.offers.filter(|one| {
            one.namespace().as_deref() == Some(namespace) && is_replica(one, peer) && one.spec.cluster_id == peer
        });
        all.into_iter().max_by_key(rank)
    }

    /// The grants to a peer at this moment.
    pub(crate) fn grants(&self, peer: &str) -> Grants {
        let one = self.foreign_cluster(peer);
        // A ban holds for the ID, also where the banned `ForeignCluster` makes no sense beside the others.
        let counts = |one: &ForeignCluster| is_banned(one) || !is_nobody(one, &self.foreign_clusters.all(), &self.here);
        let one = one.filter(|one| counts(one));
        let tenant = self.tenants(peer).into_iter().next();
        let inside = tenant.as_ref().map(|tenant| tenant.name_any()).unwrap_or_default();
        grants::of(&Seen {
            foreign_cluster: one.as_deref(),
            tenant: tenant.as_deref(),
            our_request: self.our_request(&inside, peer).as_deref(),
            their_request: self.their_request(&inside, peer).as_deref(),
            our_offer: self.our_offer(&inside, peer).as_deref(),
            their_offer: self.their_offer(&inside, peer).as_deref(),
            policy: self.policy,
            now: now().0.as_second(),
        })
    }
}

/// Whether this cluster made the request: the request has the computed name and is owned by the `ForeignCluster` that counts.
/// Without that `ForeignCluster` only a request that is being deleted passes.
fn is_our_request(one: &ResourceRequest, peer: &str, name: &str, owner: Option<&ForeignCluster>) -> bool {
    let uid = owner.and_then(|owner| owner.metadata.uid.as_ref());
    let is_owned = one.owner_references().iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid);
    is_original(one, peer) && one.name_any() == name && (is_owned || one.metadata.deletion_timestamp.is_some())
}

fn labelled<K: Object>(object: &K, key: &str, value: &str) -> bool {
    object.labels().get(key).is_some_and(|found| found == value)
}

/// Whether the labels of an object call it an original of this cluster for `peer`.
pub(crate) fn is_original<K: Object>(object: &K, peer: &str) -> bool {
    labelled(object, label::REPLICATION, "true") && labelled(object, label::REMOTE_ID, peer)
}

/// Whether the labels of an object call it a copy that `peer` made here.
pub(crate) fn is_replica<K: Object>(object: &K, peer: &str) -> bool {
    labelled(object, label::REPLICATED, "true")
        && labelled(object, label::ORIGIN_ID, peer)
        && !labelled(object, label::REPLICATION, "true")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(name: &str, labels: Value, owner: &str, deleting: bool) -> ResourceRequest {
        let time = if deleting { json!("2026-01-01T00:00:00Z") } else { Value::Null };
        let owner = json!([{"apiVersion": "a", "kind": "b", "name": "milan", "uid": owner, "controller": true}]);
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": owner, "deletionTimestamp": time},
            "spec": {"clusterIdentity": {"clusterID": "here", "clusterName": "rome"}, "authUrl": "https://a"},
        }))
        .unwrap()
    }

    #[test]
    fn a_request_is_ours_when_we_made_it() {
        let original = || json!({"liqo.io/replication": "true", "liqo.io/remoteID": "peer"});
        let mut owner = ForeignCluster::new("milan", liqo_api::discovery::ForeignClusterSpec::default());
        owner.metadata.uid = Some("uid".to_owned());
        for (what, one, owner, expected) in [
            ("ours", request("rome", original(), "uid", false), Some(&owner), true),
            ("another name", request("fake-a", original(), "uid", false), Some(&owner), false),
            ("nobody's", request("rome", original(), "other", false), Some(&owner), false),
            ("nobody's, no peer", request("rome", original(), "uid", false), None, false),
            ("a tombstone", request("rome", original(), "uid", true), None, true),
            ("a copy", request("rome", json!({"liqo.io/replicated": "true"}), "uid", false), Some(&owner), false),
        ] {
            assert_eq!(is_our_request(&one, "peer", "rome", owner), expected, "{what}");
        }
    }

    #[test]
    fn what_says_it_is_both_is_no_copy() {
        let labels = json!({"liqo.io/replication": "true", "liqo.io/replicated": "true", "liqo.io/originID": "peer"});
        assert!(!is_replica(&request("a", labels, "", false), "peer"));
        let labels = json!({"liqo.io/replication": "false", "liqo.io/replicated": "true", "liqo.io/originID": "peer"});
        assert!(is_replica(&request("a", labels, "", false), "peer"));
    }
}
