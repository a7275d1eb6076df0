//! The status of a pod there, told as the status of the pod here.
//!
//! Keeps true: restart counts never go back when the pod there is made anew; generations are those of the
//! pod here; whatever makes no difference makes no write.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus};

use liqo_core::endpoint::can_be_elsewhere;

use crate::translate::Answer;

/// What of a pod's addresses is told.
#[derive(Clone, Debug)]
pub(super) struct Addresses<'a> {
    /// Address of the node.
    pub(super) node_ip: &'a str,
    /// Addresses of the pod, the principal one first.
    pub(super) pod_ips: Vec<String>,
}

/// The addresses a pod there has, its principal one first.
pub(super) fn addresses(there: &PodStatus) -> Vec<&str> {
    let all = there.pod_ips.iter().flatten().map(|one| one.ip.as_str());
    let principal = there.pod_ip.as_deref();
    let others = all.filter(|ip| Some(*ip) != principal);
    principal.into_iter().chain(others).filter(|ip| !ip.is_empty()).collect()
}

/// The addresses of a pod as this cluster must use them, none of them one of a node itself; `None` while one is being asked for. What cannot be
/// translated now is left out, unless nothing can: then the same run of the pod keeps what was told of it.
pub(super) fn pod_ips(here: &Pod, there: &PodStatus, answer: impl Fn(IpAddr) -> Answer) -> Option<Vec<String>> {
    let theirs = addresses(there);
    let mut ours = Vec::new();
    for address in &theirs {
        match address.parse().map(&answer) {
            Ok(Answer::Known(here)) if can_be_elsewhere(here) => ours.push(here.to_string()),
            Ok(Answer::Asking) => return None,
            Ok(Answer::Known(_) | Answer::Failed) | Err(_) => {}
        }
    }
    let told = here.status.as_ref().filter(|told| told.start_time.is_some() && told.start_time == there.start_time);
    match told {
        Some(told) if ours.is_empty() && !theirs.is_empty() => {
            Some(addresses(told).into_iter().map(str::to_owned).collect())
        }
        _ => Some(ours),
    }
}

/// How often containers were started over by more than their own restarts: because the pod there was made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restarts {
    /// The pod here.
    pub(super) here: Option<String>,
    /// The pod there that was seen last.
    there: Option<String>,
    extra: i32,
}

/// What is known about restarts once the pod there was seen.
pub(super) fn restarts(known: Option<&Restarts>, here: &Pod, there: &Pod) -> Restarts {
    let (here_uid, there_uid) = (here.metadata.uid.clone(), there.metadata.uid.clone());
    let extra = match known.filter(|known| known.here == here_uid) {
        Some(known) if known.there == there_uid => known.extra,
        Some(known) => known.extra.saturating_add(1),
        None => infer(here.status.as_ref(), there.status.as_ref()),
    };
    Restarts { here: here_uid, there: there_uid, extra }
}

/// Extra restarts told before this process started, as the first container shows them.
fn infer(here: Option<&PodStatus>, there: Option<&PodStatus>) -> i32 {
    let first = |status: Option<&PodStatus>| status?.container_statuses.as_ref()?.first().cloned();
    match (first(here), first(there)) {
        (Some(here), Some(there)) if here.name == there.name => {
            here.restart_count.saturating_sub(there.restart_count).max(0)
        }
        _ => 0,
    }
}

