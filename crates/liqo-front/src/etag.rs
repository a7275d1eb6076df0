//! Entity tags and preconditions (RFC 9110, 8.8.3 and 13), and answers that carry them.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, VARY},
};
use ring::digest::{SHA256, digest};

use crate::problem::Problem;

/// The strong tag of a representation: equal bytes have equal tags, whoever asks.
pub fn of(body: &[u8]) -> String {
    let hash = digest(&SHA256, body);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]))
}

/// What the preconditions of a request say about a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The request is to be answered.
    Met,
    /// The caller has the representation already: 304.
    NotModified,
    /// The representation is another one than the caller means: 412.
    Failed,
}

/// Evaluates `If-Match`, then `If-None-Match`, against the tag of the current representation.
pub fn precondition(method: &Method, headers: &HeaderMap, tag: &str) -> Precondition {
    if let Some(false) = listed(headers, &IF_MATCH, tag, false) {
        return Precondition::Failed;
    }
    match listed(headers, &IF_NONE_MATCH, tag, true) {
        Some(true) if matches!(*method, Method::GET | Method::HEAD) => Precondition::NotModified,
        Some(true) => Precondition::Failed,
        _ => Precondition::Met,
    }
}

/// Whether the header names the tag; `None` without the header. Weak tags count in weak comparison only.
fn listed(headers: &HeaderMap, name: &HeaderName, tag: &str, weak: bool) -> Option<bool> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let texts = values.filter_map(|value| value.to_str().ok());
    Some(texts.flat_map(|text| text.split(',')).map(str::trim).any(|one| {
        let one = if weak { one.strip_prefix("W/").unwrap_or(one) } else { one };
        one == "*" || one == tag
    }))
}

/// Answers a reading request with a representation, its tag, and what may be kept of it: by the caller only, and never
/// shown again without asking.
pub fn answer(method: &Method, headers: &HeaderMap, media_type: &'static str, body: Vec<u8>) -> Response {
    let tag = of(&body);
    let mut response = match precondition(method, headers, &tag) {
        Precondition::Failed => {
            let detail = format!("the current representation has the tag {tag}, which the request excludes");
            return Problem::new(StatusCode::PRECONDITION_FAILED, detail).into_response();
        }
        Precondition::NotModified => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        Precondition::Met => {
            let mut response = Response::new(Body::from(Bytes::from(body)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("a tag is a header value"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Authorization, Cookie"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_tag_is_that_of_the_bytes() {
        assert_eq!(of(b"a"), of(b"a"));
        assert_ne!(of(b"a"), of(b"b"));
        assert!(of(b"").starts_with('"') && of(b"").ends_with('"') && of(b"").len() == 24, "{}", of(b""));
    }

    #[test]
    fn preconditions_are_those_of_the_standard() {
        use Precondition::{Failed, Met, NotModified};
        for (method, name, value, wanted) in [
            (Method::GET, IF_NONE_MATCH, "\"x\"", NotModified),
            (Method::HEAD, IF_NONE_MATCH, "\"y\", W/\"x\"", NotModified),
            (Method::GET, IF_NONE_MATCH, "*", NotModified),
            (Method::GET, IF_NONE_MATCH, "\"y\"", Met),
            (Method::PUT, IF_NONE_MATCH, "*", Failed),
            (Method::PUT, IF_MATCH, "\"x\"", Met),
            (Method::PUT, IF_MATCH, "W/\"x\"", Failed),
            (Method::GET, IF_MATCH, "\"y\"", Failed),
            (Method::DELETE, IF_MATCH, "*", Met),
        ] {
            let got = precondition(&method, &headers(name.clone(), value), "\"x\"");
            assert_eq!(got, wanted, "{method} {name}: {value}");
        }
        assert_eq!(precondition(&Method::GET, &HeaderMap::new(), "\"x\""), Met);
    }

    #[test]
    fn an_answer_that_is_known_has_no_body_and_keeps_its_headers() {
        let known = answer(&Method::GET, &headers(IF_NONE_MATCH, &of(b"{}")), "application/json", b"{}".to_vec());
        assert_eq!((known.status(), known.headers()[ETAG].to_str().unwrap()), (StatusCode::NOT_MODIFIED, &*of(b"{}")));
        assert!(!known.headers().contains_key(CONTENT_TYPE));
        let other = answer(&Method::GET, &headers(IF_MATCH, "\"z\""), "application/json", b"{}".to_vec());
        assert_eq!(other.status(), StatusCode::PRECONDITION_FAILED);
    }
}
