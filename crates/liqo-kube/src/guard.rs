//! A panic in the work for one is not the end of the work for others.
//!
//! What somebody sent may find a mistake of ours. Work that belongs to a key, a peer or a request is guarded: its panic
//! is told, counted and becomes an error, and the process goes on. Every other panic ends the process, see
//! [`is_guarded`].

use std::{
    any::Any,
    cell::Cell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use crate::metrics::{Metric, Samples};

const PANICS: Metric =
    Metric::counter("liqo_panics_total", "Panics in the work for one key, peer or request, by task.", &["task"]);

/// Pause before work begins again that has panicked.
const PAUSE: Duration = Duration::from_secs(2);

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Number of panics in this process, by task.
static COUNTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Work ended in a panic, with these words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(String);

/// Whether what this thread does right now is guarded: for the panic hook of the process.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Does `work`; its panic is counted for `task` and given back. What the work had in its hands must be fit for another
/// try, as everything is that is decided anew from what API servers hold.
///
/// # Errors
/// It panicked.
pub async fn guarded<T>(task: &'static str, work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    poll_fn(|cx| match guarded_now(task, || work.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(outcome)) => Poll::Ready(Ok(outcome)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// Runs the `work` for one peer; after a panic the work starts again after a pause.
pub async fn supervised<F: Future<Output = ()>>(task: &'static str, peer: &str, work: impl Fn() -> F) {
    while let Err(panic) = guarded(task, async { work().await }).await {
        tracing::error!(task, peer, error = %panic, "the work for this peer begins again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// [`guarded`], for work that does not wait.
///
/// # Errors
/// It panicked.
pub fn guarded_now<T>(task: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    outcome.map_err(|panic| {
        *COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry(task).or_default() += 1;
        Panicked(words(&*panic))
    })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").chars().take(512).collect()
}

/// Panics so far.
pub(crate) fn samples(samples: &mut Samples) {
    samples.describe(&PANICS);
    for (task, count) in COUNTS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        samples.count(&PANICS, &[task], *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error_and_is_counted() {
        assert_eq!(guarded("fine", async { is_guarded() }).await, Ok(true));
        assert!(!is_guarded());
        let outcome = guarded("guard-test", async {
            tokio::task::yield_now().await;
            panic!("wide space");
        });
        assert_eq!(outcome.await, Err::<(), _>(Panicked("wide space".into())));
        assert!(!is_guarded());
        let mut all = Samples::default();
        samples(&mut all);
        assert!(all.text().contains("liqo_panics_total{task=\"guard-test\"} 1\n"));
    }

    #[tokio::test]
    async fn work_for_a_peer_begins_again() {
        let tries = Cell::new(0);
        supervised("supervised-test", "milan", || async {
            tries.set(tries.get() + 1);
            assert!(tries.get() > 1, "not yet");
        })
        .await;
        assert_eq!(tries.get(), 2);
    }

    #[test]
    fn guards_may_be_nested() {
        let outcome = guarded_now("outer", || {
            let inner: Result<(), _> = guarded_now("inner", || panic!("{}", "x"));
            (inner.is_err(), is_guarded())
        });
        assert_eq!(outcome, Ok((true, true)));
    }
}
