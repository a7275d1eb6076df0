//! The status of a pod there, told as the status of the pod here.
//!
//! Keeps true: restart counts never go back when the pod there is made anew; generations are those of the
//! pod here; conditions that neither a kubelet nor the pod there sets are their writers' here; a pod that has ended here
//! stays ended; whatever makes no difference makes no write.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};

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

/// The conditions a kubelet writes.
const OF_KUBELETS: [&str; 8] = [
    "AllContainersRestarting",
    "ContainersReady",
    "Initialized",
    "PodReadyToStartContainers",
    "PodResizeInProgress",
    "PodResizePending",
    "PodScheduled",
    READY,
];
/// The condition that says whether a pod serves.
const READY: &str = "Ready";

/// Brings the conditions of a status from there together with those others have written here. Of a pod with readiness
/// gates, `Ready` is told as a kubelet tells it: its containers are ready there, and every gate is open here.
fn conditions(status: &mut PodStatus, here: &Pod) {
    let gates: Vec<_> = gates(here).collect();
    let told = here.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|one| !gates.contains(&one.type_.as_str()));
    let others = told.iter().filter(|one| {
        !OF_KUBELETS.contains(&one.type_.as_str()) && conditions.iter().all(|other| other.type_ != one.type_)
    });
    let others: Vec<_> = others.cloned().collect();
    conditions.extend(others);
    let is_true = |type_: &str| conditions.iter().any(|one| one.type_ == type_ && one.status == "True");
    let closed: Vec<_> = gates.iter().filter(|gate| !is_true(gate)).copied().collect();
    let serves = is_true("ContainersReady") && closed.is_empty();
    let decide = |one: &&PodCondition| one.type_ == "ContainersReady" || gates.contains(&one.type_.as_str());
    let since = conditions.iter().filter(decide).filter_map(|one| one.last_transition_time.clone()).max();
    if let Some(ready) = conditions.iter_mut().find(|one| one.type_ == READY).filter(|_| !gates.is_empty()) {
        let was = told.iter().find(|one| one.type_ == READY);
        *ready = gated(ready, was, serves, &closed);
        if was.is_none_or(|was| was.status != ready.status) {
            // Since the last of those that decide has changed.
            ready.last_transition_time = since.or(ready.last_transition_time.take());
        }
    }
    if conditions.is_empty() {
        status.conditions = None;
    }
}

/// The condition `Ready` of a pod with readiness gates, of which `closed` are not open.
fn gated(there: &PodCondition, was: Option<&PodCondition>, serves: bool, closed: &[&str]) -> PodCondition {
    let mut ready = PodCondition { status: if serves { "True" } else { "False" }.to_owned(), ..there.clone() };
    if serves {
        (ready.reason, ready.message) = (None, None);
    } else if !closed.is_empty() {
        ready.reason = Some("ReadinessGatesNotReady".to_owned());
        ready.message = Some(format!("readiness gates that are not open: {}", closed.join(", ")));
    }
    if let Some(was) = was.filter(|was| was.status == ready.status) {
        ready.last_transition_time.clone_from(&was.last_transition_time);
    }
    ready
}

/// The condition types that must be true for a pod to be ready, beyond what a kubelet finds.
fn gates(here: &Pod) -> impl Iterator<Item = &str> {
    here.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten()).map(|gate| gate.condition_type.as_str())
}

/// The readiness gates of a pod with their status here, as JSON; `None`: the pod has none.
pub(super) fn gates_told(here: &Pod) -> Option<String> {
    let conditions = here.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let status = |gate: &str| {
        let condition = conditions.iter().find(|one| one.type_ == gate);
        condition.map_or("False", |one| one.status.as_str())
    };
    let all: BTreeMap<_, _> = gates(here).map(|gate| (gate, status(gate))).collect();
    (!all.is_empty()).then(|| serde_json::to_string(&all).expect("texts are JSON"))
}

/// Whether a status says no more than that a pod is on its way to its first run: nothing has run, nothing has failed, no address
/// is known, and a node was found.
pub(super) fn is_starting(there: &PodStatus) -> bool {
    let on_its_way = |one: &ContainerStatus| {
        let reason = one.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.as_deref());
        one.restart_count == 0 && matches!(reason, Some("ContainerCreating" | "PodInitializing"))
    };
    let mut containers =
        there.init_container_statuses.iter().flatten().chain(there.container_statuses.iter().flatten());
    let mut conditions = there.conditions.iter().flatten();
    there.phase.as_deref() == Some("Pending")
        && (&there.reason, &there.message, &there.pod_ip) == (&None, &None, &None)
        && containers.all(on_its_way)
        && conditions.all(|one| one.type_ != "PodScheduled" || one.status == "True")
}

