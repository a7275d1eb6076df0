//! The catalogue, watched: what a caller is told when providers come, change and go.

use std::{collections::BTreeMap, sync::Arc};

use liqo_api::market::ProviderProfile;
use liqo_front::events::Event;
use serde_json::json;

use crate::{catalogue::Filter, model::ProviderView, world::World};

/// What of a provider was told last: the version of its profile, and whether it was fresh.
type Told = (Option<String>, bool);

/// What a stream has told, by cluster ID.
pub(crate) type Seen = BTreeMap<String, Told>;

/// What there is now, and what to tell about it. In the beginning every provider is told.
pub(crate) fn look(world: &World, filter: &Filter, last: Option<&Seen>) -> (Seen, Vec<Event>) {
    let profiles = world.profiles();
    let shown = profiles.iter().filter_map(|profile| {
        let is_fresh = world.is_fresh(&profile.spec.cluster_id);
        filter.takes(profile, is_fresh).then_some((profile, is_fresh))
    });
    let shown: BTreeMap<&str, (&Arc<ProviderProfile>, bool)> =
        shown.map(|(profile, is_fresh)| (profile.spec.cluster_id.as_str(), (profile, is_fresh))).collect();
    let now: Seen = shown
        .iter()
        .map(|(id, (profile, is_fresh))| ((*id).to_owned(), (profile.metadata.resource_version.clone(), *is_fresh)))
        .collect();
    let (told, gone) = news(last, &now);
    let view = |id: &str| {
        let (profile, _) = shown.get(id)?;
        Some(Event::new("provider", &ProviderView::of(profile, world.age(id), world.heard.limit().as_secs())))
    };
    let gone = gone.into_iter().map(|id| Event::new("gone", &json!({"clusterID": id})));
    let events = told.into_iter().filter_map(view).chain(gone).collect();
    (now, events)
}

/// Cluster IDs of new or changed providers, and of providers that are gone.
fn news<'a>(last: Option<&'a Seen>, now: &'a Seen) -> (Vec<&'a str>, Vec<&'a str>) {
    let known = |id: &String| last.and_then(|last| last.get(id));
    let told = now.iter().filter(|(id, told)| known(id) != Some(told)).map(|(id, _)| id.as_str()).collect();
    let gone = last.into_iter().flatten().map(|(id, _)| id.as_str()).filter(|id| !now.contains_key(*id)).collect();
    (told, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let seen = |all: &[(&str, &str, bool)]| -> Seen {
            all.iter().map(|(id, version, fresh)| ((*id).to_owned(), (Some((*version).to_owned()), *fresh))).collect()
        };
        let (first, next) = (
            seen(&[("a", "1", true), ("b", "1", true), ("c", "1", true)]),
            seen(&[("a", "1", true), ("b", "2", true), ("d", "1", true)]),
        );
        assert_eq!(news(None, &first), (vec!["a", "b", "c"], vec![]));
        assert_eq!(news(Some(&first), &first), (vec![], vec![]));
        assert_eq!(news(Some(&first), &next), (vec!["b", "d"], vec!["c"]));
        let stale = seen(&[("a", "1", false), ("b", "1", true), ("c", "1", true)]);
        assert_eq!(news(Some(&first), &stale), (vec!["a"], vec![]));
    }
}
