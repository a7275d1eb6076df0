//! The status of a namespace map: what became of each namespace that the map asks for.

use std::collections::BTreeMap;

use liqo_api::virtualkubelet::{MappingPhase, NamespaceMap, NamespaceMapStatus, RemoteNamespaceStatus};
use liqo_kube::KubeError;

/// What became of one namespace that a map asks for.
pub(super) struct Outcome {
    pub(super) original: String,
    pub(super) name: String,
    /// An error, or the phase, or why the namespace is refused.
    pub(super) result: Result<Result<MappingPhase, String>, KubeError>,
}

/// The namespaces that are on their way out: original name and name; or why that is not known.
pub(super) type Left = Result<Vec<(String, String)>, KubeError>;

/// The status, and what has to be tried again.
pub(super) fn status(
    map: &NamespaceMap,
    outcomes: Vec<Outcome>,
    left: Left,
) -> (NamespaceMapStatus, Option<KubeError>) {
    let none = BTreeMap::new();
    let before = map.status.as_ref().map_or(&none, |status| &status.current_mapping);
    let mut current = BTreeMap::new();
    let mut trouble = None;
    match left {
        Ok(left) => {
            current.extend(left.into_iter().map(|(original, name)| (original, entry(name, MappingPhase::Terminating))))
        }
        Err(error) => {
            // Which namespaces are left is not known: old entries stay until it is.
            let desired: Vec<_> = outcomes.iter().map(|one| &one.original).collect();
            let old = before.iter().filter(|(original, _)| !desired.contains(original));
            current.extend(old.map(|(original, one)| (original.clone(), one.clone())));
            trouble = Some(error);
        }
    }
    for Outcome { original, name, result } in outcomes {
        let phase = match result {
            Ok(Ok(phase)) => phase,
            Ok(Err(_)) => MappingPhase::CreationLoopBackOff,
            Err(error) => {
                trouble = Some(error);
                // What worked goes on working while the API server has trouble.
                let worked = |old: &&RemoteNamespaceStatus| {
                    old.remote_namespace == name && old.phase == Some(MappingPhase::Accepted)
                };
                before
                    .get(&original)
                    .filter(worked)
                    .map_or(MappingPhase::CreationLoopBackOff, |_| MappingPhase::Accepted)
            }
        };
        current.insert(original, entry(name, phase));
    }
    (NamespaceMapStatus { current_mapping: current }, trouble)
}

fn entry(name: String, phase: MappingPhase) -> RemoteNamespaceStatus {
    RemoteNamespaceStatus { remote_namespace: name, phase: Some(phase) }
}

#[cfg(test)]
mod tests {
    use liqo_api::virtualkubelet::NamespaceMapSpec;

    use super::*;

    fn outcome(original: &str, name: &str, result: Result<MappingPhase, &str>) -> Outcome {
        let result = Ok(result.map_err(str::to_owned));
        Outcome { original: original.to_owned(), name: name.to_owned(), result }
    }

    fn phases(status: &NamespaceMapStatus) -> Vec<(&str, &str, MappingPhase)> {
        let all = status.current_mapping.iter();
        all.map(|(key, one)| (key.as_str(), one.remote_namespace.as_str(), one.phase.unwrap())).collect()
    }

    #[test]
    fn the_status_says_what_became_of_every_wish() {
        let map = NamespaceMap::new("provider-ca6261", NamespaceMapSpec::default());
        let outcomes = vec![
            outcome("a", "a-x", Ok(MappingPhase::Accepted)),
            outcome("b", "b-x", Err("taken")),
            // Renamed: the old one is on its way out, the entry speaks of the new one.
            outcome("c", "c-new", Ok(MappingPhase::Accepted)),
        ];
        let left = vec![("c".to_owned(), "c-old".to_owned()), ("d".to_owned(), "d-x".to_owned())];
        let (status, trouble) = status(&map, outcomes, Ok(left));
        assert!(trouble.is_none());
        assert_eq!(
            phases(&status),
            [
                ("a", "a-x", MappingPhase::Accepted),
                ("b", "b-x", MappingPhase::CreationLoopBackOff),
                ("c", "c-new", MappingPhase::Accepted),
                ("d", "d-x", MappingPhase::Terminating),
            ]
        );
    }
}
