//! What becomes of a heartbeat.

use http::StatusCode;
use kube::ResourceExt;
use liqo_api::market::{ProviderProfile, ProviderProfileSpec};
use liqo_core::quantity::Amount;
use liqo_front::problem::Problem;
use liqo_market::wire::{Declared, Heartbeat, HeartbeatAnswer, Promise};
use serde_json::json;

use crate::{model::declared, reserve::refused, world::World};

/// Resources of one offer, and labels of a provider, at most.
const MOST: usize = 32;
/// Longest name and longest value of a label of Kubernetes, in bytes.
const LONGEST_NAME: usize = 317;
const LONGEST_VALUE: usize = 63;

/// Takes a heartbeat of a provider, who may send it, and answers what is promised there.
pub(crate) async fn take(world: &World, id: &str, beat: Heartbeat) -> Result<HeartbeatAnswer, Problem> {
    check(&beat)?;
    declare(world, id, &beat.declared).await?;
    let at = world.reservations_at(id);
    let stands = |uid: &str| at.iter().any(|one| one.uid().as_deref() == Some(uid));
    let is_news = world.note(id, beat, stands);
    let full = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there are too many providers");
    if is_news.ok_or_else(full)? {
        world.queue.push(id.to_owned());
    }
    Ok(HeartbeatAnswer { interval_seconds: world.heard.interval(), promises: promises(world, id) })
}

/// Whether the offer makes sense.
fn check(beat: &Heartbeat) -> Result<(), Problem> {
    let wrong = |detail: String| Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    for (field, list) in [("offered", &beat.offered), ("largestAllocation", &beat.largest_allocation)] {
        if list.len() > MOST {
            return wrong(format!("{field} names more than {MOST} resources"));
        }
        let odd =
            list.iter().find(|(_, quantity)| Amount::parse(&quantity.0).is_none_or(|amount| amount < Amount::ZERO));
        if let Some((name, quantity)) = odd {
            return wrong(format!("{field}: {:?} is no amount of {name:?}", quantity.0));
        }
    }
    let labels = &beat.declared.labels;
    if labels.len() > MOST
        || labels.iter().any(|(name, value)| name.len() > LONGEST_NAME || value.len() > LONGEST_VALUE)
    {
        return wrong(format!("declared.labels: {MOST} labels at most, of the lengths of labels of Kubernetes"));
    }
    Ok(())
}

/// Writes what the provider says of itself, if that is new. What operators decided stays.
async fn declare(world: &World, id: &str, new: &Declared) -> Result<(), Problem> {
    let outcome = match world.profile(id) {
        Some(known) if declared(&known) == *new => return Ok(()),
        Some(known) => {
            let fields = [
                ("/spec/clusterName", json!(new.cluster_name)),
                ("/spec/region", json!(new.region)),
                ("/spec/labels", json!(new.labels)),
                ("/spec/prices", json!(new.prices)),
                ("/spec/carbonGrams", json!(new.carbon_grams)),
                ("/spec/probe", json!(new.probe)),
            ];
            world.cluster.put(&*known, false, &fields).await
        }
        None => world.cluster.create(&profile(id, new)).await,
    };
    match outcome {
        Err(error) if error.is_conflict() => Ok(()),
        outcome => outcome.map(drop).map_err(|error| refused(&error)),
    }
}

fn profile(id: &str, new: &Declared) -> ProviderProfile {
    let new = new.clone();
    let spec = ProviderProfileSpec {
        cluster_id: id.to_owned(),
        cluster_name: new.cluster_name,
        region: new.region,
        labels: new.labels,
        prices: new.prices,
        carbon_grams: new.carbon_grams,
        probe: new.probe,
        cordoned: false,
    };
    ProviderProfile::new(id, spec)
}

/// What is promised of the offer of a provider.
fn promises(world: &World, id: &str) -> Vec<Promise> {
    let (Some(profile), last) = (world.profile(id), world.heard.last(id)) else { return Vec::new() };
    let is_invited = |uid: &str| last.as_ref().is_some_and(|last| last.invitations.contains_key(uid));
    let grants = profile.status.iter().flat_map(|status| &status.grants);
    let promise = |grant: &liqo_api::market::Grant| {
        let reservation = world.reservation(&grant.namespace, &grant.name)?;
        Some(Promise {
            reservation: grant.uid.clone(),
            consumer: reservation.spec.consumer.clone(),
            resources: grant.resources.clone(),
            until: grant.until.0.to_string(),
            is_invited: is_invited(&grant.uid),
        })
    };
    grants.filter_map(promise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_made_of_amounts() {
        let beat = |offered| serde_json::from_value::<Heartbeat>(json!({"offered": offered})).unwrap();
        let many: serde_json::Map<_, _> = (0..33).map(|number| (number.to_string(), json!("1"))).collect();
        for (offered, words) in [
            (json!({"cpu": "4", "memory": "1Gi", "pods": "0"}), None),
            (json!({"cpu": "-1"}), Some("no amount of \"cpu\"")),
            (json!({"cpu": "many"}), Some("no amount of \"cpu\"")),
            (json!(many), Some("more than 32 resources")),
        ] {
            let found = check(&beat(offered.clone())).err().map(|problem| problem.detail);
            assert_eq!(found.is_some(), words.is_some(), "{offered}");
            assert!(found.unwrap_or_default().contains(words.unwrap_or_default()), "{offered}");
        }
    }
}
