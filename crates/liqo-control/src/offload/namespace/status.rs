//! What a `NamespaceOffloading` tells its user: conditions for each provider, and one phase.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    offloading::{NamespaceOffloading, NamespaceOffloadingStatus, RemoteNamespaceCondition},
    virtualkubelet::{MappingPhase, NamespaceMap},
};
use liqo_core::{naming, selector::InvalidSelector};

use super::super::is_leaving;

/// What is known of one provider.
pub(super) struct Facts {
    /// Its namespace map.
    pub map: Arc<NamespaceMap>,
    /// Whether its virtual node is selected; `None` without a node.
    pub selected: Option<Result<bool, InvalidSelector>>,
    /// Whether its API server answers.
    pub answers: bool,
}

/// What is asked of one provider.
pub(super) struct Ask {
    /// The namespace here.
    pub namespace: String,
    /// The provider's namespace map.
    pub map: Arc<NamespaceMap>,
    /// Whether its API server answers.
    pub answers: bool,
    /// Whether the provider is selected.
    pub required: bool,
    /// The namespace wanted there.
    pub wanted: Option<String>,
    /// Why the selector cannot be read.
    pub invalid: Option<String>,
    /// Why the namespace cannot be asked for.
    pub unusable: Option<String>,
}

impl Ask {
    /// What the map says now.
    pub(super) fn desired(&self) -> Option<String> {
        self.map.spec.desired_mapping.get(&self.namespace).cloned()
    }

    /// What the provider last said.
    fn phase(&self) -> Option<MappingPhase> {
        let one = self.map.status.as_ref()?.current_mapping.get(&self.namespace)?;
        // The status of an entry counts only for the remote namespace that was asked for.
        self.desired().is_none_or(|desired| desired == one.remote_namespace).then_some(())?;
        // An entry has no phase only if somebody wrote half of the entry.
        Some(one.phase.unwrap_or(MappingPhase::CreationLoopBackOff))
    }

    /// Whether there is nothing left to say about the provider once the offloading is going.
    fn over(&self) -> bool {
        let asked = self.desired().is_some() && !is_leaving(&*self.map);
        // A provider that does not answer is asked by the replicator when it is back.
        !asked && (self.phase().is_none() || !self.answers)
    }
}

/// The whole status.
pub(super) fn of(
    offloading: &NamespaceOffloading,
    asks: &[Ask],
    own: &ClusterIdentity,
    now: &Time,
) -> NamespaceOffloadingStatus {
    let old = offloading.status.clone().unwrap_or_default();
    let leaving = is_leaving(offloading);
    let namespace = offloading.namespace().unwrap_or_default();
    let told = asks.iter().filter(|ask| !(ask.over() && (leaving || is_leaving(&*ask.map))));
    let conditions = told.map(|ask| {
        let name = ask.map.name_any();
        let before = old.remote_namespaces_conditions.get(&name).map(Vec::as_slice).unwrap_or_default();
        let all = [required(ask), ready(ask)].into_iter().flatten();
        (
            name,
            all.map(|(type_, status, reason, message)| {
                let new = RemoteNamespaceCondition {
                    type_: type_.to_owned(),
                    status: status.to_owned(),
                    last_transition_time: Some(now.clone()),
                    reason: Some(reason.to_owned()),
                    message: Some(message),
                };
                keep_time(before, new)
            })
            .collect(),
        )
    });
    NamespaceOffloadingStatus {
        remote_namespaces_conditions: conditions.collect(),
        remote_namespace_name: Some(naming::remote_namespace(
            &namespace,
            own,
            offloading.spec.namespace_mapping_strategy,
        )),
        offloading_phase: Some(phase(leaving, asks).to_owned()),
        observed_generation: offloading.metadata.generation,
    }
}

/// The time of a condition moves only with its status or reason.
fn keep_time(before: &[RemoteNamespaceCondition], mut new: RemoteNamespaceCondition) -> RemoteNamespaceCondition {
    let same = |old: &&RemoteNamespaceCondition| {
        old.type_ == new.type_ && old.status == new.status && old.reason == new.reason
    };
    if let Some(old) = before.iter().find(same) {
        new.last_transition_time.clone_from(&old.last_transition_time);
    }
    new
}

