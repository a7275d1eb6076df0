//! Metrics of a process, in the Prometheus text format 0.0.4.
//!
//! Keeps true: a family is served with its type and help, also before its first sample; no sample is served twice; label
//! values are escaped. Names are those that dashboards for Liqo 0.8.3 and for controller-runtime know; the guide lists them.

mod process;
mod work;

use std::collections::BTreeMap;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

pub use prometheus_text::CONTENT_TYPE;

pub(crate) use process::{BUILD, samples as process_samples};
pub(crate) use work::{Outcome, Work, samples as work_samples};

/// A family of metrics.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    /// A number that only grows, from zero at the start of the process.
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Counter, help, labels }
    }

    /// A number that grows and shrinks.
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Gauge, help, labels }
    }

    /// Durations in seconds, counted by buckets.
    pub(crate) const fn histogram(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Histogram, help, labels }
    }
}

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<&'static str, Family>);

#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    /// By label values, in the order of the labels of the family.
    samples: BTreeMap<Vec<String>, Value>,
}

#[derive(Clone, Debug)]
enum Value {
    Count(f64),
    Gauge(f64),
    Histogram(Histogram),
}

impl Samples {
    /// Serves type and help of the family, whether there is a sample or not.
    pub fn describe(&mut self, metric: &'static Metric) {
        self.family(metric);
    }

    /// Adds to the sample of a counter with these label values.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
    pub fn count(&mut self, metric: &'static Metric, labels: &[&str], count: u64) {
        self.seconds(metric, labels, count as f64);
    }

    /// Adds to the sample of a counter of seconds.
    pub(crate) fn seconds(&mut self, metric: &'static Metric, labels: &[&str], seconds: f64) {
        let sample = self.family(metric).entry(owned(labels)).or_insert(Value::Count(0.0));
        if let Value::Count(sum) = sample {
            *sum += seconds;
        }
    }

    /// Sets the sample of a gauge with these label values.
    pub fn gauge(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.family(metric).insert(owned(labels), Value::Gauge(value));
    }

    pub(crate) fn histogram(&mut self, metric: &'static Metric, labels: &[&str], histogram: &Histogram) {
        self.family(metric).insert(owned(labels), Value::Histogram(histogram.clone()));
    }

    fn family(&mut self, metric: &'static Metric) -> &mut BTreeMap<Vec<String>, Value> {
        let family = self.0.entry(metric.name).or_insert_with(|| Family { metric, samples: BTreeMap::new() });
        &mut family.samples
    }

    /// The text that a scrape is answered with.
    pub fn text(self) -> String {
        let unusual: Vec<_> = self.0.values().filter_map(|family| family.metric.unusual()).collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).expect("a text takes every sample");
        unusual.into_iter().fold(text, |text, name| text.replace(&format!("{name}_total"), name))
    }
}

impl Metric {
    /// The name that is given to the encoder, which adds `_total` to the names of counters.
    fn encoded_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }

    /// The name of a counter that has no `_total` in Liqo 0.8.3.
    fn unusual(&self) -> Option<&'static str> {
        (matches!(self.kind, Kind::Counter) && !self.name.ends_with("_total")).then_some(self.name)
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Family { metric, samples } in self.0.values() {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.encoded_name(), metric.help, None, kind)?;
            for (values, value) in samples {
                let labels: Vec<_> = metric.labels.iter().copied().zip(values).collect();
                let sample = family.encode_family(&labels)?;
                // Whole numbers are written as such, as Go does: `3`, not `3.0`.
                match (value, whole(value)) {
                    (Value::Count(_), Some(count)) => ConstCounter::new(count.unsigned_abs()).encode(sample)?,
                    (Value::Count(count), None) => ConstCounter::new(*count).encode(sample)?,
                    (Value::Gauge(_), Some(value)) => ConstGauge::new(value).encode(sample)?,
                    (Value::Gauge(value), None) => ConstGauge::new(*value).encode(sample)?,
                    (Value::Histogram(histogram), _) => histogram.encode(sample)?,
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "within the whole numbers that a floating point number holds")]
fn whole(value: &Value) -> Option<i64> {
    let (Value::Count(value) | Value::Gauge(value)) = value else { return None };
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(*value as i64)
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|value| (*value).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: Metric = Metric::counter("test_calls_total", "Calls.", &["peer", "verb"]);
    const ITEMS: Metric = Metric::counter("test_item_counter", "Items.", &[]);
    const NONE: Metric = Metric::gauge("test_none", "None.", &[]);
    const OPEN: Metric = Metric::gauge("test_open", "Open.", &["side"]);
    const TIME: Metric = Metric::histogram("test_time_seconds", "Time.", &["name"]);

    #[test]
    fn families_have_type_and_help_and_no_sample_twice() {
        let mut samples = Samples::default();
        samples.describe(&NONE);
        samples.gauge(&OPEN, &["a"], 0.0);
        samples.gauge(&OPEN, &["b"], 0.5);
        samples.count(&CALLS, &["a\"b\\c\n", "get"], 1);
        samples.count(&CALLS, &["a\"b\\c\n", "get"], 2);
        samples.count(&ITEMS, &[], 7);
        let histogram = Histogram::new([0.5, 1.0]);
        histogram.observe(0.7);
        samples.histogram(&TIME, &["x"], &histogram);
        assert_eq!(
            samples.text(),
            "# HELP test_calls_total Calls.\n\
             # TYPE test_calls_total counter\n\
             test_calls_total{peer=\"a\\\"b\\\\c\\n\",verb=\"get\"} 3\n\
             # HELP test_item_counter Items.\n\
             # TYPE test_item_counter counter\n\
             test_item_counter 7\n\
             # HELP test_none None.\n\
             # TYPE test_none gauge\n\
             # HELP test_open Open.\n\
             # TYPE test_open gauge\n\
             test_open{side=\"a\"} 0\n\
             test_open{side=\"b\"} 0.5\n\
             # HELP test_time_seconds Time.\n\
             # TYPE test_time_seconds histogram\n\
             test_time_seconds_bucket{name=\"x\",le=\"0.5\"} 0\n\
             test_time_seconds_bucket{name=\"x\",le=\"1\"} 1\n\
             test_time_seconds_bucket{name=\"x\",le=\"+Inf\"} 1\n\
             test_time_seconds_sum{name=\"x\"} 0.7\n\
             test_time_seconds_count{name=\"x\"} 1\n"
        );
    }
}
