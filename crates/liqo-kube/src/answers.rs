//! The metric `rest_client_requests_total` of client-go: answers of API servers, by status code.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::metrics::{Metric, Samples};

const ANSWERS: Metric = Metric::counter(
    "rest_client_requests_total",
    "Requests to API servers by status code (of client-go: an error where there is no answer), method, and host: home or peer.",
    &["code", "method", "host"],
);

/// Number of answers of this process. Codes of peers are counted as they are if HTTP knows them, so that their number is bounded.
static COUNTS: Mutex<BTreeMap<Answer, u64>> = Mutex::new(BTreeMap::new());

/// Status code (none: no answer), method and host.
type Answer = (Option<u16>, &'static str, &'static str);

/// Whose API server a client asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    Home,
    Peer,
}

/// Counts the answers that a client gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counting(pub(crate) Host);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { inner, host: self.0 }
    }
}

/// A client whose answers are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    inner: S,
    host: Host,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (method, host) = (method(request.method()), self.host);
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            count(answer.as_ref().ok().map(|answer| answer.status().as_u16()), method, host);
            answer
        }
        .boxed()
    }
}

fn count(code: Option<u16>, method: &'static str, host: Host) {
    let host = match host {
        Host::Home => "home",
        Host::Peer => "peer",
    };
    let code = code.map(|code| if (100..600).contains(&code) { code } else { 600 });
    *COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry((code, method, host)).or_default() += 1;
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

/// Answers so far.
pub(crate) fn samples(samples: &mut Samples) {
    samples.describe(&ANSWERS);
    for ((code, method, host), count) in COUNTS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        samples.count(&ANSWERS, &[&code, method, host], *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_code_and_what_is_no_code_is_one() {
        for code in [Some(201), Some(201), None, Some(777), Some(998)] {
            count(code, "OTHER", Host::Peer);
        }
        let mut all = Samples::default();
        samples(&mut all);
        let text = all.text();
        for (code, count) in [("201", 2), ("<error>", 1), ("600", 2)] {
            let line = format!("rest_client_requests_total{{code=\"{code}\",method=\"OTHER\",host=\"peer\"}} {count}");
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