/// Whether a pod has ended for good.
fn has_ended(status: Option<&PodStatus>) -> bool {
    matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether a status from there is none of the pod here: the pod here has ended another way, or the pod there ends only
/// because it is deleted there and will be made anew.
pub(super) fn is_past(here: &Pod, there: &Pod) -> bool {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    if has_ended(here.status.as_ref()) {
        return phase(here) != phase(there);
    }
    let policy = here.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let goes_on = match phase(there).as_deref() {
        Some("Failed") => policy != "Never",
        Some("Succeeded") => policy == "Always",
        _ => false,
    };
    goes_on && there.metadata.deletion_timestamp.is_some() && here.metadata.deletion_timestamp.is_none()
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
    conditions(&mut status, here);
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

    #[test]
    fn a_pod_is_starting_until_there_is_something_to_tell() {
        let container = |state: Value, restarts: u32| json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state}]);
        let waits = |reason: &str| json!({"waiting": {"reason": reason}});
        for (status, starting) in [
            (json!({"phase": "Pending"}), true),
            (json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}), true),
            (json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}), false),
            (json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]}), true),
            (json!({"phase": "Pending", "containerStatuses": container(waits("ContainerCreating"), 0)}), true),
            (json!({"phase": "Pending", "containerStatuses": container(waits("PodInitializing"), 0)}), true),
            (json!({"phase": "Pending", "containerStatuses": container(waits("ContainerCreating"), 1)}), false),
            (json!({"phase": "Pending", "containerStatuses": container(waits("ErrImagePull"), 0)}), false),
            (json!({"phase": "Pending", "initContainerStatuses": container(json!({"running": {}}), 0)}), false),
            (json!({"phase": "Pending", "podIP": "10.1.2.3"}), false),
            (json!({"phase": "Pending", "reason": "Evicted"}), false),
            (json!({"phase": "Pending", "message": "no"}), false),
            (json!({"phase": "Running"}), false),
            (json!({}), false),
        ] {
            assert_eq!(is_starting(&serde_json::from_value(status.clone()).unwrap()), starting, "{status}");
        }
    }

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

    /// The conditions of a pod here, given those of the pod there, as `type=status` words.
    fn merged(gates: &[&str], here: Value, there: Value) -> Vec<String> {
        let gates: Vec<_> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        let pod = json!({"spec": {"containers": [], "readinessGates": gates}, "status": {"conditions": here}});
        let mut status: PodStatus = serde_json::from_value(json!({ "conditions": there })).unwrap();
        conditions(&mut status, &serde_json::from_value(pod).unwrap());
        status.conditions.into_iter().flatten().map(|one| format!("{}={}", one.type_, one.status)).collect()
    }

    fn condition(text: &str) -> Value {
        let (type_, status) = text.split_once('=').unwrap();
        json!({"type": type_, "status": status})
    }

    #[test]
    fn conditions_of_other_writers_stay_and_gates_decide_about_readiness() {
        for (gates, here, there, wanted) in [
            (&[][..], &["a/b=True", "Ready=False"][..], &["Ready=True"][..], &["Ready=True", "a/b=True"][..]),
            (&[], &["PodResizePending=True"], &["Ready=True"], &["Ready=True"]),
            (&[], &["DisruptionTarget=True"], &["DisruptionTarget=False"], &["DisruptionTarget=False"]),
            (&["g"], &[], &["ContainersReady=True", "Ready=True"], &["ContainersReady=True", "Ready=False"]),
            (
                &["g"],
                &["g=True"],
                &["ContainersReady=True", "Ready=False"],
                &["ContainersReady=True", "Ready=True", "g=True"],
            ),
            (
                &["g"],
                &["g=True"],
                &["ContainersReady=False", "Ready=False"],
                &["ContainersReady=False", "Ready=False", "g=True"],
            ),
            (
                &["g", "h"],
                &["g=True", "h=False"],
                &["ContainersReady=True", "Ready=True"],
                &["ContainersReady=True", "Ready=False", "g=True", "h=False"],
            ),
            (
                &["g"],
                &["g=True"],
                &["ContainersReady=True", "Ready=True", "g=False"],
                &["ContainersReady=True", "Ready=True", "g=True"],
            ),
        ] {
            let both = [here, there].map(|all| Value::Array(all.iter().map(|one| condition(one)).collect()));
            let [is, comes] = both;
            assert_eq!(merged(gates, is, comes), wanted, "{gates:?} {here:?} {there:?}");
        }
    }

    #[test]
    fn gates_travel_with_their_status() {
        let pod = |conditions: Value| -> Pod {
            let spec = json!({"containers": [], "readinessGates": [{"conditionType": "a/b"}]});
            serde_json::from_value(json!({"spec": spec, "status": {"conditions": conditions}})).unwrap()
        };
        assert_eq!(gates_told(&Pod::default()), None);
        assert_eq!(gates_told(&pod(json!([]))).as_deref(), Some(r#"{"a/b":"False"}"#));
        let open = pod(json!([{"type": "a/b", "status": "True"}, {"type": "Ready", "status": "True"}]));
        assert_eq!(gates_told(&open).as_deref(), Some(r#"{"a/b":"True"}"#));
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