type Words = (&'static str, &'static str, &'static str, String);

fn required(ask: &Ask) -> Option<Words> {
    const CHOSEN: &str = "The remote cluster has been selected through the ClusterSelector field";
    const NOT_CHOSEN: &str = "The remote cluster has not been selected through the ClusterSelector field";
    let kind = "OffloadingRequired";
    Some(match (ask.required, &ask.invalid) {
        (true, _) => (kind, "True", "ClusterSelected", CHOSEN.to_owned()),
        (false, None) => (kind, "False", "ClusterNotSelected", NOT_CHOSEN.to_owned()),
        (false, Some(why)) => (kind, "False", "ClusterNotSelected", format!("Invalid ClusterSelector: {why}")),
    })
}

fn ready(ask: &Ask) -> Option<Words> {
    let kind = "Ready";
    if let Some(why) = &ask.unusable {
        return Some((kind, "False", "CreationLoopBackOff", why.clone()));
    }
    let (status, reason, message) = match ask.phase() {
        Some(MappingPhase::Accepted) => {
            ("True", "NamespaceCreated", "Namespace correctly offloaded to the remote cluster")
        }
        Some(MappingPhase::CreationLoopBackOff) => {
            ("False", "CreationLoopBackOff", "Some problems occurred during remote namespace creation")
        }
        Some(MappingPhase::Terminating) => ("False", "Terminating", "The remote namespace is being deleted"),
        None if ask.required => ("False", "Creating", "The remote namespace is being created"),
        None => return None,
    };
    Some((kind, status, reason, message.to_owned()))
}

/// One word for the whole; the first that holds.
fn phase(leaving: bool, asks: &[Ask]) -> &'static str {
    let required: Vec<_> = asks.iter().filter(|ask| ask.required).collect();
    let failed = |ask: &&&Ask| ask.unusable.is_some() || ask.phase() == Some(MappingPhase::CreationLoopBackOff);
    let ready = required.iter().filter(|ask| ask.phase() == Some(MappingPhase::Accepted)).count();
    let failed = required.iter().filter(failed).count();
    match required.len() {
        _ if leaving => "Terminating",
        0 => "NoClusterSelected",
        all if ready == all => "Ready",
        all if failed == all => "AllFailed",
        _ if failed > 0 => "SomeFailed",
        _ => "InProgress",
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use liqo_api::virtualkubelet::{NamespaceMapSpec, NamespaceMapStatus, RemoteNamespaceStatus};

    use super::*;

    fn ask(name: &str, required: bool, phase: Option<MappingPhase>) -> Ask {
        let remote = "demo-consumer-ed03b8".to_owned();
        let wanted = required.then(|| remote.clone());
        let desired_mapping = wanted.iter().map(|remote| ("demo".to_owned(), remote.clone())).collect();
        let mut map = NamespaceMap::new(name, NamespaceMapSpec { desired_mapping });
        let current = phase.map(|phase| RemoteNamespaceStatus { remote_namespace: remote, phase: Some(phase) });
        let current_mapping = current.into_iter().map(|current| ("demo".to_owned(), current)).collect();
        map.status = Some(NamespaceMapStatus { current_mapping });
        Ask {
            namespace: "demo".to_owned(),
            map: Arc::new(map),
            answers: true,
            required,
            wanted,
            invalid: None,
            unusable: None,
        }
    }

    fn offloading(leaving: bool) -> NamespaceOffloading {
        let mut offloading = NamespaceOffloading::default();
        offloading.metadata.namespace = Some("demo".to_owned());
        offloading.metadata.generation = Some(3);
        offloading.metadata.deletion_timestamp = leaving.then(|| at(0));
        offloading
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn own() -> ClusterIdentity {
        ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "consumer")
    }

    fn words(status: &NamespaceOffloadingStatus, name: &str) -> Vec<(String, String)> {
        let all = status.remote_namespaces_conditions.get(name).into_iter().flatten();
        all.map(|one| (one.status.clone(), one.reason.clone().unwrap_or_default())).collect()
    }

    #[test]
    fn the_phase_is_the_first_that_holds() {
        use MappingPhase::{Accepted, CreationLoopBackOff, Terminating};
        for (asks, wanted) in [
            (vec![], "NoClusterSelected"),
            (vec![(false, Some(Accepted))], "NoClusterSelected"),
            (vec![(true, Some(Accepted)), (true, Some(Accepted))], "Ready"),
            (vec![(true, None), (true, Some(Accepted))], "InProgress"),
            (vec![(true, Some(Terminating))], "InProgress"),
            (vec![(true, Some(CreationLoopBackOff))], "AllFailed"),
            (vec![(true, Some(CreationLoopBackOff)), (true, Some(Accepted))], "SomeFailed"),
            // What is left of a cluster no longer selected does not count.
            (vec![(true, None), (false, Some(Accepted))], "InProgress"),
            (vec![(true, Some(Accepted)), (false, Some(Accepted))], "Ready"),
        ] {
            let all: Vec<_> = asks.iter().map(|(required, phase)| ask("milan", *required, *phase)).collect();
            assert_eq!(phase(false, &all), wanted, "{asks:?}");
            assert_eq!(phase(true, &all), "Terminating");
        }
    }

    #[test]
    fn conditions_are_those_recorded_from_a_real_cluster() {
        let name = "provider-ca6261";
        let new = of(&offloading(false), &[ask(name, true, None)], &own(), &at(1));
        assert_eq!(new.offloading_phase.as_deref(), Some("InProgress"));
        assert_eq!(new.remote_namespace_name.as_deref(), Some("demo-consumer-ed03b8"));
        assert_eq!(new.observed_generation, Some(3));
        let both =
            |a: (&str, &str), b: (&str, &str)| vec![(a.0.to_owned(), a.1.to_owned()), (b.0.to_owned(), b.1.to_owned())];
        assert_eq!(words(&new, name), both(("True", "ClusterSelected"), ("False", "Creating")));
        let mut then = offloading(false);
        then.status = Some(new);
        let made = of(&then, &[ask(name, true, Some(MappingPhase::Accepted))], &own(), &at(2));
        assert_eq!(words(&made, name), both(("True", "ClusterSelected"), ("True", "NamespaceCreated")));
        let times: Vec<_> =
            made.remote_namespaces_conditions[name].iter().map(|one| one.last_transition_time.clone()).collect();
        assert_eq!(times, [Some(at(1)), Some(at(2))], "the time moves only with the truth");
        let left = of(&then, &[ask(name, false, Some(MappingPhase::Terminating))], &own(), &at(3));
        assert_eq!(words(&left, name), both(("False", "ClusterNotSelected"), ("False", "Terminating")));
        let out = of(&then, &[ask(name, false, None)], &own(), &at(3));
        assert_eq!(words(&out, name), [("False".to_owned(), "ClusterNotSelected".to_owned())]);
    }

    #[test]
    fn the_end_waits_for_those_who_answer_only() {
        let told = |ask| !of(&offloading(true), &[ask], &own(), &at(1)).remote_namespaces_conditions.is_empty();
        assert!(!told(ask("a", false, None)));
        assert!(told(ask("a", false, Some(MappingPhase::Accepted))));
        assert!(told(ask("a", false, Some(MappingPhase::Terminating))));
        let mut silent = ask("a", false, Some(MappingPhase::Accepted));
        silent.answers = false;
        assert!(!told(silent));
        let mut asked = ask("a", true, Some(MappingPhase::Accepted));
        asked.answers = false;
        assert!(told(asked), "its removal is not written yet");
    }

    #[test]
    fn another_namespace_than_the_one_asked_for_is_no_answer() {
        let mut other = ask("a", true, Some(MappingPhase::Accepted));
        let mut map = (*other.map).clone();
        map.status.as_mut().unwrap().current_mapping.get_mut("demo").unwrap().remote_namespace = "loot".to_owned();
        other.map = Arc::new(map);
        assert_eq!(ready(&other).unwrap().2, "Creating");
    }

    #[test]
    fn an_unreachable_provider_on_its_way_out_is_forgotten() {
        let mut gone = ask("a", true, Some(MappingPhase::Accepted));
        let mut map = (*gone.map).clone();
        map.metadata.deletion_timestamp = Some(at(0));
        (gone.map, gone.required, gone.answers) = (Arc::new(map), false, false);
        let status = of(&offloading(false), &[gone], &own(), &at(1));
        assert!(status.remote_namespaces_conditions.is_empty());
        assert_eq!(status.offloading_phase.as_deref(), Some("NoClusterSelected"));
    }

    #[test]
    fn what_is_wrong_is_said_in_the_condition() {
        let mut bad = ask("a", false, None);
        bad.invalid = Some("nodeSelectorTerms[0]: no".to_owned());
        let message = required(&bad).unwrap().3;
        assert_eq!(message, "Invalid ClusterSelector: nodeSelectorTerms[0]: no");
        let mut long = ask("a", false, None);
        (long.required, long.unusable) = (true, Some("too long".to_owned()));
        assert_eq!(ready(&long).unwrap(), ("Ready", "False", "CreationLoopBackOff", "too long".to_owned()));
        assert_eq!(phase(false, &[long]), "AllFailed");
    }
}
