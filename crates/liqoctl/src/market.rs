//! `liqoctl market`: what a broker knows, asked with the token of this cluster's agent.
//!
//! Reads     the Deployment and the Secret of the agent, the ID of this cluster, `SelectionPolicy`s.
//! Writes    nothing here; at the broker reservations of this cluster.

mod access;
mod reserve;
mod select;
mod show;

use std::time::Duration;

use liqo_api::names;

use crate::{clusters::ConnectionArgs, completion, flag};

/// Arguments of `market`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_value_name = "COMMAND")]
pub(crate) struct MarketArgs {
    /// The namespace where Liqo is installed in
    #[arg(short, long, global = true, default_value = names::LIQO_NAMESPACE, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(completion::namespaces))]
    namespace: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// List providers, or the reservations of this cluster
    ///
    /// Examples:
    ///   liqoctl market list --region eu-south
    ///   liqoctl market list --reservations -o json
    #[command(verbatim_doc_comment)]
    List(show::ListArgs),
    /// Show which providers fit a request, and with --explain why the others do not
    ///
    /// Nothing is reserved. A SelectionPolicy of this cluster says what must hold and what is better; without one, every
    /// provider with enough room fits.
    ///
    /// Examples:
    ///   liqoctl market select --request cpu=8,memory=16Gi --explain
    ///   liqoctl market select --request cpu=8,pods=20 --policy default/cheap -o json
    #[command(verbatim_doc_comment)]
    Select(select::SelectArgs),
    /// Hold resources of a provider for this cluster
    ///
    /// Without --provider, providers are chosen as `select` shows them. Where a policy places a request on several, all of
    /// them are reserved or none is: NAME-0, NAME-1 and so on. Reserving again under the same name at the same
    /// provider finds what is held.
    ///
    /// Examples:
    ///   liqoctl market reserve batch --request cpu=8,memory=16Gi --ttl 1h
    ///   liqoctl market reserve batch --request cpu=8 --provider 33333333-3333-4333-8333-333333333333
    #[command(verbatim_doc_comment)]
    Reserve(reserve::ReserveArgs),
    /// Give the resources of reservations back
    ///
    /// Example:
    ///   liqoctl market release batch
    #[command(verbatim_doc_comment)]
    Release(reserve::ReleaseArgs),
}

/// How long a reservation lasts, in seconds.
fn ttl(text: &str) -> Result<u32, String> {
    let duration = flag::duration(text)?;
    let seconds = u32::try_from(duration.as_secs()).ok().filter(|seconds| (1..=86_400).contains(seconds));
    seconds.filter(|_| duration <= Duration::from_hours(24)).ok_or_else(|| "a reservation lasts 1s to 24h".to_owned())
}

/// `liqoctl market …`
pub(crate) async fn run(args: MarketArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let MarketArgs { namespace, verb } = args;
    let cluster = connection.open().await?.cluster;
    let site = access::Site::open(cluster, &namespace).await?;
    match verb {
        Verb::List(args) => show::list(&site, args).await,
        Verb::Select(args) => select::run(&site, args).await,
        Verb::Reserve(args) => reserve::run(&site, args).await,
        Verb::Release(args) => reserve::release(&site, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_lasts_a_day_at_most() {
        assert_eq!((ttl("1s"), ttl("24h"), ttl("1h30m")), (Ok(1), Ok(86_400), Ok(5400)));
        assert!(["0", "500ms", "24h1s", "x"].iter().all(|text| ttl(text).is_err()));
    }
}
