//! What `NamespaceOffloading`s ask of providers. All pure.

use std::sync::Arc;

use kube::ResourceExt;
use liqo_api::{
    ClusterIdentity,
    offloading::{NamespaceOffloading, PodOffloadingStrategy},
};
use liqo_core::{mapping, naming};

use super::{
    super::is_leaving,
    status::{Ask, Facts},
};

/// What this cluster says about an entry of an original map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryState {
    /// A `NamespaceOffloading` asks the provider for the namespace under that name.
    Asked,
    /// Nothing is decided without the virtual node or a readable selector, nor while the map is being deleted.
    Undecided,
    /// Nobody asks for it: somebody else wrote the entry, or the entry is about to be removed.
    Unasked,
}

/// What this cluster says about the entry of an original map for the namespace of `offloading`.
pub(super) fn entry_state(
    offloading: &NamespaceOffloading,
    facts: &Facts,
    own: &ClusterIdentity,
    liqo_namespace: &str,
) -> EntryState {
    let ask = plan(offloading, std::slice::from_ref(facts), own, liqo_namespace).pop();
    let is_as_wanted = ask.is_some_and(|ask| ask.wanted.is_some() && ask.wanted == ask.desired());
    match (is_as_wanted, &facts.selected) {
        (false, _) => EntryState::Unasked,
        (true, Some(Ok(true))) if !is_leaving(&*facts.map) => EntryState::Asked,
        (true, _) => EntryState::Undecided,
    }
}

/// Whether pods of the namespace go through the webhook.
pub(super) fn label_wanted(offloading: &NamespaceOffloading) -> bool {
    !is_leaving(offloading) && offloading.spec.pod_offloading_strategy != PodOffloadingStrategy::Local
}

