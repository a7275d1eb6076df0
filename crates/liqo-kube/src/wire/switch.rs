//! A client whose way to the API server can be replaced while the client is in use.
//!
//! Keeps true: a request uses the way that is current when the request begins, until its end. So answers, logs and upgraded
//! connections outlive a replacement. Watches do not: a watch would stay with the old certificate for minutes, so it ends, in
//! order, and whoever watches resumes the watch over the new way. The connections of the old way are closed when they are idle.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use kube::{Client, client::Body};
use tokio_util::sync::CancellationToken;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    BoxError,
    bound::{self, BoundBody},
};
use crate::answers::{Counting, Host};

/// An answer that is on its way.
type Answer = BoxFuture<'static, Result<Response<BoundBody<Incoming>>, BoxError>>;

/// Connections to one API server with one identity.
pub(crate) struct Way {
    send: Box<dyn Fn(Request<Body>) -> Answer + Send + Sync>,
    replaced: CancellationToken,
}

impl Way {
    /// The way that requests take through `service`.
    pub(super) fn through<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<BoundBody<Incoming>>, Error = BoxError, Future = Answer>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        // A service of hyper is always ready.
        let send = Box::new(move |request| service.clone().call(request));
        Self { send, replaced: CancellationToken::new() }
    }
}

/// The current way; clones share it.
#[derive(Clone)]
pub(crate) struct Switch(Arc<RwLock<Way>>);

impl Switch {
    /// Starts with `way`.
    pub(crate) fn new(way: Way) -> Self {
        Self(Arc::new(RwLock::new(way)))
    }

    /// A client whose requests take the current way.
    pub(crate) fn client(&self) -> Client {
        Client::new(Counting(Host::Peer).layer(self.clone()), "default")
    }

    /// Requests that begin from now on take `way`; watches end.
    pub(crate) fn replace(&self, way: Way) {
        let old = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), way);
        old.replaced.cancel();
    }
}

impl Service<Request<Body>> for Switch {
    type Response = Response<Until>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_watch = bound::is_watch(request.uri());
        let way = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let end = is_watch.then(|| way.replaced.clone().cancelled_owned().boxed());
        let answer = (way.send)(request);
        async move { Ok(answer.await?.map(|inner| Until { inner, end })) }.boxed()
    }
}

/// The body of an answer, which ends early when `end` comes.
pub(crate) struct Until {
    inner: BoundBody<Incoming>,
    end: Option<BoxFuture<'static, ()>>,
}

impl hyper::body::Body for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            // Polled no more: the body stays at its end.
            self.end = Some(futures::future::ready(()).boxed());
            return Poll::Ready(None);
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
