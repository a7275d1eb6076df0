//! The role `liqo-agent`: this cluster in a market. It offers resources at a broker, and peers with providers on demand.
//!
//! Watches   `Node`s and `Pod`s, for the offer; `PeeringRequest`s, `SelectionPolicy`s and `ForeignCluster`s.
//! Writes    for a `PeeringRequest` what `liqoctl peer` writes: the Secret `remote-token-<cluster ID>` and a `ForeignCluster`; status
//!           and finalizer of `PeeringRequest`s; `PeeringRequest`s for callers who may; for a consumer that has reserved resources
//!           here the Secret `auth-token-once-<digits>`.
//! Keeps true: all state is in objects and at the broker, so the next process goes on where the last one ended. No kubeconfig is read
//! and no program is run: a provider says a URL and a token with the pin of its key, and both are checked before they are written.

mod accept;
mod api;
mod invite;
mod offer;
mod peer;
mod plan;
mod probe;
mod provide;
mod reconsider;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use liqo_api::{ClusterIdentity, market::Price, names};
use liqo_front::{FrontArgs, Opening, patience};
use liqo_kube::{
    Cluster, KubeError,
    args::{ReachArgs, RuntimeArgs},
    drain::Patience,
    drive,
    life::Life,
    reach::{Own, Reach},
    role::Role,
};
use liqo_market_client::{Access, Broker};

/// Flags of the agent.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "liqo-agent", version, about = "Offers this cluster at a broker and peers with providers on demand")]
pub struct AgentArgs {
    /// The own cluster, the log and health.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Where and with which certificate the API is served.
    #[command(flatten)]
    pub front: FrontArgs,
    /// Where this cluster is, so that no provider leads us there.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Namespace Liqo is installed in.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::LIQO_NAMESPACE)]
    pub namespace: String,
    /// URL of the broker: https://HOST[:PORT].
    #[arg(long, value_name = "URL")]
    pub broker_url: String,
    /// Directory with the `token` to show to the broker and the `ca.crt` that has signed its certificate.
    #[arg(long, default_value = "/etc/liqo/broker", value_name = "DIRECTORY")]
    pub broker_directory: PathBuf,
    /// Namespace of this cluster's reservations at the broker; empty: this cluster reserves nothing.
    #[arg(long, default_value = "", value_name = "NAMESPACE")]
    pub broker_namespace: String,
    /// What is offered.
    #[command(flatten)]
    pub offer: OfferArgs,
}

/// What this cluster offers, and what it says of itself.
#[derive(Clone, Debug, clap::Args)]
pub struct OfferArgs {
    /// Offer resources of this cluster at the broker.
    #[arg(long)]
    pub provide: bool,
    /// Part of what is free here that is offered, in percent.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=100), value_name = "PERCENT")]
    pub share: u8,
    /// Where this cluster is.
    #[arg(long, default_value = "", value_name = "REGION")]
    pub region: String,
    /// What customers may select by.
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE,...")]
    pub labels: Vec<(String, String)>,
    /// What an hour of one unit costs: cpu=0.03EUR. The unit of memory and of storage is 1Gi.
    #[arg(long, value_delimiter = ',', value_parser = price, value_name = "RESOURCE=AMOUNT,...")]
    pub prices: Vec<Price>,
    /// Grams of CO2 for each kilowatt-hour that this cluster takes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=5000), value_name = "GRAMS")]
    pub carbon: Option<u32>,
    /// Where customers may measure how far away this cluster is; without it nowhere.
    #[arg(long, default_value = "", value_name = "HOST:PORT")]
    pub probe: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn price(text: &str) -> Result<Price, String> {
    let wrong = || format!("{text:?} is no price like cpu=0.03EUR");
    let (resource, price) = text.split_once('=').ok_or_else(wrong)?;
    let at = price.len().checked_sub(3).filter(|at| price.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (amount, currency) = price.split_at(at);
    let is_money = liqo_core::quantity::Amount::parse(amount).is_some_and(|amount| amount >= Default::default());
    if resource.is_empty() || !is_money || !currency.chars().all(|c| c.is_ascii_uppercase()) {
        return Err(wrong());
    }
    let amount = k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_owned());
    Ok(Price { resource: resource.to_owned(), amount, currency: currency.to_owned() })
}

impl OfferArgs {
    /// What this cluster, which has this name, says of itself.
    fn declared(&self, cluster_name: &str) -> liqo_market::wire::Declared {
        liqo_market::wire::Declared {
            cluster_name: cluster_name.to_owned(),
            region: self.region.clone(),
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            prices: self.prices.clone(),
            carbon_grams: self.carbon,
            probe: self.probe.clone(),
        }
    }
}

impl Role for AgentArgs {
    const NAME: &'static str = "liqo-agent";
    const PATIENCE: Patience = patience(10);

    fn runtime(&self) -> &RuntimeArgs {
        &self.runtime
    }

    async fn run(self, life: Life) -> Result<(), String> {
        let opening = Opening::begin(&life, &self.runtime, self.front, Self::NAME).await?;
        let home = opening.home.clone();
        let local = identity(&home, &self.namespace).await;
        let local = local.map_err(|error| format!("reading who this cluster is: {error}"))?;
        let broker =
            Arc::new(Broker::new(&self.broker_url, Access::Directory(self.broker_directory), self.broker_namespace)?);
        let own = Arc::new(Own::watch(&home, &self.reach, false));
        own.ready().await;
        if self.offer.provide {
            let inviter =
                invite::Inviter { home: home.clone(), namespace: self.namespace.clone(), local: local.clone() };
            life.spawn("provider", provide::provide(inviter, Arc::clone(&broker), self.offer));
        }
        let reach = Reach::outside(own);
        let peers = peer::Peers::start(home, (self.namespace, local.clone()), broker, reach);
        let peers = Arc::new(peers);
        peers.ready().await;
        let front = opening.front((local.cluster_name, local.cluster_id));
        let routes = api::routes(api::App::new(Arc::clone(&front), Arc::clone(&peers)));
        life.spawn("peerings", async move {
            drive("peerings", peers.queue.clone(), 4, |key| peers.settle(key)).await;
        });
        opening.serve(front, routes);
        Ok(())
    }
}

/// Who this cluster is; the controller manager chooses the ID when it starts for the first time.
async fn identity(home: &Cluster, namespace: &str) -> Result<ClusterIdentity, KubeError> {
    loop {
        let map = home.get::<ConfigMap>(namespace, names::CLUSTER_ID_CONFIG_MAP).await?;
        let data = map.and_then(|map| map.data).unwrap_or_default();
        let value = |key: &str| data.get(key).cloned().unwrap_or_default();
        let identity = ClusterIdentity::new(value("CLUSTER_ID"), value("CLUSTER_NAME"));
        if !identity.cluster_id.is_empty() {
            return Ok(identity);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_resource_an_amount_and_a_currency() {
        let read = price("nvidia.com/gpu=1.5EUR").unwrap();
        assert_eq!(
            (read.resource.as_str(), read.amount.0.as_str(), read.currency.as_str()),
            ("nvidia.com/gpu", "1.5", "EUR")
        );
        for wrong in ["cpu", "cpu=", "cpu=EUR", "cpu=1", "cpu=1eur", "=1EUR", "cpu=-1EUR", "cpu=xEUR", "cpu=1€"] {
            assert!(price(wrong).is_err(), "{wrong}");
        }
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    }
}
