//! Watching by server-sent events.
//!
//! Keeps true: streams are bounded in number, for each user and in all, and in time; a slow reader holds no memory but one
//! event; a stream does not delay the end of its process. A browser connects again by itself when a stream has ended.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::stream::{self, Stream};
use http::{
    HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use liqo_kube::drain::Drain;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use crate::problem::Problem;

/// Streams at the same time, and those of one user.
const MOST: usize = 128;
const MOST_OF_ONE: usize = 16;
/// How long a stream lasts; who follows connects again.
const LIFE: Duration = Duration::from_secs(600);
/// What a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(3);
/// Changes that come together are told together.
const TOGETHER: Duration = Duration::from_millis(500);
/// How often a stream looks again whether its caller still may see what the stream tells, and says that the stream lives.
pub const TICK: Duration = Duration::from_secs(10);

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, which scripts listen for.
    name: &'static str,
    /// One line of JSON.
    data: String,
}

impl Event {
    /// An event with this name that carries `data` as JSON.
    pub fn new(name: &'static str, data: &impl Serialize) -> Self {
        Self { name, data: serde_json::to_string(data).expect("an event is JSON") }
    }

    fn text(&self) -> String {
        format!("event: {}\ndata: {}\n\n", self.name, self.data)
    }
}

/// What comes next in a stream.
enum Next {
    /// Events, in their order; none: a comment, so that nobody on the way takes the stream for dead.
    Events(Vec<Event>),
    /// The last one: why the stream ends.
    End(Problem),
}

impl Next {
    fn text(&self) -> String {
        match self {
            Self::Events(events) if events.is_empty() => ":\n\n".to_owned(),
            Self::Events(events) => events.iter().map(Event::text).collect(),
            Self::End(problem) => Event::new("problem", problem).text(),
        }
    }
}

/// The streams of this process, by user.
#[derive(Clone, Default)]
pub struct Streams {
    by_user: Arc<Mutex<HashMap<String, usize>>>,
    drain: Drain,
}

/// The place of one stream among those that are counted; dropping the place frees it for another stream.
pub struct Place {
    streams: Streams,
    user: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.streams.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.user) {
            *count -= 1;
        }
        all.retain(|_, count| *count > 0);
    }
}

impl Streams {
    /// No streams yet; all will end when `drain` closes.
    pub fn new(drain: Drain) -> Self {
        Self { by_user: Arc::default(), drain }
    }

    /// A place for a stream of this user.
    ///
    /// # Errors
    /// 429 when there are too many.
    pub fn take(&self, user: &str) -> Result<Place, Problem> {
        let mut all = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = all.get(user).copied().unwrap_or_default();
        if mine >= MOST_OF_ONE || all.values().sum::<usize>() >= MOST {
            return Err(Problem::too_many(RETRY));
        }
        all.insert(user.to_owned(), mine + 1);
        Ok(Place { streams: self.clone(), user: user.to_owned() })
    }
}

/// Waits until the number in `changes` has changed, and then for changes that come together; for [`TICK`] at most when there is no
/// change.
async fn change(changes: &mut watch::Receiver<u64>) {
    if let Ok(Ok(())) = tokio::time::timeout(TICK, changes.changed()).await {
        tokio::time::sleep(TOGETHER).await;
    }
}

/// Answers with changes: `look` is asked at the beginning, with nothing, and after each change with the value that it gave last; it
/// gives the value now and what to tell, or the problem that ends the stream.
pub fn follow<S, F>(
    place: Place,
    changes: watch::Receiver<u64>,
    look: impl FnMut(Option<S>) -> F + Clone + Send + Sync + 'static,
) -> Response
where
    S: Send + 'static,
    F: Future<Output = Result<(S, Vec<Event>), Problem>> + Send,
{
    answer(place, (changes, None), move |(mut changes, last)| {
        let mut look = look.clone();
        async move {
            if last.is_some() {
                change(&mut changes).await;
            }
            changes.mark_unchanged();
            match look(last).await {
                Ok((now, events)) => (Next::Events(events), (changes, Some(now))),
                Err(problem) => (Next::End(problem), (changes, None)),
            }
        }
    })
}

