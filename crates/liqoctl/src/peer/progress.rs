//! The steps between a wish and a peering, in the order in which they happen, each told once.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use liqo_api::{
    discovery::{ForeignCluster, PeeringConditionStatus as Status, PeeringConditionType as Type},
    meta::label,
};
use liqo_kube::Cluster;
use tokio::time::Instant;

use crate::{
    condition,
    out::Out,
    peer::identity,
    wait::{Deadline, Watched},
};

/// A peer whose progress is followed.
pub(crate) struct Progress {
    out: Out,
    deadline: Deadline,
    /// What people call it.
    name: String,
    known: ForeignCluster,
    peer: Watched<ForeignCluster>,
    nodes: Watched<Node>,
}

impl Progress {
    /// Follows `foreign` until `deadline`.
    pub(crate) fn start(cluster: &Cluster, foreign: &ForeignCluster, deadline: Deadline, out: Out) -> Self {
        let who = identity(foreign);
        let name = if who.cluster_name.is_empty() { foreign.name_any() } else { who.cluster_name };
        let virtual_node =
            format!("{}={},{}={}", label::TYPE, label::VIRTUAL_NODE, label::REMOTE_CLUSTER_ID, who.cluster_id);
        let peer = Watched::one(cluster, "", &foreign.name_any());
        let nodes = Watched::labelled(cluster, "", &virtual_node);
        Self { out, deadline, name, known: foreign.clone(), peer, nodes }
    }

    /// The peer as it is now.
    pub(crate) fn foreign(&self) -> Arc<ForeignCluster> {
        self.peer.now().into_iter().next().unwrap_or_else(|| Arc::new(self.known.clone()))
    }

    /// The peer accepts our identity.
    pub(crate) async fn authentication(&self, patience: Duration) -> anyhow::Result<()> {
        let name = &self.name;
        let step = self.out.step(format!("Waiting for authentication to the cluster {name:?}"));
        let mut refused = None;
        let done = self.until(|foreign| {
            let status = condition::status(foreign, Type::AuthenticationStatus);
            if !condition::is_refusal(status) && !condition::is_contradictory(foreign) {
                refused = None;
                return (status == Status::Established).then_some(true);
            }
            let since = *refused.get_or_insert_with(Instant::now);
            (since.elapsed() >= patience).then_some(false)
        });
        let error = match done.await {
            Ok(true) => {
                step.done(format!("Authenticated to cluster {name:?}"));
                return Ok(());
            }
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let what = format!("Authentication to the remote cluster {name:?} failed");
        Err(self.failure(&what, Type::AuthenticationStatus, error))
    }

    /// The peer offers resources, or says that this cluster has no rights there any more. The condition that says so was not
    /// there when the wait for authentication ended, so it is an answer to this peering.
    pub(crate) async fn outgoing(&self) -> anyhow::Result<()> {
        let name = &self.name;
        let step = self.out.step(format!("Activating outgoing peering to the remote cluster {name:?}"));
        let what = format!("Failed activating outgoing peering to the remote cluster {name:?}");
        match self.until(answer).await {
            Ok(Answer::Offered) => {}
            Ok(Answer::Refused) => return Err(self.failure(&what, Type::AuthenticationStatus, None)),
            Err(error) => return Err(self.failure(&what, Type::OutgoingPeering, Some(error))),
        }
        step.done(format!("Outgoing peering activated to the remote cluster {name:?}"));
        Ok(())
    }

    /// Pods reach each other, or that is not Liqo's business.
    pub(crate) async fn network(&self) -> anyhow::Result<()> {
        let name = &self.name;
        let step = self.out.step(format!("Waiting for network to the remote cluster {name:?}"));
        let up = |foreign: &ForeignCluster| {
            matches!(condition::status(foreign, Type::NetworkStatus), Status::Established | Status::External)
                .then_some(())
        };
        let what = format!("Failed establishing networking to the remote cluster {name:?}");
        self.until(up).await.map_err(|error| self.failure(&what, Type::NetworkStatus, Some(error)))?;
        step.done(format!("Network established to the remote cluster {name:?}"));
        Ok(())
    }

    /// The node that stands for the peer is ready.
    pub(crate) async fn node(&self) -> anyhow::Result<()> {
        let name = &self.name;
        let step = self.out.step(format!("Waiting for node to be created for the remote cluster {name:?}"));
        let ready = |nodes: &[Arc<Node>]| nodes.iter().any(|node| is_ready(node)).then_some(());
        if let Err(error) = self.nodes.until(self.deadline, ready).await {
            let stand = node_stand(self.nodes.now().first().map(AsRef::as_ref));
            return Err(anyhow!("Failed waiting for node to be created for remote cluster {name:?}: {error}: {stand}"));
        }
        step.done(format!("Node created for remote cluster {name:?}"));
        Ok(())
    }

    /// The peer gives nothing any more.
    pub(crate) async fn no_outgoing(&self) -> anyhow::Result<()> {
        let name = &self.name;
        let step = self.out.step(format!("Disabling outgoing peering to the remote cluster {name:?}"));
        let done = self.peer.until(self.deadline, |all| {
            all.iter().all(|foreign| condition::status(foreign, Type::OutgoingPeering) == Status::None).then_some(())
        });
        let what = format!("Failed disabling outgoing peering to the remote cluster {name:?}");
        done.await.map_err(|error| self.failure(&what, Type::OutgoingPeering, Some(error.into())))?;
        step.done(format!("Successfully disabled outgoing peering to the remote cluster {name:?}"));
        Ok(())
    }

    /// Waits for the peer to become something; a peer that vanishes is an error.
    async fn until<T>(&self, mut check: impl FnMut(&ForeignCluster) -> Option<T>) -> anyhow::Result<T> {
        let found = self.peer.until(self.deadline, |all| match all.first() {
            Some(foreign) => check(foreign).map(Ok),
            None => Some(Err(anyhow!("the foreign cluster {:?} was deleted meanwhile", self.known.name_any()))),
        });
        found.await.map_err(anyhow::Error::from)?
    }

    /// What failed, why, and how the aspect stands.
    fn failure(&self, what: &str, aspect: Type, error: Option<anyhow::Error>) -> anyhow::Error {
        let stand = condition::explain(&self.foreign(), aspect);
        match error {
            Some(error) => anyhow!("{what}: {error:#}: {stand}"),
            None => anyhow!("{what}: {stand}"),
        }
    }
}

/// The answer of a peer to the request for resources.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Offered,
    Refused,
}

