//! The node's conditions.
//!
//! Keeps true: reason, message and transition time change only when a status flips; conditions that
//! others maintain are left as they are.

use k8s_openapi::{api::core::v1::NodeCondition, apimachinery::pkg::apis::meta::v1::Time};

/// What the conditions are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// The offer has CPU and memory.
    pub(super) resources: bool,
    /// The tunnel is up; `None` when nobody asks.
    pub(super) network: Option<bool>,
    /// The other API server answers.
    pub(super) reachable: bool,
}

/// One condition as it should be.
struct Truth {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: &'static str,
}

/// All conditions, for a node about which nothing is known yet.
pub(super) fn unknown(check_network: bool, now: &Time) -> Vec<NodeCondition> {
    let health = Health { resources: false, network: check_network.then_some(false), reachable: false };
    let one = |truth: Truth| NodeCondition {
        type_: truth.kind.to_owned(),
        status: "Unknown".to_owned(),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
        ..NodeCondition::default()
    };
    truths(health).into_iter().map(one).collect()
}

/// The conditions as they should be, and whether any of them flipped.
pub(super) fn update(old: &[NodeCondition], health: Health, now: &Time) -> (Vec<NodeCondition>, bool) {
    let mut conditions = old.to_vec();
    let mut flipped = false;
    for truth in truths(health) {
        let status = if truth.holds { "True" } else { "False" };
        let known = conditions.iter().position(|condition| condition.type_ == truth.kind);
        if let Some(at) = known
            && conditions[at].status == status
        {
            conditions[at].last_heartbeat_time = Some(now.clone());
            continue;
        }
        flipped = true;
        let condition = NodeCondition {
            type_: truth.kind.to_owned(),
            status: status.to_owned(),
            reason: Some(truth.reason.to_owned()),
            message: Some(truth.message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(now.clone()),
        };
        match known {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
    }
    (conditions, flipped)
}

/// The conditions of a node that goes away: the words stay those of the running node.
pub(super) fn leaving(old: &[NodeCondition], now: &Time) -> (Vec<NodeCondition>, bool) {
    let mut flipped = false;
    let one = |condition: &NodeCondition| {
        let mut condition = condition.clone();
        let status = match condition.type_.as_str() {
            "Ready" => "False",
            "MemoryPressure" => "True",
            _ => return condition,
        };
        if condition.status != status {
            flipped = true;
            status.clone_into(&mut condition.status);
            condition.last_transition_time = Some(now.clone());
            condition.last_heartbeat_time = Some(now.clone());
        }
        condition
    };
    (old.iter().map(one).collect(), flipped)
}

fn truths(health: Health) -> Vec<Truth> {
    let Health { resources, network, reachable } = health;
    let ready = resources && network.unwrap_or(true) && reachable;
    let pressure = |kind, yes, no| Truth {
        kind,
        holds: !resources,
        reason: if resources { no } else { yes },
        message: if resources {
            "The remote cluster is advertising sufficient resources"
        } else {
            "The remote cluster is advertising no/insufficient resources"
        },
    };
    let mut all = vec![
        Truth {
            kind: "Ready",
            holds: ready,
            reason: if ready { "KubeletReady" } else { "KubeletNotReady" },
            message: if ready {
                "The Liqo Virtual Kubelet is posting ready status"
            } else {
                "The Liqo Virtual Kubelet is currently not ready"
            },
        },
        pressure("MemoryPressure", "RemoteClusterHasMemoryPressure", "RemoteClusterHasSufficientMemory"),
        pressure("DiskPressure", "RemoteClusterHasDiskPressure", "RemoteClusterHasNoDiskPressure"),
        pressure("PIDPressure", "RemoteClusterHasPIDPressure", "RemoteClusterHasNoPIDPressure"),
    ];
    if let Some(up) = network {
        all.push(Truth {
            kind: "NetworkUnavailable",
            holds: !up,
            reason: if up { "LiqoNetworkingUp" } else { "LiqoNetworkingDown" },
            message: if up {
                "The Liqo cluster interconnection is established"
            } else {
                "The Liqo cluster interconnection is down"
            },
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn texts(conditions: &[NodeCondition]) -> Vec<String> {
        let one = |c: &NodeCondition| format!("{}={} {}", c.type_, c.status, c.reason.as_deref().unwrap_or("-"));
        conditions.iter().map(one).collect()
    }

    #[test]
    fn a_new_node_knows_nothing() {
        let new = unknown(true, &at(1));
        assert_eq!(new.len(), 5);
        assert!(new.iter().all(|c| c.status == "Unknown" && c.reason.is_none() && c.message.is_none()));
        assert_eq!(unknown(false, &at(1)).len(), 4);
    }

    #[test]
    fn ready_needs_resources_network_and_reach() {
        let cases = [
            (true, Some(true), true, "Ready=True KubeletReady"),
            (true, None, true, "Ready=True KubeletReady"),
            (false, None, true, "Ready=False KubeletNotReady"),
            (true, Some(false), true, "Ready=False KubeletNotReady"),
            (true, None, false, "Ready=False KubeletNotReady"),
        ];
        for (resources, network, reachable, ready) in cases {
            let health = Health { resources, network, reachable };
            assert_eq!(texts(&update(&[], health, &at(1)).0)[0], ready, "{health:?}");
        }
    }

    #[test]
    fn the_words_are_the_recorded_ones() {
        let health = Health { resources: true, network: Some(true), reachable: true };
        let (conditions, _) = update(&unknown(true, &at(1)), health, &at(2));
        assert_eq!(
            texts(&conditions),
            [
                "Ready=True KubeletReady",
                "MemoryPressure=False RemoteClusterHasSufficientMemory",
                "DiskPressure=False RemoteClusterHasNoDiskPressure",
                "PIDPressure=False RemoteClusterHasNoPIDPressure",
                "NetworkUnavailable=False LiqoNetworkingUp",
            ]
        );
        let down = Health { resources: false, network: Some(false), reachable: true };
        assert_eq!(
            texts(&update(&conditions, down, &at(3)).0),
            [
                "Ready=False KubeletNotReady",
                "MemoryPressure=True RemoteClusterHasMemoryPressure",
                "DiskPressure=True RemoteClusterHasDiskPressure",
                "PIDPressure=True RemoteClusterHasPIDPressure",
                "NetworkUnavailable=True LiqoNetworkingDown",
            ]
        );
    }

    #[test]
    fn a_status_that_stays_moves_only_the_heartbeat() {
        let health = Health { resources: true, network: None, reachable: true };
        let (first, flipped) = update(&[], health, &at(1));
        assert!(flipped);
        let (second, flipped) = update(&first, health, &at(9));
        assert!(!flipped);
        assert_eq!(second[0].last_transition_time, Some(at(1)));
        assert_eq!(second[0].last_heartbeat_time, Some(at(9)));
    }

    #[test]
    fn conditions_of_others_stay() {
        let other = NodeCondition { type_: "Other".into(), status: "True".into(), ..NodeCondition::default() };
        let health = Health { resources: true, network: None, reachable: true };
        assert_eq!(update(std::slice::from_ref(&other), health, &at(1)).0[0], other);
    }

    #[test]
    fn a_leaving_node_keeps_its_words() {
        let health = Health { resources: true, network: None, reachable: true };
        let (running, _) = update(&[], health, &at(1));
        let (conditions, flipped) = leaving(&running, &at(2));
        assert!(flipped);
        assert_eq!(
            texts(&conditions),
            [
                "Ready=False KubeletReady",
                "MemoryPressure=True RemoteClusterHasSufficientMemory",
                "DiskPressure=False RemoteClusterHasNoDiskPressure",
                "PIDPressure=False RemoteClusterHasNoPIDPressure",
            ]
        );
        assert!(!leaving(&conditions, &at(3)).1);
    }
}
