//! How the conditions of a ForeignCluster are read, and told to people.

use std::time::Duration;

use liqo_api::discovery::{
    ForeignCluster, PeeringCondition, PeeringConditionStatus as Status, PeeringConditionType as Type,
};

/// The condition of this aspect, if it has been reported.
pub(crate) fn find(foreign: &ForeignCluster, aspect: Type) -> Option<&PeeringCondition> {
    foreign.status.as_ref()?.peering_conditions.iter().find(|condition| condition.type_ == aspect)
}

pub(crate) use liqo_core::peering::status;

/// How this aspect stands, with its reason and what to do about it.
pub(crate) fn explain(foreign: &ForeignCluster, aspect: Type) -> String {
    let unprocessable = find(foreign, Type::ProcessForeignClusterStatus).filter(|_| is_contradictory(foreign));
    let Some(condition) = unprocessable.or_else(|| find(foreign, aspect)) else {
        return format!(
            "{aspect:?} has not been reported yet: is liqo-controller-manager running? See `liqoctl status`"
        );
    };
    let PeeringCondition { type_, status, reason, message, last_transition_time: _ } = condition;
    let mut text = format!("{type_:?} is {status:?}");
    match (reason.is_empty(), message.is_empty()) {
        (false, false) => text.push_str(&format!(" ({reason}): {message}")),
        (false, true) => text.push_str(&format!(" ({reason})")),
        (true, false) => text.push_str(&format!(": {message}")),
        (true, true) => {}
    }
    if let Some(advice) = advice(*type_, *status) {
        text.push_str(&format!(" [{advice}]"));
    }
    text
}

fn advice(aspect: Type, status: Status) -> Option<&'static str> {
    match (aspect, status) {
        (Type::AuthenticationStatus, Status::Denied) => Some(
            "if the token was refused, run `liqoctl generate peer-command` on the other cluster and use the command it \
             prints; if this cluster is banned there, an administrator of the other cluster must run `liqoctl uncordon \
             tenant` first",
        ),
        (Type::AuthenticationStatus, Status::EmptyDenied) => Some(
            "the other cluster asks for a token: run `liqoctl generate peer-command` there and use the command it prints",
        ),
        (Type::AuthenticationStatus, Status::Error) => {
            Some("check that the authentication URL is right and can be reached from the pods of this cluster")
        }
        (Type::OutgoingPeering, Status::Pending) => {
            Some("the other cluster must reach the authentication service and the API server of this one")
        }
        _ => None,
    }
}

/// How long a refusal must last to be believed: it may speak of a token that has just been replaced.
pub(crate) fn patience(created: bool) -> Duration {
    if created { Duration::from_secs(5) } else { Duration::from_secs(20) }
}

/// Whether the peer said no.
pub(crate) fn is_refusal(status: Status) -> bool {
    matches!(status, Status::Denied | Status::EmptyDenied)
}

/// Whether the peer has refused the token itself, and not this cluster for another reason: as this release and Liqo 0.8.3 say.
pub(crate) fn is_token_refused(foreign: &ForeignCluster) -> bool {
    find(foreign, Type::AuthenticationStatus)
        .is_some_and(|found| is_refusal(found.status) && found.message.contains("invalid token"))
}

/// Whether the ForeignCluster contradicts itself or another one, so that no wait changes the status.
pub(crate) fn is_contradictory(foreign: &ForeignCluster) -> bool {
    status(foreign, Type::ProcessForeignClusterStatus) == Status::Error
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn foreign(conditions: serde_json::Value) -> ForeignCluster {
        serde_json::from_value(json!({
            "apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster", "metadata": {"name": "rome"},
            "spec": {"foreignAuthUrl": "https://a.b"}, "status": {"peeringConditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn a_refused_token_comes_with_advice() {
        let foreign = foreign(json!([{"type": "AuthenticationStatus", "status": "Denied", "reason": "IdentityDenied",
            "message": "Cluster authentication denied by the remote cluster: invalid token"}]));
        let text = explain(&foreign, Type::AuthenticationStatus);
        assert!(
            text.starts_with("AuthenticationStatus is Denied (IdentityDenied): Cluster authentication denied"),
            "{text}"
        );
        assert!(text.contains("generate peer-command"), "{text}");
    }

    #[test]
    fn a_refused_token_is_told_from_other_refusals() {
        for (status, message, wanted) in [
            ("Denied", "cluster \"milan\" says: invalid token: see `liqoctl generate peer-command`", true),
            ("Denied", "cluster \"milan\" says: there is no place for one more cluster: auth.config.maxTenants", false),
            ("Established", "invalid token", false),
        ] {
            let condition = json!({"type": "AuthenticationStatus", "status": status, "message": message});
            assert_eq!(is_token_refused(&foreign(json!([condition]))), wanted, "{status} {message}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_first() {
        let foreign = foreign(json!([
            {"type": "ProcessForeignClusterStatus", "status": "Error", "reason": "ClusterIDRepetition", "message": "twice"},
            {"type": "OutgoingPeering", "status": "Pending"}]));
        assert_eq!(
            explain(&foreign, Type::OutgoingPeering),
            "ProcessForeignClusterStatus is Error (ClusterIDRepetition): twice"
        );
    }

    #[test]
    fn silence_is_no_condition() {
        let foreign = foreign(json!([]));
        assert_eq!(status(&foreign, Type::NetworkStatus), Status::None);
        assert!(explain(&foreign, Type::NetworkStatus).contains("has not been reported yet"));
    }
}
