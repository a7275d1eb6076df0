//! An outcome in words: what was asked for, and what there is.

use liqo_core::resources::Resources;

use crate::{
    outcome::{Asked, Code, Criterion, Fit, Outcome, Reason},
    provider::{Provider, Unpriced},
    table::Table,
    wish::Wish,
};

/// Characters of what is required, and of what there is.
const LONGEST_WORDS: usize = 128;

/// Why a provider is left out, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The criterion, as the wish names it.
    pub criterion: String,
    /// One word for programs.
    pub code: Code,
    /// What the wish asks for.
    pub required: String,
    /// What the provider has.
    pub actual: String,
}

impl Outcome {
    /// A provider that fits.
    pub fn provider<'t>(&self, table: &'t Table, fit: &Fit) -> &'t Provider {
        &table.providers[fit.row as usize]
    }

    /// What becomes of one provider: how it fits, and why not.
    pub fn of(&self, table: &Table, id: &str) -> (Option<&Fit>, &[Reason]) {
        let Some(row) = table.row(id) else { return (None, &[]) };
        let is_of = |found: u32| found as usize == row;
        let first = self.reasons.partition_point(|reason| (reason.row as usize) < row);
        let end = self.reasons[first..].iter().take_while(|reason| is_of(reason.row)).count();
        (self.fits.iter().find(|fit| is_of(fit.row)), &self.reasons[first..first + end])
    }

    /// The first so many providers that do not fit, by cluster ID, each with every reason.
    pub fn left<'t>(&self, table: &'t Table, most: usize) -> Vec<(&'t Provider, &[Reason])> {
        let mut left: Vec<(&Provider, &[Reason])> = self
            .reasons
            .chunk_by(|one, next| one.row == next.row)
            .map(|reasons| (&table.providers[reasons[0].row as usize], reasons))
            .collect();
        if left.len() > most {
            left.select_nth_unstable_by(most, |a, b| a.0.id.cmp(&b.0.id));
            left.truncate(most);
        }
        left.sort_unstable_by(|a, b| a.0.id.cmp(&b.0.id));
        left
    }

    /// How many providers do not fit for each reason, by criterion and code.
    pub fn summary(&self, wish: &Wish) -> Vec<(String, Code, usize)> {
        let mut counts: Vec<(Criterion, Code, usize)> = Vec::new();
        for reason in &self.reasons {
            match counts.iter_mut().find(|(criterion, code, _)| (*criterion, *code) == (reason.criterion, reason.code))
            {
                Some((_, _, count)) => *count += 1,
                None => counts.push((reason.criterion, reason.code, 1)),
            }
        }
        let mut counts: Vec<_> =
            counts.into_iter().map(|(criterion, code, count)| (name(criterion, wish), code, count)).collect();
        counts.sort_unstable_by(|a, b| (b.2, &a.0).cmp(&(a.2, &b.0)));
        counts
    }
}

/// A criterion as the wish names it.
fn name(criterion: Criterion, wish: &Wish) -> String {
    let of = |list: &Resources, at: u8| list.keys().nth(usize::from(at)).cloned().unwrap_or_default();
    match criterion {
        Criterion::Exclude => "exclude".to_owned(),
        Criterion::Cordoned => "cordoned".to_owned(),
        Criterion::MaxAge => "maxAgeSeconds".to_owned(),
        Criterion::Regions => "regions".to_owned(),
        Criterion::NotRegions => "notRegions".to_owned(),
        Criterion::Label(at) => {
            format!("labels.{}", wish.labels.keys().nth(usize::from(at)).map(String::as_str).unwrap_or_default())
        }
        Criterion::Request(at) => format!("request.{}", of(&wish.request, at)),
        Criterion::MinFree(at) => format!("minFree.{}", of(&wish.min_free, at)),
        Criterion::LargestPod(at) => format!("largestPod.{}", of(&wish.largest_pod, at)),
        Criterion::MaxPrice => "maxPrice".to_owned(),
        Criterion::MaxLatency => "maxLatencyMillis".to_owned(),
        Criterion::MinUptime => "minUptime".to_owned(),
        Criterion::MaxCarbon => "maxCarbonGrams".to_owned(),
        Criterion::MinScore => "minScore".to_owned(),
    }
}

