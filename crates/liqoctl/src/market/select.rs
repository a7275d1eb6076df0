//! `liqoctl market select`

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use liqo_api::market::{Selection, SelectionPolicy};
use liqo_market_client::Known;
use serde_json::Value;

use super::{access::Site, show::text};
use crate::{
    flag,
    out::Out,
    table::{Form, ShowArgs, table},
};

/// Providers in each list of the answer; the summary counts all.
const MOST: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WishArgs {
    /// What is needed in sum
    #[arg(long, required = true, value_parser = amounts, value_name = "RESOURCE=AMOUNT,...")]
    request: BTreeMap<String, Quantity>,
    /// What the largest pod needs
    #[arg(long, default_value = "", value_parser = amounts, hide_default_value = true, value_name = "RESOURCE=AMOUNT,...")]
    largest_pod: BTreeMap<String, Quantity>,
    /// The SelectionPolicy that says what must hold and what is better; without NAMESPACE that of the namespace default
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    policy: Option<String>,
    /// Milliseconds to providers, as measured from this cluster
    #[arg(long, value_delimiter = ',', value_parser = millis, value_name = "CLUSTER_ID=MILLISECONDS,...")]
    measured: Vec<(String, u32)>,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct SelectArgs {
    #[command(flatten)]
    wish: WishArgs,
    /// Show why the other providers do not fit
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// Amounts by resource; what an amount is, the broker says.
fn amounts(text: &str) -> Result<BTreeMap<String, Quantity>, String> {
    Ok(flag::pairs(text)?.into_iter().map(|(name, amount)| (name, Quantity(amount))).collect())
}

fn millis(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("invalid value {text:?}: write CLUSTER_ID=MILLISECONDS");
    let (id, millis) = text.split_once('=').ok_or_else(wrong)?;
    Ok((id.to_owned(), millis.parse().map_err(|_| wrong())?))
}

impl WishArgs {
    /// Asks the broker; each list of the answer has `limit` providers at most.
    pub(super) async fn ask(&self, site: &Site, limit: usize) -> anyhow::Result<Value> {
        let selection = match &self.policy {
            None => Selection {
                request: self.request.clone(),
                largest_pod: self.largest_pod.clone(),
                ..Selection::default()
            },
            Some(name) => self.by(site, name).await?,
        };
        let measured = self.measured.iter().cloned().collect();
        let known = Known { measured, consumer: site.id.clone(), limit: Some(limit), ..Known::default() };
        site.broker.select(&selection, &known).await.context("selecting")
    }

    async fn by(&self, site: &Site, policy: &str) -> anyhow::Result<Selection> {
        let (namespace, name) = policy.split_once('/').unwrap_or(("default", policy));
        let found = site.cluster.get::<SelectionPolicy>(namespace, name).await.context("looking for the policy")?;
        let found = found.with_context(|| {
            format!("there is no SelectionPolicy {name:?} in namespace {namespace:?}; `kubectl get lsp -A` names them")
        })?;
        Ok(found.spec.of(self.request.clone(), self.largest_pod.clone()))
    }

    pub(super) fn request(&self) -> &BTreeMap<String, Quantity> {
        &self.request
    }
}

/// `liqoctl market select`
pub(super) async fn run(site: &Site, args: SelectArgs) -> anyhow::Result<()> {
    let SelectArgs { wish, explain, show: ShowArgs { output } } = args;
    let format = output.and_then(Form::for_programs);
    let out = Out::new(format.is_some());
    let answer = wish.ask(site, MOST).await?;
    if let Some(format) = format {
        return out.value(&answer, format);
    }
    if !list(&answer, "selected").is_empty() {
        out.data(&selected(&answer, output == Some(Form::Wide)))?;
    }
    if explain && !list(&answer, "rejected").is_empty() {
        out.data("")?;
        out.data(&rejected(&answer))?;
    }
    match nobody(&answer) {
        Some(why) if explain => bail!(why),
        Some(why) => bail!("{why}; --explain shows the reasons of each provider"),
        None => Ok(()),
    }
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Providers that fit, and what each gets.
fn selected(answer: &Value, is_wide: bool) -> String {
    let share = |id: &Value| list(answer, "placement").iter().find(|share| share["clusterID"] == *id);
    let mut titles: Vec<String> = ["PROVIDER", "NAME", "SCORE", "PRICE/H", "CHOSEN"].map(str::to_owned).into();
    let parts = ["price", "latency", "uptime", "carbon", "headroom"];
    if is_wide {
        titles.extend(parts.map(str::to_uppercase));
    }
    let row = |one: &Value| {
        let share = share(&one["clusterID"]);
        let chosen = share.map(|share| resources(&share["resources"])).unwrap_or_default();
        let mut row = vec![
            text(one.get("clusterID")),
            text(one.get("clusterName")),
            text(one.get("score")),
            text(one.get("price")),
        ];
        row.push(chosen);
        if is_wide {
            row.extend(parts.map(|part| text(one["parts"].get(part))));
        }
        row
    };
    table(std::iter::once(titles).chain(list(answer, "selected").iter().map(row)).collect())
}

fn resources(all: &Value) -> String {
    let pair = |(name, amount): (&String, &Value)| format!("{name}={}", text(Some(amount)));
    all.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join(",")
}

/// Every reason of every provider that does not fit.
fn rejected(answer: &Value) -> String {
    let titles = ["REJECTED", "NAME", "CRITERION", "CODE", "REQUIRED", "ACTUAL"].map(str::to_owned).into();
    let rows = list(answer, "rejected").iter().flat_map(|one| {
        list(one, "reasons").iter().map(|why| {
            let of = |name: &str| text(why.get(name));
            vec![
                text(one.get("clusterID")),
                text(one.get("clusterName")),
                of("criterion"),
                of("code"),
                of("required"),
                of("actual"),
            ]
        })
    });
    table(std::iter::once(titles).chain(rows).collect())
}

/// Why the request is placed nowhere, if so.
pub(super) fn nobody(answer: &Value) -> Option<String> {
    if !list(answer, "placement").is_empty() {
        return None;
    }
    if let Some(why) = answer.get("unplaced") {
        let of = |name: &str| text(why.get(name));
        return Some(format!(
            "no placement: {} {}: {} needed, {} found",
            of("criterion"),
            of("code"),
            of("required"),
            of("actual")
        ));
    }
    let why = list(answer, "summary").iter().take(4);
    let why: Vec<_> = why
        .map(|one| format!("{} {} ({})", text(one.get("criterion")), text(one.get("code")), text(one.get("providers"))))
        .collect();
    Some(if why.is_empty() {
        "no provider offers anything".into()
    } else {
        format!("no provider fits: {}", why.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_table_of_who_fits_and_one_of_who_does_not() {
        let answer = json!({
            "selected": [{"clusterID": "a", "clusterName": "turin", "score": 900, "price": "0.1 EUR", "parts": {"price": 900}}],
            "placement": [{"clusterID": "a", "parts": 1, "resources": {"cpu": "2", "memory": "1Gi"}}],
            "rejected": [{"clusterID": "b", "clusterName": "milan", "reasons": [
                {"criterion": "regions", "code": "NotInRegion", "required": "south", "actual": "north"}]}],
        });
        let fits = selected(&answer, true);
        assert!(fits.lines().nth(1).is_some_and(|line| line.contains("cpu=2,memory=1Gi   900")), "{fits}");
        let others = rejected(&answer);
        assert!(others.ends_with("b          milan   regions     NotInRegion   south      north"), "{others}");
        assert_eq!(nobody(&answer), None);
    }

    #[test]
    fn nobody_has_a_reason() {
        for (answer, words) in [
            (json!({}), "no provider offers anything"),
            (
                json!({"summary": [{"criterion": "maxPrice", "code": "AboveMaximum", "providers": 7}]}),
                "maxPrice AboveMaximum (7)",
            ),
            (
                json!({"unplaced": {"criterion": "placement.minRegions", "code": "BelowMinimum", "required": "2", "actual": "1"}}),
                "placement.minRegions BelowMinimum: 2 needed, 1 found",
            ),
        ] {
            assert!(nobody(&answer).is_some_and(|why| why.contains(words)), "{answer}");
        }
    }

    #[test]
    fn flags_are_pairs() {
        assert_eq!(amounts("cpu=2,memory=1Gi").unwrap().len(), 2);
        assert!(amounts("cpu").is_err() && millis("a=x").is_err() && millis("a").is_err());
        assert_eq!(millis("a=5"), Ok(("a".to_owned(), 5)));
    }
}
