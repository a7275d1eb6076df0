//! Metrics of control loops, under the names of controller-runtime.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;

use super::{Metric, Samples};

const DEPTH: Metric = Metric::gauge("workqueue_depth", "Keys that wait to be reconciled.", &["name"]);
const RETRIES: Metric =
    Metric::counter("workqueue_retries_total", "Keys that wait again because their reconciliation failed.", &["name"]);
const RESULTS: Metric =
    Metric::counter("controller_runtime_reconcile_total", "Reconciliations by result.", &["controller", "result"]);
const TIME: Metric =
    Metric::histogram("controller_runtime_reconcile_time_seconds", "Duration of one reconciliation.", &["controller"]);

/// Upper bounds of the buckets of durations, seconds: from a look at stores to a peer that does not answer.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// The control loops of this process, by name. Names are words of this program, so that their number is bounded.
static LOOPS: Mutex<BTreeMap<&'static str, Arc<Work>>> = Mutex::new(BTreeMap::new());

/// How many keys of one queue wait; `None` when the queue is gone.
type Depth = Box<dyn Fn() -> Option<usize> + Send + Sync>;

/// The work of all control loops of one name: a kind that is mirrored has one for each namespace.
pub(crate) struct Work {
    queues: Mutex<Vec<Depth>>,
    retries: AtomicU64,
    results: [AtomicU64; Outcome::ALL.len()],
    time: Histogram,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// Nothing is left to be done.
    Success,
    /// The key is looked at again later, as the controller wishes.
    RequeueAfter,
    /// Another writer was quicker, or an effect failed.
    Error,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Success, Self::RequeueAfter, Self::Error];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RequeueAfter => "requeue_after",
            Self::Error => "error",
        }
    }
}

impl Work {
    /// The work under a name, of which one more queue is a part.
    pub(crate) fn of(name: &'static str, depth: impl Fn() -> Option<usize> + Send + Sync + 'static) -> Arc<Self> {
        let mut loops = lock(&LOOPS);
        let work = loops.entry(name).or_insert_with(|| {
            let (queues, retries, results) = Default::default();
            Arc::new(Self { queues, retries, results, time: Histogram::new(BUCKETS) })
        });
        let mut queues = lock(&work.queues);
        queues.retain(|depth| depth().is_some());
        queues.push(Box::new(depth));
        drop(queues);
        Arc::clone(work)
    }

    /// One key was reconciled.
    pub(crate) fn done(&self, outcome: Outcome, took: Duration) {
        self.results[outcome as usize].fetch_add(1, Relaxed);
        self.time.observe(took.as_secs_f64());
        if matches!(outcome, Outcome::Error) {
            self.retries.fetch_add(1, Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All control loops of this process.
#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
pub(crate) fn samples(samples: &mut Samples) {
    for metric in [&DEPTH, &RETRIES, &RESULTS, &TIME] {
        samples.describe(metric);
    }
    for (name, work) in lock(&LOOPS).iter() {
        let depth: usize = lock(&work.queues).iter().filter_map(|depth| depth()).sum();
        samples.gauge(&DEPTH, &[name], depth as f64);
        samples.count(&RETRIES, &[name], work.retries.load(Relaxed));
        for (outcome, count) in Outcome::ALL.into_iter().zip(&work.results) {
            samples.count(&RESULTS, &[name, outcome.label()], count.load(Relaxed));
        }
        samples.histogram(&TIME, &[name], &work.time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_of_one_name_are_one() {
        let first = Work::of("work-test", || Some(3));
        let second = Work::of("work-test", || Some(4));
        Work::of("work-test", || None);
        first.done(Outcome::Success, Duration::from_millis(2));
        second.done(Outcome::Error, Duration::from_secs(100));
        let mut all = Samples::default();
        samples(&mut all);
        let text = all.text();
        for line in [
            "workqueue_depth{name=\"work-test\"} 7",
            "workqueue_retries_total{name=\"work-test\"} 1",
            "controller_runtime_reconcile_total{controller=\"work-test\",result=\"error\"} 1",
            "controller_runtime_reconcile_total{controller=\"work-test\",result=\"requeue_after\"} 0",
            "controller_runtime_reconcile_time_seconds_bucket{controller=\"work-test\",le=\"0.005\"} 1",
            "controller_runtime_reconcile_time_seconds_count{controller=\"work-test\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
