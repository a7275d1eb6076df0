//! Limits of the answers of an API server, by the kind of request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, Uri};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::BoxError;

/// Longest word on health or version, in bytes.
const SHORT: usize = 64 * 1024;
/// Longest answer of any other kind: a page of a list, an object, metrics. No object is longer than about 1.5 MiB.
const PAGE: usize = 16 * 1024 * 1024;
/// Longest line of a watch: one object and its envelope.
const LINE: usize = 4 * 1024 * 1024;
/// So long an answer may take to begin, and be silent once it has begun.
const PATIENCE: Duration = Duration::from_secs(15);
/// So long a watch may take to begin: an API server may have to fill its cache first. (How long it may be silent says
/// whoever watches.)
const WATCH_PATIENCE: Duration = Duration::from_secs(60);

/// How much an answer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// So many bytes in all.
    Whole(usize),
    /// At most this many bytes between two line feeds.
    Lines,
    /// Bytes pass through: logs, and connections to pods.
    Stream,
}

/// Whether a request asks for a watch.
pub(super) fn is_watch(uri: &Uri) -> bool {
    Bound::of(uri.path(), uri.query()) == Bound::Lines
}

impl Bound {
    fn of(path: &str, query: Option<&str>) -> Self {
        let asks = |what: [&str; 2]| query.is_some_and(|query| query.split('&').any(|part| what.contains(&part)));
        if asks(["watch=true", "watch=1"]) {
            return Self::Lines;
        }
        match path.split('/').collect::<Vec<_>>()[..] {
            ["", "livez" | "readyz" | "healthz" | "version"] => Self::Whole(SHORT),
            [.., "pods", _, "log" | "exec" | "attach" | "portforward"] => Self::Stream,
            _ => Self::Whole(PAGE),
        }
    }

    fn patience(self) -> Option<Duration> {
        match self {
            Self::Whole(_) => Some(PATIENCE),
            Self::Lines => Some(WATCH_PATIENCE),
            Self::Stream => None,
        }
    }
}

/// A client whose answers are limited.
#[derive(Clone)]
pub(super) struct Bounded<S>(pub(super) S);

impl<S, I, B> Service<Request<I>> for Bounded<S>
where
    S: Service<Request<I>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<BoundBody<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let bound = Bound::of(request.uri().path(), request.uri().query());
        let answer = self.0.call(request);
        async move {
            let answer = match bound.patience() {
                Some(patience) => tokio::time::timeout(patience, answer)
                    .await
                    .map_err(|_| format!("no answer within {} s", patience.as_secs()))?,
                None => answer.await,
            };
            Ok(answer.map_err(Into::into)?.map(|body| BoundBody::new(body, bound)))
        }
        .boxed()
    }
}

/// A body that fails instead of costing too much.
pub(super) struct BoundBody<B> {
    inner: B,
    bound: Bound,
    /// Bytes that count.
    seen: usize,
    silence: Option<Pin<Box<Sleep>>>,
}

impl<B> BoundBody<B> {
    fn new(inner: B, bound: Bound) -> Self {
        let silence = matches!(bound, Bound::Whole(_)).then(|| Box::pin(tokio::time::sleep(PATIENCE)));
        Self { inner, bound, seen: 0, silence }
    }

    fn count(&mut self, data: &[u8]) -> Result<(), BoxError> {
        let most = match self.bound {
            Bound::Stream => return Ok(()),
            Bound::Whole(most) => {
                self.seen = self.seen.saturating_add(data.len());
                most
            }
            Bound::Lines => {
                self.seen = match data.iter().rposition(|byte| *byte == b'\n') {
                    Some(end) => data.len() - end - 1,
                    None => self.seen.saturating_add(data.len()),
                };
                LINE
            }
        };
        if self.seen > most { Err(format!("the answer is longer than {most} bytes").into()) } else { Ok(()) }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for BoundBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            if let Some(silence) = &mut this.silence {
                ready!(silence.as_mut().poll(cx));
                let why = format!("the answer stopped for {} s", PATIENCE.as_secs());
                return Poll::Ready(Some(Err(why.into())));
            }
            return Poll::Pending;
        };
        if let Some(silence) = &mut this.silence {
            silence.as_mut().reset(Instant::now() + PATIENCE);
        }
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            this.count(frame.data_ref().map_or(&[], |data| &data[..]))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[test]
    fn what_is_asked_says_how_long_an_answer_may_be() {
        for (asked, bound) in [
            ("/livez", Bound::Whole(SHORT)),
            ("/version", Bound::Whole(SHORT)),
            ("/api/v1/pods?limit=200", Bound::Whole(PAGE)),
            ("/api/v1/pods?limit=200&watch=true&resourceVersion=1", Bound::Lines),
            ("/api/v1/pods?watch=false", Bound::Whole(PAGE)),
            ("/api/v1/namespaces/a/pods/b/log?follow=true", Bound::Stream),
            ("/api/v1/namespaces/a/pods/b/exec?command=sh", Bound::Stream),
            ("/api/v1/namespaces/log/pods/exec", Bound::Whole(PAGE)),
            ("/api/v1/namespaces/a/configmaps/version", Bound::Whole(PAGE)),
        ] {
            let uri: Uri = asked.parse().unwrap();
            assert_eq!(Bound::of(uri.path(), uri.query()), bound, "{asked}");
        }
    }

    async fn read(bound: Bound, frames: Vec<Vec<u8>>) -> Result<usize, String> {
        let frames = frames.into_iter().map(|data| Ok::<_, BoxError>(Frame::data(Bytes::from(data))));
        let body = BoundBody::new(StreamBody::new(futures::stream::iter(frames)), bound);
        body.collect().await.map(|all| all.to_bytes().len()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_whole_answer_is_bounded_and_so_is_each_line_of_a_watch() {
        assert_eq!(read(Bound::Whole(10), vec![vec![0; 5], vec![0; 5]]).await, Ok(10));
        assert!(read(Bound::Whole(10), vec![vec![0; 5], vec![0; 6]]).await.unwrap_err().contains("longer than 10"));
        let line = [vec![b' '; LINE / 2], b"\n".to_vec()].concat();
        assert!(read(Bound::Lines, vec![line; 10]).await.is_ok(), "many lines are no long line");
        assert!(read(Bound::Lines, vec![vec![b' '; LINE / 2]; 3]).await.is_err());
        assert_eq!(read(Bound::Stream, vec![vec![b' '; LINE]; 5]).await, Ok(5 * LINE));
    }
}
