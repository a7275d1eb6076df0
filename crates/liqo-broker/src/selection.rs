//! Selections as callers ask for them and read them.

use std::collections::BTreeMap;

use http::StatusCode;
use liqo_api::market::Selection;
use liqo_core::resources;
use liqo_front::problem::Problem;
use liqo_kube::now;
use liqo_market::{
    Asked, Fit, Outcome, Placed, Reason, Table, Wish,
    explain::{money, words},
    keep::{self, Better, Standing, Verdict},
    select,
    wire::Resources,
    wish::amounts,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{figures::Counts, world::World};

/// Providers in one list of an answer, unless the caller says otherwise, and at most.
const LIMITS: (usize, usize) = (100, 1000);
/// Reasons of one answer: providers beyond are only counted.
const MOST_REASONS: usize = 10_000;

/// A wish, and what its customer knows.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewSelection {
    /// What is asked of providers.
    #[schema(value_type = Object)]
    selection: Selection,
    /// Milliseconds to a provider and back, by cluster ID, as the caller measured them. They count for this answer only.
    #[serde(default)]
    measured: BTreeMap<String, u32>,
    /// Cluster ID of the consumer: providers that are equally good come in another order for each consumer.
    #[serde(default)]
    consumer: String,
    /// A provider that was chosen before.
    #[serde(default)]
    current: Option<Current>,
    /// Most providers in each list of the answer, 1 to 1000; left out: 100.
    #[serde(default)]
    limit: Option<usize>,
}

/// A provider that was chosen before.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Current {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    cluster_id: String,
    /// Resources that the provider holds for the caller: they count as free at the provider, for this answer only.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    held: Resources,
    /// What the last answer said.
    #[serde(default)]
    better: Option<BetterView>,
}

/// Another provider is better than the current one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BetterView {
    /// Cluster ID of the other provider.
    #[serde(rename = "clusterID")]
    cluster_id: String,
    /// Since when, in seconds since 1970.
    since: i64,
}

/// What becomes of a wish. Nothing was reserved.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SelectionView {
    /// Providers that fit, the best one first; as many as the limit says.
    selected: Vec<SelectedView>,
    /// The others by cluster ID, each with every reason; as many as the limit says.
    rejected: Vec<RejectedView>,
    /// How many providers fit.
    fitting: usize,
    /// How many do not.
    unfit: usize,
    /// How many do not for each reason, the most frequent one first.
    summary: Vec<CountView>,
    /// How the request is shared out: nobody when it cannot be.
    placement: Vec<ShareView>,
    /// Why providers fit, but cannot hold the request together.
    #[serde(skip_serializing_if = "Option::is_none")]
    unplaced: Option<ReasonView>,
    /// What is done about the provider that was chosen before.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<CurrentView>,
    /// When this was decided, RFC 3339.
    evaluated_at: String,
}

/// A provider that fits.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SelectedView {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    cluster_id: String,
    /// Name.
    cluster_name: String,
    /// From 0 to 1000.
    score: u32,
    /// The parts of the score that counted, from 0 to 1000.
    parts: BTreeMap<&'static str, u16>,
    /// What an hour of the request costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<String>,
}

/// A provider that does not fit.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RejectedView {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    cluster_id: String,
    /// Name.
    cluster_name: String,
    /// Every reason.
    reasons: Vec<ReasonView>,
}

/// Why a provider does not fit.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct ReasonView {
    /// The criterion, as the wish names it.
    criterion: String,
    /// Excluded, Cordoned, Stale, NotInRegion, LabelMismatch, NotEnough, AboveMaximum, BelowMinimum, Missing or CurrencyMismatch.
    code: String,
    /// What is asked for.
    required: String,
    /// What the provider has.
    actual: String,
}

/// How many providers do not fit for a reason.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct CountView {
    /// The criterion, as the wish names it.
    criterion: String,
    /// The code.
    code: String,
    /// How many.
    providers: usize,
}

/// What one provider gets.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShareView {
    /// Cluster ID.
    #[serde(rename = "clusterID")]
    cluster_id: String,
    /// Parts of the request.
    parts: u32,
    /// What that is.
    #[schema(value_type = BTreeMap<String, String>)]
    resources: Resources,
}

/// What is done about the provider that was chosen before.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CurrentView {
    /// Keep; Wait: another one is better, but not for long enough yet; Switch: another one takes its place; Nobody: it does not fit, and
    /// nobody else does.
    verdict: &'static str,
    /// Cluster ID of the provider that takes its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// To be sent with the next request.
    #[serde(skip_serializing_if = "Option::is_none")]
    better: Option<BetterView>,
    /// Why it does not fit.
    reasons: Vec<ReasonView>,
}