/// What to ask of each provider.
pub(super) fn plan(
    offloading: &NamespaceOffloading,
    facts: &[Facts],
    own: &ClusterIdentity,
    liqo_namespace: &str,
) -> Vec<Ask> {
    let namespace = offloading.namespace().unwrap_or_default();
    let remote = naming::remote_namespace(&namespace, own, offloading.spec.namespace_mapping_strategy);
    let stays = (mapping::stays_here(&namespace) || namespace == liqo_namespace)
        .then(|| format!("The namespace {namespace:?} belongs to this cluster: it is never offloaded"));
    let too_long = naming::dns_label_error(&remote).map(|why| {
        format!(
            "The name of the remote namespace {remote:?} {why}: rename the namespace, or offload it with the \
                 NamespaceMappingStrategy EnforceSameName"
        )
    });
    let unusable = stays.or(too_long);
    let ask = |one: &Facts| {
        let desired = one.map.spec.desired_mapping.get(&namespace).cloned();
        let leaving = is_leaving(&*one.map);
        let mut ask = Ask {
            namespace: namespace.clone(),
            map: Arc::clone(&one.map),
            answers: one.answers,
            required: false,
            wanted: None,
            invalid: None,
            unusable: None,
        };
        match &one.selected {
            // A map on its way out takes everything with it.
            _ if leaving => ask.wanted = desired,
            _ if is_leaving(offloading) => {}
            // No node (yet, or any longer): nothing is decided without it.
            None => ask.wanted = desired,
            Some(Ok(true)) if unusable.is_some() => ask.unusable.clone_from(&unusable),
            Some(Ok(true)) => ask.wanted = Some(remote.clone()),
            Some(Ok(false)) => {}
            Some(Err(why)) => {
                ask.invalid = Some(why.to_string());
                ask.wanted = desired;
            }
        }
        ask.required = !leaving && (ask.wanted.is_some() || ask.unusable.is_some());
        ask
    };
    facts.iter().map(ask).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSelector;
    use liqo_api::{
        names,
        offloading::{NamespaceMappingStrategy, NamespaceOffloadingSpec},
        virtualkubelet::{NamespaceMap, NamespaceMapSpec},
    };

    use liqo_core::selector;
    use liqo_kube::now;
    use serde_json::json;

    use super::*;

    fn offloading(strategy: PodOffloadingStrategy, leaving: bool) -> NamespaceOffloading {
        let spec = NamespaceOffloadingSpec {
            pod_offloading_strategy: strategy,
            cluster_selector: Some(NodeSelector::default()),
            ..NamespaceOffloadingSpec::default()
        };
        let mut offloading = NamespaceOffloading::new(names::NAMESPACE_OFFLOADING, spec);
        offloading.metadata.namespace = Some("demo".to_owned());
        offloading.metadata.deletion_timestamp = leaving.then(now);
        offloading
    }

    fn facts(selected: Option<bool>, desired: Option<&str>) -> Facts {
        let desired_mapping = desired.map(|name| ("demo".to_owned(), name.to_owned())).into_iter().collect();
        let map = NamespaceMap::new("milan-6b1f02", NamespaceMapSpec { desired_mapping });
        Facts { map: Arc::new(map), selected: selected.map(Ok), answers: true }
    }

    fn own() -> ClusterIdentity {
        ClusterIdentity::new("09897b82-7830-483b-b786-9cf90899f809", "consumer")
    }

    #[test]
    fn a_provider_is_asked_exactly_while_it_is_selected() {
        let remote = "demo-consumer-ed03b8";
        for (selected, desired, leaving, wanted) in [
            (Some(true), None, false, Some(remote)),
            (Some(true), Some("old-name"), false, Some(remote)),
            (Some(false), Some(remote), false, None),
            (Some(false), None, false, None),
            // No node: nothing changes.
            (None, Some(remote), false, Some(remote)),
            (None, None, false, None),
            (Some(true), Some(remote), true, None),
            (None, Some(remote), true, None),
        ] {
            let offloading = offloading(PodOffloadingStrategy::Remote, leaving);
            let asks = plan(&offloading, &[facts(selected, desired)], &own(), "liqo");
            assert_eq!(asks[0].wanted.as_deref(), wanted, "{selected:?} {desired:?} {leaving}");
            assert_eq!(asks[0].required, wanted.is_some());
        }
    }

    #[test]
    fn an_entry_of_a_map_counts_only_if_an_offloading_asks_for_it() {
        let remote = "demo-consumer-ed03b8";
        let remotely = |leaving: bool| offloading(PodOffloadingStrategy::Remote, leaving);
        for (selected, desired, leaving, wanted) in [
            (Some(true), remote, false, EntryState::Asked),
            // Another name than the one that is asked for.
            (Some(true), "loot", false, EntryState::Unasked),
            // Offloaded to others only.
            (Some(false), remote, false, EntryState::Unasked),
            (Some(false), "loot", false, EntryState::Unasked),
            (Some(true), remote, true, EntryState::Unasked),
            (None, remote, false, EntryState::Undecided),
        ] {
            let state = entry_state(&remotely(leaving), &facts(selected, Some(desired)), &own(), "liqo");
            assert_eq!(state, wanted, "{selected:?} {desired} {leaving}");
        }
        let mut going = facts(Some(true), Some("loot"));
        Arc::make_mut(&mut going.map).metadata.deletion_timestamp = Some(now());
        assert_eq!(entry_state(&remotely(false), &going, &own(), "liqo"), EntryState::Undecided);
        let mut system = remotely(false);
        system.metadata.namespace = Some("liqo".to_owned());
        assert_eq!(entry_state(&system, &facts(Some(true), Some(remote)), &own(), "liqo"), EntryState::Unasked);
    }

    #[test]
    fn an_unreadable_selector_changes_nothing() {
        let mut selector: NodeSelector = serde_json::from_value(json!({"nodeSelectorTerms": []})).unwrap();
        selector.node_selector_terms =
            serde_json::from_value(json!([{"matchExpressions": [{"key": "a", "operator": "Like"}]}])).unwrap();
        let why = selector::error(&selector).unwrap();
        for desired in [None, Some("demo-consumer-ed03b8")] {
            let mut facts = facts(None, desired);
            facts.selected = Some(Err(why.clone()));
            let asks = plan(&offloading(PodOffloadingStrategy::Remote, false), &[facts], &own(), "liqo");
            assert_eq!(asks[0].wanted.as_deref(), desired);
            assert!(asks[0].invalid.as_ref().unwrap().contains("Unsupported value: \"Like\""));
        }
    }

    #[test]
    fn a_name_too_long_is_not_asked_for_but_explained() {
        let mut offloading = offloading(PodOffloadingStrategy::Remote, false);
        let long = "n".repeat(60);
        offloading.metadata.namespace = Some(long.clone());
        let asks = plan(&offloading, &[facts(Some(true), None)], &own(), "liqo");
        assert_eq!((asks[0].wanted.as_deref(), asks[0].required), (None, true));
        assert!(asks[0].unusable.as_ref().unwrap().contains("is longer than 63 characters"));
        offloading.spec.namespace_mapping_strategy = NamespaceMappingStrategy::EnforceSameName;
        let asks = plan(&offloading, &[facts(Some(true), None)], &own(), "liqo");
        assert_eq!(asks[0].wanted.as_deref(), Some(long.as_str()));
    }

    #[test]
    fn pods_pass_the_webhook_unless_they_must_stay_here() {
        assert!(label_wanted(&offloading(PodOffloadingStrategy::Remote, false)));
        assert!(label_wanted(&offloading(PodOffloadingStrategy::LocalAndRemote, false)));
        assert!(!label_wanted(&offloading(PodOffloadingStrategy::Local, false)));
        assert!(!label_wanted(&offloading(PodOffloadingStrategy::Remote, true)));
    }
}
