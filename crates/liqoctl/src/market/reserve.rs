//! `liqoctl market reserve` and `release`

use anyhow::{Context, bail};
use liqo_market::wire::{NewReservation, Resources};
use liqo_market_client::Reserved;
use serde_json::{Value, json};

use super::{
    access::Site,
    select::{WishArgs, nobody},
    ttl,
};
use crate::{
    out::{Format, Out},
    table::{Form, ShowArgs},
};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReserveArgs {
    /// Name of the reservation
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    wish: WishArgs,
    /// Cluster ID of the provider, in the place of a selection
    #[arg(long, value_name = "CLUSTER_ID", conflicts_with_all = ["policy", "largest_pod", "measured"])]
    provider: Option<String>,
    /// How long the resources are held
    #[arg(long, default_value = "10m", value_parser = ttl, value_name = "DURATION")]
    ttl: u32,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    /// Names of the reservations
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// What is reserved where.
#[derive(Clone, Debug, PartialEq)]
struct Share {
    name: String,
    provider: String,
    resources: Resources,
}

/// `liqoctl market reserve`
pub(super) async fn run(site: &Site, args: ReserveArgs) -> anyhow::Result<()> {
    let format = args.show.output.and_then(Form::for_programs);
    let out = Out::new(format.is_some());
    let shares = match &args.provider {
        Some(provider) => {
            vec![Share { name: args.name.clone(), provider: provider.clone(), resources: args.wish.request().clone() }]
        }
        None => {
            let answer = args.wish.ask(site, 1).await?;
            if let Some(why) = nobody(&answer) {
                bail!(
                    "{why}; `liqoctl market select --explain` with the same flags shows the reasons of each provider"
                );
            }
            shares(&args.name, &answer)?
        }
    };
    let held = all(site, &shares, args.ttl).await?;
    tell(&held, format, out)
}

/// Reserves every share, or none.
async fn all<'a>(site: &Site, shares: &'a [Share], ttl: u32) -> anyhow::Result<Vec<(&'a Share, Reserved)>> {
    let before = site.broker.held().await.context("listing reservations")?;
    let is_new = |share: &&Share| !before.iter().any(|one| one["name"] == share.name);
    let mut held = Vec::new();
    for (at, share) in shares.iter().enumerate() {
        match reserve(site, share, ttl).await {
            Ok(reserved) => held.push((share, reserved)),
            Err(error) => {
                let asked = shares.iter().take(at + 1).filter(is_new).map(|share| share.name.as_str());
                return Err(undo(site, asked, error).await);
            }
        }
    }
    Ok(held)
}

/// Prints what is held.
fn tell(held: &[(&Share, Reserved)], format: Option<Format>, out: Out) -> anyhow::Result<()> {
    if let Some(format) = format {
        let view = |(share, reserved): &(&Share, Reserved)| {
            json!({"name": share.name, "provider": reserved.provider, "resources": share.resources,
                "phase": reserved.phase, "expiresAt": reserved.expires_at})
        };
        return out.value(&held.iter().map(view).collect::<Vec<_>>(), format);
    }
    for (share, reserved) in held {
        let until = reserved.expires_at.as_deref().unwrap_or("its end");
        out.done(format!("{}: held at {} until {until}", share.name, reserved.provider));
    }
    Ok(())
}

/// What is reserved for a placement.
fn shares(name: &str, answer: &Value) -> anyhow::Result<Vec<Share>> {
    let placed = answer["placement"].as_array().map(Vec::as_slice).unwrap_or_default();
    let share = |(at, share): (usize, &Value)| {
        Ok(Share {
            name: if placed.len() == 1 { name.to_owned() } else { format!("{name}-{at}") },
            provider: share["clusterID"].as_str().context("the broker places on a provider without an ID")?.to_owned(),
            resources: serde_json::from_value(share["resources"].clone()).context("reading what the broker places")?,
        })
    };
    placed.iter().enumerate().map(share).collect()
}

async fn reserve(site: &Site, share: &Share, ttl_seconds: u32) -> anyhow::Result<Reserved> {
    let Share { name, provider, resources } = share.clone();
    let new = NewReservation { name, provider, consumer: site.id.clone(), resources, ttl_seconds };
    let reserved = site.broker.reserve(&new).await;
    let reserved = reserved.with_context(|| format!("reserving {} at {}", share.name, share.provider))?;
    if reserved.provider != share.provider {
        bail!("the broker answers about {:?}, and {:?} was asked for", reserved.provider, share.provider);
    }
    if reserved.phase != "Granted" {
        bail!(
            "the reservation {} is {}, so everything that was asked for now is given back",
            share.name,
            reserved.phase
        );
    }
    Ok(reserved)
}

/// Gives back what this call has asked for, whether or not the broker has decided.
async fn undo<'a>(site: &Site, names: impl Iterator<Item = &'a str>, error: anyhow::Error) -> anyhow::Error {
    let mut kept = Vec::new();
    for name in names {
        if let Err(no) = site.broker.release(name).await {
            kept.push(format!("{name} ({no})"));
        }
    }
    if kept.is_empty() { error } else { error.context(format!("may still be held: {}", kept.join(", "))) }
}

/// `liqoctl market release`
pub(super) async fn release(site: &Site, args: ReleaseArgs) -> anyhow::Result<()> {
    let out = Out::new(false);
    let held = site.broker.held().await.context("listing reservations")?;
    let unknown = args.names.iter().find(|name| !held.iter().any(|one| one["name"] == **name));
    if let Some(name) = unknown {
        bail!("there is no reservation {name:?}; `liqoctl market list --reservations` names them");
    }
    for name in &args.names {
        site.broker.release(name).await.with_context(|| format!("releasing {name}"))?;
        out.done(format!("{name}: the resources are given back"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_of_a_placement_has_its_reservation() {
        let place = |count: usize| {
            let share = |at: usize| json!({"clusterID": format!("p{at}"), "resources": {"cpu": "1"}});
            json!({"placement": (0..count).map(share).collect::<Vec<_>>()})
        };
        let names = |count| {
            shares("x", &place(count)).unwrap().into_iter().map(|one| (one.name, one.provider)).collect::<Vec<_>>()
        };
        assert_eq!(names(1), [("x".to_owned(), "p0".to_owned())]);
        assert_eq!(names(2), [("x-0".to_owned(), "p0".to_owned()), ("x-1".to_owned(), "p1".to_owned())]);
        assert!(shares("x", &json!({"placement": [{}]})).is_err());
    }
}