/// The answer of the peer, once there is one.
fn answer(foreign: &ForeignCluster) -> Option<Answer> {
    if condition::is_refusal(condition::status(foreign, Type::AuthenticationStatus))
        || condition::is_contradictory(foreign)
    {
        return Some(Answer::Refused);
    }
    (condition::status(foreign, Type::OutgoingPeering) == Status::Established).then_some(Answer::Offered)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// What the virtual node lacks.
fn node_stand(node: Option<&Node>) -> String {
    let Some(node) = node else {
        return "there is no virtual node yet: look at the virtual-kubelet pod in the tenant namespace".to_owned();
    };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|one| one.type_ == "Ready");
    let why = ready.map(|one| {
        let words = [one.reason.clone(), one.message.clone()].into_iter().flatten().filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(": ")
    });
    format!(
        "node {} is not ready: {}",
        node.name_any(),
        why.filter(|why| !why.is_empty()).unwrap_or_else(|| "no reason given".into())
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_peer_that_has_ended_our_rights_has_answered() {
        for (processed, authentication, outgoing, wanted) in [
            ("Success", "Established", "Pending", None),
            ("Success", "Established", "Established", Some(Answer::Offered)),
            ("Success", "Denied", "Pending", Some(Answer::Refused)),
            ("Success", "EmptyDenied", "Pending", Some(Answer::Refused)),
            ("Success", "Denied", "Established", Some(Answer::Refused)),
            ("Success", "Error", "Pending", None),
            ("Error", "Established", "Pending", Some(Answer::Refused)),
        ] {
            let conditions = json!([
                {"type": "ProcessForeignClusterStatus", "status": processed},
                {"type": "AuthenticationStatus", "status": authentication},
                {"type": "OutgoingPeering", "status": outgoing},
            ]);
            let foreign = json!({
                "metadata": {"name": "milan"}, "spec": {"foreignAuthUrl": "https://a.b"},
                "status": {"peeringConditions": conditions},
            });
            let foreign = serde_json::from_value(foreign).unwrap();
            assert_eq!(answer(&foreign), wanted, "{processed} {authentication} {outgoing}");
        }
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let node = |status: &str| -> Node {
            let ready =
                json!({"type": "Ready", "status": status, "reason": "KubeletNotReady", "message": "no network"});
            serde_json::from_value(json!({"metadata": {"name": "liqo-milan"}, "status": {"conditions": [ready]}}))
                .unwrap()
        };
        assert!(is_ready(&node("True")) && !is_ready(&node("False")));
        assert_eq!(node_stand(Some(&node("False"))), "node liqo-milan is not ready: KubeletNotReady: no network");
        assert!(node_stand(None).starts_with("there is no virtual node yet"));
    }
}
