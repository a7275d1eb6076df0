//! Tables of figures and of ratios.

use std::collections::BTreeMap;
use std::fmt;

use crate::engine::Kind;
use crate::load::{Flow, Small, Trip};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) one: Flow,
    pub(crate) four: Flow,
    pub(crate) small: Small,
    pub(crate) trip: Trip,
    /// KiB.
    pub(crate) idle: u64,
    pub(crate) loaded: u64,
}

impl Figures {
    pub(crate) fn line(&self, kind: Kind) -> String {
        let Self { one, four, small, trip, idle, loaded } = self;
        format!(
            "{:<13} TCP {:5.2} / {:5.2} Gbit/s  {:.3} / {:.3} s/Gbit  {:4.0}k pps no loss, {:4.0}k flood  {:5.1} / {:5.1} µs  \
             {:5.1} / {:5.1} MiB  foreign {:.2} {:.2} {:.2} {:.2}",
            kind.name(),
            one.gbits,
            four.gbits,
            one.cost,
            four.cost,
            small.lossless / 1e3,
            small.flood / 1e3,
            trip.p50,
            trip.p99,
            *idle as f64 / 1024.0,
            *loaded as f64 / 1024.0,
            one.foreign,
            four.foreign,
            small.foreign,
            trip.foreign
        )
    }
}

#[derive(Default)]
pub(crate) struct Report(BTreeMap<Kind, Vec<Figures>>);

type Row = (&'static str, &'static str, fn(&Figures) -> f64, fn(&Figures) -> f64, &'static str);

const ROWS: [Row; 8] = [
    ("TCP, 1 stream", "Gbit/s", |f| f.one.gbits, |f| f.one.foreign, ">= 1.5x"),
    ("TCP, 4 streams", "Gbit/s", |f| f.four.gbits, |f| f.four.foreign, ">= 1.75x"),
    ("CPU, 1 stream", "s/Gbit", |f| f.one.cost, |f| f.one.foreign, "<= 0.65x"),
    ("CPU, 4 streams", "s/Gbit", |f| f.four.cost, |f| f.four.foreign, "<= 0.65x"),
    ("64 bytes, no loss", "k/s", |f| f.small.lossless / 1e3, |f| f.small.foreign, ">= 3x"),
    ("64 bytes, flood", "k/s", |f| f.small.flood / 1e3, |f| f.small.foreign, ""),
    ("round trip p50", "µs", |f| f.trip.p50, |f| f.trip.foreign, "raw + 35"),
    ("memory under load", "MiB", |f| f.loaded as f64 / 1024.0, |f| f.small.foreign, "<= 15"),
];

impl Report {
    pub(crate) fn add(&mut self, kind: Kind, figures: Figures) {
        self.0.entry(kind).or_default().push(figures);
    }

    fn all(&self, kind: Kind, of: fn(&Figures) -> f64) -> Vec<f64> {
        self.0.get(&kind).into_iter().flatten().map(of).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| figure, median [range] | raw veth | wireguard-go | ours | ours ÷ wireguard-go, per round | goal | foreign CPU, most |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for (name, unit, of, foreign, goal) in ROWS {
            let [raw, go, ours] = [Kind::Raw, Kind::Go, Kind::Ours].map(|kind| self.all(kind, of));
            let ratios: Vec<f64> = ours.iter().zip(&go).map(|(ours, go)| ours / go).collect();
            let added: Vec<f64> = ours.iter().zip(&raw).map(|(ours, raw)| ours - raw).collect();
            let ratio = if name.starts_with("round") {
                // What a wake-up costs differs by a factor of two between machines; what the two add, hardly.
                let go: Vec<f64> = go.iter().zip(&raw).map(|(go, raw)| go - raw).collect();
                let shares: Vec<f64> = added.iter().zip(&go).map(|(ours, go)| ours / go).collect();
                format!("{}; raw + {}, {} of what wireguard-go adds", spread(&ratios), spread(&added), spread(&shares))
            } else {
                spread(&ratios)
            };
            let most =
                [Kind::Raw, Kind::Go, Kind::Ours].iter().flat_map(|kind| self.all(*kind, foreign)).fold(0.0, f64::max);
            let (raw, go, ours) = (spread(&raw), spread(&go), spread(&ours));
            writeln!(f, "| {name}, {unit} | {raw} | {go} | {ours} | {ratio} | {goal} | {most:.2} |")?;
        }
        Ok(())
    }
}

/// Median and range.
fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return String::from("-") };
    let short = |value: f64| if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    format!("{} [{}–{}]", short(sorted[sorted.len() / 2]), short(*first), short(*last))
}