/// A reason in words. `asked` and the table are those of the selection.
pub fn words(table: &Table, wish: &Wish, asked: &Asked, reason: &Reason) -> Words {
    let provider = &table.providers[reason.row as usize];
    let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
    let amount = |wanted: &Resources, there: &Resources, at: u8| {
        let Some((name, wanted)) = wanted.iter().nth(usize::from(at)) else { return Default::default() };
        (wanted.quantity().0, there.get(name).copied().unwrap_or_default().quantity().0)
    };
    let (required, actual) = match reason.criterion {
        Criterion::Exclude => ("another provider".to_owned(), provider.id.clone()),
        Criterion::Cordoned => ("false".to_owned(), "true".to_owned()),
        Criterion::MaxAge => {
            let heard = table.rows[reason.row as usize].heard;
            let age = heard.map(|heard| asked.clock.saturating_sub(heard).to_string());
            (wish.max_age.to_string(), age.unwrap_or_else(|| "no heartbeat".to_owned()))
        }
        Criterion::Regions => (wish.regions.join(","), provider.region.clone()),
        Criterion::NotRegions => (format!("not {}", wish.not_regions.join(",")), provider.region.clone()),
        Criterion::Label(at) => {
            let (key, value) = wish.labels.iter().nth(usize::from(at)).unzip();
            (
                value.cloned().unwrap_or_default(),
                key.and_then(|key| provider.labels.get(key)).cloned().unwrap_or_default(),
            )
        }
        Criterion::Request(at) => amount(&wish.part, &free(provider, asked), at),
        Criterion::MinFree(at) => amount(&wish.min_free, &free(provider, asked), at),
        Criterion::LargestPod(at) => amount(&wish.largest_pod, &provider.largest, at),
        Criterion::MaxPrice => price(provider, wish),
        Criterion::MaxLatency => {
            let actual = asked.latency.get(&provider.id).copied();
            (number(wish.max_latency), actual.map_or("not measured".to_owned(), |millis| millis.to_string()))
        }
        Criterion::MinUptime => uptime(provider, wish, asked),
        Criterion::MaxCarbon => {
            (number(wish.max_carbon), provider.carbon.map_or("not said".to_owned(), |grams| grams.to_string()))
        }
        Criterion::MinScore => (wish.min_score.to_string(), reason.score.to_string()),
    };
    let (required, actual) = (brief(required), brief(actual));
    Words { criterion: name(reason.criterion, wish), code: reason.code, required, actual }
}

/// The beginning of a text: a list of regions is repeated for each provider.
fn brief(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_WORDS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What is free for the customer: what nobody holds, and what the customer holds.
fn free(provider: &Provider, asked: &Asked) -> Resources {
    let mut free = provider.free.clone();
    if let Some((_, held)) = asked.current.as_ref().filter(|(id, _)| *id == provider.id) {
        liqo_core::resources::add(&mut free, held);
    }
    free
}

fn price(provider: &Provider, wish: &Wish) -> (String, String) {
    let required = wish.max_price.as_ref().map(|(most, currency)| money(*most, currency)).unwrap_or_default();
    let actual = match provider.cost(&wish.request) {
        Ok((cost, currency)) => money(cost, &currency),
        Err(Unpriced::Missing(resource)) => format!("no price of {resource}"),
        Err(Unpriced::Currencies) => "several currencies".to_owned(),
    };
    (required, actual)
}

fn uptime(provider: &Provider, wish: &Wish, asked: &Asked) -> (String, String) {
    let hours = wish.window / 3600;
    let exact = |millionths: u32| decimal(u64::from(millionths) * 1000);
    let required = wish.min_uptime.map(|least| format!("{} in {hours}h", exact(least))).unwrap_or_default();
    let record = &provider.record;
    let actual = match (record.ratio(wish.window, asked.now), record.since) {
        (Some(found), _) => exact(found),
        (None, Some(since)) => format!("known for {}h", asked.now.saturating_sub(since) / 3600),
        (None, None) => "never heard of".to_owned(),
    };
    (required, actual)
}

/// Billionths as a decimal number.
fn decimal(nanos: u64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, format!("{:09}", nanos % 1_000_000_000));
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { whole.to_string() } else { format!("{whole}.{rest}") }
}

/// Money for people: billionths as a decimal number, and the currency.
pub fn money(nanos: u64, currency: &str) -> String {
    format!("{} {currency}", decimal(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(brief("é".repeat(128)), "é".repeat(128));
        assert_eq!(brief("é".repeat(129)), format!("{}…", "é".repeat(128)));
    }

    #[test]
    fn money_is_a_decimal_number() {
        for (nanos, text) in
            [(0, "0 EUR"), (1, "0.000000001 EUR"), (1_500_000_000, "1.5 EUR"), (2_000_000_000, "2 EUR")]
        {
            assert_eq!(money(nanos, "EUR"), text);
        }
    }
}
