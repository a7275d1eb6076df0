//! The words in which a `ForeignCluster` tells how a peering stands.
//!
//! Status, reason and message are those of Liqo 0.8.3, letter by letter: programs read them. A message
//! of ours stands only where 0.8.3 had none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use liqo_api::{
    discovery::{
        ForeignCluster, PeeringCondition, PeeringConditionStatus as Status, PeeringConditionType as Type,
        PeeringEnabled,
    },
    net::TunnelEndpoint,
};
use liqo_core::decision::is_cordoned;

/// What is to be told about one aspect of a peering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) type_: Type,
    pub(crate) status: Status,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

fn fact(type_: Type, status: Status, reason: &'static str, message: impl Into<String>) -> Fact {
    Fact { type_, status, reason, message: message.into() }
}

/// Writes a fact into the list. An entry stays where it is, a new one comes last; the time of
/// transition moves only when something is new.
pub(crate) fn tell(conditions: &mut Vec<PeeringCondition>, fact: &Fact, now: &Time) {
    let new = PeeringCondition {
        type_: fact.type_,
        status: fact.status,
        last_transition_time: Some(now.clone()),
        reason: fact.reason.to_owned(),
        message: fact.message.clone(),
    };
    match conditions.iter_mut().find(|one| one.type_ == fact.type_) {
        Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => {}
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// The object makes sense.
pub(crate) fn processable() -> Fact {
    let message = "This ForeignCluster seems to be processable";
    fact(Type::ProcessForeignClusterStatus, Status::Success, "ForeignClusterProcessable", message)
}

/// The object makes no sense.
pub(crate) fn not_processable(reason: &'static str, message: String) -> Fact {
    fact(Type::ProcessForeignClusterStatus, Status::Error, reason, message)
}

/// Somebody else connects the networks.
pub(crate) fn network_external() -> Fact {
    let message = "The remote cluster network connection is not managed by Liqo";
    fact(Type::NetworkStatus, Status::External, "ExternalNetwork", message)
}

/// There is no tunnel.
fn network_none(namespace: &str) -> Fact {
    let message = format!("The TunnelEndpoint has not been found in the Tenant Namespace {namespace}");
    fact(Type::NetworkStatus, Status::None, "TunnelEndpointNotFound", message)
}

/// What the tunnel says of itself, unless there is a problem that keeps one from being made. A tunnel that is up is up, and a problem then
/// is that something new is not followed. Nothing new while a tunnel says nothing.
pub(crate) fn network(namespace: &str, tunnel: Option<&TunnelEndpoint>, problem: Option<&str>) -> Option<Fact> {
    let connection = tunnel.map(|tunnel| {
        let status = tunnel.status.as_ref();
        status.and_then(|status| status.connection.clone()).unwrap_or_default()
    });
    let state = connection.as_ref().and_then(|connection| connection.status.as_deref());
    let problem = problem.filter(|problem| !problem.is_empty());
    if let Some(problem) = problem.filter(|_| state != Some("Connected")) {
        return Some(fact(Type::NetworkStatus, Status::Error, "NetworkConfigError", problem));
    }
    let Some(connection) = &connection else { return Some(network_none(namespace)) };
    let found = format!("The TunnelEndpoint has been successfully found in the Tenant Namespace {namespace}");
    let (status, reason, message) = match state {
        Some("Connected") => {
            let not_followed = problem.map(|problem| format!("; what was told since is not followed: {problem}"));
            let message = format!("{found} and it is connected{}", not_followed.unwrap_or_default());
            (Status::Established, "TunnelEndpointAvailable", message)
        }
        Some("Connecting") => {
            (Status::Pending, "TunnelEndpointConnecting", format!("{found}, but it is not connected yet"))
        }
        Some("Error") => (Status::Error, "TunnelEndpointError", connection.status_message.clone().unwrap_or_default()),
        _ => return None,
    };
    Some(fact(Type::NetworkStatus, status, reason, message))
}

/// The peer knows us.
pub(crate) fn authenticated() -> Fact {
    let message = "The Identity has been correctly accepted by the remote cluster";
    fact(Type::AuthenticationStatus, Status::Established, "IdentityAccepted", message)
}

/// The peer wants a token and we had none.
pub(crate) fn denied_without_token(why: &str) -> Fact {
    let message = format!("The remote cluster requires cluster authentication to be enabled: {why}");
    fact(Type::AuthenticationStatus, Status::EmptyDenied, "IdentityEmptyDenied", message)
}

/// The peer refused us.
pub(crate) fn denied(why: &str) -> Fact {
    let message = format!("Cluster authentication denied by the remote cluster: {why}");
    fact(Type::AuthenticationStatus, Status::Denied, "IdentityDenied", message)
}

/// Something failed on the way to an identity.
pub(crate) fn no_identity(why: &str) -> Fact {
    fact(Type::AuthenticationStatus, Status::Error, "IdentityError", format!("Cannot ensure identity: {why}"))
}

/// The peer's authentication service does not say who the peer is.
pub(crate) fn auth_not_reachable() -> Fact {
    let message = "The remote authentication service is not reachable";
    fact(Type::AuthenticationStatus, Status::Error, "AuthNotReachable", message)
}

/// Whether the peer's API server answers.
pub(crate) fn api_server(ready: bool) -> Fact {
    if ready {
        let message = "The remote cluster API Server is ready";
        fact(Type::APIServerStatus, Status::Established, "APIServerReady", message)
    } else {
        let message = "The remote cluster API Server is not ready";
        fact(Type::APIServerStatus, Status::Error, "APIServerNotReady", message)
    }
}

/// How far one direction of a peering is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    NoRequest,
    NoOffer,
    NoKubelet,
    Established,
    Leaving,
}

/// One direction of a peering; `direction` is [`Type::OutgoingPeering`] or [`Type::IncomingPeering`].
pub(crate) fn stage(direction: Type, stage: Stage, namespace: &str) -> Fact {
    let (status, reason, message) = match stage {
        Stage::NoRequest => {
            (Status::None, "NoResourceRequest", format!("No ResourceRequest found in the Tenant Namespace {namespace}"))
        }
        Stage::NoOffer => (
            Status::Pending,
            "ResourceRequestPending",
            format!("The remote cluster has not created a ResourceOffer in the Tenant Namespace {namespace} yet"),
        ),
        Stage::NoKubelet => (
            Status::Pending,
            "KubeletPending",
            "The remote cluster has not started the VirtualKubelet for the peering yet".to_owned(),
        ),
        Stage::Established => (
            Status::Established,
            "ResourceRequestAccepted",
            format!("The ResourceRequest has been accepted by the remote cluster in the Tenant Namespace {namespace}"),
        ),
        Stage::Leaving => (
            Status::Disconnecting,
            "ResourceRequestDeleting",
            format!("The ResourceRequest is in deleting phase in the Tenant Namespace {namespace}"),
        ),
    };
    fact(direction, status, reason, message)
}

/// Whether a fact says that a request of the peer waits until a person accepts the request: the peer asks, and nobody has
/// decided.
pub(crate) fn waits_for_approval(one: &ForeignCluster, by_default: bool, fact: &Fact) -> bool {
    let is_undecided = !by_default && one.spec.incoming_peering_enabled == PeeringEnabled::Auto && !is_cordoned(one);
    is_undecided && fact.type_ == Type::IncomingPeering && fact.status == Status::Pending
}

/// A direction that waits for something 0.8.3 had no words for.
pub(crate) fn waiting(direction: Type, why: String) -> Fact {
    fact(direction, Status::Pending, "ResourceRequestPending", why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_that_nobody_has_decided_about_waits_for_approval() {
        let peer = |incoming: &str, condition: Option<&str>| -> ForeignCluster {
            let annotations = condition.map(|condition| json!({"liqo.io/tenant-condition": condition}));
            let spec = json!({"foreignAuthUrl": "https://a.b", "incomingPeeringEnabled": incoming});
            serde_json::from_value(json!({"metadata": {"name": "rome", "annotations": annotations}, "spec": spec}))
                .unwrap()
        };
        let asks = || waiting(Type::IncomingPeering, "why".to_owned());
        let silent = || stage(Type::IncomingPeering, Stage::NoRequest, "tenant");
        for (one, by_default, fact, wanted) in [
            (peer("Auto", None), false, asks(), true),
            (peer("Auto", None), true, asks(), false),
            (peer("Auto", None), false, silent(), false),
            (peer("Auto", None), false, waiting(Type::OutgoingPeering, "why".to_owned()), false),
            (peer("Auto", Some("Cordoned")), false, asks(), false),
            (peer("No", None), false, asks(), false),
            (peer("Yes", None), false, asks(), false),
        ] {
            assert_eq!(waits_for_approval(&one, by_default, &fact), wanted, "{one:?} {by_default} {fact:?}");
        }
    }

    #[test]
    fn an_entry_keeps_its_place_and_its_time() {
        let at = |seconds| Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap());
        let mut all = Vec::new();
        tell(&mut all, &processable(), &at(1));
        tell(&mut all, &api_server(true), &at(1));
        tell(&mut all, &processable(), &at(2));
        tell(&mut all, &api_server(false), &at(3));
        let seen: Vec<_> = all.iter().map(|one| (one.type_, one.last_transition_time.clone().unwrap())).collect();
        assert_eq!(seen, [(Type::ProcessForeignClusterStatus, at(1)), (Type::APIServerStatus, at(3))]);
    }

    #[test]
    fn the_network_is_what_its_tunnel_says_or_why_there_is_none() {
        let tunnel = |connection: serde_json::Value| -> TunnelEndpoint {
            let status = serde_json::from_value(json!({"connection": connection})).unwrap();
            TunnelEndpoint { status, ..TunnelEndpoint::default() }
        };
        let (up, coming) = (tunnel(json!({"status": "Connected"})), tunnel(json!({"status": "Connecting"})));
        let down = tunnel(json!({"status": "Error", "statusMessage": "no route"}));
        let (silent, fresh) = (tunnel(json!({})), TunnelEndpoint::default());
        let wrong = Some("Service liqo-gateway is of type ClusterIP");
        for (tunnel, problem, status, reason, end) in [
            (None, None, Status::None, "TunnelEndpointNotFound", "in the Tenant Namespace ns"),
            (None, Some(""), Status::None, "TunnelEndpointNotFound", "in the Tenant Namespace ns"),
            (None, wrong, Status::Error, "NetworkConfigError", "of type ClusterIP"),
            (Some(&coming), None, Status::Pending, "TunnelEndpointConnecting", "ns, but it is not connected yet"),
            (Some(&coming), wrong, Status::Error, "NetworkConfigError", "of type ClusterIP"),
            (Some(&fresh), wrong, Status::Error, "NetworkConfigError", "of type ClusterIP"),
            (Some(&down), None, Status::Error, "TunnelEndpointError", "no route"),
            (Some(&up), None, Status::Established, "TunnelEndpointAvailable", "ns and it is connected"),
            (Some(&up), Some(""), Status::Established, "TunnelEndpointAvailable", "ns and it is connected"),
            (
                Some(&up),
                wrong,
                Status::Established,
                "TunnelEndpointAvailable",
                "is not followed: Service liqo-gateway is of type ClusterIP",
            ),
        ] {
            let fact = network("ns", tunnel, problem).unwrap();
            assert_eq!((fact.status, fact.reason), (status, reason));
            assert!(fact.message.ends_with(end), "{}", fact.message);
        }
        for says_nothing in [&silent, &fresh] {
            assert_eq!(network("ns", Some(says_nothing), None), None, "what was told stays");
        }
    }
}