/// Selects.
///
/// # Errors
/// 400 with the field that makes no sense.
pub(crate) fn decide(world: &World, new: NewSelection) -> Result<SelectionView, Problem> {
    let wrong = |why: String| Problem::new(StatusCode::BAD_REQUEST, why);
    let limit = new.limit.unwrap_or(LIMITS.0);
    if limit == 0 || limit > LIMITS.1 {
        return Err(wrong(format!("limit is a number from 1 to {}", LIMITS.1)));
    }
    let wish = Wish::read(&new.selection).map_err(wrong)?;
    let current = match &new.current {
        Some(current) => Some((current.cluster_id.clone(), amounts("current.held", &current.held).map_err(wrong)?)),
        None => None,
    };
    let now = now();
    let (table, clock) = world.table();
    let asked = Asked { latency: new.measured, consumer: new.consumer, current, clock, now: now.0.as_second() };
    let outcome = select(&table, &wish, &asked);
    Counts::add(&world.counts.selections);
    let told = Told { table: &table, wish: &wish, asked: &asked, outcome: &outcome };
    let current = new.current.map(|current| match world.may_be_late(&current.cluster_id) {
        true => CurrentView { verdict: "Keep", to: None, better: current.better, reasons: Vec::new() },
        false => told.current(&current),
    });
    Ok(told.view(limit, current, now.0.to_string()))
}

/// An outcome that is told.
struct Told<'a> {
    table: &'a Table,
    wish: &'a Wish,
    asked: &'a Asked,
    outcome: &'a Outcome,
}

impl Told<'_> {
    fn view(&self, limit: usize, current: Option<CurrentView>, evaluated_at: String) -> SelectionView {
        let Self { table, wish, outcome, .. } = *self;
        let (placement, unplaced) = self.placement();
        let mut room = MOST_REASONS;
        let left = outcome.left(table, limit).into_iter().map_while(|(provider, reasons)| {
            room = room.checked_sub(reasons.len())?;
            Some((provider, reasons))
        });
        let rejected = left.map(|(provider, reasons)| RejectedView {
            cluster_id: provider.id.clone(),
            cluster_name: provider.name.clone(),
            reasons: self.reasons(reasons),
        });
        let count = |(criterion, code, providers)| CountView { criterion, code: format!("{code:?}"), providers };
        SelectionView {
            selected: outcome.fits.iter().take(limit).map(|fit| self.selected(fit)).collect(),
            rejected: rejected.collect(),
            fitting: outcome.fits.len(),
            unfit: outcome.rejected,
            summary: outcome.summary(wish).into_iter().map(count).collect(),
            placement,
            unplaced,
            current,
            evaluated_at,
        }
    }

    fn selected(&self, fit: &Fit) -> SelectedView {
        let provider = self.outcome.provider(self.table, fit);
        let parts = fit.parts;
        let parts = [
            ("price", parts.price),
            ("latency", parts.latency),
            ("uptime", parts.uptime),
            ("carbon", parts.carbon),
            ("headroom", parts.headroom),
        ];
        SelectedView {
            cluster_id: provider.id.clone(),
            cluster_name: provider.name.clone(),
            score: fit.score,
            parts: parts.into_iter().filter_map(|(name, part)| Some((name, part?))).collect(),
            price: provider.cost(&self.wish.request).ok().map(|(nanos, currency)| money(nanos, &currency)),
        }
    }

    fn reasons(&self, reasons: &[Reason]) -> Vec<ReasonView> {
        let view = |reason| {
            let words = words(self.table, self.wish, self.asked, reason);
            let code = format!("{:?}", words.code);
            ReasonView { criterion: words.criterion, code, required: words.required, actual: words.actual }
        };
        reasons.iter().map(view).collect()
    }

    fn placement(&self) -> (Vec<ShareView>, Option<ReasonView>) {
        match &self.outcome.placed {
            Placed::Shares(shares) => {
                let view = |share: &liqo_market::Share| ShareView {
                    cluster_id: self.outcome.provider(self.table, &self.outcome.fits[share.fit]).id.clone(),
                    parts: share.parts,
                    resources: resources::write(&self.wish.share(share.parts)),
                };
                (shares.iter().map(view).collect(), None)
            }
            Placed::Not(field, code, required, actual) => {
                let (criterion, code) = ((*field).to_owned(), format!("{code:?}"));
                let (required, actual) = (required.clone(), actual.clone());
                (Vec::new(), Some(ReasonView { criterion, code, required, actual }))
            }
        }
    }

    fn current(&self, current: &Current) -> CurrentView {
        let (fit, reasons) = self.outcome.of(self.table, &current.cluster_id);
        let ids = self.outcome.fits.iter().map(|fit| (self.outcome.provider(self.table, fit).id.as_str(), fit.score));
        let best = ids.into_iter().find(|(id, _)| *id != current.cluster_id);
        let before = current.better.as_ref();
        let before = before.map(|better| Better { id: better.cluster_id.clone(), since: better.since });
        let standing = Standing { score: fit.map(|fit| fit.score), best };
        let (verdict, to, better) = match keep::decide(standing, before.as_ref(), self.wish.stability, self.asked.now) {
            Verdict::Keep => ("Keep", None, None),
            Verdict::Wait(Better { id, since }) => ("Wait", None, Some(BetterView { cluster_id: id, since })),
            Verdict::Switch(id) => ("Switch", Some(id), None),
            Verdict::Nobody => ("Nobody", None, None),
        };
        CurrentView { verdict, to, better, reasons: self.reasons(reasons) }
    }
}

/// The specs are described by the schemas of the custom resources: OpenAPI 3.1 and they speak the same JSON Schema.
pub(crate) fn describe(document: &mut Value) {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = serde_json::to_value(settings.into_generator().into_root_schema_for::<Selection>());
    let Ok(schema) = &mut schema else { return };
    schema.as_object_mut().into_iter().for_each(|map| _ = map.remove("$schema"));
    document["components"]["schemas"]["NewSelection"]["properties"]["selection"] = schema.take();
}