/// Answers with a stream: `next` is asked again and again, with the state that the last call gave back.
fn answer<S, F>(place: Place, state: S, next: impl FnMut(S) -> F + Send + 'static) -> Response
where
    S: Send + 'static,
    F: Future<Output = (Next, S)> + Send,
{
    let until = Instant::now() + LIFE;
    let first = Bytes::from(format!("retry: {}\n\n", RETRY.as_millis()));
    let rest = stream::unfold(Some((state, next, place)), move |running| async move {
        let (state, mut next, place) = running?;
        let (what, state) = tokio::select! {
            next = tokio::time::timeout_at(until, next(state)) => next.ok()?,
            () = place.streams.drain.closing() => return None,
        };
        let running = matches!(what, Next::Events(_)).then_some((state, next, place));
        Some((Bytes::from(what.text()), running))
    });
    let all = stream::StreamExt::chain(stream::iter([first]), rest);
    let mut response = Response::new(Body::from_stream(stream::StreamExt::map(all, Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A body that lasts, like a log that is followed, for a caller whose right is looked at again and again: the body breaks off when
/// `still` refuses, and ends with its process.
pub fn guarded<S, F>(place: Place, pieces: S, every: Duration, still: impl FnMut() -> F + Send + 'static) -> Body
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    F: Future<Output = Result<(), Problem>> + Send,
{
    let tick = tokio::time::interval_at(Instant::now() + every, every);
    let body = stream::unfold(Some((pieces, still, tick, place)), |running| async move {
        let (mut pieces, mut still, mut tick, place) = running?;
        loop {
            let piece = tokio::select! {
                // First: pieces that come without end must not hide that the right is gone.
                biased;
                () = place.streams.drain.closing() => return None,
                _ = tick.tick() => match still().await {
                    Ok(()) => continue,
                    Err(problem) => return Some((Err(io::Error::other(problem.detail)), None)),
                },
                piece = stream::StreamExt::next(&mut pieces) => piece?,
            };
            return Some((piece, Some((pieces, still, tick, place))));
        }
    });
    Body::from_stream(body)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt;
    use liqo_kube::drain::Patience;

    use super::*;

    #[test]
    fn an_event_is_lines_that_data_cannot_break() {
        let event = Event::new("peer", &serde_json::json!({"name": "a\n\ndata: b"}));
        assert_eq!(event.text(), "event: peer\ndata: {\"name\":\"a\\n\\ndata: b\"}\n\n");
        assert_eq!(Next::Events(Vec::new()).text(), ":\n\n");
    }

    #[test]
    fn one_user_cannot_take_all_streams() {
        let streams = Streams::default();
        let mut mine: Vec<_> = (0..MOST_OF_ONE).map(|_| streams.take("ada").unwrap()).collect();
        assert_eq!(streams.take("ada").err().map(|problem| problem.status), Some(429));
        assert!(streams.take("bob").is_ok());
        mine.pop();
        assert!(streams.take("ada").is_ok());
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_problem_and_gives_its_place_back() {
        let streams = Streams::default();
        let response = answer(streams.take("ada").unwrap(), 0, |count| async move {
            match count {
                0 => (Next::Events(vec![Event::new("n", &count)]), count + 1),
                _ => (Next::End(Problem::new(StatusCode::UNAUTHORIZED, "over")), count),
            }
        });
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.starts_with("retry: 3000\n\nevent: n\ndata: 0\n\nevent: problem\ndata: {"), "{text}");
        assert!(streams.by_user.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_breaks_off_when_the_right_of_its_reader_ends() {
        let streams = Streams::default();
        let pieces = stream::StreamExt::boxed(stream::unfold((), |()| async {
            tokio::task::yield_now().await;
            Some((Ok(Bytes::from_static(b"x")), ()))
        }));
        let mut asked = 0;
        let body = guarded(streams.take("ada").unwrap(), pieces, Duration::from_millis(20), move || {
            asked += 1;
            let refused = asked > 2;
            async move { if refused { Err(Problem::new(StatusCode::FORBIDDEN, "over")) } else { Ok(()) } }
        });
        let ended = tokio::time::timeout(Duration::from_secs(30), body.collect()).await.unwrap();
        assert!(ended.unwrap_err().to_string().contains("over"));
        assert!(streams.by_user.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_process_does() {
        let drain = Drain::default();
        let streams = Streams::new(drain.clone());
        let silent = answer(streams.take("ada").unwrap(), (), |()| std::future::pending());
        let body = tokio::spawn(silent.into_body().collect());
        drain.end(Patience { accept: Duration::ZERO, finish: Duration::ZERO }).await;
        let text = tokio::time::timeout(Duration::from_secs(5), body).await.unwrap().unwrap().unwrap().to_bytes();
        assert_eq!(&text[..], b"retry: 3000\n\n");
        assert!(streams.by_user.lock().unwrap().is_empty());
    }
}
