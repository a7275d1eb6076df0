//! The control loop: workers settle the keys of a queue, and a key that failed is settled again later.
//!
//! Invariant: a panic while a key is settled counts as a failure of that key; all other keys go on.

use std::{
    error::Error,
    fmt,
    future::Future,
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    KubeError, Queue,
    guard::{Panicked, guarded},
    metrics::{Outcome, Work},
    queue::LONGEST_PAUSE,
};

/// First pause when somebody else was quicker: only our view must catch up.
const FIRST_PAUSE_AFTER_CONFLICT: Duration = Duration::from_millis(10);
/// First pause after any other failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A key is being settled. If that is given up midway, the key waits again.
struct Turn<'a, K: Clone + Eq + Hash + Send + Sync + 'static> {
    queue: &'a Queue<K>,
    key: Option<K>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.queue.give_back(key);
        }
    }
}

/// Why a key was not settled.
enum Failure<E> {
    Error(E),
    Panic(Panicked),
}

impl<E: Error + 'static> Failure<E> {
    /// Another writer came first, and the store will show its version soon. No log line for users.
    fn is_conflict(&self) -> bool {
        match self {
            Self::Error(error) => (error as &dyn Error).downcast_ref::<KubeError>().is_some_and(KubeError::is_conflict),
            Self::Panic(_) => false,
        }
    }

    fn first_pause(&self) -> Duration {
        if self.is_conflict() { FIRST_PAUSE_AFTER_CONFLICT } else { FIRST_PAUSE }
    }

    /// Logs the failure; the span names controller and key.
    fn tell(&self) {
        match self {
            Self::Error(error) if self.is_conflict() => {
                tracing::debug!(error = chain(error), "changed meanwhile, will be tried again");
            }
            Self::Error(error) => tracing::warn!(error = chain(error), "not settled, will be tried again"),
            Self::Panic(panic) => tracing::error!(error = %panic, "not settled, will be tried again"),
        }
    }
}

/// Reconciliations that this process has begun: the `id` of the next one, by which the lines of one reconciliation are found.
static BEGUN: AtomicU64 = AtomicU64::new(1);

/// Settles keys for ever, `workers` at a time. `settle` says when it wants to look again, if at all;
/// An error or a panic becomes one log line, and the key is tried again. Log lines of one reconciliation carry its controller,
/// key and `id`.
pub async fn drive<K, E, F>(name: &'static str, queue: Queue<K>, workers: usize, settle: impl Fn(K) -> F + Send + Sync)
where
    K: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
    F: Future<Output = Result<Option<Duration>, E>> + Send,
{
    let work = Work::of(name, queue.depth());
    let worker = || async {
        loop {
            let key = queue.next().await;
            let mut turn = Turn { queue: &queue, key: Some(key.clone()) };
            let span =
                tracing::info_span!("reconcile", controller = name, ?key, id = BEGUN.fetch_add(1, Ordering::Relaxed));
            let began = Instant::now();
            let settled = guarded(name, async { settle(key.clone()).await }).instrument(span.clone());
            let outcome = match settled.await {
                Ok(outcome) => outcome.map_err(Failure::Error),
                Err(panic) => Err(Failure::Panic(panic)),
            };
            turn.key = None;
            let pause = queue.done(&key, outcome.as_ref().err().map(Failure::first_pause));
            let took = began.elapsed();
            match outcome {
                Ok(None) => work.done(Outcome::Success, took),
                Ok(Some(later)) => {
                    work.done(Outcome::RequeueAfter, took);
                    queue.push_after(key, later);
                }
                Err(failure) => {
                    work.done(Outcome::Error, took);
                    span.in_scope(|| failure.tell());
                    queue.push_after(key, pause.unwrap_or(LONGEST_PAUSE));
                }
            }
        }
    };
    futures::future::join_all((0..workers.max(1)).map(|_| worker())).await;
}

/// An error with all its causes, on one line. Some errors say their cause themselves: a cause that ends the text already is not
/// said again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{says}")]
        struct Said {
            says: &'static str,
            source: Option<Box<Said>>,
        }
        let said = |says, source: Option<Said>| Said { says, source: source.map(Box::new) };
        let missing = || said("no such file", None);
        for (error, wanted) in [
            (missing(), "no such file"),
            (said("reading a", Some(missing())), "reading a: no such file"),
            (said("reading a: no such file", Some(missing())), "reading a: no such file"),
            (said("start", Some(said("reading a: no such file", Some(missing())))), "start: reading a: no such file"),
        ] {
            assert_eq!(chain(&error), wanted);
        }
    }

    #[tokio::test]
    async fn a_key_that_panics_is_tried_again_and_the_others_go_on() {
        let queue = Queue::new();
        ["bad", "good"].into_iter().for_each(|key| queue.push(key));
        let settled = Arc::new(Mutex::new(Vec::new()));
        let (driven, seen) = (queue.clone(), Arc::clone(&settled));
        let task = tokio::spawn(async move {
            drive("test", driven, 1, |key| {
                let tries = seen.lock().unwrap().iter().filter(|one| **one == key).count();
                seen.lock().unwrap().push(key);
                async move {
                    assert!(key == "good" || tries > 0, "the first time");
                    Ok::<_, KubeError>(None)
                }
            })
            .await;
        });
        let all = async {
            while settled.lock().unwrap().len() < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), all).await.unwrap();
        assert_eq!(*settled.lock().unwrap(), ["bad", "good", "bad"]);
        task.abort();
    }

    #[tokio::test]
    async fn what_is_given_up_midway_waits_again() {
        let queue = Queue::new();
        queue.push("a");
        let forever = drive("test", queue.clone(), 1, |_| std::future::pending::<Result<_, KubeError>>());
        assert!(tokio::time::timeout(Duration::from_millis(20), forever).await.is_err());
        assert_eq!(queue.next().await, "a");
    }

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_of_one_reconciliation_carry_its_key_and_id() {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(lines);
        let queue = Queue::new();
        ["a", "b"].into_iter().for_each(|key| queue.push(key));
        let work = drive("log-test", queue, 2, |key| async move {
            tokio::task::yield_now().await;
            tracing::info!("looked");
            if key == "b" { Err(io::Error::other("no")) } else { Ok(None) }
        });
        assert!(tokio::time::timeout(Duration::from_millis(100), work).await.is_err());
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let of = |key: &str| -> Vec<&str> {
            let key = format!("reconcile{{controller=\"log-test\" key=\"{key}\" id=");
            text.lines().filter_map(|line| line.split_once(&key)).map(|(_, rest)| rest).collect()
        };
        let (a, b) = (of("a"), of("b"));
        assert_eq!((a.len(), b.len(), text.lines().count()), (1, 2, 3), "{text}");
        let id = |rest: &str| rest.split_once('}').unwrap().0.to_owned();
        assert!(id(b[0]) == id(b[1]) && id(a[0]) != id(b[0]), "{text}");
        assert!(b[1].contains("not settled, will be tried again error=\"no\""), "{text}");
    }
}