/// The status the pod here should have.
pub(super) fn forge(here: &Pod, there: &PodStatus, addresses: Addresses<'_>, restarts: &Restarts) -> PodStatus {
    let generation = here.metadata.generation;
    let own = |observed: Option<i64>| observed.and(generation);
    let mut status = there.clone();
    for container in status.container_statuses.iter_mut().flatten() {
        container.restart_count = container.restart_count.saturating_add(restarts.extra);
    }
    for condition in status.conditions.iter_mut().flatten() {
        condition.observed_generation = own(condition.observed_generation);
    }
    status.observed_generation = own(status.observed_generation);
    // No such containers here.
    status.ephemeral_container_statuses = None::<Vec<ContainerStatus>>;
    // It never changes, and the API server would not let us.
    if let Some(class) = here.status.as_ref().and_then(|status| status.qos_class.clone()) {
        status.qos_class = Some(class);
    }
    let Addresses { node_ip, pod_ips } = addresses;
    if status.host_ip.is_some() && !node_ip.is_empty() {
        status.host_ip = Some(node_ip.to_owned());
        status.host_ips = Some(vec![HostIP { ip: node_ip.to_owned() }]);
    }
    status.pod_ip = pod_ips.first().cloned();
    let all: Vec<_> = pod_ips.into_iter().map(|ip| PodIP { ip }).collect();
    status.pod_ips = (!all.is_empty()).then_some(all);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, container: &str, restarts: i32) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"uid": uid, "generation": 4},
            "status": {"containerStatuses": [{"name": container, "restartCount": restarts, "image": "", "imageID": "", "ready": true}]},
        }))
        .unwrap()
    }

    #[test]
    fn nobody_claims_an_address_that_is_not_one_of_a_pod_elsewhere() {
        let claimed =
            ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1", "fe80::1", "::ffff:127.0.0.1", "10.1.2.3"];
        let told = |ip: &str| {
            let there: PodStatus = serde_json::from_value(json!({"podIP": ip, "podIPs": [{"ip": ip}]})).unwrap();
            pod_ips(&Pod::default(), &there, Answer::Known).unwrap()
        };
        assert_eq!(claimed.map(told).concat(), ["10.1.2.3"]);
    }

    #[test]
    fn restarts_are_inferred_once_and_counted_afterwards() {
        for (here, there, extra) in [(5, 3, 2), (5, 5, 0), (3, 5, 0)] {
            assert_eq!(restarts(None, &pod("h", "c", here), &pod("t", "c", there)).extra, extra);
        }
        assert_eq!(restarts(None, &pod("h", "a", 5), &pod("t", "b", 3)).extra, 0, "other names say nothing");
        assert_eq!(restarts(None, &Pod::default(), &Pod::default()).extra, 0);

        let first = restarts(None, &pod("h", "c", 0), &pod("t1", "c", 0));
        let same = restarts(Some(&first), &pod("h", "c", 0), &pod("t1", "c", 7));
        assert_eq!(same, first, "its own restarts are no extra ones");
        let anew = restarts(Some(&same), &pod("h", "c", 7), &pod("t2", "c", 0));
        assert_eq!(anew.extra, 1);
        assert_eq!(
            restarts(Some(&anew), &pod("h2", "c", 0), &pod("t3", "c", 0)).extra,
            0,
            "another pod here starts over"
        );
    }

    fn forged(here: &Pod, there: Value, pod_ips: &[&str]) -> Value {
        let pod_ips = pod_ips.iter().map(|ip| (*ip).to_owned()).collect();
        let addresses = Addresses { node_ip: "10.244.0.42", pod_ips };
        let known = Restarts { here: None, there: None, extra: 2 };
        serde_json::to_value(forge(here, &serde_json::from_value(there).unwrap(), addresses, &known)).unwrap()
    }

    #[test]
    fn the_status_is_theirs_and_the_addresses_are_ours() {
        let there = json!({
            "phase": "Running", "qosClass": "Burstable", "observedGeneration": 1, "startTime": "2026-11-20T23:23:12Z",
            "hostIP": "172.30.0.12", "hostIPs": [{"ip": "172.30.0.12"}],
            "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}],
            "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}, {"type": "Own", "status": "True"}],
            "containerStatuses": [{"name": "c", "restartCount": 1, "image": "i", "imageID": "d", "ready": true}],
            "initContainerStatuses": [{"name": "i", "restartCount": 1, "image": "i", "imageID": "d", "ready": true}],
        });
        let mut here = pod("h", "c", 0);
        here.status.as_mut().unwrap().qos_class = Some("BestEffort".into());
        let mut expected = there.clone();
        expected["hostIP"] = json!("10.244.0.42");
        expected["hostIPs"] = json!([{"ip": "10.244.0.42"}]);
        expected["qosClass"] = json!("BestEffort");
        expected["observedGeneration"] = json!(4);
        expected["conditions"][0]["observedGeneration"] = json!(4);
        expected["containerStatuses"][0]["restartCount"] = json!(3);
        assert_eq!(forged(&here, there.clone(), &["10.0.0.9", "fd00::9"]), expected);
        expected["podIP"] = json!("10.245.0.9");
        expected["podIPs"] = json!([{"ip": "10.245.0.9"}]);
        assert_eq!(forged(&here, there.clone(), &["10.245.0.9"]), expected);
        let hidden = forged(&here, there, &[]);
        assert_eq!((&hidden["podIP"], &hidden["podIPs"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn addresses_are_translated_as_far_as_possible_and_nothing_else_waits_for_them() {
        let there = |ips: &[&str]| -> PodStatus {
            let all: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            serde_json::from_value(json!({"podIP": ips.first(), "podIPs": all, "startTime": "2026-11-20T23:23:12Z"}))
                .unwrap()
        };
        let told = |start: &str| -> Pod {
            serde_json::from_value(
                json!({"status": {"podIP": "10.245.0.7", "podIPs": [{"ip": "10.245.0.7"}], "startTime": start}}),
            )
            .unwrap()
        };
        let same_run = told("2026-11-20T23:23:12Z");
        let answer = |ip: IpAddr| match ip.to_string().as_str() {
            "10.244.0.1" => Answer::Known("10.245.0.1".parse().unwrap()),
            "fd00::1" => Answer::Known("fd01::1".parse().unwrap()),
            "10.244.0.2" => Answer::Asking,
            _ => Answer::Failed,
        };
        for (theirs, ours) in [
            (&["10.244.0.1"][..], Some(&["10.245.0.1"][..])),
            (&["10.244.0.1", "fd00::1"], Some(&["10.245.0.1", "fd01::1"])),
            (&["10.244.0.1", "fd00::9"], Some(&["10.245.0.1"])),
            (&["fd00::9", "10.244.0.1"], Some(&["10.245.0.1"])),
            (&["10.244.0.2", "fd00::1"], None),
            (&[], Some(&[])),
            (&["10.244.0.9"], Some(&["10.245.0.7"])),
        ] {
            let expected = ours.map(|ours| ours.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>());
            assert_eq!(pod_ips(&same_run, &there(theirs), answer), expected, "{theirs:?}");
        }
        let another_run = told("2026-11-20T23:00:00Z");
        assert_eq!(
            pod_ips(&another_run, &there(&["10.244.0.9"]), answer),
            Some(vec![]),
            "that address was another pod's"
        );
    }

    #[test]
    fn a_pod_without_a_node_there_has_no_addresses() {
        assert_eq!(forged(&Pod::default(), json!({"phase": "Pending"}), &[]), json!({"phase": "Pending"}));
    }

    /// Whatever another cluster says of a pod, addresses here are those that were translated.
    #[test]
    fn fuzz_reported_statuses() {
        let here = pod("uid", "c", 0);
        liqo_corpus::fuzz(env!("CARGO_MANIFEST_DIR"), "pod_status", |bytes| {
            let Ok(there) = serde_json::from_slice::<PodStatus>(bytes) else { return };
            let told = Pod { status: Some(there.clone()), ..pod("there", "c", 0) };
            let restarts = restarts(None, &here, &told);
            let addresses = Addresses { node_ip: "10.0.0.1", pod_ips: vec!["10.9.0.1".to_owned()] };
            let forged = forge(&here, &there, addresses, &restarts);
            let ips: Vec<_> = forged.pod_ips.into_iter().flatten().map(|one| one.ip).collect();
            assert!(ips.iter().all(|ip| ip == "10.9.0.1"), "{ips:?}");
            assert!(forged.host_ip.is_none_or(|ip| ip == "10.0.0.1"));
        });
    }
}
